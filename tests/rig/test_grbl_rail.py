"""The rail's driver against the simulated controller: stepped without threads, and over a real port."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.session_folder import SweepRecord
from rig.clock import SessionClock
from rig.devices.grbl_rail import GrblRail, GrblSettings
from rig.devices.rail import RailState
from rig.errors import (
    DeviceError,
    DeviceTimeoutError,
    EnvelopeError,
    MotionStoppedError,
    RailLockedError,
    RigError,
)
from rig.sim.grbl import GrblController
from rig.sim.grbl_faults import PositionFault, RailFaults, ReplyFault
from rig.sim.grbl_mechanics import RailMechanics
from rig.sim.grbl_pty import GrblPty
from rig.testing import FakeClock

SWEEP = SweepRecord(start_mm=60, end_mm=200, velocity_mm_s=40, acceleration_mm_s2=200)
STEP_MM = 0.02


def rail_settings(port: str = "stepped") -> GrblSettings:
    return GrblSettings(
        kind="grbl",
        port=port,
        travel_mm=(0, 400),
        max_velocity_mm_s=120,
        max_acceleration_mm_s2=300,
        acceleration_mm_s2=200,
    )


class SteppedWire:
    """A wire straight into a controller; time passes only while the driver waits."""

    name = "stepped"
    discarded_bytes = 0

    def __init__(self, controller: GrblController, clock: FakeClock) -> None:
        self.controller = controller
        self.lines: list[str] = []
        self._clock = clock
        self._received = ""

    def write_line(self, line: str) -> None:
        self.lines.append(line)
        self.write_realtime(f"{line}\n".encode())

    def write_realtime(self, data: bytes) -> None:
        self.controller.receive(data, self._clock.now())

    def read_line(self, *, timeout_s: float) -> str | None:
        deadline_s = self._clock.now() + timeout_s
        while True:
            self._received += self.controller.transmit(self._clock.now()).decode("latin-1")
            line, end, rest = self._received.partition("\n")
            if end:
                self._received = rest
                if line.strip():
                    return line.strip()
            elif self._clock.now() >= deadline_s:
                return None
            else:
                until_s = min(self.controller.next_event_s, deadline_s)
                self._clock.advance(max(until_s - self._clock.now(), 1e-9))

    def flush(self) -> None:
        self._received = ""

    def close(self) -> None:
        pass


@dataclass
class Bench:
    """A rail with its controller at hand."""

    rail: GrblRail
    controller: GrblController
    clock: SessionClock
    wire: SteppedWire | None = None

    def true_mm(self) -> float:
        self.controller.advance(self.clock.now())
        return float(self.controller.position_mm(np.array(self.clock.now())))

    def run_sweep(self) -> None:
        self.rail.prepare(SWEEP)
        self.rail.kickoff(SWEEP)
        self.rail.complete(timeout_s=20.0)

    def fail_at(self, kind: str, at_mm: float = 120.0, **options: object) -> None:
        fault = PositionFault.model_validate({"kind": kind, "at_mm": at_mm, **options})
        self.controller.set_faults(RailFaults(at=(fault,)))


def stepped(*, homed: bool = True, **options: object) -> Bench:
    clock = FakeClock()
    controller = GrblController(**options)  # type: ignore[arg-type]
    wire = SteppedWire(controller, clock)
    rail = GrblRail(rail_settings(), clock, wire)
    rail.open()
    if homed:
        rail.home(timeout_s=60.0)
    return Bench(rail, controller, clock, wire)


def test_opening_writes_the_limits_and_does_not_move():
    bench = stepped(homed=False)
    assert bench.wire is not None

    written = [line for line in bench.wire.lines if "=" in line]

    assert written == ["$1=255", "$10=3", "$20=1", "$21=1"]
    assert bench.true_mm() == 10.0
    assert not bench.rail.homed


def test_opening_again_writes_nothing():
    bench = stepped()
    assert bench.wire is not None
    bench.wire.lines.clear()

    bench.rail.open()

    assert not [line for line in bench.wire.lines if "=" in line]


def test_homing_ends_a_pull_off_above_the_switch():
    bench = stepped()

    assert bench.rail.homed
    assert bench.rail.poll().position_mm == 2.0
    assert bench.true_mm() == pytest.approx(2.0)


def test_a_rail_that_homes_upwards_has_the_same_coordinates():
    """With `$23=0` and the motor turned round (`$3=1`) the switch end is machine zero; rail mm are the same."""
    bench = stepped(settings={23: 0, 3: 1})

    bench.rail.move_to(100.0)

    assert bench.rail.poll().position_mm == pytest.approx(100.0, abs=STEP_MM)
    assert bench.true_mm() == pytest.approx(100.0, abs=STEP_MM)


def test_a_sweep_is_uniform_between_its_ends():
    """40 mm/s from 60 to 200 mm: the true speed is 40 mm/s to the last digit, at rest 9 mm outside."""
    bench = stepped()
    bench.rail.prepare(SWEEP)
    before_mm = bench.true_mm()
    t_s = bench.rail.kickoff(SWEEP)
    bench.rail.complete(timeout_s=20.0)

    t = np.linspace(t_s, bench.clock.now(), 20_001)
    x, v = bench.controller.position_mm(t), bench.controller.velocity_mm_s(t)

    assert before_mm == pytest.approx(51.0)
    assert bench.true_mm() == pytest.approx(209.0)
    assert v[(x >= 60) & (x <= 200)] == pytest.approx(40.0, abs=1e-9)


def test_polled_positions_lie_on_the_true_trajectory():
    """A report takes some 5 ms and a step is 0.02 mm: at 40 mm/s the middle of the request is within 0.25 mm."""
    bench = stepped()
    bench.rail.prepare(SWEEP)
    bench.rail.kickoff(SWEEP)

    polls = [bench.rail.poll()]
    while polls[-1].state is RailState.MOVING:
        bench.clock.sleep(0.05)
        polls.append(bench.rail.poll())
    true_mm = bench.controller.position_mm(np.array([p.t_s for p in polls]))

    assert len(polls) > 60
    assert [p.position_mm for p in polls] == pytest.approx(list(true_mm), abs=0.25)
    assert max(p.velocity_mm_s or 0 for p in polls) == pytest.approx(40.0)


def test_a_downward_sweep_ends_below_its_start():
    bench = stepped()
    down = SweepRecord(start_mm=200, end_mm=60, velocity_mm_s=40, acceleration_mm_s2=200)

    bench.rail.prepare(down)
    bench.rail.kickoff(down)
    bench.rail.complete(timeout_s=20.0)

    assert bench.true_mm() == pytest.approx(51.0)


def test_a_sweep_with_another_acceleration_than_the_controllers_is_refused():
    bench = stepped()

    with pytest.raises(EnvelopeError, match="acceleration 100"):
        bench.rail.prepare(SWEEP.model_copy(update={"acceleration_mm_s2": 100.0}))


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (lambda rail: rail.move_to(100.0), RailLockedError),
        (lambda rail: rail.prepare(SWEEP), RailLockedError),
        (lambda rail: rail.jog(50.0, velocity_mm_s=5.0), RailLockedError),
    ],
)
def test_nothing_but_homing_moves_an_unhomed_rail(action: object, error: type[RigError]):
    bench = stepped(homed=False)
    assert bench.wire is not None

    with pytest.raises(error):
        action(bench.rail)  # type: ignore[operator]

    assert not [line for line in bench.wire.lines if "X" in line and "=" not in line]
    assert bench.true_mm() == 10.0


def test_an_unlocked_rail_crawls_but_does_not_run():
    """Unhomed, machine zero is where it was switched on: only motion towards negative lies in the soft limits."""
    bench = stepped(homed=False)
    bench.rail.clear_fault()

    bench.rail.jog(-3.0, velocity_mm_s=5.0)
    bench.clock.sleep(2.0)

    assert bench.true_mm() == pytest.approx(7.0)
    with pytest.raises(RailLockedError, match="not homed"):
        bench.rail.jog(-20.0, velocity_mm_s=5.0)
    with pytest.raises(EnvelopeError, match="jog leaves the travel"):
        bench.rail.jog(5.0, velocity_mm_s=5.0)


def test_the_next_motion_cancels_a_jog():
    bench = stepped()
    bench.rail.jog(200.0, velocity_mm_s=10.0)
    bench.clock.sleep(1.0)

    bench.rail.move_to(50.0)

    assert bench.true_mm() == pytest.approx(50.0)


def test_stop_cancels_a_jog_and_keeps_the_position():
    bench = stepped()
    bench.rail.jog(200.0, velocity_mm_s=10.0)
    bench.clock.sleep(1.0)

    bench.rail.stop()
    bench.clock.sleep(1.0)

    assert bench.rail.poll().state is RailState.IDLE
    assert 10 < bench.true_mm() < 14
    assert bench.rail.homed


def in_sweep() -> tuple[Bench, float]:
    """A rail two seconds into its sweep, and where its carriage is."""
    bench = stepped()
    bench.rail.prepare(SWEEP)
    bench.rail.kickoff(SWEEP)
    bench.clock.sleep(2.0)
    return bench, bench.true_mm()


def test_a_held_sweep_is_reported_kept_and_not_resumed():
    """From 40 mm/s at 200 mm/s² the carriage stops in 4 mm plus at most 60 ms of way."""
    bench, at_mm = in_sweep()

    bench.rail.stop()
    with pytest.raises(MotionStoppedError, match="held at"):
        bench.rail.complete(timeout_s=20.0)
    with pytest.raises(MotionStoppedError):
        bench.rail.move_to(100.0)
    bench.rail.clear_fault()

    assert 4.0 <= bench.true_mm() - at_mm <= 4.0 + 40 * 0.06
    assert bench.rail.homed
    assert bench.rail.poll().position_mm == pytest.approx(bench.true_mm(), abs=STEP_MM)
    bench.run_sweep()
    assert bench.true_mm() == pytest.approx(209.0, abs=STEP_MM)


def test_stop_at_rest_locks_motion_until_cleared():
    bench = stepped()
    bench.rail.stop()

    with pytest.raises(MotionStoppedError):
        bench.rail.move_to(100.0)
    bench.rail.clear_fault()
    bench.rail.move_to(100.0)

    assert bench.true_mm() == pytest.approx(100.0)


def test_emergency_stop_stops_dead_and_needs_unlock_and_homing():
    bench, at_mm = in_sweep()

    bench.rail.emergency_stop()
    with pytest.raises(RailLockedError, match="emergency"):
        bench.rail.complete(timeout_s=20.0)
    bench.clock.sleep(2.0)

    assert bench.true_mm() - at_mm < 40 * 0.001, "two bytes are on the wire for 0.2 ms"
    assert not bench.rail.homed
    bench.rail.clear_fault()
    with pytest.raises(RailLockedError, match="not homed"):
        bench.rail.move_to(100.0)
    bench.rail.home(timeout_s=60.0)
    bench.run_sweep()


def while_homing(bench: Bench, act: Callable[[], object]) -> None:
    """Let something happen a second after the carriage began to look for its switch."""
    assert bench.wire is not None
    send = bench.wire.write_line

    def act_after(line: str) -> None:
        send(line)
        if line == "$H":
            bench.clock.sleep(1.0)
            act()

    bench.wire.write_line = act_after  # type: ignore[method-assign]


def test_stop_during_homing_ends_it():
    bench = stepped()
    bench.rail.move_to(300.0)
    while_homing(bench, bench.rail.stop)

    with pytest.raises(RailLockedError, match="ALARM:6"):
        bench.rail.home(timeout_s=60.0)

    assert bench.true_mm() > 200
    assert not bench.rail.homed


def assert_stands_unhomed(bench: Bench) -> None:
    stopped_mm = bench.true_mm()
    bench.clock.sleep(2.0)
    assert bench.true_mm() == pytest.approx(stopped_mm, abs=0.1)
    assert not bench.rail.homed


def test_homing_that_takes_too_long_is_reset():
    bench = stepped()
    bench.rail.move_to(390.0)

    with pytest.raises(DeviceTimeoutError, match=r"no answer to '\$H'"):
        bench.rail.home(timeout_s=2.0)

    assert_stands_unhomed(bench)


def test_homing_that_is_interrupted_is_reset():
    """Ctrl-C in a script: the hold with which its `Rig` closes would be ignored by a controller that homes."""
    bench = stepped()
    bench.rail.move_to(390.0)

    def interrupt() -> None:
        raise KeyboardInterrupt

    while_homing(bench, interrupt)
    with pytest.raises(KeyboardInterrupt):
        bench.rail.home(timeout_s=60.0)

    assert_stands_unhomed(bench)


@pytest.mark.parametrize(("home_switch", "alarm"), [("stuck_open", "ALARM:9"), ("stuck_closed", "ALARM:8")])
def test_a_broken_home_switch_is_named_and_recovery_is_possible(home_switch: str, alarm: str):
    bench = stepped(homed=False)
    bench.controller.set_faults(RailFaults.model_validate({"home_switch": home_switch}))
    if home_switch == "stuck_closed":
        bench.rail.clear_fault()  # the hard limit acted when the switch closed

    with pytest.raises(RailLockedError, match=alarm):
        bench.rail.home(timeout_s=120.0)
    bench.controller.set_faults(RailFaults())
    bench.rail.clear_fault()
    bench.rail.home(timeout_s=60.0)

    assert bench.true_mm() == pytest.approx(2.0)


def test_a_reboot_in_mid_move_is_noticed_within_a_second_and_homing_mends_it():
    bench = stepped()
    bench.rail.prepare(SWEEP)
    bench.fail_at("reset")
    t_s = bench.rail.kickoff(SWEEP)

    with pytest.raises((RailLockedError, DeviceTimeoutError)):
        bench.rail.complete(timeout_s=20.0)

    assert not bench.rail.homed
    assert bench.clock.now() - t_s < 1.725 + 0.2 + 1.2, "69 mm take 1.825 s, then silence of at most 1 s"
    bench.rail.clear_fault()
    bench.rail.home(timeout_s=60.0)
    bench.run_sweep()
    assert bench.true_mm() == pytest.approx(209.0)


@pytest.mark.parametrize("kind", ["freeze", "power_loss"])
def test_a_controller_that_falls_silent_is_given_up_within_a_second_or_so(kind: str):
    bench = stepped()
    bench.rail.prepare(SWEEP)
    bench.fail_at(kind)
    t_s = bench.rail.kickoff(SWEEP)

    with pytest.raises(DeviceTimeoutError, match="no reply"):
        bench.rail.complete(timeout_s=20.0)

    assert bench.clock.now() - t_s < 1.825 + 1.2
    assert not bench.rail.homed


def test_a_limit_trip_in_motion_locks_with_its_reason():
    bench = stepped()
    bench.rail.prepare(SWEEP)
    bench.fail_at("limit_glitch")
    bench.rail.kickoff(SWEEP)

    with pytest.raises(RailLockedError, match="ALARM:1"):
        bench.rail.complete(timeout_s=20.0)

    assert bench.true_mm() == pytest.approx(120.0)
    bench.rail.clear_fault()
    assert not bench.rail.homed


@pytest.mark.parametrize("kind", ["stall", "motor_power_loss", "lost_steps"])
def test_what_the_controller_cannot_notice_the_next_homing_mends(kind: str):
    """Only the picture tells meanwhile: the reported end is right, the true one is not."""
    bench = stepped()
    bench.fail_at(kind, steps=25)

    bench.run_sweep()

    assert bench.rail.poll().position_mm == 209.0
    assert bench.true_mm() < 208.9
    bench.controller.set_faults(RailFaults())
    bench.rail.home(timeout_s=60.0)
    assert bench.true_mm() == pytest.approx(2.0)


@pytest.mark.parametrize(
    "kind", ["drop_ok", "duplicate_ok", "delay_ok", "tear_report", "merge_report", "garbage"]
)
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_one_spoiled_line_does_not_spoil_a_sweep(kind: str, nth: int):
    bench = stepped()
    fault = ReplyFault.model_validate({"kind": kind, "nth": nth, "delay_s": 0.8})
    bench.controller.set_faults(RailFaults(replies=(fault,)))

    bench.run_sweep()

    assert bench.true_mm() == pytest.approx(209.0)
    assert bench.rail.homed


def test_a_jog_is_cancelled_when_nobody_asks_for_it_any_longer():
    """The permit lasts 250 ms, polled every 50 ms: at 10 mm/s some 3 mm and the braking of 0.25 mm."""
    bench = stepped()
    bench.rail.jog(200.0, velocity_mm_s=10.0)
    begin_mm = bench.true_mm()

    while bench.rail.poll().state is RailState.MOVING:
        bench.clock.sleep(0.05)

    assert 2.0 <= bench.true_mm() - begin_mm <= 4.0
    assert bench.rail.homed


def test_a_jog_that_is_renewed_goes_on_at_its_speed():
    bench = stepped()
    bench.rail.jog(20.0, velocity_mm_s=10.0)

    for _ in range(15):
        bench.clock.sleep(0.1)
        bench.rail.renew_jog()
        assert bench.rail.poll().state is RailState.MOVING

    assert bench.true_mm() == pytest.approx(2.0 + 15.0, abs=2.0)


def test_a_held_key_prolongs_the_jog_up_to_the_margin_at_the_end():
    """Each press asks for 20 mm more; the travel ends at 400 mm, the margin begins at 395."""
    bench = stepped()
    bench.rail.move_to(340.0)

    def hold_the_key() -> None:
        for _ in range(100):
            bench.rail.jog(20.0, velocity_mm_s=20.0)
            bench.clock.sleep(0.1)

    with pytest.raises(EnvelopeError, match="leaves the travel"):
        hold_the_key()
    while bench.rail.poll().state is RailState.MOVING:
        bench.clock.sleep(0.05)

    assert 350.0 < bench.true_mm() <= 395.0
    assert bench.rail.homed


def test_off_a_pressed_switch_only_a_crawl_away_is_allowed_until_homing():
    """At power-up machine zero is here: the soft limits would forbid the only way out and are lifted for it."""
    bench = stepped(homed=False, mechanics=RailMechanics(start_mm=-0.5))
    bench.rail.clear_fault()
    assert bench.wire is not None

    for distance_mm, velocity_mm_s in ((-1.0, 5.0), (21.0, 5.0), (10.0, 6.0)):
        with pytest.raises(RailLockedError, match="away from it"):
            bench.rail.jog(distance_mm, velocity_mm_s=velocity_mm_s)
    bench.rail.jog(10.0, velocity_mm_s=5.0)
    bench.clock.sleep(4.0)
    crawled_mm = bench.true_mm()
    bench.rail.home(timeout_s=60.0)

    assert crawled_mm == pytest.approx(9.5, abs=STEP_MM)
    assert [line for line in bench.wire.lines if line.startswith("$20=")] == ["$20=1", "$20=0", "$20=1"]
    assert bench.rail.homed


def test_an_ok_that_comes_too_early_does_not_pass_for_a_homing():
    """The slow approach alone takes a second; the doubled answer of an older line comes at once."""
    bench = stepped(homed=False)
    assert bench.wire is not None
    send, received = bench.wire.write_line, bench.wire

    def send_with_a_stale_answer(line: str) -> None:
        send(line)
        if line == "$H":
            received._received += "ok\n"

    bench.wire.write_line = send_with_a_stale_answer  # type: ignore[method-assign]
    bench.rail.home(timeout_s=60.0)

    assert bench.rail.statistics.stale_answers == 1
    assert bench.true_mm() == pytest.approx(2.0)


def test_a_reboot_whose_banner_got_lost_is_known_by_the_alarm():
    bench = stepped()
    assert bench.wire is not None
    bench.controller.reboot(bench.clock.now())
    bench.clock.sleep(2.0)
    bench.controller.transmit(bench.clock.now())

    reading = bench.rail.poll()

    assert reading.state is RailState.LOCKED
    assert "position is lost" in reading.fault
    assert not bench.rail.homed


def test_overrides_that_somebody_changed_are_put_back_before_a_sweep():
    bench = stepped()
    assert bench.wire is not None
    bench.wire.write_realtime(b"\x91\x91\x97")
    bench.clock.sleep(0.1)

    bench.rail.prepare(SWEEP)
    t_s = bench.rail.kickoff(SWEEP)
    bench.rail.complete(timeout_s=20.0)
    t = np.linspace(t_s, bench.clock.now(), 20_001)
    x, v = bench.controller.position_mm(t), bench.controller.velocity_mm_s(t)

    assert v[(x >= 60) & (x <= 200)] == pytest.approx(40.0, abs=1e-9)


def test_silence_is_told_before_it_is_acted_upon():
    """Another thread may ask meanwhile: degraded after 250 ms, held after 500, reset after 1,000."""
    bench = stepped()
    assert bench.wire is not None
    bench.rail.prepare(SWEEP)
    bench.fail_at("freeze")
    bench.rail.kickoff(SWEEP)
    told: list[tuple[float, bool]] = []
    acted: list[bytes] = []
    write = bench.wire.write_realtime

    def watch(data: bytes) -> None:
        told.append((bench.clock.now(), bench.rail.degraded))
        acted.extend([data] if data in {b"!", b"!\x18"} else [])
        write(data)

    bench.wire.write_realtime = watch  # type: ignore[method-assign]
    with pytest.raises(DeviceTimeoutError):
        bench.rail.complete(timeout_s=20.0)

    assert acted == [b"!", b"!\x18"]
    first_s = next(t for t, degraded in told if degraded)
    assert told[-1][0] - first_s == pytest.approx(0.6, abs=0.25)
    assert bench.rail.statistics.silences == 1


def lit(bench: Bench) -> set[str]:
    """What the simulated controller's outputs truly are."""
    bench.controller.advance(bench.clock.now())
    return {{"M8": "flood", "M7": "mist"}[code] for code in bench.controller._machine.modes.coolant}


def test_an_output_toggles_in_motion_and_leaves_the_speed_alone():
    bench = stepped()
    bench.rail.prepare(SWEEP)
    t_s = bench.rail.kickoff(SWEEP)
    bench.clock.sleep(1.0)

    left_s = bench.rail.set_output("flood", on=True)
    bench.rail.poll()
    on = lit(bench)
    bench.rail.set_output("flood", on=False)
    bench.rail.set_output("flood", on=False)
    bench.rail.complete(timeout_s=20.0)
    t = np.linspace(t_s, bench.clock.now(), 20_001)
    x, v = bench.controller.position_mm(t), bench.controller.velocity_mm_s(t)

    assert left_s == pytest.approx(t_s + 1.0, abs=1e-6)
    assert on == {"flood"}
    assert not lit(bench)
    assert v[(x >= 60) & (x <= 200)] == pytest.approx(40.0, abs=1e-9)


def test_an_output_that_toggled_by_itself_is_put_right_by_the_next_reports():
    bench = stepped(mist=True)
    bench.rail.set_output("mist", on=True)
    bench.rail.poll()
    assert bench.wire is not None

    bench.wire.write_realtime(b"\xa0\xa1")
    bench.clock.sleep(0.1)
    for _ in range(3):
        bench.rail.poll()

    assert lit(bench) == {"mist"}


def test_a_reset_switches_outputs_off_and_that_is_known():
    bench = stepped()
    bench.rail.set_output("flood", on=True)
    bench.rail.emergency_stop()
    bench.rail.clear_fault()

    bench.rail.set_output("flood", on=True)
    bench.clock.sleep(0.1)

    assert lit(bench) == {"flood"}


def test_the_spindle_switches_at_rest_only():
    """Its command would drain the planner first."""
    bench = stepped()
    bench.rail.set_output("spindle", on=True)
    bench.rail.prepare(SWEEP)
    bench.rail.kickoff(SWEEP)

    with pytest.raises(DeviceError, match="moving"):
        bench.rail.set_output("spindle", on=False)
    with pytest.raises(DeviceError, match="no output 'lamp'"):
        bench.rail.set_output("lamp", on=True)

    assert bench.controller._machine.modes.spindle == "M3"


SPEEDS = st.just(5.0) | st.floats(20, 150)
COMMANDS = st.one_of(
    st.tuples(st.just("move_to"), st.floats(-50, 450), SPEEDS),
    st.tuples(st.just("jog"), st.floats(-60, 60), SPEEDS),
    st.tuples(st.just("sweep"), st.floats(-20, 420), SPEEDS),
    st.tuples(st.just("stop"), st.just(0.0), st.just(0.0)),
    st.tuples(st.just("clear_fault"), st.just(0.0), st.just(0.0)),
    st.tuples(st.just("home"), st.just(0.0), st.just(0.0)),
)


def obey(bench: Bench, name: str, position_mm: float, velocity_mm_s: float) -> None:
    rail = bench.rail
    if name == "move_to":
        rail.move_to(position_mm, velocity_mm_s=velocity_mm_s)
    elif name == "jog":
        rail.jog(position_mm, velocity_mm_s=velocity_mm_s)
    elif name == "sweep":
        sweep = SweepRecord(
            start_mm=200, end_mm=position_mm, velocity_mm_s=velocity_mm_s, acceleration_mm_s2=200
        )
        rail.prepare(sweep)
        rail.kickoff(sweep)
        rail.complete(timeout_s=600.0)
    elif name == "home":
        rail.home(timeout_s=60.0)
    else:
        getattr(rail, name)()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(COMMANDS, max_size=5))
def test_no_sequence_of_commands_drives_the_carriage_out_of_its_envelope(
    commands: list[tuple[str, float, float]],
):
    bench = stepped()
    begin_s = bench.clock.now()

    for command in commands:
        try:
            obey(bench, *command)
        except (EnvelopeError, RailLockedError, MotionStoppedError, DeviceError):
            continue
    bench.clock.sleep(30.0)
    bench.controller.advance(bench.clock.now())

    t = np.linspace(begin_s, bench.clock.now(), 5001)
    x, v = bench.controller.position_mm(t), bench.controller.velocity_mm_s(t)
    assert x.min() >= -1e-6, "the home switch's place, reached by homing only"
    assert x.max() <= 395 + 1e-6
    assert np.abs(v).max() <= 120 + 1e-6


@pytest.fixture(params=[4.0])
def served(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A homed rail over a real pseudo-terminal, in a thread of its own, accelerated."""
    clock = SessionClock(origin_s=time.monotonic(), rate=request.param)
    controller = GrblController(t_s=clock.now())
    with GrblPty(controller, clock) as pty:
        rail = GrblRail(rail_settings(pty.path), clock)
        rail.open()
        rail.home(timeout_s=60.0)
        yield Bench(rail, controller, clock)
        rail.close()


@pytest.mark.parametrize("served", [1.0, 4.0], indirect=True)
def test_a_sweep_over_a_real_port(served: Bench):
    rail = served.rail
    sweep = SweepRecord(start_mm=20, end_mm=220, velocity_mm_s=40, acceleration_mm_s2=200)
    rail.prepare(sweep)
    t_s = rail.kickoff(sweep)

    polls = [rail.poll()]
    while polls[-1].state is RailState.MOVING:
        served.clock.sleep(0.05)
        polls.append(rail.poll())
    rail.complete(timeout_s=10.0)

    t = np.linspace(t_s, served.clock.now(), 10_001)
    x, v = served.controller.position_mm(t), served.controller.velocity_mm_s(t)
    assert v[(x >= 20) & (x <= 220)] == pytest.approx(40.0, abs=1e-9)
    assert served.true_mm() == pytest.approx(229.0)
    assert len(polls) > 2, "few on a busy machine"
    assert all(p.t_request_s <= p.t_s <= p.t_reply_s for p in polls)


def test_stop_from_another_thread_ends_a_move_at_once(served: Bench):
    """Decelerating from 40 mm/s takes 4 mm; the rest is the segments' delay and this machine's scheduling."""
    rail = served.rail
    rail.prepare(SWEEP)
    rail.kickoff(SWEEP)
    pressed_mm: list[float] = []

    def press() -> None:
        served.clock.sleep(1.5)
        pressed_mm.append(served.true_mm())
        rail.stop()

    operator = threading.Thread(target=press)
    operator.start()
    with pytest.raises(MotionStoppedError):
        rail.complete(timeout_s=20.0)
    operator.join()
    rail.clear_fault()

    assert rail.homed
    assert 3.9 <= served.true_mm() - pressed_mm[0] <= 4.0 + 40 * 0.06 + 40 * 4 * 0.25


def test_opening_the_port_again_asks_for_homing(served: Bench):
    served.rail.close()
    again = GrblRail(served.rail.settings, served.clock)
    again.open()

    assert not again.homed
    with pytest.raises(RailLockedError):
        again.move_to(100.0)
    again.close()


def test_a_second_program_is_refused(served: Bench):
    with pytest.raises(DeviceError, match="another program"):
        GrblRail(served.rail.settings, served.clock).open()


def test_a_port_that_vanishes_in_motion_is_a_device_error(served: Bench):
    served.rail.prepare(SWEEP)
    served.fail_at("vanish")
    served.rail.kickoff(SWEEP)

    with pytest.raises(DeviceError, match="the port vanished"):
        served.rail.complete(timeout_s=20.0)


def test_positions_may_be_asked_from_another_thread_while_moving(served: Bench):
    served.rail.prepare(SWEEP)
    begin_s = served.rail.kickoff(SWEEP)
    seen: list[float] = []

    def look() -> None:
        seen.extend(float(served.controller.position_mm(np.array(begin_s))) for _ in range(200))

    camera = threading.Thread(target=look)
    camera.start()
    served.rail.complete(timeout_s=20.0)
    camera.join()

    assert len(set(seen)) == 1, "the past does not change"
