"""What is connected: serial ports, cameras, video devices, engines, each by an address that survives replugging.

Every kind is looked for in a thread of its own and within a time limit, so that one sick device hides no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as OutOfTimeError
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rig.errors import DeviceError, RigError

DEFAULT_TIMEOUT_S = 20.0
_VIDEO_BY_ID = Path("/dev/v4l/by-id")


@dataclass(frozen=True)
class FoundDevice:
    """One thing that is there."""

    kind: Literal["serial", "camera", "video", "engine"]
    name: str
    address: str
    """What a profile names it by: it stays the same after replugging."""
    profile_line: str = ""
    """How it is written into a profile."""


@dataclass(frozen=True)
class Discovery:
    """What was found, and what kept us from looking further."""

    devices: tuple[FoundDevice, ...]
    problems: tuple[str, ...]


def discover(*, timeout_s: float = DEFAULT_TIMEOUT_S) -> Discovery:
    """Look for every kind of device at once; opens no serial port, since that reboots many controllers."""
    kinds: dict[str, Callable[[], Sequence[FoundDevice]]] = {
        "serial ports": _serial_ports,
        "cameras": _cameras,
        "video devices": _video_devices,
        "engines": _engines,
    }
    devices: list[FoundDevice] = []
    problems: list[str] = []
    pool = ThreadPoolExecutor(len(kinds))
    waiting = {what: pool.submit(look) for what, look in kinds.items()}
    for what, found in waiting.items():
        try:
            devices += found.result(timeout_s)
        except OutOfTimeError:
            problems.append(f"{what}: no answer within {timeout_s:g} s; unplug what hangs, then try again")
        except (RigError, OSError) as error:
            problems.append(f"{what}: {error}")
    pool.shutdown(wait=False, cancel_futures=True)
    return Discovery(tuple(devices), tuple(problems))


def _serial_ports() -> Sequence[FoundDevice]:
    from rig.devices.wire import serial_ports

    return [
        FoundDevice("serial", p.description, p.port, f"rail: {{kind: grbl, port: {p.port}, …}}")
        for p in serial_ports()
    ]


def _cameras() -> Sequence[FoundDevice]:
    from rig.devices.gphoto2_camera import discover as on_usb

    return [_identified(c.model, c.address) for c in on_usb()]


def _identified(model: str, address: str) -> FoundDevice:
    """Ask a body for its serial number; its USB address changes with every replugging."""
    from rig.clock import SessionClock
    from rig.devices.gphoto2_camera import Gphoto2Camera, Gphoto2Settings

    camera = Gphoto2Camera(Gphoto2Settings(kind="gphoto2", address=address), SessionClock())
    try:
        camera.open()
        serial = camera.identity.serial
    except DeviceError as error:
        return FoundDevice("camera", f"{model} ({error})", address)
    finally:
        camera.close()
    line = f'cameras: {{main: {{kind: gphoto2, serial: "{serial}"}}}}'
    return FoundDevice("camera", model, f"serial {serial} ({address})", line)


def _video_devices() -> Sequence[FoundDevice]:
    return [
        FoundDevice(
            "video",
            p.name.removesuffix("-video-index0"),
            str(p),
            f"cameras: {{main: {{kind: uvc, path: {p}}}}}",
        )
        for p in sorted(_VIDEO_BY_ID.glob("*-video-index0"))
    ]


def _engines() -> Sequence[FoundDevice]:
    from rig.runtime import running_engines

    return [FoundDevice("engine", engine.name, str(engine.socket_path)) for engine in running_engines()]
