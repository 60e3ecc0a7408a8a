"""Run the benchmark: `python -m bench [PART ...] [--rows 100k,1m] [--repeat 3]`.

Prints each figure beside its target, and keeps everything in a JSON file: what is run
takes the place of its own part, the other parts stay as they were.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from bench.machine import machine, moment
from bench.parts import Sizes
from bench.parts.airflow import airflow
from bench.parts.build import build
from bench.parts.end_to_end import end_to_end
from bench.parts.flat import flat
from bench.parts.gate import gate
from bench.parts.pipelining import pipelining
from bench.parts.profile import WATCH, profile
from bench.party import ROOT, BenchError
from bench.world import World
from demo.postgres import Postgres

PARTS: Final[Mapping[str, Callable[[World, Sizes], dict[str, Any]]]] = {
    "build": build,
    "end_to_end": end_to_end,
    "profile": profile,
    "pipelining": pipelining,
    "flat": flat,
    "gate": gate,
    "airflow": airflow,
}
# As docs/scaling.md has it; at PostgreSQL's own a million rows write half as much WAL again.
_SETTINGS: Final = {
    "shared_buffers": "2GB", "max_wal_size": "8GB", "checkpoint_timeout": "15min",
}  # fmt: skip
_PEERS: Final = ROOT / ".bench" / "peers" / "bin" / "python"


def main() -> int:
    """Run the parts that are asked for; return 1 if one could not be run."""
    options = _options()
    # So that what was started is stopped, as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    peers = {
        name: [str(_PEERS), "-m", f"bench.peers.{name}"] for name in ("drt", "sdk")
    }
    sizes = Sizes(
        rows=options.rows, peer_rows=options.peer_rows, repeat=options.repeat,
        workers=options.workers, peers=peers,
    )  # fmt: skip
    with Postgres(folder / "postgres", settings=_SETTINGS | WATCH) as postgres:
        # Anew each time: Meta takes nothing old, and lots may have changed.
        postgres.drop_database("shop")
        postgres.create_database("shop")
        with World(postgres, folder, seed=options.seed) as world:
            failed = measure(world, options.parts or PARTS, sizes, options.into)
    return int(failed)


def measure(world: World, names: Iterable[str], sizes: Sizes, into: Path) -> bool:
    """Run parts, print their figures and keep their records; tell whether one failed."""
    failed = False
    for name in names:
        began, before = time.monotonic(), moment()
        try:
            record = PARTS[name](world, sizes)
        except BenchError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
            continue
        record |= {"before": before, "after": moment(), "seed": world.seed}
        _keep(into, name, record)
        _print(name, record, time.monotonic() - began)
    return failed


def _keep(path: Path, name: str, record: dict[str, Any]) -> None:
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept["machine"] = machine() | {"postgres": _SETTINGS}
    kept.setdefault("parts", {})[name] = record
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(kept, indent=1, ensure_ascii=False, sort_keys=False)
    path.write_text(text + "\n", encoding="utf-8")


def _print(name: str, record: dict[str, Any], seconds: float) -> None:
    print(f"{name} ({seconds:.0f} s, load {record['before']['load'][0]})")
    for each in record["figures"].values():
        sign, word = (
            (">=" if each["at_least"] else "<="),
            ("met" if each["met"] else "MISSED"),
        )
        print(
            f"  {each['name']:<58}{each['value']:>10,.2f} {each['unit']:<3}"
            f" {sign} {each['target']:<6g} {word}",
            flush=True,
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument(
        "--rows", type=_sizes, default=[], help="instead of each part's own, as 100k,1m"
    )
    parser.add_argument("--peer-rows", type=_rows, default=50_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="deliver processes")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench")
    parser.add_argument(
        "--into", type=Path, default=ROOT / "docs" / "measured" / "bench.json"
    )
    options = parser.parse_args()
    if strangers := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(strangers)}; there are {', '.join(PARTS)}")
    return options


def _sizes(text: str) -> list[int]:
    return [_rows(each) for each in text.split(",")]


def _rows(text: str) -> int:
    unit = {"k": 1_000, "m": 1_000_000}.get(text[-1:].lower(), 0)
    return int(text[:-1]) * unit if unit else int(text)


if __name__ == "__main__":
    sys.exit(main())
