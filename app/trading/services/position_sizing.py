"""May it be traded, and how much: answers for the trading engine, each with its reasons."""

from dataclasses import dataclass, replace
from decimal import Decimal

from app.foundation.errors import Code
from app.foundation.sql.database import Database
from app.market.domain.liquidity import depth_shown
from app.market.domain.models import Interval
from app.market.domain.symbols import specification_of
from app.market.services.view import Quote
from app.portfolio.domain.models import FULL, Portfolio
from app.portfolio.domain.risk import value_at_risk
from app.portfolio.domain.target_weights import compute_volatility
from app.portfolio.services.decision_context import DecisionContext, DecisionContextFactory
from app.portfolio.services.lot_plan import plan_lots
from app.portfolio.services.state_cache import PortfolioState
from app.portfolio.services.tradeability import (
    CLOCK,
    FRESH,
    MODE,
    DataFacts,
    Tradeability,
    check_tradeability,
    describe_data,
)
from app.portfolio.services.views import members_key
from app.trading.domain.position_sizing import (
    Conditions,
    Limits,
    Order,
    PositionSize,
    TrackRecord,
    nothing,
    size,
)


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


def refused_by(verdict: Tradeability, context: DecisionContext) -> Code | None:
    """The code of the refusal where nothing could be decided; None for a decision."""
    failed = next((check.name for check in verdict.checks if not check.passed), None)
    if failed not in {CLOCK, MODE, FRESH}:
        return None
    refusal = context.mode.refusal
    return Code.MARKET_DATA_STALE if refusal is None else refusal.code


@dataclass(frozen=True, slots=True)
class Trading:
    """Reads for the trading engine."""

    database: Database
    contexts: DecisionContextFactory

    async def tradeable(self) -> tuple[tuple[Tradeable, ...], DataFacts]:
        """Members that may be traded now, by rank."""
        state, context = await self.contexts.present(self.database)
        found = self.contexts.views.get(
            "tradeable", members_key(state, context), lambda: _tradeable(state.portfolio, context)
        )
        return found, describe_data(context)

    async def should_trade(
        self, text: str, counted_by: str | None = None
    ) -> tuple[Tradeability, DataFacts]:
        """`counted_by` as in `judge`. Raises RefusedError for a symbol that is not known."""
        portfolio, context = await self._load()
        symbol = context.resolve(text).symbol
        verdict = check_tradeability(symbol, portfolio, context, counted_by)
        self._note(verdict, context)
        return verdict, describe_data(context)

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
        state, context = await self.contexts.present(self.database)
        symbol = context.resolve(text).symbol
        mark = context.mark(symbol)
        wish = Order(0, balance, leverage, price or mark or Decimal(0), confidence, record)
        sized = self._sized(symbol, wish, state, context)
        return sized, describe_data(context)

    async def sizes(
        self, balance: Decimal, leverage: Decimal = Decimal(1)
    ) -> tuple[tuple[SizedPosition, ...], DataFacts]:
        """Lots of every member by rank, each as `position_size` says of it."""
        state, context = await self.contexts.present(self.database)
        found = []
        for member in state.portfolio.members:
            price = context.mark(member.symbol) or Decimal(0)
            wish = Order(0, balance, leverage, price)
            found.append(self._sized(member.symbol, wish, state, context))
        return tuple(found), describe_data(context)

    def _sized(
        self, symbol: str, wish: Order, state: PortfolioState, context: DecisionContext
    ) -> SizedPosition:
        """What is wished for at the member's weight; a price of 0 is not known."""
        portfolio = state.portfolio
        entry = context.resolve(symbol)
        member = portfolio.member(symbol)
        quote = context.market.quote(symbol)
        order = replace(wish, weight_u=0 if member is None else member.weight_u)
        verdict = check_tradeability(symbol, portfolio, context)
        self._note(verdict, context)
        if not verdict.trade:
            made = nothing(order.leverage, verdict.reason)
        elif quote is None or not order.price:
            made = nothing(order.leverage, "price_unknown")
        else:
            settings = context.configuration
            made = size(
                quote.contract,
                order,
                _conditions(portfolio, quote, context, symbol, self._risk(state, context)),
                Limits(settings.max_weight_u, settings.liquidity_share, settings.sizing),
                self._allocated(symbol, order, portfolio, context),
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
        self, symbol: str, order: Order, portfolio: Portfolio, context: DecisionContext
    ) -> int | None:
        """The lots of the symbol when all members get theirs; worked out once for one moment."""
        weights_u = {member.symbol: member.weight_u for member in portfolio.members}
        given = {} if order.price == context.mark(symbol) else {symbol: order.price}
        equity = order.balance * order.leverage
        quotes = [context.market.quote(name) for name in weights_u]
        contracts = tuple(None if one is None else one.contract for one in quotes)
        prices = tuple(context.mark(name) for name in weights_u)
        kept = (portfolio.members, context.configuration, contracts, equity, prices, given)
        made = self.contexts.views.get(
            "lots", kept, lambda: plan_lots(weights_u, equity, context, given)
        )
        return made.lots[symbol]

    def _note(self, verdict: Tradeability, context: DecisionContext) -> None:
        code = refused_by(verdict, context)
        if code is not None:
            self.contexts.refusals.note(code)

    def _risk(self, state: PortfolioState, context: DecisionContext) -> "_Risk":
        """Worked out once for daily bars and members: it asks nothing else of the market."""
        held, panel = state.portfolio.members, context.market.panel(Interval.DAY)
        daily = (held, state.configuration, panel)
        return self.contexts.views.get("risk", daily, lambda: _risk_of(state.portfolio, context))

    async def _load(self) -> tuple[Portfolio, DecisionContext]:
        state, context = await self.contexts.present(self.database)
        return state.portfolio, context


def _tradeable(portfolio: Portfolio, context: DecisionContext) -> tuple[Tradeable, ...]:
    return tuple(
        Tradeable(member.symbol, member.contract, member.weight_u, score)
        for member in portfolio.members
        if check_tradeability(member.symbol, portfolio, context).trade
        and (score := context.score(member.symbol)) is not None
    )


@dataclass(frozen=True, slots=True)
class _Risk:
    """Of the portfolio by its weights of record; None is not known."""

    volatility: float | None
    value_at_risk: float | None


def _risk_of(portfolio: Portfolio, context: DecisionContext) -> _Risk:
    known, level = context.covariance(portfolio), context.configuration.sizing.var_level
    held = {member.symbol: member.weight_u for member in portfolio.members}
    shares = {name: weight / FULL for name, weight in held.items()}
    return _Risk(
        volatility=None if known is None else compute_volatility(held, known),
        value_at_risk=value_at_risk(context.market.panel(Interval.DAY), shares, level),
    )


def _conditions(
    portfolio: Portfolio, quote: Quote, context: DecisionContext, symbol: str, risk: _Risk
) -> Conditions:
    """What the caps are measured against, each from data that is young enough; else None."""
    card, band = context.card(symbol), context.configuration.sizing.depth_band_bp
    return Conditions(
        invested_u=sum(member.weight_u for member in portfolio.members),
        turnover_24h=quote.turnover_24h,
        depth=None if quote.book is None else depth_shown(quote.book, quote.contract, band),
        volatility=None if card is None else card.volatility,
        portfolio_volatility=risk.volatility,
        portfolio_var=risk.value_at_risk,
    )
