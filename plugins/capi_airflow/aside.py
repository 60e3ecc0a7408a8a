"""What a task does beside its work: a fault in it is a line of the log, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from meta_capi.errors import CapiError

__all__ = ["aside"]


@contextmanager
def aside(log: Any, name: str) -> Iterator[None]:
    """Turn whatever happens into a line of the log, in our own words."""
    try:
        yield
    except CapiError as error:
        log.warning("%s: %s", name, error)
    except Exception as error:
        log.warning("%s: a fault of ours, %s.", name, type(error).__name__)
