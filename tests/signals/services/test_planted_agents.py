"""Planted agents on a replay of the sandbox's market, the whole way: verdicts, bars, weights."""

from dataclasses import replace
from datetime import timedelta

import pytest

from app.foundation.sql.database import Database
from app.market.domain.models import Interval
from app.market.storage.candles import CandleRepository
from app.signals.domain.track_record import agent_weights
from app.signals.services.evaluation import SignalEvaluator
from tests.support.outcome_fixtures import keep_board, pass_on
from tests.support.planted_signal_fixtures import A_DAY, DAYS, END, planted, replayed, winners
from tests.support.signal_fixtures import claim, informed
from tests.support.trading_desk import SYMBOLS, WHO, Desk, symbol_id

pytestmark = pytest.mark.long


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_within_200_outcomes_of_a_replay_the_skilled_alone_is_heard(
    database: Database,
) -> None:
    prices = replayed()
    desk = Desk(database, now=END - timedelta(days=DAYS))
    desk.market.seen_at = desk.now
    await desk.open()
    async with desk.database.write() as unit:
        series = {symbol_id(at): prices[symbol] for at, symbol in enumerate(SYMBOLS)}
        await unit.get(CandleRepository).save(series, Interval.HOUR)
    names, learnt, by_skill = ("inverted", "random", "skilled"), [], []
    for day in range(DAYS):
        informed(desk)
        assert desk.boards.board is not None
        if day == 0:
            await keep_board(desk)
        desk.signals = replace(
            desk.signals, evaluator=SignalEvaluator(planted(winners(prices, day)))
        )
        verdict = None
        for symbol in SYMBOLS[:A_DAY]:
            done = await desk.signals.submit(claim(symbol), WHO)
            assert done.result is not None
            verdict = done.result.evaluated.verdict
        assert verdict is not None
        by_skill.append(verdict.is_skill_weighted)
        pass_on(desk, days=1)
        assert (await desk.signal_outcomes.book()).decided == A_DAY
        learnt.append((await desk.signals.statistics(30)).agents)
    assert by_skill == [False, False, True, True, True], "fifty outcomes are needed"
    skills = [records["skilled"].skill for records in learnt]
    assert 0.0 < skills[0] < skills[-1]
    weights = agent_weights(learnt[-1], names, 50)
    assert weights is not None
    assert weights["skilled"] > 0.9
    assert weights["random"] < 0.1
    assert weights["inverted"] == 0.0
    assert {one.outcomes for one in learnt[-1].values()} == {DAYS * A_DAY}
