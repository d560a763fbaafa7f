"""Positions from the places of targets in the picture."""

from __future__ import annotations

import numpy as np
import pytest

from alignment.datum import Datum, mean_shift, visible
from alignment.errors import NoMotionError
from alignment.photometry import standard_tone_curve
from alignment.tracking import ReferenceTracks, Target, TargetTrack

TIME = np.arange(40) / 30
RAIL_MM = np.concatenate([np.zeros(5), np.linspace(0, 17, 30), np.full(5, 17.0)])


def track(px_per_mm: float, start: tuple[float, float], *, slant: float = 0.0) -> TargetTrack:
    """A target that runs to the left while the camera moves to the right, on a slightly slanted path."""
    path = -px_per_mm * RAIL_MM
    anchors = np.column_stack([start[0] + path * np.cos(slant), start[1] + path * np.sin(slant)])
    return TargetTrack(anchors, np.full(40, 0.01), np.full(40, 0.95))


def reference(*tracks: TargetTrack, scales: tuple[float, ...] = (0.6, 0.4)) -> ReferenceTracks:
    targets = [Target("markers", px_per_mm=[s] * 40) for s in scales[: len(tracks)]]
    return ReferenceTracks(targets, list(tracks), standard_tone_curve("srgb"))


def test_positions_are_mm_of_the_nearest_board_from_where_the_camera_stood():
    near, far = track(0.6, (200, 100), slant=0.02), track(0.4, (500, 90), slant=0.02)

    datum = Datum.of(reference(near, far))
    found = datum.positions([near, far], time_s=TIME)

    assert datum.metric
    assert datum.px_per_mm == 0.6
    assert found.position_mm == pytest.approx(RAIL_MM, abs=1e-6)


def test_a_board_that_tells_its_scale_comes_before_a_nearer_one_that_does_not():
    near, far = track(0.6, (200, 100)), track(0.4, (500, 90))
    targets = [Target("markers", px_per_mm=[]), Target("markers", px_per_mm=[0.4])]

    datum = Datum.of(ReferenceTracks(targets, [near, far], standard_tone_curve("srgb")))

    assert datum.metric
    assert [s.px_per_mm for s in datum.scales] == pytest.approx([0.6, 0.4])
    assert datum.reference == 1


def test_a_board_out_of_view_leaves_the_datum_where_it_was():
    near, far = track(0.6, (200, 100)), track(0.4, (500, 90))
    datum = Datum.of(reference(near, far))
    gone = TargetTrack.empty(40)

    found = datum.positions([gone, far], time_s=TIME)

    assert found.position_mm == pytest.approx(RAIL_MM, abs=1e-6)
    assert len(found.time_s) == 40


def test_the_surer_target_counts_more():
    """1 px at the far board is 2.5 mm; with a hundred times its sigma it hardly counts: 2.5 mm times 2e-4."""
    near, far = track(0.6, (200, 100)), track(0.4, (500, 90))
    datum = Datum.of(reference(near, far))
    off = TargetTrack(far.anchor_px - (1.0, 0.0), np.full(40, 1.0), far.ncc)

    found = datum.positions([near, off], time_s=TIME)

    assert np.abs(found.position_mm - RAIL_MM).max() < 0.001


def test_three_targets_outvote_one_that_was_taken_for_something_else():
    tracks = [track(0.6, (200, 100)), track(0.5, (300, 90)), track(0.4, (500, 90))]
    datum = Datum.of(reference(*tracks, scales=(0.6, 0.5, 0.4)))
    wrong = track(0.6, (200, 100))
    wrong.anchor_px[20:] += (6.0, 0.0)

    found = datum.positions([wrong, *tracks[1:]], time_s=TIME)

    assert found.position_mm == pytest.approx(RAIL_MM, abs=1e-6)
    assert (found.sigma_mm[20:] > found.sigma_mm[0]).all()


def test_frames_in_which_something_stands_before_a_board_do_not_count_for_it():
    covered = track(0.6, (200, 100))
    covered.ncc[10:14] = 0.7

    assert np.flatnonzero(~visible(covered)).tolist() == [10, 11, 12, 13]
    assert not visible(TargetTrack.empty(40)).any()


def test_a_scale_learned_later_turns_px_into_mm():
    only = track(0.6, (200, 100))
    datum = Datum.of(ReferenceTracks([Target("picture")], [only], standard_tone_curve("srgb")))

    assert not datum.metric
    assert datum.positions([only], time_s=TIME).position_mm[-1] == pytest.approx(17 * 0.6)
    scaled = datum.scaled(0.6)
    assert scaled.metric
    assert scaled.positions([only], time_s=TIME).position_mm[-1] == pytest.approx(17.0)


def test_a_picture_that_stands_still_has_no_datum():
    still = TargetTrack(np.full((40, 2), 100.0), np.full(40, 0.01), np.full(40, 0.9))

    with pytest.raises(NoMotionError, match=r"moves by 0\.00 px"):
        Datum.of(reference(still))


def test_boards_never_in_view_together_share_no_datum():
    first, second = track(0.6, (200, 100)), track(0.4, (500, 90))
    first.sigma_px[20:] = np.nan
    second.sigma_px[:20] = np.nan
    first.anchor_px[20:] = np.nan
    second.anchor_px[:20] = np.nan

    with pytest.raises(NoMotionError, match="never in view together"):
        Datum.of(reference(first, second))


def test_shifts_are_averaged_over_targets_seen_in_both_frames():
    unseen = np.full(2, np.nan)
    gt = [np.array([10.0, 5.0]), np.array([20.0, 5.0]), unseen]
    lq = [np.array([11.0, 5.0]), np.array([23.0, 6.0]), np.array([0.0, 0.0])]

    assert mean_shift(gt, lq) == pytest.approx([2.0, 0.5])
    assert mean_shift([unseen], [unseen]) is None
