"""The page of a calibration: every number that was measured, every plot, and nothing that runs or loads."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from alignment.calibration.curve import light_sigma, pixel_noise, recorded
from alignment.calibration.document import (
    BoardCalibration,
    Calibration,
    LensCalibration,
    Measured,
    MissingMeasurement,
    NoiseCalibration,
    RailBend,
    RailCalibration,
    ReadoutCalibration,
    ToneCalibration,
)
from alignment.calibration.page import render_calibration, write_calibration_page
from alignment.calibration.store import StoredCalibration, store_calibration
from alignment.calibration.summary import summary_lines
from alignment.photometry import standard_tone_curve


def measured(value: float, sigma: float = 0.01) -> Measured:
    return Measured(value=value, sigma=sigma, count=7)


def bend(place_mm: float) -> RailBend:
    turn = 0.01 * np.sin(place_mm / 40)
    return RailBend(
        position_mm=place_mm,
        pitch_deg=measured(turn, 0.001),
        yaw_deg=measured(-turn, 0.001),
        roll_deg=measured(0.0, 0.001),
        y_mm=measured(0.02, 0.01),
        z_mm=measured(-0.02, 0.01),
    )


FULL = Calibration(
    rig="bench-a",
    camera="main",
    session="calibration-1",
    recorded_utc_us=1_767_323_045_000_000,
    width=1920,
    height=1080,
    lens=LensCalibration(
        focal_px=measured(1872.4, 2.1),
        focal_source="boards",
        principal_px=(measured(959.0, 1.5), measured(540.2, 1.5)),
        distortion_k1=measured(-0.0503, 0.0012),
        distortion_k2=measured(0.02, 0.005),
        distortion_covariance=-5e-6,
    ),
    boards=(
        BoardCalibration(
            first_id=0, px_per_mm=measured(0.93621), depth_mm=measured(2000.0), tilt_deg=measured(1.5)
        ),
    ),
    rail=RailCalibration(mm_per_mm=measured(1.00213, 1e-5), bends=tuple(bend(x) for x in range(60, 250, 10))),
    readout=ReadoutCalibration(readout_s=measured(0.0152, 0.0003)),
    tone=ToneCalibration(
        kind="movie",
        base="bt709",
        codes=tuple(np.linspace(0.0, 255.0, 11).tolist()),
        log_light=tuple(np.linspace(-0.3, 0.3, 11).tolist()),
        sigma=(0.01,) * 11,
        measured_codes=(6.0, 250.0),
        exposures_s=(0.001, 0.002, 0.004),
        count=900,
    ),
    noise=(
        NoiseCalibration(iso=100, electrons_at_white=measured(8000.0, 90.0), read_noise_e=measured(4.0, 0.4)),
        NoiseCalibration(iso=1600, electrons_at_white=measured(500.0, 9.0), read_noise_e=None),
    ),
)
BARE = Calibration(
    rig="<script>window.hacked = 1</script>",
    camera="main",
    session="one",
    recorded_utc_us=0,
    width=640,
    height=360,
    missing=(MissingMeasurement(what="noise", why="no standstill", next_step="record with rest_s: 1"),),
)


def page_of(calibration: Calibration) -> str:
    return render_calibration(StoredCalibration("0" * 64, Path("unused.json"), calibration))


def test_every_number_stands_with_its_sigma():
    groups = re.split(r"scope=\"rowgroup\" colspan=\"3\">(.*?)</th>", page_of(FULL))
    found = {
        (group, re.sub("<small>.*", "", name)): words
        for group, rows in zip(groups[1::2], groups[2::2], strict=True)
        for name, words in re.findall(r"<th scope=\"row\">(.*?)</th><td>(.*?)</td>", rows)
    }

    assert found["lens", "distortion k1"] == "−0.0503 ± 0.0012"
    assert found["lens", "distortion k2"] == "0.0200 ± 0.0050"
    assert found["rail and shutter", "rail scale"] == "1.00213 ± 0.00001 mm per mm"
    assert found["rail and shutter", "readout"] == "15.20 ± 0.30 ms"
    assert found["ISO 1600", "electrons at white"] == "500 ± 9 e"
    assert ("ISO 1600", "read noise") not in found


def test_the_words_of_the_command_are_those_of_the_page():
    stored = StoredCalibration("0123456789abcdef" * 4, Path("unused.json"), FULL)

    lines = list(summary_lines(stored))

    assert lines[0].startswith("calibration 0123456789ab: rig bench-a, camera main, 1920 × 1080 px")
    assert any(
        line.startswith("rail and shutter, rail scale    1.00213 ± 0.00001 mm per mm (") for line in lines
    )
    noise = next(line for line in lines if line.startswith("ISO 1600"))
    assert noise.endswith("500 ± 9 e (read noise is below what 8 bits show)")


def test_every_plot_is_drawn_and_says_what_it_shows():
    """Half the diagonal of 1920 × 1080 is 1101.5 px: f (k1 (r/f)³ + k2 (r/f)⁵) = -19.17 + 2.64 = -16.5 px.

    Its variance: (0.0012·381.2)² - 2·5e-6·381.2·131.9 + (0.005·131.9)² = 0.2093 - 0.5028 + 0.4350 = 0.376².
    """
    page = page_of(FULL)

    titles = re.findall(r"<h3>(.*?)</h3>", page)

    assert titles == [
        "Displacement by distortion",
        "Turn of the camera along the rail",
        "Way across the rail",
        "Tone curve",
        "Tone curve against its tag",
        "Noise of a pixel",
    ]
    assert "In the corner −16.5 ± 0.4 px" in page


def test_what_is_missing_stands_there_with_what_to_record():
    page = page_of(BARE)

    assert "no standstill; next: record with rest_s: 1" in page
    assert "<svg" not in page


def test_warnings_come_before_the_numbers_they_are_about():
    warned = page_of(FULL.model_copy(update={"warnings": ("board from 0: its modules cover 4.1 px",)}))

    assert warned.index("its modules cover 4.1 px") < warned.index('id="numbers"')
    assert "with warnings" not in page_of(FULL)


def test_names_never_become_markup_and_nothing_is_loaded():
    page = page_of(BARE)

    assert "<script" not in page
    assert "&lt;script&gt;window.hacked" in page
    assert not re.search(r"(src|href)=\"(?!#|data:)", page)


def test_the_page_lies_beside_its_file_and_is_the_same_for_the_same_calibration(tmp_path):
    stored = store_calibration(FULL, tmp_path)

    first = write_calibration_page(stored).read_bytes()
    again = write_calibration_page(stored)

    assert again == stored.path.with_suffix(".html")
    assert again.read_bytes() == first


def test_light_varies_by_its_electrons_and_by_the_reading():
    """At half of 500 electrons and no read noise 250 ± √250; at none of 8000 the read noise of 4 alone."""
    half, nothing = np.array([0.5]), np.array([0.0])

    assert light_sigma(half, electrons=500, read_e=0.0)[0] == pytest.approx(np.sqrt(250) / 500)
    assert light_sigma(nothing, electrons=8000, read_e=4.0)[0] == pytest.approx(4 / 8000)


@pytest.mark.parametrize(
    ("iso", "electrons", "read_e"), [(100, 8000, 4.0), (200, 4000, 4.0), (800, 1000, 0.0)]
)
def test_the_noise_of_a_setting_is_scaled_from_the_nearest_that_was_measured(iso, electrons, read_e):
    """BT.709 has a slope of 255·1.0993·0.45·0.18^-0.55 = 323.95 codes at a light of 0.18; rounding adds 1/12."""
    known = FULL.model_copy(update={"tone": None})
    expected = 323.95 * np.sqrt(0.18 * electrons + read_e**2) / electrons

    assert pixel_noise(known, iso=iso, light=0.18) == pytest.approx(np.hypot(expected, 12**-0.5), rel=0.005)


def test_what_is_below_black_is_not_recorded():
    """No light at all: codes max(0, s z) with s = 1147.5·4/8000 codes have a deviation of s·√((1 - 1/π)/2)."""
    mean, sigma = recorded(FULL.noise[0], standard_tone_curve("bt709"), np.array([0.0]))

    assert sigma[0] == pytest.approx(1147.5 * 4 / 8000 * np.sqrt((1 - 1 / np.pi) / 2), rel=0.02)
    assert mean[0] == pytest.approx(1147.5 * 4 / 8000 / np.sqrt(2 * np.pi), rel=0.02)


def test_noise_that_was_not_measured_is_not_forecast():
    assert pixel_noise(BARE, iso=100, light=0.18) is None
