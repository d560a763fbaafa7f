"""The controller's coolant outputs as switches for lamp and sync LED, toggled by real-time bytes.

GRBL only knows toggles, so the present state is tracked here and corrected by the reports that tell it: a
toggle that the controller ignored (in alarm, while homing) or that noise made is repeated or undone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from rig.clock import SessionClock
from rig.devices import grbl_protocol as protocol
from rig.devices.grbl_protocol import StatusReport
from rig.devices.wire import Wire

TOGGLES = {"flood": protocol.TOGGLE_FLOOD, "mist": protocol.TOGGLE_MIST}
_LETTERS = {"flood": "F", "mist": "M"}
_SPACING_S = 0.02
"""Two toggles that the controller's main loop finds together count as one."""
_ATTEMPTS = 3


class GrblOutputs:
    """Switches outputs at once, in any thread, also while the carriage moves.

    Args:
        wire: The open transport.
        clock: The session clock.
    """

    def __init__(self, wire: Wire, clock: SessionClock) -> None:
        self._wire = wire
        self._clock = clock
        self._lock = threading.Lock()
        self._wanted = dict.fromkeys(TOGGLES, False)
        self._believed = dict.fromkeys(TOGGLES, False)
        self._attempts = dict.fromkeys(TOGGLES, 0)
        self._toggled_s = -_SPACING_S

    def switch(self, pin: str, *, on: bool) -> float:
        """Bring an output to a state; returns the session time at which the byte left."""
        with self._lock:
            self._wanted[pin] = on
            self._attempts[pin] = 0
            if self._believed[pin] != on:
                self._toggle(pin)
            return self._clock.now()

    def note(self, report: StatusReport, asked_s: float) -> None:
        """Compare with what a report tells, and toggle again what is not as it was wanted."""
        with self._lock:
            if report.accessories is None or asked_s < self._toggled_s + _SPACING_S:
                return
            for pin, letter in _LETTERS.items():
                self._believed[pin] = letter in report.accessories
                if self._believed[pin] != self._wanted[pin] and self._attempts[pin] < _ATTEMPTS:
                    self._attempts[pin] += 1
                    self._toggle(pin)

    def forget(self) -> None:
        """All outputs are off: a reset does that."""
        with self._lock:
            self._wanted = dict.fromkeys(TOGGLES, False)
            self._believed = dict.fromkeys(TOGGLES, False)

    def failing(self) -> Iterable[str]:
        """List outputs that did not obey although they were toggled again and again."""
        with self._lock:
            return [pin for pin in TOGGLES if self._attempts[pin] >= _ATTEMPTS]

    def _toggle(self, pin: str) -> None:
        self._clock.sleep(self._toggled_s + _SPACING_S - self._clock.now())
        self._wire.write_realtime(TOGGLES[pin])
        self._believed[pin] = not self._believed[pin]
        self._toggled_s = self._clock.now()
