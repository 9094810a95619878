"""A machine that sleeps: its monotonic clock stands still, and what it knows only looks young."""

from collections.abc import AsyncIterator

import pytest

from app.configuration.domain.model import Configuration
from app.foundation.data_status import DataStatus
from app.foundation.errors import Code, UnavailableError
from app.foundation.health import Mode
from app.foundation.idempotency import IdempotentExecutor
from app.foundation.sql.database import Database
from app.market.domain.models import Interval
from app.market.services.service import MarketData
from app.market.services.service_mode import determine_mode
from app.scoring.services.service import Scoring
from tests.market.services.test_market_stream import Scene, frozen_scene

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
ASLEEP_S = 600.0
BEFORE_AN_HOUR_S = 3_000.0  # 11:56:40, so that a bar closes in the sleep


@pytest.fixture
async def scene(database: Database) -> AsyncIterator[Scene]:
    async with frozen_scene(database) as opened:
        opened.live.clock.pass_(BEFORE_AN_HOUR_S)
        await opened.live.post("clock", {"advance_ms": int(BEFORE_AN_HOUR_S * 1_000)})
        await opened.tell_all()
        await opened.data.refresh_market()
        yield opened


def mode(data: MarketData) -> Mode:
    return determine_mode(data.level(), is_database_down=False)


def scoring(scene: Scene) -> Scoring:
    live = scene.live
    return Scoring(
        market=scene.data,
        database=live.database,
        clock=live.clock.now,
        monotonic=live.clock.monotonic,
        new_id=lambda: "00000000-0000-4000-8000-000000000001",
        configuration=Configuration,
        idempotency=IdempotentExecutor(live.database, live.clock.now),
    )


async def test_T05_after_ten_minutes_asleep_nothing_is_decided_before_all_was_asked_for_again(
    scene: Scene,
) -> None:
    live, data = scene.live, scene.data
    code = data.resolve("ETHUSDT").contract.code
    assert mode(data) is Mode.NORMAL
    last = int(data.live.market.hourly[code].value.opened_ms[-1])

    live.clock.sleep(ASLEEP_S)
    await live.post("clock", {"advance_ms": int(ASLEEP_S * 1_000)})
    scene.mouth.heard = {}  # the connection did not outlive it
    # Awake, and nobody has looked yet: all looks young by a clock that stood still.
    assert mode(data) is Mode.FROZEN
    assert not data.is_clock_safe()
    with pytest.raises(UnavailableError) as caught:
        await scoring(scene).calculate()
    assert caught.value.code is Code.CLOCK_UNSAFE
    before = data.live.market

    await data.sync_clock()
    assert data.is_clock_safe()
    assert data.status() is DataStatus.STALE
    assert mode(data) is Mode.FROZEN
    quote = data.quote("ETHUSDT")
    assert quote is not None
    assert not quote.is_fresh
    assert "ETHUSDT" not in data.funnel().eligible
    for source, age in data.view(data.resolve("ETHUSDT")).ages.items():
        assert age.age_s is not None
        assert age.age_s >= ASLEEP_S or "candles" in source, source
    aged = data.live.market.stats[code]
    assert aged.mono == before.stats[code].mono - ASLEEP_S
    await data.sync_clock()
    assert data.live.market.stats[code] is aged, "it is missed once"

    await scene.streamed.catch_up()  # what a new connection does first
    await data.refresh_market()
    assert mode(data) is Mode.NORMAL
    hourly = data.live.market.hourly[code].value
    assert int(hourly.opened_ms[-1]) == last + Interval.HOUR.ms, "the bar that closed meanwhile"
    assert "ETHUSDT" in data.funnel().eligible


async def test_T05_the_next_look_at_the_quotes_finds_out_that_we_slept(scene: Scene) -> None:
    live, data = scene.live, scene.data
    live.clock.sleep(ASLEEP_S)
    await live.post("clock", {"advance_ms": int(ASLEEP_S * 1_000)})
    await data.refresh_tickers()
    assert data.is_clock_safe()
    assert data.status() is DataStatus.STALE, "the contracts were not asked for yet"
    await data.refresh_market()
    assert data.status() is DataStatus.FRESH


async def test_T03_a_wall_clock_that_was_set_ages_nothing_once_the_exchange_was_asked(
    scene: Scene,
) -> None:
    live, data = scene.live, scene.data
    held = data.live.market.stats
    for step_s in (3_600.0, 3_600.0, -7_200.0):
        live.clock.sleep(step_s)  # the exchange's time stands still, as its market does
        assert data.is_clock_safe() is (step_s < 0), "only it can tell"
        await data.refresh_tickers()
        assert data.is_clock_safe()
        assert (data.live.market.stats is held, data.status()) == (True, DataStatus.FRESH)
    live.clock.sleep(4.9)
    assert data.is_clock_safe(), "clocks are slewed all the time"
