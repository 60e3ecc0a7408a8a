"""What Airflow is told of the Conversions page, and what that costs its other processes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

from tests.airflow.world import read_folder

from capi_airflow.base import FeedOperator
from capi_airflow.links import RunPageLink


@dataclass
class Key:
    """What names a task's run."""

    dag_id: str
    run_id: str


def test_the_page_costs_a_task_no_web_framework() -> None:
    """Every task's process imports the plugin."""
    code = (
        "import sys; import capi_airflow.page.plugin;"
        "heavy = ('fastapi', 'starlette', 'airflow.api_fastapi.core_api', 'jinja2.environment');"
        "before = set(sys.modules);"
        "print([name for name in heavy if 'capi_airflow.page.app' in before"
        " or name in before and name.startswith('airflow.api')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_task_of_a_feed_leads_to_its_runs_page() -> None:
    dags = read_folder()
    ours = [
        task for dag in dags.values() for task in dag.tasks
        if issubclass(getattr(task, "operator_class", type(task)), FeedOperator)
    ]  # fmt: skip
    assert len(ours) > 15
    for task in ours:
        assert [type(link) for link in task.operator_extra_links] == [RunPageLink]


def test_the_link_is_the_address_of_the_page_in_airflows_frame() -> None:
    key = Key("send_crm_leads", "manual__2026-11-22T12:00:00+00:00/?#")
    assert RunPageLink().get_link(None, ti_key=key) == (
        "/plugin/conversions/capi/runs/of/send_crm_leads/"
        "manual__2026-11-22T12%3A00%3A00%2B00%3A00%2F%3F%23"
    )
