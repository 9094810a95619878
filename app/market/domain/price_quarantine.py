"""Price quarantine of a contract: the checks that start it, and the confirmations that end it.

A pure state per contract is updated with each reading; times are exchange time in milliseconds.
"""

from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any

from app.configuration.domain.sections import QualitySettings
from app.foundation.decimal_math import is_above, to_millionths


class QuarantineReason(StrEnum):
    """Reason of a quarantine."""

    LAST_OFF_MARK = "last_off_mark"
    MARK_OFF_INDEX = "mark_off_index"
    UNCONFIRMED_JUMP = "unconfirmed_jump"
    LOT_CHANGED = "quarantine_changed_lot"
    TURNOVER_OFF_PRICE = "turnover_off_price"
    UNCONFIRMED_VOLUME = "unconfirmed_volume"


QUARANTINE_TEXTS = {
    QuarantineReason.LAST_OFF_MARK: "the last trade is too far from the mark price",
    QuarantineReason.MARK_OFF_INDEX: "the mark price is too far from the index",
    QuarantineReason.UNCONFIRMED_JUMP: "the price jumped, and no index confirms it",
    QuarantineReason.TURNOVER_OFF_PRICE: "turnover does not match volume and price",
    QuarantineReason.UNCONFIRMED_VOLUME: (
        "the volume of the hour jumped, and no price move confirms it"
    ),
    QuarantineReason.LOT_CHANGED: (
        "the contract size changed, and an equal value of a lot is not confirmed yet"
    ),
}


@dataclass(frozen=True, slots=True)
class PriceReading:
    """Prices of a contract at one moment; None is unknown.

    `reference_price` comes from another exchange: it replaces a missing index, and is never shown
    or scored as KuCoin's. Readings with an equal `stamp` are the same reading.
    """

    at_ms: int
    stamp: int
    multiplier: Decimal
    last: Decimal | None
    mark: Decimal | None
    index: Decimal | None
    traded_ms: int | None  # time of the last trade
    reference_price: Decimal | None = None
    price_deviation: float | None = None  # turnover / volume outside the prices of its time
    volume_jump: float | None = None  # of the newest hour, unexplained by its price range

    @property
    def comparison_price(self) -> Decimal | None:
        return self.index if self.index is not None else self.reference_price


@dataclass(frozen=True, slots=True)
class PriceState:
    """State of one contract; `quarantine_reason` is None outside a quarantine."""

    read_ms: int  # time of `mark`; faster readings do not replace it
    stamp: int
    multiplier: Decimal
    mark: Decimal | None
    quarantine_reason: QuarantineReason | None = None
    since_ms: int | None = None  # start of the quarantine
    confirmed: int = 0  # confirming readings in a row
    confirmed_ms: int | None = None  # time of the last counted one
    lot_value: Decimal | None = None  # value of a lot before its size changed
    traded_ms: int | None = None
    index_at_trade: Decimal | None = None  # index at the first sight of the last trade
    reference_price: Decimal | None = None  # last price at another exchange
    reference_ms: int | None = None  # its time there
    reference_source: str | None = None  # the exchange and the currency


def deviation(one: Decimal | None, other: Decimal | None) -> float | None:
    """Returns |one / other - 1|; None where either is missing or not positive."""
    if one is None or other is None or one <= 0 or other <= 0:
        return None
    return abs(float(one / other) - 1.0)


def find_price_contradiction(
    last: Decimal | None, mark: Decimal | None, index: Decimal | None, rules: QualitySettings
) -> QuarantineReason | None:
    """Returns the contradiction of prices of one moment; None without one or without prices."""
    away = deviation(last, mark)
    if away is not None and to_millionths(away) > to_millionths(rules.max_last_vs_mark_deviation):
        return QuarantineReason.LAST_OFF_MARK
    away = deviation(mark, index)
    if away is not None and to_millionths(away) > to_millionths(rules.max_mark_vs_index_deviation):
        return QuarantineReason.MARK_OFF_INDEX
    return None


def find_volume_contradiction(
    price_deviation: float | None, jump: float | None, rules: QualitySettings
) -> QuarantineReason | None:
    """Returns the contradiction of volume figures; None without one or without figures."""
    if price_deviation is not None and is_above(
        price_deviation, rules.max_turnover_price_deviation
    ):
        return QuarantineReason.TURNOVER_OFF_PRICE
    if jump is not None and is_above(jump, rules.max_volume_jump):
        return QuarantineReason.UNCONFIRMED_VOLUME
    return None


def apply_reading(
    state: PriceState | None, reading: PriceReading, rules: QualitySettings
) -> PriceState:
    """Returns the state after one more reading; an equal reading changes nothing.

    A quarantine ends with `confirmations` readings in a row, `confirmation_gap_s` apart, whose
    price the index (or the other exchange) confirms. After a change of the contract size it takes
    as many readings at which a lot is worth what it was before. Otherwise only the operator ends
    it.
    """
    if state is None:
        first = PriceState(reading.at_ms, reading.stamp, reading.multiplier, reading.mark)
        reason = find_price_contradiction(
            reading.last, reading.mark, reading.comparison_price, rules
        )
        reason = reason or find_volume_contradiction(
            reading.price_deviation, reading.volume_jump, rules
        )
        first = replace(first, **_first_sight_of_trade(first, reading))
        return first if reason is None else _in_quarantine(first, reason, reading)
    if reading.stamp == state.stamp and reading.multiplier == state.multiplier:
        return state
    reason = _find_reason(state, reading, rules)
    changes: dict[str, Any] = {"stamp": reading.stamp, "multiplier": reading.multiplier}
    changes |= _first_sight_of_trade(state, reading)
    if reading.mark is not None and (
        state.mark is None or reading.at_ms - state.read_ms >= rules.price_jump_window_s * 1000 // 2
    ):
        changes |= {"mark": reading.mark, "read_ms": reading.at_ms}
    if (
        reason is QuarantineReason.LOT_CHANGED
        and state.quarantine_reason is not QuarantineReason.LOT_CHANGED
    ):
        changes["lot_value"] = None if state.mark is None else state.mark * state.multiplier
    after = replace(state, **changes)
    if reason is not None:
        return _in_quarantine(after, reason, reading)
    return after if state.quarantine_reason is None else _confirm(after, reading, rules)


def release(state: PriceState) -> PriceState:
    """Returns the state after a release by the operator."""
    return replace(
        state, quarantine_reason=None, since_ms=None, confirmed=0, confirmed_ms=None, lot_value=None
    )


def quarantine_changed_lot(state: PriceState, lot_value: Decimal | None, at_ms: int) -> PriceState:
    """Returns the state in quarantine for a contract size that changed while prices were not read.

    `lot_value` is the value of a lot before; without it only the operator ends the quarantine.
    """
    return replace(
        state,
        quarantine_reason=QuarantineReason.LOT_CHANGED,
        since_ms=at_ms if state.quarantine_reason is None else state.since_ms,
        confirmed=0,
        confirmed_ms=None,
        lot_value=lot_value,
    )


def is_frozen(state: PriceState, reading: PriceReading, rules: QualitySettings) -> bool:
    """True if there has been no trade for long while the index moved."""
    if state.traded_ms is None or reading.traded_ms != state.traded_ms:
        return False
    moved = deviation(reading.index, state.index_at_trade)
    still_s = (reading.at_ms - state.traded_ms) / 1000
    if moved is None or still_s < rules.stale_trade_after_s:
        return False
    return to_millionths(moved) > to_millionths(rules.stale_trade_index_move)


def _find_reason(
    state: PriceState, reading: PriceReading, rules: QualitySettings
) -> QuarantineReason | None:
    """Returns the reason for a quarantine by this reading."""
    if reading.multiplier != state.multiplier:
        return QuarantineReason.LOT_CHANGED
    contradiction = find_price_contradiction(
        reading.last, reading.mark, reading.comparison_price, rules
    )
    if contradiction is not None:
        return contradiction
    is_recent = reading.at_ms - state.read_ms <= rules.price_jump_window_s * 1000
    moved = deviation(reading.mark, state.mark)
    jumped = moved is not None and to_millionths(moved) > to_millionths(rules.max_price_jump)
    if is_recent and jumped and reading.comparison_price is None:
        return QuarantineReason.UNCONFIRMED_JUMP
    return find_volume_contradiction(reading.price_deviation, reading.volume_jump, rules)


def _has_same_lot_value(
    reading: PriceReading, lot_value: Decimal | None, rules: QualitySettings
) -> bool:
    if reading.mark is None:
        return False
    away = deviation(reading.mark * reading.multiplier, lot_value)
    return away is not None and to_millionths(away) <= to_millionths(rules.max_contract_size_change)


def _in_quarantine(
    state: PriceState, reason: QuarantineReason, reading: PriceReading
) -> PriceState:
    """Returns the state in quarantine; a changed contract size stays the reason until confirmed."""
    is_lot_unconfirmed = state.quarantine_reason is QuarantineReason.LOT_CHANGED
    return replace(
        state,
        quarantine_reason=QuarantineReason.LOT_CHANGED if is_lot_unconfirmed else reason,
        since_ms=reading.at_ms if state.quarantine_reason is None else state.since_ms,
        confirmed=0,
        confirmed_ms=None,
    )


def _confirm(state: PriceState, reading: PriceReading, rules: QualitySettings) -> PriceState:
    """Returns the state one reading closer to the end of quarantine, if the reading confirms."""
    if state.quarantine_reason is QuarantineReason.LOT_CHANGED:
        confirms = _has_same_lot_value(reading, state.lot_value, rules)
    else:
        confirms = deviation(reading.mark, reading.comparison_price) is not None
    if not confirms:
        return replace(state, confirmed=0, confirmed_ms=None)
    counted = state.confirmed_ms
    if counted is not None and reading.at_ms - counted < rules.confirmation_gap_s * 1000:
        return state
    if state.confirmed + 1 >= rules.confirmations:
        return release(state)
    return replace(state, confirmed=state.confirmed + 1, confirmed_ms=reading.at_ms)


def _first_sight_of_trade(state: PriceState, reading: PriceReading) -> dict[str, Any]:
    """Returns the changes by a new last trade: its time, and the index at its first sight."""
    if reading.traded_ms is None or (
        reading.traded_ms == state.traded_ms and state.index_at_trade is not None
    ):
        return {}
    return {"traded_ms": reading.traded_ms, "index_at_trade": reading.index}
