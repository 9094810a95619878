"""A weight becomes whole lots within caps, and the error of rounding is stated."""

import math
from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, ROUND_UP, Decimal
from enum import StrEnum
from typing import Final

from app.configuration.domain.sections import SizingSettings
from app.foundation.decimal_math import to_significant
from app.market.domain.models import DAYS_A_YEAR, Contract
from app.market.domain.symbols import base_quantity, lots_for, notional, round_to_tick
from app.portfolio.domain.models import FULL


class CapName(StrEnum):
    """In the order in which they are applied."""

    WEIGHT = "weight"  # the largest weight of one symbol
    LEVERAGE = "leverage"  # the contract's
    GROSS_LEVERAGE = "gross_leverage"  # value of all members over equity
    VOLATILITY_TARGET = "volatility_target"  # of the portfolio
    LIQUIDATION_DISTANCE = "liquidation_distance"
    PORTFOLIO_VAR = "portfolio_var"
    CONFIDENCE = "confidence"
    KELLY = "kelly"
    TURNOVER = "turnover"
    DEPTH = "depth"


@dataclass(frozen=True, slots=True)
class Cap:
    """`value` is what the position would have had when the cap was looked at.

    It is a maximum, except the distance of liquidation, which is a minimum.
    """

    name: CapName
    value: Decimal
    limit: Decimal
    unit: str  # percent, times (equity), fraction, or quote (currency)
    source: str
    is_applied: bool


_ANY: Final = Decimal(10) ** 9  # more leverage than any contract has


@dataclass(frozen=True, slots=True)
class Lever:
    """A cap of leverage on something that grows in proportion to it."""

    name: CapName
    per_unit: Decimal  # what a leverage of 1 brings
    limit: Decimal
    unit: str
    source: str

    @property
    def most(self) -> Decimal:
        """The largest leverage within the limit."""
        return _leverage(self.limit / self.per_unit) if self.per_unit > 0 else _ANY

    def cap(self, leverage: Decimal) -> Cap:
        """What `leverage` would bring, against the limit."""
        value, applied = leverage * self.per_unit, leverage > self.most
        return Cap(self.name, value, self.limit, self.unit, self.source, applied)


@dataclass(frozen=True, slots=True)
class Distance:
    """A long may not be closed by force before its price has lost `least`, a fraction.

    Its margin is value / leverage, and nothing else stands by it. Of a linear contract 1/L less
    the maintenance margin counts (QUANT section 8). An inverse one loses coins the faster the
    deeper it falls: (1/L - m) / (1 + 1/L) is the exact distance.
    """

    least: Decimal
    maintenance_margin: Decimal
    is_inverse: bool

    @property
    def most(self) -> Decimal:
        """The largest leverage that keeps the distance; 0 where none does."""
        needed = self.least + self.maintenance_margin
        room = max(1 - self.least, Decimal(0)) if self.is_inverse else Decimal(1)
        return _leverage(room / needed) if needed > 0 else _ANY

    def cap(self, leverage: Decimal) -> Cap:
        """How far away `leverage` would leave it, against the least."""
        value = 1 / leverage - self.maintenance_margin
        if self.is_inverse:
            value /= 1 + 1 / leverage
        name, applied = CapName.LIQUIDATION_DISTANCE, leverage > self.most
        return Cap(name, value, self.least, "fraction", "daily_candles", applied)


def amount(name: CapName, wanted: Decimal, limit: Decimal, source: str) -> Cap:
    """A cap of the value in quote currency."""
    return Cap(name, wanted, limit, "quote", source, limit < wanted)


def _leverage(exact: Decimal) -> Decimal:
    """Six decimals, never more than exact."""
    return min(exact, _ANY).quantize(Decimal("0.000001"), ROUND_DOWN)


_HARD: Final = {CapName.KELLY, CapName.TURNOVER, CapName.DEPTH}  # amounts that rounding keeps
_PERCENT: Final = Decimal(FULL) / 100  # micro-percent in one per cent


class Refusal(StrEnum):
    """Why there is no position at all; what is not known is never guessed."""

    NO_WEIGHT = "no_weight"
    NOTHING_WANTED = "nothing_wanted"
    BELOW_MIN_LOT = "below_min_lot"
    TURNOVER_UNKNOWN = "turnover_unknown"
    BOOK_UNKNOWN = "book_unknown"
    MAX_LEVERAGE_UNKNOWN = "max_leverage_unknown"
    VOLATILITY_UNKNOWN = "volatility_unknown"
    MAINTENANCE_MARGIN_UNKNOWN = "maintenance_margin_unknown"
    PORTFOLIO_VOLATILITY_UNKNOWN = "portfolio_volatility_unknown"
    PORTFOLIO_VAR_UNKNOWN = "portfolio_var_unknown"


@dataclass(frozen=True, slots=True)
class TrackRecord:
    """How such positions went before: counts, and the mean gain over the mean loss."""

    wins: int
    losses: int
    payoff: float


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be sized; money in the quote currency (USD for inverse contracts)."""

    weight_u: int
    balance: Decimal
    leverage: Decimal
    price: Decimal
    confidence: float | None = None  # scales the position when given
    record: TrackRecord | None = None  # caps it by a fraction of the Kelly stake when given


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the caps are measured against; None is not known.

    The figures of the portfolio are those at leverage 1, with every member at its weight.
    """

    invested_u: int  # the weights of all members together
    turnover_24h: Decimal | None
    depth: Decimal | None  # quote currency shown within the band, thinner side
    volatility: float | None  # of the symbol, annualised fraction
    portfolio_volatility: float | None  # annualised fraction
    portfolio_var: float | None  # one-day loss at the level of the rules, fraction of equity


@dataclass(frozen=True, slots=True)
class Limits:
    max_weight_u: int
    liquidity_share: float  # of the day's turnover
    rules: SizingSettings


@dataclass(frozen=True, slots=True)
class PositionSize:
    """Lots of a weight; where a cap holds it back they realise at most the wanted notional.

    `reason` says why they are none.
    """

    wanted: Decimal  # notional after caps, before rounding
    notional: Decimal
    lots: int
    quantity: Decimal  # base coins
    margin: Decimal
    leverage: Decimal  # the one used
    rounding_error: Decimal  # wanted - notional; below zero where the allocator rounds up
    liquidation_price: Decimal | None  # of a long with this margin and no other; None without lots
    caps: tuple[Cap, ...]  # all that were looked at, in order
    reason: str | None

    @property
    def applied(self) -> tuple[str, ...]:
        """The caps that made the position smaller."""
        return tuple(cap.name.value for cap in self.caps if cap.is_applied)

    @property
    def binding(self) -> str | None:
        """The cap without which the position would be larger now."""
        return self.applied[-1] if self.applied else None


def size(
    contract: Contract,
    order: Order,
    known: Conditions,
    limits: Limits,
    allocated: int | None = None,
) -> PositionSize:
    """Weight times balance times leverage, capped, in whole lots of the contract.

    `allocated` are the lots that all members together leave for this weight. They count as long as
    no cap holds the position back; else, and without them, lots are rounded down.

    Caps in order: the largest weight; then those of leverage (the contract's, gross leverage of
    the portfolio, its volatility target, the distance of liquidation, its value at risk); then
    those of the amount (confidence, Kelly, turnover, depth). Every cap that is asked for needs
    its input: without it there is no position. Source: QUANT section 8.
    """
    refusal = _refusal(contract, order, known, limits.rules)
    if refusal is not None:
        return nothing(order.leverage, refusal)
    weight_u = min(order.weight_u, limits.max_weight_u)
    caps = [
        Cap(
            name=CapName.WEIGHT,
            value=order.weight_u / _PERCENT,
            limit=limits.max_weight_u / _PERCENT,
            unit="percent",
            source="configuration",
            is_applied=weight_u < order.weight_u,
        )
    ]
    leverage = order.leverage
    for one in _levers(contract, known, limits.rules):
        if leverage > 0:
            made = one.cap(leverage)
            caps.append(made)
            leverage = one.most if made.is_applied else leverage
    wanted = order.balance * weight_u / FULL * leverage
    for name, limit, source in _amounts(order, known, limits, wanted):
        caps.append(amount(name, wanted, limit, source))
        wanted = min(wanted, limit)
    lots = lots_for(contract, wanted, order.price)
    if allocated is not None and not any(cap.is_applied for cap in caps):
        most = min((cap.limit for cap in caps if cap.name in _HARD), default=wanted)
        lots = min(allocated, lots_for(contract, most, order.price))
    return _rounded(contract, order, wanted, leverage, tuple(caps), lots)


def nothing(leverage: Decimal, reason: str) -> PositionSize:
    """No position, and why."""
    zero = Decimal(0)
    return PositionSize(zero, zero, 0, zero, zero, leverage, zero, None, (), reason)


def kelly(probability: float, payoff: float) -> float:
    """Share of equity to stake on a gain of `payoff` times the stake, else its loss; at least 0."""
    return max(0.0, (probability * (payoff + 1.0) - 1.0) / payoff)


def stake_share(record: TrackRecord, confidence: float | None, rules: SizingSettings) -> float:
    """The fraction of the Kelly stake that a record is good for, times the confidence.

    The share of wins is shrunk towards one half as if `kelly_prior` wins and as many losses had
    been seen before: a short record says little.
    """
    seen = record.wins + record.losses + 2.0 * rules.kelly_prior
    share = (record.wins + rules.kelly_prior) / seen
    sure = 1.0 if confidence is None else confidence
    return rules.kelly_fraction * sure * kelly(share, record.payoff)


def liquidation_price(contract: Contract, leverage: Decimal, price: Decimal) -> Decimal | None:
    """Where a long that rests on its own margin alone is closed by force; 0 if nowhere.

    Margin and loss meet the maintenance margin at the mark price. Rounded up to a tick, never
    further away than it is; None without that margin.
    """
    kept = contract.maintenance_margin
    if kept is None:
        return None
    if contract.is_inverse:
        exact = price * (1 + kept) / (1 + 1 / leverage)
    else:
        exact = max(price * (1 - 1 / leverage) / (1 - kept), Decimal(0)) if kept < 1 else price
    return round_to_tick(exact, contract.tick_size, ROUND_UP)


def _refusal(
    contract: Contract, order: Order, known: Conditions, rules: SizingSettings
) -> Refusal | None:
    levered = order.leverage > 1  # any contract allows 1
    margin, distance = contract.maintenance_margin, rules.liquidation_sigmas > 0.0
    volatile = known.portfolio_volatility is None and rules.volatility_target > 0.0
    rows = (
        (order.weight_u == 0, Refusal.NO_WEIGHT),
        (known.turnover_24h is None, Refusal.TURNOVER_UNKNOWN),
        (known.depth is None, Refusal.BOOK_UNKNOWN),
        (levered and contract.max_leverage is None, Refusal.MAX_LEVERAGE_UNKNOWN),
        (distance and known.volatility is None, Refusal.VOLATILITY_UNKNOWN),
        (distance and margin is None, Refusal.MAINTENANCE_MARGIN_UNKNOWN),
        (volatile, Refusal.PORTFOLIO_VOLATILITY_UNKNOWN),
        (rules.var_limit > 0.0 and known.portfolio_var is None, Refusal.PORTFOLIO_VAR_UNKNOWN),
    )
    return next((refusal for applies, refusal in rows if applies), None)


def _levers(contract: Contract, known: Conditions, rules: SizingSettings) -> list[Lever | Distance]:
    """The caps of leverage that are asked for; their inputs are known."""
    risks = (
        (CapName.VOLATILITY_TARGET, known.portfolio_volatility, rules.volatility_target),
        (CapName.PORTFOLIO_VAR, known.portfolio_var, rules.var_limit),
    )
    target, loss = (
        [Lever(name, _exact(value), _exact(limit), "fraction", "daily_candles")]
        if limit > 0.0 and value is not None
        else []
        for name, value, limit in risks
    )
    invested, gross = Decimal(known.invested_u) / FULL, _exact(rules.max_gross_leverage)
    found: list[Lever | Distance] = []
    if contract.max_leverage is not None:
        most = Decimal(contract.max_leverage)
        found.append(Lever(CapName.LEVERAGE, Decimal(1), most, "times", "contract"))
    found += [Lever(CapName.GROSS_LEVERAGE, invested, gross, "times", "portfolio"), *target]
    kept = contract.maintenance_margin
    if rules.liquidation_sigmas > 0.0 and known.volatility is not None and kept is not None:
        away = rules.liquidation_sigmas * known.volatility / math.sqrt(DAYS_A_YEAR)
        found.append(Distance(_exact(away), kept, contract.is_inverse))
    return [*found, *loss]


def _amounts(
    order: Order, known: Conditions, limits: Limits, wanted: Decimal
) -> list[tuple[CapName, Decimal, str]]:
    """Most that each cap of the amount allows, in quote currency."""
    rules = limits.rules
    found: list[tuple[CapName, Decimal, str]] = []
    if order.confidence is not None:
        found.append((CapName.CONFIDENCE, wanted * _exact(order.confidence), "request"))
    if order.record is not None:
        share = stake_share(order.record, order.confidence, rules)
        found.append((CapName.KELLY, order.balance * _exact(share), "request"))
    turnover, depth = known.turnover_24h or Decimal(0), known.depth or Decimal(0)
    found.append((CapName.TURNOVER, turnover * _exact(limits.liquidity_share), "ticker"))
    found.append((CapName.DEPTH, depth * _exact(rules.max_depth_share), "book"))
    return found


def _rounded(
    contract: Contract,
    order: Order,
    wanted: Decimal,
    leverage: Decimal,
    caps: tuple[Cap, ...],
    lots: int,
) -> PositionSize:
    value = notional(contract, lots, order.price)
    made = PositionSize(
        wanted=wanted,
        notional=value,
        lots=lots,
        quantity=base_quantity(contract, lots, order.price),
        margin=value / leverage if lots else Decimal(0),
        leverage=leverage,
        rounding_error=wanted - value,
        liquidation_price=liquidation_price(contract, leverage, order.price) if lots else None,
        caps=caps,
        reason=None,
    )
    if lots:
        return made
    why = Refusal.BELOW_MIN_LOT if wanted > 0 else made.binding or Refusal.NOTHING_WANTED
    return replace(made, reason=str(why))


def _exact(value: float) -> Decimal:
    return to_significant(value)
