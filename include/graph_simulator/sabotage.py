"""Performs the faults: what happens to one request when something is to go wrong."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any, Final, Protocol

from graph_simulator import answers
from graph_simulator.answers import Answer
from graph_simulator.faults import REPLACING, Fault, FaultKind, Visit
from graph_simulator.graph import Graph, Request
from graph_simulator.refusals import Refusal
from graph_simulator.wire import Wire, head
from meta_capi import spec

_PIECE: Final = 1 << 16


class Readable(Protocol):
    """Where the body is read from."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes."""
        ...


def strike_early(fault: Fault, wire: Wire, body: Readable) -> None:
    """Perform a fault before the body is read. The connection is over then."""
    match fault.kind:
        case FaultKind.HANG_UP_MID_BODY:
            body.read(fault.after_bytes)
            wire.reset()
        case FaultKind.NEVER_READ:
            wire.wait(fault.seconds or inf)
            wire.reset()
        case FaultKind.EARLY_STATUS:
            wire.send(_adorned(answers.page(fault.http_status), fault))
            wire.hang_up()
        case _:
            wire.reset()


def respond(
    fault: Fault | None, wire: Wire, graph: Graph, request: Request, visit: Visit
) -> int:
    """Answer one request, well or badly. Return the status for the log; 0 is none."""
    if fault is None:
        answer = graph.answer(request, visit)
        wire.send(answer)
        return answer.status
    if fault.kind in REPLACING:
        if fault.processed:
            graph.answer(request, visit, fault=fault.kind)
        else:
            graph.lose(request, fault.kind)
        return _replace_answer(fault, wire, graph)
    if fault.kind is FaultKind.TWICE:
        answer = graph.answer(request, visit)
        graph.answer(request, visit, fault=fault.kind)
    else:
        answer = graph.answer(request, visit, refusal=fault.refusal(), fault=fault.kind)
    return _spoil(fault, wire, _adorned(answer, fault))


def _replace_answer(fault: Fault, wire: Wire, graph: Graph) -> int:
    status = fault.http_status
    match fault.kind:
        case FaultKind.HANG_UP_AFTER_READING:
            wire.reset()
            return 0
        case FaultKind.HANG:
            wire.wait(fault.seconds or inf)
            wire.reset()
            return 0
        case FaultKind.FLOOD:
            _flood(fault, wire)
            return status
        case FaultKind.STATUS:
            answer = _server_error(fault, graph)
        case FaultKind.HTML:
            answer = answers.page(status)
        case FaultKind.REDIRECT:
            answer = Answer(
                status=status, body=b"", headers=(("location", fault.location),)
            )
        case FaultKind.ERROR_IS:
            answer = Answer(
                status=status,
                body=json.dumps({"error": fault.value}).encode(),
                headers=(("content-type", "application/json; charset=UTF-8"),),
            )
        case _:
            answer = Answer(status=status, body=b"")
    wire.send(_adorned(answer, fault))
    return status


def _server_error(fault: Fault, graph: Graph) -> Answer:
    """Return Meta's own fault: code 2 as 503, else code 1 (10.4)."""
    code = 2 if fault.http_status == 503 else 1
    refusal = Refusal(
        code=fault.code or code,
        subcode=fault.subcode,
        status=fault.http_status,
        message=fault.message or "An unknown error occurred",
        is_transient=fault.is_transient is not False,
    )
    return answers.refused(refusal, spec.DEFAULT_GRAPH_VERSION, graph.switches.profile)


def _flood(fault: Fault, wire: Wire) -> None:
    """Send more than anyone wants to read; gzip packs each piece a thousandfold."""
    piece = b" " * _PIECE
    encoding: answers.Headers = ()
    if fault.gzip:
        # Gzip members one after the other are one gzip file.
        piece, encoding = gzip.compress(piece), (("content-encoding", "gzip"),)
    answer = Answer(status=fault.http_status, body=b"", headers=encoding)
    wire.send_raw(head(_adorned(answer, fault), "connection: close"))
    for _ in range(-(-fault.size // _PIECE)):
        if not wire.open:
            return
        wire.send_raw(piece)
    wire.hang_up()


def _spoil(fault: Fault, wire: Wire, answer: Answer) -> int:
    body = answer.body
    match fault.kind:
        case FaultKind.DRIP:
            wire.send(answer, seconds=fault.seconds)
        case FaultKind.TRUNCATED_JSON:
            wire.send(replace(answer, body=body[: len(body) // 2]))
        case FaultKind.WRONG_CONTENT_LENGTH:
            wire.send(answer, length=len(body) + fault.off_by)
            wire.hang_up()
        case FaultKind.CHUNKED_CUT:
            chunk = f"{len(body):x}\r\n".encode() + body[: len(body) // 2]
            wire.send_raw(head(answer, "transfer-encoding: chunked") + chunk)
            wire.hang_up()
        case FaultKind.INTERIM:
            wire.send_raw(b"HTTP/1.1 103 Early Hints\r\n\r\n" * fault.size)
            wire.send(answer)
        case FaultKind.CLOSE_IDLE:
            wire.send(answer)
            wire.wait(fault.seconds)
            wire.hang_up()
        case _:
            wire.send(_misreported(fault, answer))
    return answer.status


def _misreported(fault: Fault, answer: Answer) -> Answer:
    """Return the receipt with one member changed; refusals stay as they are."""
    changes: dict[FaultKind, Callable[[dict[str, Any]], object]] = {
        FaultKind.RECEIVED_OFF_BY: lambda told: told.update(
            events_received=told["events_received"] + fault.off_by
        ),
        FaultKind.RECEIVED_IS: lambda told: told.update(events_received=fault.value),
        FaultKind.RECEIVED_MISSING: lambda told: told.pop("events_received"),
        FaultKind.MESSAGES: lambda told: told.update(messages=fault.value),
    }
    if fault.kind not in changes or answer.status != 200:
        return answer
    told = json.loads(answer.body)
    changes[fault.kind](told)
    return replace(answer, body=json.dumps(told).encode())


def _adorned(answer: Answer, fault: Fault) -> Answer:
    return answer.with_headers(*fault.headers)
