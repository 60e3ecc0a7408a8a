"""The page of the benchmark: every figure beside its target, and what it is made of.

`make bench` keeps each part in docs/measured/bench.json; this page says nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

__all__ = ["bench_page"]

MEASURED: Final = (
    Path(__file__).resolve().parent.parent / "docs" / "measured" / "bench.json"
)
# A digest of a short text takes 0.29 us on the quiet machine.
_BUSY_LOAD: Final = 2.0

_HEAD = """\
# Benchmarks

Generated from `docs/measured/bench.json` by `make docs`; `make bench` measures. All
parties of a comparison work in turns on one machine, on the same rows, each in a process
of its own. A figure is the median of its repetitions, which the JSON holds one by one."""
_BUILD = """\
## Row to wire bytes

From rows in memory to the bodies of requests of a thousand events, the same fields from
the same rows without the sample's dirt; CPU time on one core. Ours begins each round with
a builder that has learnt nothing. The SDK's bytes are those that `execute()` hands to its
socket: JSON texts in a JSON array in a form."""
_END_TO_END = """\
## End to end

From a table in PostgreSQL to Meta's answer written down. Ours is plan, gate, claim, POST,
settle and report, with an empty ledger; the peers read, build and send. *Server* is the
local Graph API, which reads every event and keeps Meta's rules. PostgreSQL, server and
client share the cores; theirs are CPU microseconds a row. What a process imports is there
before the clock starts."""
_PEERS = """\
What the peers do otherwise:

- **facebook-business** (its own loop, `EventRequest.execute()`, batches of a thousand, one
  thread or sixteen) sends the same fields. It has no gate, no ledger and no repeat
  without doubles; it leaves `external_id` as it stands, and raises on a row that it
  cannot read, which takes the request's other rows with it.
- **drt-core** sends an address, a number, an amount and one currency for all rows: no
  names, places, birthdays, customers' numbers, items, order ids. It drops what is older
  than seven days, has no gate, and remembers how far it came, not what it sent. As it
  comes it makes requests of a hundred events, ten a second; set for speed, of a
  thousand, without pacing. Its host is a constant, which the benchmark changes.
- *Ours, drt's fields, no gate* is our product with as little to send."""
_PROFILE = """\
## Where the time goes

One run of {rows:,} rows to the local Graph API, watched, in CPU microseconds a row. The
worker's stages are sampled; PostgreSQL's CPU time is shared out by how long its
statements took. What a worker does outside its deliver tasks is *other*."""
_PIPELINING = """\
## At Meta's distance

One worker with the real desk and ledger, its slices built beforehand, against a server
that answers every request after {milliseconds:.0f} ms. The ideal is {in_flight} requests
of a thousand events in each {milliseconds:.0f} ms, start and end included."""
_FLAT = """\
## Cost by size

Cost is the CPU time of client and PostgreSQL, a row; the ledger keeps the rows of the
sizes before. *Delivering* is without plan, gate and report, whose fixed part weighs more
on small runs. The server only counts."""
_GATE = """\
## The quality gate

The feed's suite in Great Expectations against `bench/sql/gate.sql`, which counts the same
checks and brings the same keys in one statement; {rows:,} rows. Importing Great
Expectations took {import_seconds:.1f} s, which a scheduler pays once."""
_AIRFLOW = """\
## Airflow

LocalExecutor, scheduler, DAG processor and API server on the same machine. The trivial DAG
has the shape of a feed's, and tasks that do nothing."""


def bench_page() -> str:
    """Return the page."""
    return page(json.loads(MEASURED.read_text("utf-8")))


def page(measured: Mapping[str, Any]) -> str:
    """Return the page of what was measured; a part that was not run has no place."""
    return "\n".join(_lines(measured)) + "\n"


def _lines(measured: Mapping[str, Any]) -> Iterator[str]:
    machine, known = measured["machine"], measured["parts"]
    parts = {name: known[name] for name in _SECTIONS if name in known}
    yield from _HEAD.splitlines()
    yield ""
    yield (
        f"Measured on {machine['cores']} cores of {machine['processor']}, "
        f"{machine['memory_gb']} GB, Linux {machine['kernel']}, Python {machine['python']}."
    )
    if settings := machine.get("postgres"):
        words = ", ".join(f"`{name} = {value}`" for name, value in settings.items())
        yield f"PostgreSQL is durable, with {words}."
    busy = [
        name for name, part in parts.items() if part["before"]["load"][0] > _BUSY_LOAD
    ]
    if busy:
        yield ""
        yield (
            f"The load was above {_BUSY_LOAD:.0f} when these began, from the part before "
            f"or from other programs: {', '.join(busy)}."
        )
    yield from ("", "| figure | target | measured | |", "| --- | ---: | ---: | --- |")
    for part in parts.values():
        for figure in part["figures"].values():
            yield _row(*_figure(figure))
    for name, part in parts.items():
        yield from ("", *_SECTIONS[name](part), "", _origin(part))


def _figure(figure: Mapping[str, Any]) -> tuple[str, ...]:
    bound = "≥" if figure["at_least"] else "≤"
    unit = {"x": "×"}.get(figure["unit"], figure["unit"])
    target, value = (_number(figure[name]) for name in ("target", "value"))
    return (
        figure["name"], f"{bound} {target} {unit}".strip(), f"{value} {unit}".strip(),
        "met" if figure["met"] else "**missed**",
    )  # fmt: skip


def _origin(part: Mapping[str, Any]) -> str:
    before = part["before"]
    commit = before["commit"] or "an unpacked tree"
    changed = ", with changes" if before["changed"] else ""
    return (
        f"<sub>{before['at']}, commit {commit}{changed}, load {before['load'][0]}, "
        f"seed {part['seed']}.</sub>"
    )


def _build(part: Mapping[str, Any]) -> Iterator[str]:
    yield from _BUILD.splitlines()
    yield from _table(
        ["", "µs an event", "events/s a core", "bytes an event"],
        [
            [
                _PARTIES[who],
                _number(_median(runs, "us_per_event")),
                _number(1e6 / _median(runs, "us_per_event")),
                _number(runs[0]["bytes_per_event"]),
            ]
            for who, runs in part["runs"].items()
        ],
    )
    raised = part["sdk_raises"]
    yield ""
    yield (
        f"Of {raised['rows']:,} rows with the sample's dirt the SDK raises on "
        f"{raised['raised']:,}:"
    )
    yield ""
    for why, count in sorted(raised["why"].items(), key=lambda each: -each[1]):
        yield f"- {count:,} × {why}"


_PARTIES: Final = {"ours": "ours", "sdk": "facebook-business"}


def _end_to_end(part: Mapping[str, Any]) -> Iterator[str]:
    yield from _END_TO_END.splitlines()
    heads = [
        "", "rows", "seconds", "events/s", "client µs", "PostgreSQL µs", "server µs",
        "server's share", "peak MB",
    ]  # fmt: skip
    every = {f"ours, {size}, all dirt": runs for size, runs in part["ours"].items()}
    every |= part["same_rows"]
    yield from _table(heads, [_runs(name, runs) for name, runs in every.items()])
    if counting := part.get("server_that_counts"):
        yield ""
        yield (
            "The local Graph API takes longer over a form than over JSON. To a server "
            "that only counts events:"
        )
        yield from _table(heads, [_runs(name, runs) for name, runs in counting.items()])
    yield ""
    yield "Where the seconds of ours go:"
    laps = list(next(iter(part["ours"].values()))[0]["laps"])
    yield from _table(
        ["", *laps],
        [
            [
                size,
                *(
                    _number(_median([r["laps"][lap] for r in runs], "seconds"))
                    for lap in laps
                ),
            ]
            for size, runs in part["ours"].items()
        ],
    )
    if part["same_rows"]:
        yield from ("", *_PEERS.splitlines())


def _runs(name: str, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = runs[0]["rows"]
    cpu = {
        who: _median([run["cpu_seconds"] for run in runs], who) / rows * 1e6
        for who in ("client", "postgres", "server")
    }
    peak = max(run.get("deliver_peak_mb", run.get("peak_mb", 0)) for run in runs)
    return [
        name, f"{rows:,}", _number(_median(runs, "seconds")),
        _number(_median(runs, "events_per_second")), *map(_number, cpu.values()),
        f"{_median([run['cpu_share'] for run in runs], 'server'):.0%}", f"{peak:.0f}",
    ]  # fmt: skip


def _profile(part: Mapping[str, Any]) -> Iterator[str]:
    yield from _PROFILE.format(rows=part["run"]["rows"]).splitlines()
    every = sum(sum(stages.values()) for stages in part["us"].values())
    yield from _table(
        ["", "µs a row", "share"],
        [
            [f"{who}: {stage}", f"{us:.1f}", f"{us / every:.0%}"]
            for who, stages in part["us"].items()
            for stage, us in [("all", sum(stages.values())), *stages.items()]
        ],
    )


def _pipelining(part: Mapping[str, Any]) -> Iterator[str]:
    text = _PIPELINING.format(
        milliseconds=part["answer_seconds"] * 1_000, in_flight=part["in_flight"]
    )
    yield from text.splitlines()
    yield from _table(
        ["events", "seconds", "events/s", "ideal", "share", "most in flight"],
        [
            [
                f"{run['events']:,}", _number(run["seconds"]),
                _number(run["events_per_second"]), _number(run["ideal_per_second"]),
                f"{run['share']:.1%}", str(run["most_in_flight"]),
            ]
            for run in part["runs"]["ours"]
        ],
    )  # fmt: skip


def _flat(part: Mapping[str, Any]) -> Iterator[str]:
    yield from _FLAT.splitlines()
    yield from _table(
        ["rows", "runs", "delivering, µs a row", "everything, µs a row", "events/s",
         "peak MB of a deliver process"],
        [
            [
                size, str(len(runs)), _number(part["cost_us"][size]),
                _number(part["whole_cost_us"][size]),
                _number(_median(runs, "events_per_second")), _number(part["peak_mb"][size]),
            ]
            for size, runs in part["runs"].items()
        ],
    )  # fmt: skip


def _gate(part: Mapping[str, Any]) -> Iterator[str]:
    yield from _GATE.format(**part).splitlines()
    yield from _table(
        ["", "first", "then, each"],
        [
            [
                {"ours": "the gate"}.get(who, who), f"{runs[0]['seconds']:.2f} s",
                ", ".join(f"{run['seconds']:.2f} s" for run in runs[1:]),
            ]
            for who, runs in part["runs"].items()
        ],
    )  # fmt: skip


def _airflow(part: Mapping[str, Any]) -> Iterator[str]:
    yield from _AIRFLOW.splitlines()
    yield from _table(
        ["runs", "tasks", "seconds, each", "mean seconds in a mapped task"],
        [
            [
                name, str(runs[0]["tasks"]),
                ", ".join(f"{run['seconds']:.1f}" for run in runs),
                _number(_median(runs, "seconds_in_a_shard")),
            ]
            for name, runs in part["runs"].items()
        ],
    )  # fmt: skip
    yield ""
    yield "The first of the empty runs is not counted. One more shard takes:"
    yield from _table(
        ["", "seconds"],
        [[name, _number(each)] for name, each in part["seconds_per_shard"].items()],
    )
    yield from ("", "Parse times, in the order of one fresh process:")
    yield from _table(
        ["file", "seconds"],
        [[name, f"{each:.3f}"] for name, each in part["files"].items()],
    )


_SECTIONS: Final[dict[str, Callable[[Mapping[str, Any]], Iterator[str]]]] = {
    "build": _build,
    "end_to_end": _end_to_end,
    "profile": _profile,
    "pipelining": _pipelining,
    "flat": _flat,
    "gate": _gate,
    "airflow": _airflow,
}


def _median(runs: Sequence[Mapping[str, Any]], name: str) -> float:
    return median(run[name] for run in runs)


def _number(value: float) -> str:
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else f"{value:.0f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield ""
    yield _row(*heads)
    yield _row("---", *["---:"] * (len(heads) - 1))
    for row in rows:
        yield _row(*row)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
