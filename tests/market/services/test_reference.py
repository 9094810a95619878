"""Another exchange is asked and heard; where it tells nothing, asking goes on and is named so."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import cast

import pytest

from app.foundation.data_status import DataStatus
from app.foundation.errors import Code, UnavailableError
from app.foundation.idempotency import IdempotentExecutor
from app.foundation.sql.database import Database
from app.market.domain.models import Interval
from app.market.domain.reference_prices import ReferencePrice
from app.market.services.backfill import first_fill
from app.market.services.quality import QualityService
from app.market.services.quality_monitor import QualityMonitor
from app.market.services.reference_prices import SHOW_S, ReferencePriceFeed
from app.market.services.service import MarketData
from app.operations.services.health_checks import ComponentState, reference
from app.scoring.domain.input_hash import input_hash, panel_hash
from tests.support.live_market import open_market

AWAY = UnavailableError(Code.EXCHANGE_UNAVAILABLE, "gone")


def price(value: str) -> dict[str, ReferencePrice]:
    return {"BTC": ReferencePrice("kraken", "BTC", "USD", Decimal(value), 1)}


@dataclass
class Source:
    """Answers and tells what the test says."""

    answer: Mapping[str, ReferencePrice] | UnavailableError = AWAY
    words: list[Mapping[str, ReferencePrice] | UnavailableError] = field(default_factory=list)
    hung_up: int = 0
    streams: bool = True

    async def prices(self) -> Mapping[str, ReferencePrice]:
        if isinstance(self.answer, UnavailableError):
            raise self.answer
        return self.answer

    async def updates(self) -> Mapping[str, ReferencePrice]:
        word = self.words.pop(0)
        if isinstance(word, UnavailableError):
            raise word
        return word

    async def close_stream(self) -> None:
        self.hung_up += 1


@dataclass
class World:
    """Ends by itself after so many pauses."""

    source: Source = field(default_factory=Source)
    owns: bool = True
    pauses: list[float] = field(default_factory=list)
    most: int = 4
    with_reference_prices: list[Mapping[str, ReferencePrice]] = field(default_factory=list)
    beats: int = 0

    def __post_init__(self) -> None:
        self.asked = ReferencePriceFeed(
            self.source,
            cast("QualityMonitor", self),
            lambda: self.owns,
            60.0,
            "kraken",
            self._sleep,
        )

    def apply_reference_prices(self, prices: Mapping[str, ReferencePrice]) -> None:
        self.with_reference_prices.append(prices)

    def beat(self) -> None:
        self.beats += 1

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if len(self.pauses) >= self.most:
            raise asyncio.CancelledError

    def health(self) -> tuple[ComponentState, str | None, str | None]:
        (shown,) = reference(self.asked.report())
        assert shown.name == "reference"
        return shown.state, shown.cause, shown.detail


async def test_what_is_told_is_taken_up_and_a_broken_stream_is_tried_again_later() -> None:
    world = World(Source(words=[price("1"), price("2"), AWAY, price("3")]))
    with pytest.raises(asyncio.CancelledError):
        await world.asked.run_stream(world.beat)
    assert world.with_reference_prices == [price("1"), price("2"), price("3")]
    assert world.pauses == [SHOW_S, SHOW_S, 60.0, SHOW_S]
    assert world.beats == 4
    assert world.source.hung_up == 2, "when it broke, and at the end"
    assert not world.asked.is_streaming


async def test_who_does_not_own_the_feed_neither_hears_nor_asks() -> None:
    world = World(Source(answer=price("1"), words=[price("1")]), owns=False, most=2)
    for work in (world.asked.run_stream, world.asked.run):
        world.pauses.clear()
        with pytest.raises(asyncio.CancelledError):
            await work(world.beat)
    assert world.with_reference_prices == []
    assert reference(world.asked.report()) == ()


async def test_health_says_whether_it_is_told_or_only_asked_or_away() -> None:
    assert reference(None) == ()
    world = World()
    assert world.health()[0] is ComponentState.STARTING
    await world.asked.refresh()
    assert world.health()[:2] == (ComponentState.DEGRADED, "exchange_unavailable")
    world.source.words = [price("1"), AWAY]
    assert await world.asked.receive()
    told = (ComponentState.UP, None, "kraken is streamed and polled every 60 s")
    assert world.health() == told
    world.source.answer = price("2")
    assert await world.asked.refresh() == 1
    assert world.health() == told
    assert not await world.asked.receive()
    assert world.health() == (
        ComponentState.UP, None, "kraken is polled every 60 s; no stream now",
    )  # fmt: skip


def decided_by(data: MarketData) -> dict[str, object]:
    """Everything that is scored, sized, planned, marked or traded by."""
    inputs, index = data.scoring_inputs(), data.registry.index
    panels = (data.panel(Interval.DAY), data.panel(Interval.HOUR))
    return {
        "scoring": input_hash(inputs),
        "bars": [panel and panel_hash(panel) for panel in panels],
        "trading": {one.symbol: data.quote(one.symbol) for one in index.entries},
        "shown": [data.view(one) for one in index.entries],
        "eligible": [one.symbol for one in data.eligible()],
        "mode": (data.level(), data.as_of(), data.is_halted()),
    }


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_nothing_is_scored_or_traded_by_what_another_exchange_says(
    database: Database,
) -> None:
    async with open_market(database, contracts=14) as live:
        data = live.market()
        await first_fill(data)
        heard = data.live.market

        async def decided(factor: str | None) -> dict[str, object]:
            """Read anew after another exchange had a price so far off for each coin, or none."""
            states = {
                code: replace(one, stamp=one.stamp - 1) for code, one in heard.quality.items()
            }
            data.live.market = replace(heard, quality=states)
            if factor is not None:
                data.quality.apply_reference_prices(elsewhere(data, Decimal(factor)))
            await data.quality.judge_prices()
            return decided_by(data)

        alone = await decided(None)
        quotes = [data.quote(one.symbol) for one in data.eligible()]
        assert len(quotes) > 5
        assert all(quote is not None and quote.mark is not None for quote in quotes)
        for factor in ("0.01", "1.02", "100"):
            assert await decided(factor) == alone
        shown = QualityService(data, database, IdempotentExecutor(database, live.clock.now))
        found = shown.reference_price(data.resolve("BTCUSDT"))
        assert found is not None, "it is shown, as what it is"
        # KuCoin is away: what is young elsewhere makes nothing of ours fresh.
        live.clock.pass_(600)
        assert await decided("1.02") == await decided(None)
        assert data.status() is DataStatus.STALE
        assert data.scoring_inputs().symbols == ()
        quote = data.quote("BTCUSDT")
        assert quote is not None
        assert not quote.is_fresh


def elsewhere(data: MarketData, factor: Decimal) -> dict[str, ReferencePrice]:
    """Prices of now that are so many times ours."""
    found, at_ms = dict[str, ReferencePrice](), data.server_clock.now_ms()
    for code, stats in data.live.market.stats.items():
        base, mark = data.registry.known.by_code[code].contract.base, stats.value.mark_price
        if mark is not None:
            found[base] = ReferencePrice("binance", base, "USDT", mark * factor, at_ms)
    assert len(found) > 5
    return found
