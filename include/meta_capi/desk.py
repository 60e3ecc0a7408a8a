"""One worker's stay at the ledger: claim, begin, settle, split, release, leave.

The worker's number fences all it writes. When its lease is over, another process may
clear its desk; from then on nothing it writes is taken, save the proof that Meta had
accepted a batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

import psycopg

from meta_capi import spec
from meta_capi.built import Built
from meta_capi.claiming import Claim, Claimed, next_numbers
from meta_capi.errors import LeaseLostError, LedgerError, SchemaError
from meta_capi.ledger import Ledger, ResendPolicy, Run
from meta_capi.lifecycle import State
from meta_capi.payload import Batch, OwedEvent
from meta_capi.sql import migrations, queries
from meta_capi.verdict import Receipt

__all__ = ["COVER_SECONDS", "LEASE_SECONDS", "Desk", "Settled"]

_SQL: Final = queries("ledger")
# Six requests long (SQS advises the same for its leases): a worker that lives renews it
# long before; one that died is found after three minutes.
LEASE_SECONDS: Final = 6 * spec.REQUEST_DEADLINE_SECONDS
# No request begins that the lease does not cover twice over.
COVER_SECONDS: Final = 2 * spec.REQUEST_DEADLINE_SECONDS


@dataclass(frozen=True, slots=True)
class Settled:
    """How many deliveries a settlement moved, and how many of them went in doubt."""

    moved: int
    in_doubt: int


class Desk:
    """A worker's part of the ledger. Its methods may be called from several threads."""

    def __init__(
        self, ledger: Ledger, run: Run, *, policy: ResendPolicy, host: str, pid: int,
        validation_id: int | None = None, lease_seconds: float = LEASE_SECONDS,
        cover_seconds: float = COVER_SECONDS,
    ) -> None:  # fmt: skip
        self._ledger = ledger
        self._run = run
        self._policy = policy
        self._validation_id = validation_id
        self._lease_seconds = lease_seconds
        self._cover_seconds = cover_seconds
        self._host, self._pid = host, pid
        self._sits = False
        given = ledger.run("number_worker")[0]
        self.worker_id: int = given["worker_id"]
        self.given_at: datetime = given["now"]

    @property
    def resends(self) -> bool:
        """Whether the feed's policy sends again what is in doubt."""
        return self._policy.resend

    def arrive(self) -> Self:
        """Sit down, if it does not sit yet. Whoever calls this calls `leave`, too."""
        if self._sits:
            return self
        values = {
            "worker_id": self.worker_id, "run_no": self._run.run_no, "feed": self._run.feed,
            "dataset_id": self._run.dataset_id, "host": self._host, "pid": self._pid,
            "lease_seconds": self._lease_seconds, "schema": migrations()[-1].version,
        }  # fmt: skip

        def step(cursor: psycopg.Cursor[dict[str, Any]]) -> bool:
            cursor.execute(_SQL["meet"], values)
            return bool(cursor.execute(_SQL["arrive"], values).fetchone())

        self._sits = self._ledger.attempt(step)
        if not self._sits:
            raise SchemaError(
                "The ledger's schema is not the one of this program, which is older or "
                "newer; nothing was sent. Bring both to one version: see "
                "docs/deploy.md#upgrading."
            )
        return self

    def renew(self) -> None:
        """Make the lease last longer; LeaseLostError if it is already over.

        A database that is away for less than a lease ends nothing.
        """
        values = {"worker_id": self.worker_id, "lease_seconds": self._lease_seconds}

        def step(cursor: psycopg.Cursor[dict[str, Any]]) -> bool:
            return bool(cursor.execute(_SQL["renew"], values).fetchone())

        if not self._ledger.attempt(step, patience=self._lease_seconds):
            raise LeaseLostError(
                "This worker's lease is over; what it held is with the rescue. It stops here."
            )

    # --- claim ----------------------------------------------------------------------

    def claim(
        self,
        built: Built,
        *,
        most_events: int,
        most_bytes: int,
        limit: int | None = None,
    ) -> Claimed:
        """Record a slice, cut batches from what may be sent, and take them (edges a b g h i j).

        Takes `limit` rows at most. One transaction: after a crash either all of it stands
        or nothing.
        """

        def step(cursor: psycopg.Cursor[dict[str, Any]]) -> Claimed:
            claim = Claim(
                cursor, self._run, self._policy, worker_id=self.worker_id,
                validation_id=self._validation_id, most_events=most_events,
                most_bytes=most_bytes,
            )  # fmt: skip
            return claim.take(built, limit=limit)

        return self._ledger.attempt(step)

    # --- begin and settle -----------------------------------------------------------

    def begin(self, batch: Batch) -> int | None:
        """Write down that a request is about to leave; only then may it.

        Returns:
            The request's number within the batch; None if the batch may not go out any
            more, because the window for a repeat is over.

        Raises:
            LeaseLostError: the lease does not cover the request twice over.
        """
        values = {
            "batch_id": batch.batch_id,
            "worker_id": self.worker_id,
            "cover_seconds": self._cover_seconds,
        }

        def step(cursor: psycopg.Cursor[dict[str, Any]]) -> int | None:
            cursor.execute(_SQL["begin_sending"], values)
            if row := cursor.fetchone():
                seq: int = row["seq"]
                return seq
            cursor.execute(_SQL["is_too_late"], values)
            if cursor.fetchone():
                return None
            raise LeaseLostError(
                f"Batch {batch.batch_id} is no longer this worker's to send. It stops here."
            )

        return self._ledger.attempt(step)

    def settle(
        self, batch: Batch, seq: int, *, outcome: str, receipt: Receipt, batch_state: str,
        delivery_state: State | None, reason: str | None = None,
        wait_seconds: float | None = None, pause_seconds: float = 0.0,
    ) -> Settled:  # fmt: skip
        """Write down an answer and what follows from it, in one step (edges c d e f).

        `delivery_state` None leaves the deliveries claimed: the batch goes on.
        An answer is not let go while the lease lasts, however long the database is away.
        Raises LeaseLostError where the batch was rescued meanwhile.
        """
        values = {
            **_numbers_of(receipt),
            "batch_id": batch.batch_id,
            "seq": seq,
            "worker_id": self.worker_id,
            "outcome": outcome,
            "batch_state": batch_state,
            "delivery_state": delivery_state.value if delivery_state else None,
            "reason": reason,
            "wait_seconds": None if wait_seconds is None else int(wait_seconds),
            "pause_seconds": pause_seconds,
            "resend_window": self._policy.window_seconds,
        }

        def step(cursor: psycopg.Cursor[dict[str, Any]]) -> Settled | None:
            cursor.execute(_SQL["settle"], values)
            row = cursor.fetchone() or {}
            if not row["settled"]:
                return None
            if delivery_state and row["moved"] != row["events"]:
                raise LedgerError(
                    f"Batch {batch.batch_id} holds {row['events']} events, but "
                    f"{row['moved']} deliveries were on its desk; nothing was settled."
                )
            return Settled(row["moved"], row["in_doubt"])

        settled = self._ledger.attempt(step, patience=self._lease_seconds)
        if settled is None:
            if outcome == "accepted":
                self._ledger.run("prove_acceptance", **values)
            raise LeaseLostError(
                f"Batch {batch.batch_id} was rescued before its answer came. It stops here."
            )
        return settled

    def split(
        self, batch: Batch, parts: Sequence[Sequence[OwedEvent]], reason: str
    ) -> list[Batch]:
        """Cut a refused batch; the parts stay on this desk."""

        def step(cursor: psycopg.Cursor[dict[str, Any]]) -> list[Batch]:
            numbers = next_numbers(cursor, len(parts))
            children = [
                Batch(number, batch.root_id, batch.depth + 1, tuple(part))
                for number, part in zip(numbers, parts, strict=True)
            ]
            cursor.execute(
                _SQL["split_batch"],
                {
                    "batch_id": batch.batch_id,
                    "worker_id": self.worker_id,
                    "reason": reason,
                    "child_ids": numbers,
                    "events": [len(child) for child in children],
                    "bytes": [child.size for child in children],
                    "source_keys": [
                        e.source_key for child in children for e in child.events
                    ],
                    "key_batches": [
                        child.batch_id for child in children for _ in child.events
                    ],
                },
            )
            row = cursor.fetchone() or {}
            if row["children"] != len(children) or row["moved"] != len(batch):
                raise LeaseLostError(
                    f"Batch {batch.batch_id} is no longer this worker's to split. It stops here."
                )
            return children

        return self._ledger.attempt(step)

    def release(
        self, batches: Sequence[Batch], *, reason: str, state: State = State.PENDING
    ) -> Counter[str]:
        """Give batches back of which nothing is out (edge d; i where `state` says so).

        What is in doubt stays in doubt (edge f). Returns deliveries by state. Raises
        LeaseLostError where the rescue was there before.
        """
        rows = self._ledger.run(
            "release",
            worker_id=self.worker_id,
            batch_ids=[batch.batch_id for batch in batches],
            batch_state="released" if state is State.PENDING else "quarantined",
            delivery_state=state.value,
            reason=reason,
        )
        moved = Counter(rows[0])
        if moved.total() != sum(map(len, batches)):
            raise LeaseLostError(
                "What this worker would give back is no longer its own. It stops here."
            )
        return moved

    def leave(self) -> Counter[str]:
        """Get up: what was not sent goes back, what may have been sent is in doubt.

        Does nothing where nobody sits, so it can be called again after an interruption.
        """

        def step(cursor: psycopg.Cursor[dict[str, Any]]) -> Counter[str]:
            cursor.execute(_SQL["meet"], {"worker_id": self.worker_id})
            cursor.execute(_SQL["leave"], {"worker_id": self.worker_id})
            cursor.execute(_SQL["clear_desks"], {"worker_ids": [self.worker_id]})
            return Counter(cursor.fetchone() or {})

        return self._ledger.attempt(step)


def _numbers_of(receipt: Receipt) -> dict[str, Any]:
    return {name: getattr(receipt, name) for name in Receipt.__slots__}
