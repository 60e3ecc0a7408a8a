"""
### Send conversions

Hands every conversion that became known in the run's data interval to Meta's Conversions
API, once, and writes Meta's answer in the ledger. One DAG per feed file in
`include/feeds/`; nothing here is edited to add a feed.

`preflight` looks at everything first · `plan` counts the interval and cuts it into shards ·
`validate` runs the feed's Great Expectations suite in the warehouse, puts failing rows in
quarantine, and stops the run above the feed's thresholds · `deliver` sends, one task per
shard · `report` checks that every source row has exactly one outcome.

- **Running again is safe.** Clear it, backfill it, let intervals overlap: a delivery that
  Meta accepted is never sent again. The ledger decides, not Airflow.
- **Nothing leaves on a dry run.** Tick it in the trigger form.
- **Dates in the form** (*From*, *Up to*) take the place of the data interval; a run that has
  neither is refused.
- **A run that fails** is told of, once, if channels are configured (docs/alerts.md).
- **Something in quarantine?** The report names the most common reasons and what to do;
  `meta-capi explain KEY` tells one conversion's story.
"""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Asset, CronDataIntervalTimetable

from capi_airflow.feed_files import all_feeds, broken_feeds
from capi_airflow.forms import send_form
from capi_airflow.notify import TellFailure
from capi_airflow.operators import (
    BrokenFeedOperator,
    DeliverOperator,
    PlanOperator,
    PreflightOperator,
    ReportOperator,
    ValidateOperator,
)

for feed in all_feeds().values():
    with DAG(
        dag_id=feed.dag_id,
        description=feed.description,
        doc_md=f"{__doc__}\n\n**This feed:** {feed.description}",
        schedule=CronDataIntervalTimetable(feed.schedule, timezone="UTC"),
        start_date=datetime.combine(feed.start_date, datetime.min.time(), UTC),
        catchup=False,
        max_active_runs=1,
        render_template_as_native_obj=True,
        params=send_form(),
        tags=["meta", "outbound", feed.event.action_source.value],
        default_args={
            "owner": feed.owner,
            "retries": 3,
            # A worker that died is found when its lease is over, after three minutes.
            "retry_delay": timedelta(minutes=4),
            "feed": feed.feed,
            "on_failure_callback": TellFailure(),
        },
    ):
        preflight = PreflightOperator(task_id="preflight")
        plan = PlanOperator(task_id="plan")
        validate = ValidateOperator(task_id="validate")
        deliver = DeliverOperator.partial(
            task_id="deliver",
            pool="meta_capi",
            validation_id=validate.output["validation_id"],
        ).expand(shard=plan.output)
        report = ReportOperator(
            task_id="report",
            counts=plan.output["counts"],
            tallies=deliver.output,
            outlets=[Asset(f"capi://deliveries/{feed.feed}")],
        )

        preflight >> plan >> validate >> deliver >> report

# A feed file with faults does not take the other feeds down: its DAG says what is wrong.
for name, faults in broken_feeds().items():
    with DAG(
        dag_id=f"send_{name}",
        description="The feed file is wrong; see the documentation of this DAG.",
        doc_md="\n".join(
            ["**The feed file is wrong:**", "", *(f"- `{f}`" for f in faults)]
        ),
        schedule=None,
        tags=["meta", "broken feed"],
    ):
        BrokenFeedOperator(task_id="read_feed", feed=name, faults=faults)
