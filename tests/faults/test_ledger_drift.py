"""A source that changes its shape between plan and deliver.

Either the run ends in one sentence before anything is sent, or each row has a state: no
row is sent as what it is not, and no driver's words come through.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from tests.faults import world_ledger as world
from tests.faults.world_ledger import Shop, as_counted, nothing_twice
from tests.ledger.conftest import Bench

from meta_capi.errors import SourceError
from meta_capi.source import Shard

ledger, bench = world.ledger, world.bench

ORDERS = range(1, 41)
TABLE = "alter table shop.orders "

REFUSED = {
    "table gone": ("drop table shop.orders", "has no table shop.orders"),
    "table renamed": (TABLE + "rename to order_s", "did you mean order_s?"),
    "column gone": (TABLE + "drop column email", "has no column email"),
    "column renamed": (
        TABLE + "rename column amount to amounts",
        "has no column amount; did you mean amounts?",
    ),
    "consent gone": (TABLE + "drop column consent", "has no column consent"),
    "cursor is text": (
        TABLE + "alter column loaded_at type text",
        "cursor loaded_at holds text",
    ),
    "cursor is a number": (
        TABLE
        + "alter column loaded_at type bigint using extract(epoch from loaded_at)",
        "cursor loaded_at holds whole numbers",
    ),
    "key is a number": (
        TABLE + "alter column order_id type bigint using substr(order_id, 3)::bigint",
        "cut when order_id held another type",
    ),
    "not ours to read": (
        "revoke all on shop.orders from reader; revoke all on schema shop from reader",
        "has no table|may not read",
    ),
    "a view that fails": (
        TABLE + "rename to raw; create view shop.orders as select order_id, loaded_at,"
        " bought_at, event_id, email, (1 / (length(email) - length(email)))::text as"
        " amount, consent from shop.raw; grant select on shop.orders to reader",
        "could not read shop.orders .*22012",
    ),
}
HELD = {
    "times are text": (
        TABLE + "alter column bought_at type text using 'yesterday'",
        {"quarantined": 40},
    ),
    "times are numbers": (
        TABLE + "alter column bought_at type bigint using 1",
        {"quarantined": 40},
    ),
    "amounts are empty": (TABLE + "alter column amount type text using null", None),
    "consent is text": (
        TABLE + "alter column consent type text using 'perhaps'",
        {"withheld": 40},
    ),
    "consent is a number": (
        TABLE + "alter column consent type integer using 0",
        {"withheld": 40},
    ),
    "e-mails are numbers": (
        TABLE + "alter column email type integer using 7",
        {"withheld": 40},
    ),
}
HARMLESS = {
    "a column more": TABLE + "add column note text default 'new'",
    "another order": TABLE + "drop column event_id, add column event_id text",
    "amounts are numbers": TABLE
    + "alter column amount type numeric using amount::numeric",
    "a view": TABLE
    + "rename to raw; create view shop.orders as select * from shop.raw",
    "another view": (
        TABLE
        + "rename to raw; create view shop.orders as select consent, amount, email,"
        " event_id, bought_at, loaded_at, order_id from shop.raw"
    ),
    "keys of fixed length": TABLE + "alter column order_id type varchar(40)",
}


@pytest.mark.matrix("S9")
class TestASourceThatChangesItsShape:
    @pytest.fixture
    def shop(self, bench: Bench) -> Iterator[Shop]:
        shop = Shop.open(bench, ORDERS)
        bench.sql(
            "drop role if exists reader; create role reader;"
            " grant usage on schema shop to reader; grant select on shop.orders to reader"
        )
        yield shop
        bench.sql("drop owned by reader; drop role reader")

    def change(self, shop: Shop, statement: str) -> list[Shard]:
        """Plan; then change the source. Return the shards that were planned."""
        shards = shop.source().shards(shop.interval, 10)
        assert len(shards) == 4
        for each in statement.split("; "):
            shop.bench.sql(each)
        return shards

    def deliver(self, bench: Bench, shop: Shop, shards: list[Shard]) -> Counter[str]:
        """Deliver each shard in a task of its own, as a role that may read the source."""
        engine = sa.create_engine(
            bench.ledger._engine.url, hide_parameters=True,
            connect_args={"options": "-c role=reader"},
        )  # fmt: skip
        found: Counter[str] = Counter()
        try:
            for shard in shards:
                source = shop.source(engine)
                read = source.read(shop.interval, shard, 100)
                tally = bench.deliver_each(some.columns for some in read)
                found.update(as_counted(tally))
        finally:
            engine.dispose()
        return found

    @pytest.mark.parametrize("drift", REFUSED)
    def test_into_what_the_feed_does_not_know_it_ends_the_run(
        self, bench: Bench, shop: Shop, drift: str
    ) -> None:
        statement, sentence = REFUSED[drift]
        shards = self.change(shop, statement)

        with pytest.raises(SourceError, match=sentence) as caught:
            self.deliver(bench, shop, shards[1:])

        assert caught.value.__cause__ is None
        assert bench.receipts() == Counter()
        assert bench.states() == {}

    @pytest.mark.parametrize("drift", HELD)
    def test_into_values_that_mean_nothing_each_row_is_held(
        self, bench: Bench, shop: Shop, drift: str
    ) -> None:
        statement, states = HELD[drift]
        bench.sql("grant select on all tables in schema shop to reader")

        found = self.deliver(bench, shop, self.change(shop, statement))

        assert found == (states or {"quarantined": 40}) == bench.states()
        assert bench.receipts() == Counter()

    @pytest.mark.parametrize("drift", HARMLESS)
    def test_into_what_says_the_same_every_row_goes_out(
        self, bench: Bench, shop: Shop, drift: str
    ) -> None:
        shards = self.change(shop, HARMLESS[drift])
        bench.sql("grant select on all tables in schema shop to reader")

        assert self.deliver(bench, shop, shards) == {"accepted": 40} == bench.states()
        nothing_twice(bench)

    def test_while_it_is_read_it_waits_for_the_reader(
        self, bench: Bench, shop: Shop
    ) -> None:
        """A reading transaction keeps the table's shape, whoever wants to change it."""
        slices = shop.slices(rows_per_slice=10)
        first = next(slices)
        with pytest.raises(Exception, match="lock timeout"):
            bench.sql("set lock_timeout = '100ms'; alter table shop.orders drop email")

        tally = bench.deliver(first, *slices)

        assert as_counted(tally) == {"accepted": 40}


def test_every_column_of_the_feed_is_asked_for(bench: Bench) -> None:
    """Else a drift of the others would go unseen here."""
    named = " ".join(
        [*(text for text, _ in REFUSED.values()), *(text for text, _ in HELD.values())]
    )
    assert all(column in named for column in bench.feed.columns)
