"""How answers look: templates, their words for numbers and times, and the static files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from capi_airflow.links import PREFIX
from meta_capi import tale
from meta_capi.catalogue import anchor, meta_code, reason, section_title
from meta_capi.judged import sent_words
from meta_capi.lifecycle import State
from meta_capi.words import moment, number, percent

__all__ = ["STATIC", "message", "now", "page"]

_HERE: Final = Path(__file__).parent
STATIC: Final = {path.name: path for path in (_HERE / "static").iterdir()}
"""The only files that are served."""
# Part of every static file's address: a browser asks again after an upgrade.
_EDITION: Final = hashlib.blake2s(
    b"".join(STATIC[name].read_bytes() for name in sorted(STATIC)), digest_size=4
).hexdigest()

STATE_WORDS: Final = {
    State.WITHHELD: "withheld",
    State.QUARANTINED: "quarantined",
    State.EXPIRED: "expired",
    State.REFUSED: "refused",
    State.IN_DOUBT: "in doubt",
    State.PENDING: "pending",
    State.CLAIMED: "on a worker's desk",
    State.ACCEPTED: "accepted",
}


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def page(
    request: Request, template: str, *, status: int = 200, **values: Any
) -> HTMLResponse:
    """Render a page."""
    prefix = request.scope.get("root_path", "") or PREFIX
    text = _ENVIRONMENT.get_template(template).render(
        here=prefix,
        airflow=prefix.removesuffix(PREFIX),
        edition=_EDITION,
        path=request.scope["path"].removeprefix(prefix) or "/",
        now=now(),
        **values,
    )
    return HTMLResponse(text, status)


def message(request: Request, status: int, sentence: str) -> HTMLResponse:
    """Render a page that says one thing."""
    return page(request, "message.html", status=status, code=status, sentence=sentence)


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value)


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _money(values: Mapping[str, Decimal]) -> str:
    return " · ".join(f"{values[name]:,.2f} {name}" for name in sorted(values)) or "–"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value * 1000:,.0f} ms" if value < 1 else f"{value:,.1f} s"


def _day(value: date) -> str:
    return f"{value:%a} {value.day} {value:%b}"


def _ticked(text: str) -> Markup:
    """Show what stands between backticks as code."""
    parts = (escape(each) for each in text.split("`"))
    return Markup("").join(
        Markup("<code>{}</code>").format(each) if place % 2 else each
        for place, each in enumerate(parts)
    )


def _part(text: str) -> str:
    return quote(text, safe="")


_ENVIRONMENT: Final = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.globals["meta_code"] = meta_code
_ENVIRONMENT.filters |= {
    "count": _count, "day": _day, "moment": moment, "money": _money, "number": number,
    "part": _part, "reason": reason, "score": _score, "seconds": _seconds, "share": _share,
    "anchor": anchor, "title_of": section_title,
    "state": lambda state: STATE_WORDS[State(state)], "batch_words": tale.batch,
    "judged_words": tale.judgement, "request_words": tale.request,
    "sent_words": sent_words, "ticked": _ticked,
}  # fmt: skip
