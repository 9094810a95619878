"""Alert rules about the members and the portfolio."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations
from typing import Final

from app.alerts.domain.facts import Correlations, Facts, MemberFacts
from app.alerts.domain.models import RuleReading
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import LimitRule
from app.market.domain.return_statistics import pair_applies

Describe = Callable[[MemberFacts], str]


def _alone(one: MemberFacts) -> tuple[str, ...]:
    return (one.symbol,)


def _with_rival(one: MemberFacts) -> tuple[str, ...]:
    return (one.symbol, one.rival) if one.rival else (one.symbol,)


@dataclass(frozen=True, slots=True)
class MemberRule:
    """Rule that yields one reading per member; `decides` gives None where unknown."""

    decides: Callable[[MemberFacts], float | bool | None]
    describe: Describe
    about: Callable[[MemberFacts], tuple[str, ...]]
    is_state: bool

    def __call__(self, facts: Facts, _: Configuration) -> Sequence[RuleReading]:
        return [self._reading(one) for one in facts.portfolio.members]

    def _reading(self, one: MemberFacts) -> RuleReading:
        decides, said, about = self.decides(one), self.describe(one), self.about(one)
        if self.is_state:
            return RuleReading(
                one.symbol, said, about, holds=None if decides is None else bool(decides)
            )
        return RuleReading(one.symbol, said, about, decides)


def _state(
    holds: Callable[[MemberFacts], bool | None],
    describe: Describe,
    about: Callable[[MemberFacts], tuple[str, ...]] = _alone,
) -> MemberRule:
    return MemberRule(holds, describe, about, is_state=True)


def _number(value: Callable[[MemberFacts], float | None], describe: Describe) -> MemberRule:
    return MemberRule(value, describe, _alone, is_state=False)


# A member whose contract is not Open.
not_tradeable: Final = _state(
    lambda one: not one.is_open,
    lambda one: f"{one.symbol} cannot be traded at the exchange: {one.status}",
)

# The contract is closed, settled or delisted.
support_lost: Final = _state(
    lambda one: one.is_lost,
    lambda one: f"KuCoin no longer supports {one.symbol}: its contract is {one.status}",
)

# Its prices are quarantined, or it has no trades while its index moves.
quarantined: Final = _state(
    lambda one: one.is_doubted,
    lambda one: f"The data of {one.symbol} is in quarantine: {one.doubt or 'no longer'}",
)

# The contract is still listed, and its end is announced.
delisting_announced: Final = _state(
    lambda one: one.is_ending,
    lambda one: f"The delisting of {one.symbol} is announced; its contract is {one.status}",
)

# A replacement is confirmed by the required number of evaluations.
replacement_recommended: Final = _state(
    lambda one: one.rival is not None,
    lambda one: f"{one.rival} should replace {one.symbol}",
    _with_rival,
)

# Composite score, 0..1.
low_score: Final = _number(
    lambda one: one.score,
    lambda one: f"{one.symbol} scores {_two(one.score)}",
)

# Price since inclusion, as a fraction.
poor_performance: Final = _number(
    lambda one: one.performance,
    lambda one: f"{one.symbol} has moved {_percent(one.performance)} since its inclusion",
)

# Maximum drawdown since inclusion, as a positive fraction.
drawdown: Final = _number(
    lambda one: one.drawdown,
    lambda one: (
        f"{one.symbol} has fallen {_percent(one.drawdown)} from its high since its inclusion"
    ),
)

# Percentage points by which a weight has drifted beyond its bounds.
weight_out_of_bounds: Final = _number(
    lambda one: one.excess,
    lambda one: f"The weight of {one.symbol} is {_two(one.excess)} points beyond its bounds",
)

# Absolute current funding rate per 8 hours.
funding_extreme: Final = _number(
    lambda one: None if one.funding is None else abs(one.funding),
    lambda one: f"The funding of {one.symbol} is {_fine(one.funding)} in 8 hours",
)

# Move since the last daily close, in daily standard deviations.
price_anomaly: Final = _number(
    lambda one: one.jump,
    lambda one: f"{one.symbol} has moved {_two(one.jump)} daily deviations since the last close",
)


def score_dropped(facts: Facts, configuration: Configuration) -> Sequence[RuleReading]:
    """Fall of the composite score over `alerts.score_drop_runs` boards."""
    runs = configuration.alerts.score_drop_runs
    dropped = _number(
        lambda one: _fall(one.former_score, one.score),
        lambda one: (
            f"{one.symbol} scores {_two(one.score)}, {_two(one.former_score)} {runs} boards ago"
        ),
    )
    return dropped(facts, configuration)


def high_correlation(facts: Facts, configuration: Configuration) -> Sequence[RuleReading]:
    """Correlation of each pair on the configured basis; pairs with the market are left out."""
    basis = configuration.correlation.basis
    return [
        reading
        for reading in _pairs(facts, facts.portfolio.correlations, "move together")
        if pair_applies(reading.symbols[0], reading.symbols[1], basis)
    ]


def high_raw_correlation(facts: Facts, _: Configuration) -> Sequence[RuleReading]:
    """Raw correlation of each pair, the common market factor included."""
    said = "move together, the market's part included"
    return _pairs(facts, facts.portfolio.raw_correlations, said)


def _pairs(facts: Facts, correlations: Correlations, said: str) -> list[RuleReading]:
    known = {tuple(sorted(pair)): rho for pair, rho in correlations.items()}
    symbols = sorted(one.symbol for one in facts.portfolio.members)
    return [
        RuleReading(
            "-".join(pair),
            f"{' and '.join(pair)} {said}: {_two(known.get(pair))}",
            pair,
            known.get(pair),
        )
        for pair in combinations(symbols, 2)
    ]


def _fall(before: float | None, now: float | None) -> float | None:
    return None if before is None or now is None else round(before - now, 9)


def _two(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"


def _fine(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3%}"


PORTFOLIO: Final = "portfolio"


def portfolio_below_size(
    facts: Facts, configuration: Configuration
) -> Sequence[RuleReading] | None:
    """Number of members with a listed contract, once a portfolio was formed.

    The number is None where it depends on contracts whose state is unknown.
    """
    held = facts.portfolio
    if not held.was_formed:
        return None
    size = len(held.members)
    lost = sum(one.is_lost is True for one in held.members)
    unknown = sum(one.is_lost is None for one in held.members)
    rule = configuration.alerts.rules.portfolio_below_size
    most = size - lost
    # Undecided if the unknown contracts alone make the difference to the limit.
    is_open = unknown > 0 and most >= rule.limit and most - unknown < rule.limit + rule.clear_margin
    said = f"The portfolio has {size} members"
    gone = f", of which KuCoin no longer supports {lost}" if lost else ""
    return [RuleReading(PORTFOLIO, f"{said}{gone}.", value=None if is_open else float(most))]


def sector_concentration(facts: Facts, _: Configuration) -> Sequence[RuleReading]:
    """Share of each sector in the invested weight."""
    return [
        RuleReading(
            sector, f"{share:.0%} of the invested weight is in {sector}.", value=round(share, 6)
        )
        for sector, share in facts.portfolio.sectors.items()
    ]


def var_above_limit(facts: Facts, _: Configuration) -> Sequence[RuleReading]:
    """One-day value at risk at 95 %, as a fraction of equity."""
    risk = facts.portfolio.value_at_risk
    said = "unknown" if risk is None else f"{risk:.1%}"
    return [RuleReading(PORTFOLIO, f"The value at risk of a day is {said} of equity.", value=risk)]


def rebalance_done(facts: Facts, configuration: Configuration) -> Sequence[RuleReading]:
    """Recent rebalance; holds for the configured time."""
    if facts.portfolio.rebalanced is None:
        return []
    event, at = facts.portfolio.rebalanced
    said = f"The portfolio was rebalanced: event {event} of its history."
    shown = _is_news(facts, at, configuration.alerts.rules.rebalance_done)
    return [RuleReading(f"event {event}", said, holds=shown)]


def recovered(facts: Facts, configuration: Configuration) -> Sequence[RuleReading]:
    """Recent recovery of the service or its exchange; holds for the configured time."""
    rule = configuration.alerts.rules.recovered
    return [
        RuleReading(
            f"{name}:{subject}",
            f"{subject} has recovered from {name}.",
            holds=_is_news(facts, at, rule),
        )
        for name, subject, at in facts.system.recoveries
    ]


def _is_news(facts: Facts, at: datetime, rule: LimitRule) -> bool:
    return facts.at - at < timedelta(seconds=rule.limit)
