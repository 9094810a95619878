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


def support_lost(facts: Facts, _: Configuration) -> Sequence[Reading]:
    """The exchange has closed or settled the contract, or lists it no longer."""
    return [
        Reading(
            one.symbol,
            f"KuCoin no longer supports {one.symbol}: its contract is {one.status}",
            (one.symbol,),
            holds=one.is_lost,
        )
        for one in facts.portfolio.members
    ]


def delisting_announced(facts: Facts, _: Configuration) -> Sequence[Reading]:
    """The contract is still listed, and the exchange has said when it ends."""
    return [
        Reading(
            one.symbol,
            f"The delisting of {one.symbol} is announced; its contract is {one.status}",
            (one.symbol,),
            holds=one.is_ending,
        )
        for one in facts.portfolio.members
    ]


def score_dropped(facts: Facts, configuration: Configuration) -> Sequence[Reading]:
    """How far the composite score has fallen since some boards ago."""
    runs = configuration.alerts.score_drop_runs
    return [
        Reading(
            one.symbol,
            f"{one.symbol} scores {_two(one.score)}, {_two(one.former_score)} {runs} boards ago",
            (one.symbol,),
            _fall(one.former_score, one.score),
        )
        for one in facts.portfolio.members
    ]


def drawdown(facts: Facts, _: Configuration) -> Sequence[Reading]:
    """The deepest fall since inclusion, as a positive fraction."""
    return [
        Reading(
            one.symbol,
            f"{one.symbol} has fallen {_percent(one.drawdown)} from its high since its inclusion",
            (one.symbol,),
            one.drawdown,
        )
        for one in facts.portfolio.members
    ]


def weight_out_of_bounds(facts: Facts, _: Configuration) -> Sequence[Reading]:
    """Percentage points by which prices have carried a weight beyond its bounds."""
    return [
        Reading(
            one.symbol,
            f"The weight of {one.symbol} is {_two(one.excess)} points beyond its bounds",
            (one.symbol,),
            one.excess,
        )
        for one in facts.portfolio.members
    ]


def funding_extreme(facts: Facts, _: Configuration) -> Sequence[Reading]:
    """Size of the running funding rate, per 8 hours."""
    return [
        Reading(
            one.symbol,
            f"The funding of {one.symbol} is {_fine(one.funding)} in 8 hours",
            (one.symbol,),
            None if one.funding is None else abs(one.funding),
        )
        for one in facts.portfolio.members
    ]


def price_anomaly(facts: Facts, _: Configuration) -> Sequence[Reading]:
    """The move since the last daily close, in standard deviations of a day."""
    return [
        Reading(
            one.symbol,
            f"{one.symbol} has moved {_two(one.jump)} daily deviations since the last close",
            (one.symbol,),
            one.jump,
        )
        for one in facts.portfolio.members
    ]


def replacement_recommended(facts: Facts, _: Configuration) -> Sequence[Reading]:
    """A rival was found better in so many evaluations that nothing speaks against a swap."""
    return [
        Reading(
            one.symbol,
            f"{one.rival} should take the place of {one.symbol}",
            (one.symbol, one.rival) if one.rival else (one.symbol,),
            holds=one.rival is not None,
        )
        for one in facts.portfolio.members
    ]


def _fall(before: float | None, now: float | None) -> float | None:
    return None if before is None or now is None else round(before - now, 9)


def _two(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"


def _fine(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3%}"
