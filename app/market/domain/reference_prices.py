"""Reference prices of other exchanges, which confirm KuCoin's and are never scored or traded."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from app.market.domain.price_quarantine import PriceState
from app.market.domain.symbols import SymbolEntry

FRESH_MS: Final = 180_000  # an older reference price confirms nothing


@dataclass(frozen=True, slots=True)
class ReferencePrice:
    """Last trade of one coin at another exchange at `at_ms`, the other exchange's time."""

    exchange: str
    base: str  # standard name
    quote: str  # USDT, or USD where the exchange lists no tether
    price: Decimal
    at_ms: int


def with_reference_prices(
    states: Mapping[str, PriceState],
    entries: Iterable[SymbolEntry],
    prices: Mapping[str, ReferencePrice],
    server_ms: int,
) -> dict[str, PriceState]:
    """Returns the states with the reference price of each coin; `prices` by base coin.

    A coin without one keeps its former price, which ages.
    """
    out = dict(states)
    for entry in entries:
        contract, reference = entry.contract, prices.get(entry.contract.base)
        if reference is None or contract.is_inverse:
            continue
        state = out.get(contract.code)
        if state is None:  # no KuCoin price has arrived since the start
            state = PriceState(server_ms, 0, contract.multiplier, None)
        out[contract.code] = replace(
            state,
            reference_price=reference.price,
            reference_ms=min(reference.at_ms, server_ms),
            reference_source=f"{reference.exchange} {reference.quote}",
        )
    return out


def fresh_reference_price(state: PriceState | None, server_ms: int) -> Decimal | None:
    """Returns the reference price while it is fresh enough to confirm anything; None otherwise."""
    if state is None or state.reference_ms is None or server_ms - state.reference_ms > FRESH_MS:
        return None
    return state.reference_price
