"""What a run of the harness adds up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

_SUMS: Final = (
    "kills", "runs", "requests", "events", "lost", "unexplained", "doubled", "resolved",
    "in_doubt", "held", "window_over", "in_doubt_received",
)  # fmt: skip
_HEADS: Final = {
    "kills": "kills", "runs": "tasks", "requests": "requests", "events": "events",
    "lost": "lost", "unexplained": "doubled, unexplained",
    "doubled": "doubled, explained", "resolved": "doubts resolved",
    "in_doubt": "in doubt", "held": "(held)", "window_over": "(window over)",
    "in_doubt_received": "(had arrived)",
}  # fmt: skip


def summary(trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of each kind of trial, and of all but the naive ones."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for trial in trials:
        kinds.setdefault(trial["kind"], []).append(trial)
    ours = [trial for trial in trials if trial["kind"] != "naive"]
    where: Counter[str] = Counter()
    for trial in ours:
        where.update(trial.get("where", {}))
    return {
        "kinds": {kind: _sums(kinds[kind]) for kind in sorted(kinds, key=_rank)},
        "all of ours": _sums(ours),
        "where the killed were": dict(where.most_common()),
        "violations": [
            {
                "trial": trial["trial"],
                "seed": trial["seed"],
                "what": trial["violations"],
            }
            for trial in ours
            if trial["violations"]
        ],
    }


def _rank(kind: str) -> tuple[int, str]:
    return (int(kind[1:]), "") if kind[0] == "W" and kind[1:].isdigit() else (99, kind)


def _sums(trials: Iterable[dict[str, Any]]) -> dict[str, int]:
    trials = list(trials)
    found = {name: sum(trial.get(name, 0) for trial in trials) for name in _SUMS}
    return {"trials": len(trials), **found}


def table(found: dict[str, Any]) -> list[str]:
    """Return the summary as lines, for people."""
    rows = [*found["kinds"].items(), ("all of ours", found["all of ours"])]
    names = ["trials", *_SUMS]
    heads = ["", "trials", *(_HEADS[name] for name in _SUMS)]
    cells = [[kind, *(f"{sums[name]:,}" for name in names)] for kind, sums in rows]
    # A head may break at its spaces, so that the table stays narrow.
    lines = [head.split() for head in heads]
    height = max(map(len, lines))
    tall = [[""] * (height - len(words)) + words for words in lines]
    grid = [*map(list, zip(*tall, strict=True)), *cells]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if not place else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in grid
    ]
