"""The engine's clients: one stream socket, a reader and a writer thread for each, one of them in control."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator

from pydantic import ValidationError

from catalog.errors import CleanplateError
from rig.engine.outbox import Outbox, encode
from rig.errors import CommandRefusedError
from rig.events import AnyEvent, Done, Refused
from rig.requests import COMMANDS, AnyCommand, Attach
from rig.runtime import EngineAddress, bind_private, is_own_peer

MAX_LINE_BYTES = 1 << 20
SEND_TIMEOUT_S = 10.0
"""A client that reads nothing for so long is given up."""
MAX_CLIENTS = 32


class ClientLink:
    """One client.

    Args:
        connection: Its stream.
        number: Its number, unique in this engine.
    """

    def __init__(self, connection: socket.socket, number: int) -> None:
        self.number = number
        self.name = ""
        self.attached = False
        self._connection = connection
        self._connection.settimeout(SEND_TIMEOUT_S)
        self._outbox = Outbox()
        self._writer = threading.Thread(target=self._write, name=f"client-{number}-writer", daemon=True)
        self._writer.start()

    def tell(self, event: AnyEvent, line: bytes | None = None) -> None:
        """Send an event; never waits."""
        self._outbox.put(event, encode(event) if line is None else line)
        if self._outbox.overflowing:
            self.drop()

    def lines(self) -> Iterator[bytes | None]:
        """Yield lines as they come, None for one that is too long; ends when the client is gone."""
        waiting, skipping = bytearray(), False
        while data := self._receive():
            waiting += data
            while (end := waiting.find(b"\n")) >= 0:
                line = bytes(waiting[:end])
                del waiting[: end + 1]
                if not skipping:
                    yield line if end <= MAX_LINE_BYTES else None
                skipping = False
            if len(waiting) > MAX_LINE_BYTES:
                waiting.clear()
                if not skipping:
                    yield None
                skipping = True

    def finish(self) -> None:
        """Send what waits, then part."""
        self._outbox.close()
        self._writer.join(timeout=1.0)
        self.drop()

    def drop(self) -> None:
        """Part at once."""
        self._outbox.close()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Close the stream, after `drop` and once nobody uses it any more."""
        self._writer.join(timeout=1.0)
        self._connection.close()

    def _receive(self) -> bytes:
        while True:
            try:
                return self._connection.recv(65536)
            except TimeoutError:
                continue  # the time limit is for sending; a client may be silent as long as it likes
            except OSError:
                return b""

    def _write(self) -> None:
        try:
            while batch := self._outbox.take():
                self._connection.sendall(batch)
        except OSError:  # gone, or reads nothing
            self.drop()


Obey = Callable[[ClientLink, AnyCommand], None]


class ClientDesk:
    """Accepts clients and passes their commands on.

    Args:
        obey: Carries out a command, from the client's own thread; raises `CleanplateError` to refuse it.
        gone: Called when a client has left.
        now_s: Session time, for events.
    """

    def __init__(
        self,
        *,
        obey: Obey,
        gone: Callable[[ClientLink], None],
        now_s: Callable[[], float],
    ) -> None:
        self._obey, self._gone, self._now_s = obey, gone, now_s
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._links: dict[int, ClientLink] = {}
        self._listener: socket.socket
        self._over = False

    def open(self, address: EngineAddress) -> None:
        """Begin to accept clients at an address whose lock this process holds."""
        self._listener = bind_private(socket.SOCK_STREAM, address.socket_path)
        self._listener.listen(MAX_CLIENTS)
        threading.Thread(target=self._accept, name="engine-accept", daemon=True).start()

    @property
    def attached(self) -> list[ClientLink]:
        """Clients that told their name."""
        with self._lock:
            return [link for link in self._links.values() if link.attached]

    def find(self, number: int) -> ClientLink | None:
        """Return an attached client by its number."""
        return next((link for link in self.attached if link.number == number), None)

    def tell_all(self, event: AnyEvent) -> None:
        """Send an event to every attached client; never waits."""
        links = self.attached
        line = encode(event) if links else b""
        for link in links:
            link.tell(event, line)

    def close(self) -> None:
        """Accept nobody any more; send what waits and part from all."""
        self._over = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            links = list(self._links.values())
        for link in links:
            link.finish()

    def _accept(self) -> None:
        while not self._over:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if not is_own_peer(connection) or len(self._links) >= MAX_CLIENTS:
                connection.close()
                continue
            link = ClientLink(connection, next(self._numbers))
            with self._lock:
                self._links[link.number] = link
            threading.Thread(
                target=self._serve, args=(link,), name=f"client-{link.number}", daemon=True
            ).start()

    def _serve(self, link: ClientLink) -> None:
        for line in link.lines():
            self._take_line(link, line)
        link.drop()
        with self._lock:
            del self._links[link.number]
        self._gone(link)
        link.release()

    def _take_line(self, link: ClientLink, line: bytes | None) -> None:
        command_id = 0
        try:
            command = _parse(line)
            command_id = command.command_id
            if not link.attached and not isinstance(command, Attach):
                raise CommandRefusedError("a client must attach before it asks for anything")
            self._obey(link, command)
            link.tell(Done(t_host_s=self._now_s(), command_id=command_id))
        except CleanplateError as error:
            self._refuse(link, command_id, error)

    def _refuse(self, link: ClientLink, command_id: int, error: CleanplateError) -> None:
        link.tell(
            Refused(
                t_host_s=self._now_s(),
                command_id=command_id,
                code=error.code,
                message=error.message,
                next_step=error.next_step,
            )
        )


def _parse(line: bytes | None) -> AnyCommand:
    if line is None:
        raise CommandRefusedError(f"a command longer than {MAX_LINE_BYTES} bytes is not read")
    try:
        return COMMANDS.validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CommandRefusedError(f"not a command: {where or 'line'}: {first['msg']}") from None
