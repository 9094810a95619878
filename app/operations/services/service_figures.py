"""Figures of portfolio, decisions and storage for health and metrics; slow ones are cached."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final, Generic, TypeVar

from app.foundation.concurrency import SingleFlight
from app.foundation.metrics import Metrics
from app.foundation.ports import Monotonic
from app.foundation.sql.database import Database
from app.performance.domain.equity_curve import find_drawdown
from app.performance.services.equity_reader import EquityQuery, load_equity
from app.portfolio.services.decision_context import DecisionContext, DecisionContextFactory

T = TypeVar("T")
CACHED_S: Final = 60.0  # age up to which a slow figure is served again


@dataclass(frozen=True, slots=True)
class MemberFigures:
    """Weight of a member after price drift, its distance to the target set last, and its score."""

    symbol: str
    weight_u: int
    drift_u: int
    score: float | None


@dataclass(frozen=True, slots=True)
class EquityFigures:
    """Equity index and drawdowns as positive fractions; None, with the reason, if unknown."""

    as_of: datetime
    index: Decimal | None
    drawdown: float | None  # from the highest known value to now
    max_drawdown: float | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class DecisionCount:
    """Number of decisions of one kind since the start; `outcome` is `decided` or a refusal code."""

    kind: str
    outcome: str
    count: int


@dataclass(frozen=True, slots=True)
class ServiceFigures:
    """All figures of one moment; `board_age_s` is that of the newest complete board."""

    members: tuple[MemberFigures, ...]
    board_age_s: float | None
    equity: EquityFigures
    database_bytes: int
    decisions: tuple[DecisionCount, ...]


@dataclass(slots=True)
class CachedFigure(Generic[T]):
    """Value that is loaded again once it is older than `CACHED_S`; callers share one load."""

    load: Callable[[], Awaitable[T]]
    monotonic: Monotonic = time.monotonic
    _cached: tuple[float, T] | None = field(default=None, init=False)
    _flight: SingleFlight[T] = field(default_factory=SingleFlight, init=False)

    async def get(self) -> T:
        """Raises the error of the load, which is tried again by the next call."""
        if not self._is_valid():
            await self._flight(self._load_if_old)
        if self._cached is None:
            raise RuntimeError("a load without an error stores its value")
        return self._cached[1]

    async def _load_if_old(self) -> T:
        if self._cached is None or not self._is_valid():
            self._cached = (self.monotonic(), await self.load())
        return self._cached[1]

    def _is_valid(self) -> bool:
        return self._cached is not None and self.monotonic() - self._cached[0] < CACHED_S


@dataclass(slots=True)
class ServiceFiguresReader:
    """Reads the figures: members and board from memory, equity and storage at most once a minute.

    The cache makes a scrape independent of the length of the history.
    """

    database: Database
    contexts: DecisionContextFactory
    metrics: Metrics
    monotonic: Monotonic = time.monotonic
    _equity: CachedFigure[EquityFigures] = field(init=False)
    _size: CachedFigure[int] = field(init=False)

    def __post_init__(self) -> None:
        self._equity = CachedFigure(self._load_equity, self.monotonic)
        self._size = CachedFigure(self.database.size_bytes, self.monotonic)

    async def read(self) -> ServiceFigures:
        """Returns the figures. Raises UnavailableError."""
        state, context = await self.contexts.present(self.database)
        board = context.complete_board
        return ServiceFigures(
            members=tuple(
                MemberFigures(
                    one.symbol,
                    one.weight_u,
                    one.weight_u - one.target_weight_u,
                    context.score(one.symbol),
                )
                for one in context.at_current_prices(state.portfolio).members
            ),
            board_age_s=None if board is None else _age_s(board.calculated_at, context),
            equity=await self._equity.get(),
            database_bytes=await self._size.get(),
            decisions=self._decisions(),
        )

    async def _load_equity(self) -> EquityFigures:
        async with self.database.read() as unit:
            history = await load_equity(unit, self.contexts, EquityQuery(has_figures=True))
        last = history.days[-1] if history.days else None
        return EquityFigures(
            as_of=history.context.at,
            index=None if last is None else last.equity,
            drawdown=find_drawdown(history.curve, history.earlier),
            max_drawdown=history.figures().max_drawdown,
            reason="the portfolio has had no member" if last is None else last.reason,
        )

    def _decisions(self) -> tuple[DecisionCount, ...]:
        samples = (one for metric in self.metrics.decisions.collect() for one in metric.samples)
        return tuple(
            DecisionCount(one.labels["kind"], one.labels["outcome"], int(one.value))
            for one in sorted(samples, key=lambda one: tuple(one.labels.values()))
            if one.name.endswith("_total")
        )


def _age_s(stamp: datetime, context: DecisionContext) -> float:
    return max(0.0, (context.at - stamp).total_seconds())
