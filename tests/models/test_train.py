from __future__ import annotations

import itertools
import json
import os
import re
import signal
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from tiny_runs import TINY, interrupt_at, same_bits, tiny_job, weights_at
from torch import Tensor

import models.train
import models.training_state
from catalog.console import Console
from catalog.errors import ExitCode, InvalidDocumentError
from catalog.manifest import ManifestError
from models.base import RestorationBatch
from models.config import load_config
from models.errors import (
    DivergedError,
    NoPairsError,
    ResumeRefusedError,
    RunNotFoundError,
    TrainingInterruptedError,
)
from models.job import plan_training
from models.nafnet import NafnetRestorer
from models.precision import uses_bf16
from models.registry import find_model
from models.train import learning_rate_at, train


@pytest.mark.parametrize("workers", [1, 3])
def test_a_resumed_run_ends_at_the_same_bits_with_any_number_of_workers(
    make_export, tmp_path, console, monkeypatch, workers
):
    """11 steps in one go, against 11 steps interrupted after the fifth, in the middle of a block of 12 crops."""
    export = make_export()
    whole = tiny_job(export, tmp_path, "training.steps=11", out="whole")
    parts = tiny_job(export, tmp_path, "training.steps=11", out="parts")
    train(whole, console)

    interrupt_at(monkeypatch, step=5)
    with pytest.raises(TrainingInterruptedError):
        train(parts, console)
    monkeypatch.undo()
    assert parts.run.latest_step() == 5
    result = train(replace(parts, resume=True, workers=workers), console)

    assert result.steps == 11
    assert same_bits(weights_at(whole.run, 11), weights_at(parts.run, 11))


def test_an_interrupted_run_is_saved_and_its_message_is_the_command_that_resumes(
    make_export, tmp_path, console, monkeypatch
):
    export = make_export()
    job = tiny_job(export, tmp_path, "training.steps=50")
    handler = signal.getsignal(signal.SIGTERM)

    interrupt_at(monkeypatch, step=3)
    with pytest.raises(TrainingInterruptedError, match="stopped at step 3 of 50") as caught:
        train(job, console)

    assert caught.value.exit_code == ExitCode.INTERRUPTED
    assert caught.value.next_step == f"models train nafnet --data {export} --out {job.run.path} --resume"
    assert job.run.weights_path(3).is_file()
    assert signal.getsignal(signal.SIGTERM) is handler


def test_accumulated_passes_make_the_step_of_one_larger_batch(make_export, tmp_path, console):
    """The psnr loss is a mean over pictures, so two passes of two crops weigh them as one pass of four."""
    export = make_export()
    settings = ("training.steps=2", "training.grad_clip=1000")
    small = tiny_job(export, tmp_path, *settings, "training.accumulate=2", out="small")
    large = tiny_job(export, tmp_path, *settings, "training.batch=4", out="large")

    train(small, console)
    train(large, console)

    for a, b in zip(weights_at(small.run, 2), weights_at(large.run, 2), strict=True):
        assert all(torch.allclose(a[name], b[name], atol=2e-5) for name in a)


def test_training_makes_the_pictures_better(make_export, tmp_path, console):
    """Noise of 12 code values is 26.5 dB; sixty small steps on four pictures must gain at least half a dB."""
    export = make_export(classes=["noise"] * 4)
    job = tiny_job(
        export, tmp_path, "training.steps=60", "training.batch=4", "training.patch_px=32", "model.width=8",
        "training.validation_pairs=2", "training.validate_every=60", "training.ema_decay=0.9",
    )  # fmt: skip

    train(job, console)

    validations = [line for line in job.run.metrics() if line["kind"] == "validation"]
    assert [line["step"] for line in validations] == [6, 60]
    assert validations[-1]["psnr_db"] > 27.0
    assert validations[-1]["noise"] == validations[-1]["psnr_db"]
    assert {p.name for p in (job.run.samples / "step-000006").iterdir()} == {"noise.png"}


def test_every_log_line_says_where_the_time_went(make_export, tmp_path, console):
    job = tiny_job(make_export(), tmp_path, "training.steps=5")

    train(job, console)

    lines = list(job.run.metrics())
    assert [line["step"] for line in lines] == [2, 4, 5]
    for line in lines:
        assert {
            "loss",
            "learning_rate",
            "images_per_s",
            "data_wait_share",
            "skipped_steps",
            "grad_norm",
        } <= line.keys()
        assert 0 <= line["data_wait_share"] <= 1
    assert any(job.run.path.glob("events.out.tfevents.*"))


def test_steps_without_a_finite_gradient_are_left_out_and_counted(
    make_export, tmp_path, console, monkeypatch
):
    """The third of four steps sees NaN: the weights stay as they were, and the average too."""
    loss, calls = NafnetRestorer.loss, []

    def broken_once(self: NafnetRestorer, batch: RestorationBatch) -> dict[str, Tensor]:
        calls.append(1)
        factor = float("nan") if len(calls) == 3 else 1.0
        return {name: value * factor for name, value in loss(self, batch).items()}

    monkeypatch.setattr(NafnetRestorer, "loss", broken_once)
    job = tiny_job(
        make_export(), tmp_path, "training.steps=4", "training.checkpoint_every=1", "training.keep_last=4"
    )

    result = train(job, console)

    assert result.skipped_steps == 1
    assert same_bits(weights_at(job.run, 2), weights_at(job.run, 3))
    assert not same_bits(weights_at(job.run, 3), weights_at(job.run, 4))


def test_what_is_not_finite_stays_out_of_the_log_and_leaves_it_readable(
    make_export, tmp_path, console, monkeypatch
):
    """Two steps a line. The first line averages the one finite loss; the second has none, and no gradient either."""
    loss, seen = NafnetRestorer.loss, []

    def broken_after_one(self: NafnetRestorer, batch: RestorationBatch) -> dict[str, Tensor]:
        parts = loss(self, batch)
        seen.append(float(parts["loss"].detach()))
        return parts if len(seen) == 1 else {name: value * float("inf") for name, value in parts.items()}

    monkeypatch.setattr(NafnetRestorer, "loss", broken_after_one)
    job = tiny_job(make_export(), tmp_path, "training.steps=4")

    train(job, console)

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    text = job.run.metrics_path.read_text()
    first, second = (json.loads(line, parse_constant=refuse) for line in text.splitlines())
    assert first["loss"] == pytest.approx(seen[0])
    assert (second["loss"], second["grad_norm"], second["skipped_steps"]) == (None, None, 3)


def test_a_run_that_never_has_a_finite_gradient_ends(make_export, tmp_path, console, monkeypatch):
    monkeypatch.setattr(models.train, "MAX_SKIPPED_IN_A_ROW", 3)
    loss = NafnetRestorer.loss
    monkeypatch.setattr(
        NafnetRestorer, "loss", lambda self, batch: {"loss": loss(self, batch)["loss"] * float("inf")}
    )

    with pytest.raises(DivergedError, match="no finite gradient in 3 steps in a row"):
        train(tiny_job(make_export(), tmp_path, "training.steps=9"), console)


def test_a_date_is_a_seed_and_what_no_generator_takes_is_none(make_export, tmp_path, console):
    result = train(tiny_job(make_export(), tmp_path, "training.steps=1", "training.seed=20261121"), console)

    assert result.steps == 1
    with pytest.raises(InvalidDocumentError, match=r"training\.seed"):
        tiny_job(make_export("other"), tmp_path, f"training.seed={2**32}")


def test_a_pair_whose_middle_is_not_to_be_trusted_is_not_validated(make_export, tmp_path, console):
    """The left half of each picture is trusted; of 64 px the middle 16 hold some of it, of a blinded pair none."""
    export = make_export(masked=True)
    cv2.imwrite(str(export / "mask" / "000.png"), np.zeros((64, 96), np.uint8))
    job = tiny_job(
        export, tmp_path, "training.steps=1", "training.validation_pairs=6", "training.validation_px=16"
    )

    train(job, console)

    (validation,) = [v for v in job.run.metrics() if v["kind"] == "validation"]
    assert set(validation) > {"noise", "rain", "low_light"}


def test_the_command_that_resumes_names_the_device(make_export, tmp_path):
    job = plan_training(
        "nafnet", str(make_export()), data=tmp_path, config="tiny", out="run", device="cuda:1"
    )

    assert job.resume_command.endswith(f"--out {job.run.path} --device cuda:1 --resume")


def test_resuming_with_another_configuration_is_refused(make_export, tmp_path, console):
    export = make_export()
    train(tiny_job(export, tmp_path, "training.steps=2"), console)

    with pytest.raises(
        ResumeRefusedError, match=r"configuration changed: training\.learning_rate, training\.steps"
    ):
        train(
            tiny_job(export, tmp_path, "training.steps=3", "training.learning_rate=0.1", resume=True), console
        )


def test_resuming_on_another_export_is_refused(make_export, tmp_path, console):
    train(tiny_job(make_export("one"), tmp_path, "training.steps=2"), console)

    with pytest.raises(ResumeRefusedError, match="is not the one the run began with"):
        train(tiny_job(make_export("other", seed=9), tmp_path, "training.steps=2", resume=True), console)


def test_resuming_needs_no_configuration(make_export, tmp_path, console):
    """The run's own `config.yaml` is taken, so the resume command stays short."""
    export = make_export()
    train(tiny_job(export, tmp_path, "training.steps=2"), console)

    job = plan_training("nafnet", str(export), data=tmp_path / "data", out="run", resume=True)

    assert job.config == load_config(find_model("nafnet"), "tiny", (*TINY, "training.steps=2"))
    assert train(job, console).steps == 2


def test_there_is_nothing_to_resume_before_the_first_checkpoint(make_export, tmp_path, console):
    with pytest.raises(RunNotFoundError, match="no training run 'run'"):
        tiny_job(make_export(), tmp_path, resume=True)


def test_training_without_pairs_is_refused_before_anything_is_written(make_export, tmp_path, console):
    job = tiny_job(make_export(classes=[], test_classes=["rain"]), tmp_path)

    with pytest.raises(NoPairsError, match="no pairs in split 'train'") as caught:
        train(job, console)

    assert caught.value.exit_code == ExitCode.INVALID_INPUT
    assert not job.run.path.exists()


@pytest.mark.parametrize("field", ["mu", "sigma"])
def test_a_manifest_with_what_is_no_number_is_refused_by_line(make_export, tmp_path, console, field):
    export = make_export()
    manifest = export / "manifest.jsonl"
    lines = manifest.read_text().splitlines()
    lines[1] = re.sub(rf'"{field}":[^,]+', f'"{field}":NaN', lines[1])
    manifest.write_text("\n".join(lines) + "\n")
    job = tiny_job(export, tmp_path)

    with pytest.raises(
        ManifestError, match=rf"manifest\.jsonl:2:1: {field}: Input should be a finite number"
    ):
        train(job, console)

    assert not job.run.path.exists()


def test_a_run_starts_from_the_weights_of_another(make_export, tmp_path, console):
    """A learning rate of nearly nothing leaves the first weights where they were."""
    export = make_export()
    first = tiny_job(export, tmp_path, "training.steps=3", out="first")
    train(first, console)
    still = ("training.steps=1", "training.learning_rate=1e-12", "training.final_learning_rate=0")
    second = tiny_job(export, tmp_path, *still, out="second")

    train(replace(second, init=first.run.weights_path(3)), console)

    before, after = weights_at(first.run, 3)[0], weights_at(second.run, 1)[0]
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)


def test_a_time_budget_ends_training_with_the_learning_rate_at_its_end(
    make_export, tmp_path, console, monkeypatch
):
    """The clock moves by 5 ms at each look, some looks a step: the last step begins close to the end."""
    looks = itertools.count()
    monkeypatch.setattr(models.train, "time", SimpleNamespace(perf_counter=lambda: 0.005 * next(looks)))
    job = tiny_job(
        make_export(),
        tmp_path,
        "training.steps=1000000",
        "training.budget_s=1.0",
        "training.log_every=1000000",
    )

    result = train(job, console)

    last = list(job.run.metrics())[-1]
    assert 10 < result.steps < 200
    assert last["step"] == result.steps
    assert last["learning_rate"] < 0.1 * job.config.training.learning_rate
    assert json.loads((job.run.checkpoints / "index.json").read_text())[-1]["step"] == result.steps


def test_learning_rate_warms_up_and_follows_half_a_cosine():
    """From 1/4 of the peak in four steps to the peak; half of it in the middle; its floor at the end."""
    settings = load_config(
        find_model("nafnet"),
        "tiny",
        ("training.learning_rate=0.4", "training.final_learning_rate=0", "training.warmup_steps=4"),
    ).training

    rates = [
        learning_rate_at(0, 0, settings),
        learning_rate_at(0.5, 50, settings),
        learning_rate_at(1, 100, settings),
    ]

    assert rates == pytest.approx([0.1, 0.2, 0.0])


def test_bf16_is_chosen_only_where_the_processor_has_it(monkeypatch):
    cpu, found = torch.device("cpu"), {"avx512_bf16": False, "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)

    assert [uses_bf16(precision, cpu) for precision in ("fp32", "bf16", "auto")] == [False, True, False]
    found["avx512_bf16"] = True
    assert uses_bf16("auto", cpu)


def test_compiled_networks_are_those_that_train(make_export, tmp_path, console, monkeypatch):
    """What is compiled is the network inside the model, once, before the first step."""
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))

    train(tiny_job(make_export(), tmp_path, "training.steps=1", "training.compile=true"), console)

    assert compiled == ["NAFNet"]


@pytest.mark.skipif(
    not os.environ.get("CLEANPLATE_NIGHTLY"), reason="compiling takes a minute; CLEANPLATE_NIGHTLY=1"
)
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own, of what it imports
def test_compiled_training_is_training(make_export, tmp_path, console):
    """Fused arithmetic rounds otherwise: two steps of 0.002 stay within a hundredth of that."""
    export = make_export()
    jobs = [
        tiny_job(export, tmp_path, "training.steps=2", f"training.compile={choice}", out=choice)
        for choice in ("true", "false")
    ]

    for job in jobs:
        train(job, console)

    compiled, plain = (weights_at(job.run, 2)[1] for job in jobs)
    assert all(torch.allclose(compiled[name], plain[name], rtol=0, atol=2e-5) for name in plain)


def test_half_precision_trains_and_keeps_its_weights_in_full(make_export, tmp_path, console):
    job = tiny_job(make_export(), tmp_path, "training.steps=2", "training.precision=bf16")

    train(job, console)

    assert {w.dtype for weights in weights_at(job.run, 2) for w in weights.values()} == {torch.float32}
    assert all(abs(line["loss"]) < 10 for line in job.run.metrics())


def test_quiet_training_says_nothing(make_export, tmp_path, capsys):
    train(tiny_job(make_export(), tmp_path, "training.steps=2"), Console(tmp_path, quiet=True))

    assert capsys.readouterr() == ("", "")
