"""A limit switch in every condition (F11): the rail locks, only a crawl leads off the switch, homing mends it."""

from __future__ import annotations

from typing import Any

import pytest
from test_grbl_rail import Bench, stepped

from rig.devices.grbl_escape import MOST_TRIPS
from rig.devices.rail import RailPoll, RailState
from rig.errors import EnvelopeError, RailLockedError, RigError
from rig.sim.grbl_faults import RailFaults
from rig.sim.grbl_mechanics import RailMechanics

CRAWL_MM_S = 5.0
PRESSES = 12
"""Of the jog key, at most: a bounded number leads off any switch that opens at all."""


def bench_with(home_switch: str = "good", *, homed: bool = True, **mechanics: Any) -> Bench:
    """A rail with its switch good for homing and in this condition from then on."""
    bench = stepped(homed=homed, mechanics=RailMechanics(below_mm=15.0, **mechanics))
    bench.controller.set_faults(RailFaults.model_validate({"home_switch": home_switch}))
    return bench


def run_into_the_switch(bench: Bench, target_mm: float) -> None:
    """Move as the host believes is right until a switch stops it."""
    with pytest.raises(RailLockedError, match="ALARM:1"):
        bench.rail.move_to(target_mm)
    assert not bench.rail.homed


def lose_the_place(bench: Bench, by_mm: float) -> None:
    """Displace the carriage without the controller's knowledge, as lost steps do."""
    bench.controller._machine.carriage.shift(bench.clock.now(), by_mm)


def press_jog(bench: Bench, distance_mm: float, velocity_mm_s: float = CRAWL_MM_S) -> RailPoll:
    """Hold the key until the jog has ended."""
    bench.rail.jog(distance_mm, velocity_mm_s=velocity_mm_s)
    while (reading := bench.rail.poll()).state is RailState.MOVING:
        bench.rail.renew_jog()
        bench.clock.sleep(0.05)
    return reading


def crawl_off(bench: Bench, distance_mm: float) -> int:
    """Press the key until no switch is pressed; returns how many presses it took."""
    for press in range(1, PRESSES + 1):
        if not press_jog(bench, distance_mm).limits:
            return press
    raise AssertionError("the switch is still pressed")


def assert_only_a_crawl_leads_away(bench: Bench, away: int) -> None:
    """Nothing else moves the carriage: not onward, not fast, not far, and no target."""
    before_mm = bench.true_mm()
    for distance_mm, velocity_mm_s in ((-1.0 * away, 5.0), (21.0 * away, 5.0), (5.0 * away, 5.1)):
        with pytest.raises(RailLockedError, match="away from it"):
            bench.rail.jog(distance_mm, velocity_mm_s=velocity_mm_s)
    with pytest.raises(RigError):
        bench.rail.move_to(100.0)
    assert bench.true_mm() == before_mm


CONDITIONS = ["good", "bouncing", "chattering"]


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("overrun_mm", [0.0, 0.5, 3.0])
def test_a_rail_that_ran_onto_its_home_switch_crawls_off_and_homes(condition: str, overrun_mm: float):
    """Steps lost upwards: the host believes 8 mm more than there are, and drives on; the carriage may overrun."""
    bench = bench_with(condition)
    bench.rail.move_to(100.0)
    lose_the_place(bench, -8.0)

    run_into_the_switch(bench, 5.0)
    lose_the_place(bench, -overrun_mm)
    bench.rail.clear_fault()
    assert_only_a_crawl_leads_away(bench, away=1)
    presses = crawl_off(bench, 5.0)
    bench.rail.home(timeout_s=60.0)

    assert presses == 1
    assert bench.true_mm() == pytest.approx(2.0)
    assert bench.rail.homed


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize(("switch_mm", "lost_mm"), [(300.0, 0.0), (402.0, 10.0)])
def test_a_switch_at_the_other_end_is_left_downwards(condition: str, switch_mm: float, lost_mm: float):
    """Inside the travel it trips on a lawful way; outside only once steps were lost."""
    bench = bench_with(condition, upper_switch_mm=switch_mm, above_mm=20.0)
    bench.rail.move_to(250.0)
    lose_the_place(bench, lost_mm)

    run_into_the_switch(bench, 394.0)
    lose_the_place(bench, 0.5)
    bench.rail.clear_fault()
    assert_only_a_crawl_leads_away(bench, away=-1)
    with pytest.raises(RailLockedError, match="take it for the home switch"):
        bench.rail.home(timeout_s=60.0)
    crawl_off(bench, -5.0)
    bench.rail.home(timeout_s=60.0)

    assert bench.true_mm() == pytest.approx(2.0)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_rail_that_wakes_up_on_its_home_switch_is_led_off_it(condition: str):
    """Machine zero is here at power-up: what lies above is outside the soft limits, so homing follows at once."""
    bench = stepped(homed=False, mechanics=RailMechanics(start_mm=-0.5))
    bench.controller.set_faults(RailFaults.model_validate({"home_switch": condition}))
    bench.rail.clear_fault()

    assert_only_a_crawl_leads_away(bench, away=1)
    crawl_off(bench, 5.0)
    bench.rail.home(timeout_s=60.0)

    assert bench.true_mm() == pytest.approx(2.0)


def unlocked_on_the_switch() -> Bench:
    """A rail that ran 3 mm onto its home switch after it had lost steps."""
    bench = bench_with()
    bench.rail.move_to(100.0)
    lose_the_place(bench, -8.0)
    run_into_the_switch(bench, 5.0)
    lose_the_place(bench, -3.0)
    bench.rail.clear_fault()
    return bench


def test_a_crawl_in_small_presses_keeps_its_direction():
    """Each press is a motion of its own away from the switch; none of them turns the way off it round."""
    bench = unlocked_on_the_switch()

    presses = crawl_off(bench, 0.5)

    assert presses == 7, "the seventh half millimetre leaves the 3 mm"
    assert bench.true_mm() == pytest.approx(0.5, abs=0.03)


def test_a_switch_that_is_stuck_is_given_up_after_twenty_millimetres():
    bench = stepped(homed=False)
    bench.controller.set_faults(RailFaults(home_switch="stuck_closed"))
    bench.rail.clear_fault()
    begin_mm = bench.true_mm()

    with pytest.raises(RailLockedError, match=r"still pressed after 20\.0 mm.*stuck"):
        crawl_off(bench, 5.0)

    assert bench.true_mm() - begin_mm <= 20.1


def test_a_switch_that_opens_after_it_was_stuck_begins_anew():
    """Oil on the switch: the bound counts for one escape, not for the life of the driver."""
    bench = stepped(homed=False)
    bench.controller.set_faults(RailFaults(home_switch="stuck_closed"))
    bench.rail.clear_fault()
    press_jog(bench, 15.0)

    bench.controller.set_faults(RailFaults())
    bench.rail.home(timeout_s=60.0)

    assert bench.rail.homed
    assert bench.rail._opened().escape.crawled_mm == 0


def test_a_noisy_cable_is_given_up_with_its_name_and_forgiven_when_cleared():
    """Glitches every 0.1 mm beside a pressed switch: five trips are enough, and the fifth stays."""
    bench = unlocked_on_the_switch()
    bench.controller.set_faults(RailFaults(limit_noise_mm=0.1))

    readings = [press_jog(bench, 5.0) for _ in range(MOST_TRIPS)]
    bench.controller.set_faults(RailFaults())
    bench.rail.clear_fault()
    crawl_off(bench, 5.0)

    assert [r.state for r in readings] == [RailState.IDLE] * (MOST_TRIPS - 1) + [RailState.LOCKED]
    assert f"tripped {MOST_TRIPS} times" in readings[-1].fault
    assert "noisy" in readings[-1].fault


def test_noise_without_a_switch_locks_at_the_first_trip():
    """Nothing was pressed, so that no trip is expected: a jog does not unlock by itself."""
    bench = bench_with()
    bench.rail.move_to(100.0)
    bench.controller.set_faults(RailFaults(limit_noise_mm=30.0))

    with pytest.raises(RailLockedError, match="ALARM:1"):
        bench.rail.move_to(200.0)
    bench.rail.clear_fault()
    reading = bench.rail.poll()
    bench.controller.set_faults(RailFaults(limit_noise_mm=1.0))
    tripped = press_jog(bench, 5.0)

    assert not reading.limits
    assert tripped.state is RailState.LOCKED
    assert "ALARM:1" in tripped.fault


def test_an_emergency_stop_while_a_switch_is_left_is_not_unlocked():
    bench = bench_with("bouncing")
    bench.rail.move_to(100.0)
    lose_the_place(bench, -8.0)
    run_into_the_switch(bench, 5.0)
    lose_the_place(bench, -1.0)
    bench.rail.clear_fault()
    bench.rail.jog(5.0, velocity_mm_s=CRAWL_MM_S)
    bench.clock.sleep(0.2)

    bench.rail.emergency_stop()
    reading = bench.rail.poll()

    assert reading.state is RailState.LOCKED
    assert "emergency stop" in reading.fault
    assert bench.controller._machine.state.name == "ALARM"


def test_the_home_switch_may_stay_open_or_closed_while_it_is_homed():
    """Stuck open is ALARM:9 and stuck closed ALARM:8; either way the rail stays locked."""
    for condition, alarm in (("stuck_open", 9), ("stuck_closed", 8)):
        bench = stepped(homed=False)
        bench.controller.set_faults(RailFaults.model_validate({"home_switch": condition}))
        bench.rail.clear_fault()

        with pytest.raises(RailLockedError, match=f"ALARM:{alarm}"):
            bench.rail.home(timeout_s=120.0)

        assert not bench.rail.homed
        with pytest.raises((RailLockedError, EnvelopeError)):
            bench.rail.move_to(100.0)
