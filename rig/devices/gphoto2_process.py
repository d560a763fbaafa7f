"""The process that owns libgphoto2: started, asked with a deadline, and ended by force when it does not answer.

It is a program of its own and no fork: a fork would share this process's threads and locks, and a spawned
`multiprocessing` child would run the caller's main module again.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from rig.errors import DeviceError, DeviceTimeoutError
from rig.scratch import ScratchFolder

_EXIT_S = 5.0
_LIBRARY_SETTINGS = "ptp2=cachetime=0\n"


class OwnerProcess:
    """One child process and the pipe to it. Everything it does is asked for with a deadline.

    The child lives in a home folder of its own, since the library keeps settings in the user's from run to run.
    There the library is told to ask the body each time: it would else answer for two seconds from what it knew.
    """

    def __init__(self) -> None:
        self._home = ScratchFolder("gphoto2")
        self._log = self._home.path / "stderr.txt"
        self._numbers = itertools.count(1)
        library_settings = self._home.path / "gphoto" / "settings"
        library_settings.parent.mkdir()
        library_settings.write_text(_LIBRARY_SETTINGS, encoding="utf-8")
        ours, theirs = socket.socketpair()
        with theirs, self._log.open("wb") as log:
            program = ["-P", "-m", "rig.devices.gphoto2_worker", str(theirs.fileno()), str(self._home.path)]
            self._child = subprocess.Popen(
                [sys.executable, *program],
                pass_fds=[theirs.fileno()],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the engine, which then decides what the camera does
            )
        self._pipe = Connection(ours.detach())

    @property
    def alive(self) -> bool:
        """Whether calls can be made."""
        return not self._pipe.closed and self._child.poll() is None

    def call(
        self,
        method: str,
        *arguments: object,
        camera: str,
        timeout_s: float,
        progress: Callable[[int], None] | None = None,
        stall_s: float | None = None,
        within: str = "",
    ) -> Any:
        """Have one thing done.

        Args:
            method: Name of a public method of `rig.devices.gphoto2_body.CameraBody`.
            arguments: Its arguments, picklable.
            camera: What to call the camera in messages.
            timeout_s: Deadline for the whole of it.
            progress: Gets the counts of bytes that the method reports.
            stall_s: Longest silence between two such reports; the deadline where there are none.
            within: What a message calls it where it is the first step of something else.

        Raises:
            DeviceTimeoutError: No answer in time; the child was killed, the camera must be opened again.
            DeviceError: The child ended, or the method raised.
        """
        number = next(self._numbers)
        try:
            self._pipe.send((number, method, arguments))
            kind, value = self._await(number, timeout_s, stall_s or timeout_s, progress)
        except (EOFError, OSError) as error:
            raise self._ended(camera, within or method) from error
        if kind == "silence":
            self.kill()
            raise DeviceTimeoutError(
                f"{camera}: no answer to '{within or method}' within {value:.0f} s; its owner process was ended",
                kept="everything on the card",
                next_step="switch the camera off and on, then open the rig again",
            )
        if kind == "error":
            raise value
        return value

    def abort(self) -> None:
        """End the child by force; another thread that waits for its answer is told that it ended. Thread-safe."""
        self._child.kill()

    def kill(self) -> None:
        """End the child by force, which is the only way out of a call that does not return. Safe to call twice."""
        self._pipe.close()
        self._child.kill()
        self._child.wait()
        self._home.cleanup()

    def close(self) -> None:
        """Let the child go: it ends when the pipe closes. Safe to call twice."""
        self._pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(_EXIT_S)
        self.kill()

    def _await(
        self, number: int, timeout_s: float, stall_s: float, progress: Callable[[int], None] | None
    ) -> tuple[str, Any]:
        deadline_s = time.monotonic() + timeout_s
        while (left_s := min(deadline_s - time.monotonic(), stall_s)) > 0 and self._pipe.poll(left_s):
            answered, kind, value = self._pipe.recv()
            if answered != number:
                continue  # to a call that was given up when an interrupt came
            if kind != "progress":
                return kind, value
            if progress is not None:
                progress(value)
        return "silence", min(timeout_s, stall_s)

    def _ended(self, camera: str, method: str) -> DeviceError:
        said = self._last_words()
        self.kill()
        return DeviceError(
            f"{camera}: its owner process ended during '{method}'{said}", next_step="open the rig again"
        )

    def _last_words(self) -> str:
        try:
            lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:  # another thread has found it ended, too, and tidied up
            return ""
        return f" ({lines[-1]})" if lines else ""

    def _environment(self) -> dict[str, str]:
        own = {
            "HOME": str(self._home.path),
            "XDG_CONFIG_HOME": str(self._home.path),
            "LC_ALL": "C.UTF-8",
            "LANGUAGE": "C",
        }
        paths = os.pathsep.join(p for p in sys.path if p)
        return {**os.environ, **own, "PYTHONPATH": paths}
