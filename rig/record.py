"""Open a rig and run a session on it: what `rig record` does, for scripts too."""

from __future__ import annotations

import platform
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from catalog.session_folder import SessionFolder, SessionRecord
from rig.assembly import Rig
from rig.control import SessionControl
from rig.errors import DiskSpaceError, NotArmedError, PlanError
from rig.events import AnyEvent
from rig.forecast import forecast, require_runnable
from rig.plan import CapturePlan
from rig.profile import RigProfile
from rig.runner import SessionRunner
from rig.session import SessionRecorder, new_session_name

Ask = Callable[[str], None]
SIZE_RESERVE = 1.2
"""Room asked for, as a multiple of the forecast."""


def record_plan(
    plan: CapturePlan,
    profile: RigProfile,
    *,
    data: Path,
    emit: Callable[[AnyEvent], None],
    photos: Path | None = None,
    ask: Ask | None = None,
) -> Path:
    """Record a whole plan as a new session.

    Args:
        plan: What to record.
        profile: The rig to record it with.
        data: Data folder; the session appears in its ``sessions`` folder.
        emit: Receives every event.
        photos: Photographs for a simulated world, None for the bundled ones.
        ask: Shows an operator what to do between rounds and returns when it is confirmed.

    Returns:
        The session's folder.

    Raises:
        EnvelopeError, PlanError: The plan violates a limit of the rig; nothing has moved.
        DiskSpaceError: The forecast does not fit on the disk; nothing has moved.
        SessionInterruptedError: Left resumable.
    """
    expected = forecast(plan, profile)
    require_runnable(expected)
    sessions = data / "sessions"
    sessions.mkdir(parents=True, exist_ok=True)
    _require_room(sessions, expected.size_gb * SIZE_RESERVE + plan.guards.min_free_gb)
    with Rig(profile, scene=plan.scene, data=data, photos=photos, ask=ask) as rig:
        session = _session_record(plan, profile, new_session_name(plan.scene, sessions))
        with SessionRecorder.create(sessions, session, rig.clock) as recorder:
            recorder.note("devices", rail=rig.rail.identity, photos=None if photos is None else str(photos))
            _run(rig, recorder, emit)
            return recorder.folder


def resume_session(
    folder: SessionFolder, *, data: Path, emit: Callable[[AnyEvent], None], ask: Ask | None = None
) -> Path:
    """Record what a session still lacks, with the plan and profile it was started with. Raises as `record_plan`."""
    record = folder.record()
    if record.source != "captured":
        raise PlanError(f"session {record.session} was imported; there is nothing to record")
    profile = RigProfile.model_validate(record.profile)
    plan = CapturePlan.model_validate(record.plan)
    rig = Rig(profile, scene=plan.scene, data=data, photos=_photos_of(folder), ask=ask)
    with SessionRecorder(folder.path, rig.clock) as recorder, rig:
        _run(rig, recorder, emit)
    return folder.path


def _run(rig: Rig, recorder: SessionRecorder, emit: Callable[[AnyEvent], None]) -> None:
    with stop_on_signal() as stop:
        control = SessionControl()
        control.stop = stop
        SessionRunner(rig, recorder, emit=emit, control=control).run()


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Turn SIGINT, SIGTERM and SIGHUP into a set event, the same orderly stop; a second one is immediate."""
    stop = threading.Event()

    def handle(number: int, frame: object) -> None:  # noqa: ARG001  - the signature is Python's
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {s: signal.signal(s, handle) for s in signals}
    try:
        yield stop
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def _require_room(folder: Path, needed_gb: float) -> None:
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < needed_gb:
        raise DiskSpaceError(
            f"{folder}: {free_gb:.1f} GB free, the plan needs {needed_gb:.1f} GB with its reserve",
            kept="nothing has moved",
            next_step="free space, use --data on another disk, or lower guards.min_free_gb",
        )


def _session_record(plan: CapturePlan, profile: RigProfile, name: str) -> SessionRecord:
    return SessionRecord(
        session=name,
        scene=plan.scene,
        created_utc_us=time.time_ns() // 1000,
        source="captured",
        rig=profile.name,
        simulated=profile.simulated,
        cameras=tuple(profile.cameras),
        boards=profile.boards,
        lens=profile.lens,
        rounds=plan.round_records(acceleration_mm_s2=profile.rail.acceleration_mm_s2),
        plan=plan.model_dump(mode="json", by_alias=True),
        profile=profile.model_dump(mode="json", by_alias=True),
        versions={"cleanplate": version("cleanplate"), "python": platform.python_version()},
    )


def _photos_of(folder: SessionFolder) -> Path | None:
    paths = [row.get("photos") for row in folder.journal().rows if row.kind == "devices"]
    return Path(paths[0]) if paths and paths[0] else None


def require_armed(
    profile: RigProfile, arm: str | None, *, interactive: bool, prompt: Callable[[str], str]
) -> None:
    """Make sure that motion on a real rig was asked for twice: by the command and by a word.

    Raises:
        NotArmedError: The word was not given; nothing has moved.
    """
    if profile.simulated or arm == profile.name:
        return
    if arm is not None or not interactive:
        raise NotArmedError(
            f"rig '{profile.name}' is real and was not armed",
            kept="nothing has moved",
            next_step=f"run on a terminal and type MOVE, or give --arm {profile.name}",
        )
    if prompt(f"The carriage of '{profile.name}' will move. Type MOVE to go on").strip() != "MOVE":
        raise NotArmedError("the word MOVE was not given", kept="nothing has moved")
