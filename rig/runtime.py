"""Where the engines of this user live: the private runtime folder with their locks and sockets.

Each engine has three names in it: ``NAME.lock`` (held while it runs, tells who holds it), ``NAME.sock`` (stream, the
conversation) and ``NAME.stop`` (datagrams, stopping alone). NAME is the rig's name; a simulated rig is a process's
own, so its process id is appended.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rig.errors import EngineError, RigBusyError
from rig.profile import RigProfile

_CREDENTIALS = struct.Struct("3i")
"""``struct ucred``: pid, uid, gid."""


def runtime_folder() -> Path:
    """Return this user's private folder for locks and sockets (0700).

    Raises:
        EngineError: Somebody else owns it, or it is a link.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base) / "cleanplate" if base else Path(tempfile.gettempdir()) / f"cleanplate-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise EngineError(
            f"{folder} is a link or belongs to somebody else",
            next_step="set XDG_RUNTIME_DIR to a private folder",
        )
    folder.chmod(0o700)
    return folder


@dataclass(frozen=True)
class EngineAddress:
    """Where one engine is reached."""

    folder: Path
    name: str
    """The rig's name, with the process id appended where the rig is simulated."""

    @classmethod
    def of(cls, profile: RigProfile) -> EngineAddress:
        """Return the address of an engine that this process runs for a rig."""
        suffix = f"-{os.getpid()}" if profile.simulated else ""
        return cls(runtime_folder(), profile.name + suffix)

    @property
    def socket_path(self) -> Path:
        """The conversation."""
        return self.folder / f"{self.name}.sock"

    @property
    def stop_path(self) -> Path:
        """Stopping."""
        return self.folder / f"{self.name}.stop"

    @property
    def lock_path(self) -> Path:
        """Who runs it."""
        return self.folder / f"{self.name}.lock"

    def remove_sockets(self) -> None:
        """Unlink both sockets; only for whoever holds the lock."""
        self.socket_path.unlink(missing_ok=True)
        self.stop_path.unlink(missing_ok=True)


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Yield a name for a socket that fits the kernel's 108 bytes, however long the folder's own name is."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def bind_private(kind: socket.SocketKind, path: Path) -> socket.socket:
    """Make a socket that only this user can connect to (0600)."""
    bound = socket.socket(socket.AF_UNIX, kind)
    try:
        with short_path(path) as name:
            bound.bind(name)
        path.chmod(0o600)
    except OSError:
        bound.close()
        raise
    return bound


def connect_to(kind: socket.SocketKind, path: Path) -> socket.socket:
    """Connect to a socket in the runtime folder; raises `OSError` when nobody listens."""
    connected = socket.socket(socket.AF_UNIX, kind)
    try:
        with short_path(path) as name:
            connected.connect(name)
    except OSError:
        connected.close()
        raise
    return connected


def is_own_peer(connection: socket.socket) -> bool:
    """Tell whether the process at the other end of a stream runs under this user."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1]) == os.getuid()


def is_own_message(ancillary: list[tuple[int, int, bytes]]) -> bool:
    """Tell whether a datagram came from a process of this user, by the credentials the kernel attached."""
    return any(
        level == socket.SOL_SOCKET
        and kind == socket.SCM_CREDENTIALS
        and _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[1] == os.getuid()
        for level, kind, data in ancillary
    )


def running_engines(rig: str | None = None) -> list[EngineAddress]:
    """List the engines of this user that run now, of one rig or of all, by name."""
    folder = runtime_folder()
    found = (EngineAddress(folder, path.stem) for path in sorted(folder.glob("*.stop")))
    return [a for a in found if (rig is None or _is_of_rig(a.name, rig)) and _is_listening(a.stop_path)]


def _is_of_rig(name: str, rig: str) -> bool:
    return name == rig or (name.startswith(f"{rig}-") and name.removeprefix(f"{rig}-").isdigit())


def _is_listening(path: Path) -> bool:
    """Tell whether a process has a datagram socket bound; asking disturbs nobody."""
    try:
        connect_to(socket.SOCK_DGRAM, path).close()
    except OSError:
        return False
    return True


def hold_rig_lock(profile: RigProfile) -> io.FileIO:
    """Make this process the only engine of a real rig; each simulated rig is a process's own.

    Raises:
        RigBusyError: Another engine runs this rig; the message names it.
    """
    remove_abandoned(runtime_folder())
    return hold_lock(
        EngineAddress.of(profile).lock_path,
        what=f"rig '{profile.name}'",
        next_step=f"`rig tui --profile {profile.name}` observes it, `rig stop` stops it",
    )


def remove_abandoned(folder: Path) -> None:
    """Remove what killed engines of simulated rigs have left: their names are never used again."""
    for path in folder.glob("*-*.lock"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stem.endswith(f"-{_holder_of(file.read(4096)).get('pid')}"):
                EngineAddress(folder, path.stem).remove_sockets()
                path.unlink()


def hold_lock(path: Path, *, what: str, next_step: str = "wait for it or stop that process") -> io.FileIO:
    """Take an advisory lock for this process and write into it who holds it; closing the file releases it.

    Raises:
        RigBusyError: Another process holds it; the message names pid and host.
    """
    file = io.FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "r+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = file.read(4096)
        file.close()
        raise RigBusyError(f"{what} is in use by {_describe_holder(holder)}", next_step=next_step) from None
    file.truncate(0)
    file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "boot": _boot_id()}).encode())
    return file


def _describe_holder(holder: bytes) -> str:
    fields = _holder_of(holder)
    return (
        f"process {fields['pid']} on {fields['host']}"
        if {"pid", "host"} <= fields.keys()
        else "another process"
    )


def _holder_of(content: bytes) -> dict[str, object]:
    try:
        fields = json.loads(content)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.is_file() else ""
