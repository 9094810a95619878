"""Trades as they are told, and what nobody hears any more of figures, bars and trades."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal

import pytest

from app.configuration.domain.sections import ExecutionScope, QualitySettings, Source
from app.foundation.sql.database import Database
from app.market.domain.price_quarantine import QuarantineReason
from app.market.domain.stream import (
    MarkUpdate,
    QuoteUpdate,
    StreamTopic,
    TopicKind,
    TradeCounts,
    TradeUpdate,
)
from app.market.domain.trade_flow import MINUTE_MS
from app.market.services.symbol_quality import find_quarantine_reason
from tests.market.services.test_market_stream import Scene, frozen_scene
from tests.support.followed_market import PATIENCE_S, followed

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
CODE = "XBTUSDTM"
BY_TRADES = (TopicKind.DAY, TopicKind.TRADE, TopicKind.HOUR_BAR)


@pytest.fixture
async def scene(database: Database) -> AsyncIterator[Scene]:
    async with frozen_scene(database) as opened:
        yield opened


async def test_a_trade_that_is_told_is_the_last_one_and_makes_no_quote_younger(
    scene: Scene,
) -> None:
    await scene.tell_all()
    market = scene.data.live.market
    before, asked = market.tickers[CODE], market.answers[Source.TICKERS]
    scene.live.clock.pass_(1.0)
    later = TradeUpdate(before.value.last + 1, 7, before.value.traded_ms + 5)
    scene.say(CODE, later, TopicKind.TRADE)
    scene.say(CODE, replace(later, price=Decimal(1), traded_ms=later.traded_ms), TopicKind.TRADE)
    market = scene.data.live.market
    after = market.tickers[CODE]
    assert after.value == before.value._replace(
        last=later.price, last_lots=7, traded_ms=later.traded_ms
    )
    assert (after.at_ms, after.mono) == (before.at_ms, before.mono)
    assert market.answers[Source.TICKERS] is asked, "no quote was told"
    scene.say("NOBODYUSDTM", later, TopicKind.TRADE)
    assert "NOBODYUSDTM" not in scene.data.live.market.tickers


async def test_D02_a_trade_far_off_the_mark_is_doubted_at_once_and_the_next_one_confirms(
    scene: Scene,
) -> None:
    await scene.tell_all()
    held, rules = scene.data.live.market, QualitySettings()
    mark, traded_ms = held.stats[CODE].value.mark_price, held.tickers[CODE].value.traded_ms
    assert mark is not None
    scene.say(CODE, MarkUpdate(mark, mark), TopicKind.INSTRUMENT)
    scene.say(CODE, TradeUpdate(mark * 1000, 1, traded_ms + 1), TopicKind.TRADE)
    assert (
        find_quarantine_reason(scene.data.live.market, CODE, rules)
        is QuarantineReason.LAST_OFF_MARK
    )
    scene.say(CODE, TradeUpdate(mark, 1, traded_ms + 2), TopicKind.TRADE)
    assert find_quarantine_reason(scene.data.live.market, CODE, rules) is None


async def test_W03_figures_bars_and_trades_are_deaf_only_where_somebody_traded(
    scene: Scene,
) -> None:
    await scene.tell_all()
    await scene.pass_(35)
    assert not scene.mouth.called_deaf, "nobody trades, so all of them are quiet"
    await scene.live.post("clock", {"advance_ms": 600_000})
    scene.live.clock.pass_(600.0)
    await scene.data.sync_clock()
    await scene.pass_(3)
    assert {StreamTopic(kind, CODE) for kind in BY_TRADES} <= set(scene.mouth.called_deaf)


@pytest.mark.long
async def test_W03_over_real_sockets_mute_figures_bars_and_trades_are_subscribed_anew(
    database: Database,
) -> None:
    async with followed(database) as market:
        live, data, stream = market.live, market.data, market.stream
        mute = {StreamTopic(kind, CODE) for kind in BY_TRADES}

        def anew() -> set[StreamTopic]:
            now = stream.live()
            return {one for one in mute if now.get(one, 0.0) > before[one]}

        await market.until(lambda: data.live.market.is_streaming)
        await market.until(lambda: mute <= stream.live().keys())
        before = dict(stream.live())
        for channel in ("snapshot", "execution"):
            await live.fault("stream_silence", f"/contractMarket/{channel}:{CODE}")
        await live.fault("stream_silence", f"/contractMarket/limitCandle:{CODE}_1hour")
        await market.until(lambda: anew() == mute)
        await live.heal()
        healed = data.monotonic()
        # What is heard again, or asked about and found as it is held, is quiet.
        silence = market.streamed.silence
        await market.until(lambda: all(silence.last_update.get(one, 0.0) > healed for one in mute))


TRADES = StreamTopic(TopicKind.TRADE, CODE)


def flow_of(scene: Scene, symbol: str = "BTCUSDT") -> tuple[float, ...] | None:
    """What scoring reads of the trades of a symbol: bought, sold, trades, recent trades."""
    inputs = scene.data.scoring_inputs()
    if inputs.flow is None:
        return None
    at = inputs.symbols.index(symbol)
    return tuple(float(one[at]) for one in inputs.flow.columns)


async def later(scene: Scene, minutes: int) -> None:
    """Time passes, and every quote is told as the exchange has it."""
    await scene.live.post("clock", {"advance_ms": minutes * MINUTE_MS})
    scene.live.clock.pass_(60.0 * minutes)
    await scene.data.sync_clock()
    for one in (await scene.live.exchange.tickers()).tickers:
        scene.say(one.code, QuoteUpdate(one.bid, one.bid_lots, one.ask, one.ask_lots))
    await scene.data.refresh_market()
    await scene.streamed.check()


async def traded(scene: Scene, bought: int, sold: int, trades: int) -> None:
    now_ms = scene.data.server_clock.now_ms()
    price = scene.data.live.market.tickers[CODE].value.last
    flow = TradeCounts(bought, sold, trades)
    scene.say(CODE, TradeUpdate(price, 1, now_ms, flow), TopicKind.TRADE)


async def test_trades_of_a_whole_hour_without_a_gap_are_scored_and_others_are_missing(
    scene: Scene,
) -> None:
    await scene.tell_all()
    assert flow_of(scene) is None, "the hour has only begun"
    await later(scene, 1)
    await traded(scene, 10, 4, 3)
    await later(scene, 50)
    await traded(scene, 1, 5, 2)
    assert flow_of(scene) is None
    await later(scene, 9)
    await traded(scene, 0, 0, 1)
    await later(scene, 1)
    assert flow_of(scene) == (11.0, 9.0, 6.0, 3.0)
    ethereum = flow_of(scene, "ETHUSDT")
    assert ethereum == (0.0, 0.0, 0.0, 0.0), "streamed without a gap, and nobody traded"
    await later(scene, 60)
    assert flow_of(scene) == (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("seen_by", ["check", "update", "unknown", "unsubscribed"])
async def test_a_gap_begins_the_hour_anew(scene: Scene, seen_by: str) -> None:
    await scene.tell_all()
    await later(scene, 1)
    await traded(scene, 10, 4, 3)
    await later(scene, 60)
    assert flow_of(scene) is not None
    if seen_by == "unknown":
        price = scene.data.live.market.tickers[CODE].value.last
        now_ms = scene.data.server_clock.now_ms()
        scene.say(CODE, TradeUpdate(price, 1, now_ms, None), TopicKind.TRADE)
    elif seen_by == "unsubscribed":
        scene.mouth.heard = {one: at for one, at in scene.mouth.heard.items() if one != TRADES}
        await scene.streamed.check()
        assert CODE not in scene.data.live.market.flows
    else:
        scene.mouth.heard = {**scene.mouth.heard, TRADES: scene.data.monotonic()}
        if seen_by == "check":
            await scene.streamed.check()
        else:
            await traded(scene, 7, 7, 7)
    found = flow_of(scene)
    assert found is None or found[0] != found[0], "missing, not zero"
    if seen_by == "unsubscribed":
        return
    await later(scene, 61)
    found = flow_of(scene)
    assert found is not None
    assert found[2] == 0.0, "the trades of the first update may be of the time before the gap"


async def test_executions_of_every_contract_are_streamed_where_the_setting_says_so(
    scene: Scene,
) -> None:
    await scene.streamed.check()

    def subscribed() -> set[str]:
        return {one.code for one in scene.mouth.wanted if one.kind is TopicKind.TRADE}

    assert subscribed() == {"XBTUSDTM", "ETHUSDTM"}, "the closest symbols by default"
    settings = scene.data.configuration()
    feed = replace(settings.feed, executions=ExecutionScope.ALL)
    scene.data.configuration = lambda: replace(settings, feed=feed)
    await scene.pass_(6)
    assert subscribed() == set(scene.codes())
    assert len(scene.mouth.wanted) == len(set(scene.mouth.wanted))


async def test_trades_over_real_sockets_add_up_to_those_of_the_exchange(
    database: Database,
) -> None:
    async with followed(database) as market:
        live, data = market.live, market.data

        def counted() -> tuple[int, int, int]:
            window = data.live.market.flows.get(CODE)
            minutes = () if window is None else window.minutes
            return tuple(sum(one[at] for one in minutes) for at in (1, 2, 3))  # type: ignore[return-value]  # three sums

        async def settled() -> tuple[int, int, int]:
            """Time stands still: what the exchange has sent arrives."""
            async with asyncio.timeout(PATIENCE_S):
                quiet, last = 0, counted()
                while quiet < 20:
                    await asyncio.sleep(0.02)
                    quiet, last = (quiet + 1 if counted() == last else 0), counted()
            return last

        await market.until(lambda: TRADES in market.stream.live())
        await market.until(lambda: counted()[2] > 0)
        before, begun_ms = await settled(), round(live.clock.wall() * 1000)
        await market.until(lambda: counted()[2] - before[2] > 40)
        after, ended_ms = await settled(), round(live.clock.wall() * 1000)
        async with live.control.get(
            f"{live.base_url}/api/v1/trade/history", params={"symbol": CODE}
        ) as answer:
            sent = (await answer.json())["data"]
        rows = [one for one in sent if begun_ms < one["ts"] // 1_000_000 <= ended_ms]
        lots = {
            side: sum(one["size"] for one in rows if one["side"] == side)
            for side in ("buy", "sell")
        }
        assert after[2] - before[2] == len(rows) < 100
        assert (after[0] - before[0], after[1] - before[1]) == (lots["buy"], lots["sell"])
        assert min(lots.values()) > 0
