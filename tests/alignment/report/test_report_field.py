"""The arrows over the report's pictures: what is left in the written files, and how sure that is."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from alignment.camera_motion import Pinhole
from alignment.photometry import standard_tone_curve
from alignment.picture import Picture
from alignment.registration import Registration, register
from alignment.report_axes import Doubt, Target, arrows
from alignment.report_field import FieldPart, field_overlays, field_parts
from alignment.report_source import read_source
from catalog.evidence import TargetRecord
from catalog.session_folder import SessionFolder

STEP_PX = 0.5


def halves(noise_codes: float = 1.0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A photograph, and the same with its right half moved half a pixel to the right; with a little noise."""
    photo = np.asarray(data.coffee()[:384, :592], np.float32)
    moved = cv2.warpAffine(photo, np.array([[1, 0, STEP_PX], [0, 1, 0]]), (592, 384), flags=cv2.INTER_CUBIC)
    moved[:, :296] = photo[:, :296]
    rng = np.random.default_rng(1)
    noisy = moved + noise_codes * rng.standard_normal(moved.shape)
    return photo.astype(np.uint8), np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def found() -> Registration:
    tone = standard_tone_curve("srgb")
    gt, lq = (Picture(side, tone=tone) for side in halves())
    return register(
        gt, lq, camera=Pinhole(700.0, 592, 384), initial=np.eye(3), finest_scale=2, models=("rotation",)
    )


def test_parts_show_where_their_content_lies_whatever_the_whole_does(found: Registration):
    """The left half stays, the right one lies half a pixel further: no rotation is both."""
    parts = list(field_parts(found))
    left = [p.shift_px[0] for p in parts if p.centre_px[0] < 250]
    right = [p.shift_px[0] for p in parts if p.centre_px[0] > 342]

    assert min(len(left), len(right)) >= 5
    assert np.median(left) == pytest.approx(0.0, abs=0.08)
    assert np.median(right) == pytest.approx(STEP_PX, abs=0.08)
    assert np.median([abs(p.shift_px[1]) for p in parts]) < 0.08


def test_an_ellipse_holds_95_per_cent_of_a_normal_distribution_and_lies_along_it():
    """Standard deviations 0.2 along 30 degrees and 0.05 across: half axes of 2.448 times those."""
    turn = np.radians(30.0)
    along = np.array([np.cos(turn), np.sin(turn)])
    across = np.array([-along[1], along[0]])
    covariance = 0.04 * np.outer(along, along) + 0.0025 * np.outer(across, across)

    doubt = FieldPart(np.zeros(2), np.zeros(2), covariance).doubt

    assert doubt.major_px == pytest.approx(2.448 * 0.2, rel=1e-3)
    assert doubt.minor_px == pytest.approx(2.448 * 0.05, rel=1e-3)
    assert doubt.turn_deg % 180 == pytest.approx(30.0)


def test_an_ellipse_stands_about_its_arrows_tip_on_the_arrows_scale():
    """In a picture 320 px wide a pixel is 20: the tip of (1, 0.5) from (100, 50) lies at (120, 60)."""
    drawn = ET.fromstring(arrows((320, 200), [(100, 50, 1.0, 0.5)], doubts=[Doubt(0.4, 0.1, 90.0)]))  # noqa: S314

    (ellipse,) = drawn.findall("ellipse")

    assert {k: ellipse.get(k) for k in ("cx", "cy", "rx", "ry")} == {
        "cx": "120", "cy": "60", "rx": "8", "ry": "2",
    }  # fmt: skip
    assert ellipse.get("transform") == "rotate(90 120 60)"


def test_a_target_is_a_cross_with_a_circle_and_a_line_to_where_registration_puts_it():
    """In a picture 320 px wide a pixel is 20: 0.1 px are 2, a circle of 0.2 px is 4 wide, an arm is 320/60."""
    drawn = ET.fromstring(arrows((320, 200), [], targets=[Target(100, 50, 0.1, -0.2, 0.2)]))  # noqa: S314

    (circle,) = drawn.findall("circle")

    assert {k: circle.get(k) for k in ("cx", "cy", "r")} == {"cx": "100", "cy": "50", "r": "4"}
    assert drawn.findall("path")[-1].get("d") == "M94.7 50h10.7M100 44.7v10.7M100 50l2 -4"


def test_targets_outside_the_written_pair_are_left_out(bench_session: SessionFolder):
    pair = read_source(bench_session).accepted[0]
    left, top, width, _ = pair.lq_crop
    inside, outside = (
        TargetRecord(lq_px=(x, top + 20.0), misfit_px=(0.01, 0.0), sigma_px=0.02)
        for x in (left + 30.0, left + width + 5.0)
    )

    (drawn,) = field_overlays(
        bench_session.path,
        [pair.model_copy(update={"targets": (inside, outside)})],
        focal_px=1248.0,
    ).values()

    (circle,) = ET.fromstring(drawn).findall("circle")  # noqa: S314
    assert (circle.get("cx"), circle.get("cy")) == ("30", "20")


def test_pairs_whose_files_are_gone_have_no_arrows(bench_session: SessionFolder, tmp_path: Path):
    pairs = read_source(bench_session).accepted[:3]

    here = field_overlays(bench_session.path, pairs, focal_px=1248.0)
    gone = field_overlays(tmp_path, pairs, focal_px=1248.0)

    assert list(here) == [p.pair for p in pairs]
    assert gone == {}
