"""A server that takes every event and answers after a while: Meta's distance.

It reads bodies and counts events, and does nothing else: what a client reaches here is
the client's own limit. Speaks as much HTTP/1.1 as a keep-alive client needs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from contextlib import suppress

# Without quotes: a form has them encoded, and escaped.
_PER_EVENT = b"event_name"
_RESET = b"POST /_simulator/reset"
_MOST_BYTES = 1 << 22


class _Meta:
    def __init__(self, seconds: float, dataset: str) -> None:
        self.seconds = seconds
        self.dataset = dataset
        self.events = self.requests = self.in_flight = self.most_in_flight = 0

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer one connection's requests."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_length(head))
                writer.write(_response(await self._answer(head, body)))
        writer.close()

    async def _answer(self, head: bytes, body: bytes) -> object:
        if head.startswith(b"GET "):
            return {"datasets": {self.dataset: self._counts()}}
        if head.startswith(_RESET):
            self.events = self.requests = self.most_in_flight = 0
            return {}
        events = body.count(_PER_EVENT)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(self.seconds)
        self.in_flight -= 1
        self.events += events
        self.requests += 1
        return {"events_received": events, "messages": [], "fbtrace_id": "A"}

    def _counts(self) -> dict[str, int]:
        return {
            "processed": self.events,
            "requests": self.requests,
            "most_in_flight": self.most_in_flight,
        }


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def _response(answer: object) -> bytes:
    body = json.dumps(answer).encode()
    head = (
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _main() -> None:
    parser = argparse.ArgumentParser(prog="bench.answering", description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--dataset", required=True, help="whose events it counts")
    options = parser.parse_args()
    meta = _Meta(options.seconds, options.dataset)
    server = await asyncio.start_server(
        meta.serve, "127.0.0.1", 0, limit=_MOST_BYTES, backlog=256
    )
    host, port = server.sockets[0].getsockname()
    print(f"It answers on http://{host}:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())
