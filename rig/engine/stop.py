"""The engine's stop post: a datagram socket and a thread that does nothing else.

Bytes go to the rail before anything is noted or told. A stop is legal always, from any process of this user, and
may come as often as it likes.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import socket
import sys
import threading
import time
from typing import Protocol

from rig.runtime import EngineAddress, bind_private, is_own_message

SWITCH_INTERVAL_S = 0.0005
"""How long another thread may keep the interpreter while the stop thread waits for it."""
NO_FULL_COLLECTIONS = 1_000_000_000
"""Passes of the garbage collector over the middle generation before one over everything: never, in motion."""
MAX_BYTES = 256
_CREDENTIAL_BYTES = socket.CMSG_SPACE(12)
_CLOSE = b"close"
_log = logging.getLogger(__name__)


class Stoppable(Protocol):
    """What the post stops."""

    def stop_now(self, *, emergency: bool) -> str:
        """Put the bytes on the wire; returns plain words about trouble, empty when there was none."""

    def note_stop(self, *, emergency: bool, by: str) -> None:
        """Draw the consequences."""


class StopPost:
    """Listens for ``stop`` and ``estop`` until closed.

    While it listens the interpreter changes threads often, and the garbage collector makes no pass over everything:
    that holds all threads for 50 ms and more. `tidy_up` makes one after every act and take, over what has come since.

    Args:
        address: Where; its lock is held by this process.
        engine: What is stopped.
    """

    def __init__(self, address: EngineAddress, engine: Stoppable) -> None:
        self._address, self._engine = address, engine
        self._socket = bind_private(socket.SOCK_DGRAM, address.stop_path)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._interpreter = sys.getswitchinterval(), gc.get_threshold()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.set_threshold(*gc.get_threshold()[:2], NO_FULL_COLLECTIONS)
        gc.freeze()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="engine-stop", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._over.set()
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as poke:
            poke.connect(self._socket.getsockname())
            poke.send(_CLOSE)
        self._thread.join(timeout=1.0)
        self._socket.close()
        interval_s, thresholds = self._interpreter
        sys.setswitchinterval(interval_s)
        gc.set_threshold(*thresholds)
        gc.unfreeze()

    def _listen(self) -> None:
        _take_precedence()
        while not self._over.is_set():
            data, ancillary, _, sender = self._socket.recvmsg(MAX_BYTES, _CREDENTIAL_BYTES)
            word, _, by = data.partition(b" ")
            if word not in {b"stop", b"estop"} or not is_own_message(ancillary):
                continue
            try:
                self._stop(sender, emergency=word == b"estop", by=by.decode(errors="replace"))
            except Exception:  # noqa: BLE001  - whatever it was: the next stop must find this thread alive
                _log.exception("a stop had trouble")

    def _stop(self, sender: str | bytes | None, *, emergency: bool, by: str) -> None:
        trouble = self._engine.stop_now(emergency=emergency)
        done_s = time.monotonic()
        if sender:
            with contextlib.suppress(OSError):  # whoever asked is gone, or does not read
                self._socket.sendto(
                    self._receipt(done_s, trouble, emergency=emergency), socket.MSG_DONTWAIT, sender
                )
        self._engine.note_stop(emergency=emergency, by=by)

    def _receipt(self, done_s: float, trouble: str, *, emergency: bool) -> bytes:
        receipt = {
            "schema": 1,
            "name": self._address.name,
            "emergency": emergency,
            "t_monotonic_s": done_s,
            "trouble": trouble,
        }
        return json.dumps(receipt).encode()


def tidy_up() -> None:
    """Free what only a full pass of the garbage collector finds: short, since what was there before is left out."""
    gc.collect()


def _take_precedence() -> None:
    """Put this thread ahead of all others as far as this user may: real time, or a better nice value, or neither."""
    thread = threading.get_native_id()
    with contextlib.suppress(OSError):
        os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(1))
        return
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, -20)
