"""
### Replay deliveries

By hand, with a form: puts back deliveries that were quarantined, refused, withheld or
expired, and sends them. Choose a feed, the states, and if wanted a reason, source keys, or
the time in which the rows became known.

- **It plans first.** *Plan only* is ticked until you untick it: the log then says what
  would be put back, by state and reason, and nothing changes.
- **Say why.** Without *Why* nothing is put back; it is written down for ever, with who
  triggered the run.
- **Accepted deliveries are never replayed.**
- **The rules are asked again.** A row that is still broken, too old or without consent is
  held again, with its reason. The quality gate is not asked: replaying is a person's word.

Example: `{"feed": "offline_purchases", "reason": "currency.unknown", "dry_run": false,
"why": "the currencies were mended"}`
"""

from datetime import UTC, datetime

from airflow.sdk import DAG

from capi_airflow.feed_files import all_feeds
from capi_airflow.forms import replay_form
from capi_airflow.tending import ReplayOperator

with DAG(
    dag_id="replay_deliveries",
    description="Puts held deliveries back and sends them, by hand.",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    render_template_as_native_obj=True,
    params=replay_form(list(all_feeds())),
    tags=["meta", "by hand"],
    default_args={"owner": "marketing-data", "retries": 0, "pool": "meta_capi"},
):
    ReplayOperator(task_id="replay")
