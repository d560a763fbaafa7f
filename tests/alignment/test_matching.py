"""Matching by position."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.matching import PlacedFrame, match_frames


def frames(positions: list[float], *, sigma: float = 0.0, **kwargs: object) -> list[PlacedFrame]:
    return [PlacedFrame(0, i, x, sigma, **{"uniform": True, **kwargs}) for i, x in enumerate(positions)]


def pairs(lq: list[PlacedFrame], gt: list[PlacedFrame], limit: float = 0.4) -> list[tuple[int, int]]:
    found = match_frames(lq, gt, limit_mm=limit, spread_px_per_mm=0.5)
    return [(m.lq.index, m.gt.index) for m in found]


def test_every_frame_gets_the_nearest_ground_truth():
    """LQ every 1.3 mm, GT every 0.43 mm: no gap is over half a GT step."""
    lq, gt = [1.3 * i for i in range(10)], [0.43 * i + 0.1 for i in range(40)]

    found = match_frames(frames(lq), frames(gt), limit_mm=0.4, spread_px_per_mm=0.5)

    assert max(abs(m.gap_mm) for m in found) <= 0.215
    assert found[3].gap_mm == pytest.approx(lq[3] - gt[found[3].gt.index])


def test_no_ground_truth_serves_twice_and_the_closest_claim_wins():
    """Both want 1.0; 1.05 is closer, so 0.9 takes what is next best within its limit."""
    assert pairs(frames([0.9, 1.05]), frames([0.6, 1.0])) == [(0, 0), (1, 1)]


def test_a_frame_without_a_free_neighbour_keeps_its_nearest_as_a_proposal():
    found = match_frames(frames([5.0]), frames([0.0, 1.0]), limit_mm=0.4, spread_px_per_mm=0.5)

    assert [(m.gt.index, m.gap_mm) for m in found] == [(1, 4.0)]


def test_uncertainty_counts_against_the_limit():
    """A gap of 0.3 with 0.1 sigma reaches 0.5, over the limit: the frame is left to the free nearest."""
    found = match_frames(frames([0.3], sigma=0.1), frames([0.0]), limit_mm=0.4, spread_px_per_mm=0.5)

    assert found[0].reach_mm == pytest.approx(0.5)


def test_a_slightly_farther_frame_is_taken_if_it_spares_a_warp():
    """The farther one is 0.15 mm away (0.075 px of parallax) and shifted by exactly 3 px."""
    lq = [PlacedFrame(0, 0, 0.0, 0.0, uniform=True, anchor_px=(100.0, 50.0))]
    gt = [
        PlacedFrame(0, 0, 0.05, 0.0, uniform=True, anchor_px=(97.4, 50.0)),
        PlacedFrame(0, 1, 0.15, 0.0, uniform=True, anchor_px=(97.0, 50.02)),
    ]

    assert pairs(lq, gt) == [(0, 1)]


def test_sparing_a_warp_is_not_worth_visible_parallax():
    """The same at 0.3 mm, 0.15 px of parallax: the nearer frame is taken."""
    lq = [PlacedFrame(0, 0, 0.0, 0.0, uniform=True, anchor_px=(100.0, 50.0))]
    gt = [
        PlacedFrame(0, 0, 0.05, 0.0, uniform=True, anchor_px=(97.4, 50.0)),
        PlacedFrame(0, 1, 0.3, 0.0, uniform=True, anchor_px=(97.0, 50.0)),
    ]

    assert pairs(lq, gt) == [(0, 0)]


def test_frames_off_the_uniform_motion_are_proposed_only_where_there_is_nothing_else():
    gt = [
        PlacedFrame(0, 0, 0.0, 0.0, uniform=False),
        PlacedFrame(0, 1, 0.2, 0.0, uniform=True),
    ]

    assert pairs(frames([0.0]), gt) == [(0, 1)]
    assert pairs(frames([-3.0]), gt) == [(0, 0)]


def test_nothing_to_match_with_gives_no_matches():
    assert match_frames(frames([1.0]), [], limit_mm=1.0, spread_px_per_mm=1.0) == []


@given(
    st.lists(st.floats(0, 20), min_size=1, max_size=30), st.lists(st.floats(0, 20), min_size=1, max_size=60)
)
def test_matches_within_the_limit_are_one_to_one_and_complete(lq: list[float], gt: list[float]):
    found = match_frames(frames(lq), frames(gt), limit_mm=0.4, spread_px_per_mm=0.5)

    assert [m.lq.index for m in found] == list(range(len(lq)))
    assert all(m.gap_mm == m.lq.position_mm - m.gt.position_mm for m in found)
