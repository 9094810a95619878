"""Whole lots for weights and a balance, their rounding errors, and the cost of trading them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType

from app.market.domain.liquidity import impact_bp
from app.market.domain.symbols import notional, specification_of
from app.market.services.view import Quote
from app.portfolio.domain.lots import ACCURACY, allocate_lots, minimum_capital
from app.portfolio.domain.models import FULL
from app.portfolio.domain.rebalance_plan import WeightChange
from app.portfolio.services.decision_context import DecisionContext


@dataclass(frozen=True, slots=True)
class LotPlan:
    """Lots by symbol; None without a price."""

    lots: Mapping[str, int | None]
    rounding_errors: Mapping[str, float]  # realised minus target, fractions of equity
    minimum_capital: float  # equity from which no rounding error exceeds one percentage point
    missed: tuple[str, ...]  # further than one percentage point from their target
    # Contract specification behind the lots of each symbol; another specification voids them.
    specifications: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LotStep:
    """Smallest step of a position: its value, its lots and the specification of the contract."""

    value: Decimal
    lots: int
    specification: str


def plan_lots(
    weights_u: Mapping[str, int],
    balance: Decimal,
    context: DecisionContext,
    prices: Mapping[str, Decimal] = MappingProxyType({}),
) -> LotPlan:
    """Allocate lots for all weights together at mark prices, which `prices` may override.

    The rebalance plan and all position sizes use the same allocation, so that their lots agree.
    """
    steps = collect_lot_steps(weights_u, context, prices)
    return allocate_planned_lots(weights_u, balance, steps, context.configuration.min_weight_u)


def collect_lot_steps(
    symbols: Iterable[str],
    context: DecisionContext,
    prices: Mapping[str, Decimal] = MappingProxyType({}),
) -> dict[str, LotStep]:
    """Steps of the symbols with a known price."""
    steps: dict[str, LotStep] = {}
    for symbol in symbols:
        quote = context.market.quote(symbol)
        price = prices.get(symbol, context.mark(symbol))
        if quote is not None and price is not None:
            size = quote.contract.lot_size
            value = notional(quote.contract, size, price)
            steps[symbol] = LotStep(value, size, specification_of(quote.contract))
    return steps


def allocate_planned_lots(
    weights_u: Mapping[str, int], balance: Decimal, steps: Mapping[str, LotStep], min_weight_u: int
) -> LotPlan:
    """Allocate lots for all weights together; a function of its arguments alone."""
    symbols = tuple(sorted(symbol for symbol in steps if weights_u[symbol]))
    chosen = allocate_lots(
        [Fraction(weights_u[symbol], FULL) for symbol in symbols],
        [Fraction(steps[symbol].value) / Fraction(balance) for symbol in symbols],
        Fraction(min_weight_u, FULL),
    )
    lots: dict[str, int | None] = {symbol: 0 if symbol in steps else None for symbol in weights_u}
    for symbol, count in zip(symbols, chosen.steps, strict=True):
        lots[symbol] = count * steps[symbol].lots
    errors = dict(zip(symbols, chosen.errors, strict=True))
    return LotPlan(
        lots=lots,
        rounding_errors={symbol: float(error) for symbol, error in errors.items()},
        minimum_capital=minimum_capital([float(steps[symbol].value) for symbol in symbols]),
        missed=tuple(symbol for symbol, error in errors.items() if abs(error) > ACCURACY),
        specifications={symbol: step.specification for symbol, step in steps.items()},
    )


@dataclass(frozen=True, slots=True)
class LotRule:
    """Smallest change of weight that is traded; without a balance the rule does not apply."""

    balance: Decimal | None  # quote currency
    source: str | None  # "account_balance" or "sizing.reference_balance"
    least_u: Mapping[str, int] = field(default_factory=dict)  # micro-percent by symbol


def derive_lot_rule(
    symbols: Iterable[str], balance: Decimal | None, context: DecisionContext
) -> LotRule:
    """Smallest change by lot and minimum notional, from `balance` or the configured one.

    A symbol without a usable price keeps its weight while its contract is open.
    """
    rules = context.configuration.sizing
    reference = rules.reference_balance or None
    used, source = (
        (reference, None if reference is None else "sizing.reference_balance")
        if balance is None
        else (balance, "account_balance")
    )
    if used is None:
        return LotRule(None, None)
    least: dict[str, int] = {}
    for symbol in symbols:
        quote, mark, value = context.market.quote(symbol), context.mark(symbol), rules.min_notional
        if quote is not None and mark is not None:
            value = max(value, notional(quote.contract, quote.contract.lot_size, mark))
        elif context.is_open(symbol):
            least[symbol] = FULL + 1  # more than any change
            continue
        least[symbol] = math.ceil(Fraction(value) * FULL / Fraction(used))
    return LotRule(used, source, least)


def estimate_trading_costs(
    changes: tuple[WeightChange, ...], balance: Decimal | None, context: DecisionContext
) -> tuple[float | None, bool]:
    """Cost of the changes as a fraction of equity, and whether it includes the books' impact.

    The cost is taker fee plus half the spread. With a balance and all order books, sweeping the
    book replaces half the spread. None if a quote is missing or a book is too thin.
    """
    quotes = [context.market.quote(change.symbol) for change in changes]
    impact = balance is not None and all(one is not None and one.book is not None for one in quotes)
    total = 0.0
    for change, quote in zip(changes, quotes, strict=True):
        share = abs(change.change_u) / FULL
        cost = context.trading_cost(change.symbol)
        if cost is not None and impact and quote is not None and balance is not None:
            cost = _with_impact(cost, quote, share * float(balance))
        if cost is None:
            return None, impact
        total += share * cost
    return total, impact


def estimate_leg_cost(symbol: str, amount: float, context: DecisionContext) -> float | None:
    """Cost of trading `amount` (quote currency) once, as a fraction of it.

    The cost is taker fee plus the larger of half the spread and sweeping the book; an amount of 0
    sweeps nothing. None if a quote or the book is missing, or the book is too thin.
    """
    cost, quote = context.trading_cost(symbol), context.market.quote(symbol)
    if amount == 0.0 or cost is None or quote is None:
        return cost
    return _with_impact(cost, quote, amount)


def _with_impact(cost: float, quote: Quote, amount: float) -> float | None:
    """`cost` with sweeping the book in place of half the spread, if that is more."""
    contract, bid, ask = quote.contract, quote.bid, quote.ask
    if quote.book is None or bid is None or ask is None or contract.is_inverse:
        return None
    swept = impact_bp(quote.book, float(contract.multiplier), amount) / 10_000.0
    half = float((ask - bid) / (ask + bid))
    return cost + max(swept - half, 0.0) if math.isfinite(swept) else None
