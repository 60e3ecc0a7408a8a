"""What can be set: the places where Meta contradicts itself or says nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from meta_capi import spec


class Profile(StrEnum):
    """Whose word counts where Meta's pages and Meta's servers differ."""

    DOCUMENTED = "documented"  # what the pages require, strictly
    OBSERVED = "observed"  # what live calls were seen to accept


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """One choice for each open point of the reference. Durations are in seconds."""

    profile: Profile = Profile.DOCUMENTED
    # Refuse a match key that is not a SHA-256 digest, and the empty string's digest.
    # Meta says it rejects them; no subcode is known.
    strict_hash: bool = True
    # Seven days for physical_store too: the same paragraph prints 7 and 62.
    strict_seven_days: bool = False
    # 2804023 rests on one codebase.
    value_needs_currency: bool = True
    # No one documents that Meta would unpack a request body.
    accept_gzip: bool = False
    # Whether two server events with one event_id count once is documented nowhere.
    dedupe_server_server: bool = True
    window: int = spec.WINDOW_SECONDS
    physical_store_window: int = spec.PHYSICAL_STORE_WINDOW_SECONDS
    future_tolerance: int = spec.FUTURE_TOLERANCE_SECONDS
    event_id_window: float = spec.EVENT_ID_DEDUPLICATION_SECONDS
    offline_window: float = spec.OFFLINE_DEDUPLICATION_SECONDS

    @property
    def documented(self) -> bool:
        """True where Meta's pages are taken at their word."""
        return self.profile is Profile.DOCUMENTED
