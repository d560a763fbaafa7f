"""A PostgreSQL server that tests start, from Debian's packages, and stop again."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from catalog import Catalog
from catalog.sqlite_database import SqliteDatabase


def postgres_programs() -> Path | None:
    """Find the folder of `initdb` and `postgres`."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    on_path = shutil.which("initdb")
    return debian[-1].parent if debian else Path(on_path).parent if on_path else None


def address_of(catalog: Catalog) -> str:
    """Return the address by which another process opens the same catalog."""
    database = catalog.database
    return str(database.path) if isinstance(database, SqliteDatabase) else database.url


class PostgresServer:
    """A server on a free loopback port, on new files or those that are there. Never runs as root, as it refuses to."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._folder = programs, folder
        self._data = folder / "data"
        self._numbers = count()
        self._user = _unprivileged_user()

    def __enter__(self) -> Self:
        if self._user is not None:
            os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        if not self._data.exists():
            who = ("-U", "tester", "--auth=trust")
            self._run("initdb", "-D", str(self._data), *who, "--no-sync", "--locale=C.UTF-8")
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.port = _free_port()
        options = ["-p", str(self.port), "-k", str(self._folder), "-c", "listen_addresses=127.0.0.1"]
        with (self._folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, *options],
                stdout=log,
                stderr=log,
                **self._identity(),
            )
        self._wait()

    def stop(self) -> None:
        """Stop the server at once, as a crash would not: connections are closed, all is written."""
        self._server.send_signal(2)
        self._server.wait(60)

    @contextmanager
    def database(self) -> Iterator[str]:
        """Create an empty database; yields its URL."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name}")
        yield f"postgresql://tester@127.0.0.1:{self.port}/{name}"
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def kept_database(self, name: str) -> str:
        """Create a database unless it is there; returns its URL."""
        with suppress(psycopg.errors.DuplicateDatabase):
            self._execute(f"CREATE DATABASE {name}")
        return f"postgresql://tester@127.0.0.1:{self.port}/{name}"

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._address, autocommit=True) as connection:
            connection.execute(statement)

    @property
    def _address(self) -> str:
        return f"postgresql://tester@127.0.0.1:{self.port}/postgres"

    def _wait(self) -> None:
        give_up = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self._address, connect_timeout=5).close()
            except psycopg.OperationalError:
                if self._server.poll() is not None or time.monotonic() > give_up:
                    raise RuntimeError((self._folder / "log").read_text()) from None
                time.sleep(0.05)
            else:
                return

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **self._identity())
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)

    def _identity(self) -> dict[str, object]:
        if self._user is None:
            return {}
        return {
            "user": self._user.pw_uid,
            "group": self._user.pw_gid,
            "extra_groups": [],
            "cwd": self._folder,
        }


def _unprivileged_user() -> pwd.struct_passwd | None:
    """Whom to run the server as; None where this process is unprivileged itself."""
    return None if os.geteuid() else pwd.getpwnam("nobody")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
