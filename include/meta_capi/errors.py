"""Everything that can go wrong on our side, in one tree.

    CapiError
    ├── FeedError            a feed file says something that cannot be
    ├── ConfigurationError   a connection, a token, a dataset, a parameter
    ├── SourceError          the warehouse's table is not what the feed says
    ├── GateError            the quality gate stopped the run before anything was sent
    ├── LedgerError          the database is away, or an illegal move
    │   ├── SchemaError      the schema is missing, behind or ahead
    │   └── LeaseLostError   this worker's lease is over; what it held is someone else's
    ├── NoAnswerError        the line went dead; says whether the body had left
    ├── StoppedError         Meta will take nothing from this token or dataset
    └── ReconciliationError  the outcomes do not add up to the source

Meta saying *no* to an event is a value, not an exception (`verdict.py`). A message may
quote anything we made and nothing we were given: no row's value stands in any of them.
"""

from __future__ import annotations


class CapiError(Exception):
    """The root: something a person has to look at, said in one sentence.

    Args:
        message: what is wrong, and what to do; a line for each fault.
        code: the catalogue's entry, where it is not the kind's own.
    """

    code = "fault.ours"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code:
            self.code = code


class FeedError(CapiError):
    """A feed file is wrong. Carries every fault found, one line each."""

    code = "fault.feed"

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class ConfigurationError(CapiError):
    """A connection or a parameter is missing or wrong; nothing was sent."""

    code = "fault.configuration"


class SourceError(CapiError):
    """The source table or query does not fit the feed; nothing was read."""

    code = "fault.source"


class GateError(CapiError):
    """The quality gate's threshold was passed; nothing of this run was sent."""

    code = "fault.gate"


class LedgerError(CapiError):
    """The ledger cannot be trusted with this step, so the step was not made."""

    code = "fault.ledger"


class SchemaError(LedgerError):
    """The ledger's schema is missing, or not this program's."""

    code = "fault.schema"


class LeaseLostError(LedgerError):
    """The worker's lease is over. Stop: what it held belongs to the rescue now."""

    code = "fault.lease"


class NoAnswerError(CapiError):
    """A request got no trustworthy answer.

    `body_left` is False only where it is certain that Meta did not get the whole body
    (no connection, or broken off before the last byte).
    """

    code = "fault.no_answer"

    def __init__(self, message: str, *, body_left: bool) -> None:
        self.body_left = body_left
        super().__init__(message)


class StoppedError(CapiError):
    """Meta refused the token, the permission or the dataset; rows stay pending."""

    code = "fault.stopped"


class ReconciliationError(CapiError):
    """Source rows and outcomes differ. The message holds both sums."""

    code = "fault.gap"


def signal_behind(
    error: BaseException | None, before: BaseException | None
) -> BaseException | None:
    """Return the signal's exception (KeyboardInterrupt, a time-out) that led to an error.

    Whoever tidies up after a signal may fail, and his failure hides it. `before` is what
    was being handled already when the work began, and no part of the story.
    """
    while error is not None and error is not before:
        if not isinstance(error, Exception):
            return error
        error = error.__context__
    return None
