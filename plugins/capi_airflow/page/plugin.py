"""What Airflow is told of the page: where it is, and which links lead to it.

Every Airflow process imports this module, the tasks' too: the web framework comes in with
the first request, and never where nobody asks for a page.
"""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import urlsplit

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk.configuration import conf

from capi_airflow.links import PREFIX, RunPageLink

__all__ = ["ConversionsPlugin"]


async def _page(scope: Any, receive: Any, send: Any) -> None:
    from capi_airflow.page.app import app

    await app()(scope, receive, send)


def _base() -> str:
    """Return the path below which Airflow is served; empty for the root."""
    return urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")


class ConversionsPlugin(AirflowPlugin):
    """The page, and the links to it."""

    name = "meta_capi"
    fastapi_apps: ClassVar = [
        {"app": _page, "url_prefix": PREFIX, "name": "Conversions"}
    ]
    external_views: ClassVar = [
        {
            "name": "Conversions",
            "href": f"{_base()}{PREFIX}/",
            "destination": "nav",
            "url_route": "conversions",
            "nav_top_level": True,
            "icon": f"{_base()}{PREFIX}/static/icon.svg",
            "icon_dark_mode": f"{_base()}{PREFIX}/static/icon-dark.svg",
        }
    ]
    operator_extra_links: ClassVar = [RunPageLink()]
