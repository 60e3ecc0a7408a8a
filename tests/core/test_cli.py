"""The command line's words: what it shows, where it looks, how it ends."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st
from tests.house_rules import ROOT

from meta_capi import match_keys
from meta_capi.catalogue import CATALOGUE
from meta_capi.cli import main
from meta_capi.cli.connections import Connection, database_url, find
from meta_capi.cli.page import Page
from meta_capi.cli.program import ended
from meta_capi.cli.wiring import Wiring
from meta_capi.errors import ConfigurationError
from meta_capi.event import Builder
from meta_capi.feed import Feed, json_schema, parse
from meta_capi.judged import readings
from meta_capi.mask import shape, shown
from meta_capi.spec import STANDARD_EVENTS

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
FEED = """
feed: every_key
description: A feed with every match key.
schedule: "0 * * * *"
start_date: 2026-01-01
source: {table: shop.t, key: [id], cursor: {column: at}}
event: {name: Contact, action_source: phone_call, time: {column: at}}
user_data:
  em: em
  ph: {column: ph, default_country: CH}
  fn: fn
  ln: ln
  db: {column: db, format: "%d.%m.%Y"}
  ge: ge
  ct: ct
  st: st
  zp: zp
  country: {column: country, default: US}
  external_id: {column: external_id, mode: trimmed}
  client_ip_address: client_ip_address
  client_user_agent: client_user_agent
  fbc: fbc
  fbp: fbp
  subscription_id: subscription_id
  fb_login_id: fb_login_id
  lead_id: lead_id
  madid: madid
consent: {not_required_because: The tests have no customers.}
"""


@pytest.fixture(scope="module")
def feed() -> Feed:
    return parse(FEED)


def run(
    capsys: pytest.CaptureFixture[str], *arguments: str, **environ: str
) -> tuple[int, str, str]:
    """Run a command; return its exit code, what it wrote, and what it complained."""
    out = io.StringIO()
    code = main(list(arguments), environ=environ, out=out, now=NOW)
    return code, out.getvalue(), capsys.readouterr().err


class TestMasks:
    @given(st.text(max_size=40))
    @example("mary")
    @example("Zoë")
    @example(" 1a2b")
    def test_a_shape_tells_the_length_the_digits_and_at_most_the_first_letter(
        self, text: str
    ) -> None:
        core = text.lstrip()
        hidden = 1 if len(core.rstrip()) >= 4 and core[0].isalpha() else 0
        start = len(text) - len(core) + hidden
        other = text[:start] + "".join(map(_other, text[start:]))
        assume(not any(isinstance(match_keys.prehashed(t), str) for t in (text, other)))
        assert shape(other) == shape(text)

    def test_a_digest_is_not_shown_as_text(self) -> None:
        assert shape("AB" * 32) == "a SHA-256 digest"

    @pytest.mark.parametrize(
        ("value", "told"),
        [
            (1234, "a whole number of 4 digits"),
            (True, "true or false"),
            (NOW, "a time"),
            (NOW.date(), "a date"),
            (["a"], "a list of 1"),
            ({"a": 1}, "an object"),
            (b"secret", "a value of type bytes"),
            (1.5, "a number"),
        ],
    )
    def test_values_of_other_types_are_named_by_their_type(
        self, value: object, told: str
    ) -> None:
        assert shape(value) == told

    def test_an_event_is_shown_as_it_is_but_for_what_is_personal(self) -> None:
        digest = "ab" * 32
        event: dict[str, Any] = {
            "event_name": "Purchase",
            "user_data": {"em": [digest], "client_ip_address": "81.2.69.160"},
            "custom_data": {
                "currency": "CHF", "order_id": "o-1", "note": "Kanarienvogel",
                "contents": [{"id": "sku", "quantity": 2, "title": "Kanarienvogel"}],
            },
        }  # fmt: skip
        body = json.dumps(event).replace('"CHF"', '"CHF","value":12.50').encode()
        text = "\n".join(shown(body, exact=False))
        assert '"value": 12.50' in text
        told = json.loads(text)
        assert told["user_data"]["em"] == ["abab…"]
        assert told["user_data"]["client_ip_address"] == shape("81.2.69.160")
        assert told["custom_data"]["order_id"] == "o-1"
        assert "anarien" not in text
        exactly = json.loads("\n".join(shown(body, exact=True)))
        assert exactly["user_data"]["em"] == [digest]
        assert "anarien" not in str(exactly)
        assert "81.2" not in str(exactly)


def _other(character: str) -> str:
    """Return another character that counts the same."""
    if character.isdigit():
        return "7"
    if character.isalpha():
        return "x"
    return character


# Words from all over the table, so that many of them are right for their key.
_WORDS = st.sampled_from([
    "", " ", "mary@example.com", "MARY@EXAMPLE.COM; b@example.org", "not an address",
    "079 555 12 34", "+41 79 555 12 34", "(650) 555-0142", "0", "Zoë", "O'Brien", "--",
    "31.12.1987", "32.13.1987", "f", "Female", "x", "St. Gallen", "California", "CA",
    "zh", "94025", "9", "8000", "US", "ch", "Schweiz", "Atlantis", "id-1", "a|b;c",
    "81.2.69.160", "10.0.0.1", "Mozilla/5.0", "fb.1.1596403881668.Abc",
    "fb.1.1596403881668.1116446470", "12345678901234567", "1.2e16",
    "6d92078a-8246-4ba4-ae5b-76104861e7dc", "ab" * 32, "AB" * 32, "ab" * 16,
])  # fmt: skip
_VALUES = st.one_of(st.none(), _WORDS, st.text(max_size=12), st.integers(0, 10**17))


class TestReadings:
    @given(st.fixed_dictionaries(dict.fromkeys(match_keys.KEYS, _VALUES)))
    def test_what_is_told_of_a_match_key_is_what_the_event_has(
        self, values: Mapping[str, object]
    ) -> None:
        feed = parse(FEED)
        row = {"id": "1", "at": NOW, **values}
        columns = {name: (row[name],) for name in feed.columns}
        builder = Builder(feed, dataset_id="1", digest_key=bytes(32), today=NOW.date())
        built = builder.build(columns, int(NOW.timestamp()))
        told = {each.key: each for each in readings(feed, row, NOW.date())}
        assert tuple(key for key in told if told[key].sent) == match_keys.names(
            built.masks[0]
        )
        flaws = sorted(each.flaw for each in told.values() if each.flaw)
        assert flaws == sorted(built.flaws.elements())
        if built.bodies[0]:
            sent = json.loads(built.bodies[0])["user_data"]
            for key, value in sent.items():
                whole = value if isinstance(value, list) else [str(value)]
                assert list(told[key].sent) == whole

    def test_a_default_is_told_as_such(self, feed: Feed) -> None:
        row = dict.fromkeys(feed.columns)
        told = {each.key: each for each in readings(feed, row, NOW.date())}
        assert told["country"].raw == "empty"
        assert told["country"].sent
        assert not told["em"].sent


class TestConnections:
    @given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
    def test_airflows_uri_gives_back_what_was_written_into_it(
        self, login: str, password: str
    ) -> None:
        try:
            uri = f"postgres://{quote(login, '')}:{quote(password, '')}@db:5433/sales"
        except UnicodeEncodeError:
            assume(False)
        found = find("capi_ledger", {"AIRFLOW_CONN_CAPI_LEDGER": uri})
        assert found is not None
        assert (found.login, found.password) == (login, password)
        assert (found.host, found.port, found.schema) == ("db", 5433, "sales")

    def test_json_and_uri_say_the_same(self) -> None:
        extra = {"dataset_id": "1234567890", "environment": "local"}
        host = quote("http://127.0.0.1:8085", "")
        as_json = json.dumps({
            "conn_type": "meta-capi", "host": "http://127.0.0.1:8085",
            "password": "EAAB/secret", "extra": json.dumps(extra),
        })  # fmt: skip
        as_uri = (
            f"meta-capi://:{quote('EAAB/secret', '')}@"
            f"{host}/?__extra__={quote(json.dumps(extra))}"
        )
        expected = Connection(
            conn_type="meta_capi", host="http://127.0.0.1:8085",
            password="EAAB/secret", extra=extra,
        )  # fmt: skip
        assert find("m", {"AIRFLOW_CONN_M": as_json}) == expected
        assert find("m", {"AIRFLOW_CONN_M": as_uri}) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "kanarie",
            '{"kanarie',
            '{"port": "kanarie"}',
            "postgres://a:b@h:kanarie/",
            '{"password": ["kanarie"]}',
            '{"host": {"kanarie": 1}}',
            '{"extra": "[\\"kanarie\\"]"}',
            "postgres://h/?__extra__=5",
        ],
    )
    def test_an_unreadable_connection_is_told_without_its_text(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match="AIRFLOW_CONN_M") as caught:
            find("m", {"AIRFLOW_CONN_M": text})
        assert "kanarie" not in str(caught.value)

    def test_a_field_that_is_a_number_is_its_digits(self) -> None:
        text = '{"host": 5, "login": 1234567890, "password": 12345678, "schema": 7}'
        assert find("m", {"AIRFLOW_CONN_M": text}) == Connection(
            conn_type="", host="5", login="1234567890", password="12345678", schema="7"
        )

    def test_a_database_of_another_type_asks_for_its_url(self) -> None:
        with pytest.raises(ConfigurationError, match="META_CAPI_WAREHOUSE"):
            database_url("w", Connection(conn_type="snowflake"))

    def test_what_libpq_knows_is_handed_on(self) -> None:
        extra = {"sslmode": "require", "iam": True}
        given = Connection(conn_type="postgres", host="db", schema="s", extra=extra)
        assert database_url("w", given).query == {"sslmode": "require"}

    def test_secrets_are_in_no_repr(self) -> None:
        given = Connection(
            conn_type="x", login="kanarie", password="kanarie", extra={"t": "kanarie"}
        )
        assert "kanarie" not in repr(given)


class TestPages:
    @given(st.lists(st.text(alphabet="ab ", max_size=60), max_size=8))
    def test_no_line_of_a_table_is_wider_than_the_page(self, cells: list[str]) -> None:
        out = io.StringIO()
        Page(out).table(["one", "two", "three"], [(cell, cell, 7) for cell in cells])
        assert max(map(len, out.getvalue().splitlines())) <= 96

    def test_a_text_cannot_steer_the_terminal(self) -> None:
        out = io.StringIO()
        Page(out).line("key\x1b[2J\u202e")
        assert out.getvalue() == "key\ufffd[2J\ufffd\n"

    def test_numbers_stand_to_the_right(self) -> None:
        out = io.StringIO()
        Page(out).table(["state", "rows"], [("a", 7), ("b", 7_000)])
        assert out.getvalue().splitlines()[1:] == ["a          7", "b      7,000"]


class TestCommands:
    @pytest.mark.parametrize(
        "arguments",
        [
            [], ["nonsense"], ["send-test", "f"], ["explain"], ["plan", "f"],
            ["preview", "f", "--limit", "0"], ["preview", "f", "--token", "x"],
            ["status", "f", "--list", "gone"], ["feed"], ["check", "--tok", "x"],
            ["preview", "f", "--key", "a", "--limit", "1"],
        ],
    )  # fmt: skip
    def test_wrong_usage_ends_with_two(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            main(arguments, environ={})
        assert ended.value.code == 2
        assert "usage: meta-capi" in capsys.readouterr().err

    def test_no_command_takes_a_token(self, capsys: pytest.CaptureFixture[str]) -> None:
        for command in ("check", "preview", "send-test", "explain", "plan", "status"):
            with pytest.raises(SystemExit):
                main([command, "--help"])
            assert "--token" not in capsys.readouterr().out

    def test_the_manual_has_every_command_with_its_options(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        manual = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
        with pytest.raises(SystemExit):
            main(["--help"])
        told = capsys.readouterr().out
        commands = re.findall(r"^    ([a-z-]+)(?: |$)", told, re.MULTILINE)
        assert len(commands) == 14
        for command in commands:
            assert f"\n## {command}\n" in manual
            if command == "simulate":
                continue  # its options are the simulator's to tell
            with pytest.raises(SystemExit):
                main([command, "--help"])
            usage = capsys.readouterr().out.partition("options:")[0]
            for option in re.findall(r"--[a-z-]+", usage):
                assert option in manual
        for variable in re.findall(r"META_CAPI_[A-Z_]+", told):
            assert f"`{variable}`" in manual

    def test_every_entry_of_the_catalogue_is_told(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        _, everything, _ = run(capsys, "reasons")
        for code, entry in CATALOGUE.items():
            assert f"  {code}\n" in everything
            status, out, _ = run(capsys, "reasons", code)
            assert status == 0
            assert " ".join(entry.action.split()) in " ".join(out.split())
            assert f"docs/reasons.md#{code}\n" in out

    def test_an_unknown_reason_is_met_with_the_nearest(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        status, _, complaint = run(capsys, "reasons", "windows.over")
        assert status == 2
        assert "Did you mean window.over?" in complaint

    def test_the_schema_is_the_published_one(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        status, out, _ = run(capsys, "feed", "schema")
        assert status == 0
        assert json.loads(out) == json.loads(json.dumps(json_schema()))

    def test_a_right_feed_file_is_called_right(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        path = tmp_path / "every_key.yaml"
        path.write_text(FEED, encoding="utf-8")
        status, out, _ = run(capsys, "feed", "check", str(path))
        assert status == 0
        assert "send_every_key" in out

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("Purchse", "Purchase"), ("purchase", "Purchase"), ("Purcahse", "Purchase"),
            ("'Purchase '", "Purchase"), ("addtocart", "AddToCart"), ("Leads", "Lead"),
        ],
    )  # fmt: skip
    def test_an_event_that_is_nearly_one_of_metas_is_pointed_at(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, meant: str
    ) -> None:
        path = tmp_path / "every_key.yaml"
        path.write_text(FEED.replace("name: Contact", f"name: {name}"), "utf-8")
        status, out, _ = run(capsys, "feed", "check", str(path))
        assert status == 0
        [look] = out.split("LOOK")[1:]
        assert f"did you mean {meant}?" in " ".join(look.split())

    @pytest.mark.parametrize("name", [*sorted(STANDARD_EVENTS), "Newsletter opened"])
    def test_metas_own_events_and_those_of_ones_own_are_not(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
    ) -> None:
        path = tmp_path / "every_key.yaml"
        text = FEED.replace("name: Contact", f"name: {name}")
        money = "custom_data: {value: v, currency: {default: CHF}}\n"
        path.write_text(text + money, encoding="utf-8")
        status, out, _ = run(capsys, "feed", "check", str(path))
        assert (status, "LOOK" in out) == (0, False)

    def test_a_stage_of_a_crm_may_have_a_name_like_one_of_metas(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        text = (ROOT / "include" / "feeds" / "crm_leads.yaml").read_text("utf-8")
        path = tmp_path / "crm_leads.yaml"
        path.write_text(text, encoding="utf-8")
        _, out, _ = run(capsys, "feed", "check", str(path))
        assert "Contacted" in out
        assert "LOOK" not in out
        path.write_text(text.replace(": Contacted", ": Purchse"), encoding="utf-8")
        _, out, _ = run(capsys, "feed", "check", str(path))
        assert "did you mean Purchase?" in " ".join(out.split())

    def test_every_fault_of_a_feed_file_is_told_with_its_line(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        path = tmp_path / "every_key.yaml"
        path.write_text(FEED.replace("em: em", "email: em\n  foo: bar"), "utf-8")
        status, out, _ = run(capsys, "feed", "check", str(path))
        assert status == 1
        assert "every_key.yaml:9: user_data.email" in out
        assert "every_key.yaml:10: user_data.foo" in out

    @pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
    def test_a_file_that_cannot_be_read_is_a_sentence(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes | None
    ) -> None:
        path = tmp_path / "a_feed.yaml"
        if content:
            path.write_bytes(content)
        status, out, _ = run(capsys, "feed", "check", str(path))
        assert status == 1
        assert out.startswith("FAULT      a_feed.yaml:1: ")

    def test_an_unknown_feed_is_met_with_the_nearest(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        home = str(ROOT / "include")
        status, _, complaint = run(
            capsys, "preview", "ofline_purchases", META_CAPI_HOME=home
        )
        assert status == 2
        assert "did you mean offline_purchases?" in complaint

    def test_a_folder_without_feeds_is_named(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        status, _, complaint = run(capsys, "status", "--home", str(tmp_path))
        assert status == 2
        assert "has no feeds" in complaint

    @pytest.mark.parametrize(
        ("command", "variable"),
        [
            (["preview", "every_key"], "META_CAPI_WAREHOUSE"),
            (["preview", "every_key"], "AIRFLOW_CONN_CAPI_WAREHOUSE"),
            (["status"], "META_CAPI_LEDGER"),
            (["explain", "k"], "AIRFLOW_CONN_CAPI_LEDGER"),
            (["send-test", "every_key", "--code", "TEST1"], "META_CAPI_TOKEN"),
            (["send-test", "every_key", "--code", "TEST1"], "META_CAPI_DATASET"),
        ],
    )
    def test_what_is_not_set_is_asked_for_by_its_name(
        self, capsys: pytest.CaptureFixture[str], home: Path, command: list[str],
        variable: str,
    ) -> None:  # fmt: skip
        status, _, complaint = run(capsys, *command, META_CAPI_HOME=str(home))
        assert status == 2
        assert variable in complaint

    @pytest.mark.parametrize(
        "url",
        [
            "kanarie", "postgresql://u:kanarie@h:port/d", "nosuch://u:kanarie@h/d",
            "oracle://u:kanarie@h/d", "://kanarie", "mysql://u:kanarie@h/d",
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("name", ["WAREHOUSE", "LEDGER"])
    def test_a_wrong_url_is_a_sentence_that_does_not_quote_it(
        self, capsys: pytest.CaptureFixture[str], home: Path, url: str, name: str
    ) -> None:
        command = "preview every_key" if name == "WAREHOUSE" else "status every_key"
        status, out, complaint = run(
            capsys, *command.split(), META_CAPI_HOME=str(home),
            **{f"META_CAPI_{name}": url},
        )  # fmt: skip
        assert status == 2
        assert complaint.endswith(".\n")
        assert "Traceback" not in complaint
        assert "kanarie" not in out + complaint

    @pytest.mark.parametrize(
        ("environ", "sentence"),
        [
            ({"META_CAPI_DATASET": "12"}, "dataset_id is not 5 to 20 digits"),
            ({"META_CAPI_TOKEN": "kana rie"}, "characters that tokens do not have"),
            (
                {"META_CAPI_GRAPH_URL": "https://other.example"},
                "base URL is not Meta's",
            ),
            ({"META_CAPI_GRAPH_URL": "http://[::1"}, "base URL is not an http address"),
            ({"META_CAPI_ENVIRONMENT": "moon"}, "environment is none of"),
            ({}, "counts as production"),
        ],
    )
    def test_a_destination_that_cannot_be_is_told_before_anything_is_sent(
        self, capsys: pytest.CaptureFixture[str], home: Path,
        environ: dict[str, str], sentence: str,
    ) -> None:  # fmt: skip
        whole = {
            "META_CAPI_HOME": str(home),
            "META_CAPI_TOKEN": "EAABkanarie",
            "META_CAPI_DATASET": "1234567890",
        } | environ
        status, out, complaint = run(
            capsys, "send-test", "every_key", "--code", "TEST12345", **whole
        )
        assert status == 2
        assert sentence in " ".join(complaint.split())
        assert "kana" not in out + complaint

    def test_a_code_that_metas_codes_are_not_is_refused(
        self, capsys: pytest.CaptureFixture[str], home: Path
    ) -> None:
        status, _, complaint = run(
            capsys, "send-test", "every_key", "--code", "a b", META_CAPI_HOME=str(home)
        )
        assert status == 2
        assert "Events Manager" in complaint

    def test_without_the_line_to_meta_the_command_says_what_to_install(
        self, capsys: pytest.CaptureFixture[str], home: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setitem(sys.modules, "capi_airflow.transport", None)
        status, _, complaint = run(
            capsys, "send-test", "every_key", "--code", "TEST1",
            META_CAPI_HOME=str(home),
        )  # fmt: skip
        assert status == 2
        assert "capi_airflow is not here" in complaint

    def test_a_fault_of_ours_ends_in_a_sentence_without_what_a_row_held(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def broken(wiring: Wiring, page: Page) -> int:
            raise ValueError("kanarie@nest.example")

        status = ended(broken, Wiring(None, {}, NOW), Page(io.StringIO()))  # type: ignore[arg-type]
        complaint = capsys.readouterr().err
        assert status == 2
        assert "ValueError at test_cli.py" in complaint
        assert "kanarie" not in complaint

    def test_simulate_hands_its_options_to_the_local_graph_api(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            main(["simulate", "--help"])
        assert ended.value.code == 0
        assert "--profile" in capsys.readouterr().out

    def test_the_module_runs_as_a_program(self, home: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "meta_capi", "status"],
            env={"PYTHONPATH": str(ROOT / "include"), "META_CAPI_HOME": str(home)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith("No ledger is named. Set META_CAPI_LEDGER")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with one feed, and nothing behind it."""
    (tmp_path / "feeds").mkdir()
    assert yaml.safe_load(FEED)["feed"] == "every_key"
    (tmp_path / "feeds" / "every_key.yaml").write_text(FEED, encoding="utf-8")
    return tmp_path
