"""Which bytes stop: no false stop from what a terminal says by itself, none missed that an operator pressed."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path

import pytest

from rig.tui.stop_keys import StopKeys, TextWindow

STOP, ESTOP = b"stop", b"estop"


@pytest.mark.parametrize(
    ("typed", "stops"),
    [
        (b" ", [STOP]),
        (b"abc d", [STOP]),
        (b"!", [ESTOP]),
        (b"\x1b ", [STOP]),  # Escape, then Space, in one read
        (b"\x1b[ ", [STOP]),  # no terminal sends a blank inside a sequence
        (b"\x1b[A\x1b[1;2D ", [STOP]),
        (b"\x1bOP ", [STOP]),
        (b"\x1b[32u", [STOP]),  # kitty's protocol
        (b"\x1b[32;;32u", [STOP]),
        (b"\x1b[49;2;33u", [ESTOP]),  # shift and 1 make an exclamation mark
        (b"\x1b[27;2;32~", [STOP]),  # xterm's modifyOtherKeys
        (b"\x1b[200~not a stop!\x1b[201~", []),
        (b"\x1b[200~a b\x1b[201~ ", [STOP]),
        (b"\x1b[<0;32;33M\x1b[<0;32;33m", []),  # a click at column 32, row 33
        (b"\x1b[M !!", []),  # the same, the old way: its bytes are a blank and exclamation marks
        (b"\x1b[M !! ", [STOP]),
        (b"\x1b[I\x1b[O\x1b[?2026;2$y", []),
        (b"\x1bP>|term 1.0 !\x1b\\", []),
        (b"\x1b]11;rgb:0 0 0\x07", []),
        (b"\x1b[48;32;33;32;33t", []),  # an in-band resize
    ],
)
def test_stops_are_found_in_what_a_terminal_sends(typed: bytes, stops: list[bytes]) -> None:
    assert StopKeys().feed(typed, 0.0) == stops


@pytest.mark.parametrize("typed", [b"\x1b[200~a b! c\x1b[201~", b"\x1b[M !!", b"\x1b[48;32;33;32;33t"])
def test_what_arrives_byte_by_byte_means_the_same(typed: bytes) -> None:
    keys = StopKeys()

    assert [s for k in range(len(typed)) for s in keys.feed(typed[k : k + 1], 0.001 * k)] == []


def test_space_twice_within_a_second_is_an_e_stop() -> None:
    keys = StopKeys()

    assert [keys.feed(b" ", t) for t in (0.0, 0.9, 2.0)] == [[STOP], [ESTOP], [STOP]]


def test_a_lone_escape_swallows_nothing_later() -> None:
    keys = StopKeys()

    keys.feed(b"\x1b[M", 0.0)

    assert keys.feed(b" ", 0.2) == [STOP]


def test_a_paste_whose_end_never_comes_does_not_disarm_the_key() -> None:
    keys = StopKeys()

    keys.feed(b"\x1b[200~half a paste", 0.0)

    assert keys.feed(b" ", 1.1) == [STOP]


def test_space_is_a_letter_only_while_the_window_is_kept_open() -> None:
    window = TextWindow()
    assert not window.open

    window.extend(60.0)
    assert window.open

    window.extend(0.0)
    assert not window.open


UI = """
import fcntl, os, sys, termios, tty
from pathlib import Path
from rig.tui.keys_relay import StopSender, fork_behind_relay
from rig.tui.stop_keys import StopTarget, TextWindow

fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # as a shell does, so that a new size is told
window = TextWindow()
if {text}:
    window.extend(600)
code = fork_behind_relay(StopSender(StopTarget(Path(sys.argv[1]))), window)
if code is not None:
    raise SystemExit(code)
tty.setraw(0)
print("size", *os.get_terminal_size(0), "ready", end="", flush=True)
while (data := os.read(0, 100)) != b"q":
    print(repr(data), *os.get_terminal_size(0), end="", flush=True)
print("bye", end="", flush=True)
sys.exit(7)
"""


class Terminal:
    """A program on a terminal of ours, with a stop socket that it does not know is ours."""

    def __init__(self, folder: Path, *, text: bool = False) -> None:
        self.stops = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.stops.bind(str(folder / "stop"))
        self.stops.settimeout(20)
        self.screen, inner = pty.openpty()
        ioctl(self.screen, termios.TIOCSWINSZ, struct.pack("4H", 33, 111, 0, 0))
        self.program = subprocess.Popen(
            [sys.executable, "-P", "-c", UI.format(text=text), str(folder / "stop")],
            stdin=inner, stdout=inner, stderr=inner, start_new_session=True,
        )  # fmt: skip
        os.close(inner)
        self.seen = b""

    def type(self, data: bytes) -> None:
        os.write(self.screen, data)

    def read_until(self, wanted: bytes, timeout_s: float = 20.0) -> bytes:
        deadline_s = time.monotonic() + timeout_s
        while wanted not in self.seen:
            left_s = deadline_s - time.monotonic()
            assert left_s > 0 and select.select([self.screen], [], [], left_s)[0], self.seen  # noqa: PT018
            self.seen += os.read(self.screen, 65536)
        return self.seen

    def close(self) -> None:
        self.program.kill()
        self.program.wait()
        os.close(self.screen)
        self.stops.close()


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.close()


def test_a_stop_goes_out_and_every_byte_reaches_the_ui(terminal: Terminal) -> None:
    terminal.read_until(b"size 111 33 ready")

    terminal.type(b" ")

    assert terminal.stops.recv(100) == STOP + b" key"
    terminal.read_until(b"b' '")


def test_what_was_pressed_before_the_program_was_ready_counts(terminal: Terminal) -> None:
    terminal.type(b"!")

    assert terminal.stops.recv(100) == ESTOP + b" key"


def test_a_ui_that_hangs_does_not_keep_the_stop_back(terminal: Terminal) -> None:
    terminal.read_until(b"ready")
    (ui,) = Path(f"/proc/{terminal.program.pid}/task/{terminal.program.pid}/children").read_text().split()
    os.kill(int(ui), signal.SIGSTOP)
    try:
        terminal.type(b"x" * 8000)
        terminal.type(b" ")

        assert terminal.stops.recv(100) == STOP + b" key"
    finally:
        os.kill(int(ui), signal.SIGCONT)


def test_a_new_size_of_the_window_reaches_the_ui(terminal: Terminal) -> None:
    terminal.read_until(b"ready")

    ioctl(terminal.screen, termios.TIOCSWINSZ, struct.pack("4H", 40, 123, 0, 0))
    terminal.type(b"x")

    terminal.read_until(b"b'x' 123 40")


def test_the_ui_s_exit_code_comes_back(terminal: Terminal) -> None:
    terminal.read_until(b"ready")

    terminal.type(b"q")
    terminal.read_until(b"bye")

    assert terminal.program.wait(timeout=20) == 7


def test_the_terminal_is_put_back_when_the_ui_is_killed(terminal: Terminal) -> None:
    before = termios.tcgetattr(terminal.screen)
    terminal.read_until(b"ready")
    (ui,) = Path(f"/proc/{terminal.program.pid}/task/{terminal.program.pid}/children").read_text().split()

    os.kill(int(ui), signal.SIGKILL)
    terminal.read_until(b"\x1b[?1049l")

    assert terminal.program.wait(timeout=20) == 128 + signal.SIGKILL
    assert termios.tcgetattr(terminal.screen)[:4] == before[:4]


def test_a_letter_typed_into_a_field_stops_nothing(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, text=True)
    try:
        terminal.read_until(b"ready")
        terminal.type(b" ")
        terminal.read_until(b"b' '")

        terminal.stops.setblocking(False)
        with pytest.raises(BlockingIOError):
            terminal.stops.recv(100)
    finally:
        terminal.close()


IDLE_UI = """
import signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
from pathlib import Path
from rig.tui.keys_relay import StopSender, fork_behind_relay
from rig.tui.stop_keys import StopTarget, TextWindow
if fork_behind_relay(StopSender(StopTarget(Path(sys.argv[1]))), TextWindow()) is None:
    import os
    print("drawn by", os.getpid(), "ready", end="", flush=True)
    while True:
        time.sleep(60)
"""


def test_a_ui_without_its_relay_ends_under_nohup_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "UI", IDLE_UI)
    terminal = Terminal(tmp_path)
    ui = int(terminal.read_until(b"ready").split()[-2])

    terminal.program.kill()
    terminal.program.wait()

    give_up_s = time.monotonic() + 20
    while Path(f"/proc/{ui}").exists() and Path(f"/proc/{ui}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < give_up_s, "the UI goes on without a terminal"
        time.sleep(0.02)
    terminal.close()
