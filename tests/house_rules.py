"""The rules of the house, which no linter knows (design: the rooms).

Each is a function from a module to the sentences about what breaks it.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent

CORE, SIMULATOR, EMBASSY = "meta_capi", "graph_simulator", "capi_airflow"
SOURCE_ROOTS = ("include", "plugins")

# The rooms of the core that may know a library, or a part of the world. `cli` is the
# core's own edge: it has a terminal, an environment and a clock, and still no Airflow.
ROOMS = {
    "great_expectations": {"quality"},
    "jinja2": {"data_docs"},
    "phonenumbers": {"normalise"},
    "psycopg": {"ledger", "schema", "desk", "claiming", "people", "steps"},
    "pydantic": {"feed"},
    "sqlalchemy": {
        "source",
        "relation",
        "conditions",
        "warehouse",
        "steps",
        "quality",
        "sweep",
    },
    "yaml": {"feed"},
    "concurrent": {"dispatch"},
    "os": {"data_docs"},  # for files that appear whole or not at all
    "secrets": {"schema"},
    "threading": {"ahead", "dispatch", "sending", "tally"},
    "time": {"dispatch", "steps"},
}
EDGE = {"cli", "__main__"}
# The line to Meta stands in the embassy, without any Airflow.
EDGE_LIBRARIES = {"capi_airflow.transport", "graph_simulator", "sqlalchemy"}
# The embassy's line to Meta, and to who is told of alerts: these alone open a socket (mail
# goes through Airflow's own hook), and know no Airflow.
LINE = {"transport", "deadline", "postbox"}
WORLDLY = {
    "asyncio", "concurrent", "http", "multiprocessing", "os", "random", "secrets",
    "select", "signal", "socket", "socketserver", "ssl", "subprocess", "threading",
    "time", "urllib.request",
}  # fmt: skip

# Modules over 400 lines: each with the most it may have, and why it is one module.
LINES = 400
LONG: dict[str, tuple[int, str]] = {}
DAG_LINES = 100

_SQL = re.compile(
    r"\b(select\b.+\bfrom|insert\s+into|update\s+\S+\s+set|delete\s+from|"
    r"(create|alter|drop)\s+(table|schema|view|index))\b",
    re.IGNORECASE | re.DOTALL,
)
# Put together from pieces, so that this file does not hold what it looks for.
_PLACES = re.compile(
    r"(?<![\w.~-])/(home|Users|root|work)/\w"
    r"|\b(py" r"pi|pythonhosted|npm" r"js|deb\.debian|crates|ghcr|quay)\.(org|io|com)\b"
    r"|https?://[\w.-]*(artifactory|nexus|devpi)\b"
)  # fmt: skip


@dataclass(frozen=True)
class Module:
    """One Python file: where it is from the project's root, and what it says."""

    path: str
    source: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source, self.path)

    @property
    def parts(self) -> tuple[str, ...]:
        """The dotted name's parts, of files under a source root."""
        inner = PurePosixPath(self.path).parts[1:]
        return tuple(part.removesuffix(".py") for part in inner)

    @property
    def package(self) -> str:
        return self.parts[0] if self.path.startswith(SOURCE_ROOTS) else ""

    @property
    def room(self) -> str:
        return self.parts[1] if len(self.parts) > 1 else ""

    @cached_property
    def imports(self) -> list[str]:
        """What it imports, inside functions too, with the names taken from a package.

        `from airflow.sdk import DAG` counts as `airflow.sdk.DAG`.
        """
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [each.name for each in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = "." * node.level + (node.module or "")
                found += [f"{base}.{each.name}" for each in node.names]
        return [name for name in found if not name.startswith("__future__.")]


Rule = Callable[[Module], Iterator[str]]


def _is(name: str, *packages: str) -> bool:
    """Tell whether a dotted name is one of the packages, or inside of one."""
    return any(name == each or name.startswith(f"{each}.") for each in packages)


def _standard(name: str) -> bool:
    return name.split(".")[0] in sys.stdlib_module_names


# --- the rules ----------------------------------------------------------------------


def core_imports(module: Module) -> Iterator[str]:
    """The core knows itself, the plain standard library, and a library per room."""
    if module.package != CORE:
        return
    for name in module.imports:
        top = name.split(".")[0]
        if top == CORE:
            continue
        if module.room in EDGE:
            if not _standard(name) and not _is(name, *EDGE_LIBRARIES):
                yield f"{module.path} imports {name}"
        elif _standard(name) and not _is(name, *WORLDLY):
            continue
        elif module.room not in ROOMS.get(top, ()):
            yield f"{module.path} imports {name}"


def core_clock(module: Module) -> Iterator[str]:
    """The core is told the time; two rooms may wait, and measure how long."""
    if module.package != CORE or module.room in EDGE:
        return
    for node in ast.walk(module.tree):
        if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
            continue
        match node.value.id, node.attr:
            case ("datetime" | "date", "now" | "utcnow" | "today"):
                pass
            case ("time", used) if used not in ("monotonic", "sleep", "min", "max"):
                pass
            case ("uuid", "uuid1" | "uuid4" | "getnode"):
                pass
            case _:
                continue
        yield f"{module.path}:{node.lineno} asks {node.value.id}.{node.attr}"


def simulator_imports(module: Module) -> Iterator[str]:
    """The local Graph API shares Meta's facts with the sender, and no code."""
    if module.package == SIMULATOR:
        for name in module.imports:
            if not (_standard(name) or _is(name, SIMULATOR, f"{CORE}.spec", "msgspec")):
                yield f"{module.path} imports {name}"


def embassy_imports(module: Module) -> Iterator[str]:
    """Airflow's words come from its SDK; one room has the socket, one the page."""
    if not module.path.startswith("plugins/"):
        return
    page = module.room == "page"
    allowed = {
        "airflow": page,
        "airflow.sdk": module.room not in LINE,
        "airflow.providers.smtp": module.room == "channels",
        "fastapi": page,
        "starlette": page,
        "jinja2": page,
        "requests": module.room in LINE,
        "http.client": module.room in LINE,
        "urllib.request": False,
        "httpx": False,
        "graph_simulator": False,
        "demo": False,
        "tests": False,
    }
    for name in module.imports:
        known = [each for each in allowed if _is(name, each)]
        if known and not allowed[max(known, key=len)]:
            yield f"{module.path} imports {name}"


def dag_files(module: Module) -> Iterator[str]:
    """A DAG file is a page of a table of contents: a manual, imports, one chain."""
    if not module.path.startswith("dags/"):
        return
    if (lines := len(module.source.splitlines())) >= DAG_LINES:
        yield f"{module.path} has {lines} lines"
    if not ast.get_docstring(module.tree):
        yield f"{module.path} has no docstring"
    for name in module.imports:
        if not _is(name, "airflow.sdk", EMBASSY, "datetime"):
            yield f"{module.path} imports {name}"


def length(module: Module) -> Iterator[str]:
    """A long module has two ideas."""
    most, _ = LONG.get(module.path, (LINES, ""))
    if (lines := len(module.source.splitlines())) > most:
        yield f"{module.path} has {lines} lines, more than {most}"


def sql_in_python(module: Module) -> Iterator[str]:
    """SQL is in .sql files; it is never put together from pieces of text."""
    for node in ast.walk(module.tree):
        match node:
            case ast.JoinedStr():
                text = "".join(
                    str(part.value) if isinstance(part, ast.Constant) else " x "
                    for part in node.values
                )
            case ast.Call(
                func=ast.Attribute(value=ast.Constant(value=str(text)), attr=at)
            ):
                if at != "format":
                    continue
            case ast.BinOp(
                left=ast.Constant(value=str(text)), op=ast.Mod() | ast.Add()
            ):
                pass
            case _:
                continue
        if _SQL.search(text):
            yield f"{module.path}:{node.lineno} puts SQL together"


def digests(module: Module) -> Iterator[str]:
    """One table says what is hashed; nothing else hashes for Meta."""
    if module.path == "include/meta_capi/match_keys.py" or module.package == "demo":
        return
    for node in ast.walk(module.tree):
        match node:
            case ast.Attribute(attr="sha256") | ast.Name(id="sha256"):
                yield f"{module.path}:{node.lineno} uses SHA-256"
            case ast.Call(args=[ast.Constant(value="sha256"), *_]):
                yield f"{module.path}:{node.lineno} uses SHA-256"


def prints(module: Module) -> Iterator[str]:
    """Only programs for a terminal print."""
    if module.package == "demo" or module.room in EDGE or module.path[:6] == "tools/":
        return
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(func=ast.Name(id="print" | "pprint")):
                yield f"{module.path}:{node.lineno} prints"


def relative_imports(module: Module) -> Iterator[str]:
    """Imports name the room, so that the rules above can be read from them."""
    for name in module.imports:
        if name.startswith("."):
            yield f"{module.path} imports {name}"


def places(path: str, text: str) -> Iterator[str]:
    """Nothing that we keep knows the machine it was written on."""
    for number, line in enumerate(text.splitlines(), 1):
        if _PLACES.search(line):
            yield f"{path}:{number} names a machine's folder or a registry"


# --- the house ----------------------------------------------------------------------


def files() -> list[str]:
    """Return every file that is, or would be, kept; from the project's root."""
    if shutil.which("git") and (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "-co", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        found = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:  # the project was unpacked from an archive
        top = [each for each in ROOT.iterdir() if not each.name.startswith(".")]
        found = [each for part in top for each in (part, *part.rglob("*"))]
    kept = (
        each for each in found if each.is_file() and "__pycache__" not in each.parts
    )
    return sorted(each.relative_to(ROOT).as_posix() for each in kept)


def modules_of_the_house() -> list[Module]:
    folders = ("dags/", "include/", "plugins/", "tools/")
    paths = [path for path in files() if path.endswith(".py")]
    return [
        Module(path, (ROOT / path).read_text(encoding="utf-8"))
        for path in paths
        if path.startswith(folders)
    ]


def circle(modules: list[Module]) -> list[str]:
    """Return the names of core modules that import each other in a circle."""
    core = {
        ".".join(each.parts).removesuffix(".__init__"): each
        for each in modules
        if each.package == CORE
    }
    graph: dict[str, set[str]] = {}
    for name, module in core.items():
        # Of `from meta_capi.normalise import phones` the longer name is meant.
        meant = (
            each if each in core else each.rpartition(".")[0] for each in module.imports
        )
        # A package is made of its rooms: it may gather them, and they each other.
        graph[name] = {
            each
            for each in meant
            if each in core and each != name and not name.startswith(f"{each}.")
        }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []
