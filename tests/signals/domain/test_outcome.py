"""Whether a symbol beat the median of the universe: windows, gains, and what is not known."""

from datetime import UTC, datetime, timedelta

import pytest

from app.market.domain.models import Bar
from app.signals.domain.outcomes import (
    HOUR_MS,
    OutcomeWindow,
    SignalOutcome,
    UniverseReturns,
    window_return,
)

AT = datetime(2026, 3, 1, 12, 20, tzinfo=UTC)
WINDOW = OutcomeWindow.after(AT, timedelta(days=1))
START = WINDOW.starts_ms


def bars(*hours: int, price: float = 10.0) -> list[Bar]:
    """Flat at `price` in the hours counted from the start, but for the close of the last one."""
    found = [Bar(START + hour * HOUR_MS, price, price) for hour in hours]
    return [*found[:-1], Bar(found[-1].opened_ms, price, price * 1.1)]


def test_a_window_begins_with_the_next_hour_and_lasts_whole_hours() -> None:
    assert (
        OutcomeWindow(AT.replace(hour=13, minute=0), AT.replace(day=2, hour=13, minute=0)) == WINDOW
    )
    sharp = AT.replace(minute=0)
    assert OutcomeWindow.after(sharp, timedelta(days=0.1)) == OutcomeWindow(
        sharp, sharp + timedelta(hours=2)
    )
    assert OutcomeWindow.after(sharp, timedelta(days=0.01)).ends_at == sharp + timedelta(hours=1)


def test_a_gain_is_from_the_first_open_to_the_last_close() -> None:
    every = [
        Bar(START - HOUR_MS, 1.0, 1.0),
        *bars(*range(24)),
        Bar(START + 24 * HOUR_MS, 99.0, 99.0),
    ]
    assert window_return(every, WINDOW, is_delisted=False) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("hours", "gain"),
    [
        ((-5, 23), 0.1),  # nobody traded for five hours: the close before stands
        ((-6, 23), None),
        ((0, 18), 0.1),
        ((0, 17), None),
        ((1, 23), None),
    ],
)
def test_a_price_stands_for_five_hours_in_which_nobody_traded(
    hours: tuple[int, ...], gain: float | None
) -> None:
    found = window_return(bars(*hours), WINDOW, is_delisted=False)
    assert found == (None if gain is None else pytest.approx(gain))


def test_a_redenomination_within_the_window_has_no_gain() -> None:
    every = [Bar(START + hour * HOUR_MS, 10.0, 10.0) for hour in range(12)]
    every += [Bar(START + hour * HOUR_MS, 10_000.0, 10_000.0) for hour in range(12, 24)]
    assert window_return(every, WINDOW, is_delisted=False) is None
    before = [Bar(START - HOUR_MS, 0.01, 0.01), *bars(*range(24))]
    assert window_return(before, WINDOW, is_delisted=False) == pytest.approx(0.1)


@pytest.mark.parametrize("unit", [0.001, 1000.0])
@pytest.mark.parametrize("hour", [0, 12, 23])
def test_a_redenomination_inside_a_bar_of_the_window_has_no_gain(unit: float, hour: int) -> None:
    every = [Bar(START + at * HOUR_MS, 10.0, 10.0) for at in range(hour)]
    every += [Bar(START + hour * HOUR_MS, 10.0, 10.0 * unit)]
    every += [Bar(START + at * HOUR_MS, 10.0 * unit, 10.0 * unit) for at in range(hour + 1, 24)]
    assert window_return(every, WINDOW, is_delisted=False) is None
    # A price that is the close of such a bar is in the new unit already.
    carried = [Bar(START - HOUR_MS, 10.0 / unit, 10.0), *bars(*range(1, 24))]
    assert window_return(carried, WINDOW, is_delisted=False) == pytest.approx(0.1)


def test_what_is_over_realises_its_last_price() -> None:
    assert window_return(bars(0, 3), WINDOW, is_delisted=True) == pytest.approx(0.1)
    assert window_return((), WINDOW, is_delisted=True) is None


def test_the_median_is_that_of_the_universe_alone() -> None:
    universe = [f"S{number}" for number in range(15)]
    gains = {name: at / 100 for at, name in enumerate(universe)} | {"OTHER": 5.0}
    field = UniverseReturns.of(gains, universe)
    assert (field.median, field.universe_size) == (0.07, 15)
    level = field.decide(SignalOutcome(WINDOW), "S7", AT)
    assert level is not None
    assert (level.outperformed, level.booked_at) == (False, AT), (
        "level with the median is not above it"
    )
    better, outside = (field.decide(SignalOutcome(WINDOW), name, AT) for name in ("S8", "OTHER"))
    assert better is not None
    assert outside is not None
    assert (better.outperformed, outside.outperformed, outside.gain) == (True, True, 5.0)
    assert field.decide(SignalOutcome(WINDOW), "NOBODY", AT) is None
    assert field.unknown_reason("NOBODY") == "there is no price of NOBODY"


@pytest.mark.parametrize(("names", "universe"), [(14, 14), (19, 24)])
def test_of_too_few_there_is_no_median(names: int, universe: int) -> None:
    gains = {f"S{number}": 0.1 for number in range(names)}
    field = UniverseReturns.of(gains, [f"S{number}" for number in range(universe)])
    assert field.median is None
    assert field.decide(SignalOutcome(WINDOW), "S1", AT) is None
    assert field.unknown_reason("S1") == f"only {names} symbols have a return"
