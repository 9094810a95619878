"""Marks that were missing when a change was made, looked up later among the hourly bars.

A bar stands for a moment that it contains or ends at, by its close: that is a price of at most an
hour later, at which a decision of that moment could have been carried out. Prices of other hours
are never put in its place, nor is the close of an hour in which nobody traded, for it is older.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from app.market.domain.models import Interval
from app.performance.domain.equity_curve import EquityStep
from app.portfolio.domain.event_log import PortfolioEvent, instant, instant_text, number_text

INDEX: Final = "index"  # in the payload of a weighing: the equity that its weights are shares of
# Bars of an outage are filled in within hours of its end; what is missing after a week stays so.
PATIENCE: Final = timedelta(days=7)
_HOUR: Final = timedelta(hours=1)
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class MissingMark:
    """A member that nobody knew the mark of at the moment of a change."""

    version: int
    at: datetime
    symbol: str
    symbol_id: str

    @property
    def opened_ms(self) -> int:
        """When the bar opened that contains the moment or ends at it, epoch milliseconds."""
        return (-(-(self.at - _EPOCH) // _HOUR) - 1) * Interval.HOUR.ms


@dataclass(frozen=True, slots=True)
class BackfilledMark:
    """The price that stands for a missed mark: the close of the hourly bar that opened then."""

    version: int
    at: datetime  # of the change
    symbol: str
    price: Decimal
    opened_at: datetime

    @classmethod
    def of(cls, missed: MissingMark, close: float) -> "BackfilledMark":
        opened_at = _EPOCH + timedelta(milliseconds=missed.opened_ms)
        price = Decimal(repr(close))
        return cls(missed.version, missed.at, missed.symbol, price, opened_at)


def missed(changes: Iterable[EquityStep]) -> tuple[MissingMark, ...]:
    """Those that a bar may stand for: a price that was there and not believed is none of them."""
    return tuple(
        MissingMark(step.version, step.at, symbol, symbol_id)
        for step in changes
        for symbol, symbol_id in step.absent.items()
    )


def completed(
    changes: Sequence[EquityStep], found: Iterable[BackfilledMark]
) -> tuple[EquityStep, ...]:
    """The changes with what was found later; a mark that was known then is never another one.

    Of two for the same moment the first stands.
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
    """As a weighing keeps them: with these its equity can be worked out again."""
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


def kept_by(event: PortfolioEvent) -> tuple[BackfilledMark, ...]:
    """The late marks that a weighing was the first to rest on."""
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
    """Since when the equity that a weighing keeps is not known; None where it is.

    None also of a weighing that was stored before that was kept: nothing is looked up for it.
    """
    since = (event.payload.get(INDEX) or {}).get("broken_at")
    return None if since is None else instant(since)


def is_given_up(event: PortfolioEvent) -> bool:
    """Whether a weighing came too long after the break to wait for a bar any more."""
    since = broken_since(event)
    return since is not None and event.occurred_at - since > PATIENCE
