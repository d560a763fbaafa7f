"""The simulated controller's serial side: pace of the bytes, a small receive buffer, faults of outgoing lines."""

from __future__ import annotations

import random
from collections import deque

from rig.sim.grbl_faults import ReplyFault

RX_CAPACITY = 127
RX_REPORTED = 128
BYTE_S = 87e-6
"""Ten bits at 115200 baud."""


class Uart:
    """Bytes in and out, each with its time.

    Args:
        seed: Decides the garbage.
    """

    def __init__(self, seed: int = 1) -> None:
        self.received: deque[int] = deque()
        """The receive buffer; what does not fit is lost."""
        self.lost_bytes = 0
        self._arriving: deque[tuple[float, int]] = deque()
        self._outgoing: deque[tuple[float, bytes]] = deque()
        self._line_free_s = 0.0
        self._random = random.Random(seed)  # noqa: S311  # noise, not a secret
        self._faults: tuple[ReplyFault, ...] = ()
        self._oks = self._reports = 0

    @property
    def next_arrival_s(self) -> float:
        """When the next byte is complete."""
        return self._arriving[0][0] if self._arriving else float("inf")

    @property
    def next_departure_s(self) -> float:
        """When the next outgoing line is complete."""
        return self._outgoing[0][0] if self._outgoing else float("inf")

    def set_faults(self, faults: tuple[ReplyFault, ...]) -> None:
        """Start counting lines for these faults."""
        self._faults, self._oks, self._reports = faults, 0, 0

    def accept(self, data: bytes, t_s: float) -> None:
        """Take bytes that the host wrote at ``t_s``."""
        last_s = self._arriving[-1][0] if self._arriving else 0.0
        for byte in data:
            last_s = max(last_s, t_s) + BYTE_S
            self._arriving.append((last_s, byte))

    def next_byte(self) -> int:
        """Take the byte that arrives next."""
        return self._arriving.popleft()[1]

    def buffer(self, byte: int) -> None:
        """Put a byte into the receive buffer."""
        if len(self.received) < RX_CAPACITY:
            self.received.append(byte)
        else:
            self.lost_bytes += 1

    def forget(self) -> None:
        """Lose everything that is under way, as a reboot does."""
        self.received.clear()
        self._outgoing.clear()

    def send(self, line: str, t_s: float) -> None:
        """Queue a line, its end added."""
        data = f"{line}\r\n".encode("ascii")
        if line == "ok":
            self._oks += 1
            data, t_s = self._spoil_ok(data, t_s)
        elif line.startswith("<"):
            self._reports += 1
            data = self._spoil_report(data)
        if data:
            self._line_free_s = max(self._line_free_s, t_s) + BYTE_S * len(data)
            self._outgoing.append((self._line_free_s, data))

    def take(self, t_s: float) -> bytes:
        """Return what has been sent by ``t_s``."""
        out = bytearray()
        while self._outgoing and self._outgoing[0][0] <= t_s:
            out += self._outgoing.popleft()[1]
        return bytes(out)

    def _spoil_ok(self, data: bytes, t_s: float) -> tuple[bytes, float]:
        for fault in self._faults:
            if fault.nth != self._oks:
                continue
            if fault.kind == "drop_ok":
                return b"", t_s
            if fault.kind == "duplicate_ok":
                return data + data, t_s
            if fault.kind == "delay_ok":
                return data, t_s + fault.delay_s
            if fault.kind == "garbage":
                return self._random.randbytes(12).replace(b"\n", b"?") + b"\r\n" + data, t_s
        return data, t_s

    def _spoil_report(self, data: bytes) -> bytes:
        for fault in self._faults:
            if fault.nth == self._reports and fault.kind == "tear_report":
                return data[:10] + data[14:]
            if fault.nth == self._reports and fault.kind == "merge_report":
                return data.removesuffix(b"\r\n")
        return data
