"""Built-in agents: each estimates a probability by its own formula, or abstains without data."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, isfinite, sqrt
from statistics import median
from types import MappingProxyType
from typing import Final

from scipy.special import ndtr

from app.configuration.domain.sections import SignalSettings
from app.foundation.decimal_math import ONE, is_above, to_millionths
from app.market.domain.models import DAYS_A_YEAR
from app.scoring.domain.board import Board, Card, CardStatus
from app.signals.domain.opinion_pool import clip_probability

_HIGH_DAYS: Final = 60.0  # days of the reference high
_HALF_BP: Final = 0.5
Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class UniverseContext:
    """Distribution of all scored symbols of one board, for comparison."""

    costs_bp: tuple[float, ...]  # trading costs, ascending
    volatility: float | None  # annualised median volatility

    @classmethod
    def of(cls, board: Board) -> "UniverseContext":
        scored = [card for card in board.cards if card.status is CardStatus.SCORED]
        costs = (_cost_bp(_raw_factors(card)) for card in scored)
        volatilities = [card.volatility for card in scored if card.volatility is not None]
        return cls(
            costs_bp=tuple(sorted(cost for cost in costs if cost is not None)),
            volatility=median(volatilities) if volatilities else None,
        )


@dataclass(frozen=True, slots=True)
class SignalFeatures:
    """Figures available to agents; an unknown figure is absent."""

    symbol: str
    figures: Figures  # raw factors of the board by name, and "volatility"
    confidence: float | None  # of the symbol's score
    universe: UniverseContext
    blocking_reason: str | None = None  # reason against trading now

    @classmethod
    def of(
        cls, card: Card, universe: UniverseContext, blocking_reason: str | None = None
    ) -> "SignalFeatures":
        figures = dict(_raw_factors(card))
        if card.volatility is not None and isfinite(card.volatility) and card.volatility > 0.0:
            # Sigma of the weighting, not the factor of the same name.
            figures["volatility"] = card.volatility
        confidence = None if card.confidence is None else card.confidence.level
        return cls(card.symbol, MappingProxyType(figures), confidence, universe, blocking_reason)


@dataclass(frozen=True, slots=True)
class AgentVote:
    """Probability that the symbol outperforms the universe median over the horizon."""

    probability: float
    confidence: float
    figures: Figures  # figures used
    veto: str | None = None  # reason against any purchase


@dataclass(frozen=True, slots=True)
class Abstention:
    """Reason why an agent gives no probability."""

    reason: str


@dataclass(frozen=True, slots=True)
class Agent:
    """Named agent; it abstains without any of the figures in `needs`."""

    name: str
    needs: tuple[str, ...]
    estimate: Callable[[SignalFeatures, SignalSettings], AgentVote | Abstention]
    may_veto: bool = False
    is_external: bool = False  # plug-in, asked before the evaluation because it may be slow

    def __call__(self, features: SignalFeatures, rules: SignalSettings) -> AgentVote | Abstention:
        """Votes; equal features give an equal vote at any time."""
        missing = [name for name in self.needs if name not in features.figures]
        if missing:
            return Abstention(f"unknown: {', '.join(missing)}")
        if features.confidence is None:
            return Abstention("the symbol has no score")
        return self.estimate(features, rules)


def technical(features: SignalFeatures, _: SignalSettings) -> AgentVote | Abstention:
    """Votes by the logistic of trend less half the stretch.

    Trend is the distance of the close below its 60-day high in units of the symbol's volatility
    over that time, from +1 (at the high) to -1 (two units below). Stretch is the mean of RSI
    and %b, from -1 (oversold) to +1 (overbought), which tends to revert within days.
    """
    figures = features.figures
    unit = figures["volatility"] * sqrt(_HIGH_DAYS / DAYS_A_YEAR)
    trend = _clip(1.0 + figures["nearness_to_high"] / unit, 1.0)
    strength = (figures["rsi_14"] - 50.0) / 50.0
    stretch = _clip((strength + 2.0 * figures["bollinger_position"] - 1.0) / 2.0, 1.0)
    return _create_vote(
        1.0 / (1.0 + exp(-(trend - 0.5 * stretch))),
        features,
        {"trend": trend, "stretch": stretch},
        ("nearness_to_high", "rsi_14", "bollinger_position", "volatility"),
    )


def fundamental(features: SignalFeatures, _: SignalSettings) -> AgentVote | Abstention:
    """Votes by the normal probability of half the carry less crowding.

    Carry is the yearly funding income of a holder in units of yearly volatility, within two of
    them; crowding is a fourth of the log growth of turnover.
    """
    figures = features.figures
    carry = _clip(-figures["funding_rate"] / figures["volatility"], 2.0)
    crowding = 0.25 * _clip(figures["volume_growth"], 2.0)
    return _create_vote(
        float(ndtr(0.5 * carry - crowding)),
        features,
        {"carry": carry, "crowding": crowding},
        ("funding_rate", "volume_growth", "volatility"),
    )


def market_structure(features: SignalFeatures, _: SignalSettings) -> AgentVote | Abstention:
    """Votes by the share of symbols with higher trading costs, ties half, shrunk half way to 1/2.

    The cost is half the spread and the impact of a small order. Liquidity alone says little
    about a return: the probability stays within 0.25 and 0.75.
    """
    costs, cost = features.universe.costs_bp, _cost_bp(features.figures)
    if cost is None or not costs:
        return Abstention("the trading cost is unknown")
    below, upto = bisect_left(costs, cost), bisect_right(costs, cost)
    more_expensive = (len(costs) - (below + upto) / 2.0) / len(costs)
    return _create_vote(
        0.25 + 0.5 * more_expensive,
        features,
        {"cost_bp": cost, "more_expensive": more_expensive},
        ("spread", "impact"),
    )


def risk(features: SignalFeatures, rules: SignalSettings) -> AgentVote | Abstention:
    """Votes by the median variance as a share of itself and the symbol's: calm symbols fall less.

    Vetoes a purchase above the configured volatility or drawdown, and of symbols that cannot be
    traded now.
    """
    figures, usual = features.figures, features.universe.volatility
    if usual is None or usual <= 0.0:
        return Abstention("the volatility of the universe is unknown")
    volatility, fall = figures["volatility"], -figures["drawdown"]
    calm = usual**2 / (usual**2 + volatility**2)
    vetoes = (
        (features.blocking_reason is not None, features.blocking_reason),
        (
            is_above(volatility, rules.veto_volatility),
            f"its volatility {volatility:.2f} is above the limit",
        ),
        (
            is_above(fall, rules.veto_drawdown),
            f"its drawdown {fall:.0%} is beyond the limit",
        ),
    )
    veto = next((reason for applies, reason in vetoes if applies), None)
    return _create_vote(
        calm, features, {"median_volatility": usual}, ("volatility", "drawdown"), veto
    )


AGENTS: Final[tuple[Agent, ...]] = (
    Agent(
        "technical",
        ("nearness_to_high", "rsi_14", "bollinger_position", "volatility"),
        technical,
    ),
    Agent("fundamental", ("funding_rate", "volume_growth", "volatility"), fundamental),
    Agent("market_structure", ("spread", "impact"), market_structure),
    Agent("risk", ("volatility", "drawdown"), risk, may_veto=True),
)


def _create_vote(
    probability: float,
    features: SignalFeatures,
    derived: Figures,
    used: Sequence[str],
    veto: str | None = None,
) -> AgentVote:
    numbers = {name: features.figures[name] for name in used} | dict(derived)
    confidence = features.confidence or 0.0
    return AgentVote(clip_probability(probability), confidence, MappingProxyType(numbers), veto)


def _raw_factors(card: Card) -> dict[str, float]:
    return {one.name: one.raw for one in card.factors if one.raw is not None and isfinite(one.raw)}


def _cost_bp(figures: Figures) -> float | None:
    if "spread" not in figures or "impact" not in figures:
        return None
    return to_millionths(_HALF_BP * figures["spread"] + figures["impact"]) / ONE


def _clip(value: float, bound: float) -> float:
    return min(max(value, -bound), bound)
