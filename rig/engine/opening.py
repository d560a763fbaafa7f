"""Opening a rig in a thread of its own, so that nobody has to wait for a device who is stopped or ends meanwhile."""

from __future__ import annotations

import contextlib
import threading
import time

from catalog.errors import CleanplateError
from rig.assembly import Rig
from rig.errors import UnforeseenError

LETTING_GO_S = 2.0
"""How long a device may take to notice that it is not wanted any more."""
_AGAIN_S = 0.1


class Opening:
    """A rig that is being opened since this was made.

    Args:
        rig: Not entered yet; afterwards it belongs to whoever gets it from `result`.
    """

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._error: CleanplateError | None = None
        self._given_up = False
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._open, name="engine-opening", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end at most so long; returns whether it has ended."""
        return self._over.wait(timeout_s)

    def result(self) -> Rig:
        """Return the open rig, once it has ended.

        Raises:
            CleanplateError: A device could not be opened; everything else was closed again.
        """
        if self._error is not None:
            raise self._error
        return self._rig

    def give_up(self) -> None:
        """End it as soon as may be and close what is open.

        A device that does not let itself be interrupted (a webcam's driver) is left to its thread, which closes
        everything when it comes back, or dies with this process.
        """
        with self._lock:
            self._given_up = True
            is_open = self._over.is_set() and self._error is None
        if is_open:
            self._close()
            return
        deadline_s = time.monotonic() + LETTING_GO_S
        while self._thread.is_alive() and time.monotonic() < deadline_s:
            self._rig.give_up()  # again: the next device may just have been begun
            self._thread.join(_AGAIN_S)

    def _open(self) -> None:
        try:
            self._rig.__enter__()
        except CleanplateError as error:
            self._error = error
        except BaseException as error:  # noqa: BLE001  - whoever waits for the rig must hear of it, whatever it is
            self._error = unforeseen("opening the devices", error)
        with self._lock:
            self._over.set()
            is_unwanted = self._given_up and self._error is None
        if is_unwanted:
            self._close()

    def _close(self) -> None:
        with contextlib.suppress(CleanplateError):  # nobody is there any more who could do something about it
            self._rig.__exit__(None, None, None)


def unforeseen(what: str, error: BaseException) -> UnforeseenError:
    """Return the error with a code for one that has none.

    Args:
        what: What was being done, as the beginning of a sentence.
        error: What ended it; becomes the cause.
    """
    coded = UnforeseenError(
        f"{what} failed: {type(error).__name__}: {error}",
        kept="every take recorded so far",
        next_step="clear the fault and try again; if it stays, `rig help RIG-ENG-003`",
    )
    coded.__cause__ = error
    return coded
