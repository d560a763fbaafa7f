"""What libgphoto2's result codes mean in practice, in plain words and with what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rig.errors import DeviceBusyError, DeviceError, DeviceNotFoundError, SettingRefusedError

LINK_BROKEN = -7
LINK_LOST_CODES = frozenset({LINK_BROKEN, -10, -52, -105})
"""After one of these the library's camera object is of no use any more, although config reads may still answer."""
DOUBTFUL_CODES = frozenset({-1, -2})
"""What the library says both when a body refuses and when it is gone: only asking it something tells which."""
NOT_CLAIMED = -53
_UNSPECIFIED, _BAD_PARAMETERS = -1, -2
_BAD_VALUE = "Invalid Device Prop Value"
"""A body's answer to a value it does not take; of an EOS body's the library makes no code of its own."""

_HOLDERS: Mapping[str, str] = {
    "gvfs-gphoto2-volume-monitor": "systemctl --user stop gvfs-gphoto2-volume-monitor.service",
    "gvfsd-gphoto2": "gio mount -s gphoto2",
    "kiod5": "kquitapp5 kiod5",
    "kiod6": "kquitapp6 kiod6",
    "darktable": "close darktable",
    "entangle": "close entangle",
    "gphoto2": "end the other gphoto2",
}
"""Programs known to hold cameras, and what makes each let go."""
_NAME_LIMIT = 15
"""The kernel keeps so many characters of a program's name."""


@dataclass(frozen=True)
class _Meaning:
    error: type[DeviceError]
    what: str
    next_step: str


_MEANINGS: Mapping[int, _Meaning] = {
    -1: _Meaning(
        DeviceError,
        "the body refused or lost the thread",
        "check card and lens; if it stays, switch it off and on",
    ),
    -2: _Meaning(
        SettingRefusedError,
        "the body does not take this value",
        "take another value, or set it at the body",
    ),
    -3: _Meaning(DeviceError, "out of memory, which mostly means a full card", "free space on the card"),
    -6: _Meaning(DeviceError, "this body cannot do it", "leave it out, or do it by hand"),
    LINK_BROKEN: _Meaning(DeviceError, "the link broke", "check cable and power, then open the rig again"),
    -10: _Meaning(DeviceError, "the body hangs", "switch it off and on, then open the rig again"),
    -52: _Meaning(
        DeviceNotFoundError, "no camera at this port", "wake it or plug it in, then open the rig again"
    ),
    NOT_CLAIMED: _Meaning(DeviceBusyError, "another program holds the camera", "close that program"),
    -60: _Meaning(DeviceBusyError, "another program has locked the camera", "close that program"),
    -102: _Meaning(DeviceError, "what arrived is damaged", "fetch it again"),
    -105: _Meaning(
        DeviceNotFoundError, "nothing that libgphoto2 knows is there", "`rig devices` lists what is seen"
    ),
    -107: _Meaning(DeviceError, "no such folder on the card", "check that the right card is in"),
    -108: _Meaning(DeviceError, "no such file on the card", "check that the right card is in"),
    -110: _Meaning(
        DeviceBusyError, "the body is busy", "switch autofocus and self-timer off, then try again"
    ),
    -112: _Meaning(DeviceError, "cancelled at the body", "try again"),
    -113: _Meaning(DeviceError, "the body could not do it", "look at its display"),
    -115: _Meaning(DeviceError, "no space left", "free space on the card"),
}
_UNKNOWN = _Meaning(DeviceError, "the library failed", "switch the camera off and on")


def translated(camera: str, action: str, code: int, *, said: Iterable[str] = ()) -> DeviceError:
    """Turn a result code into our error.

    Args:
        camera: What to call the camera.
        action: What was being done.
        code: The library's result code.
        said: What the library said about it meanwhile.
    """
    words = "; ".join(said)
    is_refused_by_eos = code == _UNSPECIFIED and _BAD_VALUE in words
    meaning = _MEANINGS.get(_BAD_PARAMETERS if is_refused_by_eos else code, _UNKNOWN)
    what, next_step = words or meaning.what, meaning.next_step
    if code == NOT_CLAIMED and (holder := camera_holder()):
        what, next_step = f"{holder[0]} holds the camera", f"free it with: {holder[1]}"
    return meaning.error(
        f"{camera}: {action} failed: {what} (code {code})", kept="every file on the card", next_step=next_step
    )


def camera_holder(processes: Path = Path("/proc")) -> tuple[str, str] | None:
    """Find a running program that is known to hold cameras.

    Args:
        processes: Where the kernel lists processes.

    Returns:
        Its name and the command that frees the camera, None where none is running.
    """
    running = {_program_name(p) for p in processes.glob("[0-9]*/comm")}
    found = (n for n in _HOLDERS if n[:_NAME_LIMIT] in running)
    return next(((name, _HOLDERS[name]) for name in found), None)


def _program_name(comm: Path) -> str:
    try:
        return comm.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # ended meanwhile
        return ""
