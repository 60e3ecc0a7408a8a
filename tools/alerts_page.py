"""The page about alerts: how to be told, and every kind, from the code's own table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from meta_capi.alerts import ABOUT

_INTRO: Final = """\
# Alerts

Generated from `include/meta_capi/alerts.py` and `tools/alerts_page.py` by `make docs`.

`tend_deliveries` looks at every feed every ten minutes, and each run looks once more when it has ended.
What deserves a person's attention is told by Slack, by e-mail or to a webhook.
Until a channel is configured, nobody is told and nothing is opened; what is found stands in the task's log and in `capi.alerts`.

- **Once.** A feed has one open alert of a kind, however many workers see it. It is told when it begins, again after `alerts.remind_after` (a day) or when its figure has doubled, and once when it is over.
- **Over** is what has stayed away for an hour; a failed run is over with the next one that goes through.
- **Never in the way.** A channel that does not answer costs a run ten seconds and a line in its log. It is tried again with the next look, by itself: the channels that were told are not told twice.
- **Nothing personal.** A message has names of feeds, counts, days, what to do, and a link to the feed's page: no value of a row, no key, no token.

## Tell it where to

In Airflow, the Variable `meta_capi_alerts` names a connection for each channel you want:

```json
{
  "slack": "alerts_slack",
  "email": "alerts_mail", "to": "data@shop.example, oncall@shop.example",
  "webhook": "alerts_webhook"
}
```

Addresses and secrets stand in the connections:

| channel | connection | fields |
| --- | --- | --- |
| `slack` | any type, as `http` | Password: what follows `/services/` in the address of Slack's incoming webhook. Host: empty, or the address before it, for what speaks Slack's language elsewhere. |
| `email` | `smtp` | As Airflow's own mail: host, port, login, password; in the extra fields `from_email`, and `disable_ssl` or `disable_tls` where the server wants it. |
| `webhook` | any type, as `http` | Host: the whole address. Password, if it asks for one: sent as a bearer token, or with the login as basic authentication. |

What has a secret goes out by https, or to this machine.
No proxy of the environment is used, no redirect is followed, and certificates are those that Python trusts, as on the line to Meta.
The webhook gets a JSON object: `key` (the same for all that is said of one alert), `state` (`new`, `still` or `over`), `severity`, `feed`, `kind`, `subject`, `text`, `action`, `link`, `since`.
The link needs Airflow's own `[api] base_url`.

**Try it:** trigger `tend_deliveries` and tick *Try the alerts*.
Every feed sends a test message by every channel; the log says which took it, and what is wrong with the others.

## What is told

The thresholds are a feed's, under [`alerts`](feeds.md#alerts); `null` turns one off.
`alerts.failures: false` turns off the failures.
Dry runs and runs with a test event code are not told of.
"""


def alerts_page() -> str:
    """Return the page."""
    return "\n".join([_INTRO, *_table(), "", _NOTES]) + "\n"


def _table() -> Iterator[str]:
    yield "| kind | how bad | when | settings | what to do |"
    yield "| --- | --- | --- | --- | --- |"
    for kind, about in ABOUT.items():
        settings = ", ".join(f"`alerts.{each}`" for each in about.settings)
        action = f"{about.action} [Runbook](runbook.md#{about.anchor})"
        yield f"| `{kind}` | {about.severity} | {about.when} | {settings} | {action} |"


_NOTES: Final = """\
Days are UTC days, by the time a row became known.
Counts are those of the Conversions page: a share is judged on today and yesterday together, a count on the last day that runs have read to its end.
Where the figures cannot tell (the source was not read, or not for three weeks yet), an alert neither begins nor ends.

**The token's end** is what a person wrote into the connection (*Token expires*): Meta tells it only to who puts the token into an address, and ours goes into a header and nowhere else.
A token that Meta refuses stops the next run, and `run_failed` says so.

**A ledger that does not answer** cannot remember what was told: the first failed run is told of, and the following ones are not until one went through; nobody says that it is over.

**A feed file with faults** makes a DAG that says so and is never scheduled; look at it when you deploy.
Its task in `tend_deliveries` fails until the file is mended, and that is told.
A file whose name no feed may have, as `phone_orders copy.yaml`, is such a file: its DAG is called `send_phone_orders_copy-` and eight signs, and names the file.

## What was told

```sql
select a.feed, a.kind, a.sentence, a.raised_at, a.closed_at, t.channel, t.told_at, t.over_told_at
from capi.alerts as a
left join capi.alert_tellings as t using (alert_id)
order by a.raised_at desc
limit 20;
```"""
