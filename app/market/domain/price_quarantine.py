"""Prices that are not believed: what puts a contract into quarantine, and what lets it out again.

A pure state per contract goes from reading to reading; times are exchange time in milliseconds.
"""

from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum

from app.configuration.domain.sections import QualitySettings
from app.foundation.decimal_math import is_above, to_millionths


class Doubt(StrEnum):
    """Why prices are not believed."""

    LAST_OFF_MARK = "last_off_mark"
    MARK_OFF_INDEX = "mark_off_index"
    UNCONFIRMED_JUMP = "unconfirmed_jump"
    LOT_CHANGED = "lot_changed"
    TURNOVER_OFF_PRICE = "average_price_deviation"
    UNCONFIRMED_VOLUME = "unconfirmed_volume"


MEANING = {
    Doubt.LAST_OFF_MARK: "the last trade is too far from the mark price",
    Doubt.MARK_OFF_INDEX: "the mark price is too far from the index",
    Doubt.UNCONFIRMED_JUMP: "the price jumped and no index confirms it",
    Doubt.TURNOVER_OFF_PRICE: "turnover does not fit volume and price",
    Doubt.UNCONFIRMED_VOLUME: "the volume of the hour jumped and no move of the price confirms it",
    Doubt.LOT_CHANGED: "the size of a lot changed, and its value must first prove to be the same",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known of a contract's prices at one moment; None is not known.

    `elsewhere` is a price from other exchanges: it stands in for an index that is missing, and
    is never shown or scored as KuCoin's. `stamp` tells readings apart: the same one is one.
    """

    at_ms: int
    stamp: int
    multiplier: Decimal
    last: Decimal | None
    mark: Decimal | None
    index: Decimal | None
    traded_ms: int | None  # of the last trade
    elsewhere: Decimal | None = None
    off_price: float | None = None  # turnover / volume beyond the prices of its time
    volume_jump: float | None = None  # of the newest hour that no move of the price confirms

    @property
    def reference(self) -> Decimal | None:
        return self.index if self.index is not None else self.elsewhere


@dataclass(frozen=True, slots=True)
class PriceState:
    """What is remembered of one contract; `doubt` is None while its prices are believed."""

    read_ms: int  # when `mark` was read: readings that come quicker do not move it
    stamp: int
    multiplier: Decimal
    mark: Decimal | None
    doubt: Doubt | None = None
    since_ms: int | None = None  # of the quarantine
    confirmed: int = 0  # readings in a row that speak for the price
    confirmed_ms: int | None = None  # the last of them that counted
    lot_value: Decimal | None = None  # before the size of a lot changed
    traded_ms: int | None = None
    index_at_trade: Decimal | None = None  # when this last trade was first seen
    elsewhere: Decimal | None = None  # the last price at another exchange
    elsewhere_ms: int | None = None  # when it was known there
    elsewhere_at: str | None = None  # which exchange, in which currency


def deviation(one: Decimal | None, other: Decimal | None) -> float | None:
    """|one / other - 1|; None where either is missing or not positive."""
    if one is None or other is None or one <= 0 or other <= 0:
        return None
    return abs(float(one / other) - 1.0)


def disagreement(
    last: Decimal | None, mark: Decimal | None, index: Decimal | None, rules: QualitySettings
) -> Doubt | None:
    """What the prices of one moment say against each other; None where nothing is known of it."""
    away = deviation(last, mark)
    if away is not None and to_millionths(away) > to_millionths(rules.max_last_vs_mark_deviation):
        return Doubt.LAST_OFF_MARK
    away = deviation(mark, index)
    if away is not None and to_millionths(away) > to_millionths(rules.max_mark_vs_index_deviation):
        return Doubt.MARK_OFF_INDEX
    return None


def volume_doubt(
    off_price: float | None, jump: float | None, rules: QualitySettings
) -> Doubt | None:
    """What volume says against itself; None where nothing is known of it."""
    if off_price is not None and is_above(off_price, rules.max_turnover_price_deviation):
        return Doubt.TURNOVER_OFF_PRICE
    if jump is not None and is_above(jump, rules.max_volume_jump):
        return Doubt.UNCONFIRMED_VOLUME
    return None


def read(state: PriceState | None, reading: Reading, rules: QualitySettings) -> PriceState:
    """The state after one more reading; the same reading again changes nothing.

    A quarantine ends with `confirmations` readings in a row, `confirmation_gap_s` apart, whose
    price the index (or the other exchanges) confirms; after a change of the lot's size with as many
    at which a lot is worth what it was worth before. Nothing else ends it but the operator.
    """
    if state is None:
        first = PriceState(reading.at_ms, reading.stamp, reading.multiplier, reading.mark)
        doubt = disagreement(reading.last, reading.mark, reading.reference, rules)
        doubt = doubt or volume_doubt(reading.off_price, reading.volume_jump, rules)
        return _traded(first if doubt is None else _doubted(first, doubt, reading), reading)
    if reading.stamp == state.stamp and reading.multiplier == state.multiplier:
        return state
    doubt = _doubt(state, reading, rules)
    after = replace(_traded(state, reading), stamp=reading.stamp, multiplier=reading.multiplier)
    if reading.mark is not None and (
        state.mark is None or reading.at_ms - state.read_ms >= rules.price_jump_window_s * 1000 // 2
    ):
        after = replace(after, mark=reading.mark, read_ms=reading.at_ms)
    if doubt is Doubt.LOT_CHANGED and state.doubt is not Doubt.LOT_CHANGED:
        before = None if state.mark is None else state.mark * state.multiplier
        after = replace(after, lot_value=before)
    if doubt is not None:
        return _doubted(after, doubt, reading)
    return after if state.doubt is None else _confirmed(after, reading, rules)


def released(state: PriceState) -> PriceState:
    """The same after the operator has vouched for the price as it is now."""
    return replace(state, doubt=None, since_ms=None, confirmed=0, confirmed_ms=None, lot_value=None)


def lot_changed(state: PriceState, lot_value: Decimal | None, at_ms: int) -> PriceState:
    """In quarantine because its lots were of another size when nobody had looked for a while.

    `lot_value` is what one was worth then; without it only the operator ends this.
    """
    return replace(
        state,
        doubt=Doubt.LOT_CHANGED,
        since_ms=at_ms if state.doubt is None else state.since_ms,
        confirmed=0,
        confirmed_ms=None,
        lot_value=lot_value,
    )


def is_frozen(state: PriceState, reading: Reading, rules: QualitySettings) -> bool:
    """Whether nobody has traded for long while the index moved on."""
    if state.traded_ms is None or reading.traded_ms != state.traded_ms:
        return False
    moved = deviation(reading.index, state.index_at_trade)
    still_s = (reading.at_ms - state.traded_ms) / 1000
    if moved is None or still_s < rules.stale_trade_after_s:
        return False
    return to_millionths(moved) > to_millionths(rules.stale_trade_index_move)


def _doubt(state: PriceState, reading: Reading, rules: QualitySettings) -> Doubt | None:
    """What this reading says against the price."""
    if reading.multiplier != state.multiplier:
        return Doubt.LOT_CHANGED
    found = disagreement(reading.last, reading.mark, reading.reference, rules)
    if found is not None:
        return found
    is_recent = reading.at_ms - state.read_ms <= rules.price_jump_window_s * 1000
    moved = deviation(reading.mark, state.mark)
    jumped = moved is not None and to_millionths(moved) > to_millionths(rules.max_price_jump)
    if is_recent and jumped and reading.reference is None:
        return Doubt.UNCONFIRMED_JUMP
    return volume_doubt(reading.off_price, reading.volume_jump, rules)


def _is_worth_the_same(reading: Reading, lot_value: Decimal | None, rules: QualitySettings) -> bool:
    if reading.mark is None:
        return False
    away = deviation(reading.mark * reading.multiplier, lot_value)
    return away is not None and to_millionths(away) <= to_millionths(rules.max_contract_size_change)


def _doubted(state: PriceState, doubt: Doubt, reading: Reading) -> PriceState:
    """In quarantine; a doubt about the lot's size stays the reason until it is settled."""
    lots = state.doubt is Doubt.LOT_CHANGED
    return replace(
        state,
        doubt=Doubt.LOT_CHANGED if lots else doubt,
        since_ms=reading.at_ms if state.doubt is None else state.since_ms,
        confirmed=0,
        confirmed_ms=None,
    )


def _confirmed(state: PriceState, reading: Reading, rules: QualitySettings) -> PriceState:
    """One reading nearer to the end of the quarantine, if it speaks for the price."""
    if state.doubt is Doubt.LOT_CHANGED:
        speaks = _is_worth_the_same(reading, state.lot_value, rules)
    else:
        speaks = deviation(reading.mark, reading.reference) is not None
    if not speaks:
        return replace(state, confirmed=0, confirmed_ms=None)
    counted = state.confirmed_ms
    if counted is not None and reading.at_ms - counted < rules.confirmation_gap_s * 1000:
        return state
    if state.confirmed + 1 >= rules.confirmations:
        return released(state)
    return replace(state, confirmed=state.confirmed + 1, confirmed_ms=reading.at_ms)


def _traded(state: PriceState, reading: Reading) -> PriceState:
    """With the index as it was when the present last trade was first seen."""
    if reading.traded_ms is None or (
        reading.traded_ms == state.traded_ms and state.index_at_trade is not None
    ):
        return state
    return replace(state, traded_ms=reading.traded_ms, index_at_trade=reading.index)
