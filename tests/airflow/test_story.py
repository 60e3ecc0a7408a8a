"""What a task's log says is true, short, and in the catalogue's words."""

from __future__ import annotations

import logging
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_airflow.story import (
    OUTCOMES,
    dropped_keys_lines,
    merged,
    outcome_table,
    progress,
    reasons_table,
    table,
)
from meta_capi.catalogue import REASONS, Effect
from meta_capi.lifecycle import State
from meta_capi.tally import Tally

words = st.text("abcdefghij._", min_size=1, max_size=20)
counts = st.dictionaries(
    st.sampled_from(sorted(map(str, OUTCOMES))), st.integers(0, 9**9)
)
codes = st.dictionaries(st.sampled_from(sorted(REASONS)), st.integers(1, 9**9))


class TestATable:
    @given(st.lists(st.tuples(words, st.integers(0, 9**9)), min_size=1))
    def test_its_columns_stand_below_one_another(
        self, rows: list[tuple[str, int]]
    ) -> None:
        lines = table(["name", "rows"], rows)
        assert len({len(line) for line in lines}) == 1
        assert [line.split()[0] for line in lines[1:]] == [name for name, _ in rows]
        read = [int(line.split()[1].replace(",", "")) for line in lines[1:]]
        assert read == [count for _, count in rows]

    def test_nothing_stands_for_an_unknown_number(self) -> None:
        assert table(["a", "b"], [["x", None]]) == ["a  b", "x"]


class TestTheOutcomes:
    @given(counts)
    def test_they_add_up_below_the_line(self, outcomes: dict[str, int]) -> None:
        rows = sum(outcomes.values())
        lines = outcome_table(outcomes, rows)
        assert lines[-1] == f"source rows {rows:,}; outcomes {rows:,}"
        shown = [int(line.split()[1].replace(",", "")) for line in lines[1:-1]]
        assert sum(shown) == rows

    def test_a_gap_shows(self) -> None:
        assert outcome_table({"accepted": 9}, 10)[-1] == "source rows 10; outcomes 9"

    def test_an_outcome_of_a_dry_run_is_shown_too(self) -> None:
        lines = outcome_table({"would be sent": 3}, 3)
        assert any(line.startswith("would be sent") for line in lines)

    def test_every_state_a_report_counts_has_its_line(self) -> None:
        # Who is claimed is on the way and counts as pending.
        assert set(OUTCOMES) == set(State) - {State.CLAIMED}


class TestReasons:
    @given(codes)
    def test_the_most_common_come_first_with_what_to_do(
        self, reasons: dict[str, int]
    ) -> None:
        lines = reasons_table(reasons, most=2)
        heads = [line for line in lines if not line.startswith(" ")]
        shown = [int(line.split(" ")[0].replace(",", "")) for line in heads]
        assert shown == sorted(reasons.values(), reverse=True)[:2]
        assert sum("To do:" in line for line in lines) == len(heads)
        assert all(len(line) <= 90 for line in lines if line.startswith(" "))

    @given(codes)
    def test_only_what_was_left_out_of_events_is_said_to_be(
        self, flaws: dict[str, int]
    ) -> None:
        dropped = {
            code: count
            for code, count in flaws.items()
            if REASONS[code].effect in (Effect.KEY_DROPPED, Effect.QUARANTINED)
        }
        lines = dropped_keys_lines(flaws, most=4)
        shown = [int(line.split(" ")[0].replace(",", "")) for line in lines]
        assert shown == sorted(dropped.values(), reverse=True)[:4]

    @given(st.lists(counts, max_size=5))
    def test_the_counts_of_all_shards_are_added(
        self, shards: list[dict[str, int]]
    ) -> None:
        tallies = [{"outcomes": outcomes} for outcomes in shards]
        total = sum((Counter(outcomes) for outcomes in shards), Counter())
        assert Counter(merged(tallies, "outcomes")) == total


class TestProgress:
    def test_it_is_told_every_few_seconds_and_not_more_often(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        at = [0.0]
        report = progress(logging.getLogger("progress"), 1_000, lambda: at[0])
        tally = Tally(rows=1)
        for second in range(61):
            at[0] = second
            report(tally)
        assert len(caplog.messages) == 12

    def test_it_tells_rate_outcomes_and_time_left(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        at = [0.0]
        report = progress(logging.getLogger("progress"), 10_000, lambda: at[0])
        at[0] = 10.0
        tally = Tally(rows=5_000)
        tally.settle(State.ACCEPTED, 3_900)
        tally.settle(State.WITHHELD, 100)
        report(tally)
        assert caplog.messages == [
            "4,000 of 10,000 rows, 400 rows/s: 3,900 accepted, 0 refused, 100 held, "
            "1,000 in flight, about 15 s left."
        ]

    def test_without_a_total_it_promises_no_end(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        at = [0.0]
        report = progress(logging.getLogger("progress"), None, lambda: at[0])
        at[0] = 10.0
        report(Tally(rows=5))
        (line,) = caplog.messages
        assert re.match(r"0 of \? rows", line)
        assert "left" not in line
