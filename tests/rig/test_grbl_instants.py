"""The controller fails at any instant of a sweep (F9, F12): its position is never trusted, and homing mends it."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
from test_grbl_rail import SWEEP, Bench, stepped

from rig.errors import DeviceError, DeviceTimeoutError, RailLockedError
from rig.sim.grbl_faults import RailFaults, TimedFault

INSTANTS = 100 if os.environ.get("CLEANPLATE_NIGHTLY") == "1" else 6
SWEEP_S = 158 / 40 + 40 / 200
"""140 mm, twice 5 mm of margin and twice 4 mm of ramp: 158 mm at 40 mm/s, and a ramp's time."""


def instants(seed: int) -> list[float]:
    """Draw times within a sweep, its very beginning and end among them."""
    draw = random.Random(seed)
    return [0.001, SWEEP_S - 0.002, *(draw.uniform(0.0, SWEEP_S) for _ in range(INSTANTS - 2))]


def sweeping(kind: str, after_s: float) -> Bench:
    """Start a sweep in which something happens a while after its line was accepted."""
    bench = stepped()
    bench.rail.prepare(SWEEP)
    bench.rail.kickoff(SWEEP)
    fault = TimedFault.model_validate({"kind": kind, "after_s": after_s})
    bench.controller.set_faults(RailFaults(timed=(fault,)))
    return bench


def assert_not_trusted(bench: Bench) -> None:
    """No target is taken, neither before the fault is cleared nor after it, until the rail was homed."""
    assert not bench.rail.homed
    with pytest.raises((DeviceError, DeviceTimeoutError)):
        bench.rail.move_to(100.0)
    bench.controller.set_faults(RailFaults())
    bench.rail.clear_fault()
    assert not bench.rail.homed
    with pytest.raises(RailLockedError):
        bench.rail.move_to(100.0)


@pytest.mark.parametrize("after_s", instants(9))
def test_after_a_reset_at_any_instant_the_position_is_not_trusted_and_the_sweep_is_done_again(after_s: float):
    bench = sweeping("reset", after_s)

    with pytest.raises((RailLockedError, DeviceTimeoutError)):
        bench.rail.complete(timeout_s=20.0)

    assert_not_trusted(bench)
    bench.rail.home(timeout_s=60.0)
    bench.run_sweep()
    assert bench.true_mm() == pytest.approx(209.0)
    assert bench.rail.poll().position_mm == pytest.approx(209.0)


@pytest.mark.parametrize("after_s", instants(12))
def test_power_that_fails_with_the_controller_is_told_by_its_silence(after_s: float):
    """Where nothing answers any more the carriage does not move either; it stands where the power left it."""
    bench = sweeping("power_loss", after_s)

    with pytest.raises(DeviceTimeoutError, match="no reply"):
        bench.rail.complete(timeout_s=20.0)

    assert not bench.rail.homed
    assert bench.true_mm() < 209.0
    assert bench.controller.velocity_mm_s(np.array([bench.clock.now()]))[0] == 0.0


def test_a_motor_without_power_goes_unnoticed_by_the_controller():
    """Why the picture has to tell (`test_slip.py`): every report is as if nothing had happened."""
    bench = sweeping("motor_power_loss", 2.0)

    bench.rail.complete(timeout_s=20.0)

    assert bench.rail.poll().position_mm == pytest.approx(209.0)
    t_s = np.array([bench.clock.now()])
    assert float(bench.controller.position_mm(t_s)[0]) < 140.0
