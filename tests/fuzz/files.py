"""Feed files that nobody should write: mutated, hostile, huge, deep."""

from __future__ import annotations

import copy
import re
import time
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, Final

import yaml
from tests.fuzz import feeds
from tests.fuzz.judge import Finding, judge
from tests.fuzz.values import EMPTY, INJECTIONS, NUMBERS, SCRIPTS

from meta_capi.errors import FeedError
from meta_capi.feed import parse

__all__ = ["Verdict", "judge_file"]

# Of this process's time, which a busy machine does not lengthen.
MOST_SECONDS: Final = 3.0
_FAULT: Final = re.compile(r"feed:(\d+): .+", re.DOTALL)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TAGS: Final = (
    "!!int ''", "!!int _", "!!float ''", "!!bool x", "!!timestamp x", "!!binary '='",
    "!!null x", "!!set {a}", "!!omap [a: 1, b]", "!!pairs [a: 1]", "!!str [a]", "!!seq {}",
    "!own x", "!<tag:yaml.org,2002:merge> x", "&a [*a]", "*nobody", "<<", "=", ".nan", ".inf",
    "0o777", "1:59:59", "2026-13-45", "0001-01-01", "9999-12-31T23:59:59-23:59", "9" * 5_000,
    "1e999", "-0", "~", "[]", "{}", "'", '"', "|", ">", "? a", "- a", "%", "@", "`",
    '"\\0"', '"\\ud800"', '"\\x1b[2J"', '"a\\nb: c"', "|\n  a\n  b", "yes", "No", "on", "true",
)  # fmt: skip
_CODE: Final = (
    "!!python/object/apply:os.system ['touch {}']",
    "!!python/object/apply:builtins.open ['{}', 'w']",
    "!!python/object/new:pathlib.Path ['{}']",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/object/apply:subprocess.check_output [['touch', '{}']]",
    "{{% raw %}}{{{{ self.__init__.__globals__ }}}} {}",
    "$(touch {})",
)


class Verdict:
    """Whether a file is a feed, what is wrong with us, and how long it took."""

    def __init__(self) -> None:
        self.is_feed = False
        self.findings: list[Finding] = []
        self.seconds = 0.0


def judge_file(chance: Random, marker: Path) -> Verdict:
    """Read a hostile file. `marker` is what its code would make, were any run."""
    text = _text(chance, marker)
    verdict, start = Verdict(), time.process_time()
    try:
        feed = parse(text)
    except FeedError as error:
        verdict.findings += _faults(error, text)
        feed = None
    except Exception as error:  # the claim is that there is none
        verdict.findings.append(Finding("feed faults only", type(error).__name__))
        return verdict
    verdict.seconds = time.process_time() - start
    if verdict.seconds > MOST_SECONDS:
        verdict.findings.append(Finding("bounded time", f"{verdict.seconds:.1f} s"))
    if marker.exists():
        verdict.findings.append(Finding("no code of a file runs"))
    if feed is not None:
        verdict.is_feed = True
        # What was let in must also build.
        verdict.findings += judge(feed, feeds.rows(feed, chance, 3), chance).findings
    return verdict


def _faults(error: FeedError, text: str) -> list[Finding]:
    lines = len(re.split(r"\r\n|[\r\n\x85\u2028\u2029]", text)) + 1
    for fault in error.faults:
        match = _FAULT.fullmatch(fault)
        if not match or not 1 <= int(match[1]) <= lines:
            return [Finding("a fault has a line")]
        if _CONTROL.search(fault):
            return [Finding("a fault is one line")]
    return [] if error.faults else [Finding("a refused feed has faults")]


def _text(chance: Random, marker: Path) -> str:
    kind = chance.random()
    if kind < 0.02:
        return _large(chance)
    document = feeds.document(chance)
    if kind < 0.55:
        for _ in range(chance.choice((1, 1, 2, 5))):
            _spoil(document, chance)
        return yaml.dump(document, allow_unicode=True, Dumper=_Dumper)
    text = yaml.safe_dump(document, allow_unicode=True, width=1_000)
    if kind < 0.7:
        lines = text.splitlines()
        place = chance.randrange(len(lines))
        key = lines[place].partition(":")[0]
        code = chance.choice(_CODE).format(marker) if chance.random() < 0.3 else ""
        lines[place] = f"{key}: {code or chance.choice(_TAGS)}"
        return "\n".join(lines)
    return _edited(text, chance)


def _edited(text: str, chance: Random) -> str:
    """Return the text with some of its characters or lines moved, lost or doubled."""
    for _ in range(chance.choice((1, 2, 8))):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.choice((0, 1, 3, 40)))
        new = chance.choice((
            "", text[start:end] * 2, chance.choice(INJECTIONS), chance.choice(SCRIPTS),
            chance.choice(":-[]{}&*!|>'\"%@`#,? \t\n"), "\n", "\0", "\ufeff", "\x85", "\n\n---\n",
        ))  # fmt: skip
        text = text[:start] + new + text[end:]
    return text


def _spoil(document: dict[str, Any], chance: Random) -> None:
    """Put something else into one place of a feed, however deep."""
    inner: Any = document
    while True:
        keys = list(inner) if isinstance(inner, dict) else range(len(inner))
        if not keys:
            return
        key = chance.choice(list(keys))
        child = inner[key]
        if not isinstance(child, dict | list) or chance.random() < 0.2:
            break
        inner = child
    fate = chance.random()
    if fate < 0.1:
        del inner[key]
    elif fate < 0.2 and isinstance(inner, dict):
        word = _word(chance)
        inner[word if isinstance(word, str) else "word"] = copy.deepcopy(child)
    elif fate < 0.3:
        inner[key] = chance.choice(
            ([child], {"column": child}, {key: child}, [[]], [child] * 9)
        )
    else:
        inner[key] = _word(chance)


def _word(chance: Random) -> Any:
    word = chance.choice(chance.choice((INJECTIONS, SCRIPTS, NUMBERS, EMPTY, (
        "%d %d", "%Q", "%", "%Y" * 30, "Purchase", "Lead\0", " ", "x" * 5_000, "em", "a.b.c.d",
        "9" * 400, True, [], {}, [None], "timestamp", "UTC", "../x.sql", "5m", "99999999d",
    ))))  # fmt: skip
    # YAML's dumper can write neither of these.
    unwritable = isinstance(word, Decimal) or (
        isinstance(word, int) and word > 10**4_000
    )
    return "1E+5" if unwritable else word


def _large(chance: Random) -> str:
    head = yaml.safe_dump(feeds.document(chance))
    many = chance.choice((500, 3_000, 20_000))
    return head + chance.choice((
        "".join(f"k{n}: 1\n" for n in range(many)), "owner: " + "[" * many,
        "owner: " + "{a: " * many, "owner: " + "x" * 30 * many, "? " * many, "- " * many,
        "".join(f"a{n}: &a{n} [{'*a' + str(n - 1) + ',' if n else ''} x]\n" for n in range(many)),
        'owner: "' + "\\x41" * many + '"', "owner: |\n" + "  x\n" * many, "#" * 30 * many,
        "feed: a\n" * many, "---\n" * many, "&a " * many, "!!str " * many, ", " * many,
        "owner: [" + "{a: [" * min(many, 150), "user_data: {" + "em: a, " * many + "}",
    ))  # fmt: skip


class _Dumper(yaml.SafeDumper):
    """Writes what it does not know as text, so that anything becomes a file."""

    def represent_undefined(self, data: Any) -> yaml.Node:
        return self.represent_str(repr(type(data)))

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(None, _Dumper.represent_undefined)
