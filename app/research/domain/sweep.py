"""Sweep: a document of values whose combinations are trials."""

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

MAX_TRIALS: Final = 10_000
_KEYS: Final = (
    "history", "venue", "from", "to", "every", "offsets", "seeds", "draws", "costs", "grid",
)  # fmt: skip
_COSTS: Final = ("fee_bp", "spread_bp")
_MIN_DRAWS, _MAX_DRAWS, _MAX_EVERY, _MAX_COST_BP = 200, 10_000, 90, 1000.0


@dataclass(frozen=True, slots=True)
class SweepTrial:
    """One combination: rhythm, seed and the settings that differ from the stored ones."""

    every: int
    offset: int
    seed: int
    changes: tuple[tuple[str, Any], ...]  # dotted key of the setting and its value

    @property
    def label(self) -> str:
        """Values of the settings, the rhythm and the seed on one line."""
        settings = [f"{key}={json.dumps(value)}" for key, value in self.changes]
        rhythm = (f"every={self.every}", f"offset={self.offset}", f"seed={self.seed}")
        return " ".join((*settings, *rhythm))

    def settings(self) -> dict[str, Any]:
        """Returns the changes as a nested document of settings."""
        document: dict[str, Any] = {}
        for key, value in self.changes:
            *sections, name = key.split(".")
            inner = document
            for section in sections:
                inner = inner.setdefault(section, {})
            inner[name] = value
        return document


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """All trials of a document in their order: settings first, then every, offset and seed."""

    history: str  # path as written in the document
    venue: str | None
    first_day: date | None
    last_day: date | None
    fee_bp: float
    half_spread_bp: float
    draws: int
    trials: tuple[SweepTrial, ...]

    @staticmethod
    def of(document: Mapping[str, Any]) -> "SweepPlan":
        """Expands a document. Raises ValueError that names the wrong key."""
        _require_known(document, _KEYS, "")
        history, venue = document.get("history"), document.get("venue")
        if not isinstance(history, str) or not history:
            raise ValueError("history must be the path of a file")
        if venue is not None and not isinstance(venue, str):
            raise ValueError("venue must be a text")
        costs = document.get("costs", {})
        if not isinstance(costs, dict):
            raise ValueError("costs must be a table")  # noqa: TRY004  # a wrong document
        _require_known(costs, _COSTS, "costs.")
        (draws,) = _integers("draws", [document.get("draws", _MIN_DRAWS)], _MIN_DRAWS, _MAX_DRAWS)
        return SweepPlan(
            history,
            venue,
            _day(document, "from"),
            _day(document, "to"),
            _cost(costs, "fee_bp", 6.0),
            _cost(costs, "spread_bp", 4.0),
            draws,
            _expand(document),
        )


def run_hash(parameters: Mapping[str, Any], data_hash: str, code_version: str) -> str:
    """Returns the SHA-256 that names a run: equal inputs of one code version have one hash."""
    whole = {"parameters": parameters, "data_hash": data_hash, "code_version": code_version}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _expand(document: Mapping[str, Any]) -> tuple[SweepTrial, ...]:
    grid = dict(_flat(document.get("grid", {}), "grid"))
    rhythms = _rhythms(document)
    seeds = _integers("seeds", document.get("seeds", [1]), 0, 2**63 - 1)
    count = len(rhythms) * len(seeds)
    for values in grid.values():
        count *= len(values)
    if count > MAX_TRIALS:
        raise ValueError(f"grid gives {count} trials; the most is {MAX_TRIALS}")
    return tuple(
        SweepTrial(every, offset, seed, tuple(zip(grid, values, strict=True)))
        for values in itertools.product(*grid.values())
        for every, offset in rhythms
        for seed in seeds
    )


def _flat(table: Any, path: str) -> list[tuple[str, list[Any]]]:
    """Returns dotted keys and their values; a key is one quoted name or a path of tables."""
    if not isinstance(table, dict):
        raise ValueError(f"{path} must be a table")  # noqa: TRY004  # a wrong document
    found: list[tuple[str, list[Any]]] = []
    for key, values in table.items():
        name = f"{path}.{key}"
        if isinstance(values, dict):
            found += _flat(values, name)
            continue
        if not isinstance(values, list) or not values:
            raise ValueError(f"{name} must be a list of values")
        _require_distinct(name, values)
        found.append((name.removeprefix("grid."), values))
    names = [name for name, _ in found]
    for one in names:
        if names.count(one) > 1 or any(other.startswith(f"{one}.") for other in names):
            raise ValueError(f"grid.{one} is given twice")
    return found


def _rhythms(document: Mapping[str, Any]) -> list[tuple[int, int]]:
    every = _integers("every", document.get("every", [7]), 1, _MAX_EVERY)
    offsets = document.get("offsets", [0])
    if offsets == "all":
        return [(days, offset) for days in every for offset in range(days)]
    chosen = _integers("offsets", offsets, 0, min(every) - 1)
    return list(itertools.product(every, chosen))


def _integers(key: str, values: Any, least: int, most: int) -> list[int]:
    if not isinstance(values, list) or not values:
        raise ValueError(f"{key} must be a list of whole numbers")
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"{key} takes whole numbers from {least} to {most}, not {value!r}")
    _require_distinct(key, values)
    return values


def _require_distinct(key: str, values: list[Any]) -> None:
    texts = [json.dumps(one, default=str, sort_keys=True) for one in values]
    for place, text in enumerate(texts):
        if text in texts[:place]:
            raise ValueError(f"{key} has {text} twice")


def _require_known(table: Mapping[str, Any], known: tuple[str, ...], path: str) -> None:
    for key in table:
        if key not in known:
            raise ValueError(f"{path}{key} is no key of a sweep; known are {', '.join(known)}")


def _day(document: Mapping[str, Any], key: str) -> date | None:
    value = document.get(key)
    if value is None or type(value) is date:
        return value
    raise ValueError(f"{key} must be a day such as 2024-01-31, without quotes")


def _cost(costs: Mapping[str, Any], key: str, default: float) -> float:
    value = costs.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"costs.{key} must be a number of basis points")  # noqa: TRY004  # a wrong document
    if not 0.0 <= value <= _MAX_COST_BP:
        raise ValueError(f"costs.{key} takes 0 to {_MAX_COST_BP:g} basis points, not {value!r}")
    return float(value)
