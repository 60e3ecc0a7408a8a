"""What a task's log says is true, short, and in the catalogue's words."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_airflow.story import (
    OUTCOMES,
    dropped_keys_lines,
    labelled,
    merged,
    next_lines,
    outcome_table,
    reasons_lines,
    table,
)
from meta_capi.catalogue import CATALOGUE, REASONS, Effect, anchor
from meta_capi.lifecycle import State
from meta_capi.tally import WOULD_BE_SENT

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
        shown = [int(line.split()[-2].replace(",", "")) for line in lines[1:-1]]
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
    def test_the_most_common_come_first_with_what_to_do_and_where_to_read(
        self, reasons: dict[str, int]
    ) -> None:
        lines = reasons_lines(reasons, "sales", most=2)
        heads = [line for line in lines if " × " in line and line[0] != " "]
        shown = [int(line.split(" ")[0].replace(",", "")) for line in heads]
        assert shown == sorted(reasons.values(), reverse=True)[:2]
        told = [line for line in lines if line.startswith("    See ")]
        assert [line.partition("#")[2] for line in told] == [
            anchor(head.split(" ")[2]) for head in heads
        ]
        assert sum("To do:" in line for line in lines) == len(heads)
        assert any("meta-capi explain KEY" in line for line in lines) == bool(reasons)

    @given(codes)
    def test_none_is_kept_quiet(self, reasons: dict[str, int]) -> None:
        lines = reasons_lines(reasons, "sales", most=3)
        heads = [line for line in lines if " × " in line or " more for " in line]
        shown = [int(line.split(" ")[0].replace(",", "")) for line in heads]
        assert sum(shown) == sum(reasons.values())

    def test_a_code_of_metas_has_the_entry_that_speaks_of_it(self) -> None:
        lines = reasons_lines({"meta.100.2804009": 2, "meta.100.31": 1}, "sales")
        assert "2 × meta.100.2804009 (refused)" in lines
        assert any(line.endswith("#meta.100") for line in lines)
        assert "meta.100" in CATALOGUE

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


class TestWhatToDoNext:
    @given(counts)
    def test_every_outcome_that_needs_somebody_is_named(
        self, outcomes: dict[str, int]
    ) -> None:
        lines = next_lines("sales", outcomes)
        wanted = {
            state for state in State
            if state not in (State.ACCEPTED, State.WITHHELD) and outcomes.get(str(state))
        }  # fmt: skip
        assert all(line.startswith("Next: ") for line in lines)
        assert len(lines) == max(len(wanted), 1)
        for state in wanted:
            assert any(f"{outcomes[str(state)]:,} " in line for line in lines)
        assert (lines[0].startswith("Next: nothing")) == (not wanted)

    def test_after_a_dry_run_nothing_was_sent(self) -> None:
        (line,) = next_lines("sales", {WOULD_BE_SENT: 3, "quarantined": 1})
        assert "nothing was sent" in line
        assert "3 events would go out" in line

    def test_lists_are_named_where_the_page_is_not_known(self) -> None:
        (line,) = next_lines("sales", {"refused": 1})
        assert line.endswith("`meta-capi status sales --list refused`")

    def test_the_page_is_named_where_it_is(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://air.example/flow/")
        (line,) = next_lines("sales", {"refused": 1})
        frame = "https://air.example/flow/plugin/conversions/capi"
        assert line.endswith(f"{frame}/feeds/sales/held?state=refused")
        told = reasons_lines({"window.over": 1}, "sales")
        assert "    See https://air.example/flow/capi/reasons#window.over" in told


@given(st.lists(st.tuples(words, st.none() | words), max_size=5))
def test_labels_stand_above_one_another(rows: list[tuple[str, str | None]]) -> None:
    lines = labelled(rows)
    known = [(label, text) for label, text in rows if text]
    assert [line.split()[0] for line in lines] == [label for label, _ in known]
    starts = {
        len(line) - len(text) for line, (_, text) in zip(lines, known, strict=True)
    }
    assert len(starts) <= 1
