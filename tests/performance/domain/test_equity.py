"""The notional equity against money worked out by hand; gains add up to the last digit."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.foundation.decimal_math import total
from app.performance.domain.attribution import (
    AttributionMethod,
    attribution_from_curve,
    attribution_from_results,
)
from app.performance.domain.equity_curve import (
    EquityStep,
    KnownEquity,
    Valuation,
    build_curve,
    compute_track_figures,
    daily_equity,
    equity_steps,
)
from app.portfolio.domain.event_log import Draft, EventOrigin, EventType, seal_events
from app.portfolio.domain.membership import add_members, replace_member, set_weights
from app.portfolio.domain.models import EMPTY, FULL
from app.portfolio.domain.returns import BookedResult, BookedTotal
from app.portfolio.domain.weighting import Allocation
from tests.support.portfolios import HOUR, NAMES, T0, newcomer

A, B, C = NAMES[:3]
STAMP = EventOrigin("tester", "request", T0, 1, None, "test")


def D(text: str | int) -> Decimal:
    return Decimal(text)


def step(
    hours: int, weights: Mapping[str, int], marks: Mapping[str, object], *, weighed: bool = True
) -> EquityStep:
    known = {symbol: D(str(mark)) for symbol, mark in marks.items()}
    per_cent = {symbol: weight * 1_000_000 for symbol, weight in weights.items()}
    return EquityStep(T0 + hours * HOUR, hours + 1, per_cent, weighed, known, ())


def at(hours: int, **prices: object) -> Valuation:
    names = {"a": A, "b": B, "c": C}
    return Valuation(
        T0 + hours * HOUR, {names[name]: D(str(price)) for name, price in prices.items()}
    )


def test_without_a_change_there_is_no_curve() -> None:
    assert build_curve((), (at(1, a=1),)).points == ()
    assert daily_equity(build_curve((), ())) == ()


def test_positions_move_with_prices_and_are_set_anew_at_the_marks() -> None:
    changes = (
        step(0, {A: 50, B: 20}, {A: 10, B: 5}),
        step(4, {A: 20, B: 20}, {A: 12, B: 5}),
    )
    curve = build_curve(changes, (at(-1, a=1, b=1), at(2, a=11, b=5), at(6, a=12, b="5.5")))
    # 50 % of 1 gains a tenth; then a fifth in all; then 20 % of 1.1 gains a tenth.
    assert [point.equity for point in curve.points] == [1, D("1.05"), D("1.1"), D("1.122")]
    assert [point.is_step for point in curve.points] == [True, False, True, False]
    assert curve.cash == D("0.66")
    assert curve.positions[A].entry == 12
    assert curve.positions[B].value == D("0.242")
    shown = daily_equity(curve)
    assert [day.equity for day in shown] == [1, D("1.05"), D("1.122")]
    assert [day.pnl for day in shown] == [None, D("0.05"), D("0.072")]
    assert shown[1].change == pytest.approx(0.05)


def test_who_leaves_is_settled_and_the_others_go_on() -> None:
    changes = (
        step(0, {A: 50, B: 20}, {A: 10, B: 5}),
        step(1, {A: 50}, {B: 10}, weighed=False),  # A has no mark at that moment
        step(2, {A: 50, C: 0}, {}, weighed=False),
    )
    curve = build_curve(changes, (at(3, a=11),))
    equities = [point.equity for point in curve.points]
    assert equities == [1, None, None, D("1.25")]
    assert curve.points[1].gains == {B: D("0.2")}
    assert curve.broken is None
    assert total(gain for point in curve.points for gain in point.gains.values()) == D("0.25")
    # The first day is the start; what cannot be valued says which price is missing.
    assert (
        daily_equity(build_curve(changes[:1], (at(1, a=10),)))[1].reason
        == f"no price of {B} is known"
    )
    whole = build_curve((changes[0], step(1, {A: 50}, {A: 10, B: 10}, weighed=False)), ())
    assert whole.points[1].equity == D("1.2")
    assert whole.cash == D("0.7")


def test_an_unknown_mark_at_a_change_is_never_guessed() -> None:
    changes = (step(0, {A: 50}, {A: 10}), step(1, {A: 20, B: 20}, {A: 12}))
    curve = build_curve(changes, (at(2, a=12, b=12),))
    assert [point.equity for point in curve.points] == [1, D("1.1"), None]
    assert curve.broken == f"the mark of {B} at version 2 is unknown"
    lost = build_curve((changes[0], step(1, {A: 20}, {}), step(2, {A: 20}, {A: 9})), ())
    assert [point.equity for point in lost.points] == [1, None, None]
    assert {point.reason for point in lost.points[1:]} == {lost.broken}
    shown = daily_equity(build_curve(changes, (at(2, a=12), at(3, a=12))))
    assert [day.pnl for day in shown] == [None, None, None]


def test_figures_use_every_known_point_and_no_loss_is_left_out() -> None:
    changes = (
        step(0, {A: 100}, {A: 10}),
        step(30, {A: 100}, {A: 4}),  # 4 is the lowest point, and no close
    )
    held = (
        at(10, a=6),  # the close of the first part of a day
        at(34, a=5),
        at(58),  # its price is not known
        at(82, a="5.5"),
        at(86, a=5),  # now
    )
    curve = build_curve(changes, held)
    made = compute_track_figures(curve)
    assert made.max_drawdown == pytest.approx(0.6)
    assert made.growth == pytest.approx(-0.5)
    assert made.observations == 4  # 10 to 6, 6 to 5, 5 to 5.5 over the gap, 5.5 to 5
    assert made.reason == "4 observations, 30 are needed"
    # A period begins at the last point known at or before it.
    late = compute_track_figures(curve, since=T0 + 33 * HOUR)
    assert late.growth == pytest.approx(5 / 4 - 1)
    assert late.observations == 3
    assert compute_track_figures(curve, since=T0 + 34 * HOUR).growth == pytest.approx(0.0)
    early = compute_track_figures(curve, until=T0 + 34 * HOUR)
    assert early.growth == pytest.approx(-0.6)
    assert early.observations == 2
    # Weighings from before the curve.
    known = (KnownEquity(T0 - 60 * HOUR, D(2)), KnownEquity(T0 - 59 * HOUR, D(4)))
    longer = compute_track_figures(curve, known)
    assert longer.growth == pytest.approx(-0.75)
    assert longer.max_drawdown == pytest.approx(0.9)
    assert longer.observations == 4 + 1
    assert compute_track_figures(build_curve((), ())).growth is None


def test_steps_are_the_versions_that_moved_something() -> None:
    first = add_members(EMPTY, [newcomer(A), newcomer(B)], 10, T0, "start")
    weights = {A: 50_000_000, B: 20_000_000}
    weighed = set_weights(first, Allocation(weights, 30_000_000, ()), {}, T0, "start")
    swapped = replace_member(weighed.portfolio, B, newcomer(C), {}, T0, "better")
    tuned = Draft(EventType.CONFIG, None, None, {"version": 3, "configuration_version": 2}, "tune")
    booked = Draft(EventType.PERFORMANCE, A, None, {"version": 4}, "fill")
    marks = {
        "id-1": {"symbol": A, "mark": "10"},
        "id-2": {"symbol": B, "mark": None},
        "id-3": {"symbol": C, "mark": "0"},
    }
    payload = {**weighed.drafts[-1].payload, "marks": marks}
    drafts = (*weighed.drafts[:-1], Draft(EventType.WEIGHTS, None, None, payload, "start"))
    found = equity_steps(seal_events((*drafts, *swapped.drafts, tuned, booked), STAMP, None))
    assert [one.version for one in found] == [1, 2]
    assert found[0].weights == weights
    assert (found[0].is_weighed, found[1].is_weighed) == (True, False)
    assert found[0].marks == {A: 10}  # neither an unknown mark nor nil is a price
    assert [(one.old, one.new) for one in found[1].replacements] == [(B, C)]
    assert found[1].weights == {A: 50_000_000, C: 0}


PRICES = st.decimals(D("0.000001"), 90_000, places=6, allow_nan=False)
PARTS = st.lists(st.integers(0, FULL // 3), min_size=3, max_size=3)


@given(st.lists(st.tuples(PARTS, st.tuples(PRICES, PRICES, PRICES)), min_size=2, max_size=8))
@settings(max_examples=80, deadline=None)
def test_contributions_are_the_change_of_equity_without_a_residual(
    moves: list[tuple[list[int], tuple[Decimal, ...]]],
) -> None:
    changes = tuple(
        EquityStep(
            T0 + hour * HOUR,
            hour + 1,
            dict(zip((A, B, C), parts, strict=True)),
            True,
            dict(zip((A, B, C), prices, strict=True)),
            (),
        )
        for hour, (parts, prices) in enumerate(moves)
    )
    curve = build_curve(changes, ())
    end = T0 + (len(moves) - 1) * HOUR
    made = attribution_from_curve(
        curve.points, T0, end, {A: 1}, lambda name: "x" if name == A else "y"
    )
    assert made.start == 1
    assert made.end == curve.points[-1].equity
    assert made.change is not None
    assert total(line.contribution for line in made.symbols) == made.change
    assert total(line.contribution for line in made.sectors) == made.change


def test_a_period_begins_at_the_last_equity_known_before_it() -> None:
    changes = (step(0, {A: 50, B: 20}, {A: 10, B: 5}),)
    curve = build_curve(changes, (at(10, a=11, b=5), at(20, a=11), at(30, a=12, b=6), at(40, a=1)))
    sectors = {A: "layer-1", B: "meme"}
    weights = {A: 50_000_000, B: 20_000_000}
    made = attribution_from_curve(
        curve.points, T0 + 15 * HOUR, T0 + 50 * HOUR, weights, lambda name: sectors[name]
    )
    assert made.basis is AttributionMethod.INDEX
    assert (made.start_at, made.end_at) == (T0 + 10 * HOUR, T0 + 30 * HOUR)
    assert made.change == D("0.09")
    assert [(one.name, one.contribution) for one in made.symbols] == [
        (A, D("0.05")),
        (B, D("0.04")),
    ]
    assert made.symbols[0].fees is None
    assert made.sectors[0].weight_u == 50_000_000
    assert made.reason == f"no price of {B} is known"
    early = attribution_from_curve(
        curve.points, T0 - HOUR, T0 + 35 * HOUR, weights, lambda name: sectors[name]
    )
    assert early.start == 1
    assert early.reason is None
    none = attribution_from_curve(
        curve.points, T0 + 60 * HOUR, T0 + 70 * HOUR, {}, lambda name: name
    )
    assert (none.change, none.symbols) == (None, ())
    assert none.reason == f"no price of {B} is known"
    nothing = attribution_from_curve((), T0, T0, {}, lambda name: name)
    assert nothing.reason == "there was no position in the period"


def result(number: int, symbol: str, pnl: str, hours: int, currency: str = "USDT") -> BookedResult:
    return BookedResult(
        trade_id=f"t{number}",
        symbol_id=f"id-{symbol}",
        symbol=symbol,
        contract=f"{symbol}M",
        pnl=D(pnl),
        currency=currency,
        fees=D("0.1"),
        funding=D("-0.25"),
        occurred_at=T0 + timedelta(hours=hours),
    )


def totals_of(booked: Iterable[BookedResult]) -> list[BookedTotal]:
    sums: dict[tuple[str, str], BookedTotal] = {}
    for one in booked:
        before = sums.get((one.symbol, one.currency))
        sums[one.symbol, one.currency] = BookedTotal.of(one) if before is None else before.plus(one)
    return list(sums.values())


def test_what_is_booked_for_later_than_the_period_begins_no_ledger_in_it() -> None:
    booked = [result(1, A, "10", 9), result(2, A, "5", 8, "XBT"), result(3, A, "1", 4, "XBT")]
    made = attribution_from_results(
        totals_of(booked), booked, T0, T0 + 5 * HOUR, {}, lambda _: "coins"
    )
    assert [(one.unit, one.start, one.end) for one in made] == [("XBT", D(0), D("0.65"))]


def test_booked_results_add_up_per_currency() -> None:
    booked = (
        result(1, A, "10", 0),
        result(2, A, "5", 2),
        result(3, B, "-2", 3),
        result(4, C, "0.000000000000000001", 3, "XBT"),
        result(5, A, "1000", 9),
    )
    after = [one for one in booked if one.occurred_at > T0]
    made = attribution_from_results(
        totals_of(booked), after, T0, T0 + 5 * HOUR, {A: 7}, lambda _: "coins"
    )
    assert [one.unit for one in made] == ["USDT", "XBT"]
    usdt = made[0]
    assert (usdt.start, usdt.end, usdt.change) == (D("9.65"), D("11.95"), D("2.3"))
    assert total(line.contribution for line in usdt.symbols) == usdt.change
    assert [(line.name, line.weight_u) for line in usdt.symbols] == [(A, 7), (B, None)]
    assert (usdt.sectors[0].fees, usdt.sectors[0].funding) == (D("0.2"), D("-0.5"))
    assert made[1].sectors[0].weight_u is None
    assert made[1].change == D("-0.349999999999999999")
