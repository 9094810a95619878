"""Candles over a real socket while a bar runs: what it shows until it closes is seen by nobody."""

import random
from collections.abc import AsyncIterator
from dataclasses import fields

import numpy as np
import pytest

from app.foundation.sql.database import Database
from app.market.domain.models import STORED, CandleSeries, Contract, Interval
from app.market.storage.candles import CandleRepository
from app.scoring.domain.input_hash import panel_hash
from tests.support.live_market import LiveMarket, open_market

ETH, CODE = "ETHUSDT", "ETHUSDTM"


@pytest.fixture
async def live(database: Database) -> AsyncIterator[LiveMarket]:
    async with open_market(database, contracts=9) as opened:
        yield opened


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("interval", STORED)
async def test_D04_whatever_the_exchange_answers_of_a_running_bar_reaches_no_scoring(
    live: LiveMarket, monkeypatch: pytest.MonkeyPatch, interval: Interval
) -> None:
    data, dice = live.market(), random.Random(4)
    await data.refresh_market()
    entry, ask = data.resolve(ETH), data.exchange.candles
    await data.fetch.candles([entry], interval)
    whole = data.live.market.series(interval)[CODE]
    true = panel_hash(data.moment().panel(interval))
    shown = 0

    async def with_the_running_one(
        contract: Contract, interval: Interval, start_ms: int, end_ms: int
    ) -> CandleSeries:
        nonlocal shown
        series = await ask(contract, interval, start_ms, end_ms)
        price = float(series.close[-1]) * dice.uniform(0.2, 5.0)
        tick = (price, price * 1.1, price * 0.9, price, dice.uniform(0, 1e6), dice.uniform(0, 1e9))
        columns = (series.open, series.high, series.low, series.close, series.volume)
        shown += 1
        return CandleSeries(
            np.append(series.opened_ms, series.opened_ms[-1] + interval.ms),
            *(
                np.append(held, now)
                for held, now in zip((*columns, series.turnover), tick, strict=True)
            ),
        )

    monkeypatch.setattr(data.exchange, "candles", with_the_running_one)
    cut = CandleSeries(*(getattr(whole.value, one.name)[:-1] for one in fields(CandleSeries)))
    for _ in range(6):  # seen again and again, with another price each time
        live.clock.pass_(120)
        await data.sync_clock()
        market = data.live.market
        data.live.publish(market.with_candles(interval, {CODE: data.live.received(cut)}))
        data.fetch._tries.clear()
        assert not await data.fetch.candles([entry], interval)
        assert panel_hash(data.moment().panel(interval)) == true
    assert shown == 6
    async with live.database.read() as unit:
        stored = (await unit.get(CandleRepository).load([entry.symbol_id], interval))[
            entry.symbol_id
        ]
    assert stored.opened_ms.tolist() == whole.value.opened_ms.tolist()
