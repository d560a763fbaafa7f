"""The engine as the UI reaches it: found or started, attached to, listened to; found again when it was lost."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from rig.client import EngineClient, find_engine, start_engine
from rig.errors import RigError
from rig.events import AnyEvent
from rig.profile import RigProfile
from rig.requests import Command, WatchPreview
from rig.tui.keys_relay import StopSender
from rig.tui.stop_keys import StopTarget

RETRY_S = 1.0
PREVIEW_HZ = 4.0


class LiveLink:
    """Keeps one conversation with the engine of a rig, in a thread of its own.

    Args:
        profile: The rig.
        profile_name: Its profile, name or path, for an engine that has to be started.
        name: What other clients see.
        data: Data folder of an engine that has to be started.
        photos: Photographs for a simulated world.
        target: Where stops go; set as soon as the engine is known.
        niceness: Of the thread that opens the link, once it is open: drawing yields to engine and recording.
    """

    def __init__(
        self,
        profile: RigProfile,
        profile_name: str,
        *,
        name: str,
        data: Path,
        photos: Path | None,
        target: StopTarget,
        niceness: int = 0,
    ) -> None:
        self._niceness = niceness
        self._profile, self._profile_name, self._name = profile, profile_name, name
        self._data, self._photos, self._target = data, photos, target
        self._sender = StopSender(target)
        self._client: EngineClient | None = None
        self._lost, self._over = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def open(self, hear: Callable[[AnyEvent], None], lost: Callable[[str], None]) -> None:
        """Begin; both are called from threads of the link's own, ``hear`` with every event in order."""
        self._thread = threading.Thread(target=self._live, args=(hear, lost), name="engine-link", daemon=True)
        self._thread.start()
        os.nice(self._niceness)  # of this thread alone: an engine is started by the other, not to inherit it

    def send(self, command: Command) -> None:
        """Ask for something; the answer comes as an event. Without an engine nothing happens."""
        client = self._client
        if client is not None:
            client.send(command)

    def stop(self, stop: bytes) -> None:
        """Send ``stop`` or ``estop`` on the stop socket."""
        self._sender.send(stop)

    def close(self) -> None:
        """Part from the engine, which goes on by its profile's policy."""
        self._over.set()
        self._lost.set()
        if self._client is not None:
            self._client.close()
        if self._thread is not None:
            self._thread.join(timeout=1.0)
        self._sender.close()

    def _live(self, hear: Callable[[AnyEvent], None], lost: Callable[[str], None]) -> None:
        may_start = True
        while not self._over.is_set():
            try:
                self._attach(hear, may_start=may_start)
                may_start = False  # one that was lost is not replaced behind the operator's back
                self._lost.wait()
                lost("it ended or broke off the conversation")
            except RigError as error:
                lost(str(error))
            self._client = None
            self._over.wait(RETRY_S)

    def _attach(self, hear: Callable[[AnyEvent], None], *, may_start: bool) -> None:
        address = find_engine(self._profile.name)
        if address is None and may_start:
            address = start_engine(self._profile_name, data=self._data, photos=self._photos)
        if address is None:
            raise RigError("no engine runs this rig", next_step="leave with q and start `rig tui` again")
        self._lost.clear()
        self._target.set(address.stop_path)
        self._client = EngineClient(
            address, name=self._name, control=True, on_event=hear, on_lost=self._lost.set
        )
        self._client.send(WatchPreview(on=True, rate_hz=PREVIEW_HZ))
