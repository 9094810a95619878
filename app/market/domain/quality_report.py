"""Data-quality report of one symbol: verdict, score with its parts, and flags."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

from app.configuration.domain.sections import QualitySettings
from app.foundation.data_status import DataStatus
from app.foundation.decimal_math import to_millionths
from app.market.domain.price_quarantine import (
    QUARANTINE_TEXTS,
    QuarantineReason,
    deviation,
    find_volume_contradiction,
)


class QualityVerdict(StrEnum):
    """Worst known state of a symbol's data."""

    GOOD = "good"
    FLAGGED = "flagged"  # usable; values that need a faulty part are missing
    STALE = "stale"
    QUARANTINED = "quarantined"  # its prices are not trusted
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class SymbolData:
    """Inputs of the quality rules; None is unknown. Ages and limits in seconds, shares 0..1."""

    status: DataStatus  # of contract and ticker together
    age_s: float | None  # of contract or ticker, whichever is nearer to its limit
    age_limit_s: float  # of the same source
    last: Decimal | None
    mark: Decimal | None
    index: Decimal | None
    quarantine_reason: QuarantineReason | None
    is_frozen: bool
    spread: float | None  # of mid; None for a missing, crossed or locked quote
    has_quote: bool  # both sides are present, valid or not
    book_status: DataStatus
    is_book_whole: bool  # both sides, not crossed
    next_funding_ms: int | None
    funding_interval_ms: int | None
    server_ms: int
    daily_coverage: float  # of the bars within the window since the contract's listing
    hourly_coverage: float
    daily_bridged: int = 0  # bars that scoring fills into short gaps, flat and without volume
    hourly_bridged: int = 0
    hourly_gap: int = 0  # most consecutive missing candles
    turnover_24h: Decimal | None = None
    price_deviation: float | None = None  # turnover / volume outside the prices of its time
    volume_jump: float | None = None  # of the newest hour, unexplained by its price range
    has_diverged: bool = False  # streamed and polled quotes contradict each other


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the score: 0 is worthless, 1 faultless; `reason` explains the value."""

    name: str
    value: float
    weight: float
    flag: str | None  # a stable code where something is wrong
    reason: str


@dataclass(frozen=True, slots=True)
class QualityReport:
    """Verdict and parts; `score` is their weighted mean, 0 in quarantine or without data."""

    verdict: QualityVerdict
    score: float
    parts: tuple[Part, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        return tuple(part.flag for part in self.parts if part.flag is not None)


Judged = tuple[float, str | None, str]  # value, flag, reason
LEAST_COVERAGE: Final = 0.95


def _prices(data: SymbolData, rules: QualitySettings) -> Judged:
    if data.quarantine_reason is not None:
        return (
            0.0,
            data.quarantine_reason.value,
            f"In quarantine: {QUARANTINE_TEXTS[data.quarantine_reason]}.",
        )
    pairs = (
        (
            deviation(data.last, data.mark),
            rules.max_last_vs_mark_deviation,
            "last trade and mark price",
        ),
        (
            deviation(data.mark, data.index),
            rules.max_mark_vs_index_deviation,
            "mark price and index",
        ),
    )
    known = [(away / limit, away, pair) for away, limit, pair in pairs if away is not None]
    if not known:
        return 0.0, "prices_unknown", "Last trade, mark price and index are not comparable."
    share, away, pair = max(known)
    reason = f"{pair.capitalize()} are {away:.2%} apart."
    if len(known) < len(pairs):
        return 0.5 * (1.0 - min(share, 1.0)), "index_unknown", f"{reason} The rest is unknown."
    return 1.0 - min(share, 1.0), None, reason


def _age(data: SymbolData, rules: QualitySettings) -> Judged:
    if data.age_s is None:
        return 0.0, "never_seen", "No contract or no ticker was received."
    if data.has_diverged:
        limit = rules.max_quote_divergence
        reason = f"Streamed and polled quotes differ by more than {limit:.2%}."
        return 0.0, "feed_divergence", reason
    reason = (
        "Contract or ticker, whichever is nearer to its limit,"
        f" is {data.age_s:.1f} s old; the limit is {data.age_limit_s:g} s."
    )
    if data.status is DataStatus.FRESH:
        return 1.0, None, reason
    return min(1.0, data.age_limit_s / data.age_s) / 2.0, "stale", reason


def _quote(data: SymbolData, rules: QualitySettings) -> Judged:
    if data.spread is None:
        if data.has_quote:
            return 0.0, "crossed_quote", "Bid and ask are crossed, locked or not positive."
        return 0.0, "no_quote", "Bid or ask is missing."
    reason = f"The spread is {data.spread:.3%} of mid."
    if to_millionths(data.spread) > to_millionths(rules.max_spread):
        return 0.0, "wide_spread", f"{reason} The limit is {rules.max_spread:.1%}."
    return 1.0 - data.spread / rules.max_spread, None, reason


def _trading(data: SymbolData, _: QualitySettings) -> Judged:
    if data.is_frozen:
        return 0.0, "frozen", "There are no trades, while the index moves."
    return 1.0, None, "There are trades, or the index does not move either."


def _book(data: SymbolData, _: QualitySettings) -> Judged:
    if data.book_status is DataStatus.UNAVAILABLE:
        return 0.0, "no_book", "No book was received."
    if not data.is_book_whole:
        return 0.0, "broken_book", "The book is crossed or lacks a side."
    if data.book_status is DataStatus.STALE:
        return 0.0, "stale_book", "The book is too old."
    return 1.0, None, "The book is complete and fresh."


def _funding(data: SymbolData, _: QualitySettings) -> Judged:
    if data.funding_interval_ms is None or data.next_funding_ms is None:
        return 0.0, "funding_unknown", "The next funding or its interval is unknown."
    if is_funding_plausible(data.next_funding_ms, data.funding_interval_ms, data.server_ms):
        return 1.0, None, "The next funding lies within one interval from now."
    return 0.0, "funding_time", "The next funding does not lie within one interval from now."


def _volume(data: SymbolData, rules: QualitySettings) -> Judged:
    quarantine_reason = find_volume_contradiction(data.price_deviation, data.volume_jump, rules)
    if quarantine_reason is not None:
        return 0.0, quarantine_reason.value, f"{QUARANTINE_TEXTS[quarantine_reason].capitalize()}."
    if data.turnover_24h is None:
        return 0.0, "volume_unknown", "The 24-hour turnover is unknown."
    reason = f"The 24-hour turnover is {data.turnover_24h:.0f}."
    if data.turnover_24h < Decimal(repr(rules.min_volume)):
        return 0.0, "thin_volume", f"{reason} Below {rules.min_volume:g} prices are unreliable."
    return 1.0, None, reason


def _hourly(data: SymbolData, rules: QualitySettings) -> Judged:
    share, flag, reason = _coverage(data.hourly_coverage, data.hourly_bridged, "hourly")
    if flag is None and data.hourly_gap > rules.max_gap:
        return share, "hourly_gap", f"{reason} {data.hourly_gap} consecutive ones are missing."
    return share, flag, reason


def _coverage(share: float, bridged: int, what: str) -> Judged:
    reason = f"{share:.1%} of the {what} candles are present."
    if bridged:
        reason += f" {bridged} in short gaps are synthetic: flat and without volume."
    return share, None if share >= LEAST_COVERAGE else f"{what}_gaps", reason


# name, weight, rule; prices and age weigh most: all other parts depend on them.
PARTS: Final[tuple[tuple[str, float, Callable[[SymbolData, QualitySettings], Judged]], ...]] = (
    ("prices", 0.25, _prices),
    ("age", 0.25, _age),
    ("quote", 0.10, _quote),
    ("trading", 0.05, _trading),
    ("volume", 0.05, _volume),
    ("book", 0.10, _book),
    ("funding", 0.05, _funding),
    (
        "daily_candles",
        0.10,
        lambda data, _: _coverage(data.daily_coverage, data.daily_bridged, "daily"),
    ),
    ("hourly_candles", 0.05, _hourly),
)


def report(data: SymbolData, rules: QualitySettings) -> QualityReport:
    """Applies every rule to one symbol."""
    parts = tuple(Part(name, *_split(judge(data, rules), weight)) for name, weight, judge in PARTS)
    verdict = _verdict(data, parts)
    worthless = verdict in {QualityVerdict.QUARANTINED, QualityVerdict.UNAVAILABLE}
    total = sum(part.value * part.weight for part in parts)
    return QualityReport(verdict, 0.0 if worthless else round(total, 6), parts)


def is_funding_plausible(next_ms: int, interval_ms: int, server_ms: int) -> bool:
    """True if the next funding lies in (now, now + interval]."""
    return 0 < next_ms - server_ms <= interval_ms


def _split(judged: Judged, weight: float) -> tuple[float, float, str | None, str]:
    value, flag, reason = judged
    return round(value, 6), weight, flag, reason


def _verdict(data: SymbolData, parts: tuple[Part, ...]) -> QualityVerdict:
    if data.status is DataStatus.UNAVAILABLE:
        return QualityVerdict.UNAVAILABLE
    if data.quarantine_reason is not None:
        return QualityVerdict.QUARANTINED
    if data.status is DataStatus.STALE:
        return QualityVerdict.STALE
    flagged = any(part.flag is not None for part in parts)
    return QualityVerdict.FLAGGED if flagged else QualityVerdict.GOOD
