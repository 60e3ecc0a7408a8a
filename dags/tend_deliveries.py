"""
### Tend deliveries

Every ten minutes, for every feed:

1. **Rescue** what a dead worker held: what never went out is pending again; what may have
   gone out is in doubt.
2. **Expire** what Meta would no longer take.
3. **Send what is due**: pending deliveries (throttled, released, held back until now) and
   events in doubt, where the feed's policy is `resend` and Meta's deduplication window is
   open. The rows are read again by their keys; the event_id is the same. A row that is not
   in the source is looked for every hour until it expires.
4. **Remove what is old**: finished deliveries older than the feed's `retention`, in short
   steps; their counts stay.
5. **Look around**, and tell what deserves a person's attention, if channels are configured
   (docs/alerts.md). *Try the alerts* in the form sends a test message.
6. **Read Meta's own scores** of the dataset, once a day, if its connection says so.

Events in doubt that no resend can settle keep their state, with the reason why. A feed
that fails, or whose file is wrong, does not keep the others from being tended; it is told
of, until it is mended.
"""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG

from capi_airflow.feed_files import all_feeds, broken_feeds
from capi_airflow.forms import tend_form
from capi_airflow.notify import TellFailure
from capi_airflow.operators import BrokenFeedOperator
from capi_airflow.tending import TendOperator

with DAG(
    dag_id="tend_deliveries",
    description="Rescues, expires, sends what is due and removes what is old, for every feed.",
    doc_md=__doc__,
    schedule=timedelta(minutes=10),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["meta", "upkeep"],
    params=tend_form(),
    default_args={
        "owner": "marketing-data",
        "retries": 1,
        "pool": "meta_capi",
        "on_failure_callback": TellFailure(),
    },
):
    for feed in all_feeds():
        TendOperator(task_id=f"tend_{feed}", feed=feed)
    # Nobody looks at a DAG that never runs: here somebody is told of a broken file.
    for name, faults in broken_feeds().items():
        BrokenFeedOperator(task_id=f"tend_{name}", feed=name, faults=faults)
