"""The simulated body byte by byte: what a client of its own making sees on the wire."""

from __future__ import annotations

import itertools
import math
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from small_camera import small_body

from rig.sim import ptp_settings as prop
from rig.sim.ptpip import PtpIpCamera

OK, UNSUPPORTED, NO_OBJECT, BUSY, BAD_VALUE, NOT_LIVE_VIEW = 0x2001, 0x2005, 0x2009, 0x2019, 0x201C, 0xA00B


@dataclass
class Client:
    """A PTP/IP initiator in the fewest lines."""

    connection: socket.socket
    transaction: int = 0

    def send(self, kind: int, payload: bytes) -> None:
        self.connection.sendall(struct.pack("<II", 8 + len(payload), kind) + payload)

    def receive(self) -> tuple[int, bytes]:
        length, kind = struct.unpack("<II", self._exactly(8))
        return kind, self._exactly(length - 8)

    def ask(self, code: int, *parameters: int, data: bytes | None = None) -> tuple[int, bytes]:
        """Do one operation; returns response code and data."""
        self.transaction += 1
        phase = 1 if data is None else 2
        head = struct.pack("<IHI", phase, code, self.transaction)
        self.send(6, head + struct.pack(f"<{len(parameters)}I", *parameters))
        if data is not None:
            self.send(9, struct.pack("<IQ", self.transaction, len(data)))
            self.send(12, struct.pack("<I", self.transaction) + data)
        received = b""
        while (packet := self.receive())[0] != 7:
            received += packet[1][4:] if packet[0] in {10, 12} else b""
        response, transaction = struct.unpack_from("<HI", packet[1])
        assert transaction == self.transaction
        return response, received

    def set(self, code: int, value: int, form: str) -> int:
        return self.ask(0x1016, code, data=struct.pack(form, value))[0]

    def get(self, code: int, form: str) -> int:
        return int(struct.unpack(form, self.ask(0x1015, code)[1])[0])

    def events(self) -> list[tuple[int, int]]:
        body = self.ask(0x90C7)[1]
        return [struct.unpack_from("<HI", body, 2 + 6 * k) for k in range(struct.unpack_from("<H", body)[0])]

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.connection.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data


@contextmanager
def client(body: PtpIpCamera) -> Iterator[Client]:
    host, port = body.address.split(":")[1:3]
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        yield Client(connection)


@contextmanager
def session(body: PtpIpCamera) -> Iterator[Client]:
    with client(body) as c:
        c.send(1, b"0123456789abcdef" + "test\0".encode("utf-16-le") + b"\0\0\1\0")
        assert c.receive()[0] == 2
        assert c.ask(0x1002, 1)[0] == OK
        yield c


def await_files(c: Client, count: int) -> list[int]:
    """Poll events until so many files were announced; returns their handles."""
    handles: list[int] = []
    deadline_s = time.monotonic() + 10
    while len(handles) < count and time.monotonic() < deadline_s:
        handles += [parameter for code, parameter in c.events() if code == 0x4002]
    return handles


def record(c: Client, body_clock_sleep: float) -> int:
    """Record a movie; returns the handle of its file."""
    c.set(prop.APPLICATION_MODE, 1, "<B")
    assert c.ask(0x9201)[0] == OK
    assert c.ask(0x920A)[0] == OK
    time.sleep(body_clock_sleep)
    assert c.ask(0x920B)[0] == OK
    return await_files(c, 1)[0]


def test_a_second_initiator_is_refused_while_the_first_is_connected(tmp_path: Path):
    with small_body(tmp_path) as (body, _, _clock), session(body) as first:
        with client(body) as second:
            second.send(1, b"0123456789abcdef" + b"\0\0" + b"\0\0\1\0")

            assert second.receive() == (5, struct.pack("<I", 2))

        assert first.ask(0x1004)[0] == OK


def test_a_new_initiator_is_admitted_after_the_old_one_left(tmp_path: Path):
    with small_body(tmp_path) as (body, _, _clock):
        for _ in range(3):
            with session(body) as c:
                assert c.ask(0x1001)[0] == OK


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("<II", 3, 1),  # shorter than its own header
        struct.pack("<II", 0xFFFFFFF0, 1),  # 4 GB announced
        struct.pack("<II", 8, 99),  # no such packet
    ],
)
def test_nonsense_ends_only_its_own_connection(tmp_path: Path, nonsense: bytes):
    with small_body(tmp_path) as (body, _, _clock):
        with client(body) as c:
            c.connection.sendall(nonsense)
            with pytest.raises((EOFError, ConnectionError)):
                c.receive()

        with session(body) as c:
            assert c.ask(0x1004)[0] == OK


def test_an_operation_it_does_not_know_is_answered(tmp_path: Path):
    with small_body(tmp_path) as (body, _, _clock), session(body) as c:
        assert c.ask(0x9999)[0] == UNSUPPORTED
        assert c.ask(0x1009, 4711)[0] == NO_OBJECT


def test_the_exposure_time_is_a_fraction_below_a_ten_thousandth(tmp_path: Path):
    """1/12500 s does not fit the standard property's 0.1 ms; both show the same setting."""
    with small_body(tmp_path) as (body, _, _clock), session(body) as c:
        assert c.set(prop.FINE_EXPOSURE_TIME, 1 << 16 | 12500, "<I") == OK

        assert c.get(prop.FINE_EXPOSURE_TIME, "<I") == 1 << 16 | 12500
        assert c.get(prop.EXPOSURE_TIME, "<I") == 1
        assert body.body.settings.exposure().exposure_s == 8e-5


def test_the_standard_exposure_time_moves_the_fine_one(tmp_path: Path):
    """80 is 8 ms, 1/125 s."""
    with small_body(tmp_path) as (body, _, _clock), session(body) as c:
        assert c.set(prop.EXPOSURE_TIME, 80, "<I") == OK

        assert c.get(prop.FINE_EXPOSURE_TIME, "<I") == 1 << 16 | 125


def test_marked_values_are_a_third_of_a_stop_apart():
    """Marked values are rounded: 1/13 to 1/15 is a fifth of a stop, 1/15 to 1/20 more than two fifths."""
    for name, octave in (("iso", 1), ("f_number", 2), ("exposure_s", 1)):
        code = prop.CODES_BY_SETTING[name][-1]
        values = [float(v) for v in prop.BodySettings().properties[code].choices]
        if name == "exposure_s":
            values = [(int(v) >> 16) / (int(v) & 0xFFFF) for v in values if v != prop.BULB]
        steps = [abs(octave * math.log2(b / a)) for a, b in itertools.pairwise(values)]
        assert all(1 / 3 - 0.15 < s < 1 / 3 + 0.15 for s in steps), name


def test_a_value_that_is_no_choice_is_refused_and_the_old_one_stays(tmp_path: Path):
    with small_body(tmp_path) as (body, _, _clock), session(body) as c:
        assert c.set(prop.ISO, 123, "<H") == BAD_VALUE
        assert c.set(prop.BATTERY, 100, "<B") == BAD_VALUE

        assert c.get(prop.ISO, "<H") == 100


def test_the_card_counts_its_bytes(tmp_path: Path):
    """StorageInfo: three u16, then capacity and free space as u64."""
    with small_body(tmp_path, card_bytes=1_000_000_000) as (body, _, _clock), session(body) as c:
        handle = record(c, 0.2)
        size = struct.unpack_from("<I", c.ask(0x1008, handle)[1], 8)[0]

        capacity, free = struct.unpack_from("<QQ", c.ask(0x1005)[1], 6)

        assert (capacity, free) == (1_000_000_000, 1_000_000_000 - size)
        assert c.ask(0x100B, handle)[0] == OK
        assert struct.unpack_from("<QQ", c.ask(0x1005)[1], 6)[1] == capacity


def test_parts_of_a_file_are_the_files_bytes(tmp_path: Path):
    with small_body(tmp_path) as (body, _, _clock), session(body) as c:
        handle = record(c, 0.2)
        whole = c.ask(0x1009, handle)[1]

        assert whole == next(tmp_path.glob("rendered-*.mov")).read_bytes()
        assert c.ask(0x101B, handle, 10, 100)[1] == whole[10:110]
        assert c.ask(0x101B, handle, len(whole) - 5, 100)[1] == whole[-5:]
        assert c.ask(0x101B, handle, len(whole) + 5, 100)[1] == b""


def test_a_file_is_announced_once(tmp_path: Path):
    with small_body(tmp_path) as (body, _, _clock), session(body) as c:
        record(c, 0.2)

        assert c.events() == []


def test_the_body_answers_while_it_renders_and_says_that_it_writes(tmp_path: Path):
    """Bit 10 is recording, bit 9 a buffer that is not written yet."""
    with small_body(tmp_path, render_s=0.5) as (body, backend, _clock), session(body) as c:
        c.set(prop.APPLICATION_MODE, 1, "<B")
        c.ask(0x9201)
        c.ask(0x920A)
        assert c.get(prop.MOVIE_PROHIBIT, "<I") == 1 << 10
        c.ask(0x920B)

        assert c.get(prop.MOVIE_PROHIBIT, "<I") == 1 << 9
        assert c.ask(0x920A)[0] != OK
        assert len(await_files(c, 1)) == 1
        assert backend.rendered.is_set()


def test_live_view_and_focus_need_live_view(tmp_path: Path):
    with small_body(tmp_path) as (body, _, _clock), session(body) as c:
        assert c.ask(0x9203)[0] == NOT_LIVE_VIEW
        assert c.ask(0x9204, 2, 100)[0] == NOT_LIVE_VIEW
        c.ask(0x9201)

        assert c.ask(0x9203)[1][128:130] == b"\xff\xd8"


def test_an_initiator_that_leaves_ends_its_recording(tmp_path: Path):
    with small_body(tmp_path) as (body, backend, _clock):
        with session(body) as c:
            c.set(prop.APPLICATION_MODE, 1, "<B")
            c.ask(0x9201)
            c.ask(0x920A)

        assert backend.rendered.wait(5)
        with session(body) as c:
            assert len(await_files(c, 1)) == 1
            assert c.get(prop.LIVE_VIEW_STATUS, "<B") == 0


def test_start_delays_follow_from_the_seed(tmp_path: Path):
    """Two bodies of one seed start their movies after the same delays."""
    starts = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with small_body(tmp_path / name) as (body, _, clock):
            recorder = body.body._recorder
            before = clock.now()
            recorder.start_movie(body.body.settings.exposure())
            assert recorder._recording is not None
            starts.append(recorder._recording.start_s - before)

    assert starts[0] == pytest.approx(starts[1], abs=0.02)  # what the two calls themselves took
    assert 0.05 <= starts[0] <= 0.12
