"""Prices of other exchanges: they confirm or are shown as such, and are never scored or traded."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from app.market.domain.price_quarantine import PriceState
from app.market.domain.symbols import SymbolEntry

FRESH_MS: Final = 180_000  # an older price from elsewhere confirms nothing


@dataclass(frozen=True, slots=True)
class ReferencePrice:
    """The last trade of one coin at another exchange; `at_ms` is when it was known there."""

    exchange: str
    base: str  # in our spelling
    quote: str  # USDT, or USD where the exchange has no tether
    price: Decimal
    at_ms: int


def referred(
    states: Mapping[str, PriceState],
    entries: Iterable[SymbolEntry],
    prices: Mapping[str, ReferencePrice],
    server_ms: int,
) -> dict[str, PriceState]:
    """The states with the price of each coin elsewhere; `prices` by base coin.

    A coin without one keeps its former price, which grows old.
    """
    out = dict(states)
    for entry in entries:
        contract, found = entry.contract, prices.get(entry.contract.base)
        if found is None or contract.is_inverse:
            continue
        state = out.get(contract.code)
        if state is None:  # nothing of KuCoin's is known since the start
            state = PriceState(server_ms, 0, contract.multiplier, None)
        out[contract.code] = replace(
            state,
            elsewhere=found.price,
            elsewhere_ms=min(found.at_ms, server_ms),
            elsewhere_at=f"{found.exchange} {found.quote}",
        )
    return out


def young(state: PriceState | None, server_ms: int) -> Decimal | None:
    """The price elsewhere while it is young enough to confirm anything; None otherwise."""
    if state is None or state.elsewhere_ms is None or server_ms - state.elsewhere_ms > FRESH_MS:
        return None
    return state.elsewhere
