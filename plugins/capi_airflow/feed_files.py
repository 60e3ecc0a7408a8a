"""The feed files there are: what is right of them, and what is wrong."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from airflow.sdk import CronDataIntervalTimetable
from airflow.sdk.exceptions import AirflowTimetableInvalid

from meta_capi.errors import FeedError
from meta_capi.feed import Feed, load
from meta_capi.feed.words import FEED_NAME

__all__ = ["all_feeds", "broken_feeds", "home", "schedulable"]


def home() -> Path:
    """Return the folder with `feeds/` and `expectations/`.

    `include/` beside `plugins/`, unless META_CAPI_HOME names another.
    """
    given = os.environ.get("META_CAPI_HOME")
    return Path(given) if given else Path(__file__).resolve().parents[2] / "include"


def all_feeds() -> dict[str, Feed]:
    """Read every feed whose file is right."""
    return _read_feeds()[0]


def broken_feeds() -> dict[str, list[str]]:
    """Return the faults of the feed files that are wrong, by a name for each."""
    return _read_feeds()[1]


def _read_feeds() -> tuple[dict[str, Feed], dict[str, list[str]]]:
    feeds, broken = {}, {}
    for path in sorted((home() / "feeds").glob("*.yaml")):
        try:
            feeds[path.stem] = schedulable(load(path))
        except FeedError as error:
            broken[_id_of(path.stem)] = error.faults
    return feeds, broken


def schedulable(feed: Feed) -> Feed:
    """Return a feed that Airflow can schedule; one that it cannot is a broken feed.

    Feeds keep to what the cron library of Airflow 3.3 takes; a newer one may take less, and
    one that is refused while a DAG file is read takes every feed down.
    """
    try:
        CronDataIntervalTimetable(feed.schedule, timezone="UTC").validate()
    except AirflowTimetableInvalid as error:
        raise FeedError([f"{feed.feed}.yaml:1: schedule: {error}"]) from None
    return feed


def _id_of(stem: str) -> str:
    """Return what Airflow takes as an id for a file: its name, if a feed may have it.

    No feed has a dash in its name, and no two files have one id.
    """
    if re.fullmatch(FEED_NAME, stem):
        return stem
    digest = hashlib.blake2b(os.fsencode(stem), digest_size=4).hexdigest()
    return f"{re.sub('[^A-Za-z0-9_]', '_', stem)[:40]}-{digest}"
