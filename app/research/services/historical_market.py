"""Market of a history at the close of one bar, as the live decisions read it."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

import numpy as np

from app.configuration.domain.model import Configuration
from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import Code, RefusedError
from app.market.domain.models import (
    Contract,
    ContractKind,
    ContractStatus,
    Interval,
)
from app.market.domain.panel import Panel
from app.market.domain.sectors import SectorTable
from app.market.domain.symbols import SymbolEntry, formats_of
from app.market.services.service_mode import MarketLevel, ModeState
from app.market.services.snapshot import BARS
from app.market.services.view import Quote
from app.portfolio.services.decision_context import DecisionContext
from app.research.domain.history import CandleHistory, base_of
from app.scoring.domain.board import Board

_BP: Final = Decimal(10_000)
_SETTLED: Final = "USDT"


@dataclass(frozen=True, slots=True)
class TradingCosts:
    """Costs of a trade in basis points of its value; spread and impact are assumptions."""

    fee_bp: float = 6.0
    half_spread_bp: float = 4.0  # includes the impact of an order of usual size

    @property
    def fraction(self) -> float:
        """Cost of one trade as a fraction of its value."""
        return (self.fee_bp + self.half_spread_bp) / 10_000.0


@dataclass(frozen=True, slots=True)
class ListedHistory:
    """Listings of a history as contracts of the exchange."""

    history: CandleHistory
    sectors: SectorTable
    costs: TradingCosts
    entries: dict[str, SymbolEntry] = field(init=False)
    places: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        fee = Decimal(str(self.costs.fee_bp)) / _BP
        entries = {}
        for column, name in enumerate(self.history.symbols):
            contract = _contract(
                name, fee, int(self.history.panel.opened_ms[self.history.first[column]])
            )
            entries[name] = SymbolEntry(name, name, contract, formats_of(contract))
        object.__setattr__(self, "entries", entries)
        object.__setattr__(
            self, "places", {name: place for place, name in enumerate(self.history.symbols)}
        )


def _contract(name: str, fee: Decimal, listed_ms: int) -> Contract:
    """Returns a perpetual with the smallest lot, so that lots limit nothing."""
    return Contract(
        code=name, base=base_of(name), quote=_SETTLED, settle=_SETTLED,
        kind=ContractKind.PERPETUAL, status=ContractStatus.OPEN, is_inverse=False,
        multiplier=Decimal(1), lot_size=1, tick_size=Decimal("0.00000001"), max_order_lots=None,
        max_leverage=None, initial_margin=None, maintenance_margin=None, maker_fee=fee,
        taker_fee=fee, funding_interval_ms=None, listed_ms=listed_ms, expires_ms=None,
        market_stage=None, market_type=None,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class HistoricalMarket:
    """Market at the close of bar `row`: nothing later is visible.

    A listing after its last bar is closed; one without a bar now is not fresh. The spread is the
    assumed one around the close.
    """

    listed: ListedHistory
    row: int
    daily: Panel
    closed_at: datetime
    _quotes: dict[str, Quote | None] = field(default_factory=dict, init=False, compare=False)

    @staticmethod
    def at(listed: ListedHistory, row: int) -> "HistoricalMarket":
        history = listed.history
        return HistoricalMarket(
            listed, row, history.window(row, BARS[Interval.DAY]), history.closed_at(row)
        )

    @property
    def source(self) -> DataSource:
        return DataSource.SANDBOX  # a file on this machine

    def resolve(self, text: str) -> SymbolEntry:
        """Raises RefusedError(symbol_unknown)."""
        entry = self.listed.entries.get(text)
        if entry is None:
            raise RefusedError(Code.SYMBOL_UNKNOWN, f"The history has no listing {text}.")
        return entry

    def quote(self, symbol: str) -> Quote | None:
        if symbol not in self._quotes:
            self._quotes[symbol] = self._create_quote(symbol)
        return self._quotes[symbol]

    def _create_quote(self, symbol: str) -> Quote | None:
        column = self.listed.places.get(symbol)
        history = self.listed.history
        if column is None or history.first[column] > self.row:
            return None
        contract = self.listed.entries[symbol].contract
        if history.last[column] < self.row:
            contract = replace(contract, status=ContractStatus.CLOSED)
        close = float(history.panel.close[self.row, column])
        is_known = bool(np.isfinite(close))
        mark = Decimal(str(close)) if is_known else None
        half = Decimal(str(self.listed.costs.half_spread_bp)) / _BP
        turnover = float(history.panel.turnover[self.row, column])
        return Quote(
            contract=contract,
            sector=self.listed.sectors.classify(contract.base).sector,
            mark=mark,
            bid=None if mark is None else mark * (1 - half),
            ask=None if mark is None else mark * (1 + half),
            turnover_24h=Decimal(str(turnover)) if np.isfinite(turnover) else None,
            is_fresh=is_known,
        )

    def is_halted(self) -> bool:
        return False

    def is_clock_safe(self) -> bool:
        return True

    def is_filled(self) -> bool:
        return True

    def panel(self, interval: Interval) -> Panel | None:
        return self.daily if interval is Interval.DAY else None

    def as_of(self) -> datetime | None:
        return self.closed_at

    def status(self) -> DataStatus:
        return DataStatus.FRESH


def historical_context(
    listed: ListedHistory, row: int, board: Board, configuration: Configuration
) -> DecisionContext:
    """Returns the decision context at the close of `row`; weights are already at its prices."""
    market = HistoricalMarket.at(listed, row)
    mode = ModeState.from_level(MarketLevel(DataStatus.FRESH, 0, True))
    return DecisionContext(
        at=market.closed_at,
        configuration=configuration,
        complete_board=board,
        market=market,
        has_complete_board=True,
        mode=mode,
    )


def daily_settings(configuration: Configuration) -> Configuration:
    """Returns settings for a history of daily candles, with the same decisions.

    Books do not exist, so that a swap costs fee and spread; funding is known for few listings and
    does not count in a swap. A board is in force until the next bar.
    """
    intervals = replace(configuration.intervals, scoring_s=int(Interval.DAY.ms // 1000))
    rules = replace(configuration.replacement, impact_notional=0.0, count_funding=False)
    return replace(configuration, intervals=intervals, replacement=rules)
