"""The channels alerts are told by: Slack, e-mail, a webhook. Off unless they are named.

The Airflow Variable `meta_capi_alerts` names a connection for each; addresses and secrets
stand in the connections and nowhere else. A channel takes a message or raises
UndeliveredError; it never says where it wanted to send it.
"""

from __future__ import annotations

import base64
import ipaddress
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from airflow.providers.smtp.hooks.smtp import SmtpHook
from airflow.sdk import Variable
from airflow.sdk.log import mask_secret

from capi_airflow.hook import connection_of
from capi_airflow.postbox import SECONDS, UndeliveredError, post_json
from meta_capi.alert_book import Message
from meta_capi.channel_names import VARIABLE, read_channels, recipients
from meta_capi.errors import ConfigurationError

__all__ = ["Channel", "Mail", "Slack", "Webhook", "channels"]

_SLACK: Final = "https://hooks.slack.com/services"
_SHORT_PATH: Final = 16


class Channel(Protocol):
    """A way to tell people something."""

    @property
    def name(self) -> str:
        """What the ledger calls it."""
        ...

    def send(self, message: Message) -> None:
        """Send a message; UndeliveredError if it was not taken."""
        ...


@dataclass(frozen=True, slots=True)
class Slack:
    """An incoming webhook of Slack's, or of what speaks its language."""

    url: str = field(repr=False)
    name: str = "slack"

    def send(self, message: Message) -> None:
        """Post it."""
        lines = [f"*{message.subject}*", message.text]
        if message.action:
            lines.append(f"To do: {message.action}")
        if message.link:
            lines.append(f"<{message.link}|Conversions of {message.feed}>")
        post_json(self.url, {"text": "\n".join(lines)}, {})


@dataclass(frozen=True, slots=True)
class Webhook:
    """Any address that takes JSON."""

    url: str = field(repr=False)
    authorization: str | None = field(default=None, repr=False)
    name: str = "webhook"

    def send(self, message: Message) -> None:
        """Post it; `key` is the same for all that is said of one alert."""
        body = {
            "key": message.key, "state": message.state, "severity": message.severity,
            "feed": message.feed, "kind": message.kind, "subject": message.subject,
            "text": message.text, "action": message.action, "link": message.link,
            "since": message.since.isoformat(),
        }  # fmt: skip
        given = self.authorization
        post_json(self.url, body, {"Authorization": given} if given else {})


class _PromptHook(SmtpHook):
    """Airflow's mail, by a connection that was read before, and without long waits."""

    def __init__(self, connection: Any) -> None:
        super().__init__(auth_type=connection.extra_dejson.get("auth_type", "basic"))
        self._given = connection

    def get_connection(self, conn_id: str) -> Any:  # type: ignore[override]  # of one hook
        """Return the connection that was given."""
        return self._given

    @property
    def timeout(self) -> int:
        """The connection's time-out, but no longer than a message may take."""
        return max(1, min(super().timeout, int(SECONDS)))

    @property
    def smtp_retry_limit(self) -> int:
        """None: what was not taken is sent with the next look."""
        return 0


@dataclass(frozen=True, slots=True)
class Mail:
    """E-mail, by an Airflow connection of type `smtp`."""

    connection: Any = field(repr=False)
    to: tuple[str, ...] = field(repr=False)
    name: str = "email"

    def send(self, message: Message) -> None:
        """Send it."""
        parts = [message.text]
        if message.action:
            parts.append(f"To do: {message.action}")
        html = "".join(f"<p>{escape(part)}</p>" for part in parts)
        if message.link:
            link = escape(message.link)
            html += f'<p><a href="{link}">{link}</a></p>'

        def step() -> None:
            hook = _PromptHook(self.connection)
            with hook as client:
                client.send_email_smtp(
                    to=list(self.to), subject=message.subject, html_content=html
                )

        _within(SECONDS, step)


def _within(seconds: float, step: Callable[[], None]) -> None:
    """Make a step in a thread that nobody waits for longer than this.

    A socket's time-out begins anew with every byte, and smtplib has no other.
    """
    raised: list[str] = []

    def run() -> None:
        try:
            step()
        # What a mail server says may quote an address.
        except Exception as error:
            raised.append(type(error).__name__)

    thread = threading.Thread(target=run, name="capi-mail", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise UndeliveredError(f"not taken within {seconds:g} seconds")
    if raised:
        raise UndeliveredError(raised[0])


def channels() -> list[Channel]:
    """Return the channels that are configured; none, if nothing is.

    Raises:
        ConfigurationError: what is wrong with the Variable or with a connection.
    """
    text = Variable.get(VARIABLE, default=None)
    return _channels(read_channels(text)) if text and text.strip() else []


def _channels(named: dict[str, str]) -> list[Channel]:
    found: list[Channel] = []
    if conn_id := named.get("slack"):
        found.append(_slack(conn_id))
    if conn_id := named.get("email"):
        found.append(_mail(conn_id, recipients(named)))
    if conn_id := named.get("webhook"):
        found.append(_webhook(conn_id))
    return found


def _slack(conn_id: str) -> Slack:
    given = connection_of(conn_id)
    # As Airflow's own Slack connection has it: the secret end of the address apart.
    base = _address(given) or _SLACK
    end = (given.password or "").strip().strip("/")
    url = f"{base.rstrip('/')}/{end}" if end else base
    if url == _SLACK:
        raise ConfigurationError(
            f"Connection {conn_id!r} has no webhook; put what follows /services/ in its "
            "address into the password field."
        )
    return Slack(_safe(conn_id, url, secret=True))


def _webhook(conn_id: str) -> Webhook:
    given = connection_of(conn_id)
    url, password = _address(given), (given.password or "").strip()
    if not url:
        raise ConfigurationError(f"Connection {conn_id!r} has no host.")
    header = None
    if password and given.login:
        packed = base64.b64encode(f"{given.login}:{password}".encode()).decode()
        header = f"Basic {packed}"
        mask_secret(packed)
    elif password:
        header = f"Bearer {password}"
    if header and not (header.isascii() and header.isprintable()):
        raise ConfigurationError(
            f"The password of connection {conn_id!r} has characters that no header takes."
        )
    return Webhook(_safe(conn_id, url, secret=header is not None), header)


def _mail(conn_id: str, people: tuple[str, ...]) -> Mail:
    given = connection_of(conn_id)
    if given.conn_type != "smtp":
        raise ConfigurationError(f"Connection {conn_id!r} is not of type smtp.")
    if not given.extra_dejson.get("from_email"):
        raise ConfigurationError(
            f"Connection {conn_id!r} has no from_email in its extra fields."
        )
    return Mail(given, people)


def _address(given: Any) -> str:
    """Return a connection's address, as Airflow's own HTTP hook reads it."""
    host = (given.host or "").strip()
    if not host or "://" in host:
        return host
    port = f":{given.port}" if given.port else ""
    return f"{given.schema or 'https'}://{host}{port}"


def _safe(conn_id: str, url: str, *, secret: bool) -> str:
    """Return the address if nothing secret leaves in clear; hide it from every log."""
    try:
        parts = urlsplit(url)
        sound = bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        sound = False
    if not sound or parts.scheme not in ("http", "https") or not url.isprintable():
        raise ConfigurationError(
            f"Connection {conn_id!r} is no http address without a user name."
        )
    if secret and parts.scheme == "http" and not _is_this_machine(parts.hostname):
        raise ConfigurationError(
            f"Connection {conn_id!r} would send its secret in clear; use https."
        )
    mask_secret(url)
    # urllib3 tells of it at DEBUG. A short one is no secret, and may be a word.
    if len(parts.path) > _SHORT_PATH:
        mask_secret(parts.path)
    return url


def _is_this_machine(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False
