"""PTP/IP framing and PTP datasets, as the simulated camera speaks them (CIPA DC-005, ISO 15740).

Everything is little-endian. A packet is ``u32 length, u32 type`` and a payload.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

HEADER = struct.Struct("<II")
MAX_PACKET_BYTES = 1 << 20
_DATA_CHUNK = 1 << 18


class Packet(IntEnum):
    """Packet types."""

    INIT_COMMAND_REQUEST = 1
    INIT_COMMAND_ACK = 2
    INIT_EVENT_REQUEST = 3
    INIT_EVENT_ACK = 4
    INIT_FAIL = 5
    OPERATION_REQUEST = 6
    OPERATION_RESPONSE = 7
    EVENT = 8
    START_DATA = 9
    DATA = 10
    END_DATA = 12


class ValueType(IntEnum):
    """PTP data type codes of property values, with their `struct` format."""

    INT8 = 1
    UINT8 = 2
    UINT16 = 4
    UINT32 = 6
    STRING = 0xFFFF

    @property
    def format(self) -> str:
        """Format of one value for `struct`."""
        return {self.INT8: "<b", self.UINT8: "<B", self.UINT16: "<H", self.UINT32: "<I"}[self]

    def pack(self, value: int) -> bytes:
        """Code one value."""
        return struct.pack(self.format, value)

    def unpack(self, raw: bytes) -> int:
        """Read one value from the beginning of ``raw``."""
        return int(struct.unpack_from(self.format, raw)[0])


@dataclass(frozen=True)
class FileRange:
    """A stretch of a file to send; read while it is sent, so that a movie never lies in memory whole."""

    path: Path
    offset: int
    count: int

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True)
class Operation:
    """A request of the initiator."""

    code: int
    transaction: int
    parameters: tuple[int, ...]
    has_data_out: bool

    def parameter(self, index: int) -> int:
        """Return a parameter, 0 where it was left out."""
        return self.parameters[index] if index < len(self.parameters) else 0


class PacketSocket:
    """One TCP connection, packet by packet."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def receive(self) -> tuple[int, bytes]:
        """Return type and payload of the next packet; raises `EOFError` when the peer has left."""
        length, kind = HEADER.unpack(self._exactly(HEADER.size))
        if not HEADER.size <= length <= MAX_PACKET_BYTES:
            raise EOFError(f"packet of {length} bytes")
        return kind, self._exactly(length - HEADER.size)

    def send(self, kind: Packet, payload: bytes) -> None:
        """Send one packet."""
        self._socket.sendall(HEADER.pack(HEADER.size + len(payload), kind) + payload)

    def receive_operation(self) -> Operation:
        """Return the next operation request; other packets are not expected here and end the session."""
        kind, payload = self.receive()
        if kind != Packet.OPERATION_REQUEST:
            raise EOFError(f"packet of type {kind} instead of an operation")
        phase, code, transaction = struct.unpack_from("<IHI", payload)
        parameters = struct.unpack_from(f"<{(len(payload) - 10) // 4}I", payload, 10)
        return Operation(code, transaction, parameters, phase == 2)

    def receive_data(self) -> bytes:
        """Return the bytes of a data-out phase."""
        parts: list[bytes] = []
        while True:
            kind, payload = self.receive()
            if kind in {Packet.DATA, Packet.END_DATA}:
                parts.append(payload[4:])
            if kind == Packet.END_DATA:
                return b"".join(parts)

    def send_data(self, transaction: int, data: bytes | FileRange) -> None:
        """Send a data-in phase; a file range that ends too early ends the data phase early, too."""
        self.send(Packet.START_DATA, struct.pack("<IQ", transaction, len(data)))
        tid = struct.pack("<I", transaction)
        for chunk in _chunks(data):
            self.send(Packet.DATA, tid + chunk)
        self.send(Packet.END_DATA, tid)

    def send_response(self, operation: Operation, code: int, parameters: Sequence[int] = ()) -> None:
        """Answer an operation."""
        body = struct.pack(f"<HI{len(parameters)}I", code, operation.transaction, *parameters)
        self.send(Packet.OPERATION_RESPONSE, body)

    def close(self) -> None:
        """Close the connection; the peer sees its end."""
        with contextlib.suppress(OSError):  # the peer was faster
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _exactly(self, count: int) -> bytes:
        parts: list[bytes] = []
        while count:
            part = self._socket.recv(count)
            if not part:
                raise EOFError("the peer has left")
            # Without this the peer's Nagle algorithm and our delayed acknowledgement cost 44 ms a setting.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


def _chunks(data: bytes | FileRange) -> Iterator[bytes]:
    if isinstance(data, bytes):
        yield from (data[k : k + _DATA_CHUNK] for k in range(0, len(data), _DATA_CHUNK))
        return
    left = data.count
    with data.path.open("rb") as file:
        file.seek(data.offset)
        while left and (chunk := file.read(min(left, _DATA_CHUNK))):
            left -= len(chunk)
            yield chunk


def text(value: str) -> bytes:
    """Code a PTP string: count of UTF-16 units with its NUL, then the units."""
    if not value:
        return b"\0"
    return struct.pack("<B", len(value) + 1) + (value + "\0").encode("utf-16-le")


def array(values: Sequence[int], value_type: ValueType) -> bytes:
    """Code a PTP array: u32 count, then the values."""
    return struct.pack("<I", len(values)) + b"".join(value_type.pack(v) for v in values)
