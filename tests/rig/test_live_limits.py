"""What the live check takes for good: numbers are graded by two limits, targets vote on the way between two rests."""

from __future__ import annotations

import numpy as np
import pytest

from rig.live_limits import Grades, Verdict
from rig.live_measure import Displacement, Rest, TargetScales, mean_of


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


def test_a_target_taken_for_something_else_is_outvoted_and_the_scatter_of_the_others_counts():
    """Five windows at two depths, 4 mm of way; one jumped by 6 px. The others are off by 0.05 px and claim 0.005."""
    scales = TargetScales(np.tile([-1.0, 0.0], (5, 1)), np.array([0.30, 0.30, 0.15, 0.15, 0.30]), told=0)
    off_px = np.array([0.05, -0.05, 0.05, -0.05, 6.0])
    start = Rest(np.zeros((5, 2)), np.full(5, 0.005), 0.0, 0, turn_px=10.0)
    end_px = np.column_stack([-(scales.px_per_mm * 4.0 + off_px), np.zeros(5)])
    end = Rest(end_px, np.full(5, 0.005), 4.0, 9, turn_px=10.0)

    found = scales.displacement(start, end)

    assert found is not None
    assert found.along_mm == pytest.approx(4.0, abs=0.02)
    assert (
        0.2 < found.sigma_mm < 1.0
    )  # 0.05 px with a scale of 0.3 less 0.15 px/mm, two windows each: 0.33 mm


@pytest.mark.parametrize(("told", "tells"), [(0, True), (1, False), (2, True)])
def test_a_turn_does_not_show_where_one_board_gave_the_scales_of_all(told: int, tells: bool):
    """It moved the board while the others were measured by it, so all agree with each other."""
    scales = TargetScales(np.tile([-1.0, 0.0], (3, 1)), np.array([0.3, 0.2, 0.15]), told)

    assert scales.tell_turns is tells


def test_two_rests_together_are_weighed_by_how_sure_each_is():
    """Variances of 0.09 and 0.16 mm² weigh 16 : 9; together 0.09·0.16 / 0.25 = 0.0576 mm²."""
    start = Displacement(1.0, 0.3, common_px=0.1, common_sigma_px=0.05, turn_is_known=True)
    end = Displacement(2.0, 0.4, common_px=-0.1, common_sigma_px=0.05, turn_is_known=False)

    both = mean_of(start, end)

    assert both.along_mm == pytest.approx(1.36)
    assert both.sigma_mm == pytest.approx(0.24)
    assert both.common_px == pytest.approx(0.028)
    assert both.common_sigma_px == pytest.approx(0.05 * np.hypot(0.64, 0.36))
    assert not both.turn_is_known
