"""drt-core, the open-source tool that sends rows of a warehouse to Meta.

Its engine with its own source and destination, as `drt run` calls them; either as it
comes, with a hundred records at a time, each a request, and ten requests a second; or
set for speed, with 10,000 records at a time and no pacing. Its host is a constant, so the
constant is changed here. It cannot send names, places, birthdays, customers' numbers,
items or a row's currency (it has one for all rows), hashes the address and the phone as
they stand, drops what is older than seven days, and has no gate; of what it sent it
remembers a watermark, not the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from drt.config.models import SyncConfig
from drt.config.profiles import PostgresProfile
from drt.destinations import meta_conversions
from drt.engine.sync import run_sync
from drt.sources.postgres import PostgresSource

from bench.jobs import serve

# Its event_time must be whole seconds; everything else is the table's.
_MODEL = """
    select order_id, extract(epoch from purchased_at)::bigint as event_time,
           email, phone, amount
    from {table} order by loaded_at limit {rows}
"""
_FAST = {"batch_size": 10_000, "rate_limit": {"requests_per_second": 0}}


def send(job: Mapping[str, Any]) -> Mapping[str, Any]:
    """Run one sync."""
    meta_conversions._BASE_URL = job["graph"]
    at = urlsplit(job["shop"])
    profile = PostgresProfile(
        type="postgres", host=at.hostname or "", port=at.port or 0,
        dbname=at.path.strip("/"), user=at.username or "", password=at.password,
        fetch_size=10_000,
    )  # fmt: skip
    sync = SyncConfig.model_validate(
        {
            "name": "purchases",
            "model": _MODEL.format(table=job["lot"]["table"], rows=job["rows"]),
            "destination": {
                "type": "meta_conversions", "pixel_id": job["dataset"],
                "access_token": job["token"], "api_version": job["version"],
                "action_source": "physical_store", "event_name": "Purchase",
                "event_time_field": "event_time", "event_id_field": "order_id",
                "email_field": "email", "phone_field": "phone", "value_field": "amount",
                "currency": "EUR",
            },
            "sync": {
                "mode": "full", "on_error": "skip", **(_FAST if job["fast"] else {}),
            },
        }
    )  # fmt: skip
    result = run_sync(
        sync, PostgresSource(), meta_conversions.MetaConversionsDestination(), profile,
        Path.cwd(),
    )  # fmt: skip
    return {
        "sent": result.success,
        "failed": {"rows": result.failed} if result.failed else {},
        "words": sorted({error[:160] for error in result.errors})[:3],
    }


if __name__ == "__main__":
    serve({"send": send}, ("drt-core", "httpx", "psycopg2-binary"))
