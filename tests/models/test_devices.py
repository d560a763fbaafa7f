from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_runs import call_at, tiny_job
from torch import Tensor

from catalog.errors import ExitCode
from models.devices import find_device, memory_told
from models.errors import DeviceMemoryError, DeviceMissingError
from models.loading import load
from models.restore import restore_pixels
from models.train import train


def _ask_for_a_petabyte() -> Tensor:
    return torch.empty(2**50, dtype=torch.uint8)


class Greedy:
    def restore(self, lq: Tensor) -> Tensor:
        return _ask_for_a_petabyte() + lq


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "", "cuda:x"])
def test_a_device_that_is_not_there_is_named(name):
    with pytest.raises(DeviceMissingError, match=f"device {name}: .*give --device cpu") as caught:
        find_device(name)

    assert caught.value.exit_code == ExitCode.MISSING
    assert len(str(caught.value).splitlines()) == 1


def test_the_processor_is_always_there():
    assert find_device("cpu") == torch.device("cpu")


def test_a_missing_device_is_told_before_a_run_is_made_or_a_model_is_built(
    make_export, tmp_path, console, saved_run
):
    job = tiny_job(make_export(), tmp_path, device="cuda:99")

    with pytest.raises(DeviceMissingError):
        train(job, console)
    with pytest.raises(DeviceMissingError):
        load(saved_run("nafnet", "tiny"), device="cuda:99")

    assert not job.run.path.exists()


def test_a_tile_too_large_for_the_memory_is_told_in_pixels():
    with pytest.raises(
        DeviceMemoryError, match="a tile of 6x4 px does not fit into memory; next: make tiles smaller"
    ):
        restore_pixels(Greedy(), np.zeros((4, 6, 3), np.uint8), device=torch.device("cpu"))


def test_crops_too_large_for_the_memory_are_told_with_what_was_kept(
    make_export, tmp_path, console, monkeypatch
):
    job = tiny_job(make_export(), tmp_path, "training.steps=3", "training.checkpoint_every=1")
    call_at(monkeypatch, step=2, action=_ask_for_a_petabyte)

    with pytest.raises(
        DeviceMemoryError, match=r"2 crops of 16 px does not fit.*kept: .*lower training\.batch"
    ):
        train(job, console)

    assert job.run.latest_step() == 1


def test_other_failures_pass_as_they_are():
    with pytest.raises(RuntimeError, match="shape"), memory_told("a thing", next_step="make it smaller"):
        torch.zeros(2, 3) @ torch.zeros(2, 3)
