"""Backfills mark prices that were missing at a change from stored hourly bars.

The close of the bar that contains or ends at the moment is used: a price at most an hour later, at
which the decision could have been executed. Other hours are never used, nor is the close of an
hour without trades, which is older.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from app.market.domain.models import Interval
from app.performance.domain.equity_curve import EquityStep
from app.portfolio.domain.event_log import PortfolioEvent, instant, instant_text, number_text

INDEX: Final = "index"  # key in the payload of a rebalance: the equity behind its weights
# Bars of an outage are backfilled within hours; after a week a gap is final.
PATIENCE: Final = timedelta(days=7)
_HOUR: Final = timedelta(hours=1)
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class MissingMark:
    """Member without a known mark price at a change."""

    version: int
    at: datetime
    symbol: str
    symbol_id: str

    @property
    def opened_ms(self) -> int:
        """Opening time (epoch ms) of the bar that contains the moment or ends at it."""
        return (-(-(self.at - _EPOCH) // _HOUR) - 1) * Interval.HOUR.ms


@dataclass(frozen=True, slots=True)
class BackfilledMark:
    """Substitute of a missing mark: the close of the hourly bar that opened at `opened_at`."""

    version: int
    at: datetime  # of the change
    symbol: str
    price: Decimal
    opened_at: datetime

    @classmethod
    def of(cls, missing: MissingMark, close: float) -> "BackfilledMark":
        opened_at = _EPOCH + timedelta(milliseconds=missing.opened_ms)
        price = Decimal(repr(close))
        return cls(missing.version, missing.at, missing.symbol, price, opened_at)


def missing_marks(changes: Iterable[EquityStep]) -> tuple[MissingMark, ...]:
    """Missing marks that a bar may replace; quarantined prices are not among them."""
    return tuple(
        MissingMark(step.version, step.at, symbol, symbol_id)
        for step in changes
        for symbol, symbol_id in step.absent.items()
    )


def with_backfilled_marks(
    changes: Sequence[EquityStep], found: Iterable[BackfilledMark]
) -> tuple[EquityStep, ...]:
    """Steps with backfilled marks; a known mark is never replaced.

    Of two for the same moment the first is used.
    """
    prices: dict[int, dict[str, Decimal]] = {}
    for one in found:
        prices.setdefault(one.version, {}).setdefault(one.symbol, one.price)
    return tuple(
        _with(step, prices[step.version]) if step.version in prices else step for step in changes
    )


def _with(step: EquityStep, prices: Mapping[str, Decimal]) -> EquityStep:
    late = {symbol: price for symbol, price in prices.items() if symbol in step.absent}
    absent = {symbol: one for symbol, one in step.absent.items() if symbol not in late}
    return replace(step, marks={**step.marks, **late}, absent=absent)


def payload_of(found: Iterable[BackfilledMark]) -> list[dict[str, Any]]:
    """Payload of a rebalance that lists the backfilled marks behind its equity."""
    return [
        {
            "version": one.version,
            "at": instant_text(one.at),
            "symbol": one.symbol,
            "mark": number_text(one.price),
            "source": "hourly_bar",
            "opened_at": instant_text(one.opened_at),
        }
        for one in found
    ]


def backfilled_marks_of(event: PortfolioEvent) -> tuple[BackfilledMark, ...]:
    """Backfilled marks that a rebalance used first."""
    index = event.payload.get(INDEX) or {}
    return tuple(
        BackfilledMark(
            version=one["version"],
            at=instant(one["at"]),
            symbol=one["symbol"],
            price=Decimal(one["mark"]),
            opened_at=instant(one["opened_at"]),
        )
        for one in index.get("late_marks", ())
    )


def broken_since(event: PortfolioEvent) -> datetime | None:
    """Time since which the equity of a rebalance is unknown; None where it is known.

    Older rebalances do not record the time: None, and no mark is looked up.
    """
    since = (event.payload.get(INDEX) or {}).get("broken_at")
    return None if since is None else instant(since)


def is_given_up(event: PortfolioEvent) -> bool:
    """Whether a rebalance came too long after the gap to wait for a bar."""
    since = broken_since(event)
    return since is not None and event.occurred_at - since > PATIENCE
