from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from catalog.errors import InvalidDocumentError
from models.config import TrainingConfig
from models.errors import NoPairsError, TrainingInterruptedError
from models.foundir import FoundirRestorer
from models.job import plan_training
from models.order import CropOrder
from models.stages import Part, Stage, parts_of, training_order
from models.train import train

PRESENT = {"noise", "rain", "haze+rain", "low_light+noise"}
CLASSES = ("noise",) * 6 + ("rain",) * 3 + ("haze+rain",) * 4 + ("low_light+noise",) * 2
ISOLATED_FIRST = (
    Stage(name="isolated", classes="isolated", one_by_one=True, replay=0.25),
    Stage(name="coupled", classes="all", share=2),
)


def _settings(**changes: object) -> TrainingConfig:
    given = {
        "steps": 120,
        "batch": 2,
        "crops_per_decode": 1,
        "decodes_per_block": 4,
        "stages": ISOLATED_FIRST,
    }
    return TrainingConfig.model_validate({**given, **changes})


def _decoded(settings: TrainingConfig, decodes: range) -> list[str]:
    order = training_order(CLASSES, settings)
    return [CLASSES[order.pair_of(decode)] for decode in decodes]


def test_classes_join_task_by_task_then_the_coupled_ones():
    assert parts_of(ISOLATED_FIRST, PRESENT) == [
        Part(0.5, ("noise",), (), 0.25),
        Part(0.5, ("rain",), ("noise",), 0.25),
        Part(2, ("haze+rain", "low_light+noise"), ("noise", "rain"), None),
    ]


@pytest.mark.parametrize(
    ("classes", "joined"),
    [
        ("isolated", ("noise", "rain")),
        ("coupled", ("haze+rain", "low_light+noise")),
        ("all", ("haze+rain", "low_light+noise", "noise", "rain")),
        (("rain", "noise"), ("rain", "noise")),
    ],
)
def test_a_stage_takes_the_classes_it_names(classes: object, joined: tuple[str, ...]):
    stage = Stage.model_validate({"name": "only", "classes": classes})
    assert parts_of([stage], PRESENT) == [Part(1, joined, (), None)]


def test_each_part_holds_its_share_of_the_training_and_of_what_is_repeated():
    """240 crops, one a decode: 40 of noise alone; 40 of rain, a quarter of them noise again; 160 of all four."""
    settings = _settings()

    first, second, last = (
        Counter(_decoded(settings, part)) for part in (range(40), range(40, 80), range(80, 240))
    )

    assert first == {"noise": 40}
    assert second == {"rain": 30, "noise": 10}
    assert last == {"noise": 40, "rain": 40, "haze+rain": 40, "low_light+noise": 40}


def test_what_is_repeated_is_spread_evenly():
    """A quarter: every fourth decode of the second part, never two in a row."""
    repeated = [i for i, name in enumerate(_decoded(_settings(), range(40, 80))) if name == "noise"]
    assert repeated == list(range(3, 40, 4))


def test_no_replay_forgets_and_unbalanced_draws_follow_the_pairs():
    never = (*ISOLATED_FIRST[:1], Stage(name="coupled", classes="coupled", share=2, replay=0))
    assert set(_decoded(_settings(stages=never), range(80, 240))) == {"haze+rain", "low_light+noise"}

    counted = Counter(_decoded(_settings(balanced=False), range(80, 230)))
    assert counted == {"noise": 60, "rain": 30, "haze+rain": 40, "low_light+noise": 20}


def test_every_pair_of_a_class_comes_once_before_any_comes_twice():
    order = training_order(CLASSES, _settings())
    assert sorted(order.pair_of(turn) for turn in range(6)) == list(range(6))


def test_order_is_a_pure_function_of_seed_and_turn():
    forward, backward = (training_order(CLASSES, _settings()) for _ in range(2))
    turns = range(300)  # beyond the end the last part goes on

    assert [forward.pair_of(t) for t in turns] == [backward.pair_of(t) for t in reversed(turns)][::-1]
    other = training_order(CLASSES, _settings(seed=2))
    assert [forward.pair_of(t) for t in turns] != [other.pair_of(t) for t in turns]


def test_processes_share_one_order():
    """Two processes take every second block of four decodes; a part begins at the same decode for both."""
    whole = training_order(CLASSES, _settings(batch=4))
    halves = [training_order(CLASSES, _settings(), rank=rank, world=2) for rank in (0, 1)]

    seen = [sorted({half.slot_at(i).decode for i in range(40)}) for half in halves]
    assert sorted(seen[0] + seen[1]) == list(range(80))
    assert all(
        whole.pair_of(d) == half.pair_of(d)
        for half, decodes in zip(halves, seen, strict=True)
        for d in decodes
    )


def test_without_stages_the_order_is_the_plain_one():
    plain = CropOrder(CLASSES, seed=1, balanced=True, crops_per_decode=1, decodes_per_block=4)
    order = training_order(CLASSES, _settings(stages=()))
    assert [order.pair_of(t) for t in range(50)] == [plain.pair_of(t) for t in range(50)]


def test_stages_that_cannot_be_are_refused():
    with pytest.raises(InvalidDocumentError, match="stage 'typo' names snow; the export holds haze"):
        parts_of([Stage(name="typo", classes=("noise", "snow"))], PRESENT)
    with pytest.raises(NoPairsError, match="stage 'coupled' finds no pair: the export holds noise"):
        parts_of([Stage(name="coupled", classes="coupled")], {"noise"})
    with pytest.raises(InvalidDocumentError, match="2 decodes are too few for 3 parts"):
        training_order(CLASSES, _settings(steps=1))


def test_a_training_stopped_within_a_stage_ends_at_the_same_bits(make_export, tmp_path, console, monkeypatch):
    """9 steps of 2 crops, 3 crops a decode: parts begin at decodes 0, 1, 2, 3; stopped after the fifth step."""
    export = make_export(classes=("noise", "rain", "low_light", "haze+rain"), size=(48, 48))
    stages = "[{name: isolated, classes: isolated, one_by_one: true, replay: 0.3}, {name: all, classes: all}]"
    jobs = {
        out: plan_training(
            "foundir",
            str(export),
            data=tmp_path / "data",
            config="tiny",
            overrides=(
                "model.dim=8", "model.dim_mults=[1, 2]", "training.steps=9", "training.batch=2",
                "training.patch_px=16", "training.crops_per_decode=3", "training.decodes_per_block=2",
                "training.warmup_steps=0", "training.validation_pairs=0", "training.precision=fp32",
                "training.cpu_threads=1", f"training.stages={stages}",
            ),
            out=out,
        )
        for out in ("whole", "parts")
    }  # fmt: skip
    train(jobs["whole"], console)
    loss, calls = FoundirRestorer.loss, []

    def loss_then_signal(self, batch):
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(self, batch)

    monkeypatch.setattr(FoundirRestorer, "loss", loss_then_signal)
    with pytest.raises(TrainingInterruptedError, match="step 5 of 9"):
        train(jobs["parts"], console)
    monkeypatch.undo()
    train(replace(jobs["parts"], resume=True), console)

    for path in (lambda run: run.weights_path(9), lambda run: run.raw_weights_path(9)):
        whole, parts = (load_file(path(job.run)) for job in jobs.values())
        assert all(torch.equal(whole[name], parts[name]) for name in whole)
