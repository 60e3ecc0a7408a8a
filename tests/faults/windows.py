"""The fourteen windows of the protocol, W0 to W13: a trial in each, looked at at once.

Each function kills a worker in its window, but for W6, which takes the line to Meta from
it, and W13, which takes the ledger; in W3 and W10 two of three trials leave a COMMIT
unheard instead. It holds the ledger against what the papers say of that, before and after
the rescue, and leaves the rest to the recovery. One request is out at a time, so that the
ledger's word can be exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

import sqlalchemy as sa
from tests.faults.books import Books
from tests.faults.kills import fates
from tests.faults.mortal import Deed, Pace, Point
from tests.faults.play import Play
from tests.faults.world import DATABASE, World

from meta_capi.ledger import Ledger

ROWS: Final = 130
SLICE: Final = 100
# Two slices are claimed at a time, and either may be the first: what so many come to.
_SLICES: Final = ({0}, {SLICE, ROWS - SLICE}, {ROWS})
_FACTS: Final = """
with mine as (select * from capi.batches where dataset_id = %(dataset)s),
asked as (select a.* from capi.attempts a join mine using (batch_id))
select
    (select count(*) from capi.deliveries where dataset_id = %(dataset)s) as recorded,
    (select count(*) from mine where state = 'sending') as sending,
    (select coalesce(sum(events), 0) from mine where state = 'sending') as events_out,
    (select count(*) from mine where state = 'claimed') as claimed,
    (select count(*) from mine where state = 'split') as split,
    (select count(*) from asked) as requests,
    (select count(*) from asked where outcome = 'sending') as open_requests,
    (select count(*) from asked where outcome not in ('not_sent', 'sending')) as answered,
    (select count(*) from asked where outcome = 'not_sent') as not_sent,
    (select count(*) from capi.deliveries
        where dataset_id = %(dataset)s and state = 'in_doubt') as in_doubt,
    (select count(*) from (
        select source_key from harness.moves m join mine using (batch_id)
        where depth = 0 group by 1 having count(*) > 1) again) as claimed_again
"""
_UNBEGUN: Final = """
select source_key from harness.moves m
where m.dataset_id = %s and not exists (
    select from harness.moves o join capi.attempts a using (batch_id)
    where o.dataset_id = m.dataset_id and o.source_key = m.source_key
)
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the ledger says of one dataset."""

    recorded: int
    sending: int
    events_out: int
    claimed: int
    split: int
    requests: int
    open_requests: int
    answered: int
    not_sent: int
    in_doubt: int
    claimed_again: int


def _facts(play: Play) -> Facts:
    query = _FACTS.replace("%(dataset)s", f"'{play.shop.dataset}'")
    return Facts(*play.world.sql(query)[0])


class Look:
    """A look at ledger and Meta while nobody works."""

    def __init__(self, play: Play) -> None:
        play.world.await_quiet()
        self.ledger = _facts(play)
        self.receipts = play.shop.receipts()
        self.arrived = play.shop.requests()
        self._unbegun = {key for (key,) in play.world.sql(_UNBEGUN, play.shop.dataset)}
        ids = {order.key: order.event_id for order in play.shop.orders}
        play.expect(
            "arrived without an intent",
            [key for key in self._unbegun if ids[key] in self.receipts], [],
        )  # fmt: skip


def _rescue(play: Play) -> None:
    """Let the lease end, and clear the desks as the next attempt would."""
    play.let_time_pass()
    engine = sa.create_engine(play.world.postgres.url(DATABASE), hide_parameters=True)
    Ledger(engine).rescue()
    engine.dispose()


def _die(play: Play, point: Point) -> Look:
    """Let the first attempt die at a point; look."""
    worker = play.deliver(point)
    play.expect(f"death at {point.name} #{point.nth}", worker.wait(), "killed")
    play.kills += 1
    return Look(play)


def _rescued(play: Play, in_doubt: int) -> None:
    """Expect so many in doubt after the rescue, and nothing open."""
    _rescue(play)
    facts = Look(play).ledger
    play.expect("in doubt after the rescue", facts.in_doubt, in_doubt)
    play.expect("open after the rescue", facts.sending + facts.claimed, 0)


def _whole(play: Play, look: Look, *slices: int) -> None:
    """Expect one of so many slices in the ledger, each of them whole."""
    wanted = set().union(*(_SLICES[number] for number in slices))
    recorded = look.ledger.recorded
    play.expect(f"rows recorded ({recorded}) of whole slices", recorded in wanted, True)


def _request(rng: Random) -> int:
    return rng.randint(1, 5)


def w0(play: Play) -> None:
    """While rows are read: the ledger says what it said before.

    The slice before may be on its way to it, whole or not at all.
    """
    nth = play.rng.randint(1, 2)
    look = _die(play, Point("slice", nth))
    play.expect("rows recorded", look.ledger.recorded in {0, SLICE * (nth - 1)}, True)


def w1(play: Play) -> None:
    """Planned and committed, and Airflow not told: planned again, it is the same run."""
    play.runs = {"again": play.shop.interval()}
    numbers = []
    for point in (Point("planned"), None):
        outcome = play.begin("plan", "again", point=point).wait()
        play.expect("plan", outcome, "killed" if point else "done")
        query = "select run_no from capi.runs where dataset_id = %s and run_id like '%%again'"
        numbers.append(play.world.sql(query, play.shop.dataset))
    play.kills += 1
    play.expect("runs", len(numbers[0]), 1)
    play.expect("the run planned again", numbers[1], numbers[0])
    play.expect("rows recorded", Look(play).ledger.recorded, 0)


def w2(play: Play) -> None:
    """Inside the claim: of its slice the ledger says what it said before."""
    _whole(play, _die(play, Point("claim.open", play.rng.randint(1, 2))), 0, 1)


def w3(play: Play) -> None:
    """The claim's COMMIT is unheard: the step is asked again, and made once."""
    deed = play.rng.choice((Deed.DIE, Deed.UNHEARD, Deed.UNDONE))
    if deed is Deed.DIE:
        look = _die(play, Point("claim.commit"))
        _whole(play, look, 1, 2)
        play.expect("requests", look.ledger.requests, 0)
        _rescued(play, 0)
        return
    worker = play.deliver(Point("claim.commit", play.rng.randint(1, 2), deed))
    play.expect("the worker whose COMMIT was unheard", worker.wait(), "done")
    look = Look(play)
    play.expect("rows recorded", look.ledger.recorded, ROWS)
    play.expect("claimed again", look.ledger.claimed_again, 0)
    play.expect("in doubt", look.ledger.in_doubt, 0)
    play.expect("requests that arrived", look.arrived, look.ledger.requests)


def w4(play: Play) -> None:
    """Claimed, not begun: nothing had left, and that is proved."""
    look = _die(play, Point("after_claim"))
    _whole(play, look, 1, 2)
    play.expect("requests", (look.ledger.requests, look.arrived), (0, 0))
    _rescued(play, 0)


def w5(play: Play) -> None:
    """Begun, no socket opened: nothing left, which cannot be proved."""
    _die_sending(play, "after_begin", arrives=False)


def w6(play: Play) -> None:
    """Refused connections: nothing left, and that is proved; nobody dies."""
    # Port 1 is nobody's.
    worker = play.deliver(meta_port=1)
    play.expect("the worker without a line", worker.wait(), "done")
    look = Look(play)
    play.expect("requests not sent", look.ledger.not_sent, look.ledger.requests)
    play.expect("some were tried", look.ledger.requests > 0, True)
    play.expect("requests that arrived", look.arrived, 0)
    play.expect("in doubt", look.ledger.in_doubt, 0)
    play.expect("open", look.ledger.sending + look.ledger.claimed, 0)


def w7(play: Play) -> None:
    """While the body leaves, before its last byte."""
    _die_sending(play, "mid_body", arrives=False)


def w8(play: Play) -> None:
    """After the last byte, before the answer: the real doubt."""
    _die_sending(play, "body_left", arrives=True)


def w9(play: Play) -> None:
    """The answer read, and not written down."""
    _die_sending(play, "after_answer", arrives=True)


def _die_sending(play: Play, name: str, *, arrives: bool) -> None:
    look = _die(play, Point(name, _request(play.rng)))
    ledger = look.ledger
    play.expect("batches being sent", (ledger.sending, ledger.open_requests), (1, 1))
    play.expect("requests that arrived", look.arrived, ledger.requests - (not arrives))
    _rescued(play, ledger.events_out)


def w10(play: Play) -> None:
    """The settlement's COMMIT is unheard: it stands, or is made again; never resent."""
    deed = play.rng.choice((Deed.DIE, Deed.UNHEARD, Deed.UNDONE))
    point = Point("settle.commit", _request(play.rng), deed)
    if deed is Deed.DIE:
        look = _die(play, point)
        play.expect("requests open", look.ledger.open_requests, 0)
        play.expect("answers", look.ledger.answered, look.arrived)
        _rescued(play, 0)
        return
    worker = play.deliver(point)
    play.expect("the worker whose COMMIT was unheard", worker.wait(), "done")
    look = Look(play)
    play.expect("in doubt", look.ledger.in_doubt, 0)
    play.expect("requests that arrived", look.arrived, look.ledger.requests)


def w11(play: Play) -> None:
    """All settled, and Airflow not told: the next attempt has nothing to send."""
    look = _die(play, Point("returned"))
    play.expect("open", look.ledger.sending + look.ledger.claimed, 0)
    play.expect("in doubt", look.ledger.in_doubt, 0)
    play.expect("the next attempt", play.deliver().wait(), "done")
    play.expect("requests of the next attempt", Look(play).arrived, look.arrived)


def w12(play: Play) -> None:
    """Between the parts of a split batch: the refused parent was not processed."""
    look = _die(play, Point("after_split", play.rng.randint(1, 3)))
    play.expect("a batch was split", look.ledger.split > 0, True)
    play.expect("batches being sent", look.ledger.sending, 0)
    play.expect("answers", look.ledger.answered, look.arrived)
    _rescued(play, 0)


def w13(play: Play) -> None:
    """The ledger is away while an answer is in hand, for a while or beyond the lease."""
    world = play.world
    long = play.rng.random() < 0.4
    # The worker asks for as long as its lease.
    pace = (
        Pace(lease=1.5, cover=0.5, deadline=0.3, renewed_every=0.25) if long else None
    )
    worker = play.deliver(
        Point("after_answer", _request(play.rng), Deed.STOP), pace=pace
    )
    play.expect("the worker stops", worker.wait_for_stop(), True)
    events = _facts(play).events_out
    world.strike_database()
    worker.go_on()
    if long:
        worker.wait(2.5)
    world.restore_database()
    worker.wait()
    look = Look(play)
    play.expect("in doubt", look.ledger.in_doubt, events if long else 0)
    play.expect("requests open", look.ledger.open_requests, 0)


WINDOWS: Final[Mapping[str, Callable[[Play], None]]] = {
    f"W{number}": window
    for number, window in enumerate(
        (w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11, w12, w13)
    )
}


def failpoint(world: World, rng: Random, name: str) -> tuple[Play, Books]:
    """Play one trial in one window."""
    play = Play(world, rng)
    policy = rng.choice(("resend", "hold"))
    # In the first batch a bad row, so that each window can also be met in a split.
    rows = ["good", "bad", *fates(rng, ROWS - 2, rng.randint(0, 2))]
    play.open(
        rows, policy=policy, events_per_request=20, requests_in_flight=1,
        rows_per_slice=SLICE,
    )  # fmt: skip
    WINDOWS[name](play)
    return play, play.close()
