"""An Airflow for the tests alone: its settings stand before anybody's first import of it."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

__all__ = ["ROOT", "settle"]

ROOT = Path(__file__).resolve().parents[1]


def settle() -> None:
    """Give this process an Airflow home of its own, and no setting of the caller's shell."""
    if any(name == "airflow" or name.startswith("airflow.") for name in sys.modules):
        raise RuntimeError("Airflow was imported before its settings were made.")
    for name in [n for n in os.environ if n.startswith(("AIRFLOW", "_AIRFLOW"))]:
        del os.environ[name]
    home = tempfile.mkdtemp(prefix="capi-airflow-tests-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ |= {
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "META_CAPI_DATA_DOCS": f"{home}/data_docs",
        "GX_ANALYTICS_ENABLED": "False",
    }
