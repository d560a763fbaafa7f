"""Several passes of ground truth serve together: each degraded frame gets the nearest frame of all of them."""

from __future__ import annotations

import numpy as np
import pytest

from alignment.pairing import align_session
from benchmarks.rendered_session import RenderedSession, planned_round
from catalog.session_folder import SessionFolder


@pytest.mark.timeout(300)
def test_a_second_pass_of_ground_truth_brings_its_frames_nearer(tmp_path):
    """The first pass has a frame every 1.5 mm, so gaps average 0.375 mm; a second one at 1 mm can only shorten them."""
    rounds = (
        planned_round(1, "gt", "gt", velocity_mm_s=30),
        planned_round(2, "gt-2", "gt", velocity_mm_s=20),
        planned_round(3, "plain", "internal"),
    )
    session = RenderedSession(tmp_path, rounds)
    session.take("gt", seed=1)
    session.take("plain", seed=3)
    align_session(session.folder, workers=1)
    alone = gaps_mm(session.folder)
    session.take("gt-2", seed=2)
    session.close()

    align_session(session.folder, workers=1)

    assert np.mean(gaps_mm(session.folder)) < np.mean(alone)
    assert {p.gt.round for p in session.folder.pairs() if p.verdict == "accepted"} == {"gt", "gt-2"}


def gaps_mm(folder: SessionFolder) -> list[float]:
    return [abs(p.position_gap_mm) for p in folder.pairs()]
