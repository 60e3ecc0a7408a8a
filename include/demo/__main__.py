"""One command that shows the whole thing: `python -m demo up`, and `down`.

A PostgreSQL, the sample warehouse, the ledger, the local Graph API and Airflow; then the
feeds' DAGs, run by the real scheduler to their end. Running it again is safe: what is
there is used, and nothing is sent twice.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psycopg
import requests
from sqlalchemy import create_engine

from demo import summary
from demo.airflow import Airflow
from demo.postgres import Postgres, PostgresError
from demo.processes import DemoError, Program, leftovers, port_is_taken, wait_until
from demo.warehouse import load
from meta_capi.feed import load_all
from meta_capi.ledger import Ledger
from meta_capi.names import event_id

PROJECT: Final = Path(__file__).resolve().parents[2]
DATASET: Final = "1234567890123456"
_GRAPH: Final = "graph-api"
_REFUSED_ORDERS: Final = 3


def main() -> int:
    """Run a command; return 0, or 1 with a sentence on what to do."""
    options = _options()
    folder: Path = options.folder.resolve()
    try:
        if options.command == "down":
            down(folder)
        else:
            up(folder, options)
    except (DemoError, PostgresError, requests.RequestException) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\ndemo: interrupted. `make down` stops what has started.", file=sys.stderr
        )
        return 130
    return 0


def up(folder: Path, options: argparse.Namespace) -> None:
    """Start everything and run the feeds."""
    started = time.monotonic()
    say = _teller(started)
    folder.mkdir(parents=True, exist_ok=True)
    graph = Program(_GRAPH, folder / "run")
    _ports_are_ours(folder, options, graph)

    say("PostgreSQL: starting (embedded, in the project's own folder)")
    postgres = Postgres(folder / "postgres", port=options.db_port)
    postgres.start()
    for name in ("airflow", "warehouse"):
        postgres.create_database(name)

    say("Warehouse: sample conversions of the last 60 days")
    until = datetime.now(UTC).replace(microsecond=0)
    rows = load(postgres.dsn("warehouse"), until=until, scale=options.scale)
    until = _loaded_until(postgres.dsn("warehouse"))
    tables = {
        name: count for name, count in rows.items() if not name.startswith("sample")
    }
    say("  " + ", ".join(f"{count:,} {name}" for name, count in tables.items()))
    engine = create_engine(postgres.url("warehouse"), hide_parameters=True)
    ledger = Ledger(engine)
    made = ledger.migrate()
    say(f"Ledger: schema capi {'made' if made else 'is up to date'}")

    graph.start(
        [sys.executable, "-m", "graph_simulator", "--port", str(options.graph_port),
         "--dataset", DATASET, "--token-file", str(_token_file(folder)),
         "--record", str(folder / "graph.jsonl")],
        {**os.environ, "PYTHONPATH": str(PROJECT / "include"), "META_CAPI_DEMO": str(folder)},
    )  # fmt: skip
    graph_url = f"http://127.0.0.1:{options.graph_port}"
    wait_until(
        lambda: _answers(f"{graph_url}/_simulator/health"),
        "The local Graph API",
        30,
        [graph],
    )
    _refuse_a_few(graph_url, postgres.dsn("warehouse"))
    say(
        f"Local Graph API: {graph_url} (keeps Meta's rules; refuses {_REFUSED_ORDERS} "
        "orders of its own accord)"
    )

    _tell_the_shell(folder, postgres, graph_url)

    airflow = Airflow(
        project=PROJECT, folder=folder / "airflow", port=options.ui_port,
        database=postgres.url("airflow"),
    )  # fmt: skip
    say("Airflow: metadata, then scheduler, DAG processor, API server")
    airflow.start(os.environ, _quietly(folder / "airflow-setup.log"))
    airflow.wait(240)
    _connect(airflow, postgres, _token_file(folder).read_text(), graph_url)
    feeds = list(load_all(PROJECT / "include" / "feeds").values())
    dag_ids = [feed.dag_id for feed in feeds]
    wait_until(
        lambda: airflow.knows([*dag_ids, "tend_deliveries"]),
        "Reading the DAGs",
        120,
        airflow.programs,
    )
    if errors := airflow.import_errors():
        raise DemoError("Airflow could not read a DAG file:\n" + "\n".join(errors))
    say(f"Airflow: {airflow.url} is up, {len(dag_ids)} feeds")

    interval = {
        "start": (until - timedelta(days=63)).isoformat(),
        "end": (until + timedelta(seconds=1)).isoformat(),
    }
    for dag_id in (*dag_ids, "tend_deliveries", "replay_deliveries"):
        airflow.unpause(dag_id)
    runs = {dag_id: airflow.trigger(dag_id, interval) for dag_id in dag_ids}
    failed = []
    for dag_id, run_id in runs.items():
        say(f"{dag_id}: {run_id}")
        state = airflow.finish(dag_id, run_id, 1_200, lambda line: say(f"  {line}"))
        if state != "success":
            failed.append(dag_id)
    lines = summary.lines(ledger, postgres.dsn("warehouse"), graph_url, DATASET, feeds)
    print("\n" + "\n".join(lines))
    user, password = airflow.login
    print(f"\nAirflow   {airflow.url}   user {user}   password {password}")
    print(f"Page      {airflow.url}/plugin/conversions")
    print(f"Data Docs {folder / 'data_docs' / 'index.html'}")
    print(f"Shell     . {folder / 'env'}   and then, as an example, meta-capi check")
    print(
        f"Done in {time.monotonic() - started:.0f} s. `make demo` again sends nothing "
        "twice; `make down` stops it."
    )
    if failed:
        raise DemoError(
            f"{', '.join(failed)} did not succeed; see their logs at {airflow.url}."
        )


def down(folder: Path) -> None:
    """Stop everything."""
    if not folder.exists():
        print("Nothing runs here.")
        return
    Airflow(project=PROJECT, folder=folder / "airflow", port=0, database="").stop()
    Program(_GRAPH, folder / "run").stop()
    Postgres(folder / "postgres", port=None).stop()
    if left := leftovers(folder):
        raise DemoError(
            f"These processes did not end: {', '.join(map(str, left))}. Kill them."
        )
    print("Stopped. `make demo` starts again where it was; `make clean` removes it.")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="demo", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("command", choices=["up", "down"])
    parser.add_argument("--folder", type=Path, default=PROJECT / ".demo")
    parser.add_argument(
        "--scale", type=float, default=float(os.environ.get("DEMO_SCALE", "1"))
    )
    for name, port in (("ui", 8080), ("graph", 8085), ("db", 5439)):
        given = int(os.environ.get(f"DEMO_{name.upper()}_PORT", port))
        parser.add_argument(f"--{name}-port", type=int, default=given)
    return parser.parse_args()


def _ports_are_ours(folder: Path, options: argparse.Namespace, graph: Program) -> None:
    """Refuse to start where a stranger listens."""
    postgres = Postgres(folder / "postgres", port=options.db_port)
    airflow = Program("api-server", folder / "airflow" / "run")
    wanted = (
        ("DEMO_UI_PORT", options.ui_port, airflow.running),
        ("DEMO_GRAPH_PORT", options.graph_port, graph.running),
        ("DEMO_DB_PORT", options.db_port, postgres.running),
    )
    taken = [f"port {port} is taken; choose another, as {name}={port + 100} make demo"
             for name, port, ours in wanted if not ours and port_is_taken(port)]  # fmt: skip
    if taken:
        raise DemoError("\n".join(taken))


def _teller(started: float) -> Callable[[str], None]:
    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {line}", flush=True)

    return say


def _quietly(log: Path) -> Callable[[list[str], Mapping[str, str]], None]:
    def run(command: list[str], environment: Mapping[str, str]) -> None:
        with log.open("ab") as out:
            done = subprocess.run(
                command, env=dict(environment), stdout=out, stderr=out, check=False
            )
        if done.returncode:
            end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise DemoError(f"{' '.join(command[2:])} failed; {log} ends with:\n{end}")

    return run


def _loaded_until(dsn: str) -> datetime:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("select until from shop.sample_origin").fetchone()
    if row is None:
        raise DemoError(
            "The sample warehouse is half made; `make clean`, then `make demo`."
        )
    until: datetime = row[0]
    return until


def _token_file(folder: Path) -> Path:
    path = folder / "token.secret"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(f"EAAB{secrets.token_urlsafe(48)}")
    return path


def _tell_the_shell(folder: Path, postgres: Postgres, graph_url: str) -> None:
    """Write what a shell sources, so that `meta-capi` finds all of the demo."""
    database = postgres.url("warehouse")
    variables = {
        "META_CAPI_WAREHOUSE": database,
        "META_CAPI_LEDGER": database,
        "META_CAPI_DATASET": DATASET,
        "META_CAPI_TOKEN": _token_file(folder).read_text(),
        "META_CAPI_GRAPH_URL": graph_url,
    }
    path = folder / "env"
    path.touch(mode=0o600)
    lines = [f"export {name}={shlex.quote(text)}" for name, text in variables.items()]
    lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
    path.write_text("\n".join(lines) + "\n")


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


def _refuse_a_few(graph_url: str, dsn: str) -> None:
    """Let the Graph API refuse a few sound orders, so that splitting has something to find."""
    query = """
        select order_id from shop.offline_purchases as p
        where not exists (select from shop.sample_faults f where f.row_key = p.order_id)
        order by order_id limit %s
    """
    with psycopg.connect(dsn) as connection:
        orders = [row[0] for row in connection.execute(query, (_REFUSED_ORDERS,))]
    fault = {
        "kind": "refuse_if",
        "count": None,
        "event_ids": [event_id(DATASET, "Purchase", order) for order in orders],
        "code": 100,
        "subcode": 2804019,
    }
    requests.delete(f"{graph_url}/_simulator/faults", timeout=10).raise_for_status()
    requests.post(
        f"{graph_url}/_simulator/faults", json=fault, timeout=10
    ).raise_for_status()


def _connect(airflow: Airflow, postgres: Postgres, token: str, graph_url: str) -> None:
    """Make the three connections and the pool, as a user would in the UI."""
    with psycopg.connect(postgres.dsn("warehouse")) as connection:
        info = connection.info
        database = {
            "conn_type": "postgres", "host": info.host, "port": info.port,
            "schema": info.dbname, "login": info.user, "password": info.password,
        }  # fmt: skip
    airflow.connection("capi_warehouse", **database)
    airflow.connection("capi_ledger", **database)
    airflow.connection(
        "meta_capi_default",
        conn_type="meta_capi",
        host=graph_url,
        port=urlsplit(graph_url).port,
        login=DATASET,
        password=token,
        extra=json.dumps(
            {
                "environment": "local",
                "partner_agent": "capi_airflow_demo",
                "quality_scores": "offline",
            }
        ),
    )
    airflow.pool("meta_capi", 4)


if __name__ == "__main__":
    sys.exit(main())
