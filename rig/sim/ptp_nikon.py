"""The simulated Nikon body: what each PTP operation does (ISO 15740 and Nikon's extension, as libgphoto2 uses it)."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from rig.clock import SessionClock
from rig.profile import SimulationSpec
from rig.sim import ptp_body
from rig.sim import ptp_settings as prop
from rig.sim.ptp_body import Action, Answer, CameraBody, Identity, Reply, answer
from rig.sim.ptp_card import MEMORY_OBJECT
from rig.sim.ptp_packets import Operation
from rig.sim.ptp_recorder import CameraBackend, CameraFaults, Moment, RawBackend, Shutter

_NIKON = 0x0A
_OBJECT_ADDED, _PROPERTY_CHANGED, _CAPTURE_COMPLETE = 0x4002, 0x4006, 0x400D
_OBJECT_ADDED_IN_MEMORY = 0xC101
_HOT = 1 << 17
_CARD_FULL, _BUFFER_PENDING, _RECORDING, _WRONG_MODE = 1 << 3, 1 << 9, 1 << 10, 1 << 14
_LIVE_VIEW_HEADER = b"\0" * 128
_TOWARDS_NEAR = 1


class NikonBody(CameraBody):
    """A Nikon body.

    Args:
        backend: Makes its pictures.
        clock: The session clock.
        spec: Start delay of movies, and the seed it is drawn with.
        serial: Serial number the body reports.
        faults: What goes wrong; may be replaced at any time.
    """

    moments: ClassVar[Mapping[int, Moment]] = {
        0x1009: "fetch", 0x1016: "set", 0x101B: "fetch", 0x90C0: "capture", 0x90C7: "events", 0x90C8: "ready",
        0x9203: "preview", 0x9207: "capture", 0x920A: "start_movie", 0x920B: "stop_movie",
    }  # fmt: skip
    # 0xC108, movie complete, is left out on purpose: the library would block ten seconds waiting for it.
    events_announced: ClassVar[Sequence[int]] = (_OBJECT_ADDED, _PROPERTY_CHANGED, _CAPTURE_COMPLETE)
    settings: prop.BodySettings

    def __init__(
        self,
        backend: CameraBackend,
        clock: SessionClock,
        spec: SimulationSpec,
        *,
        serial: str,
        faults: CameraFaults,
    ) -> None:
        self.settings = prop.BodySettings.of_body(with_raw=isinstance(backend, RawBackend))
        self._written: list[int] = []
        self._events: deque[tuple[int, int]] = deque()
        self._live_view = False
        self._focus_stop_hit = False
        self._busy_left = 0
        self._busy_until_s = 0.0
        identity = Identity(_NIKON, "Nikon Corporation", "cleanplate simulated body", serial)
        super().__init__(backend, clock, spec, identity=identity, faults=faults)

    def initiator_left(self) -> None:
        """End live view and recording, as a body does when its cable is pulled; files stay on the card."""
        self._live_view = False
        self._recorder.stop_movie()
        self._recorder.release()
        self.settings.properties[prop.APPLICATION_MODE].value = 0

    def return_from(self, faults: CameraFaults) -> None:
        """Come back as at power-up; files stay on the card."""
        super().return_from(faults)
        self.settings = prop.BodySettings.of_body(with_raw=isinstance(self._backend, RawBackend))
        self._events.clear()

    def _listed_properties(self) -> Sequence[int]:
        return tuple(self.settings.properties)

    def _vendor_operations(self) -> dict[int, Action]:
        return {
            0x100E: self._capture,
            0x1014: self._describe_property,
            0x1015: self._get_property,
            0x1016: self._set_property,
            0x90C0: self._capture,
            0x90C1: lambda _op, _: self._act(),  # autofocus: this lens has none to drive
            0x90C2: lambda _op, _: answer(),  # control mode
            0x90C7: lambda _op, _: self._get_events(),
            0x90C8: lambda _op, _: self._ready(),
            0x9201: lambda _op, _: self._switch_live_view(True),
            0x9202: lambda _op, _: self._switch_live_view(False),
            0x9203: lambda _op, _: self._live_view_frame(),
            0x9204: self._drive_focus,
            0x9207: self._capture,
            0x920A: lambda _op, _: self._start_movie(),
            0x920B: lambda _op, _: self._stop_movie(),
            0x920C: lambda _op, _: self._end_bulb(),
        }

    def _describe_property(self, operation: Operation, _: bytes) -> Answer:
        self._refresh()
        item = self.settings.properties.get(operation.parameter(0))
        return answer(Reply.NO_SUCH_PROPERTY) if item is None else answer(data=item.description())

    def _get_property(self, operation: Operation, _: bytes) -> Answer:
        self._refresh()
        item = self.settings.properties.get(operation.parameter(0))
        return answer(Reply.NO_SUCH_PROPERTY) if item is None else answer(data=item.coded())

    def _set_property(self, operation: Operation, data: bytes) -> Answer:
        code = operation.parameter(0)
        item = self.settings.properties.get(code)
        if item is None:
            return answer(Reply.NO_SUCH_PROPERTY)
        value = item.decoded(data)
        if self._is_among(code, self.faults.refused):
            return answer(Reply.BAD_VALUE)
        if self._is_among(code, self.faults.ignored):
            return answer()
        if self._is_among(code, self.faults.rounded):
            value = item.neighbour(value)
        return answer(Reply.OK if self.settings.write(code, value) else Reply.BAD_VALUE)

    @staticmethod
    def _is_among(code: int, names: tuple[str, ...]) -> bool:
        return any(code in prop.CODES_BY_SETTING[name] for name in names)

    def _refresh(self) -> None:
        """Bring the read-only properties up to date."""
        properties, faults = self.settings.properties, self.faults
        properties[prop.MOVIE_PROHIBIT].value = self._movie_prohibit_bits()
        properties[prop.LIVE_VIEW_PROHIBIT].value = _HOT if faults.is_hot else 0
        properties[prop.LIVE_VIEW_STATUS].value = int(self._live_view)
        if faults.battery_percent is not None:
            properties[prop.BATTERY].value = faults.battery_percent
        if faults.clock_off_s:
            properties[prop.CLOCK].value = round(faults.clock_off_s)

    def _drift(self) -> None:
        """Change a setting while a movie runs, once, and tell so."""
        names = self.faults.drifting
        if not names or self._recorder.state is not Shutter.RECORDING:
            return
        self.faults = self.faults.model_copy(update={"drifting": ()})
        for code in (code for name in names for code in prop.CODES_BY_SETTING[name][-1:]):
            item = self.settings.properties[code]
            self.settings.write(code, item.neighbour(item.value))
            self._events.append((_PROPERTY_CHANGED, code))

    def _tell_of_files(self) -> None:
        """Tell of the files that were written; in disorder only when all are."""
        disorder = self.faults.announced_in_disorder
        if disorder and self._recorder.state is not Shutter.IDLE:
            return
        handles, self._written = self._written, []
        for handle in reversed(handles) if disorder else handles:
            code = _OBJECT_ADDED_IN_MEMORY if handle == MEMORY_OBJECT else _OBJECT_ADDED
            self._events.extend([(code, handle)] * (2 if self.faults.announced_twice else 1))
        if handles:
            self._events.append((_CAPTURE_COMPLETE, 0))

    def _movie_prohibit_bits(self) -> int:
        state = self._recorder.state
        return (
            self.faults.movie_prohibit_bits
            | (_CARD_FULL if self._is_card_full else 0)
            | (_BUFFER_PENDING if state in {Shutter.WRITING, Shutter.EXPOSING} else 0)
            | (_RECORDING if state is Shutter.RECORDING else 0)
            | (0 if self.settings.value(prop.APPLICATION_MODE) else _WRONG_MODE)
        )

    def _get_events(self) -> Answer:
        self._drift()
        self._tell_of_files()
        waiting = [self._events.popleft() for _ in range(len(self._events))]
        body = b"".join(struct.pack("<HI", code, parameter) for code, parameter in waiting)
        return answer(data=struct.pack("<H", len(waiting)) + body)

    def _act(self, *, busy_s: float = 0.0) -> Answer:
        self._busy_left = self.faults.busy_answers
        self._busy_until_s = self._clock.now() + busy_s
        return answer()

    def _ready(self) -> Answer:
        if self._recorder.state is Shutter.EXPOSING or self._clock.now() < self._busy_until_s:
            return answer(Reply.BUSY)
        if self._busy_left:
            self._busy_left -= 1
            return answer(Reply.BUSY)
        if self._focus_stop_hit:
            self._focus_stop_hit = False
            return answer(Reply.FOCUS_STOP)
        return answer()

    def _switch_live_view(self, on: bool) -> Answer:
        if on and self.faults.is_hot and not self._live_view:
            return answer(Reply.INVALID_STATUS)
        self._live_view = on
        return self._act()

    def _live_view_frame(self) -> Answer:
        if not self._live_view:
            return answer(Reply.NOT_IN_LIVE_VIEW)
        frame = self._recorder.cut(self._backend.preview(self.settings.exposure()))
        return answer(data=_LIVE_VIEW_HEADER + frame)

    def _drive_focus(self, operation: Operation, _: bytes) -> Answer:
        if not self._live_view:
            return answer(Reply.NOT_IN_LIVE_VIEW)
        sign = 1 if operation.parameter(0) == _TOWARDS_NEAR else -1
        before = self.settings.focus_steps
        self._focus_stop_hit = not self.settings.drive_focus(sign * operation.parameter(1))
        return self._act(busy_s=abs(self.settings.focus_steps - before) / ptp_body.FOCUS_STEPS_PER_S)

    def _capture(self, _: Operation, __: bytes) -> Answer:
        if self._is_card_full:
            return answer(Reply.STORE_FULL)
        if self._recorder.state is not Shutter.IDLE:
            return answer(Reply.BUSY)
        self._recorder.suffixes = self.settings.still_suffixes
        if self.settings.is_bulb:
            self._recorder.hold_open(self.settings.exposure())
            return answer()
        in_a_row = self.settings.value(prop.DRIVE_MODE) == prop.CONTINUOUS
        count = self.settings.value(prop.BURST_NUMBER) if in_a_row else 1
        self._recorder.expose_several(self.settings.exposure(), count)
        return self._act()

    def _end_bulb(self) -> Answer:
        self._recorder.release()
        return self._act()

    def _announce(self, path: Path) -> None:
        in_memory = self.faults.pictures_to_memory and path.suffix != ".mov"
        item = self._card.keep_in_memory(path) if in_memory else self._card.add(path)
        self._written.append(item.handle)

    def _start_movie(self) -> Answer:
        if not self._live_view:
            return answer(Reply.NOT_IN_LIVE_VIEW)
        if self._movie_prohibit_bits():
            return answer(Reply.INVALID_STATUS)
        self._recorder.start_movie(self.settings.exposure())
        return self._act()

    def _stop_movie(self) -> Answer:
        return self._act() if self._recorder.stop_movie() else answer(Reply.INVALID_STATUS)
