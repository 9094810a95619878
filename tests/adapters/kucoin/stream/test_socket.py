"""The stream over real sockets against the local exchange: what it tells, and each fault."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from app.market.domain.models import Book
from app.market.domain.stream import (
    BarUpdate,
    DayUpdate,
    FundingUpdate,
    MarketUpdate,
    MarkUpdate,
    QuoteUpdate,
    StreamTopic,
    TopicKind,
)
from app.market.services.state import SHOWN_LEVELS
from tests.adapters.kucoin.listening import QUICK, Ear, Listening, listening

PATIENCE_S = 60.0


async def live(here: Listening, *kinds: TopicKind) -> None:
    here.stream.want(here.topics(*(kinds or (TopicKind.QUOTE,))))
    await here.until(here.all_live)


async def test_every_topic_tells_what_the_exchange_answers_at_the_same_moment() -> None:
    async with listening() as here:
        await live(here, *TopicKind)
        kinds = (QuoteUpdate, MarkUpdate, DayUpdate, BarUpdate, Book)
        await here.until(lambda: all(len(here.ear.said(kind)) == len(here.codes) for kind in kinds))
        listing = await here.exchange.contracts()
        stats = {one.code: one for one in listing.stats}
        inverse = {one.code for one in listing.contracts if one.is_inverse}
        paying = {one.code for one in listing.contracts if one.funding_interval_ms is not None}
        await here.until(lambda: here.ear.said(FundingUpdate).keys() == paying)
        for ticker in (await here.exchange.tickers()).tickers:
            code = ticker.code
            quote = here.ear.said(QuoteUpdate)[code].update
            assert quote == QuoteUpdate(ticker.bid, ticker.bid_lots, ticker.ask, ticker.ask_lots)
            mark = here.ear.said(MarkUpdate)[code].update
            assert isinstance(mark, MarkUpdate)
            assert (mark.mark, mark.index) == (stats[code].mark_price, stats[code].index_price)
            day = here.ear.said(DayUpdate)[code].update
            assert isinstance(day, DayUpdate)
            assert day.last == ticker.last
            if code not in inverse:  # there it counts base coins
                assert day.turnover == stats[code].turnover_24h
            assert (day.volume, day.change) == (stats[code].volume_24h, stats[code].change_24h)
            book, asked = here.ear.said(Book)[code].update, await here.exchange.book(code)
            asked = asked.top(SHOWN_LEVELS)
            assert isinstance(book, Book)
            assert (book.bids, book.asks) == (asked.bids, asked.asks)
            bar = here.ear.said(BarUpdate)[code].update
            assert isinstance(bar, BarUpdate)
            assert bar.opened_ms == here.ear.exchange_ms() // 3_600_000 * 3_600_000
        assert here.ear.backfills == 1
        facts = here.stream.facts()
        assert [one.phase for one in facts.connections] == ["live"]
        assert facts.messages >= len(here.codes) * 5
        assert not facts.failures


async def test_W08_what_comes_twice_or_in_the_wrong_order_changes_nothing() -> None:
    async with listening() as here:
        await here.post("faults", kind="stream_duplicate", path="*")
        await live(here)
        await here.until(lambda: here.stream.facts().dropped.get("repeated", 0) >= 6)
        await here.heal()
        await here.post("faults", kind="stream_reorder", path="*")
        await here.moved(lambda: here.stream.facts().dropped.get("late", 0) >= 6)
        await here.heal()
        for topic in here.topics(TopicKind.QUOTE):
            stamps = [one.stamped_ms for one in here.ear.heard if one.topic == topic]
            assert stamps == sorted(set(stamps))


async def test_W11_W13_garbage_and_strangers_are_counted_and_dropped() -> None:
    async with listening(terms=replace(QUICK, garbage=10_000)) as here:
        for form in ("cut", "binary", "deep", "large", "mystery", "stranger"):
            await here.post("faults", kind="stream_garbage", path="*", form=form, times=6)
        await live(here)
        await here.moved(lambda: here.stream.facts().dropped.get("strange", 0) >= 6)
        await here.moved(lambda: here.stream.facts().dropped.get("binary", 0) >= 1)
        await here.moved(lambda: len(here.ear.said(QuoteUpdate)) == len(here.codes))
        dropped = here.stream.facts().dropped
        assert dropped["garbage"] >= 2
        assert dropped["too_long"] >= 1
        assert not here.stream.facts().failures


async def test_W12_a_burst_replaces_itself_and_the_newest_word_is_shown() -> None:
    async with listening() as here:
        await live(here)
        await here.until(lambda: len(here.ear.said(QuoteUpdate)) == len(here.codes))
        before, told = here.stream.facts(), len(here.ear.heard)
        here.clock.pass_(1.0)
        topic = "/contractMarket/tickerV2:XBTUSDTM"
        answer = await here.post("stream/burst", topic=topic, per_second=20_000, seconds=0.25)
        assert answer["sent"] == 5_000

        def came() -> int:
            return here.stream.facts().messages - before.messages

        def given_on() -> int:
            return len(here.ear.heard) - told

        def replaced() -> int:
            now, then = (one.dropped.get("replaced", 0) for one in (here.stream.facts(), before))
            return now - then

        await here.until(lambda: came() >= 5_000)
        # Nothing is lost without being counted, and nothing was kept in between.
        await here.until(lambda: given_on() + replaced() == came())
        assert given_on() < 2_500
        assert not here.stream.facts().failures


async def test_W13_too_much_garbage_ends_the_connection() -> None:
    async with listening() as here:
        await here.post("faults", kind="stream_garbage", path="*", times=40)
        await live(here)
        await here.moved(lambda: here.stream.facts().failures.get("garbage", 0) >= 1)
        await here.heal()
        await here.until(here.all_live)


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1012])
async def test_W14_after_a_close_it_is_back_and_has_caught_up_first(code: int) -> None:
    async with listening() as here:
        await live(here)
        here.ear.is_unavailable = True
        await here.post("stream/close", code=code)
        await here.until(
            lambda: any(one.phase == "catching_up" for one in here.stream.facts().connections)
        )
        heard = len(here.ear.heard)
        await here.moved(lambda: here.stream.facts().dropped.get("replaced", 0) >= 3)
        assert len(here.ear.heard) == heard
        assert here.stream.facts().failures == {f"closed_{code}": 1}
        here.ear.is_unavailable = False
        await here.until(here.all_live)
        assert here.ear.backfills == 2
        await here.until(lambda: len(here.ear.heard) > heard)
        state = await here.look()
        (connection,) = state["connections"]
        assert len(connection["topics"]) == len(here.codes)


async def test_W02_W05_refused_tokens_and_missing_welcomes_are_borne() -> None:
    async with listening(terms=replace(QUICK, welcome_s=0.3)) as here:
        await here.post("faults", kind="stream_expired_token", path="*", times=2)
        await here.post("faults", kind="stream_no_welcome", path="*", times=1)
        await live(here)
        failures = here.stream.facts().failures
        assert failures["refused_401"] == 2
        assert failures["no_welcome"] >= 1
        assert (await here.look())["tally"]["tokens"] >= 4


async def test_W04_a_half_open_connection_is_let_go() -> None:
    async with listening(terms=replace(QUICK, check_s=0.3, silence_s=0.3)) as here:
        await live(here)
        (connection,) = (await here.look())["connections"]
        await here.post(
            "faults", kind="stream_half_open", path="*", connection=connection["connect_id"]
        )
        await here.until(lambda: here.stream.facts().failures.get("no_pong", 0) >= 1)
        await here.heal()
        await here.until(here.all_live)


async def test_W06_a_topic_that_is_refused_as_unknown_leaves_the_others_alone() -> None:
    async with listening() as here:
        stranger = StreamTopic(TopicKind.QUOTE, "NOBODYUSDTM")
        here.stream.want([*here.topics(TopicKind.QUOTE), stranger])
        await here.until(here.all_live)
        assert here.stream.live().keys() == set(here.topics(TopicKind.QUOTE))


async def test_W01_a_connection_is_replaced_by_one_that_already_speaks() -> None:
    async with listening(terms=replace(QUICK, rotate_s=(0.5, 0.5), overlap_s=0.2)) as here:
        await live(here)
        await here.moved(lambda: here.stream.facts().reconnects_planned >= 3)
        assert here.ear.backfills == 1, "there was never a gap to close"
        assert (await here.look())["tally"]["tokens"] >= 3


async def test_W15_whoever_listens_and_fails_ends_the_stream_and_the_next_one_begins_anew() -> None:
    async with listening() as here:
        stream = here.exchange.stream(QUICK)
        stream.want(here.topics(TopicKind.QUOTE))
        for ear in (Failing(here.ear.now_ms), FailingClock(here.ear.now_ms)):
            with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="a bug")):
                await asyncio.wait_for(stream.run(ear, lambda: None), PATIENCE_S)
            assert not stream.live()
            assert not stream.facts().failures, "nothing is wrong with the connection"
        again = asyncio.ensure_future(stream.run(here.ear, lambda: None))
        await here.until(lambda: len(here.ear.said(QuoteUpdate)) == len(here.codes))
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)
        assert (await here.look())["tally"]["opened"] == 3


class Failing(Ear):
    def on_updates(self, updates: Sequence[MarketUpdate]) -> None:
        raise ValueError("a bug")


class FailingClock(Ear):
    def exchange_ms(self) -> int:
        raise ValueError("a bug")
