"""The one snapshot from which every screen is drawn."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from rig.devices.shared_camera import SharedCamera
from rig.engine.devices import OPENING
from rig.engine.work import RigWork
from rig.events import CameraReading, EngineMode, RailReading, RigState

_NEXT_STEPS = {
    EngineMode.OFFLINE: "mend it, then clear the fault: the devices are opened again",
    EngineMode.CONNECTED: "the position is unknown: home the rail before anything else",
    EngineMode.HOLD: "the position is kept; clear the hold to go on, what was begun is done again",
    EngineMode.LOCKED: "look at rail and switches, clear the fault, then home the rail",
}
_DISK_EVERY_S = 2.0


class StateReporter:
    """Describes a rig; remembers since when its position is unknown.

    Args:
        work: The rig and what is done with it.
    """

    def __init__(self, work: RigWork) -> None:
        self._work = work
        self._unknown_since = datetime.now(UTC)
        self._was_homed = False
        self._disk_free_gb, self._disk_seen_s = 0.0, 0.0

    def describe(
        self, *, mode: EngineMode, controller: str | None, clients: int, preview_skipped: int
    ) -> RigState:
        """Return what there is to see now."""
        work = self._work
        card_id, card = work.cards.up
        self._watch_position()
        return RigState(
            t_host_s=work.clock.now(),
            rig=work.profile.name,
            simulated=work.profile.simulated,
            mode=mode,
            why=self._why(mode),
            travel_mm=work.profile.rail.travel_mm,
            rail=self._rail(),
            cameras={name: self._camera(camera) for name, camera in work.devices.cameras.items()},
            disk_free_gb=self._free_gb(),
            session=None if work.tracker is None else work.tracker.progress,
            card_id=card_id,
            card=card,
            controller=controller,
            clients=clients,
            preview_skipped=preview_skipped,
        )

    def _watch_position(self) -> None:
        homed = self._work.devices.homed
        if self._was_homed and not homed:
            self._unknown_since = datetime.now(UTC)
        self._was_homed = homed

    def _why(self, mode: EngineMode) -> str:
        reading = self._work.devices.last_poll
        parts = []
        if mode is EngineMode.OFFLINE:
            parts.append(self._work.devices.trouble)
        elif mode is EngineMode.LOCKED and reading is not None:
            parts.append(f"{reading.fault}; position unknown since {self._unknown_since:%H:%M:%S} UTC")
        if self._work.failure and mode is not EngineMode.OFFLINE:
            parts.append(self._work.failure)
        if self._work.devices.trouble != OPENING:
            parts.append(_NEXT_STEPS.get(mode, ""))
        return "; ".join(p for p in parts if p)

    def _rail(self) -> RailReading | None:
        reading = self._work.devices.last_poll
        if reading is None:
            return None
        homed = self._work.devices.homed
        return RailReading(
            t_host_s=reading.t_s,
            state=reading.state.value,
            homed=homed,
            position_mm=reading.position_mm if homed else None,
            velocity_mm_s=reading.velocity_mm_s,
            fault=reading.fault,
            limits=tuple(sorted(reading.limits)),
        )

    def _camera(self, camera: SharedCamera) -> CameraReading:
        status, age_s = camera.last_status, time.monotonic() - camera.heard_s
        return CameraReading(
            t_host_s=self._work.clock.now() - age_s * self._work.clock.rate,
            connected=not camera.trouble,
            model=camera.identity.model,
            text=camera.trouble or ("" if status is None else status.movie_prohibited),
            battery_percent=None if status is None else status.battery_percent,
            free_bytes=None if status is None else status.free_bytes,
            hot=status is not None and status.hot,
            settings=camera.last_settings,
        )

    def _free_gb(self) -> float:
        if time.monotonic() - self._disk_seen_s > _DISK_EVERY_S:
            self._disk_free_gb = shutil.disk_usage(_existing(self._work.data)).free / 1e9
            self._disk_seen_s = time.monotonic()
        return self._disk_free_gb


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.absolute().parents) if p.exists())
