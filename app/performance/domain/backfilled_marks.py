"""Backfills mark prices that were missing at a change from stored hourly bars.

The substitute is the close of the bar that contains or ends at the moment: a price at most an hour
later, at which the decision could have been executed. Other hours are never used, nor the close of
an hour without trades, which is older.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from app.foundation.hash_chain import instant_text
from app.market.domain.models import Interval
from app.performance.domain.equity_curve import EquityStep
from app.portfolio.domain.event_log import PortfolioEvent, instant, number_text

INDEX: Final = "index"  # key in the payload of a rebalance: the equity behind its weights
# Maximum age of a gap: bars of an outage are backfilled within hours.
MAX_GAP_AGE: Final = timedelta(days=7)
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
    def from_close(cls, missing: MissingMark, close: float) -> "BackfilledMark":
        opened_at = _EPOCH + timedelta(milliseconds=missing.opened_ms)
        price = Decimal(repr(close))
        return cls(missing.version, missing.at, missing.symbol, price, opened_at)


def missing_marks(changes: Iterable[EquityStep]) -> tuple[MissingMark, ...]:
    """Returns missing marks that a bar may replace, without quarantined prices."""
    return tuple(
        MissingMark(step.version, step.at, symbol, symbol_id)
        for step in changes
        for symbol, symbol_id in step.absent.items()
    )


def with_backfilled_marks(
    changes: Sequence[EquityStep], marks: Iterable[BackfilledMark]
) -> tuple[EquityStep, ...]:
    """Returns the steps with backfilled marks; a known mark is never replaced.

    Of two marks for the same moment the first is used.
    """
    prices: dict[int, dict[str, Decimal]] = {}
    for mark in marks:
        prices.setdefault(mark.version, {}).setdefault(mark.symbol, mark.price)
    return tuple(
        _with_marks(step, prices[step.version]) if step.version in prices else step
        for step in changes
    )


def _with_marks(step: EquityStep, prices: Mapping[str, Decimal]) -> EquityStep:
    added = {symbol: price for symbol, price in prices.items() if symbol in step.absent}
    absent = {symbol: key for symbol, key in step.absent.items() if symbol not in added}
    return replace(step, marks={**step.marks, **added}, absent=absent)


def marks_to_payload(marks: Iterable[BackfilledMark]) -> list[dict[str, Any]]:
    """Returns the payload of a rebalance with the backfilled marks behind its equity."""
    return [
        {
            "version": mark.version,
            "at": instant_text(mark.at),
            "symbol": mark.symbol,
            "mark": number_text(mark.price),
            "source": "hourly_bar",
            "opened_at": instant_text(mark.opened_at),
        }
        for mark in marks
    ]


def marks_from_event(event: PortfolioEvent) -> tuple[BackfilledMark, ...]:
    """Returns the backfilled marks that a rebalance was the first to use."""
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


def unknown_since(event: PortfolioEvent) -> datetime | None:
    """Returns the time since which the equity of a rebalance is unknown; None if it is known.

    None also for older rebalances, which do not record the time; then no mark is backfilled.
    """
    since = (event.payload.get(INDEX) or {}).get("broken_at")
    return None if since is None else instant(since)


def is_gap_final(event: PortfolioEvent) -> bool:
    """True if a rebalance is too long after the gap to wait for a bar."""
    since = unknown_since(event)
    return since is not None and event.occurred_at - since > MAX_GAP_AGE
