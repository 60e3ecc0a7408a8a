"""Does the wheel hold what the code reads, and does Airflow find it?"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from email import message_from_bytes
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("include/meta_capi", "include/graph_simulator", "plugins/capi_airflow")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built here without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build"]
    command += ["--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def _sources() -> set[str]:
    """Return every file of the packages, as the wheel should name it."""
    found = (
        (folder, file) for folder in PACKAGES for file in (ROOT / folder).rglob("*")
    )
    return {
        file.relative_to((ROOT / folder).parent).as_posix()
        for folder, file in found
        if file.is_file() and "__pycache__" not in file.parts
    }


def _told(wheel: Path, words: str) -> list[str]:
    """Run a program on the wheel alone, not on the checkout; return what it tells."""
    start = "import json, sys; sys.path.insert(0, sys.argv[1]); "
    command = [sys.executable, "-c", start + words, str(wheel)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return list(json.loads(answer.stdout))


def test_the_wheel_holds_every_file_of_its_packages(wheel: Path) -> None:
    held = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    assert held == _sources()
    assert {Path(name).suffix for name in held} >= {".py", ".sql", ".csv", ".html"}
    assert "meta_capi/py.typed" in held


def test_the_wheel_asks_for_what_requirements_in_names(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
    asked = message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []
    lines = (ROOT / "requirements.in").read_text(encoding="utf-8").splitlines()
    named = [line.split("#")[0].strip() for line in lines]
    assert {each.lower() for each in asked} == {each.lower() for each in named if each}


def test_the_wheels_data_is_found_where_the_code_looks(wheel: Path) -> None:
    words = (
        "from meta_capi import data, sql; "
        "print(json.dumps([sql.__file__, sql.migrations()[0].name, "
        "len(data.STATES), len(sql.queries('ledger'))]))"
    )
    where, first, states, queries = _told(wheel, words)
    assert where.startswith(str(wheel))
    assert first == "ledger"
    assert int(states) > 0
    assert int(queries) > 0


def test_airflow_finds_the_connection_type_of_the_installed_project() -> None:
    (found,) = [
        entry
        for entry in entry_points(group="apache_airflow_provider")
        if entry.value.startswith("capi_airflow.")
    ]
    info = found.load()()
    assert info["connection-types"][0]["connection-type"] == "meta_capi"


def test_the_command_is_installed() -> None:
    (found,) = entry_points(group="console_scripts", name="meta-capi")
    assert callable(found.load())
