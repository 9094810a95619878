"""The rules about the members: each sees every member, known or unknown."""

from collections.abc import Sequence
from itertools import combinations

from app.domain.alert_facts import Facts
from app.domain.alerts import Reading
from app.domain.configuration import Configuration


def not_tradeable(facts: Facts, _: Configuration) -> Sequence[Reading]:
    """A member whose contract is not Open."""
    return [
        Reading(
            one.symbol,
            f"{one.symbol} cannot be traded at the exchange: {one.status}",
            (one.symbol,),
            holds=not one.is_open,
        )
        for one in facts.portfolio.members
    ]


def low_score(facts: Facts, _: Configuration) -> Sequence[Reading]:
    """Composite score, 0..1."""
    return [
        Reading(one.symbol, f"{one.symbol} scores {_two(one.score)}", (one.symbol,), one.score)
        for one in facts.portfolio.members
    ]


def high_correlation(facts: Facts, _: Configuration) -> Sequence[Reading]:
    """Correlation of each pair, on the basis that the settings name."""
    known = {tuple(sorted(pair)): rho for pair, rho in facts.portfolio.correlations.items()}
    symbols = sorted(one.symbol for one in facts.portfolio.members)
    return [
        Reading(
            "-".join(pair),
            f"{' and '.join(pair)} move together: {_two(known.get(pair))}",
            pair,
            known.get(pair),
        )
        for pair in combinations(symbols, 2)
    ]


def poor_performance(facts: Facts, _: Configuration) -> Sequence[Reading]:
    """Price since inclusion, as a fraction."""
    return [
        Reading(
            one.symbol,
            f"{one.symbol} has moved {_percent(one.performance)} since its inclusion",
            (one.symbol,),
            one.performance,
        )
        for one in facts.portfolio.members
    ]


def _two(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"
