"""Protocols that are broken on purpose, each by one small change: is each found out?

A mutant replaces a few words of a named statement, of a function of the ledger's schema,
or of a method, and puts them back. Words that are no longer there are an error: a mutant
must not become the protocol itself unnoticed. This is the one place where tests patch the
project's code, because what is wanted is code that is wrong.
"""

from __future__ import annotations
import __future__

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from meta_capi import claiming, desk, ledger, verdict
from meta_capi.claiming import Claim
from meta_capi.desk import Desk
from meta_capi.privacy import Privacy
from meta_capi.sending import Sender
from meta_capi.splitting import Splitter
from meta_capi.sql import migrations, queries

__all__ = ["MUTANTS", "STEPS", "WALKS", "Mutant"]

WALKS, STEPS = 5, 50  # in which each is to be found

Connection = psycopg.Connection[dict[str, Any]]
Change = Callable[[Connection], AbstractContextManager[None]]


@dataclass(frozen=True)
class Mutant:
    """A broken protocol, and the words by which the machine finds it out."""

    name: str
    seed: int
    """Of walks that find it soon (`machine_seeds` looks for them)."""
    found_by: str
    """A pattern for what fails: a truth of the machine, or the database's own refusal."""
    changes: tuple[Change, ...]

    @contextmanager
    def at_large(self, connection: Connection) -> Iterator[None]:
        """Break the protocol, and mend it."""
        with ExitStack() as stack:
            for change in self.changes:
                stack.enter_context(change(connection))
            yield


def _replaced(text: str, words: tuple[tuple[str, str], ...]) -> str:
    for old, new in words:
        assert old in text, f"no longer there: {old}"
        text = text.replace(old, new)
    return text


def _query(name: str, *words: tuple[str, str]) -> Change:
    """Change a named statement."""

    @contextmanager
    def change(_: Connection) -> Iterator[None]:
        broken = dict(queries("ledger"))
        broken[name] = _replaced(broken[name], words)
        with ExitStack() as stack:
            for room in (claiming, desk, ledger):
                stack.enter_context(_swapped(room, "_SQL", broken))
            yield

    return change


def _function(name: str, *words: tuple[str, str]) -> Change:
    """Change a function of the ledger's schema."""
    schema = "\n".join(step.text for step in migrations())
    pattern = rf"create function capi\.{name}\(.*?\$\$.*?\$\$"

    @contextmanager
    def change(connection: Connection) -> Iterator[None]:
        found = re.search(pattern, schema, re.DOTALL)
        assert found, f"no longer there: {name}"
        sound = found[0].replace("create function", "create or replace function", 1)
        connection.execute(_replaced(sound, words).encode())
        try:
            yield
        finally:
            connection.execute(sound.encode())

    return change


def _method(owner: Any, name: str, *words: tuple[str, str]) -> Change:
    """Change a function of ours."""

    @contextmanager
    def change(_: Connection) -> Iterator[None]:
        sound = getattr(owner, name)
        source = _replaced(inspect.getsource(sound), words)
        source = f"if True:\n{source}" if source.startswith(" ") else source
        flags = __future__.annotations.compiler_flag
        names: dict[str, Any] = {}
        code = compile(source, f"<{name}, broken>", "exec", flags)
        exec(code, sys.modules[sound.__module__].__dict__, names)
        with _swapped(owner, name, names[name]):
            yield

    return change


@contextmanager
def _swapped(owner: Any, name: str, value: object) -> Iterator[None]:
    sound = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, sound)


_FORGET_WHAT_WAS_OUT: Final = (
    ("else 'in_doubt' end::capi.batch_state", "else 'released' end::capi.batch_state"),
    ("else 'worker.lost' end,", "else 'worker.released' end,"),
    ("when 'claimed' then b.doubt_since", "when b.state then b.doubt_since"),
)
_IN_DOUBT: Final = "coalesce(d.doubt_since, batch.doubt_since)"
_LEASE_RUNS: Final = " and ended_at is null and lease_until > capi.clock()"
_WINDOW: Final = "\n            and delivery.doubt_since + resend_window > capi.clock()"
_SEND_BEFORE: Final = "\n        and coalesce(b.send_before > capi.clock(), true)"


def _verdict(broken: str) -> Change:
    return _method(verdict, "read", ("    return verdict\n", f"    return {broken}\n"))


MUTANTS: Final = (
    # --- the intent, the answer, the lease ----------------------------------------------
    Mutant(
        "the intent is written after the request",
        1,
        "and at Meta",
        (
            _method(
                Desk,
                "begin",
                ("        values = {", "        return 1\n        values = {"),
            ),
            _method(
                Desk,
                "settle",
                (
                    'cursor.execute(_SQL["settle"], values)',
                    """covered = values | {"cover_seconds": self._cover_seconds}
            cursor.execute(_SQL["begin_sending"], covered)
            begun = cursor.fetchone() or {"seq": 0}
            cursor.execute(_SQL["settle"], values | begun)""",
                ),
            ),
        ),
    ),
    Mutant(
        "accepted before the answer",
        1,
        "is accepted, and Meta never had it|nothing was settled",
        (
            _query(
                "begin_sending",
                (
                    "with worker as (",
                    """with too_soon as (
            update capi.deliveries set state = 'accepted', doubt_since = null
            where batch_id = %(batch_id)s and state = 'claimed'
        ), worker as (""",
                ),
            ),
        ),
    ),
    Mutant(
        "nobody is rescued",
        4,
        "is claimed for ever|on the desk of nobody",
        (
            _query(
                "find_lost_workers",
                ("ended_at is null and lease_until", "false and lease_until"),
            ),
        ),
    ),
    Mutant(
        "the rescue gives back what was out",
        2,
        "and at Meta|the feed holds",
        (_query("clear_desks", *_FORGET_WHAT_WAS_OUT),),
    ),
    Mutant(
        "a worker that leaves gives back what was out",
        8,
        "and at Meta",
        (
            _method(
                Desk,
                "leave",
                (
                    '_SQL["clear_desks"]',
                    """_SQL["clear_desks"].replace(
                "else 'in_doubt' end", "else 'released' end"
            ).replace(
                "when 'claimed' then b.doubt_since", "when b.state then b.doubt_since"
            )""",
                ),
            ),
        ),
    ),
    Mutant(
        "a request begins on a lease that is nearly over",
        2,
        "a request that its lease does not cover",
        (_query("begin_sending", (" + make_interval(secs => %(cover_seconds)s)", "")),),
    ),
    Mutant(
        "an ended lease comes back",
        7,
        "an ended lease came back",
        (_query("renew", (_LEASE_RUNS, "")),),
    ),
    Mutant(
        "a request that stood still goes out all the same",
        2,
        "it was begun long ago",
        (
            _method(
                Sender,
                "_ask",
                ("if self._now() - begun > ", "if self._now() - begun > 1e9 + "),
            ),
        ),
    ),
    Mutant(
        "a fenced worker sends all the same",
        1,
        "at Meta|sent again|hold|a repeat",
        (
            _method(
                Desk,
                "begin",
                (
                    "            raise LeaseLostError(",
                    "            return 1\n            raise LeaseLostError(",
                ),
            ),
        ),
    ),
    Mutant(
        "an answer settles whatever it finds",
        2,
        ".",
        (
            _query(
                "settle",
                ("\n        and b.worker_id = %(worker_id)s", ""),
                ("\n        and b.state = 'sending'", ""),
                ("\n        and a.outcome = 'sending'", ""),
            ),
        ),
    ),
    Mutant(
        "the proof of an acceptance is ignored",
        6,
        "is in doubt, and Meta said yes",
        (_method(Desk, "settle", ('if outcome == "accepted":', "if False:")),),
    ),
    # --- what an answer means -----------------------------------------------------------
    Mutant(
        "no answer is taken as not sent",
        1,
        "and at Meta|the feed holds|again and again",
        (
            _verdict(
                "NotSent(verdict.receipt) if isinstance(verdict, Unknown) else verdict"
            ),
            _method(
                Sender,
                "_ask",
                (
                    'Unknown(Receipt(), "answer.none") if error.body_left else NotSent()',
                    "NotSent()",
                ),
            ),
        ),
    ),
    Mutant(
        "any HTTP 200 is a yes",
        1,
        "is accepted, and Meta never had it",
        (_verdict("Accepted(verdict.receipt) if given.status == 200 else verdict"),),
    ),
    Mutant(
        "a yes to another count is a yes",
        3,
        "is accepted, and Meta never had it",
        (
            _verdict(
                "Accepted(verdict.receipt) if verdict.receipt.events_received else verdict"
            ),
        ),
    ),
    Mutant(
        "later is taken as yes",
        4,
        "is accepted, and Meta never had it",
        (
            _verdict(
                "Accepted(verdict.receipt) if isinstance(verdict, Throttled) else verdict"
            ),
        ),
    ),
    Mutant(
        "later is taken as unknown",
        8,
        "a doubt about a clear answer",
        (
            _verdict(
                "Unknown(verdict.receipt, 'answer.unclear') "
                "if isinstance(verdict, Throttled) else verdict"
            ),
        ),
    ),
    # --- doubts, and sending again ------------------------------------------------------
    Mutant(
        "a repeat is never too late",
        2,
        "a repeat after",
        (
            _function("may_claim", (_WINDOW, "")),
            _query("begin_sending", (_SEND_BEFORE, "")),
        ),
    ),
    Mutant(
        "the window is looked at when a row is claimed, and not again",
        46,
        "a repeat after",
        (_query("begin_sending", (_SEND_BEFORE, "")),),
    ),
    Mutant(
        "the window begins with the last request",
        24,
        "a repeat after",
        (
            _query(
                "settle",
                ("coalesce(b.doubt_since, a.started_at)", "a.started_at"),
                ("least(\n                b.send_before, ", "least("),
                (
                    f"else {_IN_DOUBT}",
                    "else coalesce(batch.doubt_since, d.doubt_since)",
                ),
            ),
        ),
    ),
    Mutant(
        "a clear answer ends another request's doubt",
        20,
        "and at Meta",
        (_query("settle", ("else b.doubt_since\n", "else null\n")),),
    ),
    Mutant(
        "what is given back is no more in doubt",
        13,
        "and at Meta",
        (_query("release", (_IN_DOUBT, "null::timestamptz")),),
    ),
    Mutant(
        "a changed row is sent again while it is in doubt",
        15,
        "a repeat that Meta cannot recognise",
        (
            _function(
                "may_claim",
                ("\n            and delivery.digest is not distinct from digest", ""),
            ),
        ),
    ),
    Mutant(
        "a feed that holds sends again",
        1,
        "a repeat, and the feed holds",
        (
            _function(
                "may_claim",
                ("when 'in_doubt' then resend", "when 'in_doubt' then true"),
            ),
        ),
    ),
    Mutant(
        "sent again without a limit",
        10,
        "is sent again and again",
        (
            _function(
                "may_claim", ("\n            and delivery.resends < most_resends", "")
            ),
        ),
    ),
    Mutant(
        "the gate forgets a doubt",
        2,
        "SQLSTATE 23000",
        (
            _query(
                "quarantine_by_gate",
                (
                    "where d.state in ('pending', ",
                    "where d.state in ('in_doubt', 'pending', ",
                ),
            ),
        ),
    ),
    Mutant(
        "what is in doubt expires",
        1,
        "SQLSTATE 23000",
        (
            _query(
                "expire",
                ("and state = 'pending'", "and state in ('pending', 'in_doubt')"),
            ),
        ),
    ),
    Mutant(
        "what Meta accepted is put back",
        3,
        "SQLSTATE 23000",
        (
            _function(
                "may_replay", ("in ('quarantined', ", "in ('accepted', 'quarantined', ")
            ),
        ),
    ),
    # --- rows, batches, parts -----------------------------------------------------------
    Mutant(
        "a row is claimed from another's desk",
        4,
        "'batch_id'",
        (_query("claim", ("where capi.may_claim(", "where true or capi.may_claim(")),),
    ),
    Mutant(
        "a claim believes that all of its rows are new",
        1,
        "on the desk of nobody|sent twice|moved|deliveries were on its desk",
        (
            _method(
                Claim,
                "take",
                ("known = self._take_new()", "known = self._take_new()[:0]"),
            ),
        ),
    ),
    Mutant(
        "what another has taken is new",
        1,
        "SQLSTATE 23514",
        (
            _query(
                "take_new",
                (
                    "on conflict do nothing",
                    "on conflict (source_key, feed, dataset_id) do update set"
                    " state = excluded.state, batch_id = excluded.batch_id",
                ),
            ),
        ),
    ),
    Mutant(
        "a row falls out of the claim",
        1,
        "a row has no outcome, or two",
        (
            _method(
                Claim,
                "_take_known",
                (
                    "rows = [row for row in built.sendable if row in rest]",
                    "rows = [row for row in built.sendable if row in rest][1:]",
                ),
            ),
        ),
    ),
    Mutant(
        "the gate's word is ignored",
        1,
        "and the gate held it",
        (
            _function(
                "held_by_gate",
                ("select delivery.state = 'quarantined'", "select false"),
            ),
        ),
    ),
    Mutant(
        "a row without consent is sent",
        2,
        "an event without consent is sent",
        (
            _method(
                Privacy,
                "keep_consented",
                ("name = self._feed.consent.column", "name = None"),
            ),
        ),
    ),
    Mutant(
        "all of a refused batch is refused",
        3,
        "Meta never refused it alone",
        (
            _method(
                Sender,
                "_refused",
                ("alone = len(batch) == 1 and blame", "alone = True"),
                ("State.REFUSED, 1,", "State.REFUSED, len(batch),"),
                ("return verdict", "return None"),
            ),
        ),
    ),
    Mutant(
        "the last part is refused without being asked about",
        3,
        "Meta never refused it alone",
        (
            _method(
                Splitter,
                "deliver",
                (
                    "            if siblings and siblings.leave_one_guilty and ",
                    """\
            if siblings and siblings.leave_one_guilty and len(batch) == 1:
                seq = self._desk.begin(batch)
                self._sender._refused(batch, seq, refusals[-1], True)
                continue
            if siblings and siblings.leave_one_guilty and """,
                ),
            ),
        ),
    ),
    Mutant(
        "a part gets another part's rows",
        3,
        ".",
        (
            _query(
                "split_batch",
                (
                    "set batch_id = m.batch_id",
                    """set batch_id = (
            select min(id) + max(id) - m.batch_id from unnest(%(child_ids)s::bigint[]) as id
        )""",
                ),
            ),
        ),
    ),
    Mutant(
        "an accepted row is counted twice",
        1,
        "a row has no outcome, or two",
        (
            _method(
                Sender,
                "_accepted",
                (
                    "settle(State.ACCEPTED, len(batch))",
                    "settle(State.ACCEPTED, 2 * len(batch))",
                ),
            ),
        ),
    ),
)
