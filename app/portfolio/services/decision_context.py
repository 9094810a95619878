"""Consistent snapshot of scores, market data and settings for one decision."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final, Protocol

import numpy as np

from app.configuration.domain.model import Configuration, CorrelationBasis, CorrelationSettings
from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.data_status import DataStatus
from app.foundation.decimal_math import to_millionths
from app.foundation.errors import Code, RefusedError, ServiceError, UnavailableError
from app.foundation.memoize import ViewCache
from app.foundation.ports import Clock, Monotonic
from app.foundation.sql.database import Database, UnitOfWork
from app.market.domain.data_quality import worst
from app.market.domain.models import DAYS_A_YEAR, PAUSED, ContractKind, ContractStatus, Interval
from app.market.domain.panel import Panel
from app.market.domain.price_quarantine import QUARANTINE_TEXTS
from app.market.domain.return_statistics import correlations
from app.market.domain.sectors import UNCLASSIFIED
from app.market.domain.segments import (
    Redenomination,
    find_crossed_change,
    is_redenomination,
    newest_close,
    redenominations,
    unit_changes,
    unit_changes_of_lots,
)
from app.market.domain.symbols import SymbolEntry
from app.market.services.service_mode import MarketLevel, ModeState
from app.market.services.snapshot import spread
from app.market.services.view import MarketView, QuoteSnapshot
from app.portfolio.domain.candidate_selection import ScoredCandidate
from app.portfolio.domain.controls import FREE, Controls
from app.portfolio.domain.membership import NewMember
from app.portfolio.domain.models import Member, Portfolio
from app.portfolio.domain.rebalance_plan import MemberStatus
from app.portfolio.domain.replacement import Vacancy
from app.portfolio.domain.returns import SinceInclusion, since_inclusion
from app.portfolio.domain.target_weights import drift_weights, read_mark_prices
from app.portfolio.domain.weighting import Covariance, estimate_covariance
from app.portfolio.services.state_cache import PortfolioState, PortfolioStateCache
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import ControlRepository
from app.portfolio.storage.replacements import ReplacementRepository
from app.scoring.domain.board import Board, Card


def _ignore(_: Code) -> None:
    """Default for compositions without a counter."""


class CountedDecision(StrEnum):
    """Kinds of decisions that are counted."""

    INITIALIZE = "initialize"
    ADD = "add"
    REPLACE = "replace"
    REBALANCE = "rebalance"
    REPLACEMENT = "replacement"  # evaluation of the weakest members
    SIGNAL = "signal"
    TRADE = "trade"  # may a symbol be traded, and in which size


DECIDED: Final = "decided"


def _ignore_decision(_: str, __: str) -> None:
    """Default for compositions without a counter."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """Passes the code of each refusal to `note`; a negative decision is no refusal.

    `count` receives every decision with its outcome: `decided`, or the code of its error.
    """

    note: Callable[[Code], None] = _ignore
    count: Callable[[str, str], None] = _ignore_decision

    @contextmanager
    def counted(self, kind: CountedDecision) -> Iterator[None]:
        """Count one decision and its refusal, including its retries."""
        try:
            yield
        except ServiceError as refused:
            self.count(kind, refused.code.value)
            if isinstance(refused, UnavailableError):
                self.note(refused.code)
            raise
        self.count(kind, DECIDED)


# Timestamp and moment of the decision -> proven time between them.
Elapsed = Callable[[datetime, datetime], timedelta]

AGREEMENT: Final = timedelta(seconds=5)  # largest difference of two clocks that agree
CAPACITY: Final = 4_096  # timestamps; far more than pauses, members and seats at one time
_ZERO: Final = timedelta(0)


@dataclass(slots=True)
class ElapsedTime:
    """Proven time since a stored timestamp, independent of wrong or stepping clocks.

    On first use the earlier of the wall clock and the exchange's clock counts. Afterwards the
    monotonic clock counts, so that steps of either clock have no effect. The time of a future
    timestamp begins at first use. Before the exchange's first answer the time is 0.
    """

    monotonic: Monotonic
    exchange: Callable[[], datetime | None]  # its time now; None before its first answer
    _seen: OrderedDict[datetime, tuple[timedelta, float]] = field(
        default_factory=OrderedDict, init=False, repr=False
    )

    def since(self, stamp: datetime, at: datetime) -> timedelta:
        """Proven time from `stamp` to `at`, the wall time of the decision; never negative."""
        exchange, mono = self.exchange(), self.monotonic()
        if exchange is None:
            return _ZERO
        now = at if abs(at - exchange) <= AGREEMENT else min(at, exchange)
        by_clocks = max(_ZERO, now - stamp)
        first, seen = self._seen.setdefault(stamp, (by_clocks, mono))
        self._seen.move_to_end(stamp)
        if len(self._seen) > CAPACITY:
            self._seen.popitem(last=False)
        by_monotonic = first + timedelta(seconds=mono - seen)
        # If both clocks agree the timestamp is exact, and all processes compute the same time.
        return by_clocks if abs(by_clocks - by_monotonic) <= AGREEMENT else by_monotonic


def elapsed_by_wall(stamp: datetime, at: datetime) -> timedelta:
    """Time by the stamps alone, for compositions without an exchange."""
    return at - stamp


def figures(
    member: Member, hourly: Panel | None, daily: Panel | None, mark: float | None
) -> SinceInclusion:
    """Figures since inclusion from hourly closes, or daily ones where hourly history is short.

    Figures are unknown for a member redenominated since then: its entry price has another unit.
    """
    begin = member.included_at.timestamp() * 1000
    reaches = hourly is not None and len(hourly.opened_ms) and hourly.opened_ms[0] <= begin
    panel = hourly if reaches else daily
    closes, bars = np.empty(0), 1.0
    if panel is not None and member.symbol in panel.symbols:
        column = panel.symbols.index(member.symbol)
        first = int(redenominations(panel)[column])
        if first and panel.opened_ms[first] > begin:
            return SinceInclusion(None, None, None)
        # A bar counts if it closed after the inclusion.
        closes = panel.close[panel.opened_ms + panel.interval.ms > begin, column]
        bars = DAYS_A_YEAR * Interval.DAY.ms / panel.interval.ms
    price = member.inclusion_price
    return since_inclusion(None if price is None else float(price), mark, closes, bars)


def pairwise(
    panel: Panel | None, symbols: tuple[str, ...], days: int, rules: CorrelationSettings
) -> dict[tuple[str, str], float]:
    """Known correlations of all pairs in the order of `symbols`; a missing pair is unknown."""
    if panel is None or not symbols:
        return {}
    matrix = correlations(panel, symbols, rules.basis, days, rules.min_common)
    return {
        (one, other): float(matrix[row, column])
        for row, one in enumerate(symbols)
        for column, other in enumerate(symbols)
        if row < column and np.isfinite(matrix[row, column])
    }


DELISTING_MARGIN = timedelta(hours=72)  # a contract that ends sooner may not enter
_FRESH_PERCENT = 80  # share of fresh members needed for a plan
_RETRY_S = 30.0


@dataclass(frozen=True, slots=True)
class DecisionContext:
    """Scores, market data, controls and settings at one moment."""

    at: datetime
    configuration: Configuration
    complete_board: Board | None  # the newest one; provisional boards are not used
    market: MarketView
    has_complete_board: bool  # a complete board was made after the first fill of this process
    mode: ModeState  # of the service, as reported in responses
    # Mark prices when weights were last set, by symbol; drift starts there.
    set_at: Mapping[str, Decimal] = field(default_factory=dict)
    controls: Controls = FREE
    leaving: frozenset[str] = frozenset()  # members whose replacement is confirmed
    elapsed: Elapsed = elapsed_by_wall

    def since(self, stamp: datetime) -> timedelta:
        """Proven time since a stored timestamp; steps of the wall clock do not change it."""
        return self.elapsed(stamp, self.at)

    def proven(self, stamp: datetime) -> datetime:
        """Timestamp that lies the proven time before this moment."""
        return self.at - self.since(stamp)

    def now_after(self, stamp: datetime) -> datetime:
        """This moment for what ends a time after `stamp`: the stamp and the proven time since."""
        return stamp + self.since(stamp)

    def is_seat_given_up(self, vacancy: Vacancy) -> bool:
        """True if the vacancy is older than `replacement.vacancy_max_age_s`."""
        most = timedelta(seconds=self.configuration.replacement.vacancy_max_age_s)
        return self.since(vacancy.vacated_at) > most

    def resolve(self, text: str) -> SymbolEntry:
        """Raises RefusedError: symbol_unknown, symbol_ambiguous."""
        return self.market.resolve(text)

    def card(self, symbol: str) -> Card | None:
        return None if self.complete_board is None else self.complete_board.card(symbol)

    def score(self, symbol: str) -> float | None:
        card = self.card(symbol)
        return None if card is None else card.composite

    def confidence(self, symbol: str) -> float | None:
        card = self.card(symbol)
        return None if card is None or card.confidence is None else card.confidence.level

    @property
    def is_board_fresh(self) -> bool:
        limit = self.configuration.max_age_intervals * self.configuration.intervals.scoring_s
        board = self.complete_board
        return board is not None and board.is_within(timedelta(seconds=limit), self.at)

    @property
    def data_status(self) -> DataStatus:
        """Status of market data, lowered to that of the scores."""
        own = self.market.status()
        if self.complete_board is None or self.is_board_fresh:
            return own
        return worst((own, DataStatus.STALE))

    def is_fresh(self, symbol: str) -> bool:
        quote = self.market.quote(symbol)
        return quote is not None and quote.is_fresh and self.is_board_fresh

    def status_of(self, symbol: str) -> ContractStatus:
        quote = self.market.quote(symbol)
        return ContractStatus.UNKNOWN if quote is None else quote.contract.status

    def is_open(self, symbol: str) -> bool:
        """True unless the contract is known not to be open."""
        return self.market.quote(symbol) is None or self.status_of(symbol) is ContractStatus.OPEN

    def must_leave(self, symbol: str) -> str | None:
        """Reason why the contract must leave the portfolio; None if it may stay or is unknown.

        Reasons are settlement, a closed or missing contract, an announced delisting, or a pause
        longer than `replacement.max_pause_s`.
        """
        quote = self.market.quote(symbol)
        if quote is None:
            return None
        contract = quote.contract
        status, is_open = contract.status, contract.status is ContractStatus.OPEN
        if status not in PAUSED and not is_open and status is not ContractStatus.UNKNOWN:
            return f"the contract is {status.value}"
        announced = contract.kind is ContractKind.PERPETUAL and contract.expires_ms is not None
        if announced or (is_open and not self.is_tradeable(symbol)):
            return "its delisting is announced"
        since, most = (
            quote.paused_since,
            timedelta(seconds=self.configuration.replacement.max_pause_s),
        )
        if status in PAUSED and since is not None and self.since(since) > most:
            return f"the contract is {status.value} since {since:%Y-%m-%d %H:%M} UTC"
        return None

    def is_paused(self, symbol: str) -> bool:
        """True if a temporary trading stop keeps the member in the portfolio."""
        return self.status_of(symbol) in PAUSED and self.must_leave(symbol) is None

    def mark(self, symbol: str) -> Decimal | None:
        """Mark price; None also while its prices are in quarantine."""
        quote = self.market.quote(symbol)
        return None if quote is None or quote.quarantine_reason is not None else quote.mark

    def redenominations(self, symbol: str) -> tuple[Redenomination, ...]:
        """Changes of the price unit, from the bars and a pending one that no bar shows yet.

        Stored changes of the multiplier prove one inside a daily bar without hourly bars, and
        inside an hourly bar before the day has closed.
        """
        hourly, daily = self.market.panel(Interval.HOUR), self.market.panel(Interval.DAY)
        quote = self.market.quote(symbol)
        lots = () if quote is None else quote.lot_changes
        found = (
            *unit_changes(daily, symbol),
            *unit_changes(hourly, symbol),
            *unit_changes_of_lots(daily, symbol, lots),
            *unit_changes_of_lots(hourly, symbol, lots, is_whole=False),
        )
        mark, last = self.mark(symbol), newest_close(hourly, symbol) or newest_close(daily, symbol)
        if mark is None or last is None or not is_redenomination(float(last[1]), float(mark)):
            return found
        return (*found, Redenomination(last[0], max(self.at, last[0]), last[1], mark))

    def doubt(self, symbol: str) -> str | None:
        """Reason why the prices are in quarantine; None if they are not."""
        quote = self.market.quote(symbol)
        return (
            None
            if quote is None or quote.quarantine_reason is None
            else QUARANTINE_TEXTS[quote.quarantine_reason]
        )

    def is_frozen(self, symbol: str) -> bool:
        """True if the contract has no trades while its index moves."""
        quote = self.market.quote(symbol)
        return quote is not None and quote.is_frozen

    def trading_cost(self, symbol: str) -> float | None:
        """Taker fee plus half the spread as a fraction; None if either is unknown or no spread."""
        if (quote := self.market.quote(symbol)) is None or quote.bid is None or quote.ask is None:
            return None
        fee, width = quote.contract.taker_fee, spread(quote.bid, quote.ask)
        limit = to_millionths(self.configuration.quality.max_spread)
        if fee is None or width is None or to_millionths(width / 10_000) > limit:
            return None
        return float(fee + (quote.ask - quote.bid) / (quote.bid + quote.ask))

    def member_status(self, symbol: str) -> MemberStatus:
        card = self.card(symbol)
        return MemberStatus(
            symbol=symbol,
            is_open=self.is_open(symbol),
            is_halted=self.market.is_halted(),
            is_fresh=self.is_fresh(symbol),
            score=self.score(symbol),
            z=None if card is None else card.z,
            volatility=None if card is None else card.volatility,
            trading_cost=self.trading_cost(symbol),
            ban=self.controls.ban(symbol),
            is_pinned=self.controls.is_pinned(symbol),
            is_leaving=symbol in self.leaving,
            doubt=self.doubt(symbol),
            is_ending=self.is_ending(symbol),
            is_frozen=self.is_frozen(symbol),
            is_paused=self.is_paused(symbol),
        )

    def at_current_prices(self, portfolio: Portfolio) -> Portfolio:
        """Portfolio with weights moved by the prices since they were set.

        A weight stays without a fresh mark price in the unit of the previous one.
        """
        now = {
            member.symbol: mark
            for member in portfolio.members
            if self.is_fresh(member.symbol)
            and (mark := self.mark(member.symbol)) is not None
            and not self._is_other_unit(member.symbol, mark)
        }
        return drift_weights(portfolio, self.set_at, now)

    def _is_other_unit(self, symbol: str, mark: Decimal) -> bool:
        """True if the prices show another unit than when weights were set."""
        first = self.set_at.get(symbol)
        return first is not None and any(
            one.is_nearer_after(mark) and not one.is_nearer_after(first)
            for one in self.redenominations(symbol)
        )

    def with_weights_just_set(self) -> "DecisionContext":
        """Context right after weights were set, before any price drift."""
        return replace(self, set_at={})

    def covariance(self, portfolio: Portfolio) -> Covariance | None:
        """Covariance of the members from daily closes; None before the first fill."""
        panel = self.market.panel(Interval.DAY)
        if panel is None:
            return None
        return estimate_covariance(panel, tuple(member.symbol for member in portfolio.members))

    def member_statuses(self, portfolio: Portfolio) -> dict[str, MemberStatus]:
        return {member.symbol: self.member_status(member.symbol) for member in portfolio.members}

    def candidate(self, symbol: str) -> ScoredCandidate:
        return ScoredCandidate(
            symbol=symbol,
            is_tradeable=self.may_enter(symbol),
            is_fresh=self.is_fresh(symbol),
            score=self.score(symbol),
            sector=self.sector(symbol),
        )

    def sector(self, symbol: str) -> str:
        """Sector of a symbol; UNCLASSIFIED also if the market lacks it."""
        quote = self.market.quote(symbol)
        return UNCLASSIFIED if quote is None else quote.sector

    def may_enter(self, symbol: str) -> bool:
        sound = self.doubt(symbol) is None and not self.is_frozen(symbol)
        return sound and self.is_tradeable(symbol) and self.controls.ban(symbol) is None

    def is_tradeable(self, symbol: str) -> bool:
        """True if the contract is Open without an announced delisting."""
        quote = self.market.quote(symbol)
        if quote is None or quote.contract.status is not ContractStatus.OPEN:
            return False
        ends = quote.contract.expires_ms
        now = self.market.as_of() or self.at  # a replay has its own time
        return ends is None or ends / 1000 > (now + DELISTING_MARGIN).timestamp()

    def is_ending(self, symbol: str) -> bool:
        """True if the contract is open with an announced delisting: no new positions."""
        quote = self.market.quote(symbol)
        return quote is not None and self.is_open(symbol) and not self.is_tradeable(symbol)

    def new_member(self, entry: SymbolEntry) -> NewMember:
        return NewMember(
            symbol_id=entry.symbol_id,
            symbol=entry.symbol,
            contract=entry.contract.code,
            price=self.mark(entry.symbol),
            score=self.score(entry.symbol),
            confidence=self.confidence(entry.symbol),
        )

    def require_tradeable(self, symbol: str) -> None:
        """Raises RefusedError(symbol_not_tradable)."""
        if not self.is_tradeable(symbol):
            raise RefusedError(
                Code.SYMBOL_NOT_TRADABLE, f"{symbol} is not open for new positions at KuCoin."
            )
        doubt = "it has no trades" if self.is_frozen(symbol) else self.doubt(symbol)
        if doubt is not None:
            said = f"The data of {symbol} is in quarantine: {doubt}."
            raise RefusedError(Code.SYMBOL_NOT_TRADABLE, said, facts={"reason": doubt})

    def require_board(self) -> Board:
        """Board within its age limit; raises UnavailableError."""
        if self.complete_board is None:
            raise UnavailableError(
                Code.NO_BOARD_YET,
                "There is no complete board yet: scores are provisional while data is loaded.",
                retry_after_s=_RETRY_S,
            )
        if not self.is_board_fresh:
            raise _stale("The last scores are too old to decide on.")
        if not self.has_complete_board:
            raise _stale("These scores are older than the first fill; new ones are on their way.")
        if (refusal := self.mode.refusal) is not None:
            raise refusal
        return self.complete_board

    def has_board_in_force(self) -> bool:
        """True if a complete board is within its age limit."""
        return self.complete_board is not None and self.is_board_fresh and self.has_complete_board

    def require_fresh(self, symbol: str) -> None:
        """Raises UnavailableError(market_data_stale)."""
        if not self.is_fresh(symbol):
            raise _stale(f"The market data of {symbol} is too old to decide on.")

    def require_fresh_members(self, portfolio: Portfolio) -> None:
        """Check that enough members are fresh; raises UnavailableError(market_data_stale).

        A closed contract has no quotes and does not count.
        """
        self.require_board()
        members = [member for member in portfolio.members if self.is_open(member.symbol)]
        fresh = sum(self.is_fresh(member.symbol) for member in members)
        if 100 * fresh < _FRESH_PERCENT * len(members):
            raise _stale(f"Only {fresh} of {len(members)} members have fresh market data.")

    def is_sound(self, portfolio: Portfolio) -> bool:
        """True if weights may be set: the board and enough members are fresh."""
        try:
            self.require_fresh_members(portfolio)
        except UnavailableError:
            return False
        return True

    def correlations(
        self, symbols: tuple[str, ...], days: int, basis: CorrelationBasis | None = None
    ) -> dict[tuple[str, str], float]:
        """Known correlations of all pairs in the order of `symbols`; a missing pair has none.

        Without `basis` that of the settings applies.
        """
        panel, rules = self.market.panel(Interval.DAY), self.configuration.correlation
        rules = rules if basis is None else replace(rules, basis=basis)
        return pairwise(panel, symbols, days, rules)

    def since_inclusion(self, member: Member) -> SinceInclusion:
        """Figures of a member from hourly closes, or daily ones if hourly history is short."""
        hourly, daily = self.market.panel(Interval.HOUR), self.market.panel(Interval.DAY)
        mark = self.mark(member.symbol)
        if self._is_redenominated_since(member, mark, hourly, daily):
            return SinceInclusion(None, None, None)
        return figures(member, hourly, daily, None if mark is None else float(mark))

    def _is_redenominated_since(
        self, member: Member, mark: Decimal | None, hourly: Panel | None, daily: Panel | None
    ) -> bool:
        """Whether the unit of the member's price has changed since its inclusion.

        Without a mark the newest close is its price; without an inclusion price times alone tell.
        """
        changes, first = self.redenominations(member.symbol), member.inclusion_price
        if first is None:
            return any(one.until > member.included_at for one in changes)
        close = newest_close(hourly, member.symbol) or newest_close(daily, member.symbol)
        last = close if mark is None else (self.at, mark)
        return (
            last is not None
            and find_crossed_change(changes, (member.included_at, first), last) is not None
        )


def _stale(detail: str) -> UnavailableError:
    return UnavailableError(Code.MARKET_DATA_STALE, detail, retry_after_s=_RETRY_S)


class BoardView(Protocol):
    """Scores in memory."""

    def latest_complete(self) -> Board | None:
        """The newest complete board; None before the first one."""

    def has_complete_board(self) -> bool:
        """True if a complete board was made after the first fill of this process."""


@dataclass(frozen=True, slots=True)
class DecisionContextFactory:
    """Creates the current decision context."""

    boards: BoardView
    market: MarketView
    clock: Clock
    memory: PortfolioStateCache = field(default_factory=PortfolioStateCache)
    views: ViewCache = field(default_factory=ViewCache)
    mode: Callable[[], ModeState] | None = None  # None: that of this market alone
    refusals: Refusals = field(default_factory=Refusals)
    elapsed: Elapsed = elapsed_by_wall

    def __call__(self, configuration: Configuration) -> DecisionContext:
        board, has_complete_board = self.boards.latest_complete(), self.boards.has_complete_board()
        market = QuoteSnapshot(self.market)
        mode, elapsed = self._mode(), self.elapsed
        return DecisionContext(
            self.clock(), configuration, board, market, has_complete_board, mode, elapsed=elapsed
        )

    def _mode(self) -> ModeState:
        if self.mode is not None:
            return self.mode()
        return ModeState.from_level(
            MarketLevel(self.market.status(), 0, self.market.is_clock_safe())
        )

    async def of(self, unit: UnitOfWork) -> DecisionContext:
        """Context with the settings and weight prices that the transaction reads."""
        context = self(await unit.get(ConfigurationRepository).current())
        leaving = await unit.get(ReplacementRepository).confirmed()
        controls = (await unit.get(ControlRepository).load()).in_force(context.since)
        weighed = await unit.get(HistoryRepository).last_weighting()
        prices = {} if weighed is None else read_mark_prices(weighed.payload)
        return replace(context, set_at=prices, leaving=leaving, controls=controls)

    async def present(self, database: Database) -> tuple[PortfolioState, DecisionContext]:
        """Committed state and its decision context, for reads; raises UnavailableError."""
        state = await self.memory.newest(database)
        context = self(state.configuration)
        controls = state.controls.in_force(context.since)
        return state, replace(
            context,
            set_at=state.set_at,
            leaving=state.revision.leaving,
            controls=state.controls if controls == state.controls else controls,
        )
