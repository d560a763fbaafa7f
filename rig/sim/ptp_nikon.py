"""The simulated Nikon body: what each PTP operation does (ISO 15740 and Nikon's extension, as libgphoto2 uses it)."""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping
from enum import IntEnum
from pathlib import Path

from catalog.errors import CleanplateError
from rig.clock import SessionClock
from rig.profile import SimulationSpec
from rig.sim import ptp_settings as prop
from rig.sim.ptp_card import STORAGE_ID, Card, CardObject
from rig.sim.ptp_packets import FileRange, Operation, ValueType, array, text
from rig.sim.ptp_recorder import CameraBackend, CameraFaults, Moment, Recorder, Shutter

_NIKON, _JPEG, _MOV = 0x0A, 0x3801, 0x300D
_OBJECT_ADDED, _PROPERTY_CHANGED, _CAPTURE_COMPLETE = 0x4002, 0x4006, 0x400D
_CARD_FULL, _BUFFER_PENDING, _RECORDING, _WRONG_MODE = 1 << 3, 1 << 9, 1 << 10, 1 << 14
_MIN_FREE_BYTES = 50_000_000
_LIVE_VIEW_HEADER = b"\0" * 128
_TOWARDS_NEAR = 1
_FOCUS_STEPS_PER_S = 6000.0
"""The lens crosses its whole range in 0.3 s."""

Answer = tuple["Reply", tuple[int, ...], "bytes | FileRange | None"]
"""Response code, response parameters, data of a data-in phase."""
Action = Callable[[Operation, bytes], Answer]


class Reply(IntEnum):
    """Response codes."""

    OK = 0x2001
    GENERAL_ERROR = 0x2002
    UNSUPPORTED = 0x2005
    NO_SUCH_OBJECT = 0x2009
    NO_SUCH_PROPERTY = 0x200A
    STORE_FULL = 0x200C
    NO_THUMBNAIL = 0x2010
    BUSY = 0x2019
    BAD_VALUE = 0x201C
    INVALID_STATUS = 0xA004
    NOT_IN_LIVE_VIEW = 0xA00B
    FOCUS_STOP = 0xA00C


_MOMENTS: Mapping[int, Moment] = {
    0x1009: "fetch", 0x1016: "set", 0x101B: "fetch", 0x90C0: "capture", 0x90C7: "events", 0x90C8: "ready",
    0x9203: "preview", 0x9207: "capture", 0x920A: "start_movie", 0x920B: "stop_movie",
}  # fmt: skip
"""What a person would call these operations; `CameraFaults` speaks of them."""


class NikonBody:
    """The body behind the port. It does one operation at a time, whoever asks.

    Args:
        backend: Makes its pictures.
        clock: The session clock.
        spec: Start delay of movies, and the seed it is drawn with.
        serial: Serial number the body reports.
        faults: What goes wrong; may be replaced at any time.

    Attributes:
        thaw: Cleared, the body answers nothing any more until it is set again.
    """

    def __init__(
        self,
        backend: CameraBackend,
        clock: SessionClock,
        spec: SimulationSpec,
        *,
        serial: str,
        faults: CameraFaults,
    ) -> None:
        self._backend, self._clock, self._serial = backend, clock, serial
        self.faults = faults
        self.settings = prop.BodySettings()
        self.thaw = threading.Event()
        self.thaw.set()
        self._card = Card(capacity_bytes=faults.card_bytes)
        self._recorder = Recorder(
            backend, clock, spec=spec, announce=self._announce, faults=lambda: self.faults
        )
        self._events: deque[tuple[int, int]] = deque()
        self._live_view = False
        self._focus_stop_hit = False
        self._busy_left = 0
        self._busy_until_s = 0.0
        self._operations = self._table()

    def close(self) -> None:
        """Switch off: end what is going on."""
        self._recorder.close()
        self.thaw.set()

    def initiator_left(self) -> None:
        """End live view and recording, as a body does when its cable is pulled; files stay on the card."""
        self._live_view = False
        self._recorder.stop_movie()
        self.settings.properties[prop.APPLICATION_MODE].value = 0

    def vanishes_at(self, operation: Operation) -> bool:
        """Tell whether this operation finds the body gone."""
        return self.faults.vanishes_at is not None and _MOMENTS.get(operation.code) == self.faults.vanishes_at

    def answer(self, operation: Operation, data_out: bytes) -> Answer:
        """Carry out one operation."""
        moment = _MOMENTS.get(operation.code)
        if moment is not None and moment == self.faults.freezes_at:
            self.thaw.clear()
        self.thaw.wait()
        action = self._operations.get(operation.code)
        try:
            return _answer(Reply.UNSUPPORTED) if action is None else action(operation, data_out)
        except (CleanplateError, OSError):
            return _answer(Reply.GENERAL_ERROR)

    def _table(self) -> dict[int, Action]:
        return {
            0x1001: lambda _op, _: _answer(data=self._device_info()),
            0x1002: lambda _op, _: _answer(),  # open session
            0x1003: lambda _op, _: _answer(),  # close session
            0x1004: lambda _op, _: _answer(data=array([STORAGE_ID], ValueType.UINT32)),
            0x1005: lambda _op, _: _answer(data=self._card.storage_info()),
            0x1006: lambda op, _: _answer(Reply.OK, (len(self._card.handles(op.parameter(2))),)),
            0x1007: lambda op, _: _answer(data=array(self._card.handles(op.parameter(2)), ValueType.UINT32)),
            0x1008: self._get_object_info,
            0x1009: lambda op, _: self._get_bytes(op.parameter(0), 0, 0xFFFFFFFF),
            0x100A: lambda _op, _: _answer(Reply.NO_THUMBNAIL),
            0x100B: self._delete,
            0x100E: self._capture,
            0x1014: self._describe_property,
            0x1015: self._get_property,
            0x1016: self._set_property,
            0x101B: lambda op, _: self._get_bytes(op.parameter(0), op.parameter(1), op.parameter(2)),
            0x90C0: self._capture,
            0x90C1: lambda _op, _: self._act(),  # autofocus: this lens has none to drive
            0x90C2: lambda _op, _: _answer(),  # control mode
            0x90C7: lambda _op, _: self._get_events(),
            0x90C8: lambda _op, _: self._ready(),
            0x9201: lambda _op, _: self._switch_live_view(True),
            0x9202: lambda _op, _: self._switch_live_view(False),
            0x9203: lambda _op, _: self._live_view_frame(),
            0x9204: self._drive_focus,
            0x9207: self._capture,
            0x920A: lambda _op, _: self._start_movie(),
            0x920B: lambda _op, _: self._stop_movie(),
        }

    def _device_info(self) -> bytes:
        # 0xC108, movie complete, is left out on purpose: the library would block ten seconds waiting for it.
        u16 = ValueType.UINT16
        return (
            struct.pack("<HIH", 100, _NIKON, 100)
            + text("simulated body")
            + struct.pack("<H", 0)
            + array(sorted(self._operations), u16)
            + array([_OBJECT_ADDED, _PROPERTY_CHANGED, _CAPTURE_COMPLETE], u16)
            + array(sorted(self.settings.properties), u16)
            + array([_JPEG], u16)
            + array([_JPEG, _MOV], u16)
            + text("Nikon Corporation")
            + text("cleanplate simulated body")
            + text("1.0")
            + text(self._serial)
        )

    def _get_object_info(self, operation: Operation, _: bytes) -> Answer:
        info = self._card.object_info(operation.parameter(0))
        return _answer(Reply.NO_SUCH_OBJECT) if info is None else _answer(data=info)

    def _get_bytes(self, handle: int, offset: int, count: int) -> Answer:
        item = self._card.file(handle)
        if item is None:
            return _answer(Reply.NO_SUCH_OBJECT)
        data = self._file_range(item, offset, count)
        return _answer(Reply.OK, (len(data),), data)

    def _file_range(self, item: CardObject, offset: int, count: int) -> FileRange:
        end = max(item.size_bytes - self.faults.bytes_missing, 0)
        return FileRange(item.path, offset, min(count, max(end - offset, 0)))

    def _delete(self, operation: Operation, _: bytes) -> Answer:
        return _answer(Reply.OK if self._card.delete(operation.parameter(0)) else Reply.NO_SUCH_OBJECT)

    def _describe_property(self, operation: Operation, _: bytes) -> Answer:
        self._refresh()
        item = self.settings.properties.get(operation.parameter(0))
        return _answer(Reply.NO_SUCH_PROPERTY) if item is None else _answer(data=item.description())

    def _get_property(self, operation: Operation, _: bytes) -> Answer:
        self._refresh()
        item = self.settings.properties.get(operation.parameter(0))
        return (
            _answer(Reply.NO_SUCH_PROPERTY)
            if item is None
            else _answer(data=item.value_type.pack(item.value))
        )

    def _set_property(self, operation: Operation, data: bytes) -> Answer:
        code = operation.parameter(0)
        item = self.settings.properties.get(code)
        if item is None:
            return _answer(Reply.NO_SUCH_PROPERTY)
        value = item.value_type.unpack(data)
        if self._is_among(code, self.faults.refused):
            return _answer(Reply.BAD_VALUE)
        if self._is_among(code, self.faults.ignored):
            return _answer()
        if self._is_among(code, self.faults.rounded):
            value = item.neighbour(value)
        return _answer(Reply.OK if self.settings.write(code, value) else Reply.BAD_VALUE)

    @staticmethod
    def _is_among(code: int, names: tuple[str, ...]) -> bool:
        return any(code in prop.CODES_BY_SETTING[name] for name in names)

    def _refresh(self) -> None:
        """Bring the read-only properties up to date."""
        self.settings.properties[prop.MOVIE_PROHIBIT].value = self._movie_prohibit_bits()
        self.settings.properties[prop.LIVE_VIEW_STATUS].value = int(self._live_view)

    def _movie_prohibit_bits(self) -> int:
        state = self._recorder.state
        return (
            self.faults.movie_prohibit_bits
            | (_CARD_FULL if self._card.free_bytes < _MIN_FREE_BYTES else 0)
            | (_BUFFER_PENDING if state in {Shutter.WRITING, Shutter.EXPOSING} else 0)
            | (_RECORDING if state is Shutter.RECORDING else 0)
            | (0 if self.settings.value(prop.APPLICATION_MODE) else _WRONG_MODE)
        )

    def _get_events(self) -> Answer:
        waiting = [self._events.popleft() for _ in range(len(self._events))]
        body = b"".join(struct.pack("<HI", code, parameter) for code, parameter in waiting)
        return _answer(data=struct.pack("<H", len(waiting)) + body)

    def _act(self, *, busy_s: float = 0.0) -> Answer:
        self._busy_left = self.faults.busy_answers
        self._busy_until_s = self._clock.now() + busy_s
        return _answer()

    def _ready(self) -> Answer:
        if self._recorder.state is Shutter.EXPOSING or self._clock.now() < self._busy_until_s:
            return _answer(Reply.BUSY)
        if self._busy_left:
            self._busy_left -= 1
            return _answer(Reply.BUSY)
        if self._focus_stop_hit:
            self._focus_stop_hit = False
            return _answer(Reply.FOCUS_STOP)
        return _answer()

    def _switch_live_view(self, on: bool) -> Answer:
        self._live_view = on
        return self._act()

    def _live_view_frame(self) -> Answer:
        if not self._live_view:
            return _answer(Reply.NOT_IN_LIVE_VIEW)
        return _answer(data=_LIVE_VIEW_HEADER + self._backend.preview(self.settings.exposure()))

    def _drive_focus(self, operation: Operation, _: bytes) -> Answer:
        if not self._live_view:
            return _answer(Reply.NOT_IN_LIVE_VIEW)
        sign = 1 if operation.parameter(0) == _TOWARDS_NEAR else -1
        before = self.settings.focus_steps
        self._focus_stop_hit = not self.settings.drive_focus(sign * operation.parameter(1))
        return self._act(busy_s=abs(self.settings.focus_steps - before) / _FOCUS_STEPS_PER_S)

    def _capture(self, _: Operation, __: bytes) -> Answer:
        if self._card.free_bytes < _MIN_FREE_BYTES:
            return _answer(Reply.STORE_FULL)
        if self._recorder.state is not Shutter.IDLE:
            return _answer(Reply.BUSY)
        self._recorder.expose(self.settings.exposure())
        return self._act()

    def _announce(self, path: Path) -> None:
        item = self._card.add(path)
        for _ in range(2 if self.faults.announced_twice else 1):
            self._events.append((_OBJECT_ADDED, item.handle))
        self._events.append((_CAPTURE_COMPLETE, 0))

    def _start_movie(self) -> Answer:
        if not self._live_view:
            return _answer(Reply.NOT_IN_LIVE_VIEW)
        if self._movie_prohibit_bits():
            return _answer(Reply.INVALID_STATUS)
        self._recorder.start_movie(self.settings.exposure())
        return self._act()

    def _stop_movie(self) -> Answer:
        return self._act() if self._recorder.stop_movie() else _answer(Reply.INVALID_STATUS)


def _answer(
    code: Reply = Reply.OK, parameters: tuple[int, ...] = (), data: bytes | FileRange | None = None
) -> Answer:
    return code, parameters, data
