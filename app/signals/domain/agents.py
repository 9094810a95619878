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
Known = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class UniverseContext:
    """Distribution of all scored symbols of one board, for comparison."""

    costs_bp: tuple[float, ...]  # trading costs, ascending
    volatility: float | None  # annualised median volatility

    @classmethod
    def of(cls, board: Board) -> "UniverseContext":
        scored = [card for card in board.cards if card.status is CardStatus.SCORED]
        costs = (_cost_bp(_raw(card)) for card in scored)
        moves = [card.volatility for card in scored if card.volatility is not None]
        return cls(
            costs_bp=tuple(sorted(one for one in costs if one is not None)),
            volatility=median(moves) if moves else None,
        )


@dataclass(frozen=True, slots=True)
class SignalFeatures:
    """Figures available to agents; an unknown figure is absent."""

    symbol: str
    figures: Known  # raw factors of the board by name, and "volatility"
    confidence: float | None  # of the symbol's score
    surroundings: UniverseContext
    obstacle: str | None = None  # reason against trading now

    @classmethod
    def of(
        cls, card: Card, around: UniverseContext, obstacle: str | None = None
    ) -> "SignalFeatures":
        figures = dict(_raw(card))
        if card.volatility is not None and isfinite(card.volatility) and card.volatility > 0.0:
            # Sigma of the weighting, not the factor of the same name.
            figures["volatility"] = card.volatility
        confidence = None if card.confidence is None else card.confidence.level
        return cls(card.symbol, MappingProxyType(figures), confidence, around, obstacle)


@dataclass(frozen=True, slots=True)
class AgentVote:
    """Probability that the symbol beats the universe median over the horizon, with a reason."""

    probability: float
    confidence: float
    figures: Known  # figures used
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
    judge: Callable[[SignalFeatures, SignalSettings], AgentVote | Abstention]
    may_veto: bool = False
    is_outside: bool = False  # may be slow, so its answer is requested before the evaluation

    def __call__(self, evidence: SignalFeatures, rules: SignalSettings) -> AgentVote | Abstention:
        """Vote; equal features give an equal vote at any time."""
        missing = [name for name in self.needs if name not in evidence.figures]
        if missing:
            return Abstention(f"not known: {', '.join(missing)}")
        if evidence.confidence is None:
            return Abstention("the symbol has no score")
        return self.judge(evidence, rules)


def technical(evidence: SignalFeatures, _: SignalSettings) -> AgentVote | Abstention:
    """Logistic of trend less half the stretch.

    Trend is the distance of the close below its 60-day high in units of the symbol's volatility
    over that time, from +1 (at the high) to -1 (two units below). Stretch is the mean of RSI
    and %b, from -1 (oversold) to +1 (overbought), which tends to revert within days.
    """
    figures = evidence.figures
    unit = figures["volatility"] * sqrt(_HIGH_DAYS / DAYS_A_YEAR)
    trend = _within(1.0 + figures["nearness_to_high"] / unit, 1.0)
    strength = (figures["rsi_14"] - 50.0) / 50.0
    stretch = _within((strength + 2.0 * figures["bollinger_position"] - 1.0) / 2.0, 1.0)
    return _opinion(
        1.0 / (1.0 + exp(-(trend - 0.5 * stretch))),
        evidence,
        {"trend": trend, "stretch": stretch},
        ("nearness_to_high", "rsi_14", "bollinger_position", "volatility"),
    )


def fundamental(evidence: SignalFeatures, _: SignalSettings) -> AgentVote | Abstention:
    """Normal probability of half the carry less crowding.

    Carry is the yearly funding income of a holder in units of yearly volatility, within two of
    them; crowding is a fourth of the log growth of turnover.
    """
    figures = evidence.figures
    carry = _within(-figures["funding_rate"] / figures["volatility"], 2.0)
    crowding = 0.25 * _within(figures["volume_growth"], 2.0)
    return _opinion(
        float(ndtr(0.5 * carry - crowding)),
        evidence,
        {"carry": carry, "crowding": crowding},
        ("funding_rate", "volume_growth", "volatility"),
    )


def market_structure(evidence: SignalFeatures, _: SignalSettings) -> AgentVote | Abstention:
    """Share of scored symbols with higher trading costs, ties half, shrunk half way to 1/2.

    The cost is half the spread and the impact of a small order. Liquidity alone says little
    about a return: the probability stays within 0.25 and 0.75.
    """
    costs, cost = evidence.surroundings.costs_bp, _cost_bp(evidence.figures)
    if cost is None or not costs:
        return Abstention("what trading costs is not known")
    below, upto = bisect_left(costs, cost), bisect_right(costs, cost)
    dearer = (len(costs) - (below + upto) / 2.0) / len(costs)
    return _opinion(
        0.25 + 0.5 * dearer, evidence, {"cost_bp": cost, "dearer": dearer}, ("spread", "impact")
    )


def risk(evidence: SignalFeatures, rules: SignalSettings) -> AgentVote | Abstention:
    """Median variance as a share of itself and the symbol's: calm symbols hold up better.

    Vetoes a purchase above the configured volatility or drawdown, and of symbols that cannot be
    traded now.
    """
    figures, usual = evidence.figures, evidence.surroundings.volatility
    if usual is None or usual <= 0.0:
        return Abstention("the volatility of the others is not known")
    moves, fall = figures["volatility"], -figures["drawdown"]
    calm = usual**2 / (usual**2 + moves**2)
    vetoes = (
        (evidence.obstacle is not None, evidence.obstacle),
        (
            is_above(moves, rules.veto_volatility),
            f"its volatility {moves:.2f} is above the limit",
        ),
        (
            is_above(fall, rules.veto_drawdown),
            f"it has fallen by {fall:.0%}, beyond the limit",
        ),
    )
    veto = next((said for holds, said in vetoes if holds), None)
    return _opinion(calm, evidence, {"median_volatility": usual}, ("volatility", "drawdown"), veto)


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


def _opinion(
    probability: float,
    evidence: SignalFeatures,
    made: Known,
    used: Sequence[str],
    veto: str | None = None,
) -> AgentVote:
    numbers = {name: evidence.figures[name] for name in used} | dict(made)
    sure = evidence.confidence or 0.0
    return AgentVote(clip_probability(probability), sure, MappingProxyType(numbers), veto)


def _raw(card: Card) -> dict[str, float]:
    return {one.name: one.raw for one in card.factors if one.raw is not None and isfinite(one.raw)}


def _cost_bp(figures: Known) -> float | None:
    if "spread" not in figures or "impact" not in figures:
        return None
    return to_millionths(_HALF_BP * figures["spread"] + figures["impact"]) / ONE


def _within(value: float, bound: float) -> float:
    return min(max(value, -bound), bound)
