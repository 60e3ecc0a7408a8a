"""The trigger forms: what a person may choose for a run, and what Airflow refuses."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from airflow.sdk import Param

from meta_capi.errors import ConfigurationError

__all__ = ["refuse_strangers", "replay_form", "send_form", "tend_form"]

_INSTEAD = "Which rows (empty: the run's own data interval)"
_ONLY = "Known when (empty: at any time)"


def send_form() -> dict[str, Param]:
    """Return the form of a feed's DAG."""
    return {
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Build and check every event; send nothing.",
        ),
        "test_event_code": Param(
            None,
            type=["null", "string"],
            pattern="^[A-Za-z0-9_-]{4,40}$",
            title="Test event code",
            description="From Events Manager, as TEST12345. These are real events for Meta; "
            "a production connection refuses them.",
        ),
        "limit": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Limit",
            description="Send at most this many events per shard; the rest stay pending.",
        ),
        "start": _moment(
            "From", "Read rows that became known from this moment on.", _INSTEAD
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
            description="Only deliveries with this reason, as currency.unknown.",
        ),
        "keys": Param(
            None,
            type=["null", "array"],
            items={"type": "string", "maxLength": 200},
            title="Source keys",
            description="Only these conversions, one key a line. Empty for all.",
        ),
        "start": _moment(
            "From", "Only rows that became known from this moment on.", _ONLY
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
        )
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
