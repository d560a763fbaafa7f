"""The live check in a process of its own, at low priority: neither the engine's interpreter nor its stop waits for it.

A program of its own and no spawned `multiprocessing` child, which would run the caller's main module again. It
ends when its input closes, that is with whoever started it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self, cast

from catalog.session_folder import SessionFolder
from rig.errors import DeviceTimeoutError
from rig.guards import TakeReport

if TYPE_CHECKING:
    from rig.live_check import LiveChecker

_NICENESS = 10
_CHECK_S = 120.0
"""A check that takes longer is given up, s of the machine."""
_EXIT_S = 1.0


class LiveCheckProcess:
    """Checks takes of one session beside its recording; a context manager.

    Args:
        folder: The session's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="live-check")
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._child = self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._thread.shutdown(cancel_futures=True)

    def begin(self, round_name: str, take: int) -> Future[TakeReport]:
        """Start to check a take that has its `round.json`; takes are checked one after the other.

        The future raises `DeviceTimeoutError` where the check did not come to an end: the take is as good as
        it was.
        """
        return self._thread.submit(self._check, round_name, take)

    def _check(self, round_name: str, take: int) -> TakeReport:
        if self._child is None or self._child.poll() is not None:
            self._child = self._start()
        child = self._child
        watchdog = threading.Timer(_CHECK_S, child.kill)
        watchdog.start()
        try:
            stdin, stdout = cast("IO[str]", child.stdin), cast("IO[str]", child.stdout)
            stdin.write(json.dumps({"round": round_name, "take": take}) + "\n")
            stdin.flush()
            line = stdout.readline()
        except (OSError, ValueError):  # it ended, or was ended from `__exit__`
            line = ""
        finally:
            watchdog.cancel()
        if not line:
            raise DeviceTimeoutError(
                f"the live check of round {round_name} take {take} did not come to an end",
                kept="the take as it is",
                next_step="align the session to see whether the take is good",
            )
        return TakeReport.model_validate_json(line)

    def _start(self) -> subprocess.Popen[str]:
        paths = os.pathsep.join(p for p in sys.path if p)
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "rig.live_check_process", str(self._folder.absolute())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
            text=True,
            start_new_session=True,  # Ctrl-C is for the engine
        )

    def _end(self) -> None:
        child = self._child
        if child is None:
            return
        with contextlib.suppress(OSError):
            cast("IO[str]", child.stdin).close()
        try:
            child.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        cast("IO[str]", child.stdout).close()


def serve(folder: Path) -> None:
    """Answer requests on stdin with reports on stdout until stdin closes."""
    loading = threading.Thread(target=_load, daemon=True)
    loading.start()
    checker: LiveChecker | None = None
    for line in sys.stdin:
        loading.join()
        checker = checker or _checker(folder)
        request = json.loads(line)
        report = checker.check(request["round"], request["take"])
        sys.stdout.write(report.model_dump_json() + "\n")
        sys.stdout.flush()


def _load() -> None:
    """Import what the first take needs, so that it does not wait for that, nor the end of a session without one."""
    import scipy.optimize  # noqa: F401

    import rig.live_check  # noqa: F401


def _checker(folder: Path) -> LiveChecker:
    from rig.live_check import LiveChecker

    return LiveChecker(SessionFolder(folder))


def main() -> None:
    """Serve one session at low priority."""
    os.nice(_NICENESS)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    serve(Path(sys.argv[1]))
    os._exit(0)  # nothing is left to flush, and an import under way need not come to its end


if __name__ == "__main__":
    main()
