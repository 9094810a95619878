"""Quotes that replace earlier ones unread: only those that are newer for sure, and all counted."""

import asyncio
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

import pytest

from app.adapters.kucoin.stream.connection import Subscriptions
from app.adapters.kucoin.stream.frames import parse_frame
from app.adapters.kucoin.stream.market_stream import PORTION, KucoinStream
from app.adapters.kucoin.stream.message_buffer import MessageBuffer
from app.adapters.kucoin.stream.protocol import StreamLimits, StreamTicket
from app.market.domain.stream import (
    MarketUpdate,
    QuoteUpdate,
    StreamTopic,
    TopicKind,
    TradeCounts,
    TradeUpdate,
)

TOPIC = StreamTopic(TopicKind.QUOTE, "XBTUSDTM")
NOW_MS = 1_729_843_266_123
LIVE = {TOPIC: 0.0}
LONGEST = 1_000


def quote(lots: int, at_ms: int, sequence: int | None = None, price: str = '"1.5"') -> bytes:
    """Like the exchange's own, with `lots` bid; the sequence goes with the time unless given."""
    number = at_ms if sequence is None else sequence
    return (
        '{"topic":"/contractMarket/tickerV2:XBTUSDTM","type":"message","subject":"tickerV2",'
        f'"sn":{number},"data":{{"symbol":"XBTUSDTM","sequence":{number},"bestBidSize":{lots},'
        f'"bestBidPrice":{price},"bestAskPrice":"1.6","bestAskSize":1,"ts":{at_ms}000000}}}}'
    ).encode()


class Post:
    """An inbox, and the connection that it is filled from."""

    def __init__(self) -> None:
        self.inbox = MessageBuffer()
        self.held = Subscriptions(StreamLimits())
        self.held.add([TOPIC])
        self.came(quote(1, NOW_MS))
        self.told()

    def came(self, *texts: bytes | None) -> list[bytes]:
        """A batch; gives what had to be read at once."""
        left = self.inbox.sift(texts, self.held, 7.0, NOW_MS, LONGEST)
        read = [text for text in left if text is not None]
        for text in read:
            self.inbox.put(TOPIC, parse_frame(text), text, 7.0, NOW_MS)
        return read

    def told(self) -> list[int | None]:
        """The bid lots of what is given on."""
        return list(bids(one.update for one in self.inbox.take(LIVE, NOW_MS)))


def bids(updates: Iterable[object]) -> Iterator[int | None]:
    for update in updates:
        assert isinstance(update, QuoteUpdate)
        yield update.bid_lots


@pytest.fixture
def post() -> Post:
    return Post()


def test_a_later_stamp_replaces_what_waits_without_being_read(post: Post) -> None:
    assert post.came(quote(2, NOW_MS + 1), quote(3, NOW_MS + 2), quote(4, NOW_MS + 3)) == []
    assert post.told() == [4]
    assert post.told() == []
    assert (post.inbox.messages, post.inbox.dropped) == (4, {"replaced": 2})
    (again,) = [quote(5, NOW_MS + 4)]
    assert post.came(again) == []
    assert post.told() == [5]


def test_W09_within_a_batch_too_the_older_one_is_late_and_the_newer_one_stays(post: Post) -> None:
    late = quote(3, NOW_MS + 1)
    assert post.came(quote(2, NOW_MS + 2), late) == [late]
    assert post.told() == [2]
    assert post.inbox.dropped == {"late": 1}


def test_W08_what_comes_twice_counts_once(post: Post) -> None:
    twice = quote(2, NOW_MS + 2)
    post.came(twice, twice)
    assert post.told() == [2]
    assert post.inbox.dropped == {"repeated": 1}


def test_D20_what_is_of_the_future_replaces_nothing(post: Post) -> None:
    post.came(quote(2, NOW_MS + 1), quote(3, NOW_MS + 5_001))
    assert post.told() == [2]
    assert post.inbox.dropped == {"ahead": 1}
    post.came(quote(4, NOW_MS + 5_000))
    assert post.told() == [4]


def test_W09_a_sequence_that_falls_while_time_goes_on_is_followed_and_said(post: Post) -> None:
    post.came(quote(2, NOW_MS + 1, sequence=5))
    assert post.told() == [2]
    assert post.inbox.restarted == [TOPIC]


def test_of_one_stamp_in_ms_the_sequence_tells_which_is_newer(post: Post) -> None:
    stamp = b"%d" % (NOW_MS + 1)
    newer = quote(2, NOW_MS + 1).replace(stamp + b"000000}", stamp + b"000009}")
    post.came(newer)
    assert post.told() == [2]
    older = quote(3, NOW_MS + 1, sequence=NOW_MS).replace(stamp + b"000000}", stamp + b"000010}")
    assert post.came(older) == []
    assert post.told() == []
    assert (post.inbox.messages, post.inbox.dropped) == (2, {"late": 1})


@pytest.mark.parametrize("price", ['"nothing"', "-1", '"1.5"}'])
def test_D01_what_says_nothing_is_dropped_and_the_next_one_is_read_with_care(
    post: Post, price: str
) -> None:
    post.came(quote(2, NOW_MS + 1, price=price))
    assert post.told() == []
    assert post.inbox.dropped == {"unreadable": 1}
    after = quote(3, NOW_MS + 2)
    assert post.came(after) == [after]
    assert post.told() == [3]


def test_what_waits_unread_and_says_nothing_gives_way_to_the_next_one(post: Post) -> None:
    post.came(quote(2, NOW_MS + 1, price="-1"))
    twice = quote(3, NOW_MS + 1)
    assert post.came(twice) == [twice]
    assert post.told() == [3]
    assert post.inbox.dropped == {"unreadable": 1}


def test_W11_who_no_longer_asks_for_it_is_not_told_unread(post: Post) -> None:
    post.held.drop([TOPIC])
    stranger = quote(2, NOW_MS + 1)
    assert post.inbox.sift([stranger], post.held, 7.0, NOW_MS, LONGEST) == [stranger]
    assert post.told() == []


def test_a_topic_that_was_called_deaf_and_speaks_unread_is_deaf_no_more(post: Post) -> None:
    post.held.resubscribe([TOPIC], 0.0)
    assert post.came(quote(2, NOW_MS + 1)) == []
    assert post.held.resubscribe([TOPIC], 100.0) == [], "it was asked for anew, and not given up"


def test_W13_what_is_too_long_or_no_text_is_left_to_whoever_counts_it(post: Post) -> None:
    long = quote(2, NOW_MS + 1).replace(b'"sn":', b'"x":"' + b"x" * LONGEST + b'","sn":')
    texts = [None, long, b"", b"{}"]
    assert post.inbox.sift(texts, post.held, 7.0, NOW_MS, LONGEST) == texts


@pytest.mark.parametrize(
    "change",
    [(b'"ts":', b'"ts": '), (b'{"topic"', b'{ "topic"'), (b"000000}}", b'000000},"x":1}')],
)
def test_other_layouts_are_read_as_before(post: Post, change: tuple[bytes, bytes]) -> None:
    texts = [quote(n, NOW_MS + n).replace(*change) for n in (2, 3)]
    post.came(quote(9, NOW_MS + 1))
    assert post.came(*texts) == texts
    assert post.told() == [3]


class _Fleet:
    """Whose connections tell these topics."""

    def __init__(self, held: dict[StreamTopic, float]) -> None:
        self.held = held

    def live(self) -> dict[StreamTopic, float]:
        return self.held


class _Hearer:
    def __init__(self) -> None:
        self.news: list[list[MarketUpdate]] = []

    def on_updates(self, updates: list[MarketUpdate]) -> None:
        self.news.append(updates)

    def exchange_ms(self) -> int:
        return NOW_MS


def streaming(topics: list[StreamTopic]) -> tuple[KucoinStream, _Fleet, _Hearer]:
    """A stream with a message of each of these topics waiting."""
    stream: Any = KucoinStream(none, terms=StreamLimits(), monotonic=lambda: 0.0, dice=Random(7))
    fleet, hearer = _Fleet(dict.fromkeys(topics, 0.0)), _Hearer()
    stream._pool, stream._listener = fleet, hearer
    for topic in topics:
        text = quote(1, NOW_MS).replace(b"XBTUSDTM", topic.code.encode())
        stream._buffer.put(topic, parse_frame(text), text, 7.0, NOW_MS)
    return stream, fleet, hearer


async def none() -> StreamTicket:
    raise AssertionError


async def test_others_have_their_turn_while_hundreds_of_messages_are_read() -> None:
    topics = [StreamTopic(TopicKind.QUOTE, f"A{number}USDTM") for number in range(2 * PORTION + 1)]
    stream, _, hearer = streaming(topics)
    turns: list[int] = []

    async def others() -> None:
        while not hearer.news:
            turns.append(stream._buffer.waiting)
            await asyncio.sleep(0)

    await asyncio.gather(stream._flush(), others())
    assert turns[:2] == [PORTION + 1, 1]
    assert [[one.topic for one in news] for news in hearer.news] == [topics]
    assert stream._buffer.is_empty


async def test_nothing_is_told_of_a_connection_that_ended_while_its_messages_were_read() -> None:
    topics = [StreamTopic(TopicKind.QUOTE, f"A{number}USDTM") for number in range(PORTION + 2)]
    stream, fleet, hearer = streaming(topics)

    async def ends() -> None:
        fleet.held = dict.fromkeys(topics[1:], 0.0)

    await asyncio.gather(stream._flush(), ends())
    assert [[one.topic for one in news] for news in hearer.news] == [topics[1:]]
    assert stream._buffer.waiting == 0


def trade(lots: int, side: str, at_ms: int, *, size: str | None = None) -> bytes:
    """An execution as the exchange sends it; its sequence goes with the time."""
    return (
        '{"topic":"/contractMarket/execution:XBTUSDTM","type":"message","subject":"match",'
        f'"sn":{at_ms},"data":{{"symbol":"XBTUSDTM","sequence":{at_ms},"side":"{side}",'
        f'"size":{size or lots},"price":"1.5","tradeId":"t","ts":{at_ms}000000}}}}'
    ).encode()


def test_replaced_trades_are_counted_once_by_their_side() -> None:
    topic = StreamTopic(TopicKind.TRADE, "XBTUSDTM")
    inbox = MessageBuffer()

    def told(*texts: bytes) -> list[TradeCounts | None]:
        for text in texts:
            inbox.put(topic, parse_frame(text), text, 7.0, NOW_MS)
        found = [one.update for one in inbox.take({topic: 0.0}, NOW_MS)]
        assert all(isinstance(one, TradeUpdate) for one in found)
        return [one.flow for one in found if isinstance(one, TradeUpdate)]

    buy, sell = trade(3, "buy", NOW_MS), trade(5, "sell", NOW_MS + 1)
    assert told(buy, sell, trade(2, "buy", NOW_MS + 2)) == [TradeCounts(5, 5, 3)]
    assert told() == []
    again = trade(2, "buy", NOW_MS + 2)
    assert told(again, sell, trade(1, "sell", NOW_MS + 3)) == [TradeCounts(0, 1, 1)]
    assert inbox.dropped["repeated"] == 1
    assert inbox.dropped["late"] == 1
    # A trade of an unknown side or size leaves the whole update unknown, and the next one known.
    for wrong in (trade(1, "?", NOW_MS + 4), trade(1, "buy", NOW_MS + 4, size='"a"')):
        inbox = MessageBuffer()
        assert told(wrong, trade(1, "buy", NOW_MS + 5)) == [None]
        assert told(trade(4, "buy", NOW_MS + 6)) == [TradeCounts(4, 0, 1)]
