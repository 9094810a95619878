"""JSON that is a text already when its row is written: made by a thread, not by the event loop."""

import json
from collections.abc import Iterable
from typing import Any

import msgspec


class ReadyJson(str):
    """Compact JSON, which a column of JSON takes as it is."""

    __slots__ = ()


def strict_json(value: Any) -> str:
    """Compact JSON. Raises ValueError for NaN and Infinity."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def ready_json(value: Any, parts: Iterable[list[Any]], nulls: int) -> ReadyJson:
    """`value` as a text; `parts` and `nulls` say how many of its entries are None.

    The quick encoder writes null for NaN: whoever has more of them than it should goes the strict
    way, which refuses them.
    """
    text = msgspec.json.encode(value).decode()
    if text.count("null") == nulls + sum(part.count(None) for part in parts):
        return ReadyJson(text)
    return ReadyJson(strict_json(value))
