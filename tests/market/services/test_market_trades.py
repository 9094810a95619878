"""Trades as they are told, and what nobody hears any more of figures, bars and trades."""

from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal

import pytest

from app.configuration.domain.sections import QualitySettings, Source
from app.foundation.sql.database import Database
from app.market.domain.price_quarantine import QuarantineReason
from app.market.domain.stream import MarkUpdate, StreamTopic, TopicKind, TradeUpdate
from app.market.services.symbol_quality import find_quarantine_reason
from tests.market.services.test_market_stream import Scene, frozen_scene
from tests.support.followed_market import followed

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
