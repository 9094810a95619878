"""The rules about the portfolio as a whole, and news that end by themselves after a while."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from app.alerts.domain.facts import Facts
from app.alerts.domain.models import Reading
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import LimitRule

PORTFOLIO: Final = "portfolio"


def portfolio_below_size(facts: Facts, configuration: Configuration) -> Sequence[Reading] | None:
    """Number of members that the exchange still supports, once a portfolio was formed.

    The number of a reading is None where it depends on contracts of which nothing is known.
    """
    held = facts.portfolio
    if not held.was_formed:
        return None
    size = len(held.members)
    lost = sum(one.is_lost is True for one in held.members)
    unknown = sum(one.is_lost is None for one in held.members)
    rule = configuration.alerts.rules.portfolio_below_size
    most = size - lost
    # It is surely too small even with the unknown ones, or surely not without them; or else open.
    is_open = unknown > 0 and most >= rule.limit and most - unknown < rule.limit + rule.clear_margin
    said = f"The portfolio has {size} members"
    gone = f", of which KuCoin no longer supports {lost}" if lost else ""
    return [Reading(PORTFOLIO, f"{said}{gone}.", value=None if is_open else float(most))]


def sector_concentration(facts: Facts, _: Configuration) -> Sequence[Reading]:
    """Share of each sector in what is invested."""
    return [
        Reading(sector, f"{share:.0%} of what is invested is in {sector}.", value=round(share, 6))
        for sector, share in facts.portfolio.sectors.items()
    ]


def var_above_limit(facts: Facts, _: Configuration) -> Sequence[Reading]:
    """Value at risk of one day at 95 %, as a fraction of equity."""
    risk = facts.portfolio.value_at_risk
    said = "unknown" if risk is None else f"{risk:.1%}"
    return [Reading(PORTFOLIO, f"The value at risk of a day is {said} of equity.", value=risk)]


def rebalance_done(facts: Facts, configuration: Configuration) -> Sequence[Reading]:
    """News for a while: weights were set."""
    if facts.portfolio.rebalanced is None:
        return []
    event, at = facts.portfolio.rebalanced
    said = f"The portfolio was rebalanced: event {event} of its history."
    shown = _is_news(facts, at, configuration.alerts.rules.rebalance_done)
    return [Reading(f"event {event}", said, holds=shown)]


def recovered(facts: Facts, configuration: Configuration) -> Sequence[Reading]:
    """News for a while: something of the service or its exchange is well again."""
    rule = configuration.alerts.rules.recovered
    return [
        Reading(
            f"{name}:{subject}",
            f"{subject} has recovered from {name}.",
            holds=_is_news(facts, at, rule),
        )
        for name, subject, at in facts.system.recoveries
    ]


def _is_news(facts: Facts, at: datetime, rule: LimitRule) -> bool:
    return facts.at - at < timedelta(seconds=rule.limit)
