"""Plug-ins from entry points: agents, sources, factors, algorithms, analytics; isolates faults."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

import numpy as np
import structlog

from app.configuration.domain.sections import Family, Source
from app.market.domain.models import Floats
from app.market.domain.panel import ScoringInputs
from app.performance.services.custom_figures import CustomAnalytics
from app.scoring.domain.factors import FACTORS, Factor
from app.scoring.domain.plugins import to_factor
from app.signals.domain.agents import AGENTS, Agent
from app.signals.domain.consensus import SOURCE
from app.signals.domain.sources import MAX_NAME_LENGTH
from app.signals.services.sources import BUILT_IN, SignalSource

_log = structlog.get_logger("plugins")


def is_valid_factor(factor: Any) -> bool:
    """Returns True if the fields of a factor are valid for the factor table."""
    return (
        isinstance(factor.family, Family)
        and factor.orientation in {-1, 1}
        and isinstance(factor.weight, int | float)
        and 0.0 <= factor.weight <= 1.0
        and bool(factor.sources)
        and all(isinstance(one, Source) for one in factor.sources)
        and callable(factor.measure)
    )


def isolate_faults(factor: Factor) -> Factor:
    """Returns the factor; where it raises or returns a wrong shape, all its values are NaN."""

    def measure(inputs: ScoringInputs) -> Floats:
        count = len(inputs.symbols)
        try:
            values = np.asarray(factor.measure(inputs), np.float64)
        except Exception as error:  # noqa: BLE001  # a plug-in may raise anything
            _log_failure(factor, type(error).__name__)
            return np.full(count, np.nan)
        if values.shape != (count,):
            _log_failure(factor, f"shape {values.shape}")
            return np.full(count, np.nan)
        return values

    def support(inputs: ScoringInputs) -> Sequence[Mapping[str, Any] | None]:
        nothing: list[Mapping[str, Any] | None] = [None] * len(inputs.symbols)
        if factor.support is None:
            return nothing
        try:
            rows = list(factor.support(inputs))
        except Exception as error:  # noqa: BLE001  # as above
            _log_failure(factor, type(error).__name__)
            return nothing
        return rows if len(rows) == len(nothing) else nothing

    return replace(factor, measure=measure, support=None if factor.support is None else support)


def _log_failure(factor: Factor, reason: str) -> None:
    _log.warning("factor_failed", factor=factor.name, reason=reason)


AGENT_GROUP: Final = "my_symbols.signal_agents"  # entry points to an `Agent`
SOURCE_GROUP: Final = "my_symbols.signal_sources"  # entry points to a `SignalSource`
FACTOR_GROUP: Final = "my_symbols.factors"  # entry points to a `Factor`
ALGORITHM_GROUP: Final = "my_symbols.algorithms"  # entry points to a `ScoringAlgorithm`

ANALYTICS_GROUP: Final = "my_symbols.analytics"  # entry points to a `CustomAnalytics`
_FIGURE: Final = re.compile(r"[a-z][a-z0-9_]*")
_MAX_FIGURES: Final = 32  # of one plug-in; each is a time series of the metrics


def agents() -> tuple[Agent, ...]:
    """Returns the built-in agents and valid plug-ins; an invalid plug-in is logged and skipped.

    Plug-in agents always run with a time limit, whatever they declare.
    """
    plugins: list[Agent] = []
    for point, loaded in _load_entry_points(AGENT_GROUP):
        taken = {SOURCE, *(one.name for one in (*AGENTS, *plugins))}
        if isinstance(loaded, Agent) and _is_name(loaded.name, taken):
            plugins.append(Agent(loaded.name, loaded.needs, loaded.estimate, loaded.may_veto, True))
        else:
            _log_rejection(point, "it is no Agent with a unique name")
    return (*AGENTS, *plugins)


def sources() -> tuple[SignalSource, ...]:
    """Returns the built-in sources and valid plug-ins; an invalid plug-in is logged and skipped."""
    plugins: list[SignalSource] = []
    for point, loaded in _load_entry_points(SOURCE_GROUP):
        taken = {one.name for one in (*BUILT_IN, *plugins)}
        if callable(getattr(loaded, "generate", None)) and _is_name(
            getattr(loaded, "name", None), taken
        ):
            plugins.append(loaded)
        else:
            _log_rejection(point, "it is no source with a unique name")
    return (*BUILT_IN, *plugins)


def factors() -> tuple[Factor, ...]:
    """Returns the factor table with valid plug-in factors, and each plug-in algorithm as a factor.

    An invalid plug-in is logged and skipped.
    """
    plugins: list[Factor] = []
    for group in (FACTOR_GROUP, ALGORITHM_GROUP):
        for point, loaded in _load_entry_points(group):
            taken = {one.name for one in (*FACTORS, *plugins)}
            try:
                factor = loaded if group == FACTOR_GROUP else to_factor(loaded)
            except AttributeError:
                factor = None
            if (
                isinstance(factor, Factor)
                and is_valid_factor(factor)
                and _is_name(factor.name, taken)
            ):
                plugins.append(isolate_faults(factor))
            else:
                _log_rejection(point, "it is no factor or algorithm with a unique name")
    return (*FACTORS, *plugins)


def analytics() -> tuple[CustomAnalytics, ...]:
    """Returns the valid plug-ins of analytics; an invalid one is logged and skipped."""
    plugins: list[CustomAnalytics] = []
    for point, loaded in _load_entry_points(ANALYTICS_GROUP):
        taken = {one.name for one in plugins}
        if isinstance(loaded, CustomAnalytics) and _are_valid_figures(loaded, taken):
            plugins.append(loaded)
        else:
            _log_rejection(point, "it is no CustomAnalytics with a unique name and named figures")
    return tuple(plugins)


def _are_valid_figures(loaded: Any, taken: set[str]) -> bool:
    figures = loaded.figures
    return (
        callable(loaded.compute)
        and isinstance(figures, list | tuple)
        and 0 < len(figures) <= _MAX_FIGURES
        and len(set(figures)) == len(figures)
        and loaded.name not in taken
        and all(
            isinstance(one, str) and len(one) <= MAX_NAME_LENGTH and _FIGURE.fullmatch(one)
            for one in (loaded.name, *figures)
        )
    )


def _load_entry_points(group: str) -> Iterable[tuple[EntryPoint, Any]]:
    for point in sorted(entry_points(group=group), key=lambda one: (one.name, one.value)):
        try:
            loaded = point.load()
        except Exception as error:  # noqa: BLE001  # a plug-in may raise anything
            _log_rejection(point, f"it cannot be loaded: {type(error).__name__}")
            continue
        yield point, loaded


def _is_name(name: object, taken: set[str]) -> bool:
    return isinstance(name, str) and 0 < len(name) <= MAX_NAME_LENGTH and name not in taken


def _log_rejection(point: EntryPoint, reason: str) -> None:
    _log.warning("plugin_refused", group=point.group, name=point.name, reason=reason)
