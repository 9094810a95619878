"""Daily digest: one message a day about portfolio, changes, results, alerts and data quality."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final

from app.alerts.domain.event_texts import enumerate_names, percent_text, summarize_changes
from app.alerts.domain.models import Alert
from app.alerts.domain.notifications import Notification, NotificationKind
from app.configuration.domain.sections import (
    DailyDigestSettings,
    NotificationCategory,
    NotificationPriority,
)
from app.foundation.data_status import DataSource, DataStatus
from app.portfolio.domain.event_log import PortfolioEvent
from app.portfolio.domain.models import Portfolio

DIGEST_PERIOD: Final = timedelta(days=1)
_MAX_LINES: Final = 10  # changes or alerts that the text names


@dataclass(frozen=True, slots=True)
class DayResult:
    """Result of the notional index over the last day; with a `reason` figures are None.

    `contributions` are fractions of the equity at the start, by symbol.
    """

    start_at: datetime | None
    equity: Decimal | None
    change: float | None
    contributions: Mapping[str, float]
    reason: str | None


@dataclass(frozen=True, slots=True)
class MarketQuality:
    """Source, status and numbers of symbols of the market data."""

    source: DataSource
    status: DataStatus
    as_of: datetime | None
    contracts: int
    eligible: int
    stale: int


@dataclass(frozen=True, slots=True)
class BoardQuality:
    """Newest complete board: age in seconds and numbers of symbols."""

    age_s: float
    scored: int
    unavailable: int


@dataclass(frozen=True, slots=True)
class DigestFacts:
    """Content of one digest; `doubts` are reasons to distrust the data of members, by symbol."""

    at: datetime
    portfolio: Portfolio
    max_size: int
    result: DayResult
    changes: Sequence[PortfolioEvent]  # newest first
    alerts: Sequence[Alert]  # open ones, critical first
    market: MarketQuality
    board: BoardQuality | None
    doubts: Mapping[str, str]


def is_digest_day(last: date, at: datetime, settings: DailyDigestSettings) -> bool:
    """True if the digest of the day of `at` is due; `last` is the day of the last one."""
    return settings.enabled and at.hour >= settings.hour and last < at.date()


def day_before_first(at: datetime, settings: DailyDigestSettings) -> date:
    """Day that counts as the last one before any digest: the first comes at the next hour."""
    return at.date() if at.hour >= settings.hour else at.date() - timedelta(days=1)


def daily_digest(
    facts: DigestFacts, priorities: Mapping[NotificationCategory, NotificationPriority]
) -> Notification:
    """Returns the notification of the digest; an unknown part reads `unknown`, with its reason."""
    sections = (
        ("Portfolio", _portfolio(facts)),
        ("Equity", _equity(facts.result)),
        ("Best and worst", _best_and_worst(facts.result)),
        ("Changes", _changes(facts.changes)),
        ("Open alerts", _alerts(facts.alerts)),
        ("Data quality", _quality(facts)),
    )
    body = "\n".join(line for name, lines in sections for line in (f"{name}:", *lines))
    return Notification(
        NotificationKind.STATUS,
        priorities[NotificationCategory.STATUS_UPDATE],
        "daily_digest",
        f"My Symbols: {facts.at:%Y-%m-%d}, {len(facts.portfolio.members)} members,"
        f" {_change_text(facts.result)}",
        body,
    )


def _portfolio(facts: DigestFacts) -> list[str]:
    portfolio = facts.portfolio
    size = f"{len(portfolio.members)} of at most {facts.max_size} members"
    lines = [f"version {portfolio.version}, {size}, cash {percent_text(portfolio.cash_u)}"]
    return lines + [f"{one.symbol} {percent_text(one.weight_u)}" for one in portfolio.members]


def _equity(result: DayResult) -> list[str]:
    if result.equity is None:
        return [_unknown(result.reason)]
    return [f"index {result.equity:.6f}, {_change_text(result)}"]


def _change_text(result: DayResult) -> str:
    if result.change is None or result.start_at is None:
        return "change unknown"
    return f"{result.change:+.2%} since {result.start_at:%Y-%m-%d %H:%M} UTC"


def _best_and_worst(result: DayResult) -> list[str]:
    """Largest and smallest contribution to the equity; ties in alphabetical order."""
    if not result.contributions:
        return [_unknown(result.reason)]
    ranked = sorted(result.contributions.items(), key=lambda one: (-one[1], one[0]))
    (best, gain), (worst, loss) = ranked[0], ranked[-1]
    return [f"best {best} {gain:+.2%} of equity", f"worst {worst} {loss:+.2%} of equity"]


def _changes(changes: Sequence[PortfolioEvent]) -> list[str]:
    return _shortened(
        f"{one.occurred_at:%H:%M} {_summary(one)}: {one.reason}" for one in changes
    ) or ["none"]


def _summary(event: PortfolioEvent) -> str:
    entry = {"type": event.type, "symbol": event.symbol, "other_symbol": event.other_symbol}
    return summarize_changes([entry])


def _alerts(alerts: Sequence[Alert]) -> list[str]:
    return _shortened(
        f"{one.severity.value}: {one.rule.value} ({one.subject})" for one in alerts
    ) or ["none"]


def _quality(facts: DigestFacts) -> list[str]:
    market, board = facts.market, facts.board
    as_of = "unknown" if market.as_of is None else f"{market.as_of:%Y-%m-%d %H:%M} UTC"
    lines = [
        f"market data of {market.source.value} {market.status.value}, as of {as_of}",
        f"{market.contracts} contracts, {market.eligible} eligible, {market.stale} stale",
        "no complete board yet"
        if board is None
        else f"board {board.age_s:.0f} s old, {board.scored} scored,"
        f" {board.unavailable} unavailable",
    ]
    names = [f"{symbol} ({doubt})" for symbol, doubt in sorted(facts.doubts.items())]
    return lines + ([f"doubted members: {enumerate_names(names)}"] if names else [])


def _shortened(lines: Iterable[str]) -> list[str]:
    every = list(lines)
    more = [f"and {len(every) - _MAX_LINES} more"] if len(every) > _MAX_LINES else []
    return every[:_MAX_LINES] + more


def _unknown(reason: str | None) -> str:
    return "unknown" if reason is None else f"unknown: {reason}"
