"""The simulated controller's serial side: pace of the bytes, small buffers, faults of outgoing lines."""

from __future__ import annotations

import random
from collections import deque

from rig.sim.grbl_faults import RailFaults, ReplyFault

RX_REPORTED = 128
TX_CAPACITY = 104
BYTE_S = 87e-6
"""Ten bits at 115200 baud."""
_NOISE_BYTES = 12
_OVERLONG_BYTES = 65_536
_REPORT_FAULTS = frozenset({"drop_report", "tear_report", "merge_report"})


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
        self._faults = RailFaults()
        self._oks = self._reports = self._bytes = 0

    @property
    def next_arrival_s(self) -> float:
        """When the next byte is complete."""
        return self._arriving[0][0] if self._arriving else float("inf")

    @property
    def next_departure_s(self) -> float:
        """When the next outgoing line is complete."""
        return self._outgoing[0][0] if self._outgoing else float("inf")

    @property
    def backlog(self) -> int:
        """Bytes that the host wrote and that have not arrived yet."""
        return len(self._arriving)

    @property
    def writable_s(self) -> float:
        """When the transmit buffer has room again; the firmware stands still until then."""
        return self._line_free_s - TX_CAPACITY * BYTE_S

    def set_faults(self, faults: RailFaults) -> None:
        """Start counting lines and bytes for these faults."""
        self._faults, self._oks, self._reports, self._bytes = faults, 0, 0, 0

    def accept(self, data: bytes, t_s: float) -> None:
        """Take bytes that the host wrote at ``t_s``."""
        last_s = self._arriving[-1][0] if self._arriving else 0.0
        for byte in data:
            last_s = max(last_s, t_s) + BYTE_S
            self._arriving.append((last_s, byte))

    def next_byte(self) -> int | None:
        """Take the byte that arrives next; None when it was lost on the way."""
        byte = self._arriving.popleft()[1]
        self._bytes += 1
        lost = self._faults.lose_every and self._bytes % self._faults.lose_every == 0
        return None if lost else byte

    def echo(self, byte: int, t_s: float) -> None:
        """Send a byte back if the line echoes."""
        if self._faults.echo:
            self._depart(bytes([byte]), t_s, later_s=self._faults.answer_delay_s)

    def buffer(self, byte: int) -> None:
        """Put a byte into the receive buffer."""
        if len(self.received) < self._faults.rx_bytes:
            self.received.append(byte)
        else:
            self.lost_bytes += 1

    def forget(self) -> None:
        """Lose everything that is under way, as a reboot does."""
        self.received.clear()
        self._outgoing.clear()
        self._line_free_s = 0.0

    def send(self, line: str, t_s: float) -> None:
        """Queue a line, its end added."""
        data = f"{line}\r\n".encode("latin-1", "replace")
        later_s = self._faults.answer_delay_s
        if line == "ok":
            self._oks += 1
            for fault in self._due(self._oks, reports=False):
                data, later_s = self._spoil_ok(fault, data), later_s + fault.delay_s
        elif line.startswith("<"):
            self._reports += 1
            for fault in self._due(self._reports, reports=True):
                data = _spoil_report(fault, data)
        self._depart(data, t_s, later_s=later_s)

    def take(self, t_s: float) -> bytes:
        """Return what has been sent by ``t_s``."""
        out = bytearray()
        while self._outgoing and self._outgoing[0][0] <= t_s:
            out += self._outgoing.popleft()[1]
        return bytes(out)

    def _depart(self, data: bytes, t_s: float, *, later_s: float) -> None:
        """Send at the line's pace; a delay on the way holds up what follows, but not the firmware."""
        if data:
            self._line_free_s = max(self._line_free_s, t_s) + BYTE_S * len(data)
            before_s = self._outgoing[-1][0] if self._outgoing else 0.0
            self._outgoing.append((max(self._line_free_s + later_s, before_s), data))

    def _due(self, count: int, *, reports: bool) -> list[ReplyFault]:
        return [f for f in self._faults.replies if (f.kind in _REPORT_FAULTS) is reports and f.strikes(count)]

    def _spoil_ok(self, fault: ReplyFault, data: bytes) -> bytes:
        spoiled = {
            "drop_ok": b"",
            "duplicate_ok": data + data,
            "merge_ok": data.removesuffix(b"\r\n"),
            "nul": bytes(_NOISE_BYTES) + data,
        }
        if fault.kind == "garbage":
            return self._random.randbytes(_NOISE_BYTES).replace(b"\n", b"?") + b"\r\n" + data
        if fault.kind == "overlong":
            return b"x" * _OVERLONG_BYTES + b"\r\n" + data
        return spoiled.get(fault.kind, data)


def _spoil_report(fault: ReplyFault, data: bytes) -> bytes:
    if fault.kind == "drop_report":
        return b""
    if fault.kind == "merge_report":
        return data.removesuffix(b"\r\n")
    return data[:10] + data[14:]
