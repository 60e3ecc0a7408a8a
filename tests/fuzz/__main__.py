"""`make fuzz`: hostile rows, feed files and names, by the million.

Prints the seed. The same seed does the same; with it, a run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import secrets
import sys
import time
from pathlib import Path

from tests.fuzz.walk import Plan, do, summary, work


def main() -> int:
    parser = argparse.ArgumentParser("fuzz", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--identifiers", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path(".test/fuzz"))
    parser.add_argument("--piece", help="do one piece again and show it, as rows/17")
    wanted = parser.parse_args()
    plan = Plan(
        seed=secrets.randbelow(10**9) if wanted.seed is None else wanted.seed,
        rows=wanted.rows, files=wanted.files, identifiers=wanted.identifiers,
    )  # fmt: skip
    wanted.folder.mkdir(parents=True, exist_ok=True)
    _say(f"seed {plan.seed}, in {wanted.folder}")
    if wanted.piece:
        size = dict(plan.pieces())[wanted.piece]
        line = do(plan.seed, wanted.piece, size, wanted.folder)
        _say(json.dumps(line, indent=2))
        return bool(line["findings"])
    shards = [
        multiprocessing.get_context("spawn").Process(
            target=work, args=(plan, wanted.folder, number, wanted.shards)
        )
        for number in range(wanted.shards)
    ]
    for shard in shards:
        shard.start()
    path = wanted.folder / "summary.json"
    while any(shard.is_alive() for shard in shards):
        time.sleep(1)
    for shard in shards:
        shard.join()
    result = summary(plan, wanted.folder)
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", "utf-8")
    _say(path.read_text("utf-8"))
    sound = (
        result["done"]
        and not result["findings"]
        and not any(s.exitcode for s in shards)
    )
    return 0 if sound else 1


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
