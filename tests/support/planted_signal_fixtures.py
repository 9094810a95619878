"""Hours of the sandbox's market as they were, and agents that know more or less of them."""

import random
from datetime import UTC, datetime, timedelta
from statistics import median

import numpy as np

from app.configuration.domain.sections import SignalSettings
from app.market.domain.models import CandleSeries
from app.sandbox.history.synthetic import synthetic_history
from app.sandbox.market.candles import candles
from app.sandbox.market.price_path import SimulatedMarket
from app.signals.domain.agents import Agent, AgentVote, SignalFeatures
from tests.support.outcome_fixtures import HOUR_MS, ms
from tests.support.trading_desk import SYMBOLS

END = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAYS, A_DAY = 5, 40  # 200 outcomes
Prices = dict[str, CandleSeries]


def replayed() -> Prices:
    """Hours of sixty contracts of the sandbox that were all there, by our symbols."""
    market = SimulatedMarket(synthetic_history(7, ms(END), 120), 7)
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


def leaning(name: str, truth: dict[str, bool], share: float, seed: int) -> Agent:
    """Says 0.7 or 0.3, on the side of what comes in that share of all cases."""
    draw = random.Random(seed)
    right = {symbol: draw.random() < share for symbol in SYMBOLS}
    return _agent(name, {one: 0.7 if truth[one] is right[one] else 0.3 for one in SYMBOLS})


def planted(truth: dict[str, bool]) -> tuple[Agent, ...]:
    """Who leans to what comes three times in four, who draws lots, and who says the opposite."""
    draw = random.Random(11)
    leans = {symbol: truth[symbol] == (draw.random() < 0.75) for symbol in SYMBOLS}
    lots = {symbol: draw.uniform(0.3, 0.7) for symbol in SYMBOLS}
    return (
        _agent("skilled", {name: 0.7 if leans[name] else 0.3 for name in SYMBOLS}),
        _agent("random", lots),
        _agent("inverted", {name: 0.3 if leans[name] else 0.7 for name in SYMBOLS}),
    )


def _agent(name: str, said: dict[str, float]) -> Agent:
    def judge(evidence: SignalFeatures, _: SignalSettings) -> AgentVote:
        return AgentVote(said[evidence.symbol], 0.9, {})

    return Agent(name, (), judge)
