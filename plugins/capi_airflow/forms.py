"""The trigger forms: what a person may choose for a run, and what Airflow refuses.

Where Airflow refuses a value, it shows the field's whole schema; `expected`, a word that
JSON Schema does not know, is there for the person who reads it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from airflow.sdk import Param

from meta_capi.errors import ConfigurationError

__all__ = ["refuse_strangers", "replay_form", "send_form", "tend_form"]

_INSTEAD = "Dates (leave empty for the run's own data interval)"
_ONLY = "Dates (leave empty for any time)"
_CODE = "a code as TEST12345, of Events Manager"
_REASON = "a code as currency.unknown"


def send_form() -> dict[str, Param]:
    """Return the form of a feed's DAG."""
    return {
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Build and check every event, and send nothing. The outcome is on the "
            "Conversions page.",
        ),
        "test_event_code": Param(
            None,
            type=["null", "string"],
            pattern="^[A-Za-z0-9_-]{4,40}$",
            title="Test event code",
            expected=_CODE,
            description=f"Empty, or {_CODE} (Test events). Meta uses such events as it uses "
            "all others; so only a test dataset's connection takes them.",
        ),
        "limit": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Limit",
            description="Send at most this many events, however often a task is tried again. "
            "The rest stay pending until a run over the same rows sends them.",
        ),
        "start": _moment(
            "From",
            "Send the rows that reached the warehouse from this moment on, whenever the "
            "conversions happened. Not for a backfill: each of its runs has its own dates.",
            _INSTEAD,
        ),
        "end": _moment("Up to", "Up to, but without, this moment.", _INSTEAD),
    }


def replay_form(feeds: list[str]) -> dict[str, Param]:
    """Return the form of `replay_deliveries`."""
    return {
        "feed": Param(
            feeds[0] if feeds else "", type="string", enum=feeds or [""], title="Feed"
        ),
        "dry_run": Param(
            True,
            type="boolean",
            title="Plan only",
            description="Say what would be put back; change nothing.",
        ),
        "why": Param(
            None,
            type=["null", "string"],
            maxLength=500,
            title="Why",
            description="Needed to put anything back; written down for ever, with your name. "
            "No customer's data.",
        ),
        "states": Param(
            ["quarantined"],
            type="array",
            items={
                "type": "string",
                "enum": ["quarantined", "refused", "withheld", "expired"],
            },
            examples=["quarantined", "refused", "withheld", "expired"],
            title="States",
            description="Accepted deliveries are never replayed.",
        ),
        "reason": Param(
            None,
            type=["null", "string"],
            pattern=r"^[a-z_]+(\.[a-z0-9_]+){1,2}$",
            title="Reason",
            expected=_REASON,
            description=f"Only deliveries with this reason: {_REASON}, of the Conversions "
            "page. Empty for all.",
        ),
        "keys": Param(
            None,
            type=["null", "array"],
            items={"type": "string", "maxLength": 200},
            title="Source keys",
            description="Only these conversions, one key a line. Empty for all.",
        ),
        "start": _moment(
            "From", "Only rows that reached the warehouse from this moment on.", _ONLY
        ),
        "end": _moment("Up to", "Up to, but without, this moment.", _ONLY),
    }


def tend_form() -> dict[str, Param]:
    """Return the form of `tend_deliveries`."""
    return {
        "try_alerts": Param(
            False,
            type="boolean",
            title="Try the alerts",
            description="Send a test message by every channel that is configured, one a feed.",
        ),
        "read_scores": Param(
            False,
            type="boolean",
            title="Read Meta's scores now",
            description="Of the datasets whose connection names *Quality scores*; else once "
            "a day.",
        ),
    }


def refuse_strangers(given: Collection[str], form: Collection[str]) -> None:
    """Refuse a run that was given more than its form asks for.

    Airflow takes any other name beside a form's own, and keeps what it is given.

    Raises:
        ConfigurationError: how many there are; a name may be as personal as its value.
    """
    if strangers := set(given) - set(form):
        raise ConfigurationError(
            f"The run was given {len(strangers)} value(s) that its form does not have; "
            "nothing was done. Airflow has stored them with the run: delete the run, and "
            "trigger another with the form's own fields.",
            code="fault.form",
        )


def _moment(title: str, description: str, section: str) -> Any:
    return Param(
        None,
        type=["null", "string"],
        format="date-time",
        title=title,
        description=description,
        section=section,
    )
