"""The program that owns libgphoto2: ``python -m rig.devices.gphoto2_worker FD HOME`` serves a pipe until it closes.

Its main thread makes the library's calls, one after the other. A second thread reads the pipe, so that it notices
when the engine has died while the library does not return.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rig.devices.gphoto2_body import CameraBody
from rig.errors import DeviceError

_Call = tuple[int, str, Sequence[Any]]
_FAREWELL_S = 10.0
"""How long the camera may take to be let go after the pipe has closed."""


def main() -> None:
    """Serve the pipe with this file descriptor, then remove the temporary home folder."""
    pipe = Connection(int(sys.argv[1]))
    calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(pipe, calls), daemon=True).start()
    body = CameraBody(Path(sys.argv[2]))
    while (call := calls.get()) is not None:
        _answer(pipe, body, call)
    body.close()
    shutil.rmtree(sys.argv[2], ignore_errors=True)  # the engine may have died and does not do it


def _read(pipe: Connection, calls: queue.SimpleQueue[_Call | None]) -> None:
    try:
        while True:
            calls.put(pipe.recv())
    except (EOFError, OSError):
        calls.put(None)
        last_resort = threading.Timer(_FAREWELL_S, os._exit, (1,))
        last_resort.daemon = True
        last_resort.start()


def _answer(pipe: Connection, body: CameraBody, call: _Call) -> None:
    number, method, arguments = call
    body.progress = lambda count: pipe.send((number, "progress", count))
    try:
        reply: tuple[int, str, Any] = (number, "result", getattr(body, method)(*arguments))
    except DeviceError as error:
        reply = (number, "error", error)
    with contextlib.suppress(OSError):  # nobody is listening any more; the reader has noticed, too
        pipe.send(reply)


if __name__ == "__main__":
    main()
