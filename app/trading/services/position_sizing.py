"""Queries of the trading engine: tradeable members, trading decisions and position sizes."""

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
from app.portfolio.services.decision_context import (
    DECIDED,
    CountedDecision,
    DecisionContext,
    DecisionContextFactory,
)
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
    MarketConditions,
    PositionSize,
    SizingLimits,
    SizingRequest,
    TrackRecord,
    no_position,
    size_position,
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
    specification: str  # contract specification of the lots
    price: Decimal | None
    weight_u: int
    size: PositionSize


def find_refusal_code(verdict: Tradeability, context: DecisionContext) -> Code | None:
    """Returns the refusal code if no decision was possible; None for a decision."""
    failed = next((check.name for check in verdict.checks if not check.passed), None)
    if failed not in {CLOCK, MODE, FRESH}:
        return None
    refusal = context.mode.refusal
    return Code.MARKET_DATA_STALE if refusal is None else refusal.code


@dataclass(frozen=True, slots=True)
class Trading:
    """Answers the queries of the trading engine from memory."""

    database: Database
    contexts: DecisionContextFactory

    async def tradeable(self) -> tuple[tuple[Tradeable, ...], DataFacts]:
        """Returns the members that may be traded now, by rank."""
        state, context = await self.contexts.present(self.database)
        members = self.contexts.views.get(
            "tradeable",
            members_key(state, context),
            lambda: _find_tradeable(state.portfolio, context),
        )
        return members, describe_data(context)

    async def should_trade(
        self, text: str, specification: str | None = None
    ) -> tuple[Tradeability, DataFacts]:
        """Checks a symbol as `check_tradeability`. Raises RefusedError for an unknown symbol."""
        portfolio, context = await self._load()
        symbol = context.resolve(text).symbol
        verdict = check_tradeability(symbol, portfolio, context, specification)
        self._count_decision(verdict, context)
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
        """Computes the lots of a member's weight; 0 with the reason if it may not be traded.

        `price` replaces the mark price; `record` adds a cap by the Kelly stake. Raises
        RefusedError for an unknown symbol.
        """
        state, context = await self.contexts.present(self.database)
        symbol = context.resolve(text).symbol
        mark = context.mark(symbol)
        request = SizingRequest(
            0, balance, leverage, price or mark or Decimal(0), confidence, record
        )
        return self._size(symbol, request, state, context), describe_data(context)

    async def sizes(
        self, balance: Decimal, leverage: Decimal = Decimal(1)
    ) -> tuple[tuple[SizedPosition, ...], DataFacts]:
        """Computes the lots of every member by rank, each equal to `position_size`."""
        state, context = await self.contexts.present(self.database)
        positions = []
        for member in state.portfolio.members:
            price = context.mark(member.symbol) or Decimal(0)
            request = SizingRequest(0, balance, leverage, price)
            positions.append(self._size(member.symbol, request, state, context))
        return tuple(positions), describe_data(context)

    def _size(
        self, symbol: str, request: SizingRequest, state: PortfolioState, context: DecisionContext
    ) -> SizedPosition:
        """Sizes the request at the member's weight; a price of 0 is unknown."""
        portfolio = state.portfolio
        entry = context.resolve(symbol)
        member = portfolio.member(symbol)
        quote = context.market.quote(symbol)
        request = replace(request, weight_u=0 if member is None else member.weight_u)
        verdict = check_tradeability(symbol, portfolio, context)
        self._count_decision(verdict, context)
        if not verdict.trade:
            size = no_position(request.leverage, verdict.reason)
        elif quote is None or not request.price:
            size = no_position(request.leverage, "price_unknown")
        else:
            settings = context.configuration
            size = size_position(
                quote.contract,
                request,
                _conditions(portfolio, quote, context, symbol, self._load_risk(state, context)),
                SizingLimits(settings.max_weight_u, settings.liquidity_share, settings.sizing),
                self._allocate_lots(symbol, request, portfolio, context),
            )
        return SizedPosition(
            symbol,
            entry.contract.code,
            specification_of(entry.contract if quote is None else quote.contract),
            request.price or None,
            request.weight_u,
            size,
        )

    def _allocate_lots(
        self, symbol: str, request: SizingRequest, portfolio: Portfolio, context: DecisionContext
    ) -> int | None:
        """Lots of the symbol in the allocation of all members, cached for equal inputs."""
        weights_u = {member.symbol: member.weight_u for member in portfolio.members}
        is_mark = request.price == context.mark(symbol)
        other_prices = {} if is_mark else {symbol: request.price}
        equity = request.balance * request.leverage
        quotes = [context.market.quote(name) for name in weights_u]
        contracts = tuple(None if quote is None else quote.contract for quote in quotes)
        prices = tuple(context.mark(name) for name in weights_u)
        key = (portfolio.members, context.configuration, contracts, equity, prices, other_prices)
        plan = self.contexts.views.get(
            "lots", key, lambda: plan_lots(weights_u, equity, context, other_prices)
        )
        return plan.lots[symbol]

    def _count_decision(self, verdict: Tradeability, context: DecisionContext) -> None:
        code, refusals = find_refusal_code(verdict, context), self.contexts.refusals
        if code is not None:
            refusals.note(code)
        refusals.count(CountedDecision.TRADE, DECIDED if code is None else code.value)

    def _load_risk(self, state: PortfolioState, context: DecisionContext) -> "_PortfolioRisk":
        """Portfolio risk, cached by members, settings and daily bars, its only inputs."""
        panel = context.market.panel(Interval.DAY)
        key = (state.portfolio.members, state.configuration, panel)
        return self.contexts.views.get("risk", key, lambda: _compute_risk(state.portfolio, context))

    async def _load(self) -> tuple[Portfolio, DecisionContext]:
        state, context = await self.contexts.present(self.database)
        return state.portfolio, context


def _find_tradeable(portfolio: Portfolio, context: DecisionContext) -> tuple[Tradeable, ...]:
    return tuple(
        Tradeable(member.symbol, member.contract, member.weight_u, score)
        for member in portfolio.members
        if check_tradeability(member.symbol, portfolio, context).trade
        and (score := context.score(member.symbol)) is not None
    )


@dataclass(frozen=True, slots=True)
class _PortfolioRisk:
    """Risk of the portfolio at its weights of record; None is unknown."""

    volatility: float | None
    value_at_risk: float | None


def _compute_risk(portfolio: Portfolio, context: DecisionContext) -> _PortfolioRisk:
    covariance = context.covariance(portfolio)
    level = context.configuration.sizing.var_level
    weights_u = {member.symbol: member.weight_u for member in portfolio.members}
    shares = {name: weight / FULL for name, weight in weights_u.items()}
    return _PortfolioRisk(
        volatility=None if covariance is None else compute_volatility(weights_u, covariance),
        value_at_risk=value_at_risk(context.market.panel(Interval.DAY), shares, level),
    )


def _conditions(
    portfolio: Portfolio, quote: Quote, context: DecisionContext, symbol: str, risk: _PortfolioRisk
) -> MarketConditions:
    """Inputs of the caps from fresh data; None is unknown."""
    card, band = context.card(symbol), context.configuration.sizing.depth_band_bp
    return MarketConditions(
        invested_u=sum(member.weight_u for member in portfolio.members),
        turnover_24h=quote.turnover_24h,
        depth=None if quote.book is None else depth_shown(quote.book, quote.contract, band),
        volatility=None if card is None else card.volatility,
        portfolio_volatility=risk.volatility,
        portfolio_var=risk.value_at_risk,
    )
