"""The benchmark's own truth: what it says lies between two frames is what lies between them."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from benchmarks.alignment_goals import EPE_GOALS_PX, best_rival
from benchmarks.alignment_measure import measure, numbers
from benchmarks.alignment_pairs import (
    CLASSES,
    LENS,
    REFERENCE_DEPTH_MM,
    PairPlace,
    Studio,
    breathing_focus_for,
    focus_for,
    places,
)
from benchmarks.alignment_rivals import RIVALS
from benchmarks.alignment_tables import markdown, plot, summarise
from rig.sim.optics import blur_radius_px, focal_length_px

PLACE = PairPlace("tuning-2", 0)


@pytest.fixture(scope="module")
def studio(tmp_path_factory) -> Studio:
    """A small studio of the bundled photographs, which need no shared data."""
    work = tmp_path_factory.mktemp("bench")
    return Studio(PLACE.scene, photos=work, work=work, size=(480, 272))


@pytest.fixture(scope="module")
def clean(studio):
    return studio.pair(CLASSES["clean"], PLACE)


@pytest.mark.parametrize("radius_px", [2.0, 4.0])
def test_a_defocus_class_blurs_the_middle_of_the_scene_by_its_radius(radius_px):
    radius = blur_radius_px(
        LENS, 1920, f_number=8.0, focus_m=focus_for(radius_px), depth_mm=REFERENCE_DEPTH_MM
    )

    assert radius == pytest.approx(radius_px)


def test_half_a_per_cent_of_breathing_is_half_a_per_cent_of_focal_length():
    near, far = (
        focal_length_px(LENS, 1920, focus_m=focus_m, breathing=1.0)
        for focus_m in (breathing_focus_for(0.005), 2.0)
    )

    assert near / far == pytest.approx(1.005)


def test_the_true_field_carries_the_ground_truth_onto_the_degraded_frame(clean):
    """Sampled where the truth says, the degraded frame is nearer to the ground truth than where it was."""
    y, x = np.mgrid[20:252:4, 20:460:4]
    points = np.column_stack([x.ravel(), y.ravel()]).astype(float)
    there = clean.true_lq(points).astype(np.float32)
    gt = clean.gt[y.ravel(), x.ravel()].astype(float)

    moved = cv2.remap(clean.lq, there[:, None, 0], there[:, None, 1], cv2.INTER_LINEAR)[:, 0]
    left = np.abs(clean.lq[y.ravel(), x.ravel()] - gt).mean()

    assert np.abs(moved - gt).mean() < 0.8 * left


def test_classes_show_the_same_pair_worse(studio, clean):
    """Poses, truth and ground truth do not depend on the class, or columns could not be compared."""
    dark = studio.pair(CLASSES["dark64"], PLACE)
    points = np.array([[100.0, 80.0], [300.0, 200.0]])

    assert np.array_equal(dark.gt, clean.gt)
    assert np.allclose(dark.true_lq(points), clean.true_lq(points))
    assert dark.lq.mean() < clean.lq.mean() / 8


def test_points_on_a_thing_that_moved_have_no_truth(studio):
    """The thing covers a fifth of the frame; with its step, a third at most."""
    pair = studio.pair(CLASSES["mover"], PLACE)
    y, x = np.nonzero(pair.moved)

    assert 0.2 <= pair.moved.mean() <= 0.4
    assert np.isnan(pair.true_lq(np.column_stack([x, y])[::500].astype(float))).all()


@pytest.mark.parametrize(
    "name", ["motion8", "raindrop", "jpeg", "h264", "rolling_shutter", "disc4", "breathing"]
)
def test_every_way_to_degrade_gives_a_picture_that_differs(studio, clean, name):
    pair = studio.pair(CLASSES[name], PLACE)

    assert pair.lq.shape == clean.lq.shape
    assert np.abs(pair.lq.astype(float) - clean.lq).mean() > 0.2


def test_moving_by_the_truth_leaves_no_error_and_doing_nothing_leaves_the_displacement(clean):
    """A pair whose truth is one shift has an exact homography."""
    still = replace(clean, lq_truth=clean.gt_truth)

    assert numbers(still, np.eye(3))["estimate_px"] == pytest.approx(0.0, abs=1e-9)
    assert numbers(clean, None)["failed"]
    assert numbers(still, np.array([[1, 0, 0.3], [0, 1, -0.4], [0, 0, 1.0]]))["estimate_px"] == pytest.approx(
        0.5
    )


def test_our_estimate_is_measured_with_its_evidence(clean):
    row = measure(clean, "cleanplate", None, low_light=False)

    assert row["estimate_px"] < 0.1
    assert row["predicted_px"] > row["bound_px"] > 0


@pytest.mark.parametrize("name", [n for n in RIVALS if n != "position_match"])
def test_a_rival_finds_a_plain_shift(name, clean):
    """The same picture cut 2 px right and 1 px down of itself: what was at (x, y) is at (x - 2, y - 1)."""
    grey = cv2.cvtColor(clean.gt, cv2.COLOR_RGB2GRAY).astype(np.float32)

    found = RIVALS[name](grey[:-8, :-8].copy(), grey[1:-7, 2:-6].copy())

    middle = found @ [230.0, 130.0, 1.0]
    assert middle[:2] / middle[2] == pytest.approx([228.0, 129.0], abs=0.1)


def test_pairs_are_spread_over_all_scenes_of_their_set():
    chosen = places("report", 20)

    assert len({p.scene for p in chosen}) >= 4
    assert all(p.scene.startswith("report") for p in chosen)
    assert len(set(chosen)) == 20


def _row(method: str, pair: int, error_px: float) -> dict[str, object]:
    return {
        "class": "clean", "scene": "s", "pair": pair, "method": method, "estimate_px": error_px,
        "delivered_px": error_px, "local_p95_px": error_px, "failed": False, "gt_warped": True, "cpu_ms": 10.0,
    }  # fmt: skip


def test_the_best_rival_is_compared_pair_by_pair():
    """Always 0.01 px worse than one rival and better than the other: the interval is that one number."""
    rows = [
        _row(method, i, 0.02 + 0.001 * i + extra)
        for i in range(10)
        for method, extra in (("cleanplate", 0.01), ("ecc", 0.0), ("sift_magsac", 0.2))
    ]

    found = best_rival(rows)

    assert found.rival == "ecc"
    assert found.difference_px == pytest.approx(0.01)
    assert found.low_px > 0


def test_results_are_tabulated_and_drawn(tmp_path):
    rows = [_row(m, i, 0.02) for m in ("ecc", "sift_magsac") for i in range(3)]
    document = {"classes": summarise(rows), "goals": []}

    plot(document, tmp_path / "plot.svg")

    assert "| ecc | 0.020 (0.020) | 10 |" in markdown(document)
    assert (tmp_path / "plot.svg").read_text().count("<circle") == 2


def test_every_class_has_its_goal():
    assert set(EPE_GOALS_PX) == set(CLASSES)
