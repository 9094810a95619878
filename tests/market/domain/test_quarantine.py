"""When prices are not believed, and what it takes until they are again."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from app.configuration.domain.sections import QualitySettings
from app.market.domain.price_quarantine import (
    PriceReading,
    PriceState,
    QuarantineReason,
    apply_reading,
    is_frozen,
    quarantine_changed_lot,
    release,
)

RULES = QualitySettings()
START_MS = 1_800_000_000_000
GOOD = PriceReading(
    at_ms=START_MS,
    stamp=START_MS,
    multiplier=Decimal("0.1"),
    last=Decimal("100.1"),
    mark=Decimal(100),
    index=Decimal(100),
    traded_ms=START_MS,
)


def after(*changes: Mapping[str, object], apart_s: int = 60) -> PriceState:
    """The state after a good reading and others `apart_s` seconds apart."""
    state = apply_reading(None, GOOD, RULES)
    for number, change in enumerate(changes, start=1):
        at_ms = START_MS + number * apart_s * 1000
        reading = replace(GOOD, at_ms=at_ms, stamp=at_ms, traded_ms=at_ms)
        state = apply_reading(state, replace(reading, **change), RULES)  # type: ignore[arg-type]  # its fields
    return state


@pytest.mark.parametrize("factor", ["1000", "0.001", "1.101", "0.899"])
def test_D02_a_last_trade_away_from_the_mark_price_is_not_believed(factor: str) -> None:
    assert (
        after({"last": 100 * Decimal(factor)}).quarantine_reason is QuarantineReason.LAST_OFF_MARK
    )


@pytest.mark.parametrize("factor", ["1000", "0.001", "1.051", "0.949"])
def test_D02_a_mark_price_away_from_the_index_is_not_believed(factor: str) -> None:
    shifted = {"mark": 100 * Decimal(factor), "last": 100 * Decimal(factor)}
    assert after(shifted).quarantine_reason is QuarantineReason.MARK_OFF_INDEX


def test_D02_what_is_within_its_limits_is_believed() -> None:
    assert after({"last": Decimal("109.9")}, {"mark": Decimal("104.9")}).quarantine_reason is None


def test_D02_a_fall_that_the_index_confirms_is_a_fall() -> None:
    crash = {"last": Decimal(20), "mark": Decimal(20), "index": Decimal(20)}
    assert after(crash).quarantine_reason is None


def test_D02_a_jump_without_an_index_is_not_believed() -> None:
    jump = {"last": Decimal(151), "mark": Decimal(151), "index": None}
    assert after(jump).quarantine_reason is QuarantineReason.UNCONFIRMED_JUMP
    assert after(jump, apart_s=RULES.price_jump_window_s + 1).quarantine_reason is None, (
        "too long ago to compare"
    )
    step = {"last": Decimal(149), "mark": Decimal(149), "index": None}
    assert after(step).quarantine_reason is None


def test_D02_a_jump_in_many_small_steps_is_one() -> None:
    steps = [{"mark": Decimal(100 + 3 * step), "last": Decimal(100 + 3 * step), "index": None}
             for step in range(1, 20)]  # fmt: skip
    assert after(*steps, apart_s=3).quarantine_reason is QuarantineReason.UNCONFIRMED_JUMP
    assert after(*steps, apart_s=60).quarantine_reason is None


def test_D02_other_exchanges_stand_in_for_an_index_that_is_missing() -> None:
    jump = {"last": Decimal(151), "mark": Decimal(151), "index": None}
    assert after(jump | {"reference_price": Decimal(150)}).quarantine_reason is None
    assert (
        after(jump | {"reference_price": Decimal(100)}).quarantine_reason
        is QuarantineReason.MARK_OFF_INDEX
    )


def test_a_turnover_that_does_not_fit_volume_and_price_is_quarantined_like_a_price() -> None:
    assert after({"price_deviation": 0.1}).quarantine_reason is None
    odd: dict[str, object] = {"price_deviation": 0.11}
    assert after(odd).quarantine_reason is QuarantineReason.TURNOVER_OFF_PRICE
    assert after(odd, {}, {}).quarantine_reason is QuarantineReason.TURNOVER_OFF_PRICE
    assert after(odd, {}, {}, {}).quarantine_reason is None
    assert (
        apply_reading(None, replace(GOOD, price_deviation=0.11), RULES).quarantine_reason
        is QuarantineReason.TURNOVER_OFF_PRICE
    )
    wide = replace(RULES, max_turnover_price_deviation=0.2)
    assert apply_reading(None, replace(GOOD, price_deviation=0.11), wide).quarantine_reason is None


def test_a_volume_that_no_move_confirms_is_quarantined_like_a_jump() -> None:
    assert after({"volume_jump": 100.0}).quarantine_reason is None
    jump: dict[str, object] = {"volume_jump": 100.1}
    assert after(jump).quarantine_reason is QuarantineReason.UNCONFIRMED_VOLUME
    assert after(jump, {}, {}, {}).quarantine_reason is None


@pytest.mark.parametrize(
    ("change", "reason", "setting", "looser", "tighter"),
    [
        (
            {"last": Decimal(115)},
            QuarantineReason.LAST_OFF_MARK,
            "max_last_vs_mark_deviation",
            0.16,
            0.14,
        ),
        (
            {"last": Decimal(106), "mark": Decimal(106)},
            QuarantineReason.MARK_OFF_INDEX,
            "max_mark_vs_index_deviation",
            0.07,
            0.05,
        ),
        (
            {"last": Decimal(160), "mark": Decimal(160), "index": None},
            QuarantineReason.UNCONFIRMED_JUMP,
            "max_price_jump",
            0.61,
            0.59,
        ),
        (
            {"price_deviation": 0.12},
            QuarantineReason.TURNOVER_OFF_PRICE,
            "max_turnover_price_deviation",
            0.12,
            0.11,
        ),
        (
            {"volume_jump": 120.0},
            QuarantineReason.UNCONFIRMED_VOLUME,
            "max_volume_jump",
            120.0,
            119.0,
        ),
    ],
)
def test_each_largest_deviation_is_a_setting(
    change: dict[str, Any], reason: QuarantineReason, setting: str, looser: float, tighter: float
) -> None:
    at_ms = START_MS + 60_000
    reading = replace(GOOD, at_ms=at_ms, stamp=at_ms, traded_ms=at_ms, **change)
    for limit, expected in ((looser, None), (tighter, reason)):
        rules: dict[str, Any] = {setting: limit}
        judged = apply_reading(after(), reading, replace(RULES, **rules))
        assert judged.quarantine_reason is expected


def test_D02_three_confirmed_readings_end_a_quarantine() -> None:
    bad: dict[str, object] = {"last": Decimal(100_000)}
    assert after(bad, {}, {}).quarantine_reason is QuarantineReason.LAST_OFF_MARK
    assert after(bad, {}, {}, {}).quarantine_reason is None
    assert after(bad, {}, {}, bad, {}, {}).quarantine_reason is QuarantineReason.LAST_OFF_MARK, (
        "three in a row"
    )


def test_D02_readings_less_than_ten_seconds_apart_count_once() -> None:
    bad: dict[str, object] = {"last": Decimal(100_000)}
    quick = after(bad, {}, {}, {}, {}, apart_s=4)
    assert quick.quarantine_reason is QuarantineReason.LAST_OFF_MARK
    assert quick.confirmed == 2
    assert after(bad, {}, {}, {}, apart_s=10).quarantine_reason is None


def test_D02_the_same_reading_confirms_nothing() -> None:
    state = after({"last": Decimal(100_000)})
    good = replace(GOOD, at_ms=START_MS + 120_000, stamp=START_MS + 120_000)
    for _ in range(5):
        state = apply_reading(state, good, RULES)
    assert state.confirmed == 1


def test_D02_without_an_index_nothing_confirms_a_price() -> None:
    bad: dict[str, object] = {"last": Decimal(100_000)}
    assert (
        after(bad, *({"index": None} for _ in range(9))).quarantine_reason
        is QuarantineReason.LAST_OFF_MARK
    )


def test_D13_another_size_of_a_lot_must_prove_that_a_lot_is_worth_the_same() -> None:
    lot: dict[str, object] = {"multiplier": Decimal(100)}
    split = lot | {name: Decimal("0.1") for name in ("last", "mark", "index")}
    assert after(split).quarantine_reason is QuarantineReason.LOT_CHANGED
    assert after(split, split, split).quarantine_reason is QuarantineReason.LOT_CHANGED
    assert after(split, split, split, split).quarantine_reason is None
    assert after(lot, *(lot for _ in range(9))).quarantine_reason is QuarantineReason.LOT_CHANGED
    blind = split | {"mark": None}  # a reading without a mark price proves nothing
    assert (
        after(split, *(blind for _ in range(9))).quarantine_reason is QuarantineReason.LOT_CHANGED
    )


def test_D13_a_lot_that_changed_unseen_must_prove_its_value_too() -> None:
    found = quarantine_changed_lot(after(), Decimal(10), START_MS + 7)
    assert (found.quarantine_reason, found.since_ms) == (QuarantineReason.LOT_CHANGED, START_MS + 7)
    apart_ms = RULES.confirmation_gap_s * 1000
    for number in range(1, RULES.confirmations + 1):
        assert found.quarantine_reason is QuarantineReason.LOT_CHANGED
        at_ms = START_MS + number * apart_ms
        found = apply_reading(found, replace(GOOD, at_ms=at_ms, stamp=at_ms), RULES)
    assert found.quarantine_reason is None
    older = after({"last": Decimal(200)})
    again = quarantine_changed_lot(older, None, START_MS + 10**9)
    assert (again.quarantine_reason, again.since_ms) == (
        QuarantineReason.LOT_CHANGED,
        older.since_ms,
    )


def test_D13_only_the_operator_ends_it_when_a_lot_is_worth_something_else() -> None:
    lot: dict[str, object] = {"multiplier": Decimal(100)}
    state = release(after(lot, lot))
    assert state.quarantine_reason is None
    again = replace(GOOD, at_ms=START_MS + 600_000, stamp=START_MS + 600_000)
    assert (
        apply_reading(state, replace(again, multiplier=Decimal(100)), RULES).quarantine_reason
        is None
    )


def test_D07_nobody_trades_while_the_index_moves() -> None:
    state = apply_reading(None, GOOD, RULES)
    late = replace(GOOD, at_ms=START_MS + RULES.stale_trade_after_s * 1000, stamp=START_MS + 1)
    assert not is_frozen(state, late, RULES), "the index stands still as well"
    moved = replace(late, index=Decimal("102.1"))
    assert is_frozen(state, moved, RULES)
    assert not is_frozen(state, replace(moved, at_ms=late.at_ms - 1), RULES), "not long enough"
    assert not is_frozen(state, replace(moved, traded_ms=late.at_ms), RULES), "it was traded"
