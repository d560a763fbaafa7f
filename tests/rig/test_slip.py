"""A rail that loses way is found out by the boards, and one that does not is left alone (F10).

Thousands of takes: ``benchmarks/rig_slip.py``; pictures from end to end: ``test_live_check.py``.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from slip_judge import FAULTS, Fault, FaultName, Setting, SlipBench

TIMES = 20 if os.environ.get("CLEANPLATE_NIGHTLY") == "1" else 1
LARGE_MM = 3.0
"""Far beyond the limit of 0.5 mm and three standard deviations: none of these may pass."""


@pytest.fixture(scope="module")
def bench() -> SlipBench:
    return SlipBench(1, Setting(length_mm=80.0))


@pytest.mark.parametrize("name", FAULTS)
def test_way_that_was_lost_is_found(bench: SlipBench, name: FaultName):
    faults = [Fault(name, LARGE_MM, at) for at in np.linspace(0.3, 0.7, TIMES)]

    missed = [fault for fault in faults if not bench.spoiled(fault)]

    assert missed == []


@pytest.mark.parametrize("share", np.linspace(0.05, 0.95, 4 * TIMES).tolist())
def test_a_rail_that_lost_its_motor_power_while_it_reports_is_found_by_its_frozen_boards(
    bench: SlipBench, share: float
):
    """The rest of 92 mm is missing, 4.6 mm at least (F12)."""
    assert bench.spoiled(Fault("stall", 92.0 * (1 - share)))


def test_a_take_that_went_where_it_should_is_not_called_spoiled(bench: SlipBench):
    wrong = [bench.spoiled() for _ in range(5 * TIMES)]

    assert [w for w in wrong if w] == []


def test_stick_slip_is_found_although_the_carriage_arrives_where_it_should():
    """Slips of 2 mm: it scatters by 2/√12 mm, 0.38 px of the near board; alignment refuses more than 0.3 px."""
    bench = SlipBench(1, Setting(length_mm=200.0, stride=1))

    assert bench.spoiled(Fault("stick_slip", 2.0)) == ["velocity"]


def test_bends_of_the_rail_are_not_taken_for_stick_slip():
    """Pitch and yaw of 0.01 deg are usual for rails and wander by 0.2 to 0.3 px, which no retake would mend."""
    bench = SlipBench(3, Setting(length_mm=200.0, bends_deg=0.01))

    wrong = [bench.spoiled() for _ in range(4 * TIMES)]

    assert [w for w in wrong if "velocity" in w] == []


@pytest.mark.parametrize("at", [0.0, 0.5], ids=["before", "on the way"])
def test_a_millimetre_is_found_in_noise_by_both_rests_together(at: float):
    """With the uncertainty on top of half a millimetre, the limits were 1.2 mm at the start and 1.6 mm of travel."""
    bench = SlipBench(2, Setting(length_mm=200.0, noise_px=(0.06, 0.07)))

    missed = [size for size in (-1.2, 1.2) if not bench.spoiled(Fault("lost_in_motion", size, at))]

    assert missed == []


def test_faults_are_as_large_as_they_say():
    """80 mm of uniform motion, twice 2 mm of margin, two ramps of 4 mm: 92 mm; at the end each fault is 2 mm off."""
    motion = Setting(length_mm=80.0).motion(40.0)
    t_s = np.array([motion.stop_s + 1.0])
    mm = motion.position(t_s)

    off_mm = [float((mm - Fault(name, 2.0).truth(mm, t_s, motion))[0]) for name in FAULTS]

    assert mm[0] - motion.rest_mm == pytest.approx(92.0)
    assert off_mm == pytest.approx([2.0] * len(FAULTS))
