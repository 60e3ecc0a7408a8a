"""What an entry of the catalogue is, and what it may do to a conversion or to a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["EFFECTS", "Effect", "Reason", "entries", "section_title"]


class Effect(StrEnum):
    """What a reason does to the conversion, or to the run."""

    ACCEPTED = "accepted"
    WITHHELD = "withheld"
    QUARANTINED = "quarantined"
    EXPIRED = "expired"
    REFUSED = "refused"
    IN_DOUBT = "in_doubt"
    PENDING = "pending"
    KEY_DROPPED = "key dropped"
    STOPPED = "run stopped"
    THROTTLED = "waits"
    FAULT = "task failed"
    WARNING = "warning"


EFFECTS: Final[dict[Effect, str]] = {
    Effect.ACCEPTED: "Meta has it; by an answer of Meta's there is no reason to give.",
    Effect.WITHHELD: "We decided not to send the conversion.",
    Effect.QUARANTINED: "The conversion is held for a person.",
    Effect.EXPIRED: "Meta would no longer take it.",
    Effect.REFUSED: "Meta refused the data: its whole batch was not processed. The batch "
    "is split until the guilty event stands alone and the others have gone out.",
    Effect.IN_DOUBT: "It may have gone out, and nobody knows.",
    Effect.PENDING: "It is owed, and waits.",
    Effect.KEY_DROPPED: "The event goes out without this match key or field.",
    Effect.STOPPED: "Meta takes nothing from this token, dataset or address. No event is "
    "to blame: all stay pending, and the task fails without trying again.",
    Effect.THROTTLED: "Meta asks to wait, by a code or by HTTP 429, and processed nothing. The worker waits up to "
    "five minutes; what is left stays pending.",
    Effect.FAULT: "A task or a command ends with it. What it had not sent is still owed.",
    Effect.WARNING: "The task goes on.",
}
"""The catalogue's sections, in the order in which people look for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One entry of the catalogue."""

    code: str
    effect: Effect
    meaning: str
    action: str


def section_title(effect: Effect) -> str:
    """Return the heading of an effect's section.

    >>> section_title(Effect.IN_DOUBT)
    'In doubt'
    """
    return effect.value.replace("_", " ").capitalize()


Texts = Mapping[Effect, Mapping[str, tuple[str, str]]]


def entries(texts: Texts) -> dict[str, Reason]:
    """Return entries by their codes."""
    return {
        code: Reason(code=code, effect=effect, meaning=meaning, action=action)
        for effect, group in texts.items()
        for code, (meaning, action) in group.items()
    }
