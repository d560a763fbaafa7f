"""Talk to an engine from another process: find or start one, converse with it, stop it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotAnsweredError
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from catalog.errors import error_classes
from rig.errors import CommandRefusedError, EngineError, RigError
from rig.events import EVENTS, AnyEvent, Armed, Attached, Done, Refused
from rig.requests import Attach, Command
from rig.runtime import EngineAddress, connect_to, is_own_message, is_own_peer, running_engines

ANSWER_S = 5.0
RECEIPT_S = 0.3
STOP_ATTEMPTS = 4
START_TIMEOUT_S = 20.0
_MAX_LINE_BYTES = 16 << 20
OnEvent = Callable[[AnyEvent], None]


class EngineClient:
    """A conversation with one engine; a context manager.

    Args:
        address: The engine.
        name: What other clients see.
        control: Asks for control at once.
        on_event: Receives every event, snapshots included, from a thread of the client's own; it must return quickly.
        on_lost: Called once from that thread when the engine has gone, but not after `close`.

    Raises:
        EngineError: Nobody is there, or it is not an engine of this user.
    """

    def __init__(
        self,
        address: EngineAddress,
        *,
        name: str,
        control: bool = False,
        on_event: OnEvent | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self.address = address
        self.attached: Attached
        """Who is at the other end."""
        self._on_event, self._on_lost = on_event, on_lost
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[AnyEvent]] = {}
        self._arrived: dict[int, AnyEvent] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._stream = _connect(address)
        self._thread = threading.Thread(target=self._listen, name="engine-client", daemon=True)
        self._thread.start()
        attached = self.request(Attach(name=name, control=control))
        if not isinstance(attached, Attached):
            raise EngineError(f"{address.name}: the engine does not say who it is")
        self.attached = attached

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Part from the engine, which goes on by its profile's policy. Safe to call twice."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=1.0)
        self._stream.close()

    def send(self, command: Command) -> Future[AnyEvent]:
        """Send a command and return at once.

        Returns:
            Its answer to come: `Attached`, `Armed` or `Done`; `CommandRefusedError` when it is refused.
        """
        command_id = next(self._numbers)
        answer: Future[AnyEvent] = Future()
        with self._lock:
            self._waiting[command_id] = answer
        line = command.model_copy(update={"command_id": command_id}).model_dump_json().encode() + b"\n"
        try:
            self._stream.sendall(line)
        except OSError as error:
            self._fail_all(f"{self.address.name}: the engine has gone ({error})")
        return answer

    def request(self, command: Command, *, timeout_s: float = ANSWER_S) -> AnyEvent:
        """Send a command and wait for its answer; not from within ``on_event``.

        Returns:
            `Attached`, `Armed` or `Done`.

        Raises:
            CommandRefusedError: The engine did not carry it out; nothing moved because of it.
            EngineError: It is gone, or does not answer.
        """
        try:
            return self.send(command).result(timeout_s)
        except NotAnsweredError:
            raise EngineError(
                f"{self.address.name}: no answer to '{command.command}' within {timeout_s:g} s",
                next_step="`rig stop` stops it all the same",
            ) from None

    def _listen(self) -> None:
        waiting = bytearray()
        try:
            while data := self._stream.recv(1 << 16):
                waiting += data
                *lines, rest = waiting.split(b"\n")
                waiting = bytearray(rest)
                for line in lines:
                    self._take(EVENTS.validate_json(bytes(line)))
                if len(waiting) > _MAX_LINE_BYTES:
                    break
        except (OSError, ValidationError):
            pass  # gone, or of another version: in either case there is nothing more to hear
        finally:
            self._fail_all(f"{self.address.name}: the engine has gone")
        if self._on_lost is not None and not self._closed:
            self._on_lost()

    def _take(self, event: AnyEvent) -> None:
        if isinstance(event, (Attached, Armed)):
            self._arrived[event.command_id] = event
        elif isinstance(event, (Done, Refused)):
            self._answer(event)
        if self._on_event is not None:
            self._on_event(event)

    def _answer(self, event: Done | Refused) -> None:
        with self._lock:
            waiting = self._waiting.pop(event.command_id, None)
        if waiting is None:
            return
        if isinstance(event, Refused):
            error = CommandRefusedError(event.message, kept="nothing moved", next_step=event.next_step)
            waiting.set_exception(as_coded(error, event.code))
        else:
            waiting.set_result(self._arrived.pop(event.command_id, event))

    def _fail_all(self, text: str) -> None:
        with self._lock:
            lost, self._waiting = list(self._waiting.values()), {}
        for waiting in lost:
            waiting.set_exception(EngineError(text, next_step="start it again, or look at its log"))


def _connect(address: EngineAddress) -> socket.socket:
    try:
        stream = connect_to(socket.SOCK_STREAM, address.socket_path)
    except OSError as error:
        raise EngineError(
            f"{address.name}: no engine listens there ({error.strerror})",
            next_step="start one: `rig tui` or `rig record`",
        ) from error
    if not is_own_peer(stream):
        stream.close()
        raise EngineError(f"{address.name}: that engine belongs to another user")
    return stream


@dataclass(frozen=True)
class StopReceipt:
    """What an engine says about a stop."""

    name: str
    emergency: bool
    t_monotonic_s: float
    """Machine's monotonic reading when the bytes had been written."""
    trouble: str
    """Plain words, empty when there was none."""


class StopLine:
    """The short way to an engine's stop post; opened once, so that pressing is one system call.

    Args:
        address: The engine.
        by: Who presses, for the others to see.

    Raises:
        EngineError: No engine listens there.
    """

    def __init__(self, address: EngineAddress, *, by: str) -> None:
        self.address = address
        self._by = by.encode()[:100]
        try:
            self._socket = connect_to(socket.SOCK_DGRAM, address.stop_path)
        except OSError as error:
            raise EngineError(f"{address.name}: no engine listens there ({error.strerror})") from error
        self._socket.bind("")  # a name of the kernel's choosing, for the receipt
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def close(self) -> None:
        """Let go of the line."""
        self._socket.close()

    def press(self, *, emergency: bool = False) -> None:
        """Stop; does not wait for the receipt.

        Raises:
            EngineError: The engine is gone.
        """
        try:
            self._socket.send((b"estop " if emergency else b"stop ") + self._by)
        except OSError as error:
            raise EngineError(f"{self.address.name}: the engine is gone ({error.strerror})") from error

    def receipt(self, timeout_s: float) -> StopReceipt | None:
        """Return the next receipt, None when there was none in time."""
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            try:
                data, ancillary, _, _ = self._socket.recvmsg(1024, socket.CMSG_SPACE(12))
            except OSError:
                return None
            if is_own_message(ancillary):
                fields = json.loads(data)
                return StopReceipt(
                    fields["name"], fields["emergency"], fields["t_monotonic_s"], fields["trouble"]
                )
        return None


def stop_engine(address: EngineAddress, *, emergency: bool = False, by: str) -> StopReceipt:
    """Stop what an engine moves and wait for the receipt; pressed again while none comes.

    Raises:
        EngineError: It is gone, or gave no receipt.
    """
    line = StopLine(address, by=by)
    try:
        for _ in range(STOP_ATTEMPTS):
            line.press(emergency=emergency)
            receipt = line.receipt(RECEIPT_S)
            if receipt is not None:
                return receipt
    finally:
        line.close()
    raise EngineError(
        f"{address.name}: no receipt for the stop",
        next_step="use the hardware emergency stop, then end that process",
    )


def find_engine(rig: str) -> EngineAddress | None:
    """Return the engine that runs a rig, the newest of them where it is a simulated one; None where none does.

    What can be stopped and takes no clients, as a check that runs, is no engine.
    """
    found = [address for address in running_engines(rig) if address.socket_path.exists()]
    return max(found, key=lambda a: a.stop_path.stat().st_mtime) if found else None


def start_engine(profile: str, *, data: Path, photos: Path | None = None) -> EngineAddress:
    """Start an engine that outlives this process, and return once it listens.

    Args:
        profile: The rig's profile, name or path.
        data: Data folder.
        photos: Photographs for a simulated world.

    Raises:
        EngineError: It did not come up; the message is its own.
    """
    command = [sys.executable, "-P", "-m", "rig.engine", "--profile", profile, "--data", str(data)]
    if photos is not None:
        command += ["--scene", str(photos)]
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    watchdog = threading.Timer(START_TIMEOUT_S, child.kill)
    watchdog.start()
    try:
        line = child.stdout.readline() if child.stdout else b""
        if not line:
            message = child.stderr.read().decode(errors="replace").strip() if child.stderr else ""
            raise EngineError(
                message or "the engine did not start", next_step="run `rig check` on the profile"
            )
    finally:
        watchdog.cancel()
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
    ready = json.loads(line)
    threading.Thread(target=child.wait, name="engine-child", daemon=True).start()
    return EngineAddress(Path(ready["folder"]), ready["name"])


def as_coded(error: RigError, code: str) -> RigError:
    """Give an error the code, and with it the exit code, of what an engine raised."""
    error.code = code
    error.exit_code = error_classes().get(code, type(error)).exit_code
    return error


def own_name() -> str:
    """Name this process for other clients: program and process id."""
    return f"{Path(sys.argv[0]).name or 'python'} ({os.getpid()})"
