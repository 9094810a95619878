"""Signals under repetition and competition, on both databases."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any, cast

import pytest

from app.configuration.domain.model import Configuration
from app.foundation.errors import Code, ConflictError
from app.foundation.events import EventTopic
from app.foundation.metrics import Metrics
from app.foundation.sql.database import Database
from app.foundation.sql.events import EventRepository
from app.operations.domain.event_codec import decode_event
from app.operations.services.health import StatusSources
from app.scoring.services.service import Scoring
from app.signals.domain.events import SignalChanged
from app.signals.domain.models import SignalState
from app.signals.domain.track_record import SignalQueue
from app.signals.services.evaluation import SignalEvaluator
from tests.support.signal_fixtures import claim, informed
from tests.support.trading_desk import SYMBOLS, WHO, Desk


@pytest.fixture
async def desk(database: Database) -> Desk:
    opened = await Desk(database).open()
    informed(opened)
    return opened


async def told(desk: Desk) -> list[SignalChanged]:
    async with desk.database.read() as unit:
        records = await unit.get(EventRepository).after(0, 1_000)
    found = [decode_event(one) for one in records if one.topic is EventTopic.SIGNAL]
    return [one for one in found if isinstance(one, SignalChanged)]


async def test_C12_a_hundred_duplicates_at_once_have_one_effect(desk: Desk) -> None:
    same = claim(source_id="one")
    outcomes = await asyncio.gather(*(desk.signals.submit(same, WHO) for _ in range(100)))
    taken = [one.result for one in outcomes if one.result is not None]
    assert Counter(one.is_new for one in taken) == {True: 1, False: 99}
    assert len({one.evaluated.signal.signal_id for one in taken}) == 1
    assert {one.evaluated.signal.state for one in taken} == {SignalState.APPROVED}
    assert len(await told(desk)) == 1
    assert (await desk.signals.statistics(1)).counts.total == 1


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_C12_of_many_contents_under_one_name_one_is_taken(desk: Desk) -> None:
    many = [claim(source_id="one", strength=0.6 + number / 100) for number in range(10)]
    outcomes = await asyncio.gather(
        *(desk.signals.submit(one, WHO) for one in many), return_exceptions=True
    )
    refused = [one for one in outcomes if isinstance(one, ConflictError)]
    assert (len(refused), {one.code for one in refused}) == (9, {Code.SIGNAL_CONFLICT})


async def test_each_waiting_signal_is_judged_once_however_many_judge(desk: Desk) -> None:
    board, desk.boards.board = desk.boards.board, None
    for number in range(12):
        await desk.signals.submit(claim(SYMBOLS[number]), WHO)
    desk.boards.board = board
    rounds = await asyncio.gather(*(desk.signals.evaluate_pending(4) for _ in range(6)))
    rounds += [await desk.signals.evaluate_pending(100)]
    assert sum(rounds) == 12
    judged = [one for one in await told(desk) if one.evaluation is not None]
    assert Counter(Counter(one.signal_id for one in judged).values()) == {1: 12}
    assert await desk.signals.pending(10) == ()


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_what_was_not_committed_is_judged_by_the_next(desk: Desk) -> None:
    board, desk.boards.board = desk.boards.board, None
    await desk.signals.submit(claim(), WHO)
    desk.boards.board = board

    class DiedError(Exception):
        pass

    class Dying(SignalEvaluator):
        def evaluate(self, *_: Any) -> Any:
            raise DiedError

    dying = replace(desk.signals, evaluator=Dying())
    with pytest.raises(DiedError):
        await dying.evaluate_pending()
    (waits,) = await desk.signals.pending(10)
    assert (waits.state, waits.attempts) == (SignalState.VALIDATED, 0)
    assert await desk.signals.evaluate_pending() == 1


async def test_the_same_board_gives_the_same_verdict_to_the_last_digit(desk: Desk) -> None:
    found = []
    for _ in range(2):
        outcome = await desk.signals.submit(claim(), WHO)
        assert outcome.result is not None
        stored = await desk.signals.get(outcome.result.evaluated.signal.signal_id)
        assert stored == outcome.result.evaluated, "what is stored is what was said"
        found.append(stored.verdict)
        informed(desk)
    assert found[0] == found[1]


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_the_queue_is_worked_off_in_batches_and_an_empty_one_writes_nothing(
    desk: Desk,
) -> None:
    board, desk.boards.board = desk.boards.board, None
    for number in range(7):
        await desk.signals.submit(claim(SYMBOLS[number]), WHO)
    judges = replace(desk.signals, batch=3)
    assert await judges.process_queue() == 0
    desk.boards.board = board
    before = desk.database.commits or 0
    assert await judges.process_queue() == 7
    after = desk.database.commits or 0
    assert after - before == 3, "three batches"
    assert await judges.process_queue() == 0
    assert desk.database.commits == after


async def test_what_waits_is_counted(desk: Desk) -> None:
    board, desk.boards.board = desk.boards.board, None
    await desk.signals.submit(claim(SYMBOLS[0]), WHO)
    first = desk.now
    desk.later(seconds=5)
    await desk.signals.submit(claim(SYMBOLS[1]), WHO)
    scoring, contexts = cast("Scoring", desk.boards), desk.performance.contexts
    sources = StatusSources(desk.database, scoring, Configuration, Metrics(), contexts)
    assert await sources.signal_queue() == SignalQueue(2, first, 0, 0)
    desk.boards.board = board
    desk.stale(SYMBOLS[1])
    await desk.signals.process_queue()
    assert await sources.signal_queue() == SignalQueue(0, None, 1, 1)
