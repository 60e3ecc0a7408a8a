"""The addresses of the Conversions page: for buttons, and for lines of a log."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf

from meta_capi.catalogue import PAGE, anchor

__all__ = ["PREFIX", "RunPageLink", "catalogue_address", "held_address", "page_of"]

PREFIX: Final = "/capi"
"""Where the page is, below Airflow's own address."""
# Airflow's own address of what its frame shows: /plugin/<route>/<path in the frame>.
_FRAME: Final = f"/plugin/conversions{PREFIX}"


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


def catalogue_address(code: str) -> str:
    """Return where the catalogue's entry of a code is read.

    The page itself, for Airflow's frame would lose the anchor; the file in the docs,
    where the worker does not know Airflow's address.
    """
    base = _base_url()
    return (
        f"{base}{PREFIX}/reasons#{anchor(code)}" if base else f"{PAGE}#{anchor(code)}"
    )


def held_address(feed: str, state: str) -> str | None:
    """Return where a feed's conversions of a state are listed; None if nobody knows."""
    base = _base_url()
    return f"{base}{_FRAME}/feeds/{feed}/held?state={state}" if base else None


def _base_url() -> str:
    return str(conf.get("api", "base_url", fallback="") or "").rstrip("/")
