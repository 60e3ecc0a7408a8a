"""Airflow as the demo runs it: its settings, its programs, and its REST API."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import requests

from demo.processes import DemoError, Program, wait_until

__all__ = ["Airflow"]

_PROGRAMS: Final = {
    "api-server": ["api-server", "--host", "127.0.0.1"],
    "scheduler": ["scheduler"],
    "dag-processor": ["dag-processor"],
}
_USER: Final = "admin"
# Great Expectations takes seconds to import. The scheduler does it once; its workers are
# forked from it and have it.
_LOCAL_SETTINGS: Final = """\
import sys

if "scheduler" in sys.argv:
    import capi_airflow.operators
    import great_expectations.validator.validator
"""


class Airflow:
    """One Airflow with LocalExecutor, in a folder.

    Args:
        project: the checkout.
        folder: AIRFLOW_HOME.
        port: of the UI.
        database: SQLAlchemy URL of the metadata.
        settings: variables of the environment that go before the demo's own.
        local_settings: more lines for `airflow_local_settings.py`.
    """

    def __init__(
        self, *, project: Path, folder: Path, port: int, database: str,
        settings: Mapping[str, str] | None = None, local_settings: str = "",
    ) -> None:  # fmt: skip
        self.folder = folder
        self.port = port
        self._project = project
        self._database = database
        self._settings = settings or {}
        self._local_settings = _LOCAL_SETTINGS + local_settings
        self._token = ""
        self.programs = [Program(name, folder / "run") for name in _PROGRAMS]

    @property
    def url(self) -> str:
        """The UI."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def login(self) -> tuple[str, str]:
        """User name and password, made for this folder."""
        return _USER, self._secret("password", 9)

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of every Airflow program."""
        project, home = self._project, self.folder
        kept = {
            k: v
            for k, v in base.items()
            if not k.startswith(("AIRFLOW", "_AIRFLOW", "PYTHON"))
        }
        passwords = home / "passwords.json"
        return (
            kept
            | {
                "AIRFLOW_HOME": str(home),
                "AIRFLOW_CONFIG": str(home / "airflow.cfg"),
                "PYTHONPATH": f"{project / 'include'}:{project / 'plugins'}",
                "PYTHONUNBUFFERED": "1",
                "GX_ANALYTICS_ENABLED": "False",
                "META_CAPI_DEMO": str(home.parent),
                "META_CAPI_DATA_DOCS": str(home.parent / "data_docs"),
                "AIRFLOW__CORE__DAGS_FOLDER": str(project / "dags"),
                "AIRFLOW__CORE__PLUGINS_FOLDER": str(project / "plugins"),
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
                "AIRFLOW__CORE__PARALLELISM": "4",
                "AIRFLOW__CORE__FERNET_KEY": self._fernet_key(),
                "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{_USER}:admin",
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
                "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self._database,
                "AIRFLOW__API__PORT": str(self.port),
                "AIRFLOW__API__BASE_URL": self.url,
                "AIRFLOW__API__WORKERS": "1",
                "AIRFLOW__API_AUTH__JWT_SECRET": self._secret("jwt", 32),
                "AIRFLOW__API__SECRET_KEY": self._secret("session", 32),
                "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
                "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
                "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": "0",
                "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            }
            | dict(self._settings)
        )

    def start(
        self,
        base: Mapping[str, str],
        run: Callable[[list[str], Mapping[str, str]], None],
    ) -> None:
        """Bring the metadata up to date and start what does not run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        user, password = self.login
        passwords = self.folder / "passwords.json"
        passwords.touch(mode=0o600)
        passwords.write_text(json.dumps({user: password}))
        (self.folder / "config").mkdir(exist_ok=True)
        (self.folder / "config" / "airflow_local_settings.py").write_text(
            self._local_settings
        )
        run([sys.executable, "-m", "airflow", "db", "migrate"], self.environment(base))
        self.resume(base)

    def resume(self, base: Mapping[str, str]) -> None:
        """Start what does not run."""
        environment = self.environment(base)
        airflow = [sys.executable, "-m", "airflow"]
        for program in self.programs:
            extra = ["--port", str(self.port)] if program.name == "api-server" else []
            program.start([*airflow, *_PROGRAMS[program.name], *extra], environment)

    def wait(self, seconds: float) -> None:
        """Wait until scheduler, DAG processor and API are healthy."""
        wait_until(self._healthy, "Airflow", seconds, self.programs)

    def stop(self) -> None:
        """End every program."""
        for program in reversed(self.programs):
            program.stop()

    def _healthy(self) -> bool:
        try:
            answer = requests.get(f"{self.url}/api/v2/monitor/health", timeout=5)
            parts = answer.json()
        except (requests.RequestException, ValueError):
            return False
        needed = ("metadatabase", "scheduler", "dag_processor")
        return all(
            (parts.get(part) or {}).get("status") == "healthy" for part in needed
        )

    # --- the REST API -----------------------------------------------------------------

    def ask(
        self, method: str, path: str, body: Any = None, *, fine: tuple[int, ...] = ()
    ) -> Any:
        """Call the REST API as the demo's user; DemoError on an unexpected status."""
        if not self._token:
            user, password = self.login
            answer = requests.post(
                f"{self.url}/auth/token",
                json={"username": user, "password": password},
                timeout=30,
            )
            self._token = answer.json()["access_token"]
        answer = requests.request(
            method, f"{self.url}/api/v2{path}", json=body, timeout=60,
            headers={"Authorization": f"Bearer {self._token}"},
        )  # fmt: skip
        if not answer.ok and answer.status_code not in fine:
            raise DemoError(
                f"Airflow answered {answer.status_code} to {method} {path}."
            )
        return answer.json() if answer.content else None

    def connection(self, conn_id: str, **values: Any) -> None:
        """Make or change a connection."""
        body = {"connection_id": conn_id, **values}
        made = self.ask("POST", "/connections", body, fine=(409,))
        if "connection_id" not in made:
            self.ask("PATCH", f"/connections/{conn_id}", body)

    def pool(self, name: str, slots: int) -> None:
        """Make a pool if it is not there."""
        body = {
            "name": name,
            "slots": slots,
            "description": "Tasks that send to Meta at a time.",
        }
        self.ask("POST", "/pools", body, fine=(409,))

    def knows(self, dag_ids: list[str]) -> bool:
        """Tell whether the DAGs were read."""
        found = self.ask("GET", "/dags?limit=100")["dags"]
        return set(dag_ids) <= {dag["dag_id"] for dag in found}

    def import_errors(self) -> list[str]:
        """Return what Airflow could not read."""
        found = self.ask("GET", "/importErrors")["import_errors"]
        return [error["stack_trace"].strip().splitlines()[-1] for error in found]

    def unpause(self, dag_id: str) -> None:
        """Switch a DAG on."""
        self.ask("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    def trigger(self, dag_id: str, conf: Mapping[str, Any]) -> str:
        """Start a run by hand; return its id."""
        run = self.ask(
            "POST",
            f"/dags/{dag_id}/dagRuns",
            {"logical_date": None, "conf": dict(conf)},
        )
        return str(run["dag_run_id"])

    def finish(
        self, dag_id: str, run_id: str, seconds: float, tell: Callable[[str], None]
    ) -> str:
        """Follow a run to its end, telling each task's state as it changes."""
        end = time.monotonic() + seconds
        told: dict[str, str] = {}
        while True:
            tasks = self.ask("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")
            for task in tasks["task_instances"]:
                name = task["task_id"] + (
                    f"[{task['map_index']}]" if task["map_index"] >= 0 else ""
                )
                state = task["state"] or "none"
                if (
                    state in ("success", "failed", "up_for_retry", "upstream_failed")
                    and told.get(name) != state
                ):
                    told[name] = state
                    tell(f"{name} {state}")
            state = self.ask("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"]
            if state in ("success", "failed"):
                return str(state)
            if time.monotonic() > end:
                raise DemoError(
                    f"{dag_id} did not end in {seconds:.0f} s. Look at {self.url}/dags/{dag_id}."
                )
            for program in self.programs:
                if not program.running:
                    raise DemoError(
                        f"{program.name} ended by itself:\n{program.last_words()}"
                    )
            time.sleep(1)

    def _secret(self, name: str, size: int) -> str:
        path = self.folder / f"{name}.secret"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(size))
        return path.read_text()

    def _fernet_key(self) -> str:
        from cryptography.fernet import Fernet

        path = self.folder / "fernet.secret"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.write_bytes(Fernet.generate_key())
        return path.read_text()
