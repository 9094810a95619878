"""The market while it is told: what is believed, for how long, and what happens where it is not."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

import pytest

from app.configuration.domain.sections import Source
from app.foundation.data_status import DataStatus
from app.foundation.errors import Code, UnavailableError
from app.foundation.sql.database import Database
from app.market.domain.models import Interval
from app.market.domain.stream import (
    NO_STREAM,
    BarUpdate,
    DayUpdate,
    FundingUpdate,
    Listener,
    MarketUpdate,
    MarkUpdate,
    QuoteUpdate,
    StreamStatus,
    StreamTopic,
    TopicKind,
    Update,
)
from app.market.services.backfill import first_fill
from app.market.services.quality_monitor import quality_report
from app.market.services.service import MarketData
from app.market.services.stream_consumer import StreamConsumer
from app.operations.services.event_messages import ticker_details, ticker_frame
from app.operations.services.health_checks import STREAM_AWAY, TOPICS_SILENT, ComponentState, stream
from tests.support.followed_market import PATIENCE_S, followed
from tests.support.live_market import LiveMarket, open_market

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
TICKERS = "/api/v1/allTickers"


@dataclass
class Mouth:
    """A stream that tells what the test says."""

    wanted: list[StreamTopic] = field(default_factory=list)
    heard: dict[StreamTopic, float] = field(default_factory=dict)
    called_deaf: list[StreamTopic] = field(default_factory=list)
    shown: StreamStatus = NO_STREAM

    def want(self, topics: Collection[StreamTopic]) -> None:
        self.wanted = list(topics)

    def live(self) -> Mapping[StreamTopic, float]:
        return self.heard

    def resubscribe(self, topics: Collection[StreamTopic]) -> None:
        self.called_deaf.extend(topics)

    def facts(self) -> StreamStatus:
        return self.shown

    async def run(self, listener: Listener, beat: Callable[[], None]) -> None:
        await asyncio.Event().wait()


@dataclass
class Scene:
    live: LiveMarket
    data: MarketData
    mouth: Mouth
    streamed: StreamConsumer

    def codes(self) -> list[str]:
        return [topic.code for topic in self.mouth.wanted if topic.kind is TopicKind.QUOTE]

    async def tell_all(self) -> None:
        """Everything that is wanted is heard from now on."""
        await self.streamed.check()
        now = self.data.monotonic()
        self.mouth.heard = dict.fromkeys(self.mouth.wanted, now)
        await self.streamed.check()
        assert self.data.live.market.is_streaming

    def is_streaming(self) -> bool:
        return self.data.live.market.is_streaming

    def say(self, code: str, update: Update, kind: TopicKind = TopicKind.QUOTE) -> None:
        stamped_ms = self.data.server_clock.now_ms()
        mono = self.data.monotonic()
        self.streamed.on_updates([MarketUpdate(StreamTopic(kind, code), update, stamped_ms, mono)])

    async def pass_(self, seconds: float) -> None:
        """A look a second."""
        for _ in range(round(seconds)):
            self.live.clock.pass_(1.0)
            await self.streamed.check()

    async def hour(self) -> None:
        """An hour without a word, in which a bar closes."""
        await self.live.post("clock", {"advance_ms": 3_600_000})
        self.live.clock.pass_(3_600.0)
        await self.data.sync_clock()

    def quote(self, code: str) -> QuoteUpdate:
        held = self.data.live.market.tickers[code].value
        return QuoteUpdate(held.bid, held.bid_lots, held.ask, held.ask_lots)

    def is_fresh(self, code: str) -> bool:
        moment = self.data.moment()
        (entry,) = (one for one in moment.known.index.entries if one.contract.code == code)
        return moment.ages(entry)[Source.TICKERS].status is DataStatus.FRESH


@asynccontextmanager
async def frozen_scene(database: Database) -> AsyncIterator[Scene]:
    """The exchange's market stands still: its own time passes only where a test says so."""
    async with open_market(database, contracts=14) as live:
        data = live.market()
        data.is_streamed = True
        await first_fill(data)
        await live.post("clock", {"speed": 0})
        mouth = Mouth()

        async def closest() -> tuple[str, ...]:
            return ("BTCUSDT", "NOSUCHUSDT", "ETHUSDT", "BTCUSDT")

        streamed = StreamConsumer(data, mouth, closest)
        data.quotes.streamed_since = streamed.streamed_quotes
        yield Scene(live, data, mouth, streamed)


@pytest.fixture
async def scene(database: Database) -> AsyncIterator[Scene]:
    async with frozen_scene(database) as opened:
        yield opened


async def test_quotes_of_all_that_is_traded_and_everything_of_the_closest_are_wanted(
    scene: Scene,
) -> None:
    await scene.streamed.check()
    entries = scene.data.registry.index.entries
    assert set(scene.codes()) == {
        one.contract.code for one in entries if one.contract.status == "Open"
    }
    close = [topic for topic in scene.mouth.wanted if topic.kind is not TopicKind.QUOTE]
    assert len(close) == len(set(close)) == 10
    assert {topic.code for topic in close} == {"XBTUSDTM", "ETHUSDTM"}


def _age_told(scene: Scene) -> str:
    """The sentence on the age of a symbol's data in the report on its quality."""
    report = quality_report(scene.data.moment(), scene.data.resolve("ETHUSDT"))
    return next(part.reason for part in report.parts if part.name == "age")


async def test_W03_a_quiet_quote_is_fresh_because_asking_confirms_it(scene: Scene) -> None:
    await scene.tell_all()
    await scene.pass_(45)
    assert all(map(scene.is_fresh, scene.codes()))
    assert not scene.mouth.called_deaf
    # The list of contracts is asked for once a minute: its age counts against its own limit.
    assert "the limit is 180 s" in _age_told(scene)


async def test_a_quote_of_the_stream_is_dated_as_it_was_told_not_as_its_contract_was_asked(
    scene: Scene,
) -> None:
    await scene.tell_all()
    await scene.pass_(20)
    scene.say("ETHUSDTM", scene.quote("ETHUSDTM"))
    await scene.pass_(1)
    view = scene.data.moment().quote(scene.data.resolve("ETHUSDT"))
    event = json.loads(ticker_frame(view, ticker_details(view, "sandbox")).text)
    told, known = map(datetime.fromisoformat, (event["timestamp"], event["data"]["as_of"]))
    assert (told - known).total_seconds() == pytest.approx(20, abs=1)


async def test_W03_what_is_neither_told_nor_confirmed_turns_stale_by_the_limit_of_the_mode(
    scene: Scene,
) -> None:
    await scene.tell_all()
    await scene.live.fault("status", TICKERS, status=500)
    await scene.pass_(29)
    assert all(map(scene.is_fresh, scene.codes()))
    await scene.pass_(6)
    assert not any(map(scene.is_fresh, scene.codes()))
    assert "35.0 s old; the limit is 30 s" in _age_told(scene)
    moment = scene.data.moment()
    assert moment.age_limit_s(Source.TICKERS) == 30.0
    assert replace(moment, is_streamed=False).age_limit_s(Source.TICKERS) == 180.0


async def test_W03_W16_one_deaf_topic_is_named_and_stale_and_the_others_decide(
    scene: Scene,
) -> None:
    await scene.tell_all()
    scene.live.clock.pass_(1.0)
    code = "ETHUSDTM"
    true = scene.quote(code)
    assert true.bid is not None
    # What it was told last is not what the exchange says by now: it missed a move.
    scene.say(code, true._replace(bid=true.bid - 1))
    await scene.pass_(40)
    assert StreamTopic(TopicKind.QUOTE, code) in scene.mouth.called_deaf
    assert {topic.code for topic in scene.mouth.called_deaf} == {code}
    assert not scene.is_fresh(code)
    others = [one for one in scene.codes() if one != code]
    assert all(map(scene.is_fresh, others))
    eligible = scene.data.funnel().eligible
    assert "ETHUSDT" not in eligible
    assert "BTCUSDT" in eligible
    assert scene.data.status() is DataStatus.FRESH
    scene.say(code, true)
    assert scene.is_fresh(code)
    await scene.pass_(40)
    assert scene.is_fresh(code)


async def test_W03_after_subscribing_anew_the_answer_is_where_it_goes_on_from(
    scene: Scene,
) -> None:
    await scene.tell_all()
    scene.live.clock.pass_(1.0)
    code, topic = "ETHUSDTM", StreamTopic(TopicKind.QUOTE, "ETHUSDTM")
    true = scene.quote(code)
    assert true.bid is not None
    scene.say(code, true._replace(bid=true.bid - 1))  # the move after it was lost
    while topic not in scene.mouth.called_deaf:
        await scene.pass_(1)
    scene.live.clock.pass_(1.0)
    scene.mouth.heard[topic] = scene.data.monotonic()
    scene.mouth.called_deaf.clear()
    await scene.pass_(10)
    assert scene.is_fresh(code)
    assert scene.quote(code) == true
    await scene.pass_(40)
    assert scene.is_fresh(code)
    assert not scene.mouth.called_deaf


async def test_W16_a_topic_that_stays_mute_is_stale_however_often_it_is_subscribed(
    scene: Scene,
) -> None:
    await scene.tell_all()
    topic = StreamTopic(TopicKind.QUOTE, "ETHUSDTM")
    for _ in range(60):
        await scene.live.post("clock", {"advance_ms": 5_000})  # its quote moves on
        await scene.data.sync_clock()
        await scene.pass_(1)
        if topic in scene.mouth.called_deaf:
            scene.mouth.called_deaf.clear()
            scene.mouth.heard[topic] = scene.data.monotonic()
    assert not scene.is_fresh("ETHUSDTM")
    scene.say("ETHUSDTM", scene.quote("ETHUSDTM"))
    assert scene.is_fresh("ETHUSDTM"), "one word is enough"


async def test_W03_marks_and_books_that_are_silent_are_asked_about(scene: Scene) -> None:
    await scene.tell_all()
    data, code = scene.data, "XBTUSDTM"
    await scene.pass_(30)
    assert not scene.mouth.called_deaf, "the market stands still, so all of them are quiet"
    age_s = data.monotonic() - data.live.market.books[code].mono
    assert age_s <= 12, "a quiet book is confirmed"
    before = await scene.live.requests()
    scene.say(code, MarkUpdate(Decimal(5), Decimal(5)), TopicKind.INSTRUMENT)
    book = data.live.market.books[code].value
    scene.say(code, replace(book, bids=book.bids[1:]), TopicKind.BOOK)
    await scene.pass_(9)
    assert not scene.mouth.called_deaf
    await scene.pass_(3)
    assert set(scene.mouth.called_deaf) == {
        StreamTopic(TopicKind.INSTRUMENT, code),
        StreamTopic(TopicKind.BOOK, code),
    }
    assert data.live.market.books[code].value.bids == book.bids, "shown as it was answered"
    after = await scene.live.requests()
    (path,) = (one for one in after if "mark-price" in one)
    # Two contracts, each a mark that was silent for ten of the twelve seconds.
    assert after[path] - before[path] <= 4, "asked about once in its time of silence"


async def test_W06_a_topic_that_is_not_acknowledged_is_not_fresh(scene: Scene) -> None:
    await scene.tell_all()
    del scene.mouth.heard[StreamTopic(TopicKind.QUOTE, "ETHUSDTM")]
    await scene.pass_(35)
    assert not scene.is_fresh("ETHUSDTM")
    assert scene.is_fresh("XBTUSDTM")


async def test_W09_where_the_exchange_counts_anew_the_answers_are_where_it_goes_on_from(
    scene: Scene,
) -> None:
    await scene.tell_all()
    true = scene.quote("ETHUSDTM")
    assert true.ask is not None
    scene.say("ETHUSDTM", true._replace(ask=true.ask * 2))
    scene.live.clock.pass_(1.0)
    scene.streamed.on_sequence_restart(StreamTopic(TopicKind.QUOTE, "ETHUSDTM"))
    await scene.streamed.check()
    assert scene.quote("ETHUSDTM") == true


async def test_W14_what_was_missed_is_asked_for_quotes_and_bars(scene: Scene) -> None:
    await scene.tell_all()
    true = scene.quote("ETHUSDTM")
    scene.say("ETHUSDTM", true._replace(bid=Decimal(1)))
    newest_ms = int(scene.data.live.market.hourly["ETHUSDTM"].value.opened_ms[-1])
    await scene.hour()
    before = await scene.live.requests()
    await scene.streamed.catch_up()
    after = await scene.live.requests()
    assert scene.quote("ETHUSDTM").bid != Decimal(1)
    assert scene.is_fresh("ETHUSDTM")
    assert after[TICKERS] == before[TICKERS] + 1
    bars = scene.data.live.market.hourly["ETHUSDTM"].value
    assert int(bars.opened_ms[-1]) == newest_ms + Interval.HOUR.ms
    await scene.live.fault("status", TICKERS, status=500)
    with pytest.raises(UnavailableError):
        await scene.streamed.catch_up()


async def test_W10_a_crossed_quote_has_no_spread_and_a_crossed_book_no_depth(scene: Scene) -> None:
    await scene.tell_all()
    scene.live.clock.pass_(1.0)
    data, code = scene.data, "XBTUSDTM"
    entry = data.resolve("BTCUSDT")
    before = data.view(entry)
    assert before.spread_bp is not None
    quote, book = scene.quote(code), data.live.market.books[code].value
    scene.say(code, quote._replace(bid=quote.ask, ask=quote.bid))
    scene.say(code, replace(book, bids=book.asks, asks=book.bids), TopicKind.BOOK)
    crossed = data.view(entry)
    assert crossed.spread_bp is None
    assert crossed.depth is None
    scene.live.clock.pass_(1.0)
    scene.say(code, quote)
    scene.say(code, book, TopicKind.BOOK)
    assert data.view(entry).spread_bp == before.spread_bp


async def test_what_is_told_becomes_visible_and_is_as_old_as_its_stamp(scene: Scene) -> None:
    await scene.tell_all()
    scene.live.clock.pass_(1.0)
    data, code = scene.data, "XBTUSDTM"
    asked = data.live.market.stats[code].mono
    scene.say(code, MarkUpdate(Decimal("5.5"), Decimal("5.4")), TopicKind.INSTRUMENT)
    scene.say(code, FundingUpdate(Decimal("0.001"), is_predicted=True), TopicKind.INSTRUMENT)
    scene.say(code, FundingUpdate(Decimal("0.002"), is_predicted=False), TopicKind.INSTRUMENT)
    figures = (Decimal(n) for n in range(1, 7))
    scene.say(code, DayUpdate(*figures), TopicKind.DAY)
    stats = data.live.market.stats[code]
    assert (stats.value.mark_price, stats.value.index_price) == (Decimal("5.5"), Decimal("5.4"))
    assert stats.value.predicted_funding_rate == Decimal("0.001")
    assert stats.value.funding_rate == Decimal("0.002")
    assert (stats.value.last_price, stats.value.volume_24h) == (Decimal(1), Decimal(6))
    assert stats.mono == asked, "open interest in it was not told"
    book = replace(data.live.market.books[code].value, sequence=7)
    now_ms, mono = data.server_clock.now_ms(), data.monotonic()
    data_of = MarketUpdate(StreamTopic(TopicKind.BOOK, code), book, now_ms - 2_000, mono)
    scene.streamed.on_updates([data_of])
    held = data.live.market.books[code]
    assert held.value.sequence == 7
    assert data.monotonic() - held.mono == pytest.approx(2.0, abs=0.01)


async def test_W09_what_is_older_than_an_answer_does_not_replace_it(scene: Scene) -> None:
    await scene.tell_all()
    true, data = scene.quote("XBTUSDTM"), scene.data
    late_ms = data.server_clock.now_ms() - 60_000
    late = MarketUpdate(
        StreamTopic(TopicKind.QUOTE, "XBTUSDTM"),
        true._replace(bid=Decimal(1)),
        late_ms,
        data.monotonic(),
    )
    scene.streamed.on_updates([late])
    assert scene.quote("XBTUSDTM") == true


async def test_without_a_stream_it_polls_and_streams_again_when_that_is_back(scene: Scene) -> None:
    await scene.tell_all()
    heard, scene.mouth.heard = scene.mouth.heard, {}
    await scene.pass_(29)
    assert scene.is_streaming()
    for _ in range(10):
        await scene.pass_(1)
        assert all(map(scene.is_fresh, scene.codes()))
    assert not scene.is_streaming()
    assert scene.data.moment().age_limit_s(Source.TICKERS) == 30.0, "whatever the mode is now"
    (away,) = stream(scene.streamed.report())
    assert (away.state, away.cause) == (ComponentState.DEGRADED, STREAM_AWAY)
    scene.mouth.heard = heard
    await scene.pass_(1)
    assert scene.is_streaming()


async def test_a_bar_that_was_seen_to_close_is_read_for_everybody_without_waiting_for_the_tick(
    scene: Scene,
) -> None:
    await scene.tell_all()
    waiting = asyncio.ensure_future(scene.streamed.bars(lambda: None))
    opened_ms = scene.data.server_clock.now_ms() // Interval.HOUR.ms * Interval.HOUR.ms
    scene.say("XBTUSDTM", BarUpdate(opened_ms), TopicKind.HOUR_BAR)
    await scene.hour()
    await scene.data.refresh_tickers(after_gap=True)
    held = scene.data.live.market.hourly["ETHUSDTM"].value
    assert int(held.opened_ms[-1]) < opened_ms
    scene.say("XBTUSDTM", BarUpdate(opened_ms + Interval.HOUR.ms), TopicKind.HOUR_BAR)
    async with asyncio.timeout(PATIENCE_S):
        while int(scene.data.live.market.hourly["ETHUSDTM"].value.opened_ms[-1]) < opened_ms:
            scene.live.clock.pass_(0.1)
            await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_without_the_database_the_closest_stay_those_that_they_were(scene: Scene) -> None:
    await scene.streamed.check()
    before = set(scene.mouth.wanted)

    async def away() -> tuple[str, ...]:
        raise UnavailableError(Code.DATABASE_UNAVAILABLE, "away")

    scene.streamed.closest = away
    await scene.pass_(6)
    assert set(scene.mouth.wanted) == before


async def test_health_and_metrics_say_what_the_stream_does(scene: Scene) -> None:
    (starting,) = stream(scene.streamed.report())
    assert starting.state is ComponentState.STARTING
    scene.mouth.shown = replace(
        NO_STREAM,
        topics=20,
        active_topics=20,
        messages=7,
        dropped={"late": 3},
        seconds_since_last_message=1.5,
    )
    await scene.tell_all()
    (up,) = stream(scene.streamed.report())
    assert up.state is ComponentState.UP
    assert up.detail == "20 of 20 topics live on 0 connections, last message 2 s ago"
    text = scene.data.metrics.render().decode()
    assert "mysymbols_feed_streaming 0.0" in text or "mysymbols_feed_streaming 1.0" in text
    scene.mouth.shown = replace(
        scene.mouth.shown, active_topics=10, messages=9, failures={"stalled": 2}
    )
    await scene.streamed.check()
    (silent,) = stream(scene.streamed.report())
    assert (silent.state, silent.cause) == (ComponentState.DEGRADED, TOPICS_SILENT)
    text = scene.data.metrics.render().decode()
    assert "mysymbols_feed_streaming 1.0" in text
    assert 'mysymbols_feed_topics{state="live"} 10.0' in text
    assert "mysymbols_feed_messages_total 9.0" in text
    assert 'mysymbols_feed_dropped_messages_total{reason="late"} 3.0' in text
    assert 'mysymbols_feed_reconnects_total{reason="stalled"} 2.0' in text
    scene.data.is_owner = lambda: False
    assert stream(scene.streamed.report()) == ()
    assert stream(None) == ()


async def test_quotes_are_asked_for_while_the_first_fill_goes_on(scene: Scene) -> None:
    scene.data.filled.clear()
    watching = asyncio.ensure_future(scene.streamed.watch(lambda: None))
    asked = scene.data.quotes.last_poll
    scene.live.clock.pass_(6.0)
    async with asyncio.timeout(PATIENCE_S):
        while scene.data.quotes.last_poll == asked:
            await asyncio.sleep(0.05)
    assert scene.mouth.wanted == [], "nothing is wanted of the stream yet"
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_the_watch_ends_streaming_when_it_ends(scene: Scene) -> None:
    await scene.tell_all()
    watching = asyncio.ensure_future(scene.streamed.watch(lambda: None))
    await asyncio.sleep(0.05)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert not scene.data.live.market.is_streaming
    assert scene.mouth.wanted == []


async def test_W03_W16_over_real_sockets_a_mute_topic_is_stale_and_the_rest_is_not(
    database: Database,
) -> None:
    async with followed(database) as market:
        live, data = market.live, market.data

        async def until(holds: Callable[[], bool]) -> None:
            await market.until(holds, step_s=0.5)

        def stale() -> set[str]:
            moment = data.moment()
            return {
                one.symbol
                for one in moment.known.index.entries
                if moment.ages(one)[Source.TICKERS].status is not DataStatus.FRESH
            }

        await until(lambda: data.live.market.is_streaming)
        await until(lambda: market.streamed.facts().messages > 50)
        assert not stale()
        await live.fault("stream_silence", "/contractMarket/tickerV2:ETHUSDTM")
        await until(lambda: stale() == {"ETHUSDT"})
        assert "BTCUSDT" in data.funnel().eligible
        assert "ETHUSDT" not in data.funnel().eligible
        await live.heal()
        await until(lambda: not stale())
