"""Alert rules about the members and the portfolio."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations
from typing import Final

from app.alerts.domain.facts import Correlations, ExitFacts, Facts, MemberFacts
from app.alerts.domain.models import RuleReading
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import LimitRule
from app.market.domain.return_statistics import pair_applies

Describe = Callable[[MemberFacts], str]


def _own_symbol(one: MemberFacts) -> tuple[str, ...]:
    return (one.symbol,)


def _with_candidate(one: MemberFacts) -> tuple[str, ...]:
    return (one.symbol, one.candidate) if one.candidate else (one.symbol,)


@dataclass(frozen=True, slots=True)
class MemberRule:
    """Rule that yields one reading per member; `measure` returns None where unknown."""

    measure: Callable[[MemberFacts], float | bool | None]
    describe: Describe
    about: Callable[[MemberFacts], tuple[str, ...]]
    is_state: bool

    def __call__(self, facts: Facts, _: Configuration) -> Sequence[RuleReading]:
        return [self._reading(one) for one in facts.portfolio.members]

    def _reading(self, one: MemberFacts) -> RuleReading:
        value, message, about = self.measure(one), self.describe(one), self.about(one)
        if self.is_state:
            return RuleReading(
                one.symbol, message, about, holds=None if value is None else bool(value)
            )
        return RuleReading(one.symbol, message, about, value)


def _state(
    holds: Callable[[MemberFacts], bool | None],
    describe: Describe,
    about: Callable[[MemberFacts], tuple[str, ...]] = _own_symbol,
) -> MemberRule:
    return MemberRule(holds, describe, about, is_state=True)


def _number(value: Callable[[MemberFacts], float | None], describe: Describe) -> MemberRule:
    return MemberRule(value, describe, _own_symbol, is_state=False)


# A member whose contract is not Open.
not_tradeable: Final = _state(
    lambda one: not one.is_open,
    lambda one: f"{one.symbol} cannot be traded at the exchange: {one.status}",
)

# The contract is closed, settled or delisted.
contract_delisted: Final = _state(
    lambda one: one.is_delisted,
    lambda one: f"KuCoin no longer supports {one.symbol}: its contract is {one.status}",
)

# The prices of the contract are quarantined, or it has no trades while its index moves.
quarantined: Final = _state(
    lambda one: one.is_doubted,
    lambda one: f"The data of {one.symbol} is in quarantine: {one.doubt or 'no longer'}",
)

# The contract is still listed, and its delisting is announced.
delisting_announced: Final = _state(
    lambda one: one.is_ending,
    lambda one: f"The delisting of {one.symbol} is announced; its contract is {one.status}",
)

# A replacement is confirmed by the required number of evaluations.
replacement_recommended: Final = _state(
    lambda one: one.candidate is not None,
    lambda one: f"{one.candidate} should replace {one.symbol}",
    _with_candidate,
)

# Composite score, 0..1.
low_score: Final = _number(
    lambda one: one.score,
    lambda one: f"{one.symbol} scores {_two_decimals(one.score)}",
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
    lambda one: (
        f"The weight of {one.symbol} is {_two_decimals(one.excess)} points beyond its bounds"
    ),
)

# Absolute current funding rate per 8 hours.
funding_extreme: Final = _number(
    lambda one: None if one.funding is None else abs(one.funding),
    lambda one: f"The funding of {one.symbol} is {_fine_percent(one.funding)} in 8 hours",
)

# Move since the last daily close, in daily standard deviations.
price_anomaly: Final = _number(
    lambda one: one.jump,
    lambda one: (
        f"{one.symbol} has moved {_two_decimals(one.jump)} daily deviations since the last close"
    ),
)


def score_dropped(facts: Facts, configuration: Configuration) -> Sequence[RuleReading]:
    """Reads the fall of the composite score over `alerts.score_drop_runs` boards."""
    runs = configuration.alerts.score_drop_runs
    dropped = _number(
        lambda one: _fall(one.former_score, one.score),
        lambda one: (
            f"{one.symbol} scores {_two_decimals(one.score)},"
            f" {_two_decimals(one.former_score)} {runs} boards ago"
        ),
    )
    return dropped(facts, configuration)


def high_correlation(facts: Facts, configuration: Configuration) -> Sequence[RuleReading]:
    """Reads the correlation of each pair on the configured basis, without market pairs."""
    basis = configuration.correlation.basis
    return [
        reading
        for reading in _pair_readings(facts, facts.portfolio.correlations, "move together")
        if pair_applies(reading.symbols[0], reading.symbols[1], basis)
    ]


def high_raw_correlation(facts: Facts, _: Configuration) -> Sequence[RuleReading]:
    """Reads the raw correlation of each pair, the common market factor included."""
    text = "move together, market factor included"
    return _pair_readings(facts, facts.portfolio.raw_correlations, text)


def _pair_readings(facts: Facts, correlations: Correlations, text: str) -> list[RuleReading]:
    known = {tuple(sorted(pair)): rho for pair, rho in correlations.items()}
    symbols = sorted(one.symbol for one in facts.portfolio.members)
    return [
        RuleReading(
            "-".join(pair),
            f"{' and '.join(pair)} {text}: {_two_decimals(known.get(pair))}",
            pair,
            known.get(pair),
        )
        for pair in combinations(symbols, 2)
    ]


def _fall(before: float | None, now: float | None) -> float | None:
    return None if before is None or now is None else round(before - now, 9)


def _two_decimals(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"


def _fine_percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3%}"


PORTFOLIO: Final = "portfolio"


def portfolio_below_size(
    facts: Facts, configuration: Configuration
) -> Sequence[RuleReading] | None:
    """Reads the number of members with a listed contract, once a portfolio was formed.

    The number is None if it depends on contracts with an unknown state.
    """
    portfolio = facts.portfolio
    if not portfolio.was_formed:
        return None
    size = len(portfolio.members)
    delisted = sum(member.is_delisted is True for member in portfolio.members)
    unknown = sum(member.is_delisted is None for member in portfolio.members)
    rule = configuration.alerts.rules.portfolio_below_size
    maximum = size - delisted
    # Undecided if the unknown contracts alone make the difference to the limit.
    is_undecided = (
        unknown > 0 and maximum >= rule.limit and maximum - unknown < rule.limit + rule.clear_margin
    )
    suffix = f", {delisted} of them delisted" if delisted else ""
    message = f"The portfolio has {size} members{suffix}."
    return [RuleReading(PORTFOLIO, message, value=None if is_undecided else float(maximum))]


def sector_concentration(facts: Facts, _: Configuration) -> Sequence[RuleReading]:
    """Reads the share of each sector in the invested weight."""
    return [
        RuleReading(
            sector, f"{share:.0%} of the invested weight is in {sector}.", value=round(share, 6)
        )
        for sector, share in facts.portfolio.sectors.items()
    ]


def var_above_limit(facts: Facts, _: Configuration) -> Sequence[RuleReading]:
    """Reads the one-day value at risk at 95 %, as a fraction of equity."""
    risk = facts.portfolio.value_at_risk
    share = "unknown" if risk is None else f"{risk:.1%}"
    return [RuleReading(PORTFOLIO, f"The one-day value at risk is {share} of equity.", value=risk)]


# Time that an alert about an exit stays open.
EXIT_SHOWN: Final = timedelta(hours=1)


def large_loss(facts: Facts, _: Configuration) -> Sequence[RuleReading]:
    """Reads the loss since inclusion of each member that left within EXIT_SHOWN; 0 for a gain."""
    return _exit_readings(
        facts,
        lambda performance: max(0.0, round(-performance, 9)),
        lambda one, loss: f"{one.symbol} left with a loss of {loss:.1%} since its inclusion",
    )


def profitable_exit(facts: Facts, _: Configuration) -> Sequence[RuleReading]:
    """Reads the gain since inclusion of each member that left within EXIT_SHOWN; 0 for a loss."""
    return _exit_readings(
        facts,
        lambda performance: max(0.0, round(performance, 9)),
        lambda one, gain: f"{one.symbol} left with a gain of {gain:.1%} since its inclusion",
    )


def _exit_readings(
    facts: Facts,
    measure: Callable[[float], float],
    describe: Callable[[ExitFacts, float], str],
) -> list[RuleReading]:
    readings = []
    for one in facts.portfolio.exits:
        if facts.at - one.at >= EXIT_SHOWN:
            continue
        value = None if one.performance is None else measure(one.performance)
        message = f"The result of {one.symbol} at its exit is unknown"
        if value is not None:
            message = describe(one, value)
        subject = f"{one.symbol}:event {one.event}"
        readings.append(RuleReading(subject, message, (one.symbol,), value))
    return readings


def rebalance_done(facts: Facts, configuration: Configuration) -> Sequence[RuleReading]:
    """Reads the last rebalance; the state holds for the configured time."""
    if facts.portfolio.rebalanced is None:
        return []
    event, at = facts.portfolio.rebalanced
    message = f"The portfolio was rebalanced: event {event} of its history."
    is_recent = _is_recent(facts, at, configuration.alerts.rules.rebalance_done)
    return [RuleReading(f"event {event}", message, holds=is_recent)]


def recovered(facts: Facts, configuration: Configuration) -> Sequence[RuleReading]:
    """Reads recoveries of the service or its exchange; each holds for the configured time."""
    rule = configuration.alerts.rules.recovered
    return [
        RuleReading(
            f"{name}:{subject}",
            f"{subject} has recovered from {name}.",
            holds=_is_recent(facts, at, rule),
        )
        for name, subject, at in facts.system.recoveries
    ]


def _is_recent(facts: Facts, at: datetime, rule: LimitRule) -> bool:
    return facts.at - at < timedelta(seconds=rule.limit)
