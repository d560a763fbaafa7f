"""The simulated EOS body operation by operation: its records as Canon's extension has them."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from small_camera import FRAME_RATE_HZ, START_DELAY_S, SmallBackend, SmallRawBackend

from rig.clock import SessionClock
from rig.profile import SimulationSpec
from rig.sim import ptp_canon_settings as eos
from rig.sim import ptp_settings
from rig.sim.ptp_body import Reply
from rig.sim.ptp_canon import CanonEosBody
from rig.sim.ptp_packets import FileRange, Operation
from rig.sim.ptp_recorder import CameraFaults
from rig.sim.ptp_settings import BodySettings
from rig.sim.sensor import WHITE_BALANCE

ADDED, REMOTE_TRANSFER, VALUE, CHOICES, STATUS = 0xC181, 0xC186, 0xC189, 0xC18A, 0xC18B


class Host:
    """Speaks with a body as an initiator does, without a socket between."""

    def __init__(self, body: CanonEosBody, backend: SmallBackend) -> None:
        self.body, self.backend = body, backend

    def ask(self, code: int, *parameters: int, data: bytes = b"") -> tuple[Reply, bytes]:
        reply, _, answer = self.body.answer(Operation(code, 1, parameters, bool(data)), data)
        if isinstance(answer, FileRange):
            content = answer.path.read_bytes()[answer.offset : answer.offset + answer.count]
            return reply, content
        return reply, answer or b""

    def set(self, code: int, value: int) -> Reply:
        return self.ask(0x9110, data=struct.pack("<III", 12, code, value))[0]

    def events(self) -> list[tuple[int, bytes]]:
        """Read the stream, which must end in an empty record."""
        stream, records, at = self.ask(0x9116)[1], [], 0
        while True:
            size, code = struct.unpack_from("<II", stream, at)
            if (size, code) == (8, 0):
                assert at + 8 == len(stream)
                return records
            records.append((code, stream[at + 8 : at + size]))
            at += size

    def told(self, code: int) -> list[int]:
        """Return the numbers that the body tells of one property."""
        head = struct.pack("<I", code)
        payloads = [p for kind, p in self.events() if kind == VALUE and p.startswith(head)]
        return [int(struct.unpack_from("<I", p, 4)[0]) for p in payloads]

    def await_event(self, wanted: int) -> bytes:
        deadline_s = time.monotonic() + 10
        while time.monotonic() < deadline_s:
            for code, payload in self.events():
                if code == wanted:
                    return payload
        raise AssertionError(f"no event {wanted:#x}")

    def film(self) -> bytes:
        """Record a moment; returns the payload that announces the file."""
        self.set(eos.LIVE_VIEW_OUTPUT, 2)
        assert self.set(eos.MOVIE_TARGET, eos.RECORD_TO_CARD) == Reply.OK
        self.set(eos.MOVIE_TARGET, eos.RECORD_NOTHING)
        return self.await_event(ADDED)


@contextmanager
def connected(backend: SmallBackend, **faults: object) -> Iterator[Host]:
    spec = SimulationSpec(start_delay_s=START_DELAY_S, frame_rate_hz=FRAME_RATE_HZ)
    body = CanonEosBody(
        backend,
        SessionClock(origin_s=time.monotonic()),
        spec,
        serial="123",
        faults=CameraFaults.model_validate(faults),
    )
    host = Host(body, backend)
    assert host.ask(0x9114, 1)[0] == host.ask(0x9115, 1)[0] == Reply.OK
    try:
        yield host
    finally:
        body.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A body in remote and event mode; its first stream is still to be read."""
    with connected(SmallBackend(tmp_path)) as body:
        yield body


@pytest.fixture
def raw_host(tmp_path: Path) -> Iterator[Host]:
    with connected(SmallRawBackend(tmp_path)) as body:
        yield body


def test_the_first_stream_tells_every_value_and_the_choices(host: Host):
    """ISO 100 is 0x48; its choices run to 25600, eight full stops of eight beyond."""
    records = host.events()

    values = {struct.unpack_from("<I", p)[0] for code, p in records if code == VALUE}
    choices = {c: p for code, p in records if code == CHOICES for c in struct.unpack_from("<I", p)}
    kind, count = struct.unpack_from("<II", choices[eos.ISO], 4)
    assert values >= set(host.body.settings.properties)
    assert (kind, count) == (3, 25)
    assert struct.unpack_from("<25I", choices[eos.ISO], 12)[:4] == (0x48, 0x4B, 0x4D, 0x50)
    assert struct.unpack_from("<25I", choices[eos.ISO], 12)[-1] == 0x48 + 8 * 8
    assert eos.EXPOSURE_MODE not in choices


def test_only_what_changed_is_told_later(host: Host):
    host.events()

    assert host.events() == []
    assert host.set(eos.ISO, 0x50) == Reply.OK
    assert host.told(eos.ISO) == [0x50]
    assert host.events() == []


def test_a_value_can_be_asked_for(host: Host):
    host.events()

    assert host.ask(0x9127, eos.APERTURE)[0] == Reply.OK
    assert host.ask(0x9127, 0xD1FF)[0] == Reply.GENERAL_ERROR
    assert host.told(eos.APERTURE) == [0x38]


@pytest.mark.parametrize(
    ("table", "zero_code", "per_stop"),
    [
        ({c: v / 100 for c, v in eos.ISO_BY_CODE.items()}, 0x48, 1),
        (eos.F_NUMBER_BY_CODE, 8, 0.5),
        (eos.SECONDS_BY_CODE, 0x38, -1),
    ],
)
def test_codes_count_eighths_of_a_stop(table: dict[int, float], zero_code: int, per_stop: float):
    """From ISO 100, f/1 and 1 s on; marked values are rounded by less than a sixth of a stop: 1/15 s is 1/16."""
    for code, value in table.items():
        stops = math.log2(value) / per_stop
        assert stops == pytest.approx((code - zero_code) / 8, abs=1 / 6)
    assert all(b - a in {2, 3, 8} for a, b in pairwise(table))


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (struct.pack("<III", 12, eos.ISO, 0x49), Reply.BAD_VALUE),
        (struct.pack("<III", 12, eos.BATTERY, 2), Reply.BAD_VALUE),
        (struct.pack("<III", 12, 0xD1FF, 2), Reply.NO_SUCH_PROPERTY),
        (b"\0" * 5, Reply.NO_SUCH_PROPERTY),
        (struct.pack("<II3s", 11, eos.ISO, b"\x48\0\0"), Reply.NO_SUCH_PROPERTY),
    ],
)
def test_what_cannot_be_set_is_refused_and_changes_nothing(host: Host, data: bytes, reply: Reply):
    host.events()

    assert host.ask(0x9110, data=data)[0] == reply
    assert host.events() == []


def test_a_body_that_keeps_its_own_value_tells_it(tmp_path: Path):
    with connected(SmallBackend(tmp_path), ignored=["iso"]) as host:
        host.events()

        assert host.set(eos.ISO, 0x50) == Reply.OK
        assert host.told(eos.ISO) == [0x48]


def test_an_image_format_is_told_as_files_with_kind_size_and_compression(raw_host: Host):
    """Two files of 16 bytes each: raw (6) and JPEG (1)."""
    payload = struct.pack("<II", 12 + 32, eos.IMAGE_FORMAT) + struct.pack("<9I", 2, 16, 6, 0, 4, 16, 1, 0, 3)
    raw_host.events()

    assert raw_host.ask(0x9110, data=payload)[0] == Reply.OK

    ((code, told),) = raw_host.events()
    assert code == VALUE
    assert told == struct.pack("<I", eos.IMAGE_FORMAT) + payload[8:]
    assert raw_host.body.settings.files == ((6, 0, 4), (1, 0, 3))


def test_a_file_is_announced_once_with_its_size_and_name(host: Host):
    """Handle and storage at 0 and 4, format at 8, size at 20, folder at 24, name at 32 of the payload."""
    payload = host.film()

    handle, storage, kind, size, folder = (
        struct.unpack_from("<I", payload, at)[0] for at in (0, 4, 8, 20, 24)
    )
    whole = next(host.backend.folder.glob("rendered-*.mov")).read_bytes()
    assert (storage, kind, size) == (0x00010001, 0x300D, len(whole))
    assert payload[32:].rstrip(b"\0") == b"CLN_0001.MOV"
    assert host.ask(0x9104, handle)[1] == whole
    assert host.ask(0x9107, handle, 10, 100)[1] == whole[10:110]
    assert not [code for code, _ in host.events() if code == ADDED]
    listing = host.ask(0x9109, 0x00010001, folder, 0)[1]
    assert struct.unpack_from("<I", listing) == (1,)
    assert listing[4 + 4 + 32 :].startswith(b"CLN_0001.MOV")


def test_folders_are_listed_down_from_the_root(host: Host):
    root = host.ask(0x9109, 0x00010001, 0xFFFFFFFF, 0)[1]

    count, length, handle = struct.unpack_from("<III", root)
    below = host.ask(0x9109, 0x00010001, handle, 0)[1]
    assert (count, length, len(root)) == (1, len(root) - 4, 4 + 4 + 52)
    assert root[4 + 4 + 32 :].startswith(b"DCIM\0")
    assert below[4 + 4 + 32 :].startswith(b"100CLEAN\0")


def test_a_deleted_file_is_gone(host: Host):
    handle = struct.unpack_from("<I", host.film())[0]

    assert host.ask(0x9105, handle)[0] == Reply.OK
    assert host.ask(0x9105, handle)[0] == host.ask(0x9104, handle)[0] == Reply.NO_SUCH_OBJECT


def test_a_movie_needs_live_view(host: Host):
    assert host.set(eos.MOVIE_TARGET, eos.RECORD_TO_CARD) == Reply.BUSY

    assert host.set(eos.LIVE_VIEW_OUTPUT, 2) == Reply.OK
    assert host.set(eos.MOVIE_TARGET, eos.RECORD_TO_CARD) == Reply.OK


def test_a_movie_that_ends_by_itself_takes_its_target_back(tmp_path: Path):
    with connected(SmallBackend(tmp_path), movie_ends_after_s=0.1) as host:
        host.set(eos.LIVE_VIEW_OUTPUT, 2)
        host.set(eos.MOVIE_TARGET, eos.RECORD_TO_CARD)
        assert host.told(eos.MOVIE_TARGET) == [eos.RECORD_NOTHING, eos.RECORD_TO_CARD]  # first: all it has

        host.await_event(ADDED)

        assert host.body.settings.number(eos.MOVIE_TARGET) == eos.RECORD_NOTHING


def test_live_view_is_a_blob_with_its_length_and_kind(host: Host):
    assert host.ask(0x9153)[0] == Reply.NO_FRAME_YET
    host.set(eos.LIVE_VIEW_OUTPUT, 2)

    frame = host.ask(0x9153)[1]

    assert struct.unpack_from("<II", frame) == (len(frame), 1)
    assert frame[8:10] == b"\xff\xd8"


def test_the_lens_moves_in_strides_and_only_in_live_view(host: Host):
    """Far is the bit 0x8000; the strides are of 1, 8 and 40 steps, and the lens stood at 300."""
    assert host.ask(0x9155, 3)[0] == Reply.BAD_VALUE
    host.set(eos.LIVE_VIEW_OUTPUT, 2)

    assert host.ask(0x9155, 0x8003)[0] == Reply.OK

    assert host.body.settings.focus_steps == 260
    assert host.ask(0x9155, 1)[0] == Reply.BUSY  # 40 steps take 7 ms


def test_a_picture_follows_the_full_press_and_status_frames_it(host: Host):
    """Half a press tells where the focus is; the library waits for that."""
    host.events()
    assert host.ask(0x9128, 1)[0] == Reply.OK
    assert [struct.unpack_from("<I", p)[0] for _, p in host.events()] == [eos.FOCUS_INFO]

    assert host.ask(0x9128, 2)[0] == Reply.OK
    host.ask(0x9129, 2)
    added = host.await_event(ADDED)

    assert added[32:].rstrip(b"\0") == b"CLN_0001.JPG"
    assert len(host.backend.stills) == 1


def test_the_shutter_stays_open_on_bulb(host: Host):
    assert host.ask(0x9125)[0] == Reply.GENERAL_ERROR  # only where the exposure time stands on bulb
    host.set(eos.SHUTTER, eos.BULB)
    assert host.ask(0x9125)[0] == Reply.OK
    assert host.ask(0x9128, 2)[0] == Reply.BUSY
    assert struct.unpack("<I", host.await_event(STATUS)) == (1,)

    assert host.ask(0x9126)[0] == Reply.OK
    host.await_event(ADDED)

    assert 0 < (host.backend.stills[0].exposure_s or 0) < 10


def test_a_picture_for_the_host_waits_in_memory(host: Host):
    """Handle at 0, format at 4, size at 12, name at 20."""
    host.set(eos.CAPTURE_DESTINATION, eos.TO_HOST)

    host.ask(0x9128, 2)
    payload = host.await_event(REMOTE_TRANSFER)

    handle, kind, size = (struct.unpack_from("<I", payload, at)[0] for at in (0, 4, 12))
    assert (kind, size) == (0x3801, len(host.ask(0x9104, handle)[1]))
    assert host.ask(0x9109, 0x00010001, 2, 0)[1] == struct.pack("<I", 0)


def test_a_full_card_leaves_no_shots_but_to_the_host(tmp_path: Path):
    with connected(SmallBackend(tmp_path), card_bytes=1_000_000) as host:
        assert host.told(eos.AVAILABLE_SHOTS)[-1] == 0
        assert host.ask(0x9128, 2)[0] == Reply.STORE_FULL

        host.set(eos.CAPTURE_DESTINATION, eos.TO_HOST)

        assert host.told(eos.AVAILABLE_SHOTS)[-1] > 0


def test_an_operation_it_does_not_know_is_answered(host: Host):
    assert host.ask(0x9999)[0] == Reply.UNSUPPORTED
    assert host.ask(0x9103, 4711)[0] == Reply.NO_SUCH_OBJECT


def test_an_initiator_that_leaves_ends_its_recording(host: Host):
    host.set(eos.LIVE_VIEW_OUTPUT, 2)
    host.set(eos.MOVIE_TARGET, eos.RECORD_TO_CARD)

    host.body.initiator_left()

    assert host.backend.rendered.wait(10)
    assert host.ask(0x9153)[0] == Reply.NO_FRAME_YET


def test_the_sensor_knows_every_white_balance_that_a_body_can_be_set_to(host: Host):
    for code in eos.WHITE_BALANCE_BY_CODE:
        host.body.settings.properties[eos.WHITE_BALANCE].value = code

        assert host.body.settings.exposure().white_balance in WHITE_BALANCE
    nikon = BodySettings()
    for code in nikon.properties[ptp_settings.WHITE_BALANCE].choices:
        nikon.write(ptp_settings.WHITE_BALANCE, code)

        assert nikon.exposure().white_balance in WHITE_BALANCE
