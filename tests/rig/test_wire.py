"""The serial wire on a bare pseudo-terminal: deadlines, exclusive use, noise and a port that vanishes."""

from __future__ import annotations

import os
import threading
import time
import tty
from collections.abc import Iterator

import pytest

from rig.clock import SessionClock
from rig.devices.wire import MAX_LINE_BYTES, SerialWire
from rig.errors import DeviceBusyError, DeviceError, DeviceNotFoundError, DeviceTimeoutError


class Peer:
    """The device's end of a pseudo-terminal."""

    def __init__(self) -> None:
        self.master, self._slave = os.openpty()
        self.path = os.ttyname(self._slave)
        tty.setraw(self._slave)

    def send(self, data: bytes) -> None:
        os.write(self.master, data)

    def receive(self, size: int) -> bytes:
        return os.read(self.master, size)

    def unplug(self) -> None:
        for fd in (self.master, self._slave):
            if fd >= 0:
                os.close(fd)
        self.master = self._slave = -1


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.unplug()


@pytest.fixture
def wire(peer: Peer) -> Iterator[SerialWire]:
    wire = SerialWire(peer.path, SessionClock())
    yield wire
    wire.close()


def test_lines_come_without_their_ends_and_empty_ones_are_skipped(peer: Peer, wire: SerialWire):
    peer.send(b"\r\nok\r\n<Idle|")
    peer.send(b"MPos:0.000>\r\n")

    assert wire.read_line(timeout_s=1.0) == "ok"
    assert wire.read_line(timeout_s=1.0) == "<Idle|MPos:0.000>"


def test_a_line_is_sent_with_one_line_feed(peer: Peer, wire: SerialWire):
    wire.write_line("G1X1F60")

    assert peer.receive(100) == b"G1X1F60\n"


def test_reading_ends_at_the_deadline_of_the_session_clock(peer: Peer):
    """0.4 s of a clock that runs four times as fast are 0.1 s of the machine."""
    wire = SerialWire(peer.path, SessionClock(rate=4.0))
    peer.send(b"half a line")
    begin_s = time.monotonic()

    line = wire.read_line(timeout_s=0.4)
    elapsed_s = time.monotonic() - begin_s
    wire.close()

    assert line is None
    assert 0.1 <= elapsed_s < 0.35


def test_a_line_that_never_ends_is_thrown_away_and_counted(peer: Peer, wire: SerialWire):
    peer.send(b"x" * (MAX_LINE_BYTES + 1))
    wire.read_line(timeout_s=0.1)
    peer.send(b"\nok\n")

    assert wire.read_line(timeout_s=1.0) == "ok"
    assert wire.discarded_bytes == MAX_LINE_BYTES + 1


def test_bytes_that_are_no_text_do_not_disturb_the_next_line(peer: Peer, wire: SerialWire):
    peer.send(b"\xff\x00\xfe\nok\n")

    assert "ok" not in (wire.read_line(timeout_s=1.0) or "ok")
    assert wire.read_line(timeout_s=1.0) == "ok"


def test_flush_forgets_what_was_received(peer: Peer, wire: SerialWire):
    peer.send(b"old\nolder")
    assert wire.read_line(timeout_s=1.0) == "old"

    wire.flush()
    peer.send(b"new\n")

    assert wire.read_line(timeout_s=1.0) == "new"


def test_realtime_bytes_leave_while_another_thread_reads(peer: Peer, wire: SerialWire):
    reader = threading.Thread(target=wire.read_line, kwargs={"timeout_s": 1.0})
    reader.start()

    wire.write_realtime(b"!")

    assert peer.receive(10) == b"!"
    peer.send(b"ok\n")
    reader.join()


def test_a_second_program_is_told_that_the_port_is_taken(peer: Peer, wire: SerialWire):
    with pytest.raises(DeviceBusyError, match="another program"):
        SerialWire(peer.path, SessionClock())


def test_a_missing_port_is_named_with_what_to_do(tmp_path: object):
    with pytest.raises(DeviceNotFoundError, match=r"ttyNONE: no such port; next: plug"):
        SerialWire(f"{tmp_path}/ttyNONE", SessionClock())


def test_a_file_that_is_no_port_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("")

    with pytest.raises(DeviceError, match="cannot be opened"):
        SerialWire(str(path), SessionClock())


def test_a_port_that_vanishes_is_a_device_error_on_every_call(peer: Peer, wire: SerialWire):
    peer.unplug()

    with pytest.raises(DeviceError, match="the port vanished"):
        wire.read_line(timeout_s=1.0)
    with pytest.raises(DeviceError, match="the port vanished"):
        wire.write_line("?")
    with pytest.raises(DeviceError, match="the port vanished"):
        wire.write_realtime(b"!")


def test_a_device_that_takes_no_bytes_runs_into_the_write_deadline(peer: Peer, wire: SerialWire):
    with pytest.raises(DeviceTimeoutError, match="took no bytes"):
        wire.write_line("x" * 100_000)


def test_a_closed_wire_says_so_and_closes_again_quietly(peer: Peer, wire: SerialWire):
    wire.close()
    wire.close()

    with pytest.raises(DeviceError):
        wire.write_realtime(b"!")
