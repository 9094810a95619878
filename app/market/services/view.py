"""Market as decisions read it: from memory, without waiting."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from math import inf
from typing import Protocol

from app.configuration.domain.sections import Source
from app.foundation.data_status import DataSource, DataStatus
from app.market.domain.models import Book, Contract, Interval, LotChange
from app.market.domain.panel import Panel
from app.market.domain.price_quarantine import QuarantineReason
from app.market.domain.symbols import SymbolEntry
from app.market.services.snapshot import MarketMoment
from app.market.services.symbol_quality import find_quarantine_reason, is_without_trades


@dataclass(frozen=True, slots=True)
class Quote:
    """Contract with its present prices; None where the exchange sent none."""

    contract: Contract
    sector: str
    mark: Decimal | None
    bid: Decimal | None
    ask: Decimal | None
    turnover_24h: Decimal | None
    is_fresh: bool  # contract and ticker are within their age limits
    book: Book | None = None  # within its age limit
    funding_rate: Decimal | None = None  # of the running interval, as a fraction
    quarantine_reason: QuarantineReason | None = None  # reason of a quarantine
    is_frozen: bool = False  # no trades while its index moves
    paused_since: datetime | None = None  # first seen Paused or CancelOnly, while it still is
    lot_changes: tuple[LotChange, ...] = ()  # of its multiplier, oldest first


class MarketView(Protocol):
    """Market in memory; no method waits."""

    @property
    def source(self) -> DataSource: ...

    def resolve(self, text: str) -> SymbolEntry:
        """Raises RefusedError (symbol_unknown, symbol_ambiguous)."""
        ...

    def quote(self, symbol: str) -> Quote | None:
        """Returns None for an unknown symbol."""
        ...

    def is_halted(self) -> bool:
        """True if the exchange as a whole is not trading."""
        ...

    def is_clock_safe(self) -> bool:
        """True if the exchange's time is certain enough for decisions."""
        ...

    def is_filled(self) -> bool:
        """True if everything that scoring reads has been requested since the start."""
        ...

    def panel(self, interval: Interval) -> Panel | None:
        """Returns closed bars of the symbols that have any; None before the first fill."""
        ...

    def as_of(self) -> datetime | None: ...

    def status(self) -> DataStatus: ...


@dataclass(frozen=True, slots=True)
class QuoteSnapshot:
    """Market that reads each quote once, so that a decision sees one price per symbol."""

    market: MarketView
    quotes: dict[str, Quote | None] = field(default_factory=dict)

    @property
    def source(self) -> DataSource:
        return self.market.source

    def resolve(self, text: str) -> SymbolEntry:
        return self.market.resolve(text)

    def quote(self, symbol: str) -> Quote | None:
        if symbol not in self.quotes:
            self.quotes[symbol] = self.market.quote(symbol)
        return self.quotes[symbol]

    def is_halted(self) -> bool:
        return self.market.is_halted()

    def is_clock_safe(self) -> bool:
        return self.market.is_clock_safe()

    def is_filled(self) -> bool:
        return self.market.is_filled()

    def panel(self, interval: Interval) -> Panel | None:
        return self.market.panel(interval)

    def as_of(self) -> datetime | None:
        return self.market.as_of()

    def status(self) -> DataStatus:
        return self.market.status()


@dataclass(frozen=True, slots=True)
class MomentView:
    """Market at one moment under the settings of that moment; what settings leave is `market`'s."""

    market: MarketView
    moment: MarketMoment

    @property
    def source(self) -> DataSource:
        return self.market.source

    def resolve(self, text: str) -> SymbolEntry:
        return self.market.resolve(text)

    def quote(self, symbol: str) -> Quote | None:
        return quote_until(self.moment, symbol)[0]

    def is_halted(self) -> bool:
        return self.market.is_halted()

    def is_clock_safe(self) -> bool:
        return self.market.is_clock_safe()

    def is_filled(self) -> bool:
        return self.market.is_filled()

    def panel(self, interval: Interval) -> Panel | None:
        return self.market.panel(interval)

    def as_of(self) -> datetime | None:
        return self.moment.as_of()

    def status(self) -> DataStatus:
        return self.moment.status()


def quote_until(moment: MarketMoment, symbol: str) -> tuple[Quote | None, float]:
    """Returns contract and prices of a standard symbol, None for an unknown one, and an expiry.

    The expiry is the last monotonic second at which no part that is fresh now has turned stale.
    """
    entry = moment.known.index.find(symbol)
    if entry is None:
        return None, inf
    market, code = moment.market, entry.contract.code
    stats, ticker, book = market.stats.get(code), market.tickers.get(code), market.books.get(code)
    limit_s, rules = moment.age_limit_s, moment.configuration.quality
    expiries = [
        one.mono + limit_s(source)
        for source, one in (
            (Source.CONTRACTS, stats),
            (Source.TICKERS, ticker),
            (Source.BOOKS, book),
        )
        if one is not None and moment.mono - one.mono <= limit_s(source)
    ]
    quote = Quote(
        contract=entry.contract,
        sector=moment.sectors.classify(entry.contract.base).sector,
        mark=None if stats is None else stats.value.mark_price,
        bid=None if ticker is None else ticker.value.bid,
        ask=None if ticker is None else ticker.value.ask,
        turnover_24h=None if stats is None else stats.value.turnover_24h,
        is_fresh=moment.is_fresh(entry),
        book=moment.book(entry),
        funding_rate=None if stats is None else stats.value.funding_rate,
        quarantine_reason=find_quarantine_reason(market, code, rules),
        paused_since=moment.known.record(entry).paused_since,
        lot_changes=moment.known.record(entry).lot_changes,
        is_frozen=is_without_trades(market, entry.contract, moment.server_ms, rules),
    )
    return quote, min(expiries, default=inf)
