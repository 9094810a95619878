"""Builders of portfolio values that several tests share."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from app.market.domain.models import Contract, ContractKind, ContractStatus
from app.portfolio.domain.membership import NewMember
from app.portfolio.domain.rebalance_plan import MemberStatus

T0 = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
NAMES = tuple(f"{letter}{letter}USDT" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def newcomer(symbol: str, score: float | None = 0.7) -> NewMember:
    return NewMember(f"id-{symbol}", symbol, f"{symbol}M", Decimal("12.50"), score, 0.9)


def status(symbol: str, score: float | None = 0.7, **known: Any) -> MemberStatus:
    facts: dict[str, Any] = {
        "is_open": True,
        "is_halted": False,
        "is_fresh": True,
        "score": score,
        "z": None if score is None else (score - 0.5) * 4.0,
        "volatility": 0.8,
        "trading_cost": 0.001,
    }
    return MemberStatus(symbol, **{**facts, **known})


def contract(**changed: Any) -> Contract:
    facts: dict[str, Any] = {
        "code": "XBTUSDTM",
        "base": "BTC",
        "quote": "USDT",
        "settle": "USDT",
        "kind": ContractKind.PERPETUAL,
        "status": ContractStatus.OPEN,
        "is_inverse": False,
        "multiplier": Decimal("0.001"),
        "lot_size": 1,
        "tick_size": Decimal("0.1"),
        "max_order_lots": 1_000_000,
        "max_leverage": 100,
        "initial_margin": Decimal("0.01"),
        "maintenance_margin": Decimal("0.005"),
        "maker_fee": Decimal("0.0002"),
        "taker_fee": Decimal("0.0006"),
        "funding_interval_ms": 28_800_000,
        "listed_ms": 1_585_555_200_000,
        "expires_ms": None,
        "market_stage": "NORMAL",
        "market_type": "CRYPTO",
    }
    return Contract(**{**facts, **changed})
