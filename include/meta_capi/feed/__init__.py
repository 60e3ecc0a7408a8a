"""What a feed file may say: one declared stream of conversions.

A feed is YAML, written by a data engineer. Every fault in it is found at once, each
with its file, line and path, and with what to write instead. Nothing here reads a
database.
"""

from meta_capi.feed.file import load, load_all, parse
from meta_capi.feed.model import Feed, json_schema
from meta_capi.feed.parts import Amount, Flag, Limits, MatchKeyPart, Moment, Text

__all__ = [
    "Amount", "Feed", "Flag", "Limits", "MatchKeyPart", "Moment", "Text", "json_schema",
    "load", "load_all", "parse",
]  # fmt: skip
