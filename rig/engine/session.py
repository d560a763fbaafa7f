"""Sessions as the engine runs them: what is checked before one is armed, and how it is opened or resumed."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from alignment.calibration.store import find_calibration, keep_calibration, newest_calibration
from catalog.session_folder import SESSIONS_FOLDER, SessionFolder, SessionRecord, make_folder
from rig.assembly import Rig
from rig.engine.devices import Stage
from rig.errors import DiskSpaceError, PlanError
from rig.forecast import Forecast, forecast, require_runnable
from rig.plan import CapturePlan
from rig.profile import RigProfile
from rig.session import SessionRecorder, resume_command
from rig.storage import storing

SIZE_RESERVE = 1.2
"""Room asked for, as a multiple of the forecast."""


@dataclass(frozen=True)
class SessionOrder:
    """A session that may begin or go on: everything that can be checked without a device was."""

    plan: CapturePlan
    profile: RigProfile
    sessions: Path
    """Folder in which a new session appears."""
    photos: Path | None = None
    resumed: SessionFolder | None = None
    """The session to go on with, None for a new one."""
    calibration: str | None = None
    """Hash of the calibration that a new session names, None where the rig has none."""
    warnings: tuple[str, ...] = ()
    """What was passed over to make it, in plain words."""

    @classmethod
    def new(
        cls,
        plan: CapturePlan,
        profile: RigProfile,
        *,
        data: Path,
        photos: Path | None = None,
        calibration: str | None = None,
    ) -> SessionOrder:
        """Check a plan against a rig and the disk.

        Args:
            plan: What to record.
            profile: The rig.
            data: Data folder.
            photos: Photographs for a simulated world.
            calibration: Hash or path of the calibration the session shall name; None for the rig's newest.

        Raises:
            CalibrationNotFoundError, DamagedCalibrationError: The calibration asked for cannot be had.
            EnvelopeError, PlanError: The plan violates a limit of the rig.
            DiskSpaceError: The forecast does not fit on the disk.
            StorageError: The data folder cannot be made.
        """
        ignored: list[str] = []
        named = _calibration_hash(calibration, data=data, rig=profile.name, ignored=ignored.append)
        order = cls(plan, profile, data / SESSIONS_FOLDER, photos, calibration=named, warnings=tuple(ignored))
        require_runnable(order.forecast)
        with storing(data):
            make_folder(order.sessions)
            _require_room(order.sessions, order.forecast.size_gb * SIZE_RESERVE + plan.guards.min_free_gb)
        return order

    @classmethod
    def resume(cls, folder: SessionFolder, profile: RigProfile | None = None) -> SessionOrder:
        """Check that a session can go on.

        Args:
            folder: The session.
            profile: The rig that is open, None for the one the session was begun with.

        Raises:
            PlanError: It was imported, or belongs to another rig.
        """
        record = folder.record()
        if record.source != "captured":
            raise PlanError(f"session {record.session} was imported; there is nothing to record")
        own = RigProfile.model_validate(record.profile)
        if profile is not None and profile.name != own.name:
            raise PlanError(
                f"session {record.session} was begun on rig '{own.name}', not on '{profile.name}'",
                next_step=resume_command(folder.path),
            )
        plan = CapturePlan.model_validate(record.plan)
        return cls(plan, profile or own, folder.path.parent, _photos_of(folder), folder)

    @property
    def stage(self) -> Stage:
        """What a simulated rig is set up with for it."""
        return Stage(self.plan.scene, self.photos)

    @property
    def forecast(self) -> Forecast:
        """What to expect of the whole plan."""
        return forecast(self.plan, self.profile)

    def open(self, rig: Rig, *, announce: Callable[[Path], None] = lambda _: None) -> SessionRecorder:
        """Make the session's folder, or open the one to go on with; ``announce`` hears its path just before."""
        if self.resumed is not None:
            announce(self.resumed.path)
            return SessionRecorder(self.resumed.path, rig.clock)

        def record(name: str) -> SessionRecord:
            announce(self.sessions / name)
            return _session_record(self, name)

        return SessionRecorder.begin(self.sessions, self.plan.scene, rig.clock, record=record)

    def card_lines(self, *, homed: bool) -> tuple[str, ...]:
        """Describe what will happen, for the card of the first step."""
        expected = self.forecast
        low_mm = min(min(r.from_mm, r.to_mm) for r in expected.rounds)
        high_mm = max(max(r.from_mm, r.to_mm) for r in expected.rounds)
        top_mm_s = self.profile.rail.max_velocity_mm_s
        free_gb = shutil.disk_usage(self.sessions).free / 1e9
        asked = sorted({name for r in self.plan for name in r.conditions})
        return (
            f"the carriage moves between {low_mm:.1f} and {high_mm:.1f} mm, {len(expected.rounds)} times",
            f"top speed {top_mm_s:g} mm/s on the way back; keep hands and cables clear of the whole rail",
            "homed" if homed else "not homed: it homes first",
            f"about {expected.duration_s / 60:.1f} min, {expected.size_gb:.2f} GB of {free_gb:.1f} GB free",
            f"conditions to set meanwhile: {', '.join(asked) or 'none'}",
            *(f"warning: {text}" for text in self.warnings),
        )


def _require_room(folder: Path, needed_gb: float) -> None:
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < needed_gb:
        raise DiskSpaceError(
            f"{folder}: {free_gb:.1f} GB free, the plan needs {needed_gb:.1f} GB with its reserve",
            kept="nothing has moved",
            next_step="free space, use --data on another disk, or lower guards.min_free_gb",
        )


def _calibration_hash(
    name_or_path: str | None, *, data: Path, rig: str, ignored: Callable[[str], None]
) -> str | None:
    """Name the calibration in force: the one asked for, or the rig's newest; one given by path is stored as well.

    A damaged file nobody asked for does not keep a session from beginning: ``ignored`` hears of it.
    """
    if name_or_path is None:
        newest = newest_calibration(data, rig, ignored=lambda error: ignored(f"ignored {error.message}"))
        return None if newest is None else newest.hash
    return keep_calibration(find_calibration(name_or_path, data=data, rig=rig), data).hash


def _session_record(order: SessionOrder, name: str) -> SessionRecord:
    plan, profile = order.plan, order.profile
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
        calibration=order.calibration,
        rounds=plan.round_records(
            acceleration_mm_s2=profile.rail.acceleration_mm_s2,
            realised_mm_s=profile.rail.realised_velocity_mm_s,
        ),
        photos=None if order.photos is None else str(order.photos.absolute()),
        plan=plan.model_dump(mode="json", by_alias=True),
        profile=profile.model_dump(mode="json", by_alias=True),
        versions={"cleanplate": version("cleanplate"), "python": platform.python_version()},
    )


def _photos_of(folder: SessionFolder) -> Path | None:
    photos = folder.record().photos or _photos_journaled(folder)
    return None if photos is None else Path(photos)


def _photos_journaled(folder: SessionFolder) -> str | None:
    """Return where sessions have them that were begun before `session.json` told."""
    paths = (row.get("photos") for row in folder.journal().rows if row.kind == "devices")
    return next((str(path) for path in paths if path), None)
