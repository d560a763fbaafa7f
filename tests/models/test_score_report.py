from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from catalog.manifest import read_manifest, write_manifest
from models.data import PairDataset
from models.errors import StorageError
from models.evaluate import EvaluationRequest, evaluate, evaluate_export
from models.measures import fidelity
from models.score_report import markdown, write_report
from models.score_sheet import SHOWN_PER_CLASS, ScoreSheet

HOSTILE = "<script>alert(1)</script>\"' | `rm` \u202e[x](http://x)\n# head"


def _renamed(export: Path, name: str) -> Path:
    """Give the first test pair another id."""
    rows = list(read_manifest(export))
    victim = next(i for i, row in enumerate(rows) if row.split == "test")
    rows[victim] = rows[victim].model_copy(update={"id": name})
    (export / "manifest.jsonl").unlink()
    write_manifest(export, rows)
    return export


def test_a_report_is_three_files_that_agree(make_export, tmp_path, console):
    export = make_export(test_classes=["noise", "noise", "low_light"])
    request = EvaluationRequest(str(export), baseline=True, ssim=False, out=tmp_path / "report")

    document = evaluate_export(request, console)

    stored = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert stored == {"schema": 1, **json.loads(json.dumps(document))}
    table = (tmp_path / "report" / "evaluation.md").read_text()
    noise = next(line for line in table.splitlines() if line.startswith("| noise "))
    assert noise == f"| noise | 2 | {document['per_class']['noise']['psnr_lq_db']:.3f} |"
    assert "| mean over classes | 2 |" in table
    page = (tmp_path / "report" / "evaluation.html").read_text()
    assert page.count("<figure>") == 3 * 2
    assert page.count("data:image/jpeg;base64,") == 3 * 2 * 2
    assert f"{document['pairs'][0]['psnr_lq_db']:.2f} dB" in page
    score = f"{document['per_class']['noise']['psnr_lq_db']:.3f}"
    assert f'<tr><th scope="row">noise</th><td>2</td><td>{score}</td></tr>' in page
    assert "<h1>Scores of the untouched input</h1>" in page


def test_the_page_says_what_each_restoration_gained(make_export):
    """Half the error is a gain of 20 log10(2) = 6.02 dB, twice the error the loss of as much, up to rounding."""
    dataset = PairDataset(make_export(classes=[], test_classes=["noise"]), "test")
    pair = dataset[0]
    error = pair.lq.astype(float) - pair.gt
    halved, doubled = (np.rint(pair.gt + share * error).clip(0, 255).astype(np.uint8) for share in (0.5, 2))
    sheet = ScoreSheet(dataset.rows)

    sheet.add(pair, {"lq": pair.lq, "better": halved, "worse": doubled})

    gains = re.findall(r'class="(up|down)">([+-][\d.]+)<', sheet.render())
    assert [way for way, _ in gains] == ["up", "down"]
    assert [float(gain) for _, gain in gains] == pytest.approx([6.02, -6.02], abs=0.1)


def test_names_from_outside_are_inert(make_export, tmp_path, console):
    """A pair and an export with markup in their names: no tag, no table cell, no link and no heading of theirs."""
    export = _renamed(make_export("<b>|x", test_classes=["noise"]), HOSTILE)

    evaluate_export(
        EvaluationRequest(str(export), baseline=True, ssim=False, out=tmp_path / "report"), console
    )

    page = (tmp_path / "report" / "evaluation.html").read_text()
    assert set(re.findall(r"<(\w+)", page)) == {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "figure", "img", "figcaption",
        "section", "table", "thead", "tbody", "tr", "th", "td", "span", "strong",
    }  # fmt: skip
    assert "&lt;b&gt;|x" in page
    assert "\u202e" not in page
    assert "default-src 'none'" in page
    table = (tmp_path / "report" / "evaluation.md").read_text()
    assert "<b>" not in table
    assert "&lt;b&gt;&#124;x" in table


def test_pairs_to_show_are_chosen_before_anything_is_scored(make_export):
    """Of seven pairs of a class three are shown, spread over it: the 2nd, 4th and 6th."""
    dataset = PairDataset(make_export(test_classes=["noise"] * 7), "test")
    sheet = ScoreSheet(dataset.rows)

    evaluate(dataset, {}, measures=fidelity(with_ssim=False), watch=sheet.add)

    shown = re.findall(r"<p>(pair-\d+)</p>", sheet.render())
    assert len(shown) == SHOWN_PER_CLASS
    assert shown == [dataset.rows[i].id for i in (1, 3, 5)]


def test_the_published_table_is_part_of_the_report():
    document = {
        "run": "mine", "export": "theirs", "split": "test", "n": 2,
        "per_class": {"noise": {"n": 2, "psnr_lq_db": 20.0}}, "mean_over_pairs": {"psnr_lq_db": 20.0},
        "mean_over_classes": {"psnr_lq_db": 20.0}, "gain_gamma_psnr_db": {"low_light": 12.5}, "no_value": {},
        "published": {
            "source": "a paper", "classes": ["05Noise", "10Rain"],
            "psnr_db": {"theirs": [30.0, 20.0], "restored (ours)": [31.0, 22.0]}, "ssim": {"theirs": [0.9, 0.8]},
        },
    }  # fmt: skip

    table = markdown(document)

    assert "## Beside a paper" in table
    assert "| restored (ours) | 31.00 | 22.00 | 26.50 |" in table
    assert "| theirs | 0.9000 | 0.8000 | 0.8500 |" in table
    assert "gamma of the training pairs gives 12.500 dB" in table


def test_a_report_that_cannot_be_written_says_what_is_left(tmp_path):
    (tmp_path / "taken").write_text("a file")
    document = {
        "run": None, "export": "e", "split": "test", "n": 0, "per_class": {}, "mean_over_pairs": {},
        "mean_over_classes": {}, "gain_gamma_psnr_db": {}, "no_value": {}, "published": None,
    }  # fmt: skip

    with pytest.raises(StorageError, match="the report could not be written"):
        write_report(document, ScoreSheet([]), tmp_path / "taken")
