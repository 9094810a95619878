"""Evidence on a symbol as good as any other, of which tests change one thing."""

from app.configuration.domain.sections import Family
from app.scoring.domain.board import Card, CardStatus, Confidence, FactorReading
from app.signals.domain.agents import SignalFeatures, UniverseContext

# A symbol half a unit of movement below its high, neither sold out nor overbought.
FIGURES = {
    "nearness_to_high": -0.12,
    "rsi_14": 45.0,
    "bollinger_position": 0.4,
    "funding_rate": -0.6,
    "volume_growth": -0.5,
    "spread": 1.0,
    "impact": 1.0,
    "drawdown": -0.3,
}
COSTS = tuple(float(cost) for cost in range(1, 41))  # of the others, basis points


def card(symbol: str, volatility: float | None = 0.6, **figures: float | None) -> Card:
    """Scored; a figure that is None is not known."""
    known = {**FIGURES, **figures}
    readings = tuple(
        FactorReading(name, Family.RISK, raw, "x", 0.0, 0.1, 0.0, None if raw else "missing")
        for name, raw in known.items()
    )
    return Card(
        symbol=symbol,
        status=CardStatus.SCORED,
        reason=None,
        families={},
        composite=0.7,
        z=0.5,
        confidence=Confidence(0.9, 1.0, 1.0, None),
        rank=1,
        volatility=volatility,
        factors=readings,
    )


def evidence(
    obstacle: str | None = None, volatility: float | None = 0.6, **figures: float | None
) -> SignalFeatures:
    around = UniverseContext(COSTS, 0.9)
    one = card("BTCUSDT", volatility, **figures)
    return SignalFeatures.of(one, around, obstacle)
