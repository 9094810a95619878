"""May it be traded, and how much: answers for the trading engine, each with its reasons."""

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from app.foundation.decimal_math import to_millionths
from app.foundation.errors import Code
from app.foundation.memoize import Basis
from app.foundation.sql.database import Database
from app.market.domain.liquidity import depth_shown
from app.market.domain.models import DataSource, DataStatus, Interval
from app.market.domain.symbols import specification_of
from app.market.services.quotes import spread
from app.market.services.view import Quote
from app.portfolio.domain.models import FULL, Portfolio
from app.portfolio.domain.rebalance_plan import may_trade
from app.portfolio.domain.risk import value_at_risk
from app.portfolio.domain.target_weights import volatility
from app.portfolio.services.decision_context import Grounds, GroundsNow
from app.portfolio.services.lot_plan import lot_plan
from app.portfolio.services.state_cache import Committed
from app.portfolio.services.view_cache import held_basis
from app.trading.domain.position_sizing import (
    Conditions,
    Limits,
    Order,
    PositionSize,
    TrackRecord,
    nothing,
    size,
)

SWITCH, BAN, MEMBER, OPEN, ENDING, MARKET, CLOCK, MODE, FRESH, QUALITY, SCORE, SPECIFICATION = (
    "trading_switch",
    "not_banned",
    "member",
    "contract_open",
    "no_delisting",
    "market_open",
    "clock_known",
    "service_decides",
    "data_fresh",
    "data_quality",
    "score",
    "specification",
)


@dataclass(frozen=True, slots=True)
class Check:
    """One condition; `value` and `limit` where it is a number."""

    name: str
    passed: bool
    value: float | None
    limit: float | None
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is the detail of the first check that failed, or why it may be traded."""

    symbol: str
    trade: bool
    reason: str
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class DataFacts:
    """How old the market data is and who said it."""

    as_of: datetime | None
    data_source: DataSource
    data_status: DataStatus


@dataclass(frozen=True, slots=True)
class Tradeable:
    symbol: str
    contract: str
    weight_u: int
    score: float


@dataclass(frozen=True, slots=True)
class SizedPosition:
    symbol: str
    contract: str
    specification: str  # that the lots were counted by
    price: Decimal | None
    weight_u: int
    size: PositionSize


def facts_of(grounds: Grounds) -> DataFacts:
    market = grounds.market
    return DataFacts(market.as_of(), market.source, grounds.data_status)


def judge(
    symbol: str, portfolio: Portfolio, grounds: Grounds, counted_by: str | None = None
) -> Verdict:
    """Every condition for trading a symbol, in the order in which they are told.

    `counted_by` names the specification of lots that wait to be ordered; None: there are none.
    Hysteresis: a member with a target weight stays tradable down to the leave threshold, one
    without needs the enter threshold. That memory moves only with committed changes.
    """
    member = portfolio.member(symbol)
    score = grounds.score(symbol)
    settings = grounds.configuration
    traded = member is not None and member.target_weight_u > 0
    limit = settings.leave_score if traded else settings.enter_score
    enough = member is not None and score is not None and may_trade(score, member, settings)
    halted, clock = grounds.market.is_halted(), grounds.market.is_clock_safe()
    is_open, fresh = grounds.is_open(symbol), grounds.is_fresh(symbol)
    ending = grounds.is_ending(symbol)
    refusal = grounds.mode.refusal
    known = "has no score" if score is None else f"scores {score:.4f}"
    switch, ban = grounds.controls.switch, grounds.controls.ban(symbol)
    off = (
        "trading is switched on" if switch.enabled else f"trading is switched off: {switch.reason}"
    )
    checks = (
        Check(SWITCH, switch.enabled, None, None, off),
        Check(
            BAN, ban is None, None, None, "it is not banned" if ban is None else f"banned: {ban}"
        ),
        Check(MEMBER, member is not None, None, None, _say(member is not None, "a member")),
        Check(OPEN, is_open, None, None, f"the contract is {grounds.status_of(symbol).value}"),
        Check(ENDING, not ending, None, None, _end(ending)),
        Check(MARKET, not halted, None, None, _say(not halted, "traded at the exchange")),
        Check(CLOCK, clock, None, None, f"the exchange's time is {'' if clock else 'not '}known"),
        Check(MODE, refusal is None, None, None, _decides(grounds)),
        Check(FRESH, fresh, None, None, f"the market data is {'fresh' if fresh else 'stale'}"),
        _quality(symbol, grounds),
        Check(SCORE, enough, score, limit, f"it {known}, {limit:g} is needed"),
        *(() if counted_by is None else (_specification(symbol, grounds, counted_by),)),
    )
    failed = next((check for check in checks if not check.passed), None)
    reason = "all checks passed" if failed is None else failed.detail
    return Verdict(symbol, failed is None, reason, checks)


def _decides(grounds: Grounds) -> str:
    """Whether the mode lets anything be decided."""
    refusal = grounds.mode.refusal
    said = f"the mode is {grounds.mode.mode.value}"
    return said if refusal is None else f"{said}: {refusal.detail}"


def refused_by(verdict: Verdict, grounds: Grounds) -> Code | None:
    """The code of the refusal where nothing could be decided; None for a decision."""
    failed = next((check.name for check in verdict.checks if not check.passed), None)
    if failed not in {CLOCK, MODE, FRESH}:
        return None
    refusal = grounds.mode.refusal
    return Code.MARKET_DATA_STALE if refusal is None else refusal.code


def _specification(symbol: str, grounds: Grounds, counted_by: str) -> Check:
    """Whether a lot is still what it was when lots were counted: else they are void."""
    quote = grounds.market.quote(symbol)
    is_same = quote is not None and specification_of(quote.contract) == counted_by
    said = "the contract is as it was" if is_same else "the contract is specified otherwise by now"
    return Check(SPECIFICATION, is_same, None, None, f"{said} when the lots were counted")


def _quality(symbol: str, grounds: Grounds) -> Check:
    """Whether prices and quote are believed; an order needs a quote that makes sense."""
    doubt, quote = grounds.doubt(symbol), grounds.market.quote(symbol)
    if doubt is not None:
        return Check(QUALITY, False, None, None, f"its prices are in quarantine: {doubt}")
    if grounds.is_frozen(symbol):
        return Check(QUALITY, False, None, None, "nobody trades it while its index moves on")
    limit = grounds.configuration.quality.max_spread
    width = None if quote is None else spread(quote.bid, quote.ask)
    if width is None:
        return Check(QUALITY, False, None, limit, "it has no quote with a bid below its ask")
    share = width / 10_000
    said = f"the spread is {share:.3%} of mid, {limit:.1%} may be"
    return Check(QUALITY, to_millionths(share) <= to_millionths(limit), share, limit, said)


def _end(is_near: bool) -> str:
    return "its delisting is near" if is_near else "no delisting is near"


def _say(holds: bool, what: str) -> str:
    return f"it is {what}" if holds else f"it is not {what}"


@dataclass(frozen=True, slots=True)
class Trading:
    """Reads for the trading engine."""

    database: Database
    grounds: GroundsNow

    async def tradeable(self) -> tuple[tuple[Tradeable, ...], DataFacts]:
        """Members that may be traded now, by rank."""
        state, grounds = await self.grounds.present(self.database)
        found = self.grounds.views.of(
            "tradeable", held_basis(state, grounds), lambda: _tradeable(state.portfolio, grounds)
        )
        return found, facts_of(grounds)

    async def should_trade(
        self, text: str, counted_by: str | None = None
    ) -> tuple[Verdict, DataFacts]:
        """`counted_by` as in `judge`. Raises RefusedError for a symbol that is not known."""
        portfolio, grounds = await self._load()
        symbol = grounds.resolve(text).symbol
        verdict = judge(symbol, portfolio, grounds, counted_by)
        self._note(verdict, grounds)
        return verdict, facts_of(grounds)

    async def position_size(
        self,
        text: str,
        balance: Decimal,
        leverage: Decimal,
        price: Decimal | None = None,
        confidence: float | None = None,
        record: TrackRecord | None = None,
    ) -> tuple[SizedPosition, DataFacts]:
        """Lots for the member's present weight; none, with the reason, if it may not be traded.

        `price` stands in for the mark price; a `record` of such positions caps by its Kelly stake.
        Raises RefusedError for an unknown symbol.
        """
        state, grounds = await self.grounds.present(self.database)
        symbol = grounds.resolve(text).symbol
        mark = grounds.mark(symbol)
        wish = Order(0, balance, leverage, price or mark or Decimal(0), confidence, record)
        sized = self._sized(symbol, wish, state, grounds)
        return sized, facts_of(grounds)

    async def sizes(
        self, balance: Decimal, leverage: Decimal = Decimal(1)
    ) -> tuple[tuple[SizedPosition, ...], DataFacts]:
        """Lots of every member by rank, each as `position_size` says of it."""
        state, grounds = await self.grounds.present(self.database)
        found = []
        for member in state.portfolio.members:
            price = grounds.mark(member.symbol) or Decimal(0)
            wish = Order(0, balance, leverage, price)
            found.append(self._sized(member.symbol, wish, state, grounds))
        return tuple(found), facts_of(grounds)

    def _sized(self, symbol: str, wish: Order, state: Committed, grounds: Grounds) -> SizedPosition:
        """What is wished for at the member's weight; a price of 0 is not known."""
        portfolio = state.portfolio
        entry = grounds.resolve(symbol)
        member = portfolio.member(symbol)
        quote = grounds.market.quote(symbol)
        order = replace(wish, weight_u=0 if member is None else member.weight_u)
        verdict = judge(symbol, portfolio, grounds)
        self._note(verdict, grounds)
        if not verdict.trade:
            made = nothing(order.leverage, verdict.reason)
        elif quote is None or not order.price:
            made = nothing(order.leverage, "price_unknown")
        else:
            settings = grounds.configuration
            made = size(
                quote.contract,
                order,
                _conditions(portfolio, quote, grounds, symbol, self._risk(state, grounds)),
                Limits(settings.max_weight_u, settings.liquidity_share, settings.sizing),
                self._allocated(symbol, order, portfolio, grounds),
            )
        return SizedPosition(
            symbol,
            entry.contract.code,
            specification_of(entry.contract if quote is None else quote.contract),
            order.price or None,
            order.weight_u,
            made,
        )

    def _allocated(
        self, symbol: str, order: Order, portfolio: Portfolio, grounds: Grounds
    ) -> int | None:
        """The lots of the symbol when all members get theirs; worked out once for one moment."""
        weights_u = {member.symbol: member.weight_u for member in portfolio.members}
        given = {} if order.price == grounds.mark(symbol) else {symbol: order.price}
        equity = order.balance * order.leverage
        quotes = [grounds.market.quote(name) for name in weights_u]
        contracts = tuple(None if one is None else one.contract for one in quotes)
        prices = tuple(grounds.mark(name) for name in weights_u)
        kept = Basis(
            (portfolio.members, grounds.configuration, *contracts), (equity, prices, given)
        )
        made = self.grounds.views.of(
            "lots", kept, lambda: lot_plan(weights_u, equity, grounds, given)
        )
        return made.lots[symbol]

    def _note(self, verdict: Verdict, grounds: Grounds) -> None:
        code = refused_by(verdict, grounds)
        if code is not None:
            self.grounds.refusals.note(code)

    def _risk(self, state: Committed, grounds: Grounds) -> "_Risk":
        """Worked out once for daily bars and members: it asks nothing else of the market."""
        held, panel = state.portfolio.members, grounds.market.panel(Interval.DAY)
        daily = Basis((held, state.configuration, panel), ())
        return self.grounds.views.of("risk", daily, lambda: _risk_of(state.portfolio, grounds))

    async def _load(self) -> tuple[Portfolio, Grounds]:
        state, grounds = await self.grounds.present(self.database)
        return state.portfolio, grounds


def _tradeable(portfolio: Portfolio, grounds: Grounds) -> tuple[Tradeable, ...]:
    return tuple(
        Tradeable(member.symbol, member.contract, member.weight_u, score)
        for member in portfolio.members
        if judge(member.symbol, portfolio, grounds).trade
        and (score := grounds.score(member.symbol)) is not None
    )


@dataclass(frozen=True, slots=True)
class _Risk:
    """Of the portfolio by its weights of record; None is not known."""

    volatility: float | None
    value_at_risk: float | None


def _risk_of(portfolio: Portfolio, grounds: Grounds) -> _Risk:
    known, level = grounds.covariance(portfolio), grounds.configuration.sizing.var_level
    held = {member.symbol: member.weight_u for member in portfolio.members}
    shares = {name: weight / FULL for name, weight in held.items()}
    return _Risk(
        volatility=None if known is None else volatility(held, known),
        value_at_risk=value_at_risk(grounds.market.panel(Interval.DAY), shares, level),
    )


def _conditions(
    portfolio: Portfolio, quote: Quote, grounds: Grounds, symbol: str, risk: _Risk
) -> Conditions:
    """What the caps are measured against, each from data that is young enough; else None."""
    card, band = grounds.card(symbol), grounds.configuration.sizing.depth_band
    return Conditions(
        invested_u=sum(member.weight_u for member in portfolio.members),
        turnover_24h=quote.turnover_24h,
        depth=None if quote.book is None else depth_shown(quote.book, quote.contract, band),
        volatility=None if card is None else card.volatility,
        portfolio_volatility=risk.volatility,
        portfolio_var=risk.value_at_risk,
    )
