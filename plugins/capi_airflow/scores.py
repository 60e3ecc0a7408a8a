"""Meta's own scores, read once a day where a connection asks for it; never in the way."""

from __future__ import annotations

from typing import Any

from capi_airflow.aside import aside
from capi_airflow.feed_files import all_feeds
from capi_airflow.links import catalogue_address
from capi_airflow.stage import Stage
from meta_capi import score_book
from meta_capi.scores import TROUBLE, EventScore, ScoresError, Surface
from meta_capi.words import number

__all__ = ["read_scores"]


def read_scores(log: Any, stage: Stage, *, now: bool) -> None:
    """Read the scores of the feed's dataset that are due.

    Args:
        now: read them even if they are not due.
    """
    with aside(log, "Meta's own scores"):
        destination = stage.hook.destination()
        for surface in map(Surface, dict.fromkeys(destination.quality_scores)):
            if score_book.take(stage.ledger, destination.dataset_id, surface, now=now):
                _read(log, stage, destination.dataset_id, surface)


def _read(log: Any, stage: Stage, dataset_id: str, surface: Surface) -> None:
    try:
        found = stage.hook.scores(surface)
    except ScoresError as error:
        score_book.fail(stage.ledger, dataset_id, surface, error)
        log.warning(
            "Meta's own %s scores of dataset %s were not read: %s They are asked for again "
            "%s. See %s",
            surface, dataset_id, error, "in an hour" if error.for_now else "tomorrow",
            " and ".join(map(catalogue_address, dict.fromkeys((error.code, TROUBLE)))),
        )  # fmt: skip
        return
    score_book.keep(stage.ledger, dataset_id, surface, found)
    # Of the names, only our feeds': nobody knows what others call their events.
    ours = {name for feed in all_feeds().values() for name in feed.event_names}
    own = [each for each in found if each.event_name in ours]
    log.info(
        "Meta's own %s scores of dataset %s: %s; %s of others.",
        surface, dataset_id, ", ".join(map(_told, own)) or "none of our events yet",
        number(len(found) - len(own), "event"),
    )  # fmt: skip


def _told(each: EventScore) -> str:
    score = "no score" if each.score is None else f"{each.score:g} of 10"
    return f"{each.event_name} {score}"
