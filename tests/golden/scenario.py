"""The golden hours: settings, faults at fixed seconds, and what the operator asks for."""

from dataclasses import replace
from decimal import Decimal
from typing import Final

from app.configuration.domain.document import validate
from app.configuration.domain.model import (
    Configuration,
    CorrelationSettings,
    IntervalSettings,
    ReplacementSettings,
)
from app.configuration.domain.sections import (
    AutomationMode,
    AutomationSettings,
    SignalSettings,
    SizingSettings,
)
from app.signals.domain.models import Direction, SignalClaim
from tests.support.recording_fixtures import Act, Studio

FOR_S: Final = 12 * 3_600.0
CONTRACTS: Final = 20
BOARD_S: Final = 600
BALANCE: Final = "25000"
SIZE: Final = 5  # members at the start: room for one more remains

# Intervals are short so that twelve hours hold every kind of decision.
CADENCES: Final = IntervalSettings(
    market_s=60,
    order_books_s=600,
    order_book_batch_s=60,
    candle_poll_s=120,
    scoring_s=BOARD_S,
    funding_s=3_600,
)
REPLACEMENT: Final = ReplacementSettings(
    noise_multiple=0.0,
    noise_default=0.05,
    confirmation_interval_s=600,
    max_pause_s=2_400,
    confirmations=2,
    min_holding_s=1_800,
    cooldown_s=1_200,
    min_confidence=0.0,
    max_per_sector=SIZE + 1,
    horizon_days=365.0,
    auto_execute_confirmed=True,
)
SIGNALS: Final = SignalSettings(
    horizon_days=0.125,
    min_outcomes=5,
    min_consensus=0.5,
    ttl_s=7_200,
    automation_by_type={"rotation": AutomationMode.AUTO},
)


def configuration() -> Configuration:
    """The settings of the golden hours; version 1 are the defaults."""
    made = replace(
        Configuration(),
        max_portfolio_symbols=SIZE + 1,
        max_weight_percentage=Decimal(30),
        entry_score=0.5,
        exit_score=0.42,
        rebalance_threshold=Decimal(2),
        rebalance_interval_s=3_600,
        rebalance_min_spacing_s=600,
        intervals=CADENCES,
        correlation=CorrelationSettings(limit=0.9),
        replacement=REPLACEMENT,
        signals=SIGNALS,
        sizing=SizingSettings(reference_balance=Decimal(BALANCE)),
        automation=AutomationSettings(proposal_ttl_s=2_400),
    )
    return validate({}, made)


async def heal(studio: Studio) -> None:
    await studio.control("DELETE", "faults")


def fault(**asked: object) -> Act:
    """Arms a fault of the local exchange."""

    async def arm(studio: Studio) -> None:
        await studio.control("POST", "faults", **asked)

    return arm


def event(**asked: object) -> Act:
    async def happen(studio: Studio) -> None:
        await studio.control("POST", "events", **asked)

    return happen


def plant(**asked: object) -> Act:
    async def change(studio: Studio) -> None:
        await studio.control("POST", "market", **asked)

    return change


TICKERS: Final = "/api/v1/allTickers"


def faults() -> dict[float, Act]:
    """By the second at which they happen; each is taken back before the next one."""
    return {
        3_900.0: fault(
            kind="malformed", path=TICKERS, symbol="ETHUSDTM", field="price", value="3200000.5"
        ),
        4_500.0: heal,
        7_500.0: fault(kind="reset", path="*"),
        8_700.0: heal,
        10_000.0: plant(symbol="XBTUSDTM", price_factor=1.05),
        11_100.0: plant(symbol="ETHUSDTM", price_factor=0.93),
        13_000.0: fault(kind="status", path=TICKERS, status=503),
        13_900.0: heal,
        15_000.0: fault(kind="contract_status", symbol="XBTUSDTM", status="Paused"),
        18_600.0: heal,
        20_000.0: fault(kind="exchange_status", path="*/status", status="cancelonly"),
        21_500.0: heal,
        23_000.0: event(kind="delist", symbol="SOLUSDTM", in_minutes=90),
        25_000.0: fault(kind="status", path="*/level2/*", status=503),
        27_500.0: heal,
        29_000.0: event(kind="multiplier", symbol="DOGEUSDTM", multiplier=1_000.0),
        30_000.0: plant(symbol="PEPEUSDTM", spread_factor=80.0),
        31_000.0: fault(kind="contract_status", symbol="ETHUSDTM", status="BeingSettled"),
        33_500.0: heal,
        35_000.0: fault(kind="clock_skew", path="*/timestamp", ms=90_000),
        35_600.0: heal,
        36_200.0: plant(symbol="XRPUSDTM", price_factor=0.6),
        37_000.0: fault(kind="reset", path="*"),
        37_900.0: heal,
        39_000.0: plant(symbol="XBTUSDTM", funding_rate=0.02),
        40_000.0: fault(kind="vanish", path="*/contracts/active", share=0.6),
        40_900.0: heal,
        41_500.0: plant(symbol="LINKUSDTM", price_factor=1.15),
    }


def _signal(
    source: str, kind: str, symbol: str, direction: Direction, strength: float, confidence: float
) -> SignalClaim:
    return SignalClaim(source, kind, strength, confidence, symbol, direction)


# Two of them are sent in each round, in turn.
CLAIMS: Final = (
    _signal("desk", "momentum", "BTCUSDT", Direction.BUY, 0.95, 0.9),
    _signal("model", "rotation", "LINKUSDT", Direction.BUY, 0.8, 0.8),
    _signal("desk", "news", "ZECUSDT", Direction.SELL, 0.9, 0.7),
    _signal("model", "rotation", "AVAXUSDT", Direction.SELL, 0.6, 0.9),
    _signal("desk", "momentum", "BNBUSDT", Direction.BUY, 0.51, 0.99),
    _signal("model", "rotation", "DOGEUSDT", Direction.BUY, 0.99, 0.51),
    _signal("desk", "news", "XRPUSDT", Direction.SELL, 0.95, 0.95),
    _signal("model", "momentum", "ADAUSDT", Direction.SELL, 0.7, 0.8),
    _signal("desk", "rotation", "PEPEUSDT", Direction.SELL, 0.85, 0.85),
    _signal("model", "news", "SUIUSDT", Direction.BUY, 0.4, 0.9),
    _signal("desk", "momentum", "ETHUSDT", Direction.SELL, 0.9, 0.9),
    _signal("model", "rotation", "HYPEUSDT", Direction.BUY, 0.9, 0.9),
    _signal("desk", "news", "BTCUSDT", Direction.SELL, 0.8, 0.8),
)
