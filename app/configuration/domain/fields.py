"""One business setting as a dataclass field: its default and the bounds of its values."""

from dataclasses import field
from decimal import Decimal
from typing import Any


def setting(default: Any, low: Any = None, high: Any = None) -> Any:
    """A dataclass field: default and the closed interval in which a value may lie."""
    return field(default=default, metadata={"low": low, "high": high})


def between(low: str, high: str) -> dict[str, Decimal]:
    """The metadata of a Decimal setting: the closed interval in which it may lie."""
    return {"low": Decimal(low), "high": Decimal(high)}
