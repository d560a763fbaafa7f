from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.cli import main
from models.images import plain_picture, read_pixels, write_png

ROOT = Path(__file__).parents[2]


def _models(*arguments: str, data: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "CLEANPLATE_DATA": str(data),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, "-m", "models", *arguments],
        capture_output=True, text=True, env=environment, cwd=data, timeout=50, check=False,
    )  # fmt: skip


@pytest.fixture
def models_here(tmp_path, monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run `models` in this process, which has loaded torch already; answers exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLEANPLATE_DATA", str(tmp_path))

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["models", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return command


@pytest.mark.parametrize(
    "statement", ["import models", "import models.cli", "import models.registry, models.run_folder"]
)
def test_importing_the_package_and_its_commands_loads_no_torch(statement):
    code = f"{statement}\nimport sys\nprint('torch' in sys.modules, 'cv2' in sys.modules, 'skimage' in sys.modules)"

    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True, timeout=30
    )

    assert shown.stdout.split() == ["False"] * 3


def test_help_and_list_need_no_torch(tmp_path):
    code = (
        "import sys, models.cli\n"
        "sys.argv = ['models', *sys.argv[1:]]\n"
        "try: models.cli.main()\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    for arguments in (["--help"], ["list"], ["train", "--help"]):
        shown = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=30,
            check=True,
        )
        assert shown.stderr.split()[-1] == "False", arguments


def test_models_are_listed_with_their_configurations(tmp_path):
    listed = json.loads(_models("list", "--json", data=tmp_path).stdout)

    assert listed["schema"] == 1
    assert listed["models"][0]["name"] == "nafnet"
    assert {"tiny", "small", "32", "demo"} <= set(listed["models"][0]["configs"])


def test_a_model_is_trained_scored_and_used_from_the_command_line(make_export, tmp_path):
    """The path of the README: train on an export, evaluate the run, restore a picture with it."""
    export = make_export(test_classes=["noise", "low_light"])
    write_png(tmp_path / "photo.png", plain_picture(np.full((30, 50, 3), 90, np.uint8)))
    small = [
        "--set",
        "training.steps=2",
        "--set",
        "training.patch_px=16",
        "--set",
        "training.validation_pairs=0",
    ]

    trained = _models(
        "train", "nafnet", "--data", str(export), "--config", "tiny", "--out", "mine", *small, data=tmp_path
    )
    scored = _models("evaluate", "mine", "--data", str(export), "--json", "--no-ssim", data=tmp_path)
    restored = _models("restore", "mine", "photo.png", "-o", "out", data=tmp_path)

    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.split() == [
        str(tmp_path / "runs" / "mine" / "checkpoints" / "step-000002.safetensors")
    ]
    assert "step 2:" in trained.stderr
    document = json.loads(scored.stdout)
    assert document["schema"] == 1
    assert set(document["per_class"]) == {"low_light", "noise"}
    assert {"n", "psnr_lq_db", "psnr_restored_db"} == set(document["per_class"]["noise"])
    assert restored.stdout.split() == [str(Path("out") / "photo.png")]
    assert read_pixels(tmp_path / "out" / "photo.png").shape == (30, 50, 3)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "nafnet", "--data", "EMPTY", "--config", "tiny"], 2, "no pairs in split 'train'"),
        (["train", "nafnet", "--data", "nothing", "--config", "tiny"], 2, "no manifest.jsonl"),
        (["train", "nafnte", "--data", "EMPTY", "--config", "tiny"], 2, "did you mean 'nafnet'"),
        (["train", "nafnet", "--data", "EMPTY"], 2, "needs --config"),
        (
            ["train", "nafnet", "--data", "EMPTY", "--config", "tiny", "--set", "training.stpes=1"],
            2,
            "training.steps",
        ),
        (["evaluate", "--data", "EMPTY"], 2, "needs a RUN or --baseline"),
        (["evaluate", "gone", "--data", "EMPTY"], 3, "no training run 'gone'"),
        (["restore", "gone", "x.png", "-o", "out"], 2, "x.png: no such file"),
    ],
)
def test_wrong_things_get_one_line_and_the_right_exit_code(
    make_export, models_here, arguments, code, message
):
    export = make_export(classes=[], test_classes=["rain"])
    arguments = [str(export) if a == "EMPTY" else a for a in arguments]

    returned, out, error = models_here(*arguments)

    assert returned == code, error
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert out == ""
