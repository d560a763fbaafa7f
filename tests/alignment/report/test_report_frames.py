"""Rejected candidates are shown by their frames, decoded once more from the takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from alignment.report_frames import frame_pictures
from alignment.report_sheet import REJECTED_DECODED, reject_groups
from alignment.report_source import ReportSource, read_source
from catalog.session_folder import ROUND_FILE, SessionFolder

DrawUp = Callable[..., SessionFolder]


def with_stills(folder: SessionFolder, *rounds: str) -> ReportSource:
    """Give takes of these rounds 300 stills: grey pictures, brighter by one for each of the first 200."""
    for take in folder.path.glob("rounds/*.take*"):
        if take.name.split(".")[0].split("-", 1)[1] not in rounds or not (take / ROUND_FILE).is_file():
            continue
        names = [f"main/{k:06d}.png" for k in range(300)]
        (take / "main").mkdir()
        for k, name in enumerate(names):
            Image.new("RGB", (64, 48), (min(k, 200),) * 3).save(take / name)
        document = json.loads((take / ROUND_FILE).read_text())
        document["cameras"]["main"] |= {"kind": "stills", "files": names}
        (take / ROUND_FILE).write_text(json.dumps(document))
    return read_source(folder)


@pytest.fixture
def source(draw_up: DrawUp) -> ReportSource:
    """Three rejected candidates of iso6400, frames 24 to 26, against ground-truth frames 72 to 78."""
    return with_stills(draw_up(), "gt", "iso6400")


def test_the_very_frames_of_a_candidate_are_shown(source: ReportSource, tmp_path: Path):
    """Frame 72 of the ground truth is grey of 72, frame 24 of the round grey of 24: three times darker, lifted by 4."""
    candidate = next(p for p in source.pairs if p.verdict == "rejected")

    pictures = frame_pictures(source, [candidate])[candidate.pair]

    assert (candidate.gt.frame_index, candidate.lq.frame_index) == (72, 24)
    assert pictures.lift == 4
    assert (pictures.width, pictures.height) == (64, 48)


def test_every_reason_gets_pictures(source: ReportSource):
    groups = {g.code: len(g.cards) for g in reject_groups(source)}

    assert groups["position_gap"] >= 1
    assert groups["not_uniform"] >= 1


def test_rounds_whose_movies_are_gone_or_damaged_have_no_pictures(source: ReportSource):
    """The movies of the other rounds are a few bytes of text."""
    groups = {g.code: len(g.cards) for g in reject_groups(source)}

    assert groups["moving_object"] == groups["bad_content"] == 0


def test_only_so_many_candidates_are_decoded(draw_up: DrawUp):
    reasons = tuple(f"reason_{k:02d}" for k in range(30))
    changes = {"iso6400": {"rejected": reasons}, "defocus": {"rejected": ()}, "rain": {"rejected": ()}}
    source = with_stills(draw_up(changes), "gt", "iso6400")

    shown = {c.name for g in reject_groups(source) for c in g.cards}

    assert len(shown) == REJECTED_DECODED
