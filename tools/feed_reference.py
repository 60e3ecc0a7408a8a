"""The feed reference, from the feed's own model: every field, type, default, text."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from meta_capi.feed import Feed, json_schema

Schema = Mapping[str, Any]

_INTRO: Final = """\
# Feeds

Generated from `include/meta_capi/feed/` by `make docs`.

A feed is one YAML file in `include/feeds/`, and becomes one DAG.
The shipped ones are commented line by line; start from a copy of the nearest.
Editors that read `feed.schema.json` complete these words and mark what is wrong.
"""
_NONE: Final = "–"


def feeds() -> str:
    """Return the page."""
    return "\n".join([_INTRO, *_sections()]) + "\n"


def places() -> dict[str, list[str]]:
    """Return where in a feed each part stands: the part's name, then its paths."""
    found: dict[str, list[str]] = {}
    queue = deque([("", json_schema())])
    definitions = json_schema()["$defs"]
    while queue:
        path, schema = queue.popleft()
        for name, field in _object(schema)["properties"].items():
            here = f"{path}.{name}" if path else name
            for part, step in _references(field):
                known = found.setdefault(part, [])
                known.append(here + step)
                if len(known) == 1:
                    queue.append((here + step, definitions[part]))
    return found


def _sections() -> Iterator[str]:
    schema = json_schema()
    yield "## The feed"
    yield from _table(schema, Feed)
    for part, paths in places().items():
        definition, model = schema["$defs"][part], _models()[part]
        if model is None:
            continue
        first, *others = paths
        yield f"## `{first}`"
        yield ""
        yield str(_object(definition)["description"])
        if others:
            yield "The same words: " + ", ".join(f"`{each}`" for each in others) + "."
        if "anyOf" in definition:
            yield "A column's name alone means `{column: name}`."
        yield from _table(definition, model)


def _table(schema: Schema, model: type[BaseModel]) -> Iterator[str]:
    yield from ("", "| field | type | default | meaning |", "| --- | --- | --- | --- |")
    required = _object(schema).get("required", ())
    for name, field in _object(schema)["properties"].items():
        default = "**required**" if name in required else _default(model, name)
        cells = (f"`{name}`", _type(field), default, _meaning(field, model, name))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


def _meaning(field: Schema, model: type[BaseModel], name: str) -> str:
    text = model.model_fields[name].description or str(field.get("description", ""))
    return " ".join(text.split())


def _default(model: type[BaseModel], name: str) -> str:
    default = model.model_fields[name].get_default(call_default_factory=True)
    match default:
        case None | BaseModel():
            return _NONE
        case _ if default is PydanticUndefined or default in ([], {}):
            return _NONE
        case timedelta():
            return f"`{_duration(default)}`"
        case list():
            return "`[" + ", ".join(map(_yaml, default)) + "]`"
    return f"`{_yaml(default)}`"


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _duration(length: timedelta) -> str:
    seconds = int(length.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _type(field: Schema) -> str:
    """Say in words what a field takes."""
    if "$ref" in field:
        return _named(field)
    if "anyOf" in field:
        kinds = [_type(each) for each in field["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in field:
        return " or ".join(f"`{each}`" for each in field["enum"])
    match field.get("type"):
        case "array":
            return f"list of {_type(field['items'])}"
        case "object":
            names = field.get("propertyNames", {}).get("enum")
            keys = ", ".join(f"`{each}`" for each in names) if names else "name"
            return f"mapping: {keys} to {_type(_values(field))}"
        case "string":
            return _text(field)
        case "boolean":
            return "true or false"
        case "integer" | "number" as kind:
            word = "whole number" if kind == "integer" else "number"
            return word + _bounds(field)
    return "text"


def _named(field: Schema) -> str:
    part = field["$ref"].rpartition("/")[2]
    definition = json_schema()["$defs"][part]
    if "enum" in definition:
        return _type(definition)
    anchor = places()[part][0]
    plain = "".join(each for each in anchor.lower() if each.isalnum() or each in "_-")
    link = f"[`{anchor}`](#{plain})"
    return f"column, or {link}" if "anyOf" in definition else link


def _text(field: Schema) -> str:
    if examples := field.get("examples"):
        return "text, as " + ", ".join(f"`{each}`" for each in examples)
    return "date" if field.get("format") == "date" else "text"


def _bounds(field: Schema) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    if low is None and high is None:
        return ""
    if high is None:
        return f", at least {low:,}"
    return f", {low:,} to {high:,}"


def _references(field: Schema) -> Iterator[tuple[str, str]]:
    """Yield the parts that a field refers to, each with the step that leads there."""
    if "$ref" in field:
        yield field["$ref"].rpartition("/")[2], ""
    for each in field.get("anyOf", ()):
        yield from _references(each)
    if inner := _values(field):
        yield from ((part, ".<name>" + step) for part, step in _references(inner))
    if isinstance(inner := field.get("items"), dict):
        yield from _references(inner)


def _values(field: Schema) -> Schema:
    """Return what a mapping's values are; nothing, where the field is no mapping."""
    patterns: Schema = field.get("patternProperties", {})
    values = [field.get("additionalProperties"), *patterns.values()]
    return next((each for each in values if isinstance(each, dict)), {})


def _object(schema: Schema) -> Schema:
    """Return the object's own schema, where a short form stands beside it."""
    if "anyOf" in schema:
        return next(each for each in schema["anyOf"] if "properties" in each)
    return schema if "properties" in schema else {"properties": {}}


def _models() -> dict[str, type[BaseModel] | None]:
    known: dict[str, type[BaseModel] | None] = dict.fromkeys(json_schema()["$defs"])
    base = Feed.__mro__[1]
    return known | {model.__name__: model for model in base.__subclasses__()}
