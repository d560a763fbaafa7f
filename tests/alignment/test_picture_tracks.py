"""Without a board, the picture's parts agree on one motion, whatever depths they show."""

from __future__ import annotations

import numpy as np
import pytest

from alignment.datum import Datum
from alignment.decode import Frame
from alignment.photometry import standard_tone_curve
from alignment.picture_tracks import LEAST_AGREEING, TARGETS, agreeing_paths, follow_picture
from alignment.takes import TakeSource
from alignment.tracking import TargetTrack
from benchmarks.rendered_session import (
    REST_S,
    RenderedSession,
    RigTruth,
    commanded,
    planned_round,
    simulation,
)

SWEEP = planned_round(1, "gt", "gt", start_mm=100, end_mm=140, velocity_mm_s=80)
COMMON_PX = np.concatenate([np.zeros(5), np.linspace(0, 30, 30), np.full(5, 30.0)])


def track(scale: float, *, jumps_px: float = 0.0, seen: int = 40) -> TargetTrack:
    path = scale * COMMON_PX + jumps_px * (COMMON_PX > 15)
    anchors = np.column_stack([100 - path, np.full(40, 50.0)])
    sigma = np.where(np.arange(40) < seen, 0.01, np.nan)
    anchors[seen:] = np.nan
    return TargetTrack(anchors, sigma, np.full(40, 0.95))


def test_paths_that_differ_by_their_depth_agree_and_one_that_jumps_does_not():
    tracks = [track(0.8), track(1.0), track(1.3, jumps_px=1.0), track(1.1), track(0.9)]

    assert sorted(agreeing_paths(tracks)) == [0, 1, 3, 4]


def test_what_leaves_the_view_or_goes_the_other_way_is_no_target():
    tracks = [track(0.8), track(1.0, seen=30), track(-1.0), track(1.1), track(0.9)]

    assert sorted(agreeing_paths(tracks)) == [0, 3, 4]


def test_nothing_seen_is_nothing_agreed():
    assert agreeing_paths([TargetTrack.empty(40)]) == []
    assert agreeing_paths([]) == []


@pytest.mark.parametrize("scene", ["b-2", "a-1"])
def test_a_scene_of_many_depths_gives_one_straight_path(tmp_path, scene: str):
    """One large window's path jumped by 40 % in the first of these scenes, when it took to another depth."""
    bench = RenderedSession(
        tmp_path, (SWEEP,), truth=RigTruth(spec=simulation(width=320, height=192), boards=()), scene=scene
    )
    bench.take("gt", seed=3)
    bench.close()
    source = TakeSource.of(bench.folder.takes()[0], "main")

    with source.open() as frames:
        tracks = follow_picture(
            frames.frames(0, len(source.time_s)), count=len(source.time_s), tone=source.tone
        )

    path = Datum.of(tracks).positions(tracks.tracks, time_s=source.time_s)
    true_mm = commanded(SWEEP, rest_s=REST_S).position(path.time_s)
    scale, offset = np.polyfit(true_mm, path.position_mm, 1)
    assert LEAST_AGREEING <= len(tracks.targets) <= TARGETS
    assert tracks.kind == "picture"
    assert len(path.frame_index) == len(source.time_s)
    assert np.abs(path.position_mm - offset - scale * true_mm).max() < 0.1  # px


def test_a_featureless_picture_is_followed_as_far_as_it_goes():
    """Noise alone: no small window can be followed, so the middle is all there is."""
    rng = np.random.default_rng(1)
    pictures = [rng.integers(100, 104, (192, 320)).astype(np.uint8) for _ in range(6)]
    frames = [Frame(k, k, lambda: pictures[0], lambda p=p: p) for k, p in enumerate(pictures)]

    tracks = follow_picture(frames, count=6, tone=standard_tone_curve("srgb"))

    assert len(tracks.targets) == 1
