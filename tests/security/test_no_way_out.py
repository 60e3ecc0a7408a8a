"""Nothing that runs here calls home: a whole gate and the commands, without a network.

A process of its own, in a network namespace whose only way is to itself, does the work.
The kernel counts what it sends where no way leads; Python's audit hooks name whom it
asks for.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.house_rules import ROOT

_WORK = '''
import json, os, socket, sys, tempfile
from datetime import UTC, datetime
from pathlib import Path

asked = set()

def watch(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple):
        asked.add(str(args[1][0]))
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        asked.add(str(args[0]))

sys.addaudithook(watch)

def unrouted():
    """How often this namespace had no way to send something."""
    pairs = zip(*(line.split() for line in open("/proc/self/net/snmp")
                  if line.startswith("Ip:")))
    return int(dict(pairs)["OutNoRoutes"])

if sys.argv[1] == "call home":
    try:
        socket.create_connection(("192.0.2.1", 80), 1)
    except OSError:
        pass
else:
    from demo.postgres import Postgres
    from demo.warehouse import load
    from graph_simulator import Simulator
    from meta_capi import cli

    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        with Postgres(Path(name), durable=False) as server, Simulator() as sim:
            server.create_database("all")
            load(server.dsn("all"), until=datetime.now(UTC), scale=0.002)
            os.environ.update(
                META_CAPI_WAREHOUSE=server.dsn("all"), META_CAPI_LEDGER=server.dsn("all"),
                META_CAPI_GRAPH_URL=sim.url, META_CAPI_TOKEN="EAABnowhere0123456789",
                META_CAPI_DATASET="1234567890", META_CAPI_HOME=sys.argv[2],
            )
            assert cli.main(["migrate"]) == 0
            assert cli.main(["check", "offline_purchases"]) == 0
            assert cli.main(["send-test", "offline_purchases", "--code", "TEST123"]) == 0
            import sqlalchemy as sa, time
            from datetime import timedelta
            from meta_capi.feed import load as feed_of
            from meta_capi.quality import check
            from meta_capi.source import Interval, Source
            from meta_capi.suites import load_suite
            home = Path(sys.argv[2])
            feed = feed_of(home / "feeds" / "offline_purchases.yaml")
            engine = sa.create_engine(server.url("all"), hide_parameters=True)
            now = datetime.now(UTC)
            result = check(
                Source(engine, feed, home / "feeds"), Interval(now - timedelta(70), now),
                load_suite(home / "expectations" / "offline_purchases.json", feed),
                record_bad_rows=list, validation_id="1", timer=time.perf_counter,
            )
            assert result.rows > 10
            engine.dispose()
print(json.dumps({"asked": sorted(asked), "unrouted": unrouted()}))
'''


def alone(folder: Path, *words: str) -> dict[str, Any]:
    """Run the work in a network of its own; return whom it asked for."""
    script = folder / "work.py"
    script.write_text(_WORK)
    unshare, ip = (
        shutil.which("unshare"),
        shutil.which("ip", path="/usr/sbin:/usr/bin:/sbin"),
    )
    assert None not in (unshare, ip), "install util-linux and iproute2"
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = f'{ip} link set lo up && exec "$@"'
    done = subprocess.run(
        [unshare, "--net", *root, "sh", "-c", command, "sh", sys.executable, str(script),
         *words],
        env={"PYTHONPATH": f"{ROOT / 'include'}:{ROOT / 'plugins'}", "HOME": str(folder),
             "PATH": os.environ["PATH"]},
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-1_500:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.matrix("X20", "X43")
def test_the_gate_and_the_commands_call_nobody(tmp_path: Path) -> None:
    """Great Expectations' analytics stay off though no variable says so."""
    found = alone(tmp_path, "work", str(ROOT / "include"))
    assert found == {"asked": ["127.0.0.1"], "unrouted": 0}


def test_a_call_would_be_seen(tmp_path: Path) -> None:
    found = alone(tmp_path, "call home")
    assert found["asked"] == ["192.0.2.1"]
    assert found["unrouted"] > 0
