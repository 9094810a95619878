"""Custom analytics: figures of plug-ins in analytics, report and metrics; isolates their faults."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

import structlog

from app.market.domain.models import Interval
from app.market.domain.panel import Panel
from app.performance.domain.equity_curve import Day
from app.performance.services.equity_reader import EquityHistory
from app.portfolio.domain.models import FULL
from app.portfolio.domain.returns import Figures

_log = structlog.get_logger("analytics")


@dataclass(frozen=True, slots=True)
class AnalyticsMember:
    """Member of the portfolio; weight is a fraction, an unknown score is None."""

    symbol: str
    sector: str
    weight: float
    score: float | None


@dataclass(frozen=True, slots=True)
class AnalyticsInput:
    """Snapshot that custom analytics compute from: the same as for the figures of the service.

    `days` and `figures` are of the requested period; `daily` are daily bars of all symbols.
    """

    at: datetime
    members: tuple[AnalyticsMember, ...]
    days: tuple[Day, ...]
    figures: Figures
    daily: Panel | None


@dataclass(frozen=True, slots=True)
class CustomAnalytics:
    """Plug-in with named figures; each is shown as `NAME.FIGURE`.

    `compute` returns figures by name, None for an unknown one. It runs in a thread. Figures that
    `figures` does not declare are left out.
    """

    name: str
    figures: Sequence[str]
    compute: Callable[[AnalyticsInput], Mapping[str, float | None]]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the figures as they are shown."""
        return tuple(f"{self.name}.{figure}" for figure in self.figures)


def analytics_input(
    history: EquityHistory, since: datetime | None = None, until: datetime | None = None
) -> AnalyticsInput:
    """Returns the snapshot of the equity at or after `since` and before `until`."""
    context = history.context
    return AnalyticsInput(
        at=context.at,
        members=tuple(
            AnalyticsMember(
                one.symbol,
                context.sector(one.symbol),
                one.weight_u / FULL,
                context.score(one.symbol),
            )
            for one in history.portfolio.members
        ),
        days=history.within(since, until),
        figures=history.figures(since, until),
        daily=context.market.panel(Interval.DAY),
    )


def compute_custom_figures(
    plugins: Sequence[CustomAnalytics], given: AnalyticsInput
) -> Mapping[str, float | None]:
    """Returns every declared figure; None where its plug-in fails or gives no finite number."""
    figures: dict[str, float | None] = {}
    for plugin in plugins:
        values = _compute_safely(plugin, given)
        for name, figure in zip(plugin.names, plugin.figures, strict=True):
            figures[name] = _finite(values.get(figure))
    return MappingProxyType(figures)


def _compute_safely(plugin: CustomAnalytics, given: AnalyticsInput) -> Mapping[str, object]:
    try:
        return dict(plugin.compute(given))
    except Exception as error:  # noqa: BLE001  # a plug-in may raise anything
        _log.warning("custom_analytics_failed", plugin=plugin.name, reason=type(error).__name__)
        return {}


def _finite(value: object) -> float | None:
    """The value as a number; None for any other value, also for a boolean."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
