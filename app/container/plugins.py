"""Plug-ins by entry points: agents, signal sources, factors, algorithms; faults isolated."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

import numpy as np
import structlog

from app.configuration.domain.sections import Family, Source
from app.market.domain.models import Floats
from app.market.domain.panel import ScoringInputs
from app.scoring.domain.factors import FACTORS, Factor
from app.scoring.domain.plugins import as_factor
from app.signals.domain.agents import AGENTS, Agent
from app.signals.domain.consensus import SOURCE
from app.signals.domain.sources import LONGEST_NAME
from app.signals.services.sources import BUILT_IN, SignalSource

_log = structlog.get_logger("plugins")


def is_sound(factor: Any) -> bool:
    """True if a factor can stand in the table."""
    return (
        isinstance(factor.family, Family)
        and factor.orientation in {-1, 1}
        and isinstance(factor.weight, int | float)
        and 0.0 <= factor.weight <= 1.0
        and bool(factor.sources)
        and all(isinstance(one, Source) for one in factor.sources)
        and callable(factor.measure)
    )


def guarded(factor: Factor) -> Factor:
    """The same; where it fails, or gives no number per symbol, none is known."""

    def measure(inputs: ScoringInputs) -> Floats:
        count = len(inputs.symbols)
        try:
            values = np.asarray(factor.measure(inputs), np.float64)
        except Exception as error:  # noqa: BLE001  # a plug-in may raise anything
            _failed(factor, type(error).__name__)
            return np.full(count, np.nan)
        if values.shape != (count,):
            _failed(factor, f"shape {values.shape}")
            return np.full(count, np.nan)
        return values

    def support(inputs: ScoringInputs) -> Sequence[Mapping[str, Any] | None]:
        nothing: list[Mapping[str, Any] | None] = [None] * len(inputs.symbols)
        if factor.support is None:
            return nothing
        try:
            said = list(factor.support(inputs))
        except Exception as error:  # noqa: BLE001  # as above
            _failed(factor, type(error).__name__)
            return nothing
        return said if len(said) == len(nothing) else nothing

    return replace(factor, measure=measure, support=None if factor.support is None else support)


def _failed(factor: Factor, reason: str) -> None:
    _log.warning("factor_failed", factor=factor.name, reason=reason)


AGENT_GROUP: Final = "my_symbols.signal_agents"  # each names an `Agent`
SOURCE_GROUP: Final = "my_symbols.signal_sources"  # each names a `SignalSource`
FACTOR_GROUP: Final = "my_symbols.factors"  # each names a `Factor`
ALGORITHM_GROUP: Final = "my_symbols.algorithms"  # each names a `ScoringAlgorithm`


def agents() -> tuple[Agent, ...]:
    """Ours and those from outside; who is not sound is left out, with a line in the log.

    Those from outside are asked with a limit of time, whatever they say of themselves.
    """
    found: list[Agent] = []
    for point, loaded in _loaded(AGENT_GROUP):
        taken = {SOURCE, *(one.name for one in (*AGENTS, *found))}
        if isinstance(loaded, Agent) and _is_name(loaded.name, taken):
            found.append(Agent(loaded.name, loaded.needs, loaded.judge, loaded.may_veto, True))
        else:
            _refused(point, "it is no Agent with a name of its own")
    return (*AGENTS, *found)


def sources() -> tuple[SignalSource, ...]:
    """Ours and those from outside; who is not sound is left out, with a line in the log."""
    found: list[SignalSource] = []
    for point, loaded in _loaded(SOURCE_GROUP):
        taken = {one.name for one in (*BUILT_IN, *found)}
        if callable(getattr(loaded, "ideas", None)) and _is_name(
            getattr(loaded, "name", None), taken
        ):
            found.append(loaded)
        else:
            _refused(point, "it is no source with a name of its own")
    return (*BUILT_IN, *found)


def factors() -> tuple[Factor, ...]:
    """The factor table with what packages add to it: factors, and whole algorithms as one each.

    Who is not sound is left out, with a line in the log.
    """
    found: list[Factor] = []
    for group in (FACTOR_GROUP, ALGORITHM_GROUP):
        for point, loaded in _loaded(group):
            taken = {one.name for one in (*FACTORS, *found)}
            try:
                made = loaded if group == FACTOR_GROUP else as_factor(loaded)
            except AttributeError:
                made = None
            if isinstance(made, Factor) and is_sound(made) and _is_name(made.name, taken):
                found.append(guarded(made))
            else:
                _refused(point, "it is no factor or algorithm with a name of its own")
    return (*FACTORS, *found)


def _loaded(group: str) -> Iterable[tuple[EntryPoint, Any]]:
    for point in sorted(entry_points(group=group), key=lambda one: (one.name, one.value)):
        try:
            loaded = point.load()
        except Exception as error:  # noqa: BLE001  # a plug-in may raise anything
            _refused(point, f"it cannot be loaded: {type(error).__name__}")
            continue
        yield point, loaded


def _is_name(name: object, taken: set[str]) -> bool:
    return isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name not in taken


def _refused(point: EntryPoint, reason: str) -> None:
    _log.warning("plugin_refused", group=point.group, name=point.name, reason=reason)
