"""A number is graded by two limits, each of which it may just reach."""

from __future__ import annotations

import pytest

from rig.live_limits import Grades, Verdict


@pytest.mark.parametrize(
    ("value", "verdict"), [(0.9, "ok"), (0.89, "doubtful"), (0.5, "doubtful"), (0.49, "spoiled")]
)
def test_what_should_be_large(value: float, verdict: Verdict):
    assert Grades(doubtful=0.9, spoiled=0.5).at_least(value) == verdict


@pytest.mark.parametrize(
    ("value", "verdict"), [(1.0, "ok"), (1.01, "doubtful"), (2.0, "doubtful"), (2.01, "spoiled")]
)
def test_what_should_be_small(value: float, verdict: Verdict):
    assert Grades(doubtful=1.0, spoiled=2.0).at_most(value) == verdict
    assert Grades(doubtful=0.5, spoiled=1.0).times(2).at_most(value) == verdict
    assert Grades(doubtful=0.5, spoiled=1.5).at_most(value, slack=0.5) == verdict
