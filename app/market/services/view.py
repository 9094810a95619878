"""The market as decisions see it: reads from memory, nothing waits."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from app.foundation.data_status import DataSource, DataStatus
from app.market.domain.models import Book, Contract, Interval, LotChange
from app.market.domain.panel import Panel
from app.market.domain.price_quarantine import Doubt
from app.market.domain.symbols import SymbolEntry


@dataclass(frozen=True, slots=True)
class Quote:
    """One contract now; prices are None where the exchange gave none."""

    contract: Contract
    sector: str
    mark: Decimal | None
    bid: Decimal | None
    ask: Decimal | None
    turnover_24h: Decimal | None
    is_fresh: bool  # contract and ticker are within their age limits
    book: Book | None = None  # within its age limit
    funding_rate: Decimal | None = None  # of the running interval, as a fraction
    doubt: Doubt | None = None  # why its prices are not believed
    is_frozen: bool = False  # nobody trades it while its index moves on
    paused_since: datetime | None = None  # first seen Paused or CancelOnly, while it still is
    lot_changes: tuple[LotChange, ...] = ()  # of its multiplier, oldest first


class MarketView(Protocol):
    """The market in memory; nothing here waits."""

    @property
    def source(self) -> DataSource: ...

    def resolve(self, text: str) -> SymbolEntry:
        """Raises RefusedError (symbol_unknown, symbol_ambiguous)."""
        ...

    def quote(self, symbol: str) -> Quote | None:
        """None for a symbol that was never seen."""
        ...

    def is_halted(self) -> bool:
        """Whether the exchange as a whole is not trading."""
        ...

    def is_clock_safe(self) -> bool:
        """Whether the exchange's time is known well enough to decide by."""
        ...

    def is_filled(self) -> bool:
        """Whether everything that a scoring reads has been asked for since the start."""
        ...

    def panel(self, interval: Interval) -> Panel | None:
        """Closed bars of the symbols that have any; None before the first fill."""
        ...

    def as_of(self) -> datetime | None: ...

    def status(self) -> DataStatus: ...


@dataclass(frozen=True, slots=True)
class MarketOnce:
    """A market that is asked for each quote once: a decision sees one price of a symbol."""

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
