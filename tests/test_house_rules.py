"""The rules of the house, held against the house and against planted faults.

A rule that finds no planted fault would be no rule.
"""

from __future__ import annotations

import re

import pytest
from tests.house_rules import (
    CORE,
    EMBASSY,
    LINES,
    LONG,
    ROOT,
    SIMULATOR,
    Module,
    Rule,
    circle,
    core_clock,
    core_imports,
    dag_files,
    digests,
    embassy_imports,
    files,
    length,
    modules_of_the_house,
    places,
    prints,
    relative_imports,
    simulator_imports,
    sql_in_python,
)


@pytest.fixture(scope="module")
def house() -> list[Module]:
    return modules_of_the_house()


def _faults(rule: Rule, modules: list[Module]) -> list[str]:
    return [fault for module in modules for fault in rule(module)]


class TestTheHouse:
    def test_every_part_of_it_is_looked_at(self, house: list[Module]) -> None:
        seen = {module.path for module in house}
        assert {
            "include/meta_capi/dispatch.py",
            "include/meta_capi/normalise/phones.py",
            "include/graph_simulator/server.py",
            "plugins/capi_airflow/hook.py",
            "dags/send_conversions.py",
            "tools/bootstrap.py",
        } <= seen
        assert {module.package for module in house} >= {CORE, SIMULATOR, EMBASSY}

    def test_the_core_knows_no_airflow_no_http_and_no_environment(
        self, house: list[Module]
    ) -> None:
        assert _faults(core_imports, house) == []

    def test_the_core_is_told_the_time(self, house: list[Module]) -> None:
        assert _faults(core_clock, house) == []

    def test_no_room_of_the_core_leads_back_to_itself(
        self, house: list[Module]
    ) -> None:
        assert circle(house) == []

    def test_the_local_graph_api_shares_only_facts_with_the_sender(
        self, house: list[Module]
    ) -> None:
        assert _faults(simulator_imports, house) == []

    def test_the_embassy_has_one_socket_and_one_page(self, house: list[Module]) -> None:
        assert _faults(embassy_imports, house) == []

    def test_a_dag_file_is_short_documented_and_imports_operators(
        self, house: list[Module]
    ) -> None:
        assert _faults(dag_files, house) == []

    def test_no_module_is_longer_than_one_idea(self, house: list[Module]) -> None:
        assert _faults(length, house) == []

    def test_an_allowance_for_length_is_given_up_when_it_is_not_needed(
        self, house: list[Module]
    ) -> None:
        lines = {module.path: len(module.source.splitlines()) for module in house}
        assert [path for path in LONG if lines.get(path, 0) <= LINES] == []

    def test_sql_is_never_put_together_from_text(self, house: list[Module]) -> None:
        assert _faults(sql_in_python, house) == []

    def test_match_keys_alone_makes_digests(self, house: list[Module]) -> None:
        assert _faults(digests, house) == []

    def test_only_programs_for_a_terminal_print(self, house: list[Module]) -> None:
        assert _faults(prints, house) == []

    def test_imports_name_the_room(self, house: list[Module]) -> None:
        assert _faults(relative_imports, house) == []

    def test_no_file_knows_the_machine_it_was_written_on(self) -> None:
        faults: list[str] = []
        for path in files():
            try:
                text = (ROOT / path).read_text(encoding="utf-8")
            except UnicodeDecodeError:  # a picture
                continue
            faults += places(path, text)
        assert faults == []


# --- planted faults -----------------------------------------------------------------

CORE_ROOM = "include/meta_capi/payload.py"

PLANTED: list[tuple[Rule, str, str]] = [
    (core_imports, CORE_ROOM, "import airflow"),
    (core_imports, CORE_ROOM, "from airflow.sdk import DAG"),
    (core_imports, CORE_ROOM, "def f():\n    import requests"),
    (core_imports, CORE_ROOM, "import urllib.request"),
    (core_imports, CORE_ROOM, "from urllib import request"),
    (core_imports, CORE_ROOM, "from http import client"),
    (core_imports, CORE_ROOM, "from os import environ"),
    (core_imports, CORE_ROOM, "import random"),
    (core_imports, CORE_ROOM, "import time"),
    (core_imports, CORE_ROOM, "import threading"),
    (core_imports, CORE_ROOM, "import pydantic"),
    (core_imports, CORE_ROOM, "from graph_simulator import Simulator"),
    (core_imports, CORE_ROOM, "from capi_airflow.hook import MetaCapiHook"),
    (core_imports, "include/meta_capi/suites.py", "import great_expectations as gx"),
    (core_imports, "include/meta_capi/event.py", "import sqlalchemy as sa"),
    (core_imports, "include/meta_capi/source.py", "import psycopg"),
    (core_imports, "include/meta_capi/normalise/text.py", "import yaml"),
    (core_imports, "include/meta_capi/cli/a.py", "from airflow.sdk import BaseHook"),
    (core_imports, "include/meta_capi/cli/a.py", "import capi_airflow.hook"),
    (core_imports, "include/meta_capi/cli/a.py", "import great_expectations"),
    (core_imports, "include/meta_capi/cli/a.py", "from capi_airflow import hook"),
    (core_imports, "include/meta_capi/cli/a.py", "import requests"),
    (core_clock, CORE_ROOM, "x = datetime.now(UTC)"),
    (core_clock, CORE_ROOM, "x = date.today()"),
    (core_clock, CORE_ROOM, "x = uuid.uuid4()"),
    (core_clock, "include/meta_capi/ledger.py", "import time\nx = time.time()"),
    (simulator_imports, "include/graph_simulator/rules.py", "import requests"),
    (
        simulator_imports,
        "include/graph_simulator/rules.py",
        "from meta_capi import payload",
    ),
    (
        simulator_imports,
        "include/graph_simulator/rules.py",
        "from meta_capi.normalise import email",
    ),
    (embassy_imports, "plugins/capi_airflow/operators.py", "import requests"),
    (embassy_imports, "plugins/capi_airflow/hook.py", "import requests"),
    (embassy_imports, "plugins/capi_airflow/transport.py", "import urllib.request"),
    (embassy_imports, "plugins/capi_airflow/hook.py", "from fastapi import FastAPI"),
    (
        embassy_imports,
        "plugins/capi_airflow/operators.py",
        "from airflow.models import Variable",
    ),
    (embassy_imports, "plugins/capi_plugin.py", "from demo import postgres"),
    (dag_files, "dags/a.py", "from airflow.sdk import DAG"),
    (dag_files, "dags/a.py", '"""Words."""\nimport os'),
    (dag_files, "dags/a.py", '"""Words."""\nfrom meta_capi import feed'),
    (dag_files, "dags/a.py", '"""Words."""\nfrom airflow.models import Variable'),
    (dag_files, "dags/a.py", '"""Words."""\n' + "x = 1\n" * 100),
    (length, CORE_ROOM, "x = 1\n" * 401),
    (sql_in_python, CORE_ROOM, 'q = f"select a from {table}"'),
    (sql_in_python, CORE_ROOM, 'q = f"""\nDELETE FROM {table}\n"""'),
    (sql_in_python, CORE_ROOM, 'q = f"update {table} set a = 1"'),
    (sql_in_python, CORE_ROOM, 'q = "insert into {} values (1)".format(table)'),
    (sql_in_python, CORE_ROOM, 'q = "select a from %s" % table'),
    (sql_in_python, CORE_ROOM, 'q = "select a from t where b = " + b'),
    (digests, CORE_ROOM, "import hashlib\nx = hashlib.sha256(b'')"),
    (digests, CORE_ROOM, "from hashlib import sha256\nx = sha256(b'')"),
    (digests, CORE_ROOM, "import hashlib\nx = hashlib.new('sha256', b'')"),
    (prints, CORE_ROOM, "print(1)"),
    (prints, "plugins/capi_airflow/hook.py", "print(1)"),
    (prints, "dags/a.py", "print(1)"),
    (relative_imports, CORE_ROOM, "from . import spec"),
    (relative_imports, CORE_ROOM, "from .spec import DatasetId"),
]

INNOCENT: list[tuple[Rule, str, str]] = [
    (core_imports, CORE_ROOM, "import json\nfrom urllib.parse import quote"),
    (core_imports, CORE_ROOM, "from meta_capi import spec"),
    (core_imports, "include/meta_capi/normalise/phones.py", "import phonenumbers"),
    (core_imports, "include/meta_capi/cli/a.py", "import os\nimport time"),
    (core_clock, "include/meta_capi/ledger.py", "x = time.monotonic()"),
    (core_clock, CORE_ROOM, "x = datetime.fromtimestamp(0, UTC)"),
    (simulator_imports, "include/graph_simulator/a.py", "from meta_capi import spec"),
    (simulator_imports, "include/graph_simulator/a.py", "import http.server, time"),
    (embassy_imports, "plugins/capi_airflow/transport.py", "import requests"),
    (
        core_imports,
        "include/meta_capi/cli/wiring.py",
        "from capi_airflow.transport import Line",
    ),
    (embassy_imports, "plugins/capi_airflow/operators.py", "import airflow.sdk"),
    (dag_files, "dags/a.py", '"""Words."""\nfrom capi_airflow.operators import Plan'),
    (length, CORE_ROOM, "x = 1\n" * 400),
    (sql_in_python, CORE_ROOM, 'x = f"Select one of {names} and update {it}."'),
    (sql_in_python, CORE_ROOM, 'x = "select a from b"'),
    (digests, "include/meta_capi/match_keys.py", "x = hashlib.sha256(b'')"),
    (digests, CORE_ROOM, "x = hashlib.blake2b(b'')"),
    (prints, "include/demo/__main__.py", "print(1)"),
    (relative_imports, CORE_ROOM, "from meta_capi.spec import DatasetId"),
]


def _name(case: object) -> str:
    return getattr(case, "__name__", "") or re.sub(r"\W+", "-", str(case))[:40]


class TestTheRulesThemselves:
    @pytest.mark.parametrize(("rule", "path", "source"), PLANTED, ids=_name)
    def test_a_rule_finds_what_breaks_it(
        self, rule: Rule, path: str, source: str
    ) -> None:
        assert list(rule(Module(path, source)))

    @pytest.mark.parametrize(("rule", "path", "source"), INNOCENT, ids=_name)
    def test_a_rule_leaves_the_innocent_alone(
        self, rule: Rule, path: str, source: str
    ) -> None:
        assert list(rule(Module(path, source))) == []

    def test_a_circle_is_found(self) -> None:
        one = Module("include/meta_capi/one.py", "from meta_capi.two import x")
        two = Module("include/meta_capi/two.py", "from meta_capi import one")
        assert set(circle([one, two])) == {"meta_capi.one", "meta_capi.two"}

    def test_a_line_is_not_a_circle(self) -> None:
        one = Module("include/meta_capi/one.py", "from meta_capi.two import x")
        two = Module("include/meta_capi/two.py", "from meta_capi import spec")
        assert circle([one, two]) == []

    @pytest.mark.parametrize("folder", ["home", "Users", "root", "work"])
    def test_a_folder_of_a_machine_is_found(self, folder: str) -> None:
        assert list(places("docs/a.md", f"See /{folder}/someone/a.txt"))

    @pytest.mark.parametrize(
        "host",
        ["py" + "pi.org", "files.python" + "hosted.org", "registry.npm" + "js.org"],
    )
    def test_a_registry_is_found(self, host: str) -> None:
        assert list(places("docs/a.md", f"from https://{host}/simple"))

    @pytest.mark.parametrize(
        "text",
        ["/opt/airflow/dags", "graph.facebook.com", "docs/work/a", "$HOME/.cache"],
    )
    def test_a_place_that_is_the_same_everywhere_is_fine(self, text: str) -> None:
        assert list(places("docs/a.md", text)) == []
