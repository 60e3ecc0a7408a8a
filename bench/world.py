"""What every party meets: one PostgreSQL, and one local Graph API in its own process."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from uuid import uuid4

import psycopg
import requests
from sqlalchemy import create_engine

from bench.lots import Lot, lot, short
from bench.party import OURS, ROOT, BenchError, Party, cpu_seconds, environment
from demo.postgres import Postgres
from meta_capi.ledger import Ledger

__all__ = ["DATASET", "GRAPH_VERSION", "Server", "World"]

DATASET: Final = "1234567890123456"
GRAPH_VERSION: Final = "v26.0"
_ADDRESS: Final = re.compile(r"http://[\w.]+:\d+")


@dataclass(frozen=True, slots=True)
class Server:
    """A program that answers HTTP."""

    url: str
    pid: int
    token: str = field(default="", repr=False)

    def forget(self) -> None:
        """Let it forget what came in."""
        requests.post(f"{self.url}/_simulator/reset", timeout=60).raise_for_status()

    def processed(self) -> int:
        """Return how many distinct events it took."""
        counted: int = self.counts().get("processed", 0)
        return counted

    def counts(self) -> dict[str, int]:
        """Return what it counted for the dataset."""
        answer = requests.get(f"{self.url}/_simulator/stats", timeout=60)
        counts: dict[str, int] = answer.json()["datasets"].get(DATASET, {})
        return counts


@dataclass
class World:
    """A PostgreSQL with the shop's database, a folder, and the process that leads runs."""

    postgres: Postgres
    folder: Path
    seed: int = 7
    """Of the sample."""
    scale: float = 1.0
    """Of the sample."""
    shop: str = "shop"
    import_seconds: float = 0.0
    """How long the leader took to import Great Expectations."""

    @cached_property
    def lead(self) -> Party:
        """The process that plans, judges and reports; it has Great Expectations."""
        lead = Party(OURS, self.folder / "ours.log")
        self.import_seconds = lead.ask("import_gate")["seconds"]
        return lead

    @contextmanager
    def hands(self, count: int) -> Iterator[list[Party]]:
        """Start fresh processes that deliver, with all they import."""
        with ExitStack() as stack:
            log = self.folder / "ours.log"
            hands = [stack.enter_context(Party(OURS, log)) for _ in range(count)]
            for hand in hands:
                hand.ask("import_operators")
            yield hands

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if "lead" in self.__dict__:
            self.lead.close()

    @property
    def postgres_cpu(self) -> float:
        """CPU seconds of the whole server."""
        pid = int(
            (self.postgres.folder / "data" / "postmaster.pid").read_text().split()[0]
        )
        return cpu_seconds(pid)

    @property
    def dsn(self) -> str:
        """The shop's database, for psycopg."""
        return self.postgres.dsn(self.shop)

    def lot(
        self, name: str, rows: int, *, sound: bool = False, prefix: str = ""
    ) -> Lot:
        """Make a lot in the shop, unless it is there; see `bench.lots`."""
        return lot(
            self.dsn, f"{name}_{short(rows)}", rows, seed=self.seed, scale=self.scale,
            sound=sound, prefix=prefix,
        )  # fmt: skip

    @contextmanager
    def ledger(self) -> Iterator[str]:
        """Make an empty ledger in a database of its own; yield its URL."""
        name = f"ledger_{uuid4().hex[:8]}"
        self.postgres.create_database(name)
        engine = create_engine(self.postgres.url(name), hide_parameters=True)
        Ledger(engine).migrate()
        engine.dispose()
        try:
            yield self.postgres.url(name)
        finally:
            self.postgres.drop_database(name)

    def settle(self) -> None:
        """Write out what earlier work left dirty, so that nobody pays for another."""
        with psycopg.connect(
            self.postgres.dsn("postgres"), autocommit=True
        ) as database:
            database.execute("checkpoint")

    @contextmanager
    def graph_api(self) -> Iterator[Server]:
        """Run the local Graph API in a process of its own."""
        token = f"EAAB{secrets.token_urlsafe(32)}"
        file = self.folder / "token.secret"
        file.touch(mode=0o600)
        file.write_text(token)
        command = [
            "-m", "graph_simulator", "--port", "0", "--dataset", DATASET,
            "--token-file", str(file),
        ]  # fmt: skip
        with _server(command, self.folder / "graph-api.log", token) as server:
            yield server

    @contextmanager
    def answering(self, seconds: float) -> Iterator[Server]:
        """Run a server that takes everything, and answers after so many seconds."""
        command = [
            "-m",
            "bench.answering",
            "--seconds",
            str(seconds),
            "--dataset",
            DATASET,
        ]
        with _server(command, self.folder / "answering.log", "EAABanything") as server:
            yield server


@contextmanager
def _server(command: Sequence[str], log: Path, token: str) -> Iterator[Server]:
    with log.open("ab") as words:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=words,
        )  # fmt: skip
    try:
        assert process.stdout
        address = _ADDRESS.search(process.stdout.readline())
        if address is None:
            raise BenchError(f"{command[1]} did not start; see {log}.")
        yield Server(address.group(), process.pid, token)
    finally:
        process.terminate()
        process.wait(timeout=60)
