"""Meta's own SDK, facebook-business, in the loop that its examples show.

Read rows, make `Event`s, `EventRequest(...).execute()` a thousand at a time. It has no
ledger, no gate and no memory: what it sends twice is sent twice. The events have the
same fields as the feed's; the SDK leaves `external_id` unhashed, and raises on a row
whose phone, country, address or currency it cannot read, which fails the request's other
999. So the rows are asked about beforehand, outside of all timing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from threading import Semaphore
from typing import Any

import psycopg
import requests
from facebook_business.adobjects.serverside.action_source import ActionSource
from facebook_business.adobjects.serverside.content import Content
from facebook_business.adobjects.serverside.custom_data import CustomData
from facebook_business.adobjects.serverside.delivery_category import DeliveryCategory
from facebook_business.adobjects.serverside.event import Event
from facebook_business.adobjects.serverside.event_request import EventRequest
from facebook_business.adobjects.serverside.gender import Gender
from facebook_business.adobjects.serverside.user_data import UserData
from facebook_business.api import FacebookAdsApi
from facebook_business.session import FacebookSession
from psycopg import sql
from psycopg.rows import dict_row
from requests.adapters import BaseAdapter

from bench.jobs import serve

PER_REQUEST = 1_000
_GENDERS = {"M": Gender.MALE, "F": Gender.FEMALE}
_STATES = {"CA": 1000, "California": 1000, "TX": 1005, "OR": 1010}
Row = Mapping[str, Any]
Job = Mapping[str, Any]


def event(row: Row) -> Event:
    """Return a row's event, as the feed describes it."""
    born, privacy = row["birthday"], {}
    if row["limited_data_use"]:
        privacy = {
            "data_processing_options": ["LDU"],
            "data_processing_options_country": 1 if row["state"] in _STATES else 0,
            "data_processing_options_state": _STATES.get(row["state"], 0),
        }
    return Event(
        event_name="Purchase",
        event_time=int(row["purchased_at"].timestamp()),
        event_id=row["order_id"],
        action_source=ActionSource.PHYSICAL_STORE,
        user_data=UserData(
            email=row["email"], phone=row["phone"], first_name=row["first_name"],
            last_name=row["last_name"],
            date_of_birth=born.strftime("%Y%m%d") if born else None,
            gender=_GENDERS.get(row["gender"]), city=row["city"], state=row["state"],
            zip_code=row["postcode"], country_code=row["country"],
            external_id=row["customer_id"],
        ),
        custom_data=CustomData(
            value=float(row["amount"]), currency=row["currency"], order_id=row["order_id"],
            contents=[
                Content(
                    product_id=item["id"], quantity=item["quantity"],
                    item_price=item["item_price"],
                )
                for item in row["items"] or ()
            ],
            delivery_category=DeliveryCategory.IN_STORE,
        ),
        **privacy,
    )  # fmt: skip


def check(job: Job) -> Job:
    """Return the keys of the rows that the SDK does not build, and how often why."""
    keys: list[str] = []
    why: Counter[str] = Counter()
    for row in _rows(job):
        try:
            event(row).normalize()
        except Exception as error:
            keys.append(row["order_id"])
            why[f"{type(error).__name__}: {str(error).split(':')[0]}"] += 1
    return {"keys": keys, "why": dict(why)}


class _Swallow(BaseAdapter):
    """Takes requests at the point where they would go to a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def send(
        self, request: requests.PreparedRequest, *_: Any, **__: Any
    ) -> requests.Response:
        self.bytes += len(request.body or "")
        response = requests.Response()
        response.status_code = 200
        response._content = b'{"events_received": 1, "messages": [], "fbtrace_id": "-"}'
        response.request = request
        return response

    def close(self) -> None:
        """There is nothing to close."""


_kept: dict[str, list[Row]] = {}


def build(job: Job) -> Job:
    """Take rows to the bytes that `execute` sends; nothing is sent."""
    table = job["lot"]["table"]
    if table not in _kept:
        _kept[table] = list(_rows(job))
    rows, swallow = _kept[table], _Swallow()
    _open(job, swallow)
    cpu = time.process_time()
    for some in _batches(rows):
        _execute(job, some)
    cpu = time.process_time() - cpu
    return {"events": len(rows), "build_seconds": cpu, "bytes": swallow.bytes}


def send(job: Job) -> Job:
    """Read, build and send all; so many threads at a time."""
    _open(job)
    threads = job["threads"]
    failed: Counter[str] = Counter()
    room = Semaphore(2 * threads)

    def one(some: Sequence[Row]) -> int:
        try:
            return int(_execute(job, some).events_received)
        except Exception as error:
            failed[type(error).__name__] += len(some)
            return 0
        finally:
            room.release()

    with ThreadPoolExecutor(threads) as pool:
        answers = []
        for some in _batches(_rows(job)):
            room.acquire()
            answers.append(pool.submit(one, some))
        sent = sum(answer.result() for answer in answers)
    return {"sent": sent, "failed": dict(failed)}


def _open(job: Job, adapter: BaseAdapter | None = None) -> None:
    FacebookSession.GRAPH = job["graph"]
    api = FacebookAdsApi.init(
        access_token=job["token"], api_version=job["version"], crash_log=False
    )
    if adapter:
        for scheme in ("http://", "https://"):
            api._session.requests.mount(scheme, adapter)


def _execute(job: Job, rows: Sequence[Row]) -> Any:
    events = [event(row) for row in rows]
    return EventRequest(pixel_id=job["dataset"], events=events).execute()


def _rows(job: Job) -> Iterator[Row]:
    table = sql.Identifier(*job["lot"]["table"].split("."))
    query = sql.SQL("select * from {} order by loaded_at limit {}").format(
        table, job.get("rows")
    )
    with (
        psycopg.connect(job["shop"], row_factory=dict_row) as database,
        database.cursor("rows") as cursor,
    ):
        cursor.itersize = 10_000
        cursor.execute(query)
        yield from cursor


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    them = iter(rows)
    while some := list(islice(them, PER_REQUEST)):
        yield some


if __name__ == "__main__":
    serve(
        {"check": check, "build": build, "send": send},
        ("facebook-business", "psycopg", "requests"),
    )
