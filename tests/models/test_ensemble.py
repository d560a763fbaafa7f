from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import models
from catalog.errors import InvalidDocumentError
from catalog.label_file import Label, write_labels
from catalog.session_folder import file_sha256
from models.base import ChoosesRestorer, Classifier, Restorer
from models.cli import app
from models.ensemble import (
    SERVED,
    Ensemble,
    EnsembleRecord,
    Member,
    TwoPasses,
    assemble,
    expert_runs,
    load_ensemble,
)
from models.errors import RunExistsError, RunNotFoundError, StorageError
from models.evaluate import EvaluationRequest, evaluate_export
from models.images import plain_picture, read_pixels, write_png
from models.precision import REFERENCE
from models.restore import Tiling, restore_pixels, restore_with_run
from models.routing import choosers, known_degradations

CPU = torch.device("cpu")
TINY = ("model.width=4", "model.enc_blk_nums=[1]", "model.dec_blk_nums=[1]")


class Adds:
    """Restores by adding a number."""

    def __init__(self, number: float) -> None:
        self.number = number

    def restore(self, lq: Tensor) -> Tensor:
        return lq + self.number


class Undoes:
    """An expert that finds the degraded picture better."""

    def refine(self, restored: Tensor, lq: Tensor) -> Tensor:
        return lq


class SeesTheDark:
    """Low light where a picture's mean is low; counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def classify(self, lq: Tensor) -> dict[str, float]:
        self.asked += 1
        return {"low_light": 0.9 if lq.mean() < 0.25 else 0.1, "haze": 0.0}


def _ensemble(router: Classifier | None = None) -> Ensemble:
    """The generalist adds 0.1; the illumination expert 0.2 more, weather 0.4, text 0.6."""
    record = EnsembleRecord(
        generalist="g",
        experts=tuple(Member(name=n, weights=n, serves=s) for n, s in SERVED.items()),
        router=None if router is None else "r",
    )
    experts = {"illumination": Adds(0.2), "weather": Adds(0.4), "text": Adds(0.6)}
    return Ensemble(record, Adds(0.1), experts, router)


def test_an_expert_made_for_it_is_shown_the_degraded_picture_too():
    lq = torch.rand(1, 3, 8, 8)

    passes = TwoPasses(Adds(0.1), Undoes())

    assert torch.equal(passes.restore(lq), lq)
    assert torch.equal(TwoPasses(Adds(0.1), Adds(0.2)).restore(lq), lq + 0.1 + 0.2)


@pytest.mark.parametrize(
    ("sights", "expert"),
    [
        (["noise"], None),
        ([], None),
        (["rain", "haze"], "weather"),
        (["low_light", "haze"], "illumination"),
        (["low_light", "noise", "text"], "illumination"),
        (["defocus_blur", "text"], "text"),
    ],
)
def test_what_is_dark_goes_to_illumination_then_weather_then_print(sights, expert):
    assert _ensemble().expert_for(sights) == expert


def test_each_picture_is_restored_by_the_expert_that_it_seems_to_need():
    ensemble = _ensemble(SeesTheDark())
    assert isinstance(ensemble, Restorer)
    assert isinstance(ensemble, ChoosesRestorer)

    restored = ensemble.restore(torch.tensor([0.0, 0.5]).view(2, 1, 1, 1).expand(2, 3, 4, 4))

    assert restored[:, 0, 0, 0].tolist() == pytest.approx([0.3, 0.6])


def test_the_choice_is_made_for_the_picture_and_not_for_its_tiles():
    """The left half is dark and the picture is not: no tile is brightened, and the router is asked once."""
    router = SeesTheDark()
    lq = np.zeros((80, 200, 3), np.uint8)
    lq[:, 90:] = 128

    restored = restore_pixels(_ensemble(router), lq, device=CPU, tiling=Tiling(64, 8))

    assert router.asked == 1
    assert np.abs(restored.astype(int) - lq - 26).max() <= 1  # 0.1 of 255 is 25.5


def test_an_oracle_goes_by_the_known_class_and_none_by_nothing():
    ways = choosers(_ensemble(SeesTheDark()), None, run="mine")
    picture = torch.full((1, 3, 2, 2), 0.1)

    restored = {name: choose(["rain"]).restore(picture)[0, 0, 0, 0].item() for name, choose in ways.items()}

    assert restored == pytest.approx({"oracle": 0.6, "blind": 0.4, "none": 0.2})
    assert list(choosers(_ensemble(), "oracle", run="mine")) == ["restored"]


def test_choices_that_a_model_does_not_have_are_refused():
    with pytest.raises(InvalidDocumentError, match="mine is a single model"):
        choosers(Adds(0), "blind", run="mine")
    with pytest.raises(InvalidDocumentError, match="no router"):
        _ensemble().restore(torch.zeros(1, 3, 2, 2))
    with pytest.raises(InvalidDocumentError, match="restores no pictures"):
        choosers(SeesTheDark(), None, run="mine")
    assert list(choosers(Adds(0), "none", run="mine")) == ["restored"]


@pytest.fixture
def assembled(saved_run, console) -> Path:
    """An ensemble `all` in the data folder: two NAFNets and an untrained router."""
    first, second = saved_run("nafnet", "tiny", *TINY), saved_run("nafnet", "tiny", *TINY, seed=2)
    router = saved_run("router", "tiny", "model.width=8", "model.halvings=1")
    folder = console.data / "runs" / "all"
    assemble(folder, str(first), experts={"weather": str(second)}, router=str(router), data=console.data)
    for file in (first, second, router):
        file.unlink()
    return folder


def test_an_ensemble_stands_for_itself_and_is_loaded_by_name(assembled, console):
    loaded = models.load("all", data=console.data)

    assert isinstance(loaded, Ensemble)
    assert isinstance(loaded, Classifier)
    alone, weather = loaded.with_expert(None), loaded.with_expert("weather")
    picture = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        assert not torch.equal(alone.restore(picture), weather.restore(picture))


def test_assembling_says_what_is_wrong(assembled, console):
    def again(out: str, run: str = str(assembled / "generalist.safetensors"), **experts: str) -> None:
        assemble(console.data / out, run, experts=experts, router=None, data=console.data)

    with pytest.raises(RunExistsError, match="is there already"):
        again("runs/all")
    with pytest.raises(InvalidDocumentError, match="expert 'wether': no such kind; one of illumination"):
        again("new", wether="x")
    with pytest.raises(RunNotFoundError, match="no training run 'gone'"):
        again("new", weather="gone")
    with pytest.raises(InvalidDocumentError, match="each name once"):
        expert_runs(["weather=a", "weather=b"])
    assert not (console.data / "new").exists()


def test_a_full_disk_leaves_no_half_ensemble(assembled, console, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", refuse)

    with pytest.raises(StorageError, match="No space left on device"):
        assemble(
            console.data / "new", str(assembled / "generalist.safetensors"), experts={}, router=None, data=console.data
        )  # fmt: skip
    assert not (console.data / "new").exists()


def test_a_member_of_the_wrong_kind_or_a_path_that_leaves_the_folder_is_refused(assembled):
    record = assembled / "ensemble.yaml"
    text = record.read_text()

    record.write_text(text.replace("router: router", "router: generalist"))
    with pytest.raises(InvalidDocumentError, match="is no classifier"):
        load_ensemble(assembled)
    record.write_text(text.replace("router: router", "router: ../router"))
    with pytest.raises(InvalidDocumentError, match="leaves its folder"):
        load_ensemble(assembled)
    record.write_text(text.replace("- haze", "- hase"))
    with pytest.raises(InvalidDocumentError, match="no router knows 'hase'"):
        load_ensemble(assembled)


def test_an_evaluation_reports_the_three_ways_apart(assembled, make_export, console):
    """The oracle sends rain to the weather expert, so it differs from the generalist there and nowhere else."""
    export = make_export(test_classes=["noise", "rain"])

    document = evaluate_export(EvaluationRequest(str(export), "all", ssim=False), console)
    single = evaluate_export(EvaluationRequest(str(export), "all", ssim=False, expert="oracle"), console)

    noise, rain = document["per_class"]["noise"], document["per_class"]["rain"]
    assert set(rain) == {"n", "psnr_lq_db", "psnr_oracle_db", "psnr_blind_db", "psnr_none_db"}
    assert noise["psnr_oracle_db"] == noise["psnr_none_db"]
    assert rain["psnr_oracle_db"] != rain["psnr_none_db"]
    assert rain["psnr_blind_db"] in (rain["psnr_oracle_db"], rain["psnr_none_db"])
    assert single["per_class"]["rain"]["psnr_restored_db"] == rain["psnr_oracle_db"]


def test_an_oracle_knows_the_class_from_labels_or_from_the_export(assembled, make_export, console, tmp_path):
    """Pair 4 is rain in its export; the labels call it noise, which no expert serves."""
    export = make_export(test_classes=["rain"])
    file = export / "lq" / "004.png"
    labels = tmp_path / "labels.jsonl"
    write_labels(labels, [Label(sha256=file_sha256(file), degradations=("noise",))])

    def restored(out: str, expert: str, labels: Path | None = None) -> np.ndarray:
        (written,) = restore_with_run(
            "all", [file], tmp_path / out, usage=REFERENCE, tiling=Tiling(), console=console, expert=expert,
            labels=labels,
        )  # fmt: skip
        return read_pixels(written)

    none = restored("none", "none")
    assert known_degradations([file]) == {file: ("rain",)}
    assert not np.array_equal(restored("oracle", "oracle"), none)
    assert np.array_equal(restored("labelled", "oracle", labels), none)


def test_an_oracle_without_knowledge_is_refused(tmp_path):
    stray = tmp_path / "stray.png"
    write_png(stray, plain_picture(np.zeros((4, 4, 3), np.uint8)))
    write_labels(tmp_path / "labels.jsonl", [])

    for labels in (None, tmp_path / "labels.jsonl"):
        with pytest.raises(InvalidDocumentError, match=r"nothing says what .*stray\.png suffers from"):
            known_degradations([stray], labels)


def test_an_ensemble_is_made_asked_and_used_from_the_command_line(assembled, make_export, console, tmp_path):
    export = make_export(test_classes=["rain"])
    parts = [str(assembled / f"{name}.safetensors") for name in ("generalist", "weather", "router")]

    def run(*words: str) -> str:
        done = CliRunner().invoke(
            app, [*words, "--json", "--quiet"], env={"CLEANPLATE_DATA": str(console.data)}
        )
        assert done.exit_code == 0, done.output
        return done.stdout

    run("assemble", parts[0], "--expert", f"weather={parts[1]}", "--router", parts[2], "-o", "mine")
    scored = json.loads(run("evaluate", "mine", "--data", str(export), "--no-ssim", "--expert", "blind"))
    labels = json.loads(run("classify", "mine", str(export / "lq"), "-o", str(tmp_path / "labels.jsonl")))
    run("restore", "mine", str(export / "lq" / "004.png"), "-o", str(tmp_path / "out"), "--expert", "blind")

    assert "psnr_restored_db" in scored["per_class"]["rain"]
    assert len(labels["labels"]) == len((tmp_path / "labels.jsonl").read_text().splitlines()) == 5
    assert (tmp_path / "out" / "004.png").is_file()
