"""H15-H17: a refused batch is split; the guilty are found, and nobody else pays."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from math import ceil, log2

import pytest
from tests.faults.books_http import SHORT, line_to, send, the_books_agree
from tests.ledger.conftest import Bench

from graph_simulator import Fault, FaultKind
from meta_capi.dispatch import Patience
from meta_capi.errors import StoppedError
from meta_capi.lifecycle import State

# The mean of requests for a batch of 1,000, by the number of guilty events: measured for
# halving with one inference before this product was written.
MEANS = {1: 16, 2: 28, 10: 107}


def refuse(bench: Bench, guilty: Iterable[int]) -> None:
    """Let Meta refuse every request with one of these rows."""
    bench.simulator.faults.add(
        Fault(
            kind=FaultKind.REFUSE_IF, count=None, event_ids=bench.event_ids(*guilty),
            subcode=2804003,
        )
    )  # fmt: skip


def most_requests(guilty: int, of: int = 1_000) -> int:
    """Return the bound for halving: each guilty event has its own way down."""
    return ceil(2 * guilty * log2(of / guilty) + 2 * guilty - 1)


def found(bench: Bench) -> set[str]:
    """Return the refused rows."""
    rows = bench.sql("select source_key from capi.deliveries where state = 'refused'")
    return {key for (key,) in rows}


@pytest.mark.matrix("H15")
class TestTheGuilty:
    def deliver(
        self, bench: Bench, batches: Sequence[Collection[int]], most: int
    ) -> float:
        """Deliver a batch of 1,000 for each set of positions; return the mean cost."""
        guilty = [
            number * 1_000 + place
            for number, places in enumerate(batches)
            for place in places
        ]
        refuse(bench, guilty)
        costs = []
        for number in range(len(batches)):
            rows = bench.rows(*range(number * 1_000, (number + 1) * 1_000))
            costs.append(send(bench, rows).requests)

        assert found(bench) == {f"o-{number}" for number in guilty}
        assert bench.states() == {
            "accepted": len(batches) * 1_000 - len(guilty), "refused": len(guilty),
        }  # fmt: skip
        assert set(bench.receipts().values()) == {1}
        the_books_agree(
            bench, range(1_000 * len(batches)), requests=most * len(batches),
            guilty=guilty,
        )  # fmt: skip
        return sum(costs) / len(costs)

    def test_one_first_last_or_in_the_middle(self, bench: Bench) -> None:
        places = [[0], [999], [499], [500], [123], [876]]
        mean = self.deliver(bench, places, most_requests(1))
        assert mean <= MEANS[1] * 1.1

    def test_two_side_by_side(self, bench: Bench) -> None:
        pairs = [[0, 1], [998, 999], [499, 500], [249, 250]]
        mean = self.deliver(bench, pairs, most_requests(2))
        assert mean <= MEANS[2] * 1.1

    def test_ten_spread(self, bench: Bench) -> None:
        """Ten at once look like a no to everything; four single events clear it up.

        The mean of 24 draws was 116.
        """
        dice = random.Random(7)
        places = [dice.sample(range(1_000), 10) for _ in range(3)]
        mean = self.deliver(bench, places, 128)
        assert mean <= MEANS[10] * 1.1

    def test_ten_as_far_apart_as_can_be_fit_into_the_budget(self, bench: Bench) -> None:
        self.deliver(
            bench, [range(0, 1_000, 100)], bench.feed.limits.requests_per_split
        )

    def test_a_block_of_a_hundred(self, bench: Bench) -> None:
        bench.tune(requests_per_split=999)
        self.deliver(bench, [range(450, 550)], round(213 * 1.1))

    def test_a_block_beyond_the_budget_is_held_by_name_and_refuses_no_innocent(
        self, bench: Bench
    ) -> None:
        """What was not found is quarantined; a person mends it and puts it back."""
        refuse(bench, range(450, 550))

        tally = send(bench, bench.rows(*range(1_000)))

        assert tally.requests == bench.feed.limits.requests_per_split
        assert found(bench) <= {f"o-{number}" for number in range(450, 550)}
        held = bench.states()["quarantined"]
        assert held <= 100
        assert bench.reasons()["split.budget"] == held
        choice = {
            "states": [State.QUARANTINED.value], "reason": "split.budget", "keys": None,
            "start": None, "end": None,
        }  # fmt: skip
        bench.ledger.replay(bench.run(), choice)
        bench.simulator.faults.clear()
        send(bench, bench.rows(*range(1_000)))
        assert bench.states().keys() == {"accepted", "refused"}
        assert set(bench.receipts().values()) == {1}
        the_books_agree(bench, range(1_000), requests=129, guilty=range(450, 550))

    @pytest.mark.matrix("H17")
    def test_if_all_are_refused_nobody_is(self, bench: Bench) -> None:
        """A batch, its halves, its quarters and four single events: then it stops."""
        refuse(bench, range(1_000))

        with pytest.raises(StoppedError, match="not one bad event"):
            send(bench, bench.rows(*range(1_000)))

        assert bench.states() == {"pending": 1_000}
        the_books_agree(bench, range(1_000), requests=11)


@pytest.mark.matrix("H16")
class TestFaultsWhileItIsSplit:
    GUILTY = (13, 14, 37)

    @pytest.mark.parametrize("fault", [
        {"kind": FaultKind.STATUS, "status": 500, "processed": True},
        {"kind": FaultKind.STATUS, "status": 500, "processed": False},
        {"kind": FaultKind.HANG, "processed": True},
        {"kind": FaultKind.HANG_UP_AFTER_READING, "processed": True},
        {"kind": FaultKind.THROTTLE}, {"kind": FaultKind.TRUNCATED_JSON},
    ], ids=lambda fault: f"{fault['kind']}-{fault.get('processed')}")  # fmt: skip
    def test_a_part_without_an_answer_is_asked_again_and_nobody_is_blamed_for_it(
        self, bench: Bench, fault: dict[str, object]
    ) -> None:
        bench.patience = Patience(first_pause=0.0, failures_in_a_row=99, tries=2)
        refuse(bench, self.GUILTY)
        # Each fault of its own, so that the refusal stays when they stop.
        for nth in random.Random(16).sample(range(2, 24), 5):
            bench.simulator.faults.add(Fault(nth=nth, **fault))  # type: ignore[arg-type]
        rows = bench.rows(*range(64))

        send(bench, rows, line=line_to(bench.simulator.url, seconds=SHORT))

        assert found(bench) <= {f"o-{number}" for number in self.GUILTY}
        the_books_agree(bench, range(64), requests=60, guilty=self.GUILTY)
        bench.simulator.faults.clear()
        refuse(bench, self.GUILTY)
        bench.pass_time(300)
        send(bench, rows)
        assert found(bench) == {f"o-{number}" for number in self.GUILTY}
        assert bench.states() == {"accepted": 61, "refused": 3}
        the_books_agree(bench, range(64), requests=90, guilty=self.GUILTY)

    @pytest.mark.parametrize("steps", [4, 7, 12, 18])
    def test_a_death_among_the_parts_loses_none(self, bench: Bench, steps: int) -> None:
        bench.tune(requests_in_flight=1)
        refuse(bench, self.GUILTY)
        rows = bench.rows(*range(64))
        desk = bench.desk()
        # The dead do not tidy up.
        desk.leave = Counter  # type: ignore[method-assign, assignment]
        desk.release = lambda *_, **__: Counter()  # type: ignore[method-assign]
        left = steps

        def die(_: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KilledError

        with suppress(KilledError):
            bench.deliver(rows, desk=desk, probe=die)
        assert bench.states()["claimed"] > 0, "it died too late"
        bench.pass_time(181)
        bench.ledger.rescue()
        bench.pass_time(181 + 61)
        send(bench, rows)

        assert found(bench) == {f"o-{number}" for number in self.GUILTY}
        assert bench.states() == {"accepted": 61, "refused": 3}
        the_books_agree(bench, range(64), requests=60, guilty=self.GUILTY)


class KilledError(BaseException):
    """The process dies here."""
