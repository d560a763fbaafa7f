from __future__ import annotations

import pytest

from catalog.manifest import ManifestRow
from catalog.records import FOUNDIR_CLASSES
from models.metrics import PairScore
from models.published import PublishedTable, beside_published, foundir_table

TABLE = PublishedTable(
    source="a paper",
    pairs={"05Noise": 2, "10Rain": 1},
    psnr_db={"theirs": (30.0, 25.0)},
    ssim={"theirs": (0.9, 0.8)},
)


def _row(number: int, folder: str | None, source: str = "imported") -> ManifestRow:
    return ManifestRow.model_validate(
        {
            "id": f"pair-{number}", "gt": "gt.png", "lq": "lq.png", "scene": "s", "session": "s", "round": "lq",
            "degradations": ["noise"], "foundir_class": folder, "settings": {}, "mu": 0.0, "sigma": 0.0,
            "residual_px": None, "predicted_epe_px": None, "mask": None, "split": "test", "width": 8, "height": 8,
            "sha256_gt": "0" * 64, "sha256_lq": "0" * 64, "source": source,
        }
    )  # fmt: skip


def _score(number: int, psnr: float) -> PairScore:
    values = {"psnr_lq_db": psnr - 5, "psnr_y_lq_db": 99.0, "psnr_restored_db": psnr, "ssim_restored": 0.7}
    return PairScore(f"pair-{number}", "noise", values)


def test_a_whole_class_stands_beside_the_published_one():
    """Two noisy pairs of 20 and 30 dB: the class has 25 dB. The class of which pairs are missing stays out."""
    rows = [_row(1, "05Noise"), _row(2, "05Noise"), _row(3, None)]

    found = beside_published(rows, [_score(1, 20.0), _score(2, 30.0), _score(3, 40.0)], TABLE)

    assert found == {
        "source": "a paper",
        "classes": ["05Noise"],
        "psnr_db": {"theirs": [30.0], "lq (ours)": [20.0], "restored (ours)": [25.0]},
        "ssim": {"theirs": [0.9], "restored (ours)": [0.7]},
    }


@pytest.mark.parametrize(
    "rows",
    [
        [_row(1, "05Noise")],
        [_row(1, "05Noise", "captured"), _row(2, "05Noise", "captured")],
        [_row(i, "05Noise") for i in range(3)],
        [_row(1, None), _row(2, None)],
    ],
    ids=["a part", "our own capture", "more than theirs", "no class of theirs"],
)
def test_other_pairs_stand_beside_nothing(rows):
    assert beside_published(rows, [_score(i, 20.0) for i in range(len(rows))], TABLE) is None


def test_the_foundir_table_has_its_printed_averages():
    """1,500 pairs in 20 folders; the paper prints 27.81 dB (cut off) for FoundIR and 24.26 for Real-ESRGAN."""
    table = foundir_table()

    assert set(table.pairs) == set(FOUNDIR_CLASSES)
    assert sum(table.pairs.values()) == 1500
    averages = {name: sum(values) / 20 for name, values in table.psnr_db.items()}
    printed = {
        "FoundIR": 27.81, "Real-ESRGAN": 24.26, "DiffUIR": 23.27, "DiffIR": 24.68, "PromptIR": 22.49,
        "Restormer": 18.52,
    }  # fmt: skip
    assert averages == pytest.approx(printed, abs=0.01)


def test_a_table_with_a_short_row_is_refused():
    with pytest.raises(ValueError, match="theirs: needs 2 numbers"):
        PublishedTable(source="", pairs=TABLE.pairs, psnr_db={"theirs": (1.0,)}, ssim={})
