"""What a lot of each contract was when its price was last looked at: kept over restarts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

from app.market.domain.price_quarantine import Doubt, PriceState, lot_changed
from app.market.domain.symbols import SymbolEntry
from app.market.services.snapshot import MarketMoment

LOTS: Final = "quality_lots"  # the fact: symbol id -> multiplier, value before a change in doubt


@dataclass(frozen=True, slots=True)
class Lot:
    """`value` is that of a lot before its size changed, while that is in doubt."""

    multiplier: Decimal
    value: Decimal | None = None


def seen(moment: MarketMoment) -> dict[str, Lot]:
    """By symbol id, of every contract whose price was looked at."""
    states = moment.market.quality
    return {
        entry.symbol_id: Lot(state.multiplier, state.lot_value)
        for entry in moment.known.index.entries
        if (state := states.get(entry.contract.code)) is not None
    }


def document(lots: Mapping[str, Lot]) -> dict[str, list[str | None]]:
    """As it is stored."""
    return {
        symbol_id: [str(lot.multiplier), None if lot.value is None else str(lot.value)]
        for symbol_id, lot in lots.items()
    }


def recalled(stored: Any) -> dict[str, Lot]:
    """What was stored; nothing where nothing was."""
    return {
        symbol_id: Lot(Decimal(multiplier), None if value is None else Decimal(value))
        for symbol_id, (multiplier, value) in (stored or {}).items()
    }


def noticed(
    state: PriceState, lot: Lot | None, entry: SymbolEntry, moment: MarketMoment
) -> PriceState:
    """The state of a contract that was last looked at with that lot, maybe a long time ago."""
    if lot is None:
        return state
    if lot.multiplier != entry.contract.multiplier:
        value = lot.value
        if value is None:
            price = _last_close(entry.contract.code, moment)
            value = None if price is None else price * lot.multiplier
        return lot_changed(state, value, moment.server_ms)
    if state.doubt is Doubt.LOT_CHANGED and state.lot_value is None:
        return replace(state, lot_value=lot.value)
    return state


def _last_close(code: str, moment: MarketMoment) -> Decimal | None:
    """Of the newest stored candle: nothing younger is known from before an absence."""
    for held in (moment.market.hourly.get(code), moment.market.daily.get(code)):
        if held is not None and len(held.value):
            return Decimal(str(held.value.close[-1]))
    return None
