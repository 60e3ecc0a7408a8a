"""What a test's Airflow does to the project's tasks.

Cluster policies are Airflow's way to change tasks that stand in somebody else's DAG file:
the DAG files under test are the project's own.
"""

from __future__ import annotations

import ctypes
from datetime import timedelta
from typing import Any

from capi_airflow.operators import DeliverOperator
from capi_airflow.process import _PR_SET_PDEATHSIG

__all__ = ["dag_policy", "task_policy"]


class Unsignalled(DeliverOperator):
    """Delivers as where the kernel knows no such signal: it outlives its supervisor."""

    def step(self, stage: Any) -> dict[str, Any]:
        """Take the signal back, then deliver."""
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)
        return super().step(stage)


def dag_policy(dag: Any) -> None:
    """Let the runs of a feed meet."""
    dag.max_active_runs = 8


def task_policy(task: Any) -> None:
    """Try again soon; give one feed little time, and another no signal."""
    task.retry_delay = timedelta(seconds=1)
    if task.dag_id == "send_timed_out" and task.task_id == "deliver":
        task.execution_timeout = timedelta(seconds=20)
    if task.dag_id == "send_orphaned" and task.task_id == "deliver":
        task.operator_class = Unsignalled
