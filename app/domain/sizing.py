"""A weight becomes whole lots: capped, rounded down, and the error of rounding stated."""

from dataclasses import dataclass
from decimal import Decimal

from app.domain.market import Contract
from app.domain.portfolio import FULL
from app.domain.symbols import base_quantity, lots_for, notional


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be sized; money in the quote currency (USD for inverse contracts)."""

    weight_u: int
    balance: Decimal
    leverage: Decimal
    price: Decimal
    turnover_24h: Decimal | None
    confidence: float | None = None  # scales the position when given


@dataclass(frozen=True, slots=True)
class Limits:
    max_weight_u: int
    liquidity_share: float  # of the day's turnover


@dataclass(frozen=True, slots=True)
class PositionSize:
    """Lots that realise at most the wanted notional; `reason` says why they are none."""

    wanted: Decimal  # notional after caps, before rounding
    notional: Decimal
    lots: int
    quantity: Decimal  # base coins
    margin: Decimal
    leverage: Decimal  # the one used
    rounding_error: Decimal  # wanted - notional, under one lot
    caps: tuple[str, ...]
    reason: str | None


def size(contract: Contract, order: Order, limits: Limits) -> PositionSize:
    """Weight times balance times leverage, capped, in whole lots of the contract.

    Caps in order: the contract's leverage, the largest weight, a share of the day's turnover.
    Without a known turnover there is no position: its liquidity cannot be judged.
    """
    most = contract.max_leverage
    leverage = order.leverage if most is None else min(order.leverage, Decimal(most))
    weight_u = min(order.weight_u, limits.max_weight_u)
    wanted = order.balance * weight_u / FULL * leverage
    if order.confidence is not None:
        wanted *= Decimal(repr(order.confidence))
    ceiling = (order.turnover_24h or Decimal(0)) * Decimal(repr(limits.liquidity_share))
    caps = (
        ("leverage", leverage < order.leverage),
        ("weight", weight_u < order.weight_u),
        ("confidence", order.confidence is not None and order.confidence < 1.0),
        ("liquidity", ceiling < wanted),
    )
    wanted = min(wanted, ceiling)
    lots = lots_for(contract, wanted, order.price)
    value = notional(contract, lots, order.price)
    return PositionSize(
        wanted=wanted,
        notional=value,
        lots=lots,
        quantity=base_quantity(contract, lots, order.price),
        margin=value / leverage,
        leverage=leverage,
        rounding_error=wanted - value,
        caps=tuple(name for name, applied in caps if applied),
        reason=None if lots else _why_none(order, wanted),
    )


def _why_none(order: Order, wanted: Decimal) -> str:
    reasons = (
        (order.weight_u == 0, "no_weight"),
        (order.turnover_24h is None, "turnover_unknown"),
        (wanted == 0, "nothing_wanted"),
    )
    return next((reason for applies, reason in reasons if applies), "below_min_lot")


def nothing(leverage: Decimal, reason: str) -> PositionSize:
    """No position, and why."""
    zero = Decimal(0)
    return PositionSize(zero, zero, 0, zero, zero, leverage, zero, (), reason)
