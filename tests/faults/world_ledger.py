"""What the ledger and the warehouse are put through: cut lines, other sessions, a shop.

The fixtures of `tests/ledger` stand here again, for the tests of this folder.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Self

import psycopg
import sqlalchemy as sa
from tests.ledger import conftest
from tests.ledger.conftest import Bench
from tests.ledger.scenes import as_counted

from meta_capi.desk import Desk
from meta_capi.errors import CapiError
from meta_capi.ledger import Ledger
from meta_capi.source import Interval, Shard, Source

__all__ = [
    "DELIVER", "Proxy", "Shop", "as_counted", "bench", "deliver_here", "ended",
    "hang_up", "ledger", "nothing_twice", "other_session", "setting", "start_program",
]  # fmt: skip

bench, ledger = conftest.bench, conftest.ledger

ROOT: Final = Path(__file__).resolve().parents[2]


def nothing_twice(bench: Bench) -> None:
    """Assert that what the ledger calls accepted Meta processed, once (I2, I4)."""
    accepted = bench.sql(
        "select event_id from capi.deliveries where state = 'accepted'"
    )
    assert bench.receipts() == Counter(event_id for (event_id,) in accepted)


# --- the database -------------------------------------------------------------------


def setting(bench: Bench, name: str, value: str | None) -> None:
    """Set something for every new session of the database; None takes it back."""
    database = psycopg.sql.Identifier(
        str(psycopg.conninfo.conninfo_to_dict(bench.dsn)["dbname"])
    )
    verb = (
        psycopg.sql.SQL("reset {}").format(psycopg.sql.Identifier(name))
        if value is None
        else psycopg.sql.SQL("set {} = {}").format(
            psycopg.sql.Identifier(name), psycopg.sql.Literal(value)
        )
    )
    with psycopg.connect(bench.dsn, autocommit=True) as connection:
        # Else what made it read-only would keep it so.
        connection.execute("set default_transaction_read_only = off")
        connection.execute(
            psycopg.sql.SQL("alter database {} {}").format(database, verb)
        )
    bench.ledger._engine.dispose()


@contextmanager
def other_session(bench: Bench) -> Iterator[psycopg.Connection[Any]]:
    """Open a transaction of somebody else's; it is rolled back at the end."""
    with psycopg.connect(bench.dsn) as connection:
        yield connection
        with suppress(psycopg.Error):
            connection.rollback()


def hang_up(dsn: str, *pids: int) -> None:
    """Kill sessions of the database, and wait until they are gone; without pids, all."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid() "
            "and (pid = any(%(pids)s) or %(pids)s = '{}')",
            {"pids": list(pids)},
        )


class Proxy:
    """A line to PostgreSQL that can be cut: by a reset, as a firewall or a dead host does.

    `at_commit` is asked before each COMMIT goes on: `drop` cuts before PostgreSQL hears
    of it, `lose` after it stands and before the answer is home, None lets it pass.
    """

    def __init__(self, dsn: str) -> None:
        info = psycopg.conninfo.conninfo_to_dict(dsn)
        self._target = (str(info["host"]), int(info["port"] or 5432))
        self._dsn = dsn
        self._lines: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.away = False
        self.cuts = 0
        self.at_commit: Callable[[], str | None] = lambda: None

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    @property
    def dsn(self) -> str:
        """The database's address through this line."""
        port = self._server.getsockname()[1]
        return psycopg.conninfo.make_conninfo(
            self._dsn, host="127.0.0.1", port=port, sslmode="disable"
        )

    def engine(self, **options: Any) -> sa.Engine:
        """Return an engine on this line."""
        return sa.create_engine(
            "postgresql+psycopg://",
            creator=lambda: psycopg.connect(self.dsn),
            hide_parameters=True,
            **options,
        )

    def cut(self) -> None:
        """Reset every line there is."""
        for line in list(self._lines):
            self._reset(line)

    def _reset(self, *lines: socket.socket) -> None:
        for line in lines:
            self._lines.discard(line)
            with suppress(OSError):
                line.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                # A close alone would wait for the other thread's recv.
                line.shutdown(socket.SHUT_RD)
            line.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                if self.away:
                    self._reset(client)
                    continue
                server = socket.create_connection(self._target)
                self._lines |= {client, server}
                lost = threading.Event()
                for way in (self._up, self._down):
                    threading.Thread(
                        target=way, args=(client, server, lost), daemon=True
                    ).start()

    def _up(
        self, client: socket.socket, server: socket.socket, lost: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := client.recv(65_536):
                if data.startswith(b"Q") and b"COMMIT" in data[:16]:
                    fate = self.at_commit()
                    self.cuts += fate is not None
                    if fate == "drop":
                        break
                    if fate == "lose":
                        lost.set()
                server.sendall(data)
        self._reset(client, server)

    def _down(
        self, client: socket.socket, server: socket.socket, lost: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := server.recv(65_536):
                if lost.is_set():
                    break
                client.sendall(data)
        self._reset(client, server)


# --- the warehouse ------------------------------------------------------------------


@dataclass
class Shop:
    """The table that the bench's feed names, with rows that may change at any time."""

    bench: Bench
    dsn: str = field(repr=False)

    @classmethod
    def open(cls, bench: Bench, orders: Sequence[int], **changes: Any) -> Self:
        """Make the table, with these orders in it."""
        shop = cls(bench, bench.dsn)
        bench.sql(
            "create schema shop; create table shop.orders ("
            "order_id text primary key, loaded_at timestamptz not null, "
            "bought_at timestamptz, event_id text, email text, amount text, "
            "consent boolean)"
        )
        shop.add(orders, **changes)
        return shop

    def add(self, orders: Sequence[int], **changes: Any) -> None:
        """Add orders."""
        columns = self.bench.rows(*orders, **changes)
        names = ", ".join(columns)
        with (
            psycopg.connect(self.dsn) as connection,
            connection.cursor() as cursor,
            cursor.copy(f"copy shop.orders ({names}) from stdin") as copy,
        ):
            for row in zip(*columns.values(), strict=True):
                copy.write_row(row)

    def described(self, host: str) -> dict[str, Any]:
        """Return what another process needs to deliver these rows (`DELIVER`)."""
        return {
            "dsn": self.dsn,
            "url": self.bench.ledger._engine.url.render_as_string(hide_password=False),
            "meta": self.bench.simulator.url,
            "limits": self.bench.feed.limits.model_dump(),
            "host": host,
        }

    @property
    def interval(self) -> Interval:
        """All rows there are."""
        now = self.bench.started
        return Interval(now - timedelta(days=90), now + timedelta(days=1))

    def source(self, engine: sa.Engine | None = None) -> Source:
        """Return a fresh source, as every task makes one."""
        return Source(
            engine or self.bench.ledger._engine, self.bench.feed, Path(os.devnull)
        )

    def slices(
        self, source: Source | None = None, *, rows_per_slice: int = 100,
        interval: Interval | None = None,
    ) -> Iterator[Mapping[str, Sequence[Any]]]:  # fmt: skip
        """Read the rows as `deliver` does."""
        found = (source or self.source()).read(
            interval or self.interval, Shard(), rows_per_slice
        )
        for some in found:
            yield some.columns

    def due(self, limit: int = 100_000) -> Iterator[Mapping[str, Sequence[Any]]]:
        """Read the rows that are due, as `tend_deliveries` does."""
        keys = self.bench.ledger.due_keys(
            self.bench.feed.feed, conftest.DATASET, self.bench.policy, limit=limit
        )
        for some in self.source().read_keys([(key,) for key in keys], 1_000):
            yield some.columns


# --- another process ----------------------------------------------------------------

# CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and CAP_FOWNER go with PR_CAPBSET_DROP (24) and
# the next exec; who is not root has none of them.
_LAUNCH: Final = """
import ctypes, json, os, resource, sys
limits, powerless, program = json.loads(sys.argv[1])
if powerless:
    for power in (1, 2, 3):
        ctypes.CDLL(None).prctl(24, power, 0, 0, 0)
for number, most in limits:
    resource.setrlimit(number, (most, most))
os.execv(sys.executable, [sys.executable, "-c", program])
"""


def start_program(
    program: str, given: Mapping[str, Any], *, limits: Mapping[int, int] | None = None,
    powerless: bool = False, **environ: str,
) -> subprocess.Popen[str]:  # fmt: skip
    """Start a Python program that finds `given` on its standard input, as JSON.

    Args:
        program: its text.
        given: what is secret goes this way, not by the command line.
        limits: the process's resource limits, by number.
        powerless: whether even root must ask for a folder's mode before it writes.
        environ: more of the environment.
    """
    paths = os.pathsep.join(str(ROOT / part) for part in ("include", "plugins", "."))
    launch = json.dumps([list((limits or {}).items()), powerless, program])
    child = subprocess.Popen(
        [sys.executable, "-c", _LAUNCH, launch],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": paths, **environ},
    )  # fmt: skip
    assert child.stdin
    child.stdin.write(json.dumps(given))
    child.stdin.close()
    child.stdin = None
    return child


DELIVER: Final = """
import json, sys
from tests.faults.world_ledger import deliver_here
print(json.dumps(deliver_here(json.load(sys.stdin))))
"""


def deliver_here(given: Mapping[str, Any]) -> dict[str, Any]:
    """Deliver the shop's rows in this process; return the tally, or what went wrong."""
    engine = sa.create_engine(given["url"], hide_parameters=True)
    meta: Any = SimpleNamespace(url=given["meta"])
    bench = Bench(Ledger(engine), meta, given["dsn"], runs=os.getpid())
    bench.tune(**given["limits"])
    desk = Desk(
        bench.ledger, bench.run(), policy=bench.policy, host=given["host"],
        pid=os.getpid(),
    )  # fmt: skip
    slices = Shop(bench, given["dsn"]).slices(
        rows_per_slice=bench.feed.limits.rows_per_slice
    )
    try:
        return {**bench.deliver_each(slices, desk=desk).to_json(), "error": None}
    except CapiError as error:
        return {"error": str(error)}


def ended(child: subprocess.Popen[str], *, seconds: float = 60) -> Any:
    """Wait for a program; return what it printed as JSON. It must have ended well."""
    words, complaints = child.communicate(timeout=seconds)
    assert child.returncode == 0, complaints
    return json.loads(words)
