"""The live check spoils no good take and lets no bad one pass; one thing at a time is wrong with a rendered take.

Numbers over many seeds: ``benchmarks/live_check.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.rendered_session import CLEAN, RenderedSession, RigTruth, Wrong, planned_round, simulation
from catalog.records import Degradation
from catalog.session_folder import ExposureSettings
from rig.guards import TakeReport
from rig.live_check import LiveChecker

NOISY = ExposureSettings(iso=6400, f_number=8, exposure_s=0.00008, focus_m=2.0)
BLURRED = ExposureSettings(iso=100, f_number=8, exposure_s=0.005, focus_m=0.9)
ROUNDS = (
    planned_round(1, "gt", "gt", velocity_mm_s=20),
    planned_round(2, "plain", "internal"),
    planned_round(3, "noise", "internal", settings=NOISY, degradations=(Degradation.NOISE,)),
    planned_round(4, "defocus", "internal", settings=BLURRED, degradations=(Degradation.DEFOCUS_BLUR,)),
    planned_round(5, "rain", "external", conditions={"rain": "moderate"}, degradations=(Degradation.RAIN,)),
    planned_round(6, "dark", "external", conditions={"light": "blocked"}, degradations=(Degradation.LOW_LIGHT,)),
    planned_round(7, "haze", "external", conditions={"haze": "moderate"}, degradations=(Degradation.HAZE,)),
    planned_round(8, "drops", "external", conditions={"raindrop": "moderate"}, degradations=(Degradation.RAINDROP,)),
    planned_round(9, "gt-close", "gt", velocity_mm_s=20),
)  # fmt: skip


@pytest.fixture(scope="module")
def bench(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[RenderedSession, LiveChecker, TakeReport]]:
    session = RenderedSession(tmp_path_factory.mktemp("live"), ROUNDS)
    session.take("gt", seed=1)
    checker = LiveChecker(session.folder)
    report = checker.check("gt", 1)
    yield session, checker, report
    session.close()


def spoiled(report: TakeReport) -> list[str]:
    return [f.what for f in report.findings if f.verdict == "spoiled"]


def test_a_good_ground_truth_passes_and_its_numbers_are_right(bench):
    """20 mm/s were commanded; the lens spreads edges over less than a pixel; the far board is too small to decode."""
    _, _, report = bench

    assert spoiled(report) == []
    assert report.numbers.velocity_mm_s == pytest.approx(20.0, rel=0.02)
    assert abs(report.numbers.travel_error_mm) < 0.9  # one board cannot tell 0.02 deg of turn from it
    assert report.numbers.markers_seen == 1
    assert report.numbers.edge_px < 1.2


@pytest.mark.parametrize("name", [r.name for r in ROUNDS[1:]])
def test_degradations_made_on_purpose_are_not_called_spoiled(bench, name: str):
    session, checker, _ = bench
    number = session.take(name, seed=10 + session.rounds[name].number)

    report = checker.check(name, number)

    assert spoiled(report) == [], report.findings
    if session.rounds[name].role != "gt":
        assert report.numbers.pairs > 0


def cover(codes, index, count):
    """Somebody stands in front of the scene for the second half of the take."""
    if index < count // 2:
        return codes
    covered = codes.copy()
    covered[:, codes.shape[1] // 8 : -codes.shape[1] // 8] = 60
    return covered


def stick_slip(mm, t_s):
    """The carriage falls 2 mm behind, slips 4 mm on, and arrives where it should: 1.15 mm, 0.38 px of scatter."""
    on_its_way = (mm > 100) & (mm < 139)
    return np.where(on_its_way, mm + 2.0 - 4.0 * ((mm - 100) / 13 % 1), mm)


FAULTS: dict[str, tuple[str, Wrong, set[str]]] = {
    "slip of 5 %": ("plain", Wrong(motion=lambda mm, t_s: 94 + (mm - 94) * 0.95), {"travel", "velocity"}),
    "2 mm of steps lost in motion": (
        "plain", Wrong(motion=lambda mm, t_s: mm - 2.0 * (mm > 120)), {"travel", "velocity"},
    ),
    "2 mm of steps lost before": ("plain", Wrong(motion=lambda mm, t_s: mm - 2.0), {"position"}),
    "stall at 120 mm": ("plain", Wrong(motion=lambda mm, t_s: np.minimum(mm, 120)), {"travel", "velocity", "motion"}),
    "no motion at all": ("plain", Wrong(motion=lambda mm, t_s: np.full_like(mm, 94.0)), {"motion", "travel"}),
    "camera turned by 0.3 deg": ("plain", Wrong(turned_deg=(0.0, 0.3, 0.0)), {"position", "registration"}),
    "camera rolled by 0.3 deg": ("plain", Wrong(turned_deg=(0.0, 0.0, 0.3)), {"registration", "position"}),
    "lamp off": ("noise", Wrong(conditions={"light": "blocked"}), {"exposure"}),
    "body ignored the exposure": ("noise", Wrong(settings=NOISY.model_copy(update={"exposure_s": 1e-3})), {"exposure"}),
    "boards covered for half of the take": ("plain", Wrong(picture=cover), {"markers", "motion", "length"}),
    "ground truth out of focus": (
        "gt-close", Wrong(settings=CLEAN.model_copy(update={"focus_m": 0.5})), {"focus"},
    ),
    "stick-slip that arrives where it should": ("gt-close", Wrong(motion=stick_slip), {"velocity"}),
}  # fmt: skip


@pytest.mark.parametrize("fault", list(FAULTS))
def test_what_spoils_a_take_is_found(bench, fault: str):
    session, checker, _ = bench
    name, wrong, expected = FAULTS[fault]
    number = session.take(name, seed=40 + list(FAULTS).index(fault), wrong=wrong)

    report = checker.check(name, number)

    assert set(spoiled(report)) & expected, report.findings


@pytest.fixture(scope="module")
def without_boards(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[RenderedSession, LiveChecker, TakeReport]]:
    """At this size no board can be decoded; the scene has things at many depths."""
    rounds = tuple(planned_round(k, name, "gt", velocity_mm_s=40) for k, name in ((1, "gt"), (2, "gt-close")))
    truth = RigTruth(spec=simulation(width=320, height=192))
    session = RenderedSession(tmp_path_factory.mktemp("boardless"), rounds, truth=truth, scene="a-1")
    session.take("gt", seed=1)
    checker = LiveChecker(session.folder)
    report = checker.check("gt", 1)
    yield session, checker, report
    session.close()


def test_a_ground_truth_without_a_board_is_measured_by_the_picture(without_boards):
    """By one large window this take's travel was 13 mm short, and the take called spoiled."""
    _, _, report = without_boards

    assert spoiled(report) == []
    assert report.numbers.velocity_mm_s == pytest.approx(40.0, rel=0.01)
    assert abs(report.numbers.travel_error_mm) < 0.5
    assert any("travel by the picture" in f.text for f in report.findings)


def test_steps_lost_before_a_take_are_found_by_the_picture_too(without_boards):
    session, checker, _ = without_boards
    session.take("gt-close", seed=2, wrong=Wrong(motion=lambda mm, t_s: mm - 3.0))

    assert "position" in spoiled(checker.check("gt-close", 1))
