"""Where the token goes, who decides that, and what is said of it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from airflow.configuration import conf
from airflow.sdk.log import redact
from tests.airflow.listener import Listener, answer
from tests.airflow.world import DATASET
from tests.house_rules import modules_of_the_house

from capi_airflow.hook import MetaCapiHook
from capi_airflow.provider import get_provider_info
from meta_capi.errors import ConfigurationError, NoAnswerError

TOKEN = "EAABcanaryOfTheDestination/0123456789+="
SECRET = "0123456789abcdef0123456789abcdef"
BODY = b'{"data": []}'

Connect = Callable[..., MetaCapiHook]


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Return a maker of hooks, each with what the connection says at the time."""

    def connect(host: str | None, **changes: Any) -> MetaCapiHook:
        extra = {"environment": "local", **changes.pop("extra", {})}
        given = {
            "conn_type": "meta_capi", "host": host, "login": DATASET, "password": TOKEN,
            "extra": extra, **changes,
        }  # fmt: skip
        monkeypatch.setenv("AIRFLOW_CONN_META_OF_TEST", json.dumps(given))
        return MetaCapiHook("meta_of_test")

    return connect


@pytest.mark.matrix("X27")
class TestMetasAddress:
    """Who may edit connections cannot send the token to a stranger."""

    @pytest.mark.parametrize("environment", ["production", "test", "local"])
    @pytest.mark.parametrize(
        "fields",
        [
            {"host": "http://0.0.0.0:{port}"},
            {"host": "http://0:{port}"},
            {"host": "0.0.0.0", "port": "{port}", "schema": "http"},
            {"host": "http://[::ffff:0.0.0.0]:{port}"},
            {"host": "http://127.0.0.1.evil.example:{port}"},
            {"host": "http://graph.facebook.com:{port}"},
            {"host": "http://evil.example\\@127.0.0.1:{port}"},
            {"host": "http://127.0.0.1:{port}@evil.example"},
            {"host": "http://:secret@127.0.0.1:{port}"},
            {"host": "http://[127.0.0.1"},
            {"host": "http://127.0.0.1:99999"},
            {"host": "ftp://127.0.0.1:{port}"},
            {"host": "http://2130706433:{port}"},
        ],
    )
    def test_no_field_of_a_connection_leads_the_token_elsewhere(
        self, connected: Connect, fields: dict[str, str], environment: str
    ) -> None:
        with Listener() as attacker:
            port = attacker.port
            given: dict[str, Any] = {k: v.format(port=port) for k, v in fields.items()}
            if "port" in given:
                given["port"] = int(given["port"])
            hook = connected(**given, extra={"environment": environment})
            with pytest.raises(ConfigurationError, match="base URL"):
                hook.post(BODY)
            good, told = connected(
                **given, extra={"environment": environment}
            ).test_connection()
        assert attacker.connections == 0
        assert not good
        assert TOKEN not in told

    def test_a_connection_that_says_nothing_of_its_environment_goes_to_meta_alone(
        self, connected: Connect
    ) -> None:
        with Listener() as attacker:
            hook = connected(attacker.url, extra={"environment": None})
            with pytest.raises(ConfigurationError, match="base URL"):
                hook.post(BODY)
        assert attacker.connections == 0

    def test_the_workers_own_environment_may_name_one_other_address(
        self, connected: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Listener() as elsewhere:
            url = elsewhere.url.replace("127.0.0.1", "0.0.0.0")
            monkeypatch.setenv("META_CAPI_GRAPH_URL", f"{url}/")
            assert connected(url).destination().base_url == url
            with pytest.raises(ConfigurationError, match="META_CAPI_GRAPH_URL"):
                connected(url.replace("http:", "https:")).destination()

    def test_another_address_is_said_loudly(
        self, connected: Connect, caplog: pytest.LogCaptureFixture
    ) -> None:
        node = json.dumps({"id": DATASET}).encode()
        with Listener(lambda line, _: line.sendall(answer(node))) as graph:
            url = graph.url
            good, told = connected(url).test_connection()
        assert good
        assert told.startswith(f"This is NOT Meta but {url}.")
        (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
        assert f"does NOT go to Meta but to {url}" in warning.getMessage()


@pytest.mark.matrix("X1", "X6", "X7", "X8")
class TestTheSecrets:
    def test_the_token_is_read_from_the_connection_and_nowhere_else(self) -> None:
        """One module of the plugin asks for Meta's, and none for a variable of it."""
        plugins = [m for m in modules_of_the_house() if m.path.startswith("plugins/")]
        asking = {m.path for m in plugins if "get_connection" in m.source}
        # The channels of alerts have connections of their own.
        channels = {"plugins/capi_airflow/channels.py"}
        assert asking - channels == {"plugins/capi_airflow/hook.py"}
        line = {
            f"plugins/capi_airflow/{each}.py" for each in ("hook", "transport", "stage")
        }
        knowing = {m.path for m in plugins if "airflow.sdk.Variable" in m.imports}
        assert not knowing & line
        assert not [m.path for m in plugins if "TOKEN" in m.source]

    def test_airflow_masks_both_in_every_spelling(self, connected: Connect) -> None:
        hook = connected("http://127.0.0.1:1", extra={"app_secret": SECRET})
        hook.destination()
        for secret in (TOKEN, SECRET):
            for shift in range(3):
                packed = base64.b64encode(b"x" * shift + f"{secret}|".encode()).decode()
                assert packed[4:-8] not in str(redact(f"Basic {packed}"))
            for text in (secret, quote(secret, safe="")):
                assert text not in str(redact(f"a word, {text}, another"))

    def test_the_app_is_proved_with_every_request(self, connected: Connect) -> None:
        with Listener() as server:
            hook = connected(server.url, extra={"app_secret": SECRET})
            hook.post(BODY)
            hook.get(DATASET, "id")
            connected(server.url).post(BODY)
        proof = hmac.new(SECRET.encode(), TOKEN.encode(), hashlib.sha256).hexdigest()
        asked = [parse_qs(urlsplit(r.split()[1].decode()).query) for r in server.heard]
        assert [each.get("appsecret_proof") for each in asked] == [
            [proof],
            [proof],
            None,
        ]
        assert all(SECRET.encode() not in request for request in server.heard)
        assert SECRET not in repr(hook.destination())
        (kind,) = get_provider_info()["connection-types"]
        assert kind["conn-fields"]["app_secret"]["schema"]["format"] == "password"

    def test_a_new_token_is_used_at_once_and_has_another_fingerprint(
        self, connected: Connect, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The process goes on; the next task's hook reads the connection again."""
        caplog.set_level(logging.INFO)
        with Listener() as server:
            old = connected(server.url)
            old.post(BODY)
            new = connected(server.url, password="EAABtheNewToken0123456789")
            new.post(BODY)
        assert [b"EAABtheNewToken" in request for request in server.heard] == [
            False,
            True,
        ]
        assert old.fingerprint != new.fingerprint
        for hook in (old, new):
            assert f"fingerprint {hook.fingerprint}" in caplog.text
            assert hook.fingerprint not in hook.destination().token
            assert hook.destination().token[:12] not in caplog.text


@pytest.mark.matrix("X30")
class TestTheTestButton:
    @pytest.mark.parametrize(
        "said",
        [b"<html>MIRROR</html>", b'{"id": "MIRROR"}', b'{"id": ["MIRROR"]}',
         b'{"error": {"message": "MIRROR", "code": 190, "fbtrace_id": "MI/RR/OR"}}'],
    )  # fmt: skip
    @pytest.mark.parametrize("status", [b"200 OK", b"400 Bad Request", b"500 Oh"])
    def test_it_shows_nothing_of_an_answers_body(
        self, connected: Connect, said: bytes, status: bytes
    ) -> None:
        with Listener(
            lambda line, _: line.sendall(answer(said, status=status))
        ) as server:
            good, told = connected(server.url).test_connection()
        assert not good
        assert "MI" not in told

    def test_airflow_has_it_switched_off_unless_somebody_switches_it_on(self) -> None:
        assert "AIRFLOW__CORE__TEST_CONNECTION" not in os.environ
        assert conf.get("core", "test_connection") == "Disabled"


def test_a_line_that_fails_names_the_host_and_the_kind_alone(
    connected: Connect,
) -> None:
    with pytest.raises(NoAnswerError) as caught:
        connected("http://127.0.0.1:1", extra={"app_secret": SECRET}).post(BODY)
    for secret in (TOKEN, SECRET, "appsecret_proof"):
        assert secret not in str(caught.value)
