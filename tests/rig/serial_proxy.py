"""A line between driver and controller that spoils what the controller says: in memory, or between two ports."""

from __future__ import annotations

import heapq
import itertools
import os
import random
import select
import threading
import tty
from collections import Counter, deque
from collections.abc import Callable
from typing import Self

from motion_judge import MotionJudge, Situation

from rig.devices.wire import LineAssembler
from rig.sim.grbl import GrblController
from rig.testing import FakeClock

BABBLE_BYTES = 1_000_000
LONGEST_DELAY_S = 1.5


class LineFuzzer:
    """Spoils a share of lines, each in one of twelve ways.

    Args:
        seed: Everything random follows from it.
        share: Of the lines, in [0, 1].
    """

    def __init__(self, seed: int, *, share: float = 0.2) -> None:
        self.share = share
        self.lines = 0
        self.spoiled: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._history: deque[bytes] = deque(maxlen=200)
        self._said = b"?"
        self._kinds: dict[str, Callable[[bytes], list[tuple[float, bytes]]]] = {
            "flip": self._flip,
            "drop": lambda _: [],
            "duplicate": lambda line: [(0.0, line), (self._random.choice((0.0, 0.3)), line)],
            "delay": lambda line: [(self._random.uniform(0.0, LONGEST_DELAY_S), line)],
            "split": self._split,
            "merge": lambda line: [(0.0, line.rstrip(b"\r\n"))],
            "truncate": lambda line: [(0.0, line[: self._random.randrange(len(line))] + b"\r\n")],
            "nul": self._nul,
            "overlong": self._overlong,
            "encoding": lambda line: [(0.0, line.decode("latin-1").encode("utf-16"))],
            "echo": lambda line: [(0.0, self._said + line)],
            "stale": lambda line: [(0.0, self._random.choice(self._history)), (0.0, line)],
        }

    def hear(self, data: bytes) -> None:
        """Remember what the host said, for echoes."""
        self._said = data

    def spoil(self, line: bytes) -> list[tuple[float, bytes]]:
        """Return what becomes of a line: delays in s, and bytes."""
        self.lines += 1
        self._history.append(line)
        if self._random.random() >= self.share:
            return [(0.0, line)]
        kind = self._random.choice(list(self._kinds))
        self.spoiled[kind] += 1
        return self._kinds[kind](line)

    def _flip(self, line: bytes) -> list[tuple[float, bytes]]:
        out = bytearray(line)
        for _ in range(self._random.choice((1, 1, 2, 4))):
            out[self._random.randrange(len(out))] ^= 1 << self._random.randrange(8)
        return [(0.0, bytes(out))]

    def _split(self, line: bytes) -> list[tuple[float, bytes]]:
        at = self._random.randrange(len(line))
        return [
            (0.0, line[:at]),
            (self._random.choice((0.0, 0.2)), self._random.choice((b"", b"\n")) + line[at:]),
        ]

    def _nul(self, line: bytes) -> list[tuple[float, bytes]]:
        at = self._random.randrange(len(line))
        return [(0.0, line[:at] + b"\0" * self._random.randint(1, 5) + line[at:])]

    def _overlong(self, line: bytes) -> list[tuple[float, bytes]]:
        """Noise without a line end: some, or a million bytes now and then; the line follows in it."""
        length = BABBLE_BYTES if self._random.random() < 0.05 else self._random.randint(500, 5000)
        return [(0.0, self._random.randbytes(64).replace(b"\n", b"n") * (length // 64) + line)]


class FuzzedWire:
    """A wire straight into a controller; time passes only while the driver waits, answers are spoiled.

    Everything that reaches the controller is judged on the way.
    """

    name = "fuzzed"

    def __init__(
        self, controller: GrblController, clock: FakeClock, fuzzer: LineFuzzer, judge: MotionJudge
    ) -> None:
        self.controller = controller
        self.fuzzer = fuzzer
        self.judge = judge
        self.active = False
        self.largest_buffer = 0
        self._clock = clock
        self._lines = LineAssembler()
        self._from_controller = bytearray()
        self._due: list[tuple[float, int, bytes]] = []
        self._order = itertools.count()

    @property
    def discarded_bytes(self) -> int:
        return self._lines.discarded_bytes

    def write_line(self, line: str) -> None:
        self.write_realtime(f"{line}\n".encode())

    def write_realtime(self, data: bytes) -> None:
        self.fuzzer.hear(data)
        self.judge.hear(data, self.situation())
        self.controller.receive(data, self._clock.now())

    def situation(self) -> Situation:
        """What the controller believes; its target is legal when its own position is."""
        self.controller.advance(self._clock.now())
        return Situation(self.controller._machine.machine_mm()[0], homed=True)

    def read_line(self, *, timeout_s: float) -> str | None:
        deadline_s = self._clock.now() + timeout_s
        while True:
            self._receive()
            line = self._lines.take()
            if line:
                return line
            if line is not None:
                continue
            if self._clock.now() >= deadline_s:
                return None
            due_s = self._due[0][0] if self._due else deadline_s
            until_s = min(self.controller.next_event_s, deadline_s, due_s)
            self._clock.advance(max(until_s - self._clock.now(), 1e-9))

    def flush(self) -> None:
        self._lines.clear()

    def close(self) -> None:
        pass

    def _receive(self) -> None:
        now_s = self._clock.now()
        self._from_controller += self.controller.transmit(now_s)
        *ends, rest = self._from_controller.split(b"\n")
        self._from_controller = bytearray(rest)
        for end in ends:
            line = bytes(end) + b"\n"
            for delay_s, data in self.fuzzer.spoil(line) if self.active else [(0.0, line)]:
                heapq.heappush(self._due, (now_s + delay_s, next(self._order), data))
        while self._due and self._due[0][0] <= now_s:
            self._lines.add(heapq.heappop(self._due)[2])
            self.largest_buffer = max(self.largest_buffer, len(self._lines._open))


class SerialProxy:
    """A pseudo-terminal in front of another port: spoils what comes back, judges what goes there.

    Args:
        port: The controller's port.
        fuzzer: Spoils its lines while `active`.
        judge: Hears what the client sends.
    """

    def __init__(self, port: str, fuzzer: LineFuzzer, judge: MotionJudge) -> None:
        self.fuzzer = fuzzer
        self.judge = judge
        self.active = False
        self._master, self._slave = os.openpty()
        self.path = os.ttyname(self._slave)
        tty.setraw(self._slave)
        self._port = os.open(port, os.O_RDWR | os.O_NOCTTY)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="serial-proxy", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        for descriptor in (self._master, self._slave, self._port):
            os.close(descriptor)

    def _serve(self) -> None:
        line = b""
        while not self._closing.is_set():
            readable, _, _ = select.select([self._master, self._port], [], [], 0.02)
            if self._master in readable:
                data = os.read(self._master, 4096)
                self.fuzzer.hear(data)
                self.judge.hear(data, Situation(0.0, homed=True))
                os.write(self._port, data)
            if self._port in readable:
                *ends, line = (line + os.read(self._port, 4096)).split(b"\n")
                for end in ends:
                    self._answer(end + b"\n")

    def _answer(self, line: bytes) -> None:
        for delay_s, data in self.fuzzer.spoil(line) if self.active else [(0.0, line)]:
            self._closing.wait(min(delay_s, 0.3))
            for begin in range(0, len(data), 2048):
                os.write(self._master, data[begin : begin + 2048])
