"""Live topics: what one message holds, who gets it, and that nothing is computed for nobody."""

import json
from dataclasses import replace
from typing import Any

import pytest

from app.foundation.errors import Code, UnavailableError
from app.foundation.metrics import Metrics
from app.foundation.sql.database import Database
from app.market.services.service import MarketData
from app.market.services.state import Received
from app.operations.services.dashboard import Dashboard
from app.operations.services.event_messages import Frame, LiveTopic, ticker_details
from app.operations.services.event_stream import EventReader, EventStream
from app.operations.services.live_feeds import DashboardFeed, TickerFeed
from tests.support.live_market import CONTRACTS, LiveMarket, open_market

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
NOTHING: frozenset[Any] = frozenset()


def subscribed(reader: EventReader, *topics: LiveTopic) -> EventReader:
    reader.subscribe(NOTHING, NOTHING, set(topics))
    return reader


def rows(frame: Frame) -> dict[str, dict[str, Any]]:
    return {one["symbol"]: one for one in json.loads(frame.text)["data"]["tickers"]}


async def refresh(live: LiveMarket, market: MarketData, seconds: float) -> None:
    live.clock.pass_(seconds)
    await market.refresh_market()
    await market.refresh_tickers()


def confirm_tickers(market: MarketData) -> None:
    """The exchange answers with the same values a second later."""
    tickers = {
        code: Received(one.value, one.at_ms + 1_000, one.mono + 1.0)
        for code, one in market.live.market.tickers.items()
    }
    market.live.market = replace(market.live.market, tickers=tickers)


def known_rows(market: MarketData) -> dict[str, dict[str, Any]]:
    """Every symbol as `ticker:SYMBOL` shows it."""
    views = (market.view(entry) for entry in market.registry.index.entries)
    shown = {one.entry.symbol: ticker_details(one, "sandbox") for one in views}
    for one in shown.values():
        del one["data_source"]
    return shown


async def test_tickers_are_one_message_of_what_changed(database: Database) -> None:
    async with open_market(database, contracts=14) as live:
        market, stream = live.market(), EventStream(database, live.clock.now, Metrics())
        await market.sync_contracts()
        await refresh(live, market, 1.0)
        await stream.open()
        feed = TickerFeed(market, stream)
        with stream.reader("sse") as first, stream.reader("websocket") as second:
            for one in (first, second):
                subscribed(one, LiveTopic.TICKERS)
            feed.publish_changes()
            (complete,) = await first.next()
            assert await second.next() == [complete]
            message = json.loads(complete.text)
            assert (message["topic"], message["sequence"]) == ("tickers", None)
            assert (message["data"]["is_complete"], message["data"]["removed"]) == (True, [])
            assert rows(complete) == known_rows(market)
            assert len(rows(complete)) == 14
            feed.publish_changes()
            assert first._new_live() == []  # an unchanged market has no message
            confirm_tickers(market)
            feed.publish_changes()
            assert first._new_live() == []  # neither has an answer with the same values

            before = known_rows(market)
            await refresh(live, market, 30.0)
            feed.publish_changes()
            with stream.reader("sse") as third:
                subscribed(third, LiveTopic.TICKERS)  # comes later than the others
                (change,), (again,), (newest,) = [
                    await one.next() for one in (first, second, third)
                ]
            assert change is again  # encoded once for all that are up to date
            assert json.loads(change.text)["data"]["is_complete"] is False
            after = known_rows(market)
            moved = {
                symbol: row
                for symbol, row in after.items()
                if row | {"as_of": None} != before[symbol] | {"as_of": None}
            }
            assert len(moved) > 0
            assert rows(change) == moved
            assert json.loads(newest.text)["data"]["is_complete"] is True
            assert {name: one["bid"] for name, one in rows(newest).items()} == {
                name: one["bid"] for name, one in after.items()
            }

            for _ in range(2):  # a reader that was slow gets all, in one message
                await refresh(live, market, 30.0)
                feed.publish_changes()
            (conflated,) = await first.next()
            assert json.loads(conflated.text)["data"]["is_complete"] is True

            live.clock.pass_(3_600.0)  # nothing is heard any more: every status changes
            feed.publish_changes()
            (stale,) = await first.next()
            assert {one["data_status"] for one in rows(stale).values()} == {"stale"}
            assert len(rows(stale)) == 14


async def test_a_symbol_that_is_no_longer_listed_is_removed(database: Database) -> None:
    async with open_market(database, contracts=14) as live:
        market, stream = live.market(), EventStream(database, live.clock.now, Metrics())
        await market.sync_contracts()
        await refresh(live, market, 1.0)
        await stream.open()
        feed = TickerFeed(market, stream)
        with stream.reader("sse") as reader:
            subscribed(reader, LiveTopic.TICKERS)
            feed.publish_changes()
            assert "ETHUSDT" in rows((await reader.next())[0])
            await live.fault("vanish", CONTRACTS, symbols=["ETHUSDTM"])
            await market.sync_contracts()
            feed.publish_changes()
            (change,) = reader._new_live()
            assert json.loads(change.text)["data"]["removed"] == ["ETHUSDT"]
            assert "ETHUSDT" not in rows(change)


class Untouchable:
    """Fails the test at any use."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"computed {name} without a reader")


async def test_nothing_is_computed_without_a_reader(database: Database) -> None:
    stream = EventStream(database, lambda: None, Metrics())  # type: ignore[arg-type,return-value]  # not asked
    await stream.open()
    reads = 0

    async def read() -> Dashboard:
        nonlocal reads
        reads += 1
        raise UnavailableError(Code.DATABASE_UNAVAILABLE, "away")

    tickers = TickerFeed(Untouchable(), stream)  # type: ignore[arg-type]  # must not be used
    dashboards = DashboardFeed(read, stream)
    with stream.reader("sse") as reader:
        tickers.publish_changes()
        await dashboards.publish_changes()
        assert reads == 0
        subscribed(reader, LiveTopic.DASHBOARD)
        tickers.publish_changes()
        await dashboards.publish_changes()
        assert reads == 1  # a failed read ends nothing
        subscribed(reader, LiveTopic.TICKERS)
        with pytest.raises(AssertionError, match="without a reader"):
            tickers.publish_changes()
    await dashboards.publish_changes()
    assert reads == 1


async def test_a_state_without_readers_is_dropped(database: Database) -> None:
    async with open_market(database, contracts=14) as live:
        market, stream = live.market(), EventStream(database, live.clock.now, Metrics())
        await market.sync_contracts()
        await refresh(live, market, 1.0)
        await stream.open()
        feed = TickerFeed(market, stream)
        with stream.reader("sse") as reader:
            subscribed(reader, LiveTopic.TICKERS)
            feed.publish_changes()
            assert rows((await reader.next())[0])
        feed.publish_changes()  # nobody reads
        with stream.reader("sse") as reader:
            subscribed(reader, LiveTopic.TICKERS)
            assert reader._new_live() == []  # no state from before
            feed.publish_changes()
            assert json.loads((await reader.next())[0].text)["data"]["is_complete"] is True
