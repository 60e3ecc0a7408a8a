"""Does the embedded PostgreSQL start, stop and recover, whatever was left behind?"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

from demo.postgres import Postgres, PostgresError

if TYPE_CHECKING:
    from tests.conftest import Database


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="capi-postgres-") as name:
        Path(name).chmod(0o755)
        yield Path(name) / "postgres"


def processes_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


def postmaster(folder: Path) -> int:
    return int((folder / "data/postmaster.pid").read_text().split()[0])


def test_stop_leaves_no_process_and_keeps_the_data(folder: Path) -> None:
    server = Postgres(folder, durable=False)
    with server:
        server.create_database("shop")
        with psycopg.connect(server.dsn("shop")) as connection:
            connection.execute("create table kept as select 7 as n")
        assert processes_in(folder)
    assert processes_in(folder) == []

    with Postgres(folder, durable=False) as again:
        again.create_database("shop")  # is there already
        with psycopg.connect(again.dsn("shop")) as connection:
            assert connection.execute("select n from kept").fetchone() == (7,)


def test_another_process_can_stop_what_this_one_started(folder: Path) -> None:
    with Postgres(folder, durable=False) as server:
        stop = f"""
import pathlib, demo.postgres
demo.postgres.Postgres(pathlib.Path({str(folder)!r})).stop()
"""
        path = os.pathsep.join(["include", os.environ.get("PYTHONPATH", "")])
        subprocess.run(
            [sys.executable, "-c", stop],
            check=True,
            timeout=60,
            cwd=Path(__file__).parents[2],
            env=os.environ | {"PYTHONPATH": path},
        )
        assert not server.running
        assert processes_in(folder) == []


def test_starting_twice_is_one_server(folder: Path) -> None:
    with Postgres(folder, durable=False) as first:
        second = Postgres(folder, durable=False).start()
        assert second.dsn("postgres") == first.dsn("postgres")


def test_a_server_killed_outright_starts_again_with_its_data(folder: Path) -> None:
    with Postgres(folder) as server:
        with psycopg.connect(server.dsn("postgres")) as connection:
            connection.execute("create table kept as select 7 as n")
        os.kill(postmaster(folder), signal.SIGKILL)
    with Postgres(folder) as server, psycopg.connect(server.dsn("postgres")) as after:
        assert after.execute("select n from kept").fetchone() == (7,)


def test_a_pid_file_that_names_a_stranger_hurts_neither(folder: Path) -> None:
    with Postgres(folder, durable=False):
        left = (folder / "data/postmaster.pid").read_text()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        lines = [str(stranger.pid), *left.splitlines()[1:]]
        (folder / "data/postmaster.pid").write_text("\n".join(lines) + "\n")
        server = Postgres(folder, durable=False)
        server.stop()
        assert stranger.poll() is None
        with server:
            assert server.running
        assert stranger.poll() is None
        stranger.kill()


def test_a_taken_port_says_so(folder: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            PostgresError,
            match=f"^Port {port} is taken by another program. Stop that, or choose",
        ):
            Postgres(folder, port, durable=False).start()
    with Postgres(folder, port, durable=False) as server:
        assert server.port == port


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(PostgresError, match=r"cannot be written .* choose another"):
        Postgres(file / "postgres").start()


def test_a_server_that_is_down_has_no_address(folder: Path) -> None:
    with Postgres(folder, durable=False) as server:
        pass
    with pytest.raises(PostgresError, match=r"^No server runs in .* Start it first\.$"):
        server.dsn("postgres")


def test_it_works_where_only_the_owner_may_enter(folder: Path) -> None:
    """A project in a home of mode 0700, set up by root, is no special case."""
    folder.parent.chmod(0o700)
    with Postgres(folder, durable=False) as server:
        assert server.running


def test_the_password_is_asked_for_and_kept_to_oneself(folder: Path) -> None:
    with Postgres(folder, durable=False) as server:
        assert (folder / "password").stat().st_mode & 0o777 == 0o600
        assert (folder / "password").stat().st_uid == os.geteuid()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(f"postgresql://postgres@127.0.0.1:{server.port}/postgres")


def test_the_demo_server_is_durable_and_utf8(folder: Path) -> None:
    with Postgres(folder) as server, psycopg.connect(server.dsn("postgres")) as client:
        settings = dict(
            client.execute(
                "select name, setting from pg_settings where name = any(%s)",
                [["fsync", "max_connections", "server_encoding", "lc_collate"]],
            ).fetchall()
        )
        assert settings["fsync"] == "on"
        assert settings["max_connections"] == "200"
        assert settings["server_encoding"] == "UTF8"
        collation = client.execute(
            "select datcollate from pg_database where datname = current_database()"
        )
        assert collation.fetchone() == ("C",)


def test_each_test_has_an_empty_database_of_its_own(database: Database) -> None:
    with psycopg.connect(database.dsn) as connection:
        tables = connection.execute(
            "select count(*) from pg_tables where schemaname = 'public'"
        )
        assert tables.fetchone() == (0,)
    assert database.url.startswith("postgresql+psycopg://")
    assert "postgresql" not in repr(database)


def test_tests_cannot_reach_another_machine() -> None:
    with (
        socket.socket() as probe,
        pytest.raises(RuntimeError, match="another machine"),
    ):
        probe.connect(("192.0.2.1", 80))
