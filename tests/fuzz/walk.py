"""A run of the fuzzer: numbered pieces of work, each repeatable alone, shared by shards.

A piece is known by its number and the seed alone, so any process may do it. What was
done stands in JSON lines; a run that was stopped goes on behind them.
"""

from __future__ import annotations

import json
import resource
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.fuzz import feeds, files, identifiers
from tests.fuzz.judge import judge

__all__ = ["Plan", "summary", "work"]

_SIZES: Final = (0, 1, 2, 30, 100, 200, 200, 200, 300, 999, 1_000, 1_001)
_FILES: Final = 100
_NAMES: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is to be done."""

    seed: int
    rows: int
    files: int
    identifiers: int

    def pieces(self) -> Iterator[tuple[str, int]]:
        """Yield every piece of work: its name, and how many of its kind are in it."""
        left = self.rows
        for number in count():
            if left <= 0:
                break
            size = min(left, Random(f"{self.seed}/size/{number}").choice(_SIZES))
            left -= size
            yield f"rows/{number}", size
        for kind, total, most in (
            ("files", self.files, _FILES), ("identifiers", self.identifiers, _NAMES),
        ):  # fmt: skip
            for start in range(0, total, most):
                yield f"{kind}/{start // most}", min(most, total - start)


def work(plan: Plan, folder: Path, shard: int, shards: int) -> None:
    """Do a shard's pieces, but those that are done already."""
    path = folder / f"seed-{plan.seed}-shard-{shard}-of-{shards}.jsonl"
    lines = list(_lines([path]))
    # Without the half of a line that a killed run may have left.
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    done = {line["piece"] for line in lines}
    with path.open("a", encoding="utf-8") as out:
        for number, (piece, size) in enumerate(plan.pieces()):
            if number % shards == shard and piece not in done:
                out.write(json.dumps(do(plan.seed, piece, size, folder)) + "\n")
                out.flush()


def do(seed: int, piece: str, size: int, folder: Path) -> dict[str, Any]:
    """Do one piece; the same seed and piece give the same."""
    chance, start = Random(f"{seed}/{piece}"), time.process_time()
    kind = piece.partition("/")[0]
    line: dict[str, Any] = {"piece": piece, "size": size}
    if kind == "rows":
        feed = (
            chance.choice(feeds.shipped())
            if chance.random() < 0.3
            else feeds.made(chance)
        )
        result = judge(feed, feeds.rows(feed, chance, size), chance)
        found = result.findings
        line |= {
            "outcomes": result.outcomes, "flaws": result.flaws, "events": result.events,
            "batches": result.batches, "known_digests": result.known_digests,
        }  # fmt: skip
    elif kind == "files":
        verdicts = [files.judge_file(chance, folder / "marker") for _ in range(size)]
        found = [each for verdict in verdicts for each in verdict.findings]
        line["feeds"] = sum(verdict.is_feed for verdict in verdicts)
        line["slowest"] = max(verdict.seconds for verdict in verdicts)
    else:
        found = [each for _ in range(size) for each in identifiers.findings(chance)]
    line["findings"] = [asdict(each) for each in found]
    line["seconds"] = time.process_time() - start
    return line


def summary(plan: Plan, folder: Path) -> dict[str, Any]:
    """Add up what all shards have done so far."""
    lines = list(_lines(sorted(folder.glob(f"seed-{plan.seed}-shard-*.jsonl"))))
    wanted = dict(plan.pieces())
    totals: Counter[str] = Counter()
    counters: dict[str, Counter[str]] = {
        name: Counter() for name in ("outcomes", "flaws")
    }
    findings: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for line in lines:
        kind = line["piece"].partition("/")[0]
        totals[kind] += line["size"]
        totals[f"seconds of {kind}"] += line["seconds"]
        for name in ("events", "batches", "known_digests", "feeds"):
            totals[name] += line.get(name, 0)
        for name, counter in counters.items():
            counter.update(line.get(name, {}))
        for each in line["findings"]:
            claim = f"{each['claim']}: {each['detail']}"
            findings[claim] += 1
            examples.setdefault(claim, f"{line['piece']}, row {each['row']}")
    seconds = totals["seconds of rows"]
    return {
        "seed": plan.seed,
        "done": {line["piece"] for line in lines} >= wanted.keys(),
        **{name: round(total, 1) for name, total in totals.items()},
        "rows_per_second": round(totals["rows"] / seconds) if seconds else 0,
        "slowest_file_seconds": max(
            (line.get("slowest", 0.0) for line in lines), default=0.0
        ),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        // 1_024,
        **{name: dict(counter.most_common()) for name, counter in counters.items()},
        "findings": [
            {"claim": claim, "times": times, "first": examples[claim]}
            for claim, times in findings.most_common()
        ],
    }


def _lines(paths: list[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        if path.exists():
            for text in path.read_text("utf-8").splitlines():
                try:
                    yield json.loads(text)
                except ValueError:
                    return  # the last line of a run that was killed
