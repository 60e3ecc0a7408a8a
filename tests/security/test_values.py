"""Values of rows and forms stay values: no template, no log line, no task is made of them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.sdk.definitions.param import ParamsDict
from tests.airflow.world import DAGS, read_folder
from tests.house_rules import ROOT, modules_of_the_house
from tests.security.conftest import FEED, PURCHASES, Nest

from capi_airflow.ending import FinalFault
from capi_airflow.forms import refuse_strangers, replay_form, send_form
from capi_airflow.notify import TellFailure
from capi_airflow.operators import DeliverOperator, PlanOperator, PreflightOperator
from capi_airflow.tending import ReplayOperator
from graph_simulator import Fault, FaultKind
from meta_capi.catalogue import REASONS
from meta_capi.errors import ConfigurationError
from meta_capi.lifecycle import State
from meta_capi.names import key_of

HOSTILE = (
    "{{ 7*7 }}", "{% raise %}", "{{ conn.meta_capi_default.password }}", "${jndi:x}",
    "[1, 2, 3]", "{'a': 1}", "%(x)s", "{0}", "\x1b[31mred", "a\nFORGED accepted", "a\r\nb",
    "a\u2028FORGED", "<script>alert(1)</script>", "=1+1", "'; drop table capi.runs; --",
)  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u2028\u2029]")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.matrix("X14", "X23")
def test_a_hostile_key_is_delivered_as_it_is_and_forges_no_line(
    nest: Nest, capfd: pytest.CaptureFixture[str]
) -> None:
    """Shards are cut at keys: XCom carries them into `deliver`'s template fields."""
    keys = _multiply(nest, 1_050)
    path = nest.feeds / "feeds" / f"{FEED}.yaml"
    path.write_text(f"{path.read_text()}\nlimits: {{rows_per_shard: 1000}}\n")
    trace = f"A\n{nest.aviary['note']} FORGED"
    nest.world.sim.faults.add(Fault(kind=FaultKind.ERROR_IS, value={
        "code": 100, "message": trace, "fbtrace_id": trace, "type": "\x1b[31mFORGED",
    }))  # fmt: skip
    assert nest.world.run(PURCHASES)["dag"] == "success"
    found = nest.world.sql("select source_key from capi.deliveries")
    assert {key for (key,) in found} == {key_of((key,)) for key in keys}
    assert nest.world.sql("select count(*) from capi.workers")[0][0] == 2
    said = _COLOUR.sub("", "".join(capfd.readouterr()))
    assert "accepted now, in" in said
    assert not _CONTROL.search(said)
    assert not [line for line in said.splitlines() if line.startswith("FORGED")]
    assert nest.aviary.found_in(said) == set()


def _multiply(nest: Nest, rows: int) -> set[str]:
    """Have so many rows, all with hostile keys; return these."""
    keys = [f"{HOSTILE[n % len(HOSTILE)]} {n}" for n in range(rows)]
    nest.world.sql(
        "with gone as (delete from shop.offline_purchases returning *),"
        " one as (select * from gone limit 1)"
        " insert into shop.offline_purchases select (jsonb_populate_record("
        " null::shop.offline_purchases, to_jsonb(one) || jsonb_build_object('order_id',"
        " key))).* from one, unnest(%s::text[]) key",
        keys,
    )
    return set(keys)


@pytest.mark.matrix("X10", "X11")
def test_a_task_returns_a_few_counts_ids_and_times(nest: Nest) -> None:
    context = nest.world.context(PURCHASES, "small")
    shards = PlanOperator(task_id="plan", feed=FEED).execute(context)
    returned = {
        "preflight": PreflightOperator(task_id="preflight", feed=FEED).execute(context),
        "shard": shards[0],
        "deliver": DeliverOperator(
            task_id="deliver", feed=FEED, shard=shards[0]
        ).execute(context),
        **context["ti"].pushed,
    }
    replay = nest.world.context("replay_deliveries", "again", feed=FEED, states=["expired"],
                                dry_run=True)  # fmt: skip
    returned["replay"] = ReplayOperator(task_id="replay").execute(replay)
    known = {*map(str, State), *REASONS, "send", "would be sent"}
    for name, value in returned.items():
        assert len(json.dumps(value)) <= 2_048, name
        for leaf in _leaves(value):
            text = isinstance(leaf, str) and leaf not in known and not _is_time(leaf)
            assert not text or name == "shard", (name, leaf)


def _leaves(value: Any) -> Iterator[Any]:
    match value:
        case dict():
            for key, each in value.items():
                assert isinstance(key, str)
                yield from _leaves(each)
        case list():
            for each in value:
                yield from _leaves(each)
        case _:
            yield value


def _is_time(text: str) -> bool:
    return bool(re.fullmatch(r"\d{4}-\d\d-\d\d[ T][\d:.+-]+", text))


@pytest.mark.matrix("X10")
def test_the_largest_tally_that_can_be_is_small() -> None:
    """Every state, and every reason and flaw there is, with a count of millions."""
    tally = {
        "rows": 10**7, "requests": 10**6, "accepted_now": 10**7,
        "outcomes": {str(state): 10**7 for state in State},
        "reasons": dict.fromkeys(REASONS, 10**7),
    }  # fmt: skip
    assert len(json.dumps(tally)) < 8_192


@pytest.mark.matrix("X12")
class TestForms:
    def test_each_field_takes_a_choice_a_date_a_number_or_an_id(self) -> None:
        """No field takes free text: a text has a pattern, a format, or a length."""
        for form in (send_form(), replay_form(["a_feed"])):
            for name, field in form.items():
                schema = field.schema
                item = schema.get("items", schema)
                kinds = (
                    set(item["type"])
                    if isinstance(item["type"], list)
                    else {item["type"]}
                )
                if "string" in kinds:
                    assert {"enum", "pattern", "format", "maxLength"} & item.keys(), (
                        name
                    )
                assert kinds <= {"boolean", "integer", "null", "string"}, name

    @pytest.mark.parametrize(
        "extra", [{"note": "jane@nest.example"}, {"jane@nest.example": 1}]
    )
    def test_a_run_that_was_given_more_does_nothing_and_quotes_nothing(
        self, nest: Nest, extra: dict[str, Any]
    ) -> None:
        context = nest.world.context(PURCHASES, "more", **extra)
        for task in (
            PreflightOperator(task_id="preflight", feed=FEED),
            PlanOperator(task_id="plan", feed=FEED),
        ):
            with pytest.raises(FinalFault, match="that its form does not have") as no:
                task.execute(context)
            assert "jane" not in str(no.value)
        assert nest.world.sql("select count(*) from capi.runs") == [(0,)]
        assert nest.world.requests == 0

    def test_what_the_form_has_is_no_stranger(self) -> None:
        refuse_strangers(ParamsDict(send_form()), send_form())
        with pytest.raises(ConfigurationError):
            refuse_strangers({"limit": 1, "x": 2}, send_form())


@pytest.mark.matrix("X13", "X16", "X23")
class TestTheDags:
    def test_template_fields_hold_what_other_tasks_returned_and_nothing_else(
        self,
    ) -> None:
        fields = {
            (task.task_id, field)
            for dag in read_folder().values()
            for task in dag.tasks
            for field in task.template_fields
        }
        assert fields == {
            ("deliver", "shard"), ("deliver", "validation_id"),
            ("report", "counts"), ("report", "tallies"),
        }  # fmt: skip

    def test_no_map_index_no_note_and_no_callback_is_made_of_values(self) -> None:
        for dag in read_folder().values():
            for task in dag.tasks:
                assert getattr(task, "map_index_template", None) is None
                for event in ("execute", "success", "retry", "skipped"):
                    assert not getattr(task, f"on_{event}_callback", None)
                # Of the notifier Airflow renders what `template_fields` names: nothing.
                for callback in getattr(task, "on_failure_callback", None) or ():
                    assert type(callback) is TellFailure
                    assert not callback.template_fields

    def test_no_text_of_the_product_is_a_template_of_params_or_conf(self) -> None:
        braces = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)

        def templates(source: str) -> list[str]:
            return [
                node.value
                for node in ast.walk(ast.parse(source))
                if isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and braces.search(node.value)
            ]

        assert templates("x = 'echo {{ params.note }}'")
        for module in modules_of_the_house():
            if module.path.startswith(("dags/", "plugins/")):
                assert templates(module.source) == [], module.path
                assert not {"BashOperator", "PythonOperator"} & set(module.imports)
        assert DAGS == ROOT / "dags"
