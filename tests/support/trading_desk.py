"""A trading desk for tests: a real database, a market and a board that the test can move."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

import numpy as np

from app.alerts.services.alert_replay import AlertReplayer
from app.alerts.services.service import AlertRuleService, AlertService
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Family
from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.data_status import DataSource, DataStatus
from app.foundation.decision_log import DecisionInputs
from app.foundation.errors import Code
from app.foundation.idempotency import Command, IdempotentExecutor
from app.foundation.sql.database import Database, UnitOfWork
from app.market.domain.models import STORED, Book, ContractStatus, Interval, Level
from app.market.domain.panel import Panel
from app.market.domain.symbols import SymbolEntry, SymbolIndex
from app.market.services.service_mode import CurrentMode, MarketLevel, ModeState
from app.market.services.view import Quote
from app.market.storage.symbols import SymbolRecord, SymbolRepository
from app.operations.services.configuration import ConfigurationService
from app.operations.services.integrity import IntegrityService
from app.operations.services.preview import ChangePreview
from app.performance.services.analytics import MetricsService, PerformanceAnalytics
from app.performance.services.equity_reader import with_equity_index
from app.performance.services.report import ReportService
from app.performance.services.service import Performance, ValuationSnapshots
from app.portfolio.domain.event_log import Draft, EventOrigin
from app.portfolio.domain.proposals import ProposalKind
from app.portfolio.services.change_recorder import ChangeRecorder, IndexEquity
from app.portfolio.services.controls import ControlService
from app.portfolio.services.decision_context import DecisionContextFactory, ElapsedTime, Refusals
from app.portfolio.services.decision_replay import DecisionReplayer
from app.portfolio.services.membership import PortfolioService
from app.portfolio.services.proposals import ProposalService
from app.portfolio.services.queries import PortfolioQueries
from app.portfolio.services.rebalance_runs import RebalanceRuns
from app.portfolio.services.rebalancing import Rebalancing
from app.portfolio.services.replacement import ReplacementService
from app.scoring.domain.board import Board, Card, CardStatus, Confidence, FactorReading
from app.signals.services.actions import SignalActions, SignalProposalExecutor
from app.signals.services.outcomes import SignalOutcomes
from app.signals.services.service import SignalService
from app.signals.services.sources import SignalSources
from app.signals.services.verdict_replay import VerdictReplayer
from app.trading.services.position_sizing import Trading
from app.trading.services.safety import Safety
from tests.support.portfolios import contract

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAMES = tuple(f"C{number:02}" for number in range(60))
SYMBOLS = tuple(f"{name}USDT" for name in NAMES)
WHO = Command("tester", "request-1")
BARS = 120


def symbol_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def panel(interval: Interval, end: datetime) -> Panel:
    """Independent random walks for C00.., after BTCUSDT, the market."""
    symbols = ("BTCUSDT", *SYMBOLS)
    last = int(end.timestamp() * 1000) // interval.ms * interval.ms - interval.ms
    opened = np.arange(last - (BARS - 1) * interval.ms, last + 1, interval.ms, dtype=np.int64)
    steps = np.random.default_rng(7).normal(0.0, 0.03, (BARS, len(symbols)))
    close = 10.0 * np.exp(np.cumsum(steps, axis=0))
    return Panel(interval, symbols, opened, close, close, close, close, close, close)


def book(code: str, lots: int = 1_000_000) -> Book:
    """One level on each side, `lots` of a tenth of a coin at the best prices."""
    sides = (Level(Decimal("9.99"), lots),), (Level(Decimal("10.01"), lots),)
    return Book(code, 1, *sides, 0)


@dataclass
class Bench:
    """The market in memory, as the test has set it."""

    source: DataSource = DataSource.SANDBOX
    state: DataStatus = DataStatus.FRESH
    halted: bool = False
    filled: bool = True
    clock_safe: bool = True
    quotes: dict[str, Quote] = field(default_factory=dict)
    panels: dict[Interval, Panel] = field(default_factory=dict)
    names: SymbolIndex = field(default_factory=lambda: SymbolIndex.from_contracts(()))
    seen_at: datetime | None = NOW

    def resolve(self, text: str) -> SymbolEntry:
        return self.names.resolve(text)

    def quote(self, symbol: str) -> Quote | None:
        return self.quotes.get(symbol)

    def is_halted(self) -> bool:
        return self.halted

    def is_clock_safe(self) -> bool:
        return self.clock_safe

    def is_filled(self) -> bool:
        return self.filled

    def panel(self, interval: Interval) -> Panel | None:
        return self.panels.get(interval)

    def as_of(self) -> datetime | None:
        return self.seen_at

    def status(self) -> DataStatus:
        return self.state


@dataclass
class Boards:
    board: Board | None = None
    whole: bool = True

    def latest(self) -> Board | None:
        return self.board

    def latest_complete(self) -> Board | None:
        return None if self.board is None or self.board.is_provisional else self.board

    def has_complete_board(self) -> bool:
        return self.whole


def funding(rate: float) -> FactorReading:
    """What longs pay, as an annualised fraction."""
    family = Family.MARKET_STRUCTURE
    return FactorReading("funding_rate", family, rate, "per year", 0.0, 0.1, 0.0, None)


def card(symbol: str, score: float | None, rank: int) -> Card:
    known = score is not None
    return Card(
        symbol=symbol,
        status=CardStatus.SCORED if known else CardStatus.UNAVAILABLE,
        reason=None if known else "not_eligible",
        families={},
        composite=score,
        z=None if score is None else (score - 0.5) * 4.0,
        confidence=Confidence(0.9, 1.0, 1.0, None) if known else None,
        rank=rank if known else None,
        volatility=0.8 if known else None,
        factors=(funding(0.0),) if known else (),
        noise=0.0 if known else None,
    )


async def _no_scoring(_: Configuration) -> Board:
    raise AssertionError("this desk scores nothing")


@dataclass
class Desk:
    """Services over one database, and levers on everything that they look at."""

    database: Database
    market: Bench = field(default_factory=Bench)
    boards: Boards = field(default_factory=Boards)
    now: datetime = NOW  # the true time, which the exchange has
    ahead: timedelta = timedelta(0)  # by which the wall clock of this process is wrong
    process: str = "run"  # begins the ids of its rebalance runs
    mode: CurrentMode | None = None  # None: that of the market alone
    index_equity: IndexEquity = with_equity_index
    refused: list[Code] = field(default_factory=list)  # decisions that could not be made

    def __post_init__(self) -> None:
        numbers, alert_ids = count(1), count(1)
        elapsed = ElapsedTime(self._monotonic, lambda: self.now).since
        context = DecisionContextFactory(
            self.boards,
            self.market,
            lambda: self.wall,
            mode=self._mode,
            refusals=Refusals(self.refused.append),
            elapsed=elapsed,
        )
        idempotency = IdempotentExecutor(self.database, lambda: self.now)
        recorder = ChangeRecorder("test", self._indexed)
        self.portfolio = PortfolioService(self.database, context, idempotency, recorder)
        runs = RebalanceRuns(
            self.database, lambda: self.now, lambda: f"{self.process}-{next(numbers)}", "desk"
        )
        self.rebalancing = Rebalancing(self.database, context, idempotency, recorder, runs)
        self.configuration = ConfigurationService(self.database, context, idempotency, recorder)
        self.change_preview = ChangePreview(
            self.database, context, idempotency, _no_scoring, lambda _: self.market
        )
        self.alerts = AlertService(
            self.database, context, idempotency, lambda: str(UUID(int=next(alert_ids)))
        )
        self.alert_rules = AlertRuleService(self.configuration)
        self.replacement = ReplacementService(
            self.database, context, idempotency, recorder, runs.new_id
        )
        self.proposals = ProposalService(
            self.database,
            lambda: self.wall,
            idempotency,
            self.rebalancing,
            self.portfolio,
            {ProposalKind.SIGNAL: SignalProposalExecutor(self.portfolio, lambda: self.now)},
            elapsed,
        )
        self.performance = Performance(self.database, context, idempotency, recorder)
        self.performance_marks = ValuationSnapshots(self.performance)
        self.queries = PortfolioQueries(self.database, context)
        self.analytics = PerformanceAnalytics(self.database, context)
        self.integrity = IntegrityService(self.database, context)
        self.metrics = MetricsService(self.database, context)
        self.reporting = ReportService(self.performance)
        self.safety = Safety(self.database, context)
        self.controls = ControlService(self.database, context, idempotency, recorder)
        self.trading = Trading(self.database, context)
        self.decision_replay = DecisionReplayer(self.database)
        self.verdict_replay = VerdictReplayer(self.database)
        self.alert_replay = AlertReplayer(self.database)
        self.decision_inputs = DecisionInputs(self.database, lambda: self.now)
        signal_ids = count(1)
        self.signals = SignalService(
            self.database, context, idempotency, lambda: str(UUID(int=next(signal_ids)))
        )
        self.signal_sources = SignalSources(self.signals)
        self.signal_outcomes = SignalOutcomes(self.database, context)
        self.signal_actions = SignalActions(
            self.database, context, self.portfolio, self.signals.new_id
        )

    async def _indexed(
        self, unit: UnitOfWork, drafts: Sequence[Draft], stamp: EventOrigin
    ) -> tuple[Draft, ...]:
        return await self.index_equity(unit, drafts, stamp)

    @property
    def wall(self) -> datetime:
        """What the wall clock of this process says."""
        return self.now + self.ahead

    def _monotonic(self) -> float:
        return (self.now - NOW).total_seconds()

    def _mode(self) -> ModeState:
        if self.mode is not None:
            return self.mode.state()
        return ModeState.from_level(
            MarketLevel(self.market.status(), 0, self.market.is_clock_safe())
        )

    async def open(self) -> "Desk":
        """Sixty listed contracts, fresh quotes, scores falling from 0.99 by 0.015."""
        listed = [
            contract(code=f"{name}USDTM", base=name, multiplier=Decimal("0.1")) for name in NAMES
        ]
        ids = [symbol_id(number) for number in range(len(listed))]
        self.market.names = SymbolIndex.from_contracts(zip(ids, listed, strict=True))
        records = [
            SymbolRecord(ids[at], SYMBOLS[at], one, "layer-1", "large", NOW, NOW, None)
            for at, one in enumerate(listed)
        ]
        async with self.database.write() as unit:
            await unit.get(SymbolRepository).save(records, NOW)
            await unit.get(ConfigurationRepository).get_or_create(NOW, "test")
        for symbol, one in zip(SYMBOLS, listed, strict=True):
            self.market.quotes[symbol] = Quote(
                contract=one,
                sector=f"sector of {symbol}",
                mark=Decimal("10.0"),
                bid=Decimal("9.99"),
                ask=Decimal("10.01"),
                turnover_24h=Decimal(50_000_000),
                is_fresh=True,
                book=book(one.code),
            )
        for interval in STORED:
            self.market.panels[interval] = panel(interval, self.now)
        self.score({})
        return self

    def score(self, changed: Mapping[str, float | None]) -> None:
        """A new board: the usual scores with some of them changed."""
        scores: dict[str, float | None] = {
            symbol: 0.99 - 0.015 * place for place, symbol in enumerate(SYMBOLS)
        }
        scores |= changed
        order = sorted(scores, key=lambda name: (scores[name] is None, -(scores[name] or 0.0)))
        self.boards.board = Board(
            run_id="board-1",
            algorithm="composite",
            algorithm_version=1,
            configuration_version=1,
            as_of=self.now,
            calculated_at=self.wall,
            duration_ms=1.0,
            data_source=DataSource.SANDBOX,
            input_hash="input-hash",
            universe_size=len(order),
            coverage={},
            cards=tuple(card(name, scores[name], at) for at, name in enumerate(order, start=1)),
        )

    def quote(self, symbol: str, **changed: Any) -> None:
        self.market.quotes[symbol] = replace(self.market.quotes[symbol], **changed)

    def status(self, symbol: str, status: ContractStatus) -> None:
        one = self.market.quotes[symbol].contract
        self.quote(symbol, contract=replace(one, status=status))

    def stale(self, *symbols: str) -> None:
        for symbol in symbols:
            self.quote(symbol, is_fresh=False)

    def later(self, **passed: float) -> None:
        self.now += timedelta(**passed)

    async def filled(self, size: int = 10) -> "Desk":
        """Opened, with the best `size` as members."""
        await self.open()
        await self.portfolio.initialize(size, "start", WHO)
        return self

    async def members(self) -> list[str]:
        view = await self.portfolio.view()
        return [one.member.symbol for one in view.members]


def settings(**changed: Any) -> Configuration:
    return replace(Configuration(), **changed)
