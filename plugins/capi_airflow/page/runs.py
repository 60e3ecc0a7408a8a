"""Runs, batches and gates: what was asked of Meta, and what came back."""
# No `from __future__ import annotations` here: FastAPI reads these annotations itself.

import os
from pathlib import Path as File
from typing import Annotated, Final

from fastapi import APIRouter, HTTPException, Path, Request
from starlette.responses import FileResponse, Response

from capi_airflow.page.guard import Reader, ReaderDep
from capi_airflow.page.view import page
from meta_capi import insight, rundown
from meta_capi.data_docs import page_name
from meta_capi.errors import CapiError
from meta_capi.ledger import Ledger

__all__ = ["router"]

router = APIRouter()

Number = Annotated[int, Path(ge=1, lt=2**63)]
DagId = Annotated[str, Path(pattern="^[A-Za-z0-9_.-]{1,250}$")]
RunId = Annotated[str, Path(max_length=250)]
_MOST: Final = 50
_UNKNOWN: Final = (
    "The ledger knows no such {}; it may be older than the feed's retention."
)
# The Data Docs are whole pages of our own with their style inside, and without a script.
_DOCS_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "frame-ancestors 'self'"
)


@router.get("/runs/of/{dag_id}/{run_id}")
def run_of(request: Request, dag_id: DagId, run_id: RunId, who: ReaderDep) -> Response:
    """Show the run of the ledger that belongs to one of Airflow's."""
    for feed, ledger in _ledgers(who):
        number = rundown.run_no_of(ledger, dag_id, run_id, who.feeds)
        if number is not None:
            return _run(request, who, ledger, number)
        del feed
    return page(request, "no_run.html", status=404, dag_id=dag_id, run_id=run_id)


@router.get("/runs/{run_no}")
def run(request: Request, run_no: Number, who: ReaderDep) -> Response:
    """Show one run: what it read, what became of it, its requests and its gate."""
    for _, ledger in _ledgers(who):
        if insight.run(ledger, run_no):
            return _run(request, who, ledger, run_no)
    raise HTTPException(404, _UNKNOWN.format("run"))


def _run(request: Request, who: Reader, ledger: Ledger, run_no: int) -> Response:
    found = rundown.rundown(ledger, run_no, _MOST)
    if found is None:
        raise HTTPException(404, _UNKNOWN.format("run"))
    feed = who.expect(found.run.feed)
    dag_id, _, rest = found.run.run_id.partition("/")
    return page(
        request, "run.html", feed=feed, found=found, run=found.run,
        dag_id=dag_id, airflow_run=rest.removesuffix(f"/{feed}"), most=_MOST,
        is_feeds_own=dag_id == who.house.dag_id(feed),
    )  # fmt: skip


@router.get("/batches/{batch_id}")
def batch(request: Request, batch_id: Number, who: ReaderDep) -> Response:
    """Show one batch: its requests, the tree it was cut from, and its conversions."""
    for _, ledger in _ledgers(who):
        found = rundown.family(ledger, batch_id, _MOST)
        if found:
            feed = who.expect(found.batch.feed)
            return page(
                request,
                "batch.html",
                feed=feed,
                family=found,
                batch=found.batch,
                most=_MOST,
            )
    raise HTTPException(404, _UNKNOWN.format("batch"))


@router.get("/gates/{validation_id}")
def gate(validation_id: Number, who: ReaderDep) -> Response:
    """Show a gate's Data Docs."""
    for _, ledger in _ledgers(who):
        feed = rundown.gate_feed(ledger, validation_id)
        if feed is None:
            continue
        who.expect(feed)
        folder = os.environ.get("META_CAPI_DATA_DOCS")
        path = File(folder or "data_docs") / page_name(str(validation_id))
        if not folder or not path.is_file():
            raise HTTPException(
                404,
                "The Data Docs of this gate are not on the API server's machine: either they "
                "are older than those kept, or META_CAPI_DATA_DOCS names another folder here "
                "than where the tasks run.",
            )
        policy = {"Content-Security-Policy": _DOCS_POLICY}
        return FileResponse(path, media_type="text/html", headers=policy)
    raise HTTPException(404, _UNKNOWN.format("gate"))


def _ledgers(who: Reader) -> list[tuple[str, Ledger]]:
    """Return a feed of each ledger that the reader may see something of."""
    found: dict[int, tuple[str, Ledger]] = {}
    for feed in who.feeds:
        try:
            ledger = who.house.ledger(feed)
        except CapiError as error:
            who.house.troubles.append(str(error))
            continue
        found.setdefault(id(ledger), (feed, ledger))
    if not found and who.house.troubles:
        raise CapiError(who.house.troubles[0])
    return list(found.values())
