"""What came of signals is booked once, from closed bars, and agents earn their weight by it."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from app.foundation.sql.database import Database
from app.market.domain.models import ContractStatus
from app.market.storage.symbols import SymbolRepository
from app.signals.domain.models import Direction
from app.signals.domain.outcomes import SignalOutcome
from app.signals.domain.track_record import ForecastRecord, SourceKey
from app.signals.services.outcomes import BookingResult
from app.signals.storage.statistics import SignalRecordRepository
from tests.support.outcome_fixtures import keep_board, moved, pass_on
from tests.support.signal_fixtures import BEST, claim, informed
from tests.support.trading_desk import NOW, SYMBOLS, WHO, Desk

UP = {symbol: 0.01 * (at % 5) for at, symbol in enumerate(SYMBOLS)}  # the median is 0.02


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
async def desk(database: Database) -> Desk:
    opened = await Desk(database).open()
    informed(opened)
    await keep_board(opened)
    return opened


async def sent(desk: Desk, symbol: str = BEST, **changed: object) -> str:
    outcome = await desk.signals.submit(claim(symbol, **changed), WHO)
    assert outcome.result is not None
    return outcome.result.evaluated.signal.signal_id


async def outcome_of(desk: Desk, signal_id: str) -> SignalOutcome:
    found = (await desk.signals.get(signal_id)).outcome
    assert found is not None
    return found


async def records(desk: Desk) -> tuple[dict[str, ForecastRecord], dict[SourceKey, ForecastRecord]]:
    """Of agents and of sources."""
    async with desk.database.read() as unit:
        return await unit.get(SignalRecordRepository).load(None)


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
async def test_what_beat_the_median_is_booked_once_however_many_book(desk: Desk) -> None:
    best, worst = await sent(desk, SYMBOLS[4]), await sent(desk, SYMBOLS[0])
    sale = await sent(desk, SYMBOLS[5], direction=Direction.SELL)
    assert (await outcome_of(desk, best)).booked_at is None
    await moved(desk, NOW, UP)
    pass_on(desk, hours=23, minutes=59)
    assert await desk.signal_outcomes.book() == BookingResult(0, 0), "the horizon is not over"
    pass_on(desk, minutes=2)
    rounds = await asyncio.gather(*(desk.signal_outcomes.book() for _ in range(4)))
    assert sum(one.decided for one in rounds) == 3
    won, lost = await outcome_of(desk, best), await outcome_of(desk, worst)
    assert (won.outperformed, won.universe_size, lost.outperformed) == (True, 60, False)
    assert won.gain == pytest.approx(0.04)
    assert won.median == pytest.approx(0.02)
    assert (await outcome_of(desk, sale)).outperformed is False
    agents, sources = await records(desk)
    assert {name: one.outcomes for name, one in agents.items()} == {
        "fundamental": 3, "market_structure": 3, "risk": 3, "technical": 3,
    }  # fmt: skip
    assert {one.occurrences for one in agents.values()} == {1}
    right = sources["desk", "momentum"]
    assert (right.outcomes, right.occurrences) == (3, 2), "the sale was right as well"
    squares = 0.0
    for signal_id, beat in ((best, True), (worst, False), (sale, False)):
        verdict = (await desk.signals.get(signal_id)).verdict
        assert verdict is not None
        said = {one.agent: one.probability for one in verdict.votes}["technical"]
        assert said is not None
        squares += (said - beat) ** 2
    assert agents["technical"].brier == pytest.approx(squares / 3, abs=1e-15)
    shown = await desk.signals.statistics(7)
    assert (shown.outcomes.open, shown.outcomes.decided, shown.outcomes.unknown) == (0, 3, 0)
    assert shown.agents == agents


async def test_signals_about_one_symbol_at_one_time_are_one_event(desk: Desk) -> None:
    first = await sent(desk, SYMBOLS[4])
    await sent(desk, SYMBOLS[4])
    await sent(desk, SYMBOLS[4], source="other")
    await sent(desk, SYMBOLS[4], type="breakout")
    await moved(desk, NOW, UP, hours=72)
    pass_on(desk, hours=25)
    informed(desk)
    later = await sent(desk, SYMBOLS[4])
    assert await desk.signal_outcomes.book() == BookingResult(4, 0)
    pass_on(desk, hours=26)
    assert await desk.signal_outcomes.book() == BookingResult(1, 0)
    assert (await outcome_of(desk, first)).window.ends_at <= (
        await outcome_of(desk, later)
    ).window.starts_at
    assert (await records(desk))[0]["risk"].outcomes == 2
    found = {key: one.outcomes for key, one in (await records(desk))[1].items()}
    assert found == {("desk", "momentum"): 2, ("other", "momentum"): 1, ("desk", "breakout"): 1}


async def test_a_source_that_was_right_is_believed_more_for_that_type_only(desk: Desk) -> None:
    for at in range(30):
        await sent(desk, SYMBOLS[at * 2], direction=_right(at * 2))
    await moved(desk, NOW, UP)
    pass_on(desk, hours=25)
    await desk.signal_outcomes.book()
    informed(desk)
    squares = 30 * (1.0 - 0.86) ** 2  # 1/2 + 1/2 x 0.8 x 0.9
    trust = 0.2 + 0.8 * 30 / 80 * (1.0 - squares / 30 / 0.25)
    for kind, k in (("momentum", trust), ("breakout", 0.2)):
        verdict = (await desk.signals.get(await sent(desk, BEST, type=kind))).verdict
        assert verdict is not None
        (own,) = (one for one in verdict.votes if one.is_source)
        assert own.probability == pytest.approx(0.5 + 0.36 * k, abs=1e-6)
        assert own.figures["trust"] == pytest.approx(k)


def _right(place: int) -> Direction:
    """The direction in which the symbol of that place moves away from the median."""
    return Direction.BUY if place % 5 > 2 else Direction.SELL


async def test_what_has_no_price_waits_and_is_then_unknown(desk: Desk) -> None:
    here, missing = await sent(desk, SYMBOLS[4]), await sent(desk, SYMBOLS[5])
    await moved(desk, NOW, UP, without=[SYMBOLS[5]])
    pass_on(desk, hours=25)
    assert await desk.signal_outcomes.book() == BookingResult(1, 0)
    assert (await outcome_of(desk, missing)).booked_at is None
    pass_on(desk, hours=6)
    assert await desk.signal_outcomes.book() == BookingResult(0, 1)
    found = await outcome_of(desk, missing)
    assert (found.outperformed, found.gain) == (None, None)
    assert found.reason == f"there is no price of {SYMBOLS[5]}"
    assert (await outcome_of(desk, here)).outperformed is True
    assert (await records(desk))[0]["risk"].outcomes == 1


async def test_without_most_of_the_universe_there_is_no_median(desk: Desk) -> None:
    signal_id = await sent(desk, SYMBOLS[4])
    await moved(desk, NOW, UP, without=SYMBOLS[40:])
    pass_on(desk, hours=25)
    assert await desk.signal_outcomes.book() == BookingResult(0, 0)
    pass_on(desk, hours=6)
    assert await desk.signal_outcomes.book() == BookingResult(0, 1)
    assert (await outcome_of(desk, signal_id)).reason == "only 40 symbols have a return"
    assert await records(desk) == ({}, {})


async def test_a_contract_that_ends_realises_its_last_price(desk: Desk) -> None:
    signal_id = await sent(desk, SYMBOLS[4])
    await moved(desk, NOW, {SYMBOLS[4]: -0.9}, without=SYMBOLS[5:], hours=3)
    await moved(desk, NOW, UP, without=[SYMBOLS[4]])
    async with desk.database.write() as unit:
        record = next(
            one for one in await unit.get(SymbolRepository).all() if one.symbol == SYMBOLS[4]
        )
        ended = replace(record.contract, status=ContractStatus.SETTLED)
        await unit.get(SymbolRepository).save([replace(record, contract=ended)], desk.now)
    pass_on(desk, hours=25)
    assert await desk.signal_outcomes.book() == BookingResult(1, 0)
    found = await outcome_of(desk, signal_id)
    assert found.outperformed is False
    assert found.gain == pytest.approx(-0.9)


async def test_without_a_market_nothing_is_booked(desk: Desk) -> None:
    await sent(desk, SYMBOLS[4])
    pass_on(desk, hours=40)
    desk.market.seen_at = None
    assert await desk.signal_outcomes.book() == BookingResult(0, 0)


async def test_many_are_booked_in_batches(desk: Desk) -> None:
    for symbol in SYMBOLS[:7]:
        await sent(desk, symbol)
    await moved(desk, NOW, UP)
    pass_on(desk, hours=25)
    assert await replace(desk.signal_outcomes, batch=3).book() == BookingResult(7, 0)
    assert (await records(desk))[0]["risk"].outcomes == 7


async def test_what_is_not_booked_yet_is_not_cleared_away(desk: Desk) -> None:
    bad: dict[str, Any] = {
        "nearness_to_high": -1.5,
        "funding_rate": 3.0,
        "volatility": 2.0,
        "impact": 99.0,
    }
    informed(desk, SYMBOLS[4], **bad)
    signal_id = await sent(desk, SYMBOLS[4])
    assert (await desk.signals.get(signal_id)).signal.state.value == "rejected"
    await desk.configuration.put({"signals": {"horizon_days": 10.0}}, "long", WHO)
    informed(desk, SYMBOLS[5], **bad)
    slow = await sent(desk, SYMBOLS[5])
    await moved(desk, NOW, UP)
    pass_on(desk, hours=60)
    assert await desk.signal_outcomes.book() == BookingResult(1, 0)
    done = await desk.signals.cleanup(timedelta(days=1), WHO)
    assert done.result is not None
    assert done.result.removed == 1
    assert (await desk.signals.get(slow)).outcome is not None
    assert (await records(desk))[0]["risk"].outcomes == 1, "what was learnt stays"
