"""No room: memory that ends, disks that are full, folders that nobody may write."""

from __future__ import annotations

import resource
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import create_engine
from tests.faults import world_ledger as world
from tests.faults.test_ledger_size import grow_old
from tests.faults.world_ledger import (
    DELIVER,
    Shop,
    as_counted,
    ended,
    nothing_twice,
    start_program,
)
from tests.ledger.conftest import DATASET, Bench

from demo.postgres import Postgres
from graph_simulator import Simulator
from meta_capi.data_docs import publish
from meta_capi.errors import LedgerError
from meta_capi.ledger import Ledger

ledger, bench = world.ledger, world.bench

MB = 1 << 20
WAL_FILE = 16 * MB
RESULT: Final[Mapping[str, Any]] = {
    "validation_id": "1", "feed": "store_orders", "suite": "store_orders",
    "interval_start": "2026-01-01T00:00:00+00:00", "seconds": 1.0, "rows": 10,
    "interval_end": "2026-01-01T01:00:00+00:00", "quarantined": 0,
    "expectations": [],
}  # fmt: skip


SCARCE = f"""
import resource
from pathlib import Path
import tests.faults.world_ledger
pages = int(Path("/proc/self/statm").read_text().split()[0])
most = pages * resource.getpagesize() + {300 * MB}
resource.setrlimit(resource.RLIMIT_AS, (most, most))
{DELIVER}"""


@pytest.mark.matrix("P7")
def test_where_memory_ends_the_run_fails_and_nothing_is_lost_or_sent_twice(
    bench: Bench,
) -> None:
    """Ten rows of twenty megabytes in one slice, and room for 300 in all."""
    bench.tune(rows_per_slice=20, requests_in_flight=1)
    shop = Shop.open(bench, range(100))
    bench.sql(
        "update shop.orders set email = repeat('x', 20000000)"
        " where substr(order_id, 3)::integer between 60 and 69"
    )
    child = start_program(SCARCE, shop.described("small"))
    words, complaints = child.communicate(timeout=60)

    assert child.returncode != 0 or '"error": "' in words, "it was to run out of memory"
    assert "xxxx" not in words + complaints
    nothing_twice(bench)
    sent = bench.states().get("accepted", 0)
    assert 0 < sent < 90

    bench.pass_time(181)
    bench.ledger.rescue()
    tally = bench.deliver_each(shop.slices(rows_per_slice=2))

    assert sum(as_counted(tally).values()) == 100
    assert as_counted(tally)["accepted"] == 90
    assert tally.accepted_now == 90 - sent
    nothing_twice(bench)


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Let no file grow beyond a size: of programs that are started inside."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.matrix("P8")
class TestAFullDiskUnderTheLedger:
    """PostgreSQL cannot make the table's file longer, as where the disk is full."""

    @pytest.fixture
    def server(self) -> Iterator[Postgres]:
        with tempfile.TemporaryDirectory(prefix="capi-tests-") as folder:
            Path(folder).chmod(0o755)
            with Postgres(Path(folder), durable=False) as server:
                yield server

    @pytest.fixture
    def small(self, server: Postgres) -> Iterator[Bench]:
        """A ledger as long as one file of PostgreSQL's log: that must not grow shorter."""
        server.create_database("small")
        engine = create_engine(server.url("small"), hide_parameters=True, pool_size=8)
        ledger = Ledger(engine, patience=0.5)
        ledger.migrate()
        grow_old(server.dsn("small"), "store_orders", 120_000)
        with Simulator(datasets=[DATASET], tokens=["EAABtest"]) as simulator:
            yield Bench(ledger, simulator, server.dsn("small"))
        engine.dispose()

    def test_the_run_fails_with_a_sentence_and_goes_on_when_there_is_room(
        self, server: Postgres, small: Bench
    ) -> None:
        slices = [small.rows(*range(at, at + 500)) for at in range(0, 5_000, 500)]
        [(size,)] = small.sql("select pg_relation_size('capi.deliveries')")
        assert size > WAL_FILE

        with files_up_to(size + 1024 * 1024):
            small = self.again(server, small)
        with pytest.raises(LedgerError, match="nothing was half done"):
            small.deliver(*slices)
        small = self.again(server, small)
        small.pass_time(181)
        small.ledger.rescue()
        known = self.new(small)
        assert set(known) <= {"accepted", "pending", "in_doubt"}
        assert 0 < known.total() < 5_000
        small.pass_time(400)
        tally = small.deliver(*slices)

        assert as_counted(tally) == {"accepted": 5_000}
        assert self.new(small) == {"accepted": 5_000}
        assert len(small.receipts()) == 5_000
        assert small.receipts().total() - 5_000 <= known["in_doubt"]

    def again(self, server: Postgres, small: Bench) -> Bench:
        """Start the server again: it takes the limits of this moment, and another port."""
        small.ledger._engine.dispose()
        server.stop()
        server.start()
        engine = create_engine(server.url("small"), hide_parameters=True, pool_size=8)
        return replace(
            small, ledger=Ledger(engine, patience=0.5), dsn=server.dsn("small")
        )

    def new(self, small: Bench) -> Counter[str]:
        """Return the states of what was not there before."""
        return Counter(
            dict(
                small.sql(
                    "select state::text, count(*) from capi.deliveries"
                    " where source_key like 'o-%%' group by 1"
                )
            )
        )


@pytest.mark.matrix("P8", "P9")
class TestDataDocsThatCannotBeWritten:
    """The gate's verdict stands in the ledger; its pages can be made anew at any time."""

    @pytest.mark.parametrize("why", ["full", "closed"])
    def test_nothing_half_is_left_and_the_next_pages_are_whole(
        self, tmp_path: Path, why: str
    ) -> None:
        folder = tmp_path / "docs"
        publish([RESULT], folder)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        if why == "closed":
            folder.chmod(0o555)
        child = start_program(
            PUBLISH, {"results": [{**RESULT, "rows": 99}], "folder": str(folder)},
            limits={resource.RLIMIT_FSIZE: 64} if why == "full" else {},
            powerless=True, PYTHONDONTWRITEBYTECODE="1",
        )  # fmt: skip

        assert ended(child) == ("OSError" if why == "full" else "PermissionError")
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == before

        folder.chmod(0o755)
        publish([{**RESULT, "rows": 99}], folder)
        after = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert after.keys() == before.keys()
        assert after != before


PUBLISH = """
import json, sys
from pathlib import Path
from meta_capi.data_docs import publish
given = json.load(sys.stdin)
try:
    publish(given["results"], Path(given["folder"]))
except OSError as error:
    print(json.dumps(type(error).__name__))
"""


@pytest.mark.matrix("P8", "P9")
class TestAMachineWithoutRoomForFiles:
    def test_a_delivery_writes_no_file_at_all(
        self, bench: Bench, tmp_path: Path
    ) -> None:
        """Neither a full disk nor a closed folder under TMPDIR and logs can stop it."""
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o555)
        shop = Shop.open(bench, range(300))
        child = start_program(
            DELIVER, shop.described("full"), limits={resource.RLIMIT_FSIZE: 0},
            powerless=True, TMPDIR=str(closed), AIRFLOW_HOME=str(closed),
            PYTHONDONTWRITEBYTECODE="1",
        )  # fmt: skip

        assert ended(child)["outcomes"]["accepted"] == 300
        assert list(closed.iterdir()) == []
        nothing_twice(bench)
