"""The line to Meta: a destination, and one callable, `post(body)`. The only socket.

It does not retry, parse or judge. The token goes into the Authorization header and
nowhere else: no URL, no log line, no exception. No Airflow here, so that the command
line can use it too.
"""

from __future__ import annotations

import hmac
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final, Self
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from capi_airflow.deadline import DeadlineAdapter, Deadlines
from meta_capi import spec
from meta_capi.errors import NoAnswerError
from meta_capi.scores import FIELDS, PATH, EventScore, ScoresError, Surface, parse
from meta_capi.verdict import Accepted, Answer, Refused, Stopped, read

__all__ = ["Destination", "Line"]

_MOST_ANSWER_BYTES: Final = 1_048_576
_GZIP: Final = 16 + zlib.MAX_WBITS
_ENVIRONMENTS: Final = ("production", "test", "local")


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where events go: a dataset behind a Graph version, with its token."""

    dataset_id: str
    token: str = field(repr=False)
    environment: str = "production"
    graph_version: str = spec.DEFAULT_GRAPH_VERSION
    base_url: str = spec.GRAPH_HOST
    partner_agent: str | None = None
    app_secret: str | None = field(default=None, repr=False)
    token_expires: str | None = None
    """A day, as a person wrote it down. Meta tells it to none who keeps the token out of
    addresses."""
    quality_scores: tuple[str, ...] = ()
    """The surfaces whose scores are read from Meta; none unless somebody asks for it."""

    @classmethod
    def of(
        cls, *, host: object, port: int | None, schema: str | None,
        login: object, password: object, extra: Mapping[str, Any],
    ) -> Self:  # fmt: skip
        """Read the fields of an Airflow connection of type `meta_capi`.

        The dataset is the login; `dataset_id` in the extra is taken as well. Written as
        JSON, any of them may be a number.
        """
        base_url = str(host or "").strip().rstrip("/") or spec.GRAPH_HOST
        if "://" not in base_url:
            base_url = f"{schema or 'https'}://{base_url}{f':{port}' if port else ''}"
        return cls(
            dataset_id=str(login or extra.get("dataset_id") or "").strip(),
            token=str(password or "").strip(),
            environment=str(extra.get("environment") or "production"),
            graph_version=str(extra.get("graph_version") or spec.DEFAULT_GRAPH_VERSION),
            base_url=base_url,
            partner_agent=str(extra.get("partner_agent") or "") or None,
            app_secret=str(extra.get("app_secret") or "") or None,
            token_expires=str(extra.get("token_expires") or "") or None,
            quality_scores=_words(extra.get("quality_scores")),
        )

    @property
    def dataset_url(self) -> str:
        """The dataset's node."""
        return f"{self.base_url}/{self.graph_version}/{self.dataset_id}"

    @property
    def proof(self) -> str | None:
        """What shows Meta that the token's own app is asking; None without its secret.

        "Securing Graph API requests": HMAC-SHA256 of the token by the app's secret.
        """
        if not self.app_secret:
            return None
        digest = hmac.digest(self.app_secret.encode(), self.token.encode(), "sha256")
        return digest.hex()

    @property
    def token_end(self) -> date | None:
        """The day on which the token expires, if the connection says so."""
        try:
            return date.fromisoformat(str(self.token_expires or "").strip())
        except ValueError:
            return None

    def faults(self) -> list[str]:
        """Return what is wrong with it, one sentence each."""
        return list(self._faults())

    def _faults(self) -> Iterator[str]:
        token = self.token
        if not token:
            yield "The connection has no access token; put it in the password field."
        elif not token.isascii() or not token.isprintable() or " " in token:
            yield (
                "The access token has characters that tokens do not have; paste it "
                "again."
            )
        if not _is(spec.DATASET_ID_PATTERN, self.dataset_id):
            yield (
                "The connection's dataset_id is not 5 to 20 digits; copy it from "
                "Events Manager."
            )
        if not _is(spec.GRAPH_VERSION_PATTERN, self.graph_version):
            yield (
                "The connection's graph_version is not of the form "
                f"{spec.DEFAULT_GRAPH_VERSION}."
            )
        if self.environment not in _ENVIRONMENTS:
            known = ", ".join(_ENVIRONMENTS)
            yield f"The connection's environment is none of {known}."
        agent = self.partner_agent
        if agent and not _is(spec.PARTNER_AGENT_PATTERN, agent):
            yield (
                "The connection's partner_agent must have 2 to 22 characters, two of "
                "them letters."
            )
        if self.token_expires and self.token_end is None:
            yield "The connection's token_expires is not a day; write it as 2027-01-31."
        if not set(self.quality_scores) <= set(Surface):
            yield "The connection's quality_scores are not web, offline or both."
        if self.base_url != spec.GRAPH_HOST:
            yield from self._base_url_faults()

    def _base_url_faults(self) -> Iterator[str]:
        if not _is_address(self.base_url):
            yield (
                "The connection's base URL is not an http address without a user name."
            )
        elif self.environment != "local":
            yield (
                "The connection's base URL is not Meta's. The token would go to "
                "another host: clear the field, or set environment: local for the "
                "local Graph API."
            )


def _words(text: object) -> tuple[str, ...]:
    return tuple(str(text or "").lower().replace(",", " ").split())


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        sound = parts.port != 0 and parts.scheme in ("http", "https")
    except ValueError:  # a bracket too many, a port that is none
        return False
    return sound and bool(parts.hostname) and "@" not in parts.netloc


def _is(pattern: str, text: str) -> bool:
    # Whole and in ASCII: `$` passes a line break, and `\d` the digits of all scripts.
    return re.fullmatch(pattern, text, re.ASCII) is not None


class Line:
    """A session to one destination; its threads share the connections."""

    def __init__(
        self,
        destination: Destination,
        *,
        requests_in_flight: int = 1,
        deadline_seconds: float = spec.REQUEST_DEADLINE_SECONDS,
    ) -> None:
        self.destination = destination
        self._deadlines = Deadlines(deadline_seconds)
        self._timeouts = (
            min(spec.CONNECT_TIMEOUT_SECONDS, deadline_seconds),
            deadline_seconds,
        )
        # Keep-alive, no redirects, no retries. The environment could name a proxy or a
        # .netrc, which would replace the Authorization header.
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        if proof := destination.proof:
            self.session.params = {"appsecret_proof": proof}
        adapter = DeadlineAdapter(
            pool_connections=1,
            pool_maxsize=requests_in_flight,
            max_retries=0,
            pool_block=True,
        )
        self.session.mount("https://", adapter)
        self.session.mount("http://", adapter)
        self.session.headers.update(
            {
                "Authorization": f"Bearer {destination.token}",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": "meta-capi-airflow",
            }
        )

    def post(self, body: bytes) -> Answer:
        """Send one request's body to the dataset's `events` edge.

        Raises:
            NoAnswerError: no whole answer came within the deadline.
        """
        return self._ask("POST", f"{self.destination.dataset_url}/events", body)

    def get(self, path: str, fields: str, **params: str) -> Answer:
        """Read a node's fields; `path` begins after the Graph version.

        Raises:
            NoAnswerError: no whole answer came within the deadline.
        """
        destination = self.destination
        url = f"{destination.base_url}/{destination.graph_version}/{path}"
        return self._ask("GET", url, None, params={"fields": fields, **params})

    def scores(self, surface: Surface) -> list[EventScore]:
        """Read Meta's own scores of the dataset's events.

        Raises:
            ScoresError: there was no answer, or none with scores.
        """
        dataset_id = self.destination.dataset_id
        try:
            answer = self.get(PATH, FIELDS[surface], dataset_id=dataset_id)
        except NoAnswerError as error:
            raise ScoresError(str(error), code=error.code, for_now=True) from None
        return parse(answer, surface)

    def dataset_faults(self, name: str) -> list[str]:
        """Ask Meta for the dataset; return what is wrong, one sentence each.

        `name` is what the sentences call the destination.
        """
        wanted = self.destination.dataset_id
        try:
            answer = self.get(wanted, "id,name,is_consolidated_container")
        except NoAnswerError as error:
            return [
                f"{error} Check the network from here to {self.destination.base_url}."
            ]
        match read(answer, events=0):
            case Stopped(sentence=sentence):
                return [f"Meta says of {name}: {sentence}."]
            case Refused(receipt=receipt):
                return [f"Meta refuses to show the dataset (code {receipt.code})."]
            case Accepted():
                pass
            case _ if answer.status != 200:
                return [
                    f"Meta does not answer properly just now (HTTP {answer.status})."
                ]
        try:
            node = json.loads(answer.body)
        except ValueError:
            return ["The address answers, but not as the Graph API does."]
        if not isinstance(node, dict) or str(node.get("id")) != wanted:
            return ["The address answers, but not with the connection's dataset."]
        return []

    def _ask(
        self,
        method: str,
        url: str,
        body: bytes | None,
        params: dict[str, str] | None = None,
    ) -> Answer:
        tracked = _TrackedBody(body) if body is not None else None
        try:
            with (
                self._deadlines.begin() as deadline,
                self.session.request(
                    method,
                    url,
                    params=params,
                    data=tracked,
                    allow_redirects=False,
                    stream=True,
                    timeout=self._timeouts,
                    headers={"Content-Type": "application/json"} if tracked else None,
                ) as response,
            ):
                answer = _read(response)
                if deadline.over:
                    # What was broken off may look like the end of an answer.
                    raise _TooMuchError
                return Answer(
                    response.status_code,
                    dict(response.headers),
                    answer,
                    body_left=tracked is None or tracked.left,
                )
        except (
            requests.RequestException, HTTPError, OSError, zlib.error, _TooMuchError,
        ) as error:  # fmt: skip
            # Its text may hold the URL, the proxy, or a piece of the answer: the class
            # name says enough.
            kind = type(error).__name__
        left = tracked is None or tracked.left
        raise NoAnswerError(
            f"No whole answer came from {urlsplit(url).hostname or 'the address'} "
            f"({kind}); {'the body had left' if left else 'the body had not left'}.",
            body_left=left,
        )


class _TooMuchError(Exception):
    """The answer is too long, or takes too long."""


class _TrackedBody:
    """A request's body that knows whether its last byte was handed to the socket."""

    def __init__(self, body: bytes) -> None:
        self._body = memoryview(body)
        self._at = 0
        self.left = False

    def __len__(self) -> int:
        return len(self._body)

    def read(self, size: int = -1) -> bytes:
        """Hand out the next piece."""
        whole = len(self._body)
        end = whole if size < 0 else min(self._at + size, whole)
        piece = self._body[self._at : end]
        self._at = end
        self.left = self._at == whole
        return piece.tobytes()


def _read(response: requests.Response) -> bytes:
    """Return the answer's body; never more than the limit, packed or not."""
    pieces, size = [], 0
    # Past requests' own decoder, which unpacks a bomb before anyone can look.
    for piece in response.raw.stream(65_536, decode_content=False):
        pieces.append(piece)
        size += len(piece)
        if size > _MOST_ANSWER_BYTES:
            raise _TooMuchError
    body = b"".join(pieces)
    # None was asked for, but a proxy may pack it all the same.
    if response.headers.get("Content-Encoding", "identity").lower() == "gzip":
        body = zlib.decompressobj(_GZIP).decompress(body, _MOST_ANSWER_BYTES + 1)
        if len(body) > _MOST_ANSWER_BYTES:
            raise _TooMuchError
    return body
