"""Planted agents on a replay of the sandbox's market, the whole way: verdicts, bars, weights."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from statistics import median

import numpy as np
import pytest

from app.domain.agents import Agent, Evidence, Opinion
from app.domain.market import CandleSeries, Interval
from app.domain.signal_rules import SignalRules
from app.domain.track_record import weights_of
from app.sandbox.candles import candles
from app.sandbox.market import Market
from app.sandbox.synthetic import synthetic_history
from app.services.signal_bench import Bench
from app.storage.database import Database
from tests.services.desk import SYMBOLS, WHO, Desk, symbol_id
from tests.services.outcome_world import HOUR_MS, keep_board, ms, pass_on
from tests.services.signal_world import claim, informed

pytestmark = pytest.mark.long

END = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAYS, A_DAY = 5, 40  # 200 outcomes
Prices = dict[str, CandleSeries]


def replayed() -> Prices:
    """Hours of sixty contracts of the sandbox that were all there, by our symbols."""
    market = Market(synthetic_history(7, ms(END), 120), 7)
    since = ms(END - timedelta(days=DAYS))
    found: list[CandleSeries] = []
    for row in range(market.size):
        table = np.array(candles(market, row, 60, since, ms(END) - HOUR_MS, ms(END)), np.float64)
        if len(table) != DAYS * 24 or len(found) == len(SYMBOLS):
            continue
        opened, *fields = table.T
        found.append(CandleSeries(opened.astype(np.int64), *fields))
    assert len(found) == len(SYMBOLS)
    return dict(zip(SYMBOLS, found, strict=True))


def winners(prices: Prices, day: int) -> dict[str, bool]:
    gains = {
        symbol: float(one.close[day * 24 + 23] / one.open[day * 24] - 1.0)
        for symbol, one in prices.items()
    }
    middle = median(gains.values())
    return {symbol: gain > middle for symbol, gain in gains.items()}


def planted(truth: dict[str, bool]) -> tuple[Agent, ...]:
    """Who leans to what comes three times in four, who draws lots, and who says the opposite."""
    draw = random.Random(11)
    leans = {symbol: truth[symbol] == (draw.random() < 0.75) for symbol in SYMBOLS}
    lots = {symbol: draw.uniform(0.3, 0.7) for symbol in SYMBOLS}

    def agent(name: str, said: dict[str, float]) -> Agent:
        def judge(evidence: Evidence, _: SignalRules) -> Opinion:
            return Opinion(said[evidence.symbol], 0.9, {})

        return Agent(name, (), judge)

    return (
        agent("skilled", {name: 0.7 if leans[name] else 0.3 for name in SYMBOLS}),
        agent("random", lots),
        agent("inverted", {name: 0.3 if leans[name] else 0.7 for name in SYMBOLS}),
    )


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
        await unit.candles.save(series, Interval.HOUR)
    names, learnt, by_skill = ("inverted", "random", "skilled"), [], []
    for day in range(DAYS):
        informed(desk)
        assert desk.boards.board is not None
        if day == 0:
            await keep_board(desk)
        desk.signals = replace(desk.signals, bench=Bench(planted(winners(prices, day))))
        verdict = None
        for symbol in SYMBOLS[:A_DAY]:
            done = await desk.signals.submit(claim(symbol), WHO)
            assert done.result is not None
            verdict = done.result.judged.verdict
        assert verdict is not None
        by_skill.append(verdict.is_weighed_by_skill)
        pass_on(desk, days=1)
        assert (await desk.signal_outcomes.book()).decided == A_DAY
        learnt.append((await desk.signals.statistics(30)).agents)
    assert by_skill == [False, False, True, True, True], "fifty outcomes are needed"
    skills = [records["skilled"].skill for records in learnt]
    assert 0.0 < skills[0] < skills[-1]
    weights = weights_of(learnt[-1], names, 50)
    assert weights is not None
    assert weights["skilled"] > 0.9
    assert weights["random"] < 0.1
    assert weights["inverted"] == 0.0
    assert {one.outcomes for one in learnt[-1].values()} == {DAYS * A_DAY}
