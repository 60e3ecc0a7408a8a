"""What the product is made of: its words, its routes, its packages."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml
from airflow.plugins_manager import AirflowPlugin
from tests.house_rules import ROOT, modules_of_the_house

from capi_airflow.page.plugin import PREFIX, ConversionsPlugin
from capi_airflow.provider import get_provider_info

MODULES = modules_of_the_house()
PRODUCT = [m for m in MODULES if m.path.startswith(("dags/", "include/", "plugins/"))]
LOCKS = ("requirements.txt", "requirements-dev.txt")
_UNSAFE = {
    "eval", "exec", "compile", "__import__", "pickle.loads", "pickle.load", "marshal.loads",
    "yaml.load", "yaml.unsafe_load", "import_string", "importlib.import_module",
    "os.system", "os.popen", "subprocess.getoutput", "shelve.open", "dill.loads",
}  # fmt: skip


def unsafe_calls(source: str) -> list[str]:
    """Return the calls that make code of data, or a shell's words of it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            shell = any(
                word.arg == "shell" and not _is_false(word.value)
                for word in node.keywords
            )
            if name in _UNSAFE or shell:
                found.append(name)
    return found


def _is_false(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is False


@pytest.mark.matrix("X3")
def test_metas_own_sdk_is_neither_installed_nor_imported() -> None:
    """Its exceptions print whole requests, and it reports crashes to Meta."""
    for module in MODULES:
        assert not [each for each in module.imports if each.startswith("facebook")]
    for lock in LOCKS:
        assert "facebook" not in (ROOT / lock).read_text(encoding="utf-8").lower()
    assert "facebook_business" not in sys.modules


@pytest.mark.matrix("X24")
class TestNoCodeIsMadeOfData:
    def test_no_call_does(self) -> None:
        planted = "eval(x); yaml.load(f); subprocess.run(c, shell=True)"
        assert unsafe_calls(planted) == ["eval", "yaml.load", "subprocess.run"]
        found = {module.path: unsafe_calls(module.source) for module in PRODUCT}
        assert {path: calls for path, calls in found.items() if calls} == {}

    def test_the_linter_looks_for_it_too_and_is_silenced_only_with_a_reason(
        self,
    ) -> None:
        """Ruff's S rules are bandit's."""
        command = [sys.executable, "-m", "ruff", "check", "--output-format", "json"]
        planted = subprocess.run(
            [*command, "--stdin-filename", "include/meta_capi/planted.py", "-"],
            input="import pickle\nx = pickle.loads(b'')\n", cwd=ROOT, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert {"S301"} <= {fault["code"] for fault in json.loads(planted.stdout)}
        done = subprocess.run(
            [*command, "--select", "S", "dags", "include", "plugins"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert json.loads(done.stdout) == []
        silenced = re.compile(r"# noqa: S\d+\s*(.*)$", re.MULTILINE)
        for module in PRODUCT:
            assert all(why.strip() for why in silenced.findall(module.source)), (
                module.path
            )


@pytest.mark.matrix("X26")
def test_nothing_is_exported_to_a_table_that_computes() -> None:
    """No module writes CSV or a workbook; what there is to take away is JSON."""
    writers = {"openpyxl", "xlsxwriter", "pandas", "pyexcel", "odf"}
    for module in PRODUCT:
        assert not {each.split(".")[0] for each in module.imports} & writers, (
            module.path
        )
        for word in ("csv.writer", "DictWriter", "to_csv", "text/csv"):
            assert word not in module.source, module.path


@pytest.mark.matrix("X31")
class TestRoutes:
    """Airflow's API server leaves a plugin's routes open to everybody."""

    def test_the_product_serves_one_page_which_asks_who_it_is(self) -> None:
        """What it asks, and what it answers, is in test_page.py."""
        plugins = [
            node.name
            for module in PRODUCT
            for node in ast.walk(ast.parse(module.source))
            if isinstance(node, ast.ClassDef)
            and AirflowPlugin.__name__ in map(ast.unparse, node.bases)
        ]
        assert plugins == [ConversionsPlugin.__name__]
        assert [app["url_prefix"] for app in ConversionsPlugin.fastapi_apps] == [PREFIX]
        for door in (
            "flask_blueprints", "appbuilder_views", "fastapi_root_middlewares", "listeners",
        ):  # fmt: skip
            assert getattr(ConversionsPlugin, door) == []
        ours = distribution("meta-capi-airflow").entry_points
        assert {e.group for e in ours} == {
            "airflow.plugins", "apache_airflow_provider", "console_scripts",
        }  # fmt: skip
        assert (
            not {"plugins", "auth-managers", "executors"} & get_provider_info().keys()
        )

    def test_nothing_else_serves(self) -> None:
        words = {"fastapi", "starlette", "flask", "http"}
        serving = {
            "/".join(module.path.split("/")[1:3])
            for module in PRODUCT
            if words & {each.split(".")[0] for each in module.imports}
            and ("http.server" in module.source or "FastAPI" in module.source)
        }
        assert serving <= {"graph_simulator/server.py", "capi_airflow/page"}


@pytest.mark.matrix("X44")
class TestThePackages:
    @pytest.mark.parametrize("lock", LOCKS)
    def test_each_is_pinned_to_one_version_and_its_files(self, lock: str) -> None:
        text = (ROOT / lock).read_text(encoding="utf-8")
        entries = list(_entries(text))
        assert len(entries) > 100
        for name, entry in entries:
            assert re.search(r"==[\w.!+-]+( ;.*)?( \\)?$", entry.splitlines()[0]), name
            assert "--hash=sha256:" in entry, name
        # No place is named to take a package from: neither a registry nor a file's own.
        assert "://" not in text
        assert " @ " not in text

    def test_airflow_is_new_enough(self) -> None:
        """3.2.2 closed CVE-2026-42252 and CVE-2026-45426."""
        version = distribution("apache-airflow").version
        assert tuple(map(int, version.split("."))) >= (3, 2, 2)
        locked = (ROOT / "requirements.txt").read_text(encoding="utf-8")
        assert f"apache-airflow=={version}" in locked

    def test_image_and_set_up_install_by_hash_and_nothing_beside(self) -> None:
        image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
        for line in re.findall(r"pip install(?:[^\n]|\\\n)*-r [^\n]*", image):
            assert "--require-hashes" in line
        assert "--require-hashes" in (ROOT / "tools" / "bootstrap.py").read_text(
            "utf-8"
        )
        assert not re.search(r"\bnpm\b|\bcurl\b|\bwget\b", image)

    def test_the_one_vendored_file_is_the_one_written_down(self) -> None:
        chart = ROOT / "plugins" / "capi_airflow" / "page" / "static" / "chart.js"
        digest = hashlib.sha256(chart.read_bytes()).hexdigest()
        decision = (ROOT / "docs/decisions/0009-conversions-page.md").read_text("utf-8")
        assert digest in decision
        (version,) = re.findall(r"Chart\.js v([\d.]+)", chart.read_text("utf-8")[:200])
        assert f"Chart.js {version} (MIT)" in decision

    def test_a_bill_of_materials_and_an_audit_can_be_made(self) -> None:
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target, tool in (("sbom", "cyclonedx-py"), ("audit", "pip-audit")):
            assert re.search(rf"^{target}:.*\n\t.*{tool}", makefile, re.MULTILINE), (
                target
            )


def _entries(text: str) -> Iterator[tuple[str, str]]:
    for entry in re.split(r"\n(?=[a-z0-9])", text, flags=re.IGNORECASE):
        if entry.strip() and not entry.startswith("#"):
            yield entry.split("==")[0], entry


@pytest.mark.matrix("X41")
def test_every_shipped_feed_says_where_consent_stands_or_why_none_is_needed() -> None:
    feeds = sorted(Path(ROOT / "include" / "feeds").glob("*.yaml"))
    assert feeds
    for path in feeds:
        consent = yaml.safe_load(path.read_text(encoding="utf-8"))["consent"]
        assert consent.keys() & {"column", "not_required_because"}, path.name
