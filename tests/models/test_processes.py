from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.checkpoint import load_state
from models.processes import Processes

ROOT = Path(__file__).parents[2]


def _environment(data: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "CLEANPLATE_DATA": str(data), "OMP_NUM_THREADS": "1"}


@pytest.mark.timeout(120)  # seconds of work, on a machine that may be doing other things
def test_two_processes_train_one_model(make_export, tmp_path):
    """Started by torchrun: both average their gradients, one writes the files and speaks."""
    settings = ("training.steps=3", "training.patch_px=16", "training.batch=2", "training.validation_pairs=0")

    shown = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "models",
            "train", "nafnet", "--data", str(make_export()), "--config", "tiny", "--out", "both", "--json",
            *(word for setting in settings for word in ("--set", setting)),
        ],
        capture_output=True, text=True, env=_environment(tmp_path), cwd=tmp_path, timeout=110, check=False,
    )  # fmt: skip

    assert shown.returncode == 0, shown.stderr[-2000:]
    result = json.loads(shown.stdout)
    assert result["steps"] == 3
    assert Path(result["checkpoint"]).is_file()
    logged = [
        json.loads(line) for line in (tmp_path / "runs" / "both" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in logged] == [3]


@pytest.mark.timeout(120)
def test_weights_in_shards_train_and_resume_as_whole_ones(make_export, tmp_path):
    """Two steps: whole and in shards they differ by rounding alone; stopped after one and resumed, by nothing.

    The sums over pictures are taken in another order, so each of two steps of 0.002 may move by float32's 1e-7.
    """
    export = make_export()
    command = [sys.executable, str(Path(__file__).with_name("two_processes.py"))]
    children = [
        subprocess.Popen(
            [*command, str(tmp_path), str(export)],
            env={**_environment(tmp_path), "WORLD_SIZE": "2", "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [child.communicate(timeout=110)[1] for child in children]
    finally:
        for child in children:
            child.kill()

    assert [child.returncode for child in children] == [0, 0], said
    runs = tmp_path / "runs"
    for folder in ("checkpoints", "state"):
        whole, shards, resumed = (
            load_file(runs / name / folder / "step-000002.safetensors")
            for name in ("whole", "shards", "resumed")
        )
        assert all(torch.allclose(whole[name], shards[name], rtol=0, atol=1e-6) for name in whole)
        assert all(torch.equal(shards[name], resumed[name]) for name in whole)
    states = [load_state(runs / name / "state" / "step-000002.pt") for name in ("whole", "shards")]
    moments = [state["optimiser"]["state"][0]["exp_avg"] for state in states]
    assert torch.allclose(*moments, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("device", "local_rank", "expected"), [("cuda", "3", "cuda:3"), ("cpu", "3", "cpu")])
def test_each_process_of_a_machine_has_a_device_of_its_own(monkeypatch, device, local_rank, expected):
    for name, value in {"WORLD_SIZE": "8", "RANK": "3", "LOCAL_RANK": local_rank}.items():
        monkeypatch.setenv(name, value)

    assert Processes(device, "ddp").device == torch.device(expected)


def test_a_process_alone_keeps_the_device_it_was_given(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)

    alone = Processes("cuda:1", "fsdp")

    assert alone.device == torch.device("cuda:1")
    assert alone.leads
    assert not alone.sharded
