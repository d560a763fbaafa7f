"""`rig check`: the rig's doctor. Opens everything together, measures it, and says of each finding how to mend it.

Nothing moves except a homing on an unhomed rail; the test movie is deleted from the card.
"""

from __future__ import annotations

import getpass
import io
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from catalog.session_folder import ExposureSettings
from rig.assembly import Rig
from rig.devices.camera import Camera
from rig.devices.gphoto2_errors import camera_holder
from rig.engine.signals import EndingSignals
from rig.errors import DeviceError, MoveInterruptedError, RigError
from rig.profile import RigProfile
from rig.safety import confirmed_safety, keep_safety, safety_checklist
from rig.stoppable import stoppable

MIN_FREE_GB = 10.0
MIN_BATTERY_PERCENT = 20
MAX_ROUND_TRIP_MS = 250.0
MAX_CLOCK_DRIFT_MS = 5.0
MAX_CAMERA_CLOCK_S = 2.0
RATE_TOLERANCE = 0.02
DISK_RESERVE = 2.0
"""The disk must write so many times as fast as the camera records."""
_CLOCK_TEST_S = 0.2
_RATE_TEST_S = 2.0
_MOVIE_S = 1.5
_VIEW_ATTEMPTS = 3
_WAKE_S = 30.0
"""How long a camera that missed a frame may take to be found again."""
_DISK_TEST_BYTES = 64 << 20
_HOMING_TIMEOUT_S = 120.0
WHAT = "the check"
"""What a stop interrupts, for messages."""

Level = Literal["ok", "warning", "problem"]
Confirm = Callable[[Sequence[str]], bool]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    level: Level
    text: str
    """What was found, with units."""
    mend: str = ""
    """What to do about it; empty where all is well."""

    @property
    def ok(self) -> bool:
        """Whether a session can be recorded in spite of it."""
        return self.level != "problem"


def check(
    profile: RigProfile,
    *,
    data: Path,
    photos: Path | None = None,
    confirm: Confirm | None = None,
    signals: EndingSignals | None = None,
) -> Iterator[Finding]:
    """Yield one finding after the other.

    Args:
        profile: The rig.
        data: Data folder.
        photos: Photographs for a simulated world.
        confirm: Shows the safety check list of a real rig and returns whether the operator confirms all of it; None
            where nobody can be asked.
        signals: What this process does with signals: they stop the rail. None to leave them alone.

    Raises:
        MoveInterruptedError: Somebody stopped it.
    """
    yield from _disk(profile, data)
    yield _clock()
    if not profile.simulated:
        yield _safety(profile, data, confirm)
        yield from _connections(profile)
    try:
        with (
            Rig(profile, scene="check", data=data, photos=photos) as rig,
            stoppable(rig, WHAT, signals=signals) as halt,
        ):
            for finding in _devices(rig):
                halt.require_free()
                yield finding
            halt.require_free()
    except MoveInterruptedError:
        raise
    except RigError as error:
        yield _failed("rig", error)


def _devices(rig: Rig) -> Iterator[Finding]:
    yield from _guarded("rail", lambda: _rail(rig))
    for name in rig.cameras:
        yield from _guarded(f"camera {name}", lambda n=name: _camera(rig, n))  # type: ignore[misc]
    yield from _guarded("together", lambda: _together(rig))


def _guarded(what: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Go on with the rest when one device fails."""
    try:
        yield from look()
    except RigError as error:
        yield _failed(what, error)


def _failed(what: str, error: RigError) -> Finding:
    return Finding(what, "problem", error.message, error.next_step or f"rig help {error.code}")


def _judged(what: str, fine: bool, text: str, mend: str, *, otherwise: Level = "problem") -> Finding:
    return Finding(what, "ok", text) if fine else Finding(what, otherwise, text, mend)


def _disk(profile: RigProfile, data: Path) -> Iterator[Finding]:
    existing = next(p for p in (data, *data.parents) if p.exists())
    free_gb = shutil.disk_usage(existing).free / 1e9
    yield _judged(
        "disk space",
        free_gb >= MIN_FREE_GB,
        f"{free_gb:.0f} GB free at {data}",
        f"free {MIN_FREE_GB:.0f} GB, or use --data on another disk",
    )
    needed_mb_s = DISK_RESERVE * profile.movie_format.bitrate_mbit_s / 8
    written_mb_s = _write_speed_mb_s(existing)
    yield _judged(
        "disk speed",
        written_mb_s >= needed_mb_s,
        f"{written_mb_s:.0f} MB/s written and synced, {needed_mb_s:.0f} MB/s wanted",
        "record to a faster disk (--data), not to a network drive",
        otherwise="warning",
    )


def _write_speed_mb_s(folder: Path) -> float:
    block = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=folder) as file:
        started_s = time.monotonic()
        for _ in range(_DISK_TEST_BYTES >> 20):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return _DISK_TEST_BYTES / 1e6 / (time.monotonic() - started_s)


def _clock() -> Finding:
    wall, mono = time.time(), time.monotonic()
    time.sleep(_CLOCK_TEST_S)
    drift_ms = 1000 * abs((time.time() - wall) - (time.monotonic() - mono))
    return _judged(
        "clock",
        drift_ms < MAX_CLOCK_DRIFT_MS,
        f"wall and monotonic clock agree within {drift_ms:.2f} ms",
        "something sets the clock just now; wait for the time service to settle",
        otherwise="warning",
    )


def _safety(profile: RigProfile, data: Path, confirm: Confirm | None) -> Finding:
    """Ask for what no software can see, once per rig and again when its caps are raised."""
    kept = confirmed_safety(profile, data)
    if kept is not None and kept.holds_for(profile.rail):
        return Finding("safety", "ok", f"check list confirmed by {kept.by} on {kept.utc}")
    if confirm is None or not confirm(safety_checklist(profile.rail)):
        since = "never confirmed" if kept is None else "confirmed for lower caps"
        return Finding(
            "safety",
            "problem",
            f"the safety check list of this rig was {since}",
            f"run `rig check {profile.name}` on a terminal, go through the list at the rig and confirm it",
        )
    path = keep_safety(profile, data)
    return Finding("safety", "ok", f"check list confirmed by {getpass.getuser()}, kept in {path}")


def _connections(profile: RigProfile) -> Iterator[Finding]:
    """Look at what stands between us and the devices before they are opened."""
    port = Path(profile.rail.port)
    if port.exists():
        yield _judged(
            "serial port rights",
            os.access(port, os.R_OK | os.W_OK),
            f"{port} may be opened by {getpass.getuser()}",
            f"sudo usermod -aG dialout {getpass.getuser()}, then log in again",
        )
        yield _judged(
            "serial port name",
            "by-id" in port.parts,
            f"{port}",
            "name the port by /dev/serial/by-id/… in the profile (`rig devices` lists it): it survives replugging",
            otherwise="warning",
        )
    holder = camera_holder()
    if holder is not None:
        yield Finding("camera access", "problem", f"{holder[0]} holds cameras", f"free it with: {holder[1]}")


def _rail(rig: Rig) -> Iterator[Finding]:
    rail, settings = rig.rail, rig.profile.rail
    yield Finding("rail", "ok", rail.identity)
    if not rail.homed:
        rail.home(timeout_s=_HOMING_TIMEOUT_S)
    poll = rail.poll()
    yield _judged(
        "rail switches",
        not poll.limits,
        f"homed at {poll.position_mm:.2f} mm, no switch pressed",
        f"switch {', '.join(sorted(poll.limits))} is pressed after homing: move the carriage off it, check the wiring",
    )
    limits = (
        f"travel {settings.travel_mm[0]:g} to {settings.travel_mm[1]:g} mm, "
        f"at most {settings.max_velocity_mm_s:g} mm/s, ramps at {settings.acceleration_mm_s2:g} mm/s²"
    )
    untold = rail.account().warnings
    yield _judged(
        "rail limits",
        not untold,
        "; ".join((limits, *untold)) if untold else f"{limits}; written and read back",
        "compare the controller's own configuration with the profile; this program cannot",
        otherwise="warning",
    )


def _camera(rig: Rig, name: str) -> Iterator[Finding]:
    camera = rig.cameras[name]
    yield _describe_body(name, camera)
    yield from _state(name, camera, rig.profile)
    read = camera.configure(ExposureSettings())
    known = ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in read if v is not None)
    yield Finding(f"camera {name} settings", "ok", known or "set by hand; none can be read")
    if camera.capabilities.live_view:
        yield from _view(name, camera, rig.profile)
    if camera.capabilities.movie:
        yield _movie(name, camera, rig)


def _describe_body(name: str, camera: Camera) -> Finding:
    body, can = camera.identity, camera.capabilities
    abilities = {
        "movies": can.movie, "stills": can.stills, "live view": can.live_view, "focus drive": can.focus_drive,
    }  # fmt: skip
    able = [word for word, yes in abilities.items() if yes]
    serial = f", serial {body.serial}" if body.serial else ""
    settable = ", ".join(sorted(can.settable)) or "nothing"
    return Finding(
        f"camera {name}", "ok", f"{body.model}{serial}: {', '.join(able)}; sets {settable} from here"
    )


def _state(name: str, camera: Camera, profile: RigProfile) -> Iterator[Finding]:
    status = camera.status()
    if status.battery_percent is not None:
        yield _judged(
            f"camera {name} battery",
            status.battery_percent >= MIN_BATTERY_PERCENT,
            f"{status.battery_percent} %",
            "charge it, or use mains power",
        )
    yield _judged(f"camera {name} temperature", not status.hot, "not too hot", "let the camera cool down")
    minutes = (status.free_bytes or 0) * 8 / (profile.movie_format.bitrate_mbit_s * 1e6) / 60
    yield _judged(
        f"camera {name} card",
        not status.movie_prohibited,
        status.movie_prohibited
        or f"{(status.free_bytes or 0) / 1e9:.1f} GB free, about {minutes:.0f} min of movie",
        "see what the camera says: card in, formatted, not locked, movie mode",
    )
    if status.clock_offset_s is not None:
        yield _judged(
            f"camera {name} clock",
            abs(status.clock_offset_s) < MAX_CAMERA_CLOCK_S,
            f"{status.clock_offset_s:+.0f} s from this machine's",
            "set the camera's clock and time zone",
            otherwise="warning",
        )


def _view(name: str, camera: Camera, profile: RigProfile) -> Iterator[Finding]:
    import numpy as np
    from PIL import Image

    from alignment.markers import MarkerBoard

    jpeg, attempt = _first_view(camera)
    if attempt > 1:
        yield Finding(f"camera {name} live view", "ok", f"its first frame came at attempt {attempt} only")
    picture = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
    clipped_percent = 100 * float((picture == 255).any(axis=2).mean())
    yield _judged(
        f"camera {name} exposure",
        clipped_percent < 5,
        f"{clipped_percent:.1f} % of the live view at full scale, mean {picture.mean() / 2.55:.0f} %",
        "less light, a shorter exposure or a smaller aperture",
        otherwise="warning",
    )
    if not profile.boards:
        yield Finding(
            "markers", "ok", "the profile names no board; the picture itself will be tracked, less surely"
        )
        return
    boards = [MarkerBoard(b) for b in profile.boards]
    seen = [(b, found) for b in boards if (found := b.detect(picture)) is not None]
    yield _judged(
        "markers",
        bool(seen),
        f"{len(seen)} of {len(boards)} boards in view",
        "bring a printed board into view, lit and flat (`alignment markers` prints one)",
        otherwise="warning",
    )


def _first_view(camera: Camera) -> tuple[bytes, int]:
    """Return a frame of live view and how many attempts it took.

    A body that is still waking up, or a busy simulator, may miss the first times.

    Raises:
        DeviceError: It shows none for good, or refuses to.
    """
    for attempt in range(1, _VIEW_ATTEMPTS):
        try:
            return camera.preview(), attempt
        except DeviceError:
            camera.reconnect(timeout_s=_WAKE_S)
    return camera.preview(), _VIEW_ATTEMPTS


def _movie(name: str, camera: Camera, rig: Rig) -> Finding:
    """Record a short movie, fetch it, measure it and delete it."""
    from alignment.decode import probe

    camera.start_movie()
    rig.clock.sleep(_MOVIE_S)
    files = camera.stop_movie()
    if not files:
        return Finding(
            f"camera {name} movie", "problem", "no movie was delivered", "see the camera's display"
        )
    with tempfile.TemporaryDirectory() as folder:
        info = probe(camera.fetch(files[0], Path(folder) / f"check{Path(files[0].name).suffix}").path)
    for file in files:
        camera.delete(file)
    wanted = rig.profile.movie_format
    fits = (info.width, info.height) == (wanted.width, wanted.height)
    fits = fits and abs(info.average_rate_hz / wanted.frame_rate_hz - 1) < RATE_TOLERANCE
    return _judged(
        f"camera {name} movie",
        fits,
        f"{info.width}x{info.height} at {info.average_rate_hz:.2f} frames/s, {info.codec}, recorded, fetched, deleted",
        f"the profile says {wanted.width}x{wanted.height} at {wanted.frame_rate_hz:g} frames/s: set the camera's movie "
        "mode or the profile",
        otherwise="warning",
    )


def _together(rig: Rig) -> Iterator[Finding]:
    """Ask the rail and all cameras at once, as in a take."""
    line_before = rig.rail.account().line
    over = threading.Event()
    frames: dict[str, int] = dict.fromkeys((n for n, c in rig.cameras.items() if c.capabilities.live_view), 0)
    watchers = [threading.Thread(target=_count_previews, args=(rig, n, frames, over)) for n in frames]
    for watcher in watchers:
        watcher.start()
    started_s, polls = time.monotonic(), []
    try:
        while time.monotonic() - started_s < _RATE_TEST_S:
            polls.append(rig.rail.poll())
            time.sleep(0.02)
    finally:
        over.set()
        for watcher in watchers:
            watcher.join()
    slowest_ms = 1000 / rig.clock.rate * max(p.t_reply_s - p.t_request_s for p in polls)
    views = ", ".join(f"{n} {k / _RATE_TEST_S:.0f} live-view frames/s" for n, k in frames.items())
    yield _judged(
        "together",
        slowest_ms < MAX_ROUND_TRIP_MS,
        f"rail {len(polls) / _RATE_TEST_S:.0f} answers/s, slowest {slowest_ms:.0f} ms"
        + (f"; {views}" if views else ""),
        "rail and camera disturb each other: use another USB port or hub for each",
    )
    yield _line(line_before, rig.rail.account().line, answers=len(polls))


def _line(before: Mapping[str, int], after: Mapping[str, int], *, answers: int) -> Finding:
    troubles = {kind: count - before.get(kind, 0) for kind, count in after.items()}
    told = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in troubles.items() if count)
    return _judged(
        "rail line",
        not told,
        told or f"{answers} answers without a fault",
        "use a short shielded cable, away from the motor's; a ferrite at each end, another USB port",
        otherwise="warning",
    )


def _count_previews(rig: Rig, name: str, frames: dict[str, int], over: threading.Event) -> None:
    while not over.is_set():
        try:
            rig.cameras[name].preview()
        except RigError:
            return
        frames[name] += 1
