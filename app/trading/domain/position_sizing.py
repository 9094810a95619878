"""Converts a weight into whole lots within caps, with the rounding error."""

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
    """Caps in order of application."""

    WEIGHT = "weight"  # maximum weight of one symbol
    LEVERAGE = "leverage"  # maximum leverage of the contract
    GROSS_LEVERAGE = "gross_leverage"  # notional of all members over equity
    VOLATILITY_TARGET = "volatility_target"  # of the portfolio
    LIQUIDATION_DISTANCE = "liquidation_distance"
    PORTFOLIO_VAR = "portfolio_var"
    CONFIDENCE = "confidence"
    KELLY = "kelly"
    TURNOVER = "turnover"
    DEPTH = "depth"


@dataclass(frozen=True, slots=True)
class Cap:
    """A cap with the value before it was applied.

    `limit` is a maximum, except for the liquidation distance, where it is a minimum.
    """

    name: CapName
    value: Decimal
    limit: Decimal
    unit: str  # percent, times (equity), fraction, or quote (currency)
    source: str
    is_applied: bool


_UNLIMITED: Final = Decimal(10) ** 9  # more than the leverage of any contract


@dataclass(frozen=True, slots=True)
class LeverageCap:
    """Cap on a quantity proportional to leverage."""

    name: CapName
    per_unit: Decimal  # quantity at leverage 1
    limit: Decimal
    unit: str
    source: str

    @property
    def max_leverage(self) -> Decimal:
        """Maximum leverage within the limit."""
        return _leverage(self.limit / self.per_unit) if self.per_unit > 0 else _UNLIMITED

    def cap(self, leverage: Decimal) -> Cap:
        """Returns the cap with the quantity at `leverage`."""
        value, applied = leverage * self.per_unit, leverage > self.max_leverage
        return Cap(self.name, value, self.limit, self.unit, self.source, applied)


@dataclass(frozen=True, slots=True)
class LiquidationDistance:
    """Cap on leverage by the distance of a long from liquidation, at least `min_distance`.

    The margin is value / leverage alone. A linear contract at leverage L has the distance 1/L - m
    with maintenance margin m (QUANT section 8), an inverse one (1/L - m) / (1 + 1/L), because its
    losses in coins accelerate.
    """

    min_distance: Decimal
    maintenance_margin: Decimal
    is_inverse: bool

    @property
    def max_leverage(self) -> Decimal:
        """Maximum leverage with the distance; 0 without one."""
        needed = self.min_distance + self.maintenance_margin
        room = max(1 - self.min_distance, Decimal(0)) if self.is_inverse else Decimal(1)
        return _leverage(room / needed) if needed > 0 else _UNLIMITED

    def cap(self, leverage: Decimal) -> Cap:
        """Returns the cap with the liquidation distance at `leverage`."""
        value = 1 / leverage - self.maintenance_margin
        if self.is_inverse:
            value /= 1 + 1 / leverage
        name, applied = CapName.LIQUIDATION_DISTANCE, leverage > self.max_leverage
        return Cap(name, value, self.min_distance, "fraction", "daily_candles", applied)


def amount_cap(name: CapName, wanted: Decimal, limit: Decimal, source: str) -> Cap:
    """Returns a cap on the notional in quote currency."""
    return Cap(name, wanted, limit, "quote", source, limit < wanted)


def _leverage(exact: Decimal) -> Decimal:
    """Leverage with six decimals, rounded down."""
    return min(exact, _UNLIMITED).quantize(Decimal("0.000001"), ROUND_DOWN)


_AMOUNT_CAPS: Final = {
    CapName.KELLY,
    CapName.TURNOVER,
    CapName.DEPTH,
}  # caps on the notional that rounding up must not exceed
_PERCENT: Final = Decimal(FULL) / 100  # micro-percent in one percent


class SizingRefusal(StrEnum):
    """Reason for no position; an unknown input is never estimated."""

    NO_WEIGHT = "no_weight"
    NO_NOTIONAL = "no_notional"
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
    """Past positions of the kind: counts of wins and losses, mean gain over mean loss."""

    wins: int
    losses: int
    payoff: float


@dataclass(frozen=True, slots=True)
class SizingRequest:
    """Position to be sized; money in the quote currency (USD for inverse contracts)."""

    weight_u: int
    balance: Decimal
    leverage: Decimal
    price: Decimal
    confidence: float | None = None  # scales the position
    record: TrackRecord | None = None  # caps the position by a fraction of the Kelly stake


@dataclass(frozen=True, slots=True)
class MarketConditions:
    """Inputs of the caps; None is unknown.

    Figures of the portfolio are at leverage 1, with every member at its weight.
    """

    invested_u: int  # sum of the weights of all members
    turnover_24h: Decimal | None
    depth: Decimal | None  # quote currency within the band, thinner side
    volatility: float | None  # of the symbol, annualised fraction
    portfolio_volatility: float | None  # annualised fraction
    portfolio_var: float | None  # one-day loss at the configured level, fraction of equity


@dataclass(frozen=True, slots=True)
class SizingLimits:
    max_weight_u: int
    liquidity_share: float  # maximum share of the daily turnover
    rules: SizingSettings


@dataclass(frozen=True, slots=True)
class PositionSize:
    """Lots of a position; a capped position realises at most the wanted notional.

    `reason` explains 0 lots.
    """

    wanted: Decimal  # notional after caps, before rounding
    notional: Decimal
    lots: int
    quantity: Decimal  # base coins
    margin: Decimal
    leverage: Decimal  # leverage after caps
    rounding_error: Decimal  # wanted - notional; negative where the allocation rounds up
    liquidation_price: Decimal | None  # of a long with this margin alone; None without lots
    caps: tuple[Cap, ...]  # in order of application
    reason: str | None

    @property
    def applied(self) -> tuple[str, ...]:
        """Names of the caps that reduced the position."""
        return tuple(cap.name.value for cap in self.caps if cap.is_applied)

    @property
    def binding(self) -> str | None:
        """Name of the cap without which the position would be larger."""
        return self.applied[-1] if self.applied else None


def size_position(
    contract: Contract,
    request: SizingRequest,
    conditions: MarketConditions,
    limits: SizingLimits,
    allocated: int | None = None,
) -> PositionSize:
    """Computes weight times balance times leverage, capped, in whole lots of the contract.

    `allocated` are the lots of this weight in the allocation of all members. They are used unless
    a cap reduces the position; otherwise lots are rounded down.

    Caps in order: maximum weight; caps on leverage (contract, gross leverage, volatility target,
    liquidation distance, value at risk); caps on the notional (confidence, Kelly, turnover,
    depth). An unknown input of an active cap gives no position. Source: QUANT section 8.
    """
    refusal = _find_refusal(contract, request, conditions, limits.rules)
    if refusal is not None:
        return no_position(request.leverage, refusal)
    weight_u = min(request.weight_u, limits.max_weight_u)
    caps = [
        Cap(
            name=CapName.WEIGHT,
            value=request.weight_u / _PERCENT,
            limit=limits.max_weight_u / _PERCENT,
            unit="percent",
            source="configuration",
            is_applied=weight_u < request.weight_u,
        )
    ]
    leverage = request.leverage
    for leverage_cap in _leverage_caps(contract, conditions, limits.rules):
        if leverage > 0:
            cap = leverage_cap.cap(leverage)
            caps.append(cap)
            leverage = leverage_cap.max_leverage if cap.is_applied else leverage
    wanted = request.balance * weight_u / FULL * leverage
    for name, limit, source in _amount_limits(request, conditions, limits, wanted):
        caps.append(amount_cap(name, wanted, limit, source))
        wanted = min(wanted, limit)
    lots = lots_for(contract, wanted, request.price)
    if allocated is not None and not any(cap.is_applied for cap in caps):
        maximum = min((cap.limit for cap in caps if cap.name in _AMOUNT_CAPS), default=wanted)
        lots = min(allocated, lots_for(contract, maximum, request.price))
    return _create_position(contract, request, wanted, leverage, tuple(caps), lots)


def no_position(leverage: Decimal, reason: str) -> PositionSize:
    """Returns no position, with its reason."""
    zero = Decimal(0)
    return PositionSize(zero, zero, 0, zero, zero, leverage, zero, None, (), reason)


def kelly_stake(probability: float, payoff: float) -> float:
    """Kelly stake as a share of equity, for a gain of `payoff` stakes or a loss of one; min. 0."""
    return max(0.0, (probability * (payoff + 1.0) - 1.0) / payoff)


def confidence_scale(confidence: float, rules: SizingSettings) -> float:
    """Share of a position at a confidence in 0..1: its power by the configured exponent."""
    return float(confidence**rules.confidence_exponent)


def record_stake(record: TrackRecord, confidence: float | None, rules: SizingSettings) -> float:
    """Fractional Kelly stake of a record, scaled by the confidence.

    The share of wins is shrunk towards one half with a prior of `kelly_prior` wins and as many
    losses.
    """
    count = record.wins + record.losses + 2.0 * rules.kelly_prior
    win_share = (record.wins + rules.kelly_prior) / count
    scale = 1.0 if confidence is None else confidence_scale(confidence, rules)
    return rules.kelly_fraction * scale * kelly_stake(win_share, record.payoff)


def liquidation_price(contract: Contract, leverage: Decimal, price: Decimal) -> Decimal | None:
    """Mark price at which a long with its own margin alone is liquidated; 0 if never.

    Margin less loss equals the maintenance margin there. Rounded up to a tick, so that the
    distance is never overstated; None if the maintenance margin is unknown.
    """
    margin = contract.maintenance_margin
    if margin is None:
        return None
    if contract.is_inverse:
        exact = price * (1 + margin) / (1 + 1 / leverage)
    else:
        exact = max(price * (1 - 1 / leverage) / (1 - margin), Decimal(0)) if margin < 1 else price
    return round_to_tick(exact, contract.tick_size, ROUND_UP)


def _find_refusal(
    contract: Contract, request: SizingRequest, conditions: MarketConditions, rules: SizingSettings
) -> SizingRefusal | None:
    is_leveraged = request.leverage > 1  # any contract allows 1
    margin, has_distance = contract.maintenance_margin, rules.liquidation_sigmas > 0.0
    lacks_volatility = conditions.portfolio_volatility is None and rules.volatility_target > 0.0
    rows = (
        (request.weight_u == 0, SizingRefusal.NO_WEIGHT),
        (conditions.turnover_24h is None, SizingRefusal.TURNOVER_UNKNOWN),
        (conditions.depth is None, SizingRefusal.BOOK_UNKNOWN),
        (is_leveraged and contract.max_leverage is None, SizingRefusal.MAX_LEVERAGE_UNKNOWN),
        (has_distance and conditions.volatility is None, SizingRefusal.VOLATILITY_UNKNOWN),
        (has_distance and margin is None, SizingRefusal.MAINTENANCE_MARGIN_UNKNOWN),
        (lacks_volatility, SizingRefusal.PORTFOLIO_VOLATILITY_UNKNOWN),
        (
            rules.var_limit > 0.0 and conditions.portfolio_var is None,
            SizingRefusal.PORTFOLIO_VAR_UNKNOWN,
        ),
    )
    return next((refusal for applies, refusal in rows if applies), None)


def _leverage_caps(
    contract: Contract, conditions: MarketConditions, rules: SizingSettings
) -> list[LeverageCap | LiquidationDistance]:
    """Active caps on leverage, in order; their inputs are known."""
    risks = (
        (CapName.VOLATILITY_TARGET, conditions.portfolio_volatility, rules.volatility_target),
        (CapName.PORTFOLIO_VAR, conditions.portfolio_var, rules.var_limit),
    )
    target, loss = (
        [LeverageCap(name, _exact(value), _exact(limit), "fraction", "daily_candles")]
        if limit > 0.0 and value is not None
        else []
        for name, value, limit in risks
    )
    invested, gross = Decimal(conditions.invested_u) / FULL, _exact(rules.max_gross_leverage)
    caps: list[LeverageCap | LiquidationDistance] = []
    if contract.max_leverage is not None:
        maximum = Decimal(contract.max_leverage)
        caps.append(LeverageCap(CapName.LEVERAGE, Decimal(1), maximum, "times", "contract"))
    caps += [LeverageCap(CapName.GROSS_LEVERAGE, invested, gross, "times", "portfolio"), *target]
    margin = contract.maintenance_margin
    if rules.liquidation_sigmas > 0.0 and conditions.volatility is not None and margin is not None:
        distance = rules.liquidation_sigmas * conditions.volatility / math.sqrt(DAYS_A_YEAR)
        caps.append(LiquidationDistance(_exact(distance), margin, contract.is_inverse))
    return [*caps, *loss]


def _amount_limits(
    request: SizingRequest, conditions: MarketConditions, limits: SizingLimits, wanted: Decimal
) -> list[tuple[CapName, Decimal, str]]:
    """Limits of the caps on the notional, in quote currency, in order."""
    rules = limits.rules
    amounts: list[tuple[CapName, Decimal, str]] = []
    if request.confidence is not None:
        share = confidence_scale(request.confidence, rules)
        amounts.append((CapName.CONFIDENCE, wanted * _exact(share), "request"))
    if request.record is not None:
        share = record_stake(request.record, request.confidence, rules)
        amounts.append((CapName.KELLY, request.balance * _exact(share), "request"))
    turnover, depth = conditions.turnover_24h or Decimal(0), conditions.depth or Decimal(0)
    amounts.append((CapName.TURNOVER, turnover * _exact(limits.liquidity_share), "ticker"))
    amounts.append((CapName.DEPTH, depth * _exact(rules.max_depth_share), "book"))
    return amounts


def _create_position(
    contract: Contract,
    request: SizingRequest,
    wanted: Decimal,
    leverage: Decimal,
    caps: tuple[Cap, ...],
    lots: int,
) -> PositionSize:
    value = notional(contract, lots, request.price)
    position = PositionSize(
        wanted=wanted,
        notional=value,
        lots=lots,
        quantity=base_quantity(contract, lots, request.price),
        margin=value / leverage if lots else Decimal(0),
        leverage=leverage,
        rounding_error=wanted - value,
        liquidation_price=liquidation_price(contract, leverage, request.price) if lots else None,
        caps=caps,
        reason=None,
    )
    if lots:
        return position
    empty = position.binding or SizingRefusal.NO_NOTIONAL
    reason = SizingRefusal.BELOW_MIN_LOT if wanted > 0 else empty
    return replace(position, reason=str(reason))


def _exact(value: float) -> Decimal:
    return to_significant(value)
