"""One table of moves: in code, in the ledger's trigger, and in a real PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import psycopg
import pytest
from tests.conftest import Database

import meta_capi
from meta_capi import lifecycle
from meta_capi.lifecycle import EDGES, MOVES, State, diagram
from meta_capi.sql import migrations

SCHEMA = Path(meta_capi.__file__).parent / "sql" / "migrations" / "0001_ledger.sql"
STARTS = {end for start, end in MOVES if start is None}

# A row that has what every state asks for.
INSERT = """
    insert into capi.deliveries (
        dataset_id, feed, source_key, event_name, event_id, state, reason, event_time,
        cursor_at, batch_id, run_no, digest, doubt_since
    ) values (
        '1234567890', 'store', %(key)s, 'Purchase', %(key)s, %(state)s, 'limit', now(),
        now(), 1, 1, '\\x00', now()
    )
"""
MOVE = "update capi.deliveries set state = %(state)s where source_key = %(key)s"


@pytest.fixture(scope="module")
def schema() -> str:
    return SCHEMA.read_text(encoding="utf-8")


@pytest.fixture
def ledger(database: Database) -> Iterator[psycopg.Connection]:
    """A ledger's schema without a ledger's code."""
    with psycopg.connect(database.dsn) as connection:
        for migration in migrations():
            connection.execute(migration.text)
        yield connection


class TestTheTable:
    def test_the_letters_are_those_of_the_runbook_each_once(self) -> None:
        assert "".join(edge.letter for edge in EDGES) == "abcdefghijkl"
        assert len({edge.verb for edge in EDGES}) == len(EDGES)

    def test_no_edge_leads_out_of_accepted(self) -> None:
        assert not [move for move in MOVES if move[0] is State.ACCEPTED]

    def test_every_state_is_reached_and_every_other_one_can_be_left(self) -> None:
        assert {end for _, end in MOVES} == set(State)
        assert {start for start, _ in MOVES} == {None, *State} - {State.ACCEPTED}

    def test_a_move_goes_by_one_edge_only(self) -> None:
        """Else nobody could say which letter a row has taken."""
        pairs = [
            (start, edge.leads)
            for edge in EDGES
            for start in edge.starts
            if start is not edge.leads
        ]
        assert sorted(map(str, pairs)) == sorted(map(str, MOVES))

    def test_only_a_claimed_delivery_is_judged_by_meta(self) -> None:
        """`in_doubt` is the exception: a person may have looked in Events Manager."""
        refused = {start for start, to in MOVES if to is State.REFUSED}
        assert refused == {State.CLAIMED}
        taken = {start for start, to in MOVES if to is State.ACCEPTED}
        assert taken == {State.CLAIMED, State.IN_DOUBT}

    def test_what_may_be_at_meta_is_never_written_off_as_not_sent(self) -> None:
        gone = {State.WITHHELD, State.EXPIRED, State.QUARANTINED, State.REFUSED}
        assert not {end for start, end in MOVES if start is State.IN_DOUBT} & gone

    def test_whatever_may_be_claimed_may_be_suspect(self) -> None:
        """A ledger put back from a copy does not know what was claimed since."""
        (claim,) = (edge for edge in EDGES if edge.letter == "b")
        (suspect,) = (edge for edge in EDGES if edge.letter == "l")
        assert suspect.starts == claim.starts

    def test_a_new_row_is_never_at_meta(self) -> None:
        assert STARTS.isdisjoint({State.ACCEPTED, State.REFUSED})

    def test_the_module_tells_the_same_story_as_its_table(self) -> None:
        story = lifecycle.__doc__ or ""
        told = re.findall(r"^    ([a-l]) (hold back|\w+) ", story, re.MULTILINE)
        assert told == [(edge.letter, edge.verb) for edge in EDGES]

    def test_the_diagram_draws_every_move_once(self) -> None:
        drawn = re.findall(r"^ +(\S+) --> (\S+): ([a-l]) ", diagram(), re.MULTILINE)
        assert len(drawn) == len(MOVES)
        assert {(start, end) for start, end, _ in drawn} == {
            (start or "[*]", end) for start, end in MOVES
        }


class TestTheSchema:
    def test_the_trigger_lists_the_moves_of_the_table(self, schema: str) -> None:
        (listed,) = re.findall(
            r"only_lettered_edges before update.*?not in \((.*?)\n    \)",
            schema,
            re.DOTALL,
        )
        pairs = re.findall(r"\('(\w+)', '(\w+)'\)", listed)
        assert len(pairs) == len(set(pairs))
        assert set(pairs) == {(start, end) for start, end in MOVES if start}

    def test_the_trigger_on_new_rows_lists_the_beginnings(self, schema: str) -> None:
        (listed,) = re.findall(
            r"only_lettered_beginnings.*?not in \((.*?)\)", schema, re.DOTALL
        )
        assert set(re.findall(r"'(\w+)'", listed)) == STARTS

    def test_the_type_lists_the_states_with_the_letters_that_lead_there(
        self, schema: str
    ) -> None:
        (listed,) = re.findall(r"delivery_state as enum \((.*?)\);", schema, re.DOTALL)
        lines = re.findall(r"'(\w+)',? +-- ([a-l](?:, [a-l])*):", listed)
        assert [name for name, _ in lines] == [state.value for state in State]
        for name, letters in lines:
            leading = [edge.letter for edge in EDGES if edge.leads == name]
            assert letters.split(", ") == leading


class TestTheDatabase:
    """A real PostgreSQL refuses what the table does not have."""

    def test_it_makes_every_move_of_the_table_and_refuses_every_other(
        self, ledger: psycopg.Connection
    ) -> None:
        for start, end in product(State, State):
            key = f"{start}-{end}"
            ledger.execute("alter table capi.deliveries disable trigger user")
            ledger.execute(INSERT, {"key": key, "state": start.value})
            ledger.execute("alter table capi.deliveries enable trigger user")
            allowed = start is end or (start, end) in MOVES
            assert _succeeds(ledger, MOVE, key, end) is allowed, key
            row = ledger.execute(
                "select state from capi.deliveries where source_key = %s", [key]
            ).fetchone()
            assert row == (end.value if allowed else start.value,)

    def test_an_accepted_delivery_stays_accepted_whoever_asks(
        self, ledger: psycopg.Connection
    ) -> None:
        assert _succeeds(ledger, INSERT, "ord-1", State.CLAIMED)
        assert _succeeds(ledger, MOVE, "ord-1", State.ACCEPTED)
        for state in set(State) - {State.ACCEPTED}:
            assert not _succeeds(ledger, MOVE, "ord-1", state)

    def test_a_new_row_starts_where_the_table_says_and_nowhere_else(
        self, ledger: psycopg.Connection
    ) -> None:
        for state in State:
            starts = _succeeds(ledger, INSERT, state.value, state)
            assert starts is (state in STARTS), state


def _succeeds(
    ledger: psycopg.Connection, statement: str, key: str, state: State
) -> bool:
    try:
        with ledger.transaction():
            ledger.execute(statement, {"key": key, "state": state.value})
    except psycopg.errors.IntegrityConstraintViolation:
        return False
    return True
