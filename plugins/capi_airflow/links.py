"""The button on a task instance that leads to its run's page."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf

__all__ = ["RunPageLink", "page_of"]

# Airflow's own address of what its frame shows: /plugin/<route>/<path in the frame>.
_FRAME: Final = "/plugin/conversions/capi"


def page_of(feed: str) -> str | None:
    """Return the whole address of a feed's page; None where Airflow does not know its own."""
    base = str(conf.get("api", "base_url", fallback="") or "").rstrip("/")
    return f"{base}{_FRAME}/feeds/{feed}" if base else None


class RunPageLink(BaseOperatorLink):
    """Leads to the run's page: what went out, what did not, and why."""

    name = "Conversions of this run"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the page's address in Airflow's UI."""
        run = f"{quote(ti_key.dag_id, safe='')}/{quote(ti_key.run_id, safe='')}"
        return f"{_FRAME}/runs/of/{run}"
