"""What ends a task or a command, and what only warns; `errors.py` raises the first."""

from __future__ import annotations

from typing import Final

from meta_capi.catalogue.entry import Effect, Texts

__all__ = ["TEXTS"]

_AGAIN = "Airflow tries the task again; running an interval again sends nothing twice."

TEXTS: Final[Texts] = {
    Effect.FAULT: {
        "fault.feed": ("A feed file, or its suite of expectations, says something that cannot be.", "Mend the file at the line named; `meta-capi feed check FILE` looks at it again."),
        "fault.configuration": ("A setting is missing or wrong; nothing was sent.", "Do what the sentence says; `meta-capi check` looks at everything again."),
        "fault.connection": ("An Airflow connection, or the address that stands for it, is missing or wrong.", "Mend it under Admin, Connections, or in the environment; `meta-capi check` looks at it again."),
        "fault.dataset": ("Meta does not let this token use this dataset, or the connection names another than the run.", "Compare the connection with Events Manager; its Test button asks Meta."),
        "fault.form": ("What the run or the command was given does not fit; nothing was done.", "Trigger the DAG again with the form's own fields, or run the command with what it asks for."),
        "fault.interval": ("The run has no interval, or one that cannot be.", "Name both ends, with their zone, the earlier first."),
        "fault.clock": ("This machine's clock and the ledger's differ by more than five minutes; nothing was sent.", "Let both machines keep time with NTP."),
        "fault.older_ledger": ("The ledger does not know all that was sent: it was put back from a copy, or is another one.", "Follow docs/runbook.md#an-older-ledger before anything is sent."),
        "fault.schema": ("The ledger's schema is not that of this program.", "Run `meta-capi migrate`, or bring the program to the ledger's version."),
        "fault.ledger": ("The ledger's database did not do a step, so the step was not made.", f"See that PostgreSQL is up and reachable from the workers. {_AGAIN}"),
        "fault.lease": ("The worker's lease is over: it stood still, or another has taken over. What it held is settled by the rescue.", f"Nothing, if it comes rarely. {_AGAIN}"),
        "fault.time_out": ("The task took longer than its execution_timeout. Requests on their way were waited for; what had not left is pending again, and what got no answer is in doubt.", f"If it comes again, compare the rows/s in the log with the rows: give the task more time, or the feed fewer `limits.rows_per_shard`. {_AGAIN}"),
        "fault.source": ("The source table or query does not fit the feed; nothing was read.", "Correct the feed or the table; `meta-capi check` looks at it again."),
        "fault.warehouse": ("The warehouse did not answer, or refused the query.", f"See that it is up, reachable from the workers, and readable by its role. {_AGAIN}"),
        "fault.gate": ("The quality gate stopped the run before anything was sent.", "Look at the run's Data Docs; correct the rows, or the thresholds of the feed, then clear the task."),
        "fault.stopped": ("Meta takes nothing from this token or dataset; all rows stay pending.", "Look up Meta's code, mend the connection, then clear the task."),
        "fault.no_answer": ("A request got no trustworthy answer.", "Look at the line to Meta: proxies, firewalls, names. Try the connection's Test button."),
        "fault.gap": ("The source's rows and their outcomes do not add up.", "Look at the deliver tasks' logs; running the interval again sends nothing twice."),
        "fault.ours": ("A fault of this program.", "Report it with the places in the log, which quote no row."),
    },
    Effect.WARNING: {
        "warning.rescued": ("A worker died, or stood still; its desk was cleared.", "Nothing; what it held is sent by the next run or by tend_deliveries. If it comes often, look at the workers' memory."),
        "warning.clock": ("This machine's clock and the ledger's differ by more than half a minute.", "Let both machines keep time with NTP; beyond five minutes nothing is sent."),
        "warning.not_meta": ("The connection does not go to Meta but to a local Graph API.", "Nothing on a test system. In production, take the host out of the connection."),
        "warning.data_docs": ("The pages of the quality gate could not be written; its verdict stands in the ledger.", "Make META_CAPI_DATA_DOCS a folder that the workers may write."),
        "warning.scores": ("Meta's own quality scores were not read; what is sent goes on as before.", "Give the token the permission `ads_read` and one of `ads_management` and `business_management` (a token made in Events Manager has `read_ads_dataset_quality`, which is enough), and its user the dataset. The scores of offline events are a beta that Meta opens on request."),
    },
}  # fmt: skip
