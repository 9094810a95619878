"""Values that storage tests put in and expect back."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import NAMESPACE_DNS, uuid5

import numpy as np

from app.foundation.sql.database import Database
from app.market.domain.models import CandleSeries, Contract, ContractKind, ContractStatus
from app.market.storage.symbols import SymbolRecord, SymbolRepository
from app.portfolio.domain.event_log import Draft, EventOrigin, EventType
from app.portfolio.domain.models import FULL, Member, Portfolio

T0 = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
LATER = T0 + timedelta(hours=1)

_CONTRACT = Contract(
    code="",
    base="",
    quote="USDT",
    settle="USDT",
    kind=ContractKind.PERPETUAL,
    status=ContractStatus.OPEN,
    is_inverse=False,
    multiplier=Decimal("0.001"),
    lot_size=1,
    tick_size=Decimal("0.1"),
    max_order_lots=1_000_000,
    max_leverage=100,
    initial_margin=Decimal("0.01"),
    maintenance_margin=Decimal("0.005"),
    maker_fee=Decimal("-0.0002"),
    taker_fee=None,
    funding_interval_ms=28_800_000,
    listed_ms=1_585_555_200_000,
    expires_ms=None,
    market_stage="NORMAL",
    market_type=None,
)


def symbol_id(base: str) -> str:
    return str(uuid5(NAMESPACE_DNS, base))


def record(base: str) -> SymbolRecord:
    return SymbolRecord(
        id=symbol_id(base),
        symbol=f"{base}USDT",
        contract=replace(_CONTRACT, code=f"{base}USDTM", base=base),
        sector="unclassified",
        cap_category="unclassified",
        first_seen=T0,
        last_seen=T0,
        vanished_at=None,
    )


async def listed(database: Database, *bases: str) -> None:
    """Puts symbols into the registry."""
    async with database.write() as unit:
        await unit.get(SymbolRepository).save([record(base) for base in bases], T0)


def member(base: str, rank: int, weight_u: int = 10_000_000) -> Member:
    return Member(
        symbol_id=symbol_id(base),
        symbol=f"{base}USDT",
        contract=f"{base}USDTM",
        rank=rank,
        included_at=T0,
        inclusion_reason="best of the rest",
        inclusion_price=Decimal("0.000012345678901234"),
        inclusion_score=0.1 + 0.2,
        weight_u=weight_u,
        target_weight_u=weight_u,
    )


def portfolio(version: int, *bases: str) -> Portfolio:
    members = tuple(member(base, rank) for rank, base in enumerate(bases, start=1))
    return Portfolio(
        version=version,
        configuration_version=1,
        members=members,
        cash_u=FULL - sum(one.weight_u for one in members),
    )


def series(start_ms: int, bars: int, step_ms: int, level: float = 1.0) -> CandleSeries:
    walk = level * (1.0 + 0.1 * np.sin(np.arange(bars) * 0.7))
    return CandleSeries(
        opened_ms=start_ms + step_ms * np.arange(bars, dtype=np.int64),
        open=walk,
        high=walk * 1.01,
        low=walk * 0.99,
        close=walk * 1.005,
        volume=walk * 1e6,
        turnover=walk * 1e9,
    )


STAMP = EventOrigin(
    actor="operator",
    request_id="r-1",
    occurred_at=T0,
    configuration_version=1,
    input_hash=None,
    code_version="0.1.0",
)


def draft(symbol: str = "BTCUSDT", version: int = 1) -> Draft:
    return Draft(
        type=EventType.ADD,
        symbol=symbol,
        other_symbol=None,
        payload={"version": version, "price": "1.10", "nested": {"b": [1, None, True], "a": "é\0"}},
        reason="because",
    )
