"""`rig check`: open everything together and say of each thing whether it is ready and how to mend it."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rig.assembly import Rig
from rig.errors import RigError
from rig.profile import RigProfile

MIN_FREE_GB = 10.0
MIN_BATTERY_PERCENT = 20
CLOCK_TEST_S = 0.2


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    text: str
    mend: str = ""


def check(profile: RigProfile, *, data: Path, photos: Path | None = None) -> Iterator[Finding]:
    """Yield one finding after the other; nothing moves except a homing on an unhomed rail."""
    yield _disk(data)
    yield _clock()
    try:
        with Rig(profile, scene="check", data=data, photos=photos) as rig:
            yield from _rail(rig)
            for name in rig.cameras:
                yield from _camera(rig, name)
    except RigError as error:
        yield Finding("rig", ok=False, text=error.message, mend=error.next_step or "see the message")


def _disk(data: Path) -> Finding:
    existing = next(p for p in (data, *data.parents) if p.exists())
    free_gb = shutil.disk_usage(existing).free / 1e9
    return Finding(
        "disk",
        free_gb >= MIN_FREE_GB,
        f"{free_gb:.0f} GB free at {data}",
        f"free {MIN_FREE_GB:.0f} GB or use --data",
    )


def _clock() -> Finding:
    wall, mono = time.time(), time.monotonic()
    time.sleep(CLOCK_TEST_S)
    drift_ms = 1000 * abs((time.time() - wall) - (time.monotonic() - mono))
    return Finding(
        "clock",
        drift_ms < 5,
        f"wall and monotonic clock agree within {drift_ms:.2f} ms",
        "check the time service",
    )


def _rail(rig: Rig) -> Iterator[Finding]:
    rail, settings = rig.rail, rig.profile.rail
    yield Finding("rail", ok=True, text=rail.identity)
    if not rail.homed:
        rail.home(timeout_s=120.0)
    polls = [rail.poll() for _ in range(10)]
    round_trip_ms = 1000 * max(p.t_reply_s - p.t_request_s for p in polls)
    yield Finding(
        "rail status",
        round_trip_ms < 250,
        f"slowest of {len(polls)} answers {round_trip_ms:.0f} ms, at {polls[-1].position_mm:.2f} mm",
        "check cable and hub",
    )
    yield Finding(
        "rail limits",
        not polls[-1].limits,
        f"travel {settings.travel_mm[0]:g} to {settings.travel_mm[1]:g} mm, at most "
        f"{settings.max_velocity_mm_s:g} mm/s; limits written and read back",
        f"switch {', '.join(sorted(polls[-1].limits))} is pressed: move the carriage off it",
    )


def _camera(rig: Rig, name: str) -> Iterator[Finding]:
    camera = rig.cameras[name]
    identity, status = camera.identity, camera.status()
    yield Finding(f"camera {name}", ok=True, text=f"{identity.model}, serial {identity.serial}")
    battery = status.battery_percent
    yield Finding(
        f"camera {name} battery",
        battery is None or battery >= MIN_BATTERY_PERCENT,
        "not reported" if battery is None else f"{battery} %",
        "charge it or use mains power",
    )
    yield Finding(
        f"camera {name} card",
        not status.movie_prohibited,
        status.movie_prohibited or f"{(status.free_bytes or 0) / 1e9:.1f} GB free, movies allowed",
        "see the message",
    )
    yield _markers(rig, name)


def _markers(rig: Rig, name: str) -> Finding:
    import numpy as np
    from PIL import Image

    from alignment.markers import MarkerBoard

    if not rig.profile.boards:
        return Finding(
            "markers", ok=True, text="the profile names no board; the picture itself will be tracked"
        )
    preview = np.asarray(Image.open(io.BytesIO(rig.cameras[name].preview())).convert("RGB"))
    seen = [b.first_id for b in rig.profile.boards if MarkerBoard(b).detect(preview) is not None]
    return Finding(
        "markers",
        bool(seen),
        f"{len(seen)} of {len(rig.profile.boards)} boards in view",
        "bring a printed board into view, lit and flat (`alignment markers` prints one)",
    )
