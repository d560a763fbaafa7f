"""What a run leaves on the disk: which checkpoints stay, and what a disk that refuses may cost."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import call_at, same_bits, tiny_job, weights_at

import models.training_state
from catalog.errors import ExitCode, InvalidDocumentError
from models.checkpoint import load_state, save_state
from models.errors import CheckpointError, RunExistsError, RunNotFoundError, StorageError
from models.run_folder import RunFolder
from models.train import train


def test_old_checkpoints_go_and_the_best_stay(make_export, tmp_path, console):
    """Six checkpoints: the last two and the best one are kept; the state for resuming only of the last two."""
    job = tiny_job(
        make_export(), tmp_path, "training.steps=6", "training.checkpoint_every=1", "training.validate_every=1",
        "training.validation_pairs=2", "training.keep_last=2", "training.keep_best=1",
    )  # fmt: skip

    train(job, console)

    scores = {v["step"]: v["psnr_db"] for v in job.run.metrics() if v["kind"] == "validation"}
    best = max(scores, key=lambda step: scores[step])
    expected = sorted({5, 6, best})
    assert [saved.step for saved in job.run.saved_steps()] == expected
    assert sorted(p.stem for p in job.run.checkpoints.glob("*.safetensors")) == [
        f"step-{s:06d}" for s in expected
    ]
    assert sorted(p.name for p in job.run.state.iterdir()) == [
        f"step-00000{step}.{kind}" for step in (5, 6) for kind in ("pt", "safetensors")
    ]


def test_a_checkpoint_carries_no_score_of_weights_before_it(make_export, tmp_path, console):
    """Saved after each of five steps, validated after each but the third."""
    job = tiny_job(
        make_export(), tmp_path, "training.steps=5", "training.checkpoint_every=1", "training.validate_every=2",
        "training.validation_pairs=2", "training.keep_last=5",
    )  # fmt: skip

    train(job, console)

    scores = {v["step"]: v["psnr_db"] for v in job.run.metrics() if v["kind"] == "validation"}
    assert {saved.step: saved.psnr_db for saved in job.run.saved_steps()} == {
        step: scores.get(step) for step in range(1, 6)
    }
    assert set(scores) == {1, 2, 4, 5}


def test_a_run_is_not_overwritten(make_export, tmp_path, console):
    job = tiny_job(make_export(), tmp_path, "training.steps=1")
    train(job, console)

    with pytest.raises(RunExistsError, match="--resume") as caught:
        train(job, console)
    assert caught.value.exit_code == ExitCode.INVALID_INPUT


def test_a_run_that_cannot_be_written_is_told_as_such(make_export, tmp_path, console):
    (tmp_path / "file").write_text("no folder")

    with pytest.raises(StorageError, match=r"the run's folder could not be made.*give another --out"):
        train(tiny_job(make_export(), tmp_path, out=str(tmp_path / "file" / "run")), console)


def test_a_full_disk_leaves_the_last_checkpoint_untouched(make_export, tmp_path, console, monkeypatch):
    job = tiny_job(make_export(), tmp_path, "training.steps=3", "training.checkpoint_every=1")

    def full_after_the_first(path: Path, state: object) -> None:
        if "000001" not in path.name:
            raise OSError(28, "No space left on device")
        Path(path).write_bytes(b"state")

    monkeypatch.setattr(models.training_state, "save_state", full_after_the_first)

    with pytest.raises(StorageError, match="No space left on device"):
        train(job, console)
    assert job.run.latest_step() == 1
    assert job.run.weights_path(1).is_file()


@pytest.mark.parametrize("largest_bytes", [8_000, 60_000], ids=["the weights", "the optimiser's state"])
def test_a_disk_that_fills_up_costs_the_checkpoint_in_progress_alone(
    make_export, tmp_path, console, monkeypatch, largest_bytes
):
    """From the second step on the system takes no larger files. With room again the run goes on from the first.

    The 5,759 weights take 23 kB and 9 kB of names; the optimiser's two numbers for each 46 kB, and more for records.
    """
    export = make_export()
    settings = ("training.steps=3", "training.checkpoint_every=1", "training.log_every=1000")
    job, undisturbed = (tiny_job(export, tmp_path, *settings, out=name) for name in ("full", "undisturbed"))
    train(undisturbed, console)

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = (largest_bytes, before[1])
    call_at(monkeypatch, step=2, action=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    try:
        with pytest.raises(StorageError, match="step 2 could not be written: File too large") as caught:
            train(job, console)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        monkeypatch.undo()

    assert job.resume_command in caught.value.next_step
    assert [saved.step for saved in job.run.saved_steps()] == [job.run.latest_step()] == [1]
    assert not list(job.run.path.rglob("*.part"))
    train(replace(job, resume=True), console)
    assert same_bits(weights_at(job.run, 3), weights_at(undisturbed.run, 3))


def test_what_was_logged_after_the_last_checkpoint_stands_once(make_export, tmp_path, console, monkeypatch):
    """Killed in step 6 with a checkpoint of step 4: steps 5 and 6 are made, and logged, again."""
    job = tiny_job(
        make_export(), tmp_path, "training.steps=8", "training.checkpoint_every=4", "training.log_every=1"
    )
    call_at(monkeypatch, step=6, action=_die)
    with pytest.raises(SystemExit):
        train(job, console)
    monkeypatch.undo()
    assert [line["step"] for line in job.run.metrics()] == [1, 2, 3, 4, 5]

    train(replace(job, resume=True), console)

    assert [line["step"] for line in job.run.metrics()] == [1, 2, 3, 4, 5, 6, 7, 8]


def _die() -> None:
    raise SystemExit


@pytest.mark.parametrize("index", ["[{", '[{"step": "last"}]', '{"step": 3}', "\0\1"])
def test_a_damaged_list_of_checkpoints_is_named_and_can_be_done_without(tmp_path, index):
    run = RunFolder(tmp_path)
    run.checkpoints.mkdir()
    for step in (100, 2_000_000):
        run.weights_path(step).touch()
    (run.checkpoints / "index.json").write_text(index)

    with pytest.raises(CheckpointError, match=r"index\.json: is damaged.*kept: the checkpoints.*remove it"):
        run.saved_steps()
    (run.checkpoints / "index.json").unlink()

    assert [(saved.step, saved.psnr_db) for saved in run.saved_steps()] == [(100, None), (2_000_000, None)]


@pytest.mark.parametrize("text", ["", "step-", "newest", "\0step-7", "step-000001\nstep-000002"])
def test_a_name_of_no_checkpoint_is_told_from_no_checkpoint(tmp_path, text):
    run = RunFolder(tmp_path)
    run.checkpoints.mkdir()
    with pytest.raises(RunNotFoundError, match="no complete checkpoint yet"):
        run.latest_step()

    (run.checkpoints / "latest").write_text(text)

    with pytest.raises(CheckpointError, match="names no checkpoint; kept: the checkpoints"):
        run.latest_step()


def _without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.pop(name)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without("optimiser"), "is damaged: optimiser: Field required"),
        (_without("skipped_steps"), "is damaged: skipped_steps: Field required"),
        (lambda state: state.update(seconds=float("nan")), "is damaged: seconds: Input should be a finite"),
        (lambda state: state.update(optimiser={}), "its optimiser state does not fit the network"),
        (lambda state: state["optimiser"].update(param_groups=[]), "its optimiser state does not fit the network"),
        (
            lambda state: state["optimiser"]["state"][0].update(exp_avg=torch.zeros(3, 3)),
            r"does not fit the network: \(3, 3\) beside a parameter of",
        ),
        (
            lambda state: state["optimiser"]["state"].update({10**6: {"exp_avg": torch.zeros(3)}}),
            "does not fit the network",
        ),
    ],
    ids=["no optimiser", "no counter", "no time", "empty", "no groups", "another shape", "too many"],
)  # fmt: skip
def test_a_damaged_optimiser_state_is_named(make_export, tmp_path, console, damage, message):
    job = tiny_job(make_export(), tmp_path, "training.steps=1")
    train(job, console)
    path = job.run.optimiser_path(1)
    state = load_state(path)
    damage(state)
    save_state(path, state)

    with pytest.raises(CheckpointError, match=message) as caught:
        train(replace(job, resume=True), console)
    assert caught.value.exit_code == ExitCode.DAMAGED


def test_first_weights_of_another_network_leave_no_run_behind(make_export, tmp_path, console):
    export = make_export()
    other = tiny_job(export, tmp_path, "training.steps=1", "model.middle_blk_num=2", out="other")
    train(other, console)
    job = tiny_job(export, tmp_path, "training.steps=1")

    with pytest.raises(CheckpointError, match=r"middle_blks\.1\.beta is not known to it"):
        train(replace(job, init=other.run.weights_path(1)), console)

    assert not job.run.path.exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.stages=[{name: first, classes: [snow]}]", "names snow; the export holds"),
        ("model.enc_blk_nums=[1]", "1 encoder and 2 decoder stages"),
    ],
)
def test_a_configuration_that_cannot_be_trained_leaves_no_run_behind(
    make_export, tmp_path, console, override, message
):
    job = tiny_job(make_export(), tmp_path, override)

    with pytest.raises(InvalidDocumentError, match=message):
        train(job, console)

    assert not job.run.path.exists()


def test_a_torn_line_of_the_log_spoils_no_other(tmp_path):
    run = RunFolder(tmp_path)
    run.log({"step": 1})
    with run.metrics_path.open("a") as out:
        out.write('{"step": 2, "lo')

    run.log({"step": 3})
    run.log({"step": 4})

    assert list(run.metrics()) == [{"step": 1}, {"step": 3}, {"step": 4}]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's writer
def test_a_disk_that_is_full_under_the_log_is_told_as_such(make_export, tmp_path, console, monkeypatch):
    """A thousand bytes hold three lines; TensorBoard's file, written by a thread of its own, fails as well."""
    job = tiny_job(make_export(), tmp_path, "training.steps=50", "training.log_every=1")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    call_at(monkeypatch, step=2, action=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1])))

    try:
        with pytest.raises(StorageError, match="the log could not be written: File too large"):
            train(job, console)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert [line["step"] for line in job.run.metrics()] == [1, 2, 3]
