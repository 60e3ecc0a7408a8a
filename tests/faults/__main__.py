"""The kill harness: `make faults`.

Real workers are killed at random moments and at named points, under faults of Meta, of
PostgreSQL and of the machine; then the books are closed, event by event. Trials that are
written down in the folder are not played again: a harness that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# This checkout's product, whatever is installed.
sys.path[:0] = [str(ROOT / "include"), str(ROOT / "plugins"), str(ROOT)]

from tests.faults.shard import Order, lines, play_shard  # noqa: E402
from tests.faults.table import summary, table  # noqa: E402

_COUNTS = ("kills", "failpoints", "restarts", "sleeps", "naive", "others", "shards")
# A shard whose machine fails it, as by a port that is taken, is started again so often.
_FALLS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Play; return 1 if a promise was broken, 2 if a shard could not play."""
    options = _parser().parse_args(arguments)
    # What was started is stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    order = Order(
        seed=options.seed, **{name: getattr(options, name) for name in _COUNTS}
    )
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if options.shard is not None:
        play_shard(order, folder, options.shard, options.only_seed)
        return 0
    say(f"Master seed {order.seed}; {folder}")
    code = _play_all(order, folder, options.only_seed)
    trials = [
        line for n in range(order.shards) for line in lines(folder / f"shard-{n}.jsonl")
    ]
    found = {"order": vars_of(order), **summary(trials)}
    (folder / "summary.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    say(*table(found))
    say(f"The killed were: {found['where the killed were']}")
    for each in found["violations"]:
        name = each["trial"]
        say(f"BROKEN in {name}; again: --seed {order.seed} --only-seed '{name}'")
        say(*(f"    {what}" for what in each["what"][:10]))
    if code:
        return 2
    return 1 if found["violations"] else 0


def vars_of(order: Order) -> dict[str, int]:
    """Return what was asked for, as JSON."""
    return {"seed": order.seed, **{name: getattr(order, name) for name in _COUNTS}}


def say(*told: str) -> None:
    """Say something, at once."""
    sys.stdout.writelines(f"{line}\n" for line in told)
    sys.stdout.flush()


def _play_all(order: Order, folder: Path, only: str | None) -> int:
    """Run the shards side by side; say now and then how far they are."""
    given = [f"--{name}={value}" for name, value in vars_of(order).items()]
    if only is not None:
        given.append(f"--only-seed={only}")

    # This checkout's product, whichever one the environment has installed.
    paths = os.pathsep.join(str(ROOT / name) for name in ("include", "plugins", "."))

    def start(number: int) -> subprocess.Popen[bytes]:
        with (folder / f"shard-{number}.err").open("ab") as words:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.faults", *given, f"--folder={folder}",
                 f"--shard={number}"],
                cwd=ROOT, stderr=words, env={**os.environ, "PYTHONPATH": paths},
            )  # fmt: skip

    shards = {n: start(n) for n in (range(order.shards) if only is None else (0,))}
    falls: Counter[int] = Counter()
    began, said, worst = time.monotonic(), 0.0, 0
    try:
        while shards:
            time.sleep(0.2)
            for number, shard in list(shards.items()):
                code = shard.poll()
                if code is None:
                    continue
                del shards[number]
                if code and falls[number] < _FALLS:
                    falls[number] += 1
                    say(
                        f"Shard {number} fell ({code}; see shard-{number}.err); it goes on."
                    )
                    shards[number] = start(number)
                else:
                    worst = max(worst, abs(code))
            if time.monotonic() - said > 30:
                said = time.monotonic()
                _say(folder, order, said - began)
    finally:
        for shard in shards.values():
            shard.terminate()
            shard.wait()
    return worst


def _say(folder: Path, order: Order, seconds: float) -> None:
    trials = [
        line for n in range(order.shards) for line in lines(folder / f"shard-{n}.jsonl")
    ]
    kills = sum(line["kills"] for line in trials)
    broken = sum(bool(line["violations"]) for line in trials if line["kind"] != "naive")
    say(
        f"{seconds / 60:5.1f} min: {len(trials):,} trials, {kills:,} kills, "
        f"{broken} broken"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=500, help="random SIGKILLs")
    parser.add_argument(
        "--failpoints", type=int, default=10, help="deaths in each window"
    )
    parser.add_argument(
        "--restarts", type=int, default=10, help="of PostgreSQL, immediate"
    )
    parser.add_argument(
        "--sleeps", type=int, default=10, help="workers stopped and woken"
    )
    parser.add_argument(
        "--naive", type=int, default=10, help="trials of a naive sender"
    )
    parser.add_argument("--others", type=int, default=5, help="of each other kind")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path(".test/faults"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only-seed", help="play one trial alone, as `kills:17`")
    parser.add_argument("--shard", type=int, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
