"""Feed files: YAML in, a feed out, or every fault with its line and what to write."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from meta_capi import spec
from meta_capi.errors import FeedError
from meta_capi.feed.model import Feed, MisfitError

__all__ = ["load", "load_all", "parse"]

_FRIENDLY_KEYS: Final = {
    "email": "em", "phone": "ph", "first_name": "fn", "last_name": "ln",
    "birthday": "db", "date_of_birth": "db", "gender": "ge", "city": "ct",
    "state": "st", "zip": "zp", "postcode": "zp", "postal_code": "zp",
    "click_id": "fbc", "browser_id": "fbp", "ip": "client_ip_address",
}  # fmt: skip

# Of Meta's, those that a feed may have: feed/parts.py refuses the others.
_ACTION_SOURCES: Final = (
    "physical_store, phone_call, chat, email, system_generated or other"
)

# The longest feed that anybody wrote has 4,000; parsing is in pure Python.
_MOST_CHARACTERS: Final = 100_000
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

Keys = tuple[str, ...]
"""Where something stands: the keys that lead to it."""


def load(path: Path) -> Feed:
    """Read one feed file.

    Raises:
        FeedError: with every fault of the file, as `file:line: path: what to write`.
    """
    name = _one_line(path.name)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise FeedError([f"{name}:1: is not UTF-8 text; save it as such"]) from None
    except OSError as error:
        raise FeedError([f"{name}:1: cannot be read: {error.strerror}"]) from None
    feed = parse(text, name=name)
    if feed.feed != path.stem:
        advice = f"is {feed.feed!r}; the file's name says {path.stem!r}"
        raise FeedError([f"{name}:1: feed: {advice}"])
    return feed


def load_all(folder: Path) -> dict[str, Feed]:
    """Read every `*.yaml` of a folder; raise one FeedError with all faults of all."""
    feeds: dict[str, Feed] = {}
    faults: list[str] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            feed = load(path)
        except FeedError as error:
            faults += error.faults
        else:
            feeds[feed.feed] = feed
    if faults:
        raise FeedError(faults)
    return feeds


def parse(text: str, *, name: str = "feed") -> Feed:
    """Read a feed from YAML text; `name` stands in the messages."""
    lines: dict[Keys, int] = {}
    data, faults = _read(text, lines)
    if data is not None:
        try:
            feed = Feed.model_validate(data)
        except ValidationError as error:
            for path, advice in _all_faults(error, data):
                where = ".".join(path) or "feed"
                faults.append((_line(lines, path), f"{where}: {advice}"))
        else:
            if not faults:
                return feed
    ordered = sorted(dict.fromkeys(faults), key=itemgetter(0))
    raise FeedError([f"{name}:{line}: {_one_line(fault)}" for line, fault in ordered])


def _one_line(fault: str) -> str:
    """Write control characters as escapes: a fault is one line of a log."""
    return _CONTROL.sub(lambda sign: repr(sign[0])[1:-1], fault)


def _read(text: str, lines: dict[Keys, int]) -> tuple[Any, list[tuple[int, str]]]:
    """Return the text's content and its faults as YAML; note the line of every path."""
    if len(text) > _MOST_CHARACTERS:
        return None, [
            (1, f"is longer than {_MOST_CHARACTERS:,} characters; no feed is")
        ]
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            return None, [(1, "holds no mapping; start with `feed: <name>`")]
        faults = list(_walk(node, (), lines))
        return loader.construct_document(node), faults
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "holds characters that no text has"
        return None, [(mark.line + 1 if mark else 1, f"is not YAML: {problem}")]
    except RecursionError:
        return None, [(1, "is nested too deeply; a feed has five levels")]


class _Loader(yaml.SafeLoader):
    """YAML as editors read it: version 1.2, where yes, no, on and NO are texts."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ComposerError(
                problem="a reference (*name) is not known here; write it out",
                problem_mark=self.peek_event().start_mark,  # type: ignore[no-untyped-call]  # types-PyYAML
            )
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, TypeError, OverflowError, LookupError, AttributeError):
            # The last two are what `!!int ''` and `!!timestamp x` raise in PyYAML.
            raise ConstructorError(
                problem="this value is no date or number; put it in quotes",
                problem_mark=node.start_mark,
            ) from None


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:bool"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$", re.IGNORECASE), "tTfF"
)


def _walk(
    node: yaml.Node, path: Keys, lines: dict[Keys, int]
) -> Iterator[tuple[int, str]]:
    """Note every path's line; yield what YAML accepts and no feed may hold."""
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode) and not _is_sendable(node.value):
        where = ".".join(path) or "feed"
        yield (
            node.start_mark.line + 1,
            f"{where}: holds NUL or half a surrogate pair; take it out",
        )
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            line = key.start_mark.line + 1
            yield from _walk(key, inner, {})
            if inner in lines:
                yield line, f"{'.'.join(inner)}: stands twice; keep one"
            lines[inner] = line
            yield from _walk(value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _walk(value, (*path, str(index)), lines)


def _is_sendable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= sign <= "\udfff" for sign in text)


def _line(lines: Mapping[Keys, int], path: Keys) -> int:
    """Return the line of a path, or of the nearest thing around it."""
    while path not in lines:
        path = path[:-1]
    return lines[path]


def _all_faults(error: ValidationError, data: Any) -> Iterator[tuple[Keys, str]]:
    """Yield the faults, and those that a second look finds once the first are out.

    pydantic compares parts only when each of them is right. So what is wrong is taken
    out and the rest is asked again; what is then said about its place is no news.
    """
    known: list[Keys] = []
    while True:
        found = list(_faults(error))
        yield from (
            (path, advice)
            for path, advice in found
            if not any(_related(path, other) for other in known)
        )
        known += [path for path, _ in found]
        rest = _without(data, frozenset(known))
        if rest == data:
            return
        data = rest
        try:
            Feed.model_validate(data)
        except ValidationError as again:
            error = again
        else:
            return


def _related(path: Keys, other: Keys) -> bool:
    shorter = min(len(path), len(other))
    return path[:shorter] == other[:shorter]


def _without(data: Any, paths: frozenset[Keys], here: Keys = ()) -> Any:
    """Return the data less what stands at these paths."""
    if not isinstance(data, dict):
        return data
    return {
        key: _without(value, paths, (*here, str(key)))
        for key, value in data.items()
        if (*here, str(key)) not in paths
    }


def _faults(error: ValidationError) -> Iterator[tuple[Keys, str]]:
    for fault in map(dict[str, Any], error.errors(include_url=False)):
        path = tuple(str(part) for part in fault["loc"] if part != "[key]")
        cause = fault.get("ctx", {}).get("error")
        if isinstance(cause, MisfitError):
            yield from cause.faults
        else:
            yield path, _advice(path, fault)


def _advice(path: Keys, fault: Mapping[str, Any]) -> str:
    """Return what is wrong at a path and what to write instead."""
    kind, bounds = fault["type"], fault.get("ctx", {})
    here = path[-1] if path else ""
    if kind == "literal_error" and path[:1] == ("user_data",) and len(path) == 2:
        return f"is not a match key of Meta's; {_match_key_meant(here)}"
    if kind == "enum" and path == ("event", "action_source"):
        return f"{_shown(fault['input'])} is not known; use {_ACTION_SOURCES}"
    match kind:
        case "value_error":
            return str(bounds["error"])
        case "extra_forbidden" | "invalid_key":
            close = _closest(here, _names_at(path[:-1]))
            meant = f"did you mean {close}?" if close else "take it out"
            return f"is not known here; {meant}"
        case "missing":
            return "is missing; add it"
        case "literal_error" | "enum":
            return f"{_shown(fault['input'])} is not known; use {bounds['expected']}"
        case "string_pattern_mismatch":
            form = bounds["pattern"]
            return f"{_shown(fault['input'])} cannot stand here; it must match {form}"
    sentence = _SENTENCES.get(kind)
    return sentence.format(**bounds) if sentence else str(fault["msg"]).lower()


_SENTENCES: Final = {
    "string_type": "needs a text; put it in quotes",
    "int_type": "needs a whole number",
    "int_parsing": "needs a whole number",
    "int_parsing_size": "needs a whole number of reasonable size",
    "int_from_float": "needs a whole number",
    "float_type": "needs a number",
    "float_parsing": "needs a number",
    "list_type": "needs a list, as [a, b]",
    "dict_type": "needs a mapping, as {{key: value}}",
    "model_type": "needs a mapping, as {{key: value}}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "needs at least {min_length} characters",
    "string_too_long": "takes at most {max_length} characters",
    "too_short": "needs at least {min_length} of them",
    "too_long": "takes at most {max_length} of them",
}


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _match_key_meant(name: str) -> str:
    keys = [*spec.DIGESTED_KEYS, *spec.PLAIN_KEYS]
    meant = _FRIENDLY_KEYS.get(name) or _closest(name, keys)
    return f"write {meant}" if meant else f"use one of {', '.join(keys)}"


def _closest(name: str, names: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.6)), None)


def _names_at(path: Keys) -> list[str]:
    """Return the field names a model knows at a path, for suggestions."""
    model: type[BaseModel] | None = Feed
    steps = iter(path)
    for step in steps:
        field = model.model_fields.get(step) if model else None
        if field and get_origin(field.annotation) is dict:
            next(steps, None)  # the mapping's own key
        model = _model_of(field.annotation) if field else None
    return list(model.model_fields) if model else []


def _model_of(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in get_args(annotation):
        if found := _model_of(part):
            return found
    return None
