"""The page's web application: routes that only read, and what surrounds each answer."""

import logging
import traceback
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, Final

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import FileResponse, Response

from capi_airflow.page import flow, lookup, runs
from capi_airflow.page.guard import ForbiddenError
from capi_airflow.page.house import House, Ledgers
from capi_airflow.page.view import STATIC, message
from meta_capi.errors import CapiError

__all__ = ["app"]

_log = logging.getLogger(__name__)
Asgi = Callable[[Any, Any, Any], Awaitable[None]]

HEADERS: Final = {
    # Nothing from elsewhere and nothing inline; requests go to Airflow itself.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_LINES: Final = [
    (name.lower().encode(), text.encode()) for name, text in HEADERS.items()
]
_STATUS_WORDS: Final = {
    401: "Sign in to Airflow to see this page.",
    403: "You may not see this.",
    404: "There is no such page.",
    405: "This page cannot be asked in this way.",
}


@cache
def app() -> Asgi:
    """Return the application, built once in a process."""
    ledgers = Ledgers()
    return Guarded(build(lambda: House(ledgers)))


def build(house: Callable[[], House]) -> FastAPI:
    """Build the application over a way to make a house for each request."""
    # Its own documentation would tell strangers the routes.
    made = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    made.state.house = house
    for router in (flow.router, runs.router, lookup.router):
        made.include_router(router)
    made.add_api_route("/static/{name}", static, methods=["GET"])
    made.add_exception_handler(RequestValidationError, _not_understood)
    made.add_exception_handler(HTTPException, _refused)
    made.add_exception_handler(404, _refused)
    made.add_exception_handler(405, _refused)
    made.add_exception_handler(ForbiddenError, _forbidden)
    made.add_exception_handler(CapiError, _troubled)
    return made


def static(name: str, _user: GetUserDep) -> Response:
    """Return a style sheet, a script or a picture of the page."""
    path = STATIC.get(name)
    if path is None:
        raise HTTPException(404)
    return FileResponse(path)


async def _not_understood(request: Request, _: Exception) -> Response:
    # What was asked is not repeated: it may be anything.
    return message(request, 422, "The page does not understand what was asked.")


async def _refused(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    said = error.detail if isinstance(error, HTTPException) else None
    own = said if said and status in (400, 404, 413) and " " in said else None
    return message(
        request, status, own or _STATUS_WORDS.get(status, "That did not work.")
    )


async def _forbidden(request: Request, error: Exception) -> Response:
    return message(request, 403, str(error))


async def _troubled(request: Request, error: Exception) -> Response:
    return message(request, 503, str(error))


class Guarded:
    """Puts the headers on every answer, and says nothing of a fault but its places."""

    def __init__(self, inner: Asgi) -> None:
        self._inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self._inner(scope, receive, send)
        begun = False

        async def with_headers(event: Any) -> None:
            nonlocal begun
            if event["type"] == "http.response.start":
                begun = True
                own = list(event.get("headers", ()))
                named = {name for name, _ in own}
                event["headers"] = own + [
                    line for line in _LINES if line[0] not in named
                ]
            await send(event)

        try:
            await self._inner(scope, receive, with_headers)
        except Exception as error:
            # What it says may quote a row; Starlette has already answered 500.
            for frame in traceback.extract_tb(error.__traceback__):
                _log.error("at %s:%s, in %s", frame.filename, frame.lineno, frame.name)
            _log.error("A page failed with %s.", type(error).__name__)
            if not begun:
                answer = Response(
                    "A fault of ours; the API server's log has its places.", 500
                )
                await answer(scope, receive, with_headers)
        return None
