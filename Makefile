# Everything sets itself up in .venv; nothing else has to be typed.
PYTHON ?= python3.11
BIN := .venv/bin
SCENE ?=
TESTS ?= tests
export PYTHONUNBUFFERED := 1
# Hundreds of short processes start in the tests; each would compile all sources anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all lint bench bench-alignment bench-catalog bench-models bench-rig bench-render bench-kill setup clean

demo: setup ## simulated rig to trained model, in minutes (SCENE=folder for your own photographs)
	$(BIN)/python -P benchmarks/demo.py $(if $(SCENE),--scene $(SCENE))

test: lint ## linters, types, import contracts and the fast test suite
	$(BIN)/python -P -m pytest -n 3 --dist worksteal $(TESTS)

test-all: lint ## the same with the nightly counts: a thousand kills, every fault in every phase, all seeds
	CLEANPLATE_NIGHTLY=1 $(BIN)/python -P -m pytest -n 2 --dist worksteal --timeout 3600 $(TESTS)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup bench-render bench-rig bench-alignment bench-catalog ## every benchmark; JSON into benchmarks/results

bench-render: setup
	$(BIN)/python -P benchmarks/render.py

bench-rig: setup ## stop latency, fuzzed serial lines, UVC, dead time, kills: results/rig.json (about 20 minutes)
	$(BIN)/python -P benchmarks/rig.py

bench-alignment: setup ## registration beside six rivals, planted bad pairs, speed, real pairs (about two hours)
	$(BIN)/python -P -m benchmarks.alignment --jobs 2
	$(BIN)/python -P -m benchmarks.alignment_planted --places 20 --jobs 2
	$(BIN)/python -P -m benchmarks.alignment_speed
	$(BIN)/python -P -m benchmarks.real_pairs
	$(BIN)/python -P -m benchmarks.calibration

bench-catalog: setup ## a million pairs on SQLite and PostgreSQL, exports, loader (about 20 minutes)
	$(BIN)/python -P -m benchmarks.catalog
	$(BIN)/python -P -m benchmarks.catalog_loader

bench-models: setup ## models on captured pairs: goldens, experts, router, speed (hours; `--part` for one)
	$(BIN)/python -P -m benchmarks.models

bench-kill: setup ## kill -9 of rig record, twenty times
	$(BIN)/python -P benchmarks/kill_record.py

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "cleanplate needs $(PYTHON) (Debian: apt install python3.11-venv)"; exit 3; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	$(BIN)/python -P -m alignment.kernels
	touch $@

clean:
	rm -rf .venv cleanplate-data
