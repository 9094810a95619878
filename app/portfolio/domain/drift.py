"""Where prices have carried the weights since they were last set."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

from app.portfolio.domain.models import FULL, Portfolio
from app.portfolio.domain.weight_allocation import whole


def marked(
    portfolio: Portfolio, set_at: Mapping[str, Decimal], now: Mapping[str, Decimal]
) -> Portfolio:
    """The portfolio with every weight moved by its price, relative to the equity index.

    `set_at` and `now` are mark prices by symbol: of the moment when weights were last set, and of
    this one. A member without both keeps its weight of record; the others and the cash share
    what is left in proportion to what they are worth now. Weights and cash stay exactly FULL.
    """
    moved = {
        one.symbol: one.weight_u * Fraction(now[one.symbol]) / Fraction(set_at[one.symbol])
        for one in portfolio.members
        if set_at.get(one.symbol, Decimal(0)) > 0 and now.get(one.symbol, Decimal(0)) > 0
    }
    kept = sum(one.weight_u for one in portfolio.members if one.symbol not in moved)
    worth = sum(moved.values(), Fraction(portfolio.cash_u))
    if worth <= 0:
        return portfolio
    share = (FULL - kept) / worth
    names = tuple(moved)
    exact = [moved[name] * share for name in names] + [portfolio.cash_u * share]
    units = whole(exact, FULL - kept)
    weights = dict(zip(names, units, strict=False))
    members = tuple(
        replace(one, weight_u=weights.get(one.symbol, one.weight_u)) for one in portfolio.members
    )
    return replace(portfolio, members=members, cash_u=units[-1])


def prices_of(payload: Mapping[str, Any]) -> dict[str, Decimal]:
    """The known mark prices that an event carries, by symbol."""
    marks = payload.get("marks", {}).values()
    return {one["symbol"]: Decimal(one["mark"]) for one in marks if one["mark"] is not None}
