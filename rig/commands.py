"""What the verbs of `rig` do once their arguments are parsed; heavy modules are imported per verb."""

from __future__ import annotations

import os
import select
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from catalog.console import Console, data_option
from catalog.errors import ExitCode
from rig.errors import RigError, SessionInterruptedError
from rig.forecast import PARALLAX_TOLERANCE_PX, Forecast, RoundForecast, board_warnings, forecast
from rig.plan import CapturePlan
from rig.profile import RigProfile, shipped_profiles

if TYPE_CHECKING:
    from alignment.calibration.store import StoredCalibration
    from rig.by_hand import HandMotion
    from rig.check import Finding
    from rig.control import Operator
    from rig.engine.cards import Bystander

_PLAN_HEADER = (
    "  #  round            role      velocity  travel mm         time s  blur px"
    "  noise  frames  pairs      GB"
)


def show_plan(
    console: Console, plan_path: Path, profile_name: str, *, calibration: str | None = None
) -> None:
    """Print what a plan will do; raises its first violation after printing all."""
    plan, profile = CapturePlan.load(plan_path), RigProfile.load(profile_name)
    expected = forecast(plan, profile, calibration=_calibration(console, profile.name, calibration))
    expected = replace(expected, warnings=(*expected.warnings, *board_warnings(profile)))
    if console.json:
        console.put_json(_forecast_document(expected))
    else:
        _print_forecast(console, plan, expected)
    for violation in expected.violations[1:]:
        console.say(f"error {violation.code}: {violation}")
    if expected.violations:
        raise expected.violations[0]


def _calibration(console: Console, rig: str, name_or_path: str | None) -> StoredCalibration | None:
    """Find the calibration asked for, or the rig's newest; a damaged one nobody asked for is passed over."""
    from alignment.calibration.store import find_calibration, newest_calibration

    if name_or_path is not None:
        return find_calibration(name_or_path, data=console.data, rig=rig)
    return newest_calibration(
        console.data, rig, ignored=lambda error: console.say(f"▲ ignored {error.message}")
    )


def _print_forecast(console: Console, plan: CapturePlan, expected: Forecast) -> None:
    console.put(f"scene {plan.scene}")
    console.put(_PLAN_HEADER)
    for r in expected.rounds:
        sweep = r.round.sweep
        velocity = f"{sweep.velocity_mm_s:8.2f}" if sweep and not r.round.stops_mm else "  stills"
        console.put(
            f" {r.round.number:2d}  {r.round.name:<16} {r.round.role:<9} {velocity}  "
            f"{r.from_mm:7.2f}…{r.to_mm:<8.2f} {r.duration_s:7.1f}  {r.blur_px:7.2f}  {_noise(r):>5}  {r.frames:6d} "
            f"{r.expected_pairs:6d}  {r.size_gb:6.2f}"
        )
    console.put(
        f"about {expected.duration_s / 60:.1f} min, {expected.travel_mm / 1000:.2f} m of travel, "
        f"{expected.expected_pairs} pairs, {expected.size_gb:.2f} GB"
    )
    gap_mm = max((r.largest_gap_mm for r in expected.rounds), default=0.0)
    parallax_px = max((r.largest_parallax_px for r in expected.rounds), default=0.0)
    console.put(
        f"frames of a pair lie at most {gap_mm:.3f} mm apart by speed and frame rate: {parallax_px:.2f} px of parallax "
        f"(limit {expected.parallax_limit_mm:.3f} mm, {PARALLAX_TOLERANCE_PX} px)"
    )
    if expected.calibration is not None:
        console.put(
            f"lens, shutter and noise by calibration {expected.calibration[:12]}; noise is the standard deviation of "
            "a mid-tone pixel in codes"
        )
    for step in expected.operator_steps:
        console.put(f"by hand: {step}")
    for warning in expected.warnings:
        console.put(f"▲ {warning}")


def _noise(expected: RoundForecast) -> str:
    return "-" if expected.noise_codes is None else f"{expected.noise_codes:.1f}"


def _forecast_document(expected: Forecast) -> dict[str, object]:
    return {
        "duration_s": expected.duration_s,
        "travel_mm": expected.travel_mm,
        "expected_pairs": expected.expected_pairs,
        "size_gb": expected.size_gb,
        "parallax_limit_mm": expected.parallax_limit_mm,
        "calibration": expected.calibration,
        "violations": [{"code": v.code, "message": str(v)} for v in expected.violations],
        "warnings": expected.warnings,
        "operator_steps": expected.operator_steps,
        "rounds": [{**asdict(r), "round": r.round.model_dump(mode="json")} for r in expected.rounds],
    }


def run_plan(
    console: Console,
    plan_path: Path,
    profile_name: str,
    *,
    arm: str | None,
    yes_conditions: bool,
    photos: Path | None,
    calibration: str | None = None,
) -> None:
    """Record a plan as a new session."""
    from rig.engine.signals import EndingSignals

    with EndingSignals(_not_begun("give the same command again"), last=True) as signals:
        from rig.display import SessionDisplay
        from rig.record import record_plan, require_armed

        plan, profile = CapturePlan.load(plan_path), RigProfile.load(profile_name)
        require_armed(profile, arm, interactive=sys.stdin.isatty(), prompt=_prompt)
        operator = _operator(yes_conditions)
        with _outliving_its_terminal(), SessionDisplay(console) as show:
            folder = record_plan(
                plan,
                profile,
                data=console.data,
                emit=show,
                photos=photos,
                operator=operator,
                signals=signals,
                calibration=calibration,
            )
        _print_session(console, folder)


def resume(console: Console, session: str, *, arm: str | None, yes_conditions: bool) -> None:
    """Record what a session still lacks."""
    from rig.engine.signals import EndingSignals

    again = f"rig record --session {shlex.quote(session)}{data_option(console.data)}"
    with EndingSignals(_not_begun(again), last=True) as signals:
        from catalog.session_folder import SessionFolder
        from rig.display import SessionDisplay
        from rig.record import require_armed, resume_session

        folder = SessionFolder.find(session, console.data)
        profile = RigProfile.model_validate(folder.record().profile)
        require_armed(profile, arm, interactive=sys.stdin.isatty(), prompt=_prompt)
        operator = _operator(yes_conditions)
        with _outliving_its_terminal(), SessionDisplay(console) as show:
            path = resume_session(folder, data=console.data, emit=show, operator=operator, signals=signals)
        _print_session(console, path)


def _not_begun(again: str) -> Callable[[str], SessionInterruptedError]:
    """Return what tells that a session was neither begun nor resumed, with the command that tries again."""
    return lambda by: SessionInterruptedError(
        f"ended by {by} before anything began", kept="everything as it was", next_step=again
    )


@contextmanager
def _outliving_its_terminal() -> Iterator[None]:
    """Let a session end in order, with its exit code, when the terminal or pipe that it prints to is closed."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            _release_if_closed(stream)


def _release_if_closed(stream: TextIO) -> None:
    """Point a stream that nobody reads any more to nowhere: writing to it would fail, now or at the very end."""
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLOUT)
    if any(what & (select.POLLERR | select.POLLHUP) for _, what in poll.poll(0)):
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _print_session(console: Console, folder: Path) -> None:
    if not console.json:
        console.put(f"session {folder.name}")
        console.put(f"folder  {folder}")


def _prompt(text: str) -> str:
    print(f"{text}: ", end="", file=sys.stderr, flush=True)  # noqa: T201
    return sys.stdin.readline()


def _operator(yes_conditions: bool) -> Operator | Bystander:
    from rig.control import Unattended
    from rig.terminal_operator import TerminalOperator

    if sys.stdin.isatty():
        return TerminalOperator(conditions_are_set=yes_conditions)
    return Unattended(conditions_are_set=yes_conditions)


def home_rig(console: Console, profile_name: str, *, arm: str | None) -> None:
    """Find the home switch and print where the carriage is."""
    from rig.by_hand import home
    from rig.record import require_armed

    profile = RigProfile.load(profile_name)
    require_armed(profile, arm, interactive=sys.stdin.isatty(), prompt=_prompt)
    _print_motion(console, home(profile, data=console.data))


def jog_rig(
    console: Console, profile_name: str, distance_mm: float, *, velocity_mm_s: float, arm: str | None
) -> None:
    """Move a little and print where the carriage is."""
    from rig.by_hand import jog
    from rig.record import require_armed

    profile = RigProfile.load(profile_name)
    require_armed(profile, arm, interactive=sys.stdin.isatty(), prompt=_prompt)
    _print_motion(console, jog(profile, distance_mm, velocity_mm_s=velocity_mm_s, data=console.data))


def _print_motion(console: Console, motion: HandMotion) -> None:
    if console.json:
        console.put_json(vars(motion))
        return
    where = "position unknown" if motion.position_mm is None else f"at {motion.position_mm:.3f} mm"
    console.put(f"{motion.rig}: {motion.state}, {'homed' if motion.homed else 'not homed'}, {where}")


def stop_rigs(console: Console, profile_name: str | None, *, emergency: bool) -> None:
    """Stop every engine, or one rig, and print what was stopped."""
    from rig.by_hand import stop

    profile = None if profile_name is None else RigProfile.load(profile_name)
    receipts = stop(profile, emergency=emergency)
    if console.json:
        console.put_json({"stopped": [vars(r) for r in receipts]})
        return
    for receipt in receipts:
        what = "emergency stop" if receipt.emergency else "stopped"
        console.put(f"{receipt.name}: {what}{'; ' if receipt.trouble else ''}{receipt.trouble}")


def list_devices(console: Console, *, timeout_s: float) -> int:
    """List what is connected, running engines and shipped profiles; returns the exit code."""
    from rig.discovery import discover

    found = discover(timeout_s=timeout_s)
    profiles = [p.stem for p in shipped_profiles()]
    if console.json:
        console.put_json(
            {
                "devices": [asdict(d) for d in found.devices],
                "profiles": profiles,
                "problems": found.problems,
            }
        )
    else:
        for device in found.devices:
            console.put(f"{device.kind:<8} {device.name}  {device.address}")
            if device.profile_line:
                console.put(f"{'':<8} in a profile: {device.profile_line}")
        for name in profiles:
            console.put(f"profile  {name}")
        if not found.devices:
            console.say("no rail and no camera connected; `--profile sim` works without hardware")
    for problem in found.problems:
        console.say(f"✕ {problem}")
    return ExitCode.MISSING if found.problems else ExitCode.OK


def check_rig(console: Console, profile_name: str, *, arm: str | None, photos: Path | None) -> int:
    """Open everything and report each finding; returns the exit code."""
    from rig.check import WHAT, check
    from rig.engine.signals import EndingSignals
    from rig.record import require_armed
    from rig.stoppable import interrupted

    profile = RigProfile.load(profile_name)
    require_armed(profile, arm, interactive=sys.stdin.isatty(), prompt=_prompt)
    confirm = _confirm_safety if sys.stdin.isatty() else None
    findings = []
    with EndingSignals(lambda by: interrupted(WHAT, by)) as signals:
        for finding in check(profile, data=console.data, photos=photos, confirm=confirm, signals=signals):
            findings.append(finding)
            _show_finding(console, finding)
    fine = all(f.ok for f in findings)
    if console.json:
        console.put_json({"findings": [{**asdict(f), "ok": f.ok} for f in findings], "ok": fine})
    else:
        to_mend = sum(not f.ok for f in findings)
        console.say(
            "ready to record" if fine else f"{to_mend} problem{'s' if to_mend > 1 else ''} to mend first"
        )
    return ExitCode.OK if fine else ExitCode.MISSING


_MARKS = {"ok": "✓", "warning": "▲", "problem": "✕"}


def _show_finding(console: Console, finding: Finding) -> None:
    if console.json:
        return
    console.put(f"{_MARKS[finding.level]} {finding.what}: {finding.text}")
    if finding.mend:
        console.put(f"    mend: {finding.mend}")


def _confirm_safety(checklist: Sequence[str]) -> bool:
    print("Go through this list at the rig itself:", file=sys.stderr)  # noqa: T201
    for item in checklist:
        print(f"  - {item}", file=sys.stderr)  # noqa: T201
    return _prompt("All of it is so: type SAFE").strip() == "SAFE"


def serve_simulation(console: Console, profile_name: str, *, photos: Path | None) -> None:
    """Serve a simulated rig in real time until SIGTERM or SIGINT."""
    from rig.clock import SessionClock
    from rig.sim.server import SimulatedRigSetup, serve

    profile = RigProfile.load(profile_name)
    if not profile.simulated:
        raise RigError(
            f"rig '{profile.name}' is real",
            next_step="give a profile with simulated: true, e.g. --profile sim",
        )
    for warning in board_warnings(profile):
        console.say(f"▲ {warning}")
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    clock = SessionClock(origin_s=time.monotonic())
    with serve(SimulatedRigSetup(profile, profile.name, photos, console.data, clock)) as simulated:
        if console.json:
            console.put_json({"rail": simulated.rail_port, "camera": simulated.camera_address})
        else:
            console.put(f"rail    {simulated.rail_port}")
            console.put(f"camera  {simulated.camera_address}")
            console.say("serving until Ctrl-C")
        over.wait()


def import_recordings(console: Console, folder: Path) -> None:
    """Make a session from recordings made elsewhere."""
    from rig.footage import import_footage

    with console.progress("importing", None) as advance:
        session = import_footage(folder, data=console.data, progress=advance)
    if console.json:
        console.put_json({"session": session.name, "folder": str(session)})
    else:
        _print_session(console, session)


def open_tui(console: Console, profile_name: str, *, photos: Path | None, plain: bool) -> int:
    """Open the operator's terminal UI; returns the exit code."""
    from rig.tui.launch import run_tui

    return run_tui(profile_name, data=console.data, photos=photos, plain=plain)
