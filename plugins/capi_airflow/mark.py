"""A mark of each ledger, kept in Airflow: by it a ledger put back from a copy is known.

The ledger's mark only grows, and Airflow remembers the last one it saw, in a Variable. A
ledger that is behind it has forgotten what was sent since; nothing is sent by it until a
person has said since when.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Final

from airflow.sdk import Variable

from meta_capi.errors import ConfigurationError
from meta_capi.ledger import Ledger
from meta_capi.people import Mark, read_mark, take_mark

__all__ = ["expect", "remember", "variable_of"]

_DESCRIPTION: Final = (
    "By this a ledger that was put back from an older copy is noticed. Delete it only to "
    "begin with another ledger on purpose."
)


def variable_of(conn_id: str) -> str:
    """Return the Airflow Variable that remembers the mark of a connection's ledger."""
    return f"{conn_id}_mark"


def expect(ledger: Ledger, conn_id: str) -> None:
    """Refuse a ledger that is not as far as Airflow has seen it, or is another one.

    Raises:
        ConfigurationError: says what to do.
    """
    # Asked first: the ledger is marked before Airflow remembers it.
    seen = _seen(conn_id)
    if seen is None:
        return
    found = read_mark(ledger)
    if found.ledger_id != seen.ledger_id:
        raise ConfigurationError(
            f"The ledger of connection {conn_id!r} is another one than before, and does not "
            "know what was sent; nothing was done. If that is meant, delete the Airflow "
            f"Variable {variable_of(conn_id)!r}; see docs/runbook.md#an-older-ledger.",
            code="fault.older_ledger",
        )
    if found.at < seen.at:
        raise ConfigurationError(
            f"The ledger of connection {conn_id!r} was put back from an older copy, and does "
            f"not know what was sent since: its last mark is of {_told(found.at)}, and "
            f"Airflow has seen one of {_told(seen.at)}. Nothing was done. Run `meta-capi "
            "restored --since TIME --why TEXT`; see docs/runbook.md#an-older-ledger.",
            code="fault.older_ledger",
        )


def remember(ledger: Ledger, conn_id: str) -> None:
    """Take the ledger's next mark, and let Airflow remember it."""
    mark = take_mark(ledger)
    value = json.dumps({"ledger": mark.ledger_id, "at": mark.at.isoformat()})
    try:
        Variable.set(variable_of(conn_id), value, description=_DESCRIPTION)
    except ImportError:
        # Without a supervisor (an operator called by hand) there is no Airflow to ask.
        return


def _seen(conn_id: str) -> Mark | None:
    text = Variable.get(variable_of(conn_id), default=None)
    if text is None:
        return None
    try:
        value = json.loads(text)
        return Mark(str(value["ledger"]), datetime.fromisoformat(value["at"]))
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(
            f"The Airflow Variable {variable_of(conn_id)!r} is not as it was written; "
            "delete it if the ledger is the one it always was.",
            code="fault.older_ledger",
        ) from None


def _told(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S %Z}"
