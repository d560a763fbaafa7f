from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from catalog.console import Console
from catalog.errors import InvalidDocumentError
from models.brightness import fit_gain_gamma, score_gain_gamma
from models.data import Pair, PairDataset
from models.errors import NoValueError
from models.evaluate import EvaluationRequest, choose_pairs, evaluate, evaluate_export, restored_by
from models.measures import fidelity
from models.metrics import psnr_db
from models.score_report import markdown, table_lines

EXPORT = {"classes": ["noise", "low_light"], "test_classes": ["noise", "noise", "rain", "low_light"]}
CPU = torch.device("cpu")
PSNR = fidelity(with_ssim=False)


class Brighter:
    """Adds one code value of 255."""

    def restore(self, lq: Tensor) -> Tensor:
        return (lq + 1 / 255).clamp(0, 1)


def test_pairs_are_scored_before_and_after(make_export):
    dataset = PairDataset(make_export(**EXPORT), "test")
    pair = dataset[0]

    evaluation = evaluate(
        dataset, {"restored": restored_by(lambda _: Brighter(), CPU)}, measures=fidelity(with_ssim=True)
    )

    first = evaluation.scores[0]
    assert first.degradation_class == "noise"
    assert first.values["psnr_lq_db"] == psnr_db(pair.lq, pair.gt)
    raised = np.minimum(pair.lq.astype(int) + 1, 255).astype(np.uint8)
    assert first.values["psnr_restored_db"] == pytest.approx(psnr_db(raised, pair.gt))
    assert set(first.values) == {
        "psnr_lq_db", "psnr_y_lq_db", "ssim_lq", "ssim_y_lq",
        "psnr_restored_db", "psnr_y_restored_db", "ssim_restored", "ssim_y_restored",
    }  # fmt: skip
    assert {name: v["n"] for name, v in evaluation.per_class.items()} == {
        "low_light": 1,
        "noise": 2,
        "rain": 1,
    }


def test_the_baseline_scores_the_untouched_input_alone(make_export):
    evaluation = evaluate(PairDataset(make_export(**EXPORT), "test"), {}, measures=PSNR)

    assert all(set(score.values) == {"psnr_lq_db"} for score in evaluation.scores)


def test_so_many_pairs_of_each_class_can_be_scored(make_export):
    dataset = PairDataset(make_export(test_classes=["noise"] * 5 + ["rain"] * 2), "test")

    evaluation = evaluate(dataset, {}, measures=PSNR, indices=choose_pairs(dataset, 2))

    assert {name: v["n"] for name, v in evaluation.per_class.items()} == {"noise": 2, "rain": 2}


def test_gain_and_gamma_are_fitted_on_training_pairs_and_scored_on_the_others(make_export):
    export = make_export(**EXPORT)
    train, test = PairDataset(export, "train"), PairDataset(export, "test")
    curve = fit_gain_gamma([(train[1].lq, train[1].gt)])

    scores = score_gain_gamma(train, test, range(4))

    assert scores == {"low_light": pytest.approx(psnr_db(curve.apply(test[3].lq), test[3].gt))}


def test_no_light_no_gain_and_gamma(make_export):
    export = make_export(classes=["noise"], test_classes=["noise"])

    assert score_gain_gamma(PairDataset(export, "train"), PairDataset(export, "test"), [0]) == {}


def test_an_evaluation_is_plain_data_and_a_table(make_export, console):
    """Mean over classes: every class counts once, whatever its number of pairs."""
    document = evaluate_export(
        EvaluationRequest(str(make_export(**EXPORT)), baseline=True, ssim=False), console
    )

    per_class = [values["psnr_lq_db"] for values in document["per_class"].values()]
    assert document["n"] == len(document["pairs"]) == 4
    assert document["mean_over_classes"]["psnr_lq_db"] == pytest.approx(sum(per_class) / 3)
    lines = table_lines(document)
    assert [line.split()[0] for line in lines[:4]] == ["class", "low_light", "noise", "rain"]
    assert "best single gain and gamma" in lines[-1]


@pytest.mark.parametrize(
    ("run", "changes", "message"),
    [
        (None, {}, "needs a RUN or --baseline"),
        ("some", {"baseline": True}, "needs a RUN or --baseline"),
        (None, {"baseline": True, "split": "tset"}, "no such split; one of train, val, test"),
    ],
)
def test_contradictory_questions_are_refused(make_export, tmp_path, run, changes, message):
    with pytest.raises(InvalidDocumentError, match=message):
        evaluate_export(
            EvaluationRequest(str(make_export(**EXPORT)), run, **changes), Console(tmp_path, quiet=True)
        )


def test_a_picture_without_a_value_is_said_and_the_others_are_averaged(make_export, console):
    """One of two rain pairs and the only one of noise give nothing to judge: rain averages 7, noise nothing."""

    def judged(_: object, pair: Pair) -> float:
        if pair.row.id in silent:
            raise NoValueError("nothing but sky")
        return 7.0

    dataset = PairDataset(make_export(test_classes=["rain", "rain", "noise"]), "test")
    silent = {dataset.rows[0].id, dataset.rows[2].id}

    evaluation = evaluate(dataset, {}, measures={"judged_{}": judged})

    document = evaluation.document() | {
        "run": None, "export": "e", "split": "test", "gain_gamma_psnr_db": {}, "published": None,
    }  # fmt: skip
    assert [pair["judged_lq"] for pair in document["pairs"]] == [None, 7.0, None]
    assert document["per_class"] == {"noise": {"n": 1, "judged_lq": None}, "rain": {"n": 2, "judged_lq": 7.0}}
    assert document["mean_over_pairs"] == document["mean_over_classes"] == {"judged_lq": 7.0}
    assert document["no_value"] == {"judged_lq": {"n": 2, "reason": "nothing but sky"}}
    lines = table_lines(document)
    assert lines[1].split() == ["noise", "1", "no", "value"]
    assert lines[-1].startswith("judged_lq: no value for 2 of 3 pairs, nothing but sky")
    assert "| noise | 1 | no value |" in markdown(document)


def test_masked_pixels_do_not_count(make_export):
    """The right half of each pair is masked out: a restorer that ruins only that half loses nothing."""

    class RuinsTheRight:
        def restore(self, lq: Tensor) -> Tensor:
            out = lq.clone()
            out[..., 48:] = 0
            return out

    dataset = PairDataset(make_export(**EXPORT, masked=True), "test")

    evaluation = evaluate(dataset, {"restored": restored_by(lambda _: RuinsTheRight(), CPU)}, measures=PSNR)

    assert all(s.values["psnr_lq_db"] == s.values["psnr_restored_db"] for s in evaluation.scores)
