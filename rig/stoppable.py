"""A rig that is open outside of an engine, and is stopped all the same: by `rig stop`, by signals, by its user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rig.assembly import Rig
from rig.engine.signals import EndingSignals
from rig.engine.stop import StopPost
from rig.errors import MoveInterruptedError, RigError
from rig.runtime import EngineAddress


class Halt:
    """Stops an open rig, from any thread; its user asks between two steps whether to go on.

    Args:
        rig: Open.
        what: What is being done, for messages.
    """

    def __init__(self, rig: Rig, what: str) -> None:
        self._rig, self._what = rig, what
        self._by = ""

    def stop_now(self, *, emergency: bool) -> str:
        """Put the bytes on the wire; returns plain words about trouble, empty when there was none."""
        try:
            if emergency:
                self._rig.rail.emergency_stop()
            else:
                self._rig.rail.stop()
        except RigError as error:
            return error.message
        return ""

    def note_stop(self, *, emergency: bool, by: str) -> None:
        """Let whoever uses the rig end soon."""
        self._by = by or ("an emergency stop" if emergency else "a stop")

    def stop(self, *, emergency: bool = False, by: str) -> None:
        """Stop, and let whoever uses the rig end soon."""
        self.stop_now(emergency=emergency)
        self.note_stop(emergency=emergency, by=by)

    def require_free(self) -> None:
        """Go on only while nobody has stopped.

        Raises:
            MoveInterruptedError: Somebody has.
        """
        if self._by:
            raise interrupted(self._what, self._by)


def interrupted(what: str, by: str) -> MoveInterruptedError:
    """Return the error that something ends with which was stopped."""
    return MoveInterruptedError(
        f"{what} was stopped by {by}",
        kept="the position, unless it was being looked for",
        next_step="give the same command again",
    )


@contextmanager
def stoppable(rig: Rig, what: str, *, signals: EndingSignals | None) -> Iterator[Halt]:
    """Listen for stops of an open rig while the block runs.

    Args:
        rig: Open; its lock is held by this process.
        what: What is being done, as the subject of a sentence.
        signals: What this process does with signals, None to leave them alone.
    """
    halt, address = Halt(rig, what), EngineAddress.of(rig.profile)
    with ExitStack() as stack:
        address.remove_sockets()
        stack.callback(address.remove_sockets)
        stack.callback(StopPost(address, halt).close)
        if signals is not None:
            stack.enter_context(signals.stopping(halt, farewell=lambda by: interrupted(what, by)))
        yield halt
