"""Start `rig` as forks of one process that has loaded what it needs: a second of CPU less for each start.

Everything else is a program's own: process, arguments, environment, streams, signals, exit code; what `rig` starts is
started as ever. Only the interpreter's own start and end are not met this way, so that some runs must go without it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

_MOST_BYTES = 1 << 20
_STREAMS = 3
"""What a run is given: its stdout, its stderr, and the supervisor's line to whoever asked for it."""


class Nursery:
    """The process that forks; any thread may ask it for runs. A context manager."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # a thread of its own would not be forked
            )

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *error: object) -> None:
        self._line.close()
        self._server.wait()

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], stderr: IO[bytes]) -> Nursling:
        """Start ``rig`` with arguments."""
        ours, theirs = socket.socketpair()
        output, stdout = os.pipe()
        request = json.dumps({"arguments": list(arguments), "environment": dict(environment)}).encode()
        with theirs:
            socket.send_fds(self._line, [request], [stdout, stderr.fileno(), theirs.fileno()])
        os.close(stdout)
        return Nursling(ours, os.fdopen(output, "rb"))


class Nursling:
    """One run: as much of a `subprocess.Popen` as is needed here."""

    def __init__(self, line: socket.socket, stdout: IO[bytes]) -> None:
        self._answers = line.makefile("r")
        line.close()
        self.stdout: IO[bytes] = stdout
        self.pid = int(self._answers.readline())
        self._ended = threading.Event()

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the run is over."""
        if not self._ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def wait(self) -> int:
        """Wait for its end; returns the exit code, or less the signal's number."""
        code = int(self._answers.readline())
        self._ended.set()
        self._answers.close()
        return code


def serve(line: socket.socket) -> None:
    """Fork for every request until nobody can ask any more."""
    import rig.cli
    import rig.display
    import rig.record  # noqa: F401  - with the engine, the drivers and all that they need

    assert len(os.listdir("/proc/self/task")) == 1, "a thread would be missing in every fork"  # noqa: PTH208
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for supervisors
    gc.freeze()
    while True:
        data, streams, _, _ = socket.recv_fds(line, _MOST_BYTES, _STREAMS)
        if not data:
            return
        if os.fork() == 0:
            line.close()
            _supervise(json.loads(data), *streams)
        for stream in streams:
            os.close(stream)


def _supervise(request: dict[str, Any], stdout: int, stderr: int, answers: int) -> None:
    """Run one `rig` in a fork of its own and tell its id and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(answers)
        _become_rig(request, stdout, stderr)
    os.close(stdout)
    os.write(answers, f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become_rig(request: dict[str, Any], stdout: int, stderr: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for stream, number in ((nowhere, 0), (stdout, 1), (stderr, 2)):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["rig", *request["arguments"]]
    code = 1
    try:
        from rig.cli import main

        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter does at its end
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
