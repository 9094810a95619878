"""Missed marks and the hourly bars that stand for them: which bar, which mark, and its proof."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.foundation.hash_chain import instant_text
from app.performance.domain.backfilled_marks import (
    MAX_GAP_AGE,
    BackfilledMark,
    MissingMark,
    is_gap_final,
    marks_from_event,
    marks_to_payload,
    missing_marks,
    unknown_since,
    with_backfilled_marks,
)
from app.performance.domain.equity_checks import equity_faults
from app.performance.domain.equity_curve import EquityStep, build_curve, equity_steps
from app.portfolio.domain.event_log import (
    Draft,
    EventOrigin,
    EventType,
    PortfolioEvent,
    seal_events,
)
from app.portfolio.domain.models import FULL
from tests.support.portfolios import HOUR, NAMES, T0

A, B, C = NAMES[:3]
MICROSECOND = timedelta(microseconds=1)


def late(version: int, symbol: str, price: str) -> BackfilledMark:
    return BackfilledMark(version, T0, symbol, Decimal(price), T0)


@pytest.mark.parametrize(
    ("after", "hour"),
    [(timedelta(0), 11), (MICROSECOND, 12), (timedelta(minutes=59), 12), (HOUR, 12)],
)
def test_the_bar_of_a_moment_contains_it_or_ends_at_it(after: timedelta, hour: int) -> None:
    at = datetime(2026, 3, 1, 12, tzinfo=UTC) + after
    one = MissingMark(3, at, A, "id-a")
    assert one.opened_ms == datetime(2026, 3, 1, hour, tzinfo=UTC).timestamp() * 1000
    found = BackfilledMark.from_close(one, 0.1)
    assert found.opened_at == datetime(2026, 3, 1, hour, tzinfo=UTC)
    assert found.price == Decimal("0.1")
    assert timedelta(0) <= found.opened_at + HOUR - at < HOUR


def test_a_mark_that_was_known_is_never_another_one_and_the_first_that_was_found_stands() -> None:
    step = EquityStep(T0, 2, {A: FULL // 2, B: 0}, True, {A: Decimal(10)}, (), {B: "id-b"})
    found = (late(2, A, "99"), late(2, B, "5"), late(2, B, "6"), late(3, B, "7"))
    (whole,) = with_backfilled_marks([step], found)
    assert whole.marks == {A: Decimal(10), B: Decimal(5)}
    assert whole.absent == {}
    assert missing_marks([whole]) == ()
    assert with_backfilled_marks([step], ()) == (step,)


def _weighing(
    version: int,
    weights: Mapping[str, int],
    marks: Mapping[str, Mapping[str, str | None]],
    index: Mapping[str, object] | None = None,
) -> Draft:
    payload: dict[str, Any] = {
        "version": version,
        "weights": {f"id-{name}": {"symbol": name, "weight_u": u} for name, u in weights.items()},
        "marks": {f"id-{name}": {"symbol": name, **one} for name, one in marks.items()},
    }
    if index is not None:
        payload["index"] = index
    return Draft(EventType.WEIGHTS, None, None, payload, "test")


def _at(hours: int, draft: Draft, last: PortfolioEvent | None) -> PortfolioEvent:
    return seal_events([draft], EventOrigin("t", "r", T0 + hours * HOUR, 1, None, "test"), last)[0]


def test_only_a_mark_that_was_not_there_is_looked_up_not_one_that_was_not_believed() -> None:
    marks: dict[str, dict[str, str | None]] = {
        A: {"mark": None, "doubt": None},
        B: {"mark": None, "doubt": "mark_off_index"},
        C: {"mark": None},  # as it was stored before the reason was
    }
    event = _at(0, _weighing(1, dict.fromkeys((A, B, C), 1), marks), None)
    assert missing_marks(equity_steps([event])) == (MissingMark(1, T0, A, f"id-{A}"),)


def _history(proof: Mapping[str, object]) -> list[PortfolioEvent]:
    """Three weighings: the second without the mark of A, the third with what was found for it."""
    half = {A: FULL // 2}
    one = _at(0, _weighing(1, half, {A: {"mark": "10"}}, {"equity": "1", "broken": None}), None)
    why = f"the mark of {A} at version 2 is unknown"
    lost = {"equity": None, "broken": why, "broken_at": instant_text(T0 + HOUR)}
    two = _at(1, _weighing(2, half, {A: {"mark": None, "doubt": None}}, lost), one)
    three = _at(2, _weighing(3, half, {A: {"mark": "24"}}, proof), two)
    return [one, two, three]


def test_an_equity_that_rests_on_a_late_mark_is_proven_with_it_and_not_without() -> None:
    # 1 became 1.1 with the bar's 12, half of which doubled.
    found = marks_to_payload([late(2, A, "12")])
    events = _history({"equity": "1.65", "broken": None, "late_marks": found})
    assert marks_from_event(events[2]) == (late(2, A, "12"),)
    assert equity_faults(events) == [], "the second did not know its equity, and says so"
    (fault,) = equity_faults(_history({"equity": "1.65", "broken": None}))
    assert fault.startswith("event 3 stores another equity")
    other = marks_to_payload([late(2, A, "13")])
    assert len(equity_faults(_history({**events[2].payload["index"], "late_marks": other}))) == 1
    wrong = {**events[1].payload["index"], "broken_at": instant_text(T0)}
    altered = replace(events[1], payload={**events[1].payload, "index": wrong})
    assert len(equity_faults([events[0], altered, events[2]])) == 1, "broken since another moment"


def test_a_weighing_more_than_a_week_after_the_break_has_given_up() -> None:
    first, second, third = _history({"equity": "1.65", "broken": None})
    assert [unknown_since(one) for one in (first, second, third)] == [None, T0 + HOUR, None]
    for past, given_up in ((MAX_GAP_AGE, False), (MAX_GAP_AGE + MICROSECOND, True)):
        late_one = replace(second, occurred_at=T0 + HOUR + past)
        assert is_gap_final(late_one) is given_up
    assert not is_gap_final(first)


PRICES = st.decimals(Decimal("0.01"), 900, places=2)
PARTS = st.tuples(*(st.integers(0, FULL // 3),) * 3)
KNOWN = st.tuples(*(st.booleans(),) * 3)


@given(
    st.lists(
        st.tuples(PARTS, st.tuples(PRICES, PRICES, PRICES), KNOWN, st.booleans()),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=40, deadline=None)
def test_with_every_missed_mark_found_the_curve_is_as_if_none_had_been_missed(
    moves: list[tuple[tuple[int, ...], tuple[Decimal, ...], tuple[bool, ...], bool]],
) -> None:
    whole, holed, found = [], [], []
    for hour, (parts, prices, known, weighed) in enumerate(moves):
        # Who has no part has left: then its position is settled without a weighing.
        weights = {name: part for name, part in zip((A, B, C), parts, strict=True) if part % 2}
        marks = dict(zip((A, B, C), prices, strict=True))
        step = EquityStep(T0 + hour * HOUR, hour + 1, weights, weighed, marks, ())
        there = {name for name, is_known in zip((A, B, C), known, strict=True) if is_known}
        kept = {name: price for name, price in marks.items() if name in there}
        absent = {name: f"id-{name}" for name in marks if name not in there}
        whole.append(step)
        holed.append(replace(step, marks=kept, absent=absent))
        found += [late(step.version, name, str(marks[name])) for name in absent]
    assert build_curve(with_backfilled_marks(holed, found), ()) == build_curve(whole, ())
    broken = build_curve(holed, ())
    assert (broken.broken is None) is (broken.broken_at is None)
