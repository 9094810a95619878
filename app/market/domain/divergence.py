"""Compares two ways to the same quote: as the exchange streams it and as it answers a request."""

from decimal import Decimal

from app.configuration.domain.quality_rules import QualityRules
from app.foundation.decimal_math import to_millionths
from app.market.domain.models import Ticker
from app.market.domain.price_quarantine import deviation


def parted_since(
    since: float | None, told: Ticker, answered: Ticker, at: float, rules: QualityRules
) -> float | None:
    """Since which second both ways differ, after one more look at them; None while they agree.

    Mid prices are compared. Where one side of a quote is missing nothing is learned.
    """
    away = deviation(_mid(told), _mid(answered))
    if away is None:
        return since
    if to_millionths(away) <= to_millionths(rules.divergence):
        return None
    return at if since is None else since


def has_diverged(since: float, at: float, rules: QualityRules) -> bool:
    """Whether both ways have differed for so long that neither is believed."""
    return at - since >= rules.divergence_after


def _mid(quote: Ticker) -> Decimal | None:
    if quote.bid is None or quote.ask is None:
        return None
    return (quote.bid + quote.ask) / 2
