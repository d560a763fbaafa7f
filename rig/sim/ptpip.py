"""A simulated Nikon body on PTP/IP, which the unmodified libgphoto2 drives as it drives a real one.

One initiator at a time: a second one is refused while the first is connected, and a new one may follow.
Pictures come from a `CameraBackend`; a movie is rendered after it was stopped, and announced when its file is
closed, while the body goes on answering.
"""

from __future__ import annotations

import random
import socket
import struct
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pydantic import Field

from catalog.session_folder import ExposureSettings
from catalog.yaml_document import Document
from rig.clock import SessionClock
from rig.profile import SimulationSpec
from rig.sim import ptp_settings as prop
from rig.sim.ptp_card import STORAGE_ID, Card
from rig.sim.ptp_packets import Operation, Packet, PacketSocket, ValueType, array, text

_OK, _ERROR, _UNSUPPORTED, _NO_OBJECT, _NO_PROPERTY = 0x2001, 0x2002, 0x2005, 0x2009, 0x200A
_STORE_FULL, _BUSY, _BAD_VALUE, _SESSION_OPEN = 0x200C, 0x2019, 0x201C, 0x201E
_NOT_LIVE_VIEW, _FOCUS_STOP = 0xA00B, 0xA00C
_OBJECT_ADDED, _CAPTURE_COMPLETE = 0x4002, 0x400D
_NIKON, _JPEG, _MOV = 0x0A, 0x3801, 0x300D
_PROHIBIT_CARD_FULL, _PROHIBIT_RECORDING = 1 << 3, 1 << 10
_MIN_FREE_BYTES = 50_000_000
_LIVE_VIEW_HEADER = b"\0" * 128
_TOWARDS_NEAR = 1

Answer = tuple[int, tuple[int, ...], bytes | None]
"""Response code, response parameters, data of a data-in phase."""


class CameraBackend(Protocol):
    """Makes the pictures of the simulated camera."""

    def preview(self, settings: ExposureSettings) -> bytes:
        """Return a live-view frame as JPEG."""

    def still(self, settings: ExposureSettings) -> bytes:
        """Return a picture as a JPEG file."""

    def movie(self, settings: ExposureSettings, t_start_s: float, t_stop_s: float) -> Path:
        """Return a finished movie file of what happened between two past session times."""


class CameraFaults(Document):
    """What goes wrong with the body."""

    refused_properties: tuple[int, ...] = ()
    """Property codes that refuse every value."""
    ignored_properties: tuple[int, ...] = ()
    """Property codes that accept a value and keep their own."""
    movie_never_starts: bool = False
    movie_ends_after_s: float | None = None
    """The movie ends by itself, as after heat or a slow card."""
    busy_answers: int = Field(default=0, ge=0)
    """So many times in a row the body is busy after an action."""
    announced_twice: bool = False
    """Every new file is announced twice."""
    card_bytes: int = 64_000_000_000


class PtpIpCamera:
    """A camera body listening on loopback.

    Args:
        backend: Makes its pictures.
        clock: The session clock; movies start and end on it.
        spec: Start delay of movies, and the seed it is drawn with.
        serial: Serial number the body reports.
        faults: What goes wrong.

    Attributes:
        address: Port description for libgphoto2.
    """

    def __init__(
        self,
        backend: CameraBackend,
        clock: SessionClock,
        spec: SimulationSpec,
        *,
        serial: str = "SIM0001",
        faults: CameraFaults | None = None,
    ) -> None:
        self.body = NikonBody(backend, clock, spec, serial=serial, faults=faults or CameraFaults())
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.address = f"ptpip:127.0.0.1:{port}:{port}"
        self._connections: list[PacketSocket] = []
        self._thread = threading.Thread(target=self._listen, name="ptpip", daemon=True)
        self._thread.start()

    def vanish(self) -> None:
        """Drop every connection and listen no more, as an unplugged cable does."""
        self._listener.close()
        for connection in self._connections:
            connection.close()

    def close(self) -> None:
        """Switch the body off. Safe to call twice."""
        self.vanish()
        self.body.close()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            packets = PacketSocket(connection)
            self._connections.append(packets)
            threading.Thread(target=self._attend, args=(packets,), daemon=True).start()

    def _attend(self, packets: PacketSocket) -> None:
        try:
            kind, _ = packets.receive()
            if kind == Packet.INIT_EVENT_REQUEST:
                packets.send(Packet.INIT_EVENT_ACK, b"")
                packets.receive()  # nothing comes: events are polled; this waits for the peer to leave
            elif kind == Packet.INIT_COMMAND_REQUEST:
                name = "simulated camera\0".encode("utf-16-le")
                packets.send(
                    Packet.INIT_COMMAND_ACK, struct.pack("<I16s", 1, b"cleanplate twin!") + name + b"\0\0\1\0"
                )
                self._serve(packets)
        except (EOFError, OSError, struct.error):
            pass  # a peer that leaves or talks nonsense ends its own connection and nothing else
        finally:
            self._connections.remove(packets)
            packets.close()

    def _serve(self, packets: PacketSocket) -> None:
        while True:
            operation = packets.receive_operation()
            data_out = packets.receive_data() if operation.has_data_out else b""
            code, parameters, data_in = self.body.answer(operation, data_out)
            if data_in is not None:
                packets.send_data(operation.transaction, data_in)
            packets.send_response(operation, code, parameters)


class NikonBody:
    """The body behind the port: what each operation does. One operation at a time."""

    def __init__(
        self,
        backend: CameraBackend,
        clock: SessionClock,
        spec: SimulationSpec,
        *,
        serial: str,
        faults: CameraFaults,
    ) -> None:
        self._backend, self._clock, self._spec, self._serial = backend, clock, spec, serial
        self.faults = faults
        self._folder = tempfile.TemporaryDirectory(prefix="cleanplate-stills-")
        self._card = Card(capacity_bytes=faults.card_bytes)
        self.settings = prop.BodySettings()
        self._delays = random.Random(spec.seed)  # noqa: S311  - physics, not secrets
        self._events: deque[tuple[int, int]] = deque()
        self._recording_since_s: float | None = None
        self._live_view = False
        self._focus_stop_hit = False
        self._busy_left = 0
        self._stills = 0
        self.thaw = threading.Event()
        """Cleared, the body answers nothing any more, as firmware that hangs."""
        self.thaw.set()
        self._operations = self._table()

    def close(self) -> None:
        """Let go of the body's own files."""
        self._folder.cleanup()

    def answer(self, operation: Operation, data_out: bytes) -> Answer:
        """Carry out one operation."""
        self.thaw.wait()
        action = self._operations.get(operation.code)
        return _answer(_UNSUPPORTED) if action is None else action(operation, data_out)

    def _table(self) -> dict[int, Callable[[Operation, bytes], Answer]]:
        return {
            0x1001: lambda _op, _: _answer(_OK, data=self._device_info()),
            0x1002: lambda _op, _: _answer(_OK),  # open session
            0x1003: lambda _op, _: _answer(_OK),  # close session
            0x1004: lambda _op, _: _answer(_OK, data=array([STORAGE_ID], ValueType.UINT32)),
            0x1005: lambda _op, _: _answer(_OK, data=self._card.storage_info()),
            0x1006: lambda op, _: _answer(_OK, (len(self._card.handles(op.parameter(2))),)),
            0x1007: lambda op, _: _answer(
                _OK, data=array(self._card.handles(op.parameter(2)), ValueType.UINT32)
            ),
            0x1008: self._get_object_info,
            0x1009: lambda op, _: self._get_bytes(op.parameter(0), 0, 0xFFFFFFFF),
            0x100A: lambda _op, _: _answer(0x2010),  # no thumbnail
            0x100B: lambda op, _: _answer(_OK if self._card.delete(op.parameter(0)) else _NO_OBJECT),
            0x100E: self._capture,
            0x1014: self._describe_property,
            0x1015: self._get_property,
            0x1016: self._set_property,
            0x101B: lambda op, _: self._get_bytes(op.parameter(0), op.parameter(1), op.parameter(2)),
            0x90C0: self._capture,
            0x90C1: lambda _op, _: self._act(),  # autofocus: this lens has none to drive
            0x90C2: lambda _op, _: _answer(_OK),  # control mode
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
        u16 = ValueType.UINT16
        return (
            struct.pack("<HIH", 100, _NIKON, 100)
            + text("simulated body")
            + struct.pack("<H", 0)
            + array(sorted(self._operations), u16)
            + array([_OBJECT_ADDED, 0x4006, _CAPTURE_COMPLETE], u16)
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
        return _answer(_NO_OBJECT) if info is None else _answer(_OK, data=info)

    def _get_bytes(self, handle: int, offset: int, count: int) -> Answer:
        item = self._card.file(handle)
        if item is None:
            return _answer(_NO_OBJECT)
        with item.path.open("rb") as file:
            file.seek(offset)
            data = file.read(min(count, item.size_bytes))
        return _answer(_OK, (len(data),), data)

    def _describe_property(self, operation: Operation, _: bytes) -> Answer:
        self._refresh()
        item = self.settings.properties.get(operation.parameter(0))
        return _answer(_NO_PROPERTY) if item is None else _answer(_OK, data=item.description())

    def _get_property(self, operation: Operation, _: bytes) -> Answer:
        self._refresh()
        item = self.settings.properties.get(operation.parameter(0))
        return _answer(_NO_PROPERTY) if item is None else _answer(_OK, data=item.value_type.pack(item.value))

    def _set_property(self, operation: Operation, data: bytes) -> Answer:
        code = operation.parameter(0)
        item = self.settings.properties.get(code)
        if item is None:
            return _answer(_NO_PROPERTY)
        if code in self.faults.refused_properties:
            return _answer(_BAD_VALUE)
        if code in self.faults.ignored_properties:
            return _answer(_OK)
        return _answer(_OK if self.settings.write(code, item.value_type.unpack(data)) else _BAD_VALUE)

    def _refresh(self) -> None:
        """Bring the read-only properties up to date."""
        full = _PROHIBIT_CARD_FULL if self._card.free_bytes < _MIN_FREE_BYTES else 0
        recording = _PROHIBIT_RECORDING if self._recording_since_s is not None else 0
        self.settings.properties[prop.MOVIE_PROHIBIT].value = full | recording
        self.settings.properties[prop.LIVE_VIEW_STATUS].value = int(self._live_view)

    def _get_events(self) -> Answer:
        waiting = [self._events.popleft() for _ in range(len(self._events))]
        body = b"".join(struct.pack("<HI", code, parameter) for code, parameter in waiting)
        return _answer(_OK, data=struct.pack("<H", len(waiting)) + body)

    def _act(self) -> Answer:
        self._busy_left = self.faults.busy_answers
        return _answer(_OK)

    def _ready(self) -> Answer:
        if self._busy_left:
            self._busy_left -= 1
            return _answer(_BUSY)
        if self._focus_stop_hit:
            self._focus_stop_hit = False
            return _answer(_FOCUS_STOP)
        return _answer(_OK)

    def _switch_live_view(self, on: bool) -> Answer:
        self._live_view = on
        return self._act()

    def _live_view_frame(self) -> Answer:
        if not self._live_view:
            return _answer(_NOT_LIVE_VIEW)
        return _answer(_OK, data=_LIVE_VIEW_HEADER + self._backend.preview(self.settings.exposure()))

    def _drive_focus(self, operation: Operation, _: bytes) -> Answer:
        if not self._live_view:
            return _answer(_NOT_LIVE_VIEW)
        sign = 1 if operation.parameter(0) == _TOWARDS_NEAR else -1
        self._focus_stop_hit = not self.settings.drive_focus(sign * operation.parameter(1))
        return self._act()

    def _capture(self, _: Operation, __: bytes) -> Answer:
        if self._card.free_bytes < _MIN_FREE_BYTES:
            return _answer(_STORE_FULL)
        settings = self.settings.exposure()
        self._clock.sleep(settings.exposure_s or 0.0)
        self._stills += 1
        path = Path(self._folder.name) / f"still-{self._stills:06d}.jpg"
        path.write_bytes(self._backend.still(settings))
        self._announce(path)
        self._events.append((_CAPTURE_COMPLETE, 0))
        return self._act()

    def _announce(self, path: Path) -> None:
        item = self._card.add(path)
        for _ in range(2 if self.faults.announced_twice else 1):
            self._events.append((_OBJECT_ADDED, item.handle))

    def _start_movie(self) -> Answer:
        self._refresh()
        if self.settings.value(prop.MOVIE_PROHIBIT):
            return _answer(_ERROR)
        if not self.faults.movie_never_starts:
            self._recording_since_s = self._clock.now() + self._delays.uniform(*self._spec.start_delay_s)
        return self._act()

    def _stop_movie(self) -> Answer:
        start_s, self._recording_since_s = self._recording_since_s, None
        if start_s is None:
            return _answer(_OK if self.faults.movie_never_starts else _ERROR)
        stop_s = self._clock.now()
        if self.faults.movie_ends_after_s is not None:
            stop_s = min(stop_s, start_s + self.faults.movie_ends_after_s)
        settings = self.settings.exposure()
        threading.Thread(target=self._finish_movie, args=(settings, start_s, stop_s), daemon=True).start()
        return self._act()

    def _finish_movie(self, settings: ExposureSettings, start_s: float, stop_s: float) -> None:
        self._announce(self._backend.movie(settings, start_s, stop_s))


def _answer(code: int, parameters: tuple[int, ...] = (), data: bytes | None = None) -> Answer:
    return code, parameters, data
