"""A DAG of the same shape as a feed's, whose tasks do nothing: Airflow's own price."""

from typing import Any

from airflow.sdk import DAG, task

with DAG(dag_id="trivial", schedule=None, catchup=False, params={"shards": 1}):

    @task
    def preflight() -> dict[str, Any]:
        """Do nothing."""
        return {}

    @task
    def plan(params: dict[str, Any] | None = None) -> list[int]:
        """Return so many shards; Airflow hands the params in."""
        return list(range((params or {})["shards"]))

    @task
    def validate() -> dict[str, Any]:
        """Do nothing."""
        return {}

    @task
    def deliver(shard: int) -> dict[str, Any]:
        """Do nothing."""
        return {"rows": shard}

    @task
    def report(tallies: list[Any]) -> int:
        """Read what the shards returned."""
        return len(list(tallies))

    first, shards, gate = preflight(), plan(), validate()
    delivered = deliver.expand(shard=shards)
    first >> shards >> gate >> delivered >> report(delivered)  # type: ignore[arg-type]
