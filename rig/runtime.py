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
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rig.errors import EngineError, RigBusyError
from rig.profile import RigProfile

_LOCK_PATIENCE_S = 0.5
"""A holder that cannot be named may be one that is just taking or releasing the lock: so long it is tried again."""
_LOCK_GLANCE_S = 0.01
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


def hold_rig_lock(profile: RigProfile) -> HeldLock:
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


class HeldLock(io.FileIO):
    """A lock that this process holds until it is closed or the process ends."""

    def close(self) -> None:
        """Release the lock. Who held it is no longer told first: nobody shall be named who has let go."""
        if not self.closed:
            with contextlib.suppress(OSError):
                self.truncate(0)
        super().close()


def hold_lock(path: Path, *, what: str, next_step: str = "wait for it or stop that process") -> HeldLock:
    """Take an advisory lock for this process and write into it who holds it; closing the file releases it.

    The kernel alone decides who holds it: what a dead process has left in the file is no obstacle. The lock is the
    file's and not the path's, so that one folder under two names has one lock.

    Raises:
        RigBusyError: Another process holds it; the message names pid and host.
    """
    deadline_s = time.monotonic() + _LOCK_PATIENCE_S
    while (lock := _try_lock(path)) is None:
        holder = _holder_of(_content(path))
        if _may_hold(holder) or time.monotonic() > deadline_s:
            raise RigBusyError(f"{what} is in use by {_describe_holder(holder)}", next_step=next_step)
        time.sleep(_LOCK_GLANCE_S)
    lock.truncate(0)
    pid = os.getpid()
    holder = {"pid": pid, "started": _started(pid), "host": socket.gethostname(), "boot": _boot_id()}
    lock.write(json.dumps(holder).encode())
    return lock


def _try_lock(path: Path) -> HeldLock | None:
    """Return the lock, None where somebody holds it, or has just removed the file as abandoned."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(file).st_ino:
            return HeldLock(file, "r+")
    os.close(file)
    return None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()[:4096]
    except FileNotFoundError:
        return b""


def _may_hold(holder: dict[str, object]) -> bool:
    """Tell whether a record is whole and its process lives: another is the former holder's, also with a pid reused."""
    if not {"pid", "host"} <= holder.keys():
        return False
    return holder.get("boot") != _boot_id() or holder.get("started") == _started(holder["pid"])


def _started(pid: object) -> int | None:
    """Return when a process was started, in ticks since the machine was; None where there is no such process."""
    try:
        stat_line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat_line.rpartition(")")[2].split()[19])


def _describe_holder(holder: dict[str, object]) -> str:
    return f"process {holder['pid']} on {holder['host']}" if _may_hold(holder) else "another process"


def _holder_of(content: bytes) -> dict[str, object]:
    try:
        fields = json.loads(content)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.is_file() else ""
