"""Applies stream updates to the market, detects silent topics and falls back to polling."""

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

import structlog

from app.configuration.domain.sections import Source
from app.foundation.errors import ServiceError
from app.foundation.metrics import Metrics
from app.market.domain.data_quality import CLOSE_MARGIN_MS
from app.market.domain.models import Book, Contract, ContractStats, ContractStatus, Ticker
from app.market.domain.stream import (
    NO_STREAM,
    BarUpdate,
    DayUpdate,
    FundingUpdate,
    MarkUpdate,
    QuoteUpdate,
    StreamFacts,
    Told,
    Topic,
    TopicKind,
    TradeUpdate,
)
from app.market.services.health_facts import StreamReport
from app.market.services.ports import Exchange, MarketStream
from app.market.services.service import MarketData
from app.market.services.state import SHOWN_LEVELS, LiveMarket, Market, Received, joined

# Three times the pause of a topic that speaks by the clock, and ten seconds at least; of what
# speaks only when somebody trades silence is nothing new.
SILENCE_S: Final[Mapping[TopicKind, float]] = MappingProxyType(
    {
        TopicKind.INSTRUMENT: 10.0,
        TopicKind.BOOK: 10.0,
        TopicKind.DAY: 15.0,
        TopicKind.TRADE: 30.0,
        TopicKind.HOUR_BAR: 30.0,
    }
)
AT_ONCE: Final = 4  # topics that are asked about in one look
GRACE_MS: Final = 2_000  # what is on its way so long is not missing


@dataclass(slots=True)
class SilenceWatch:
    """Asks about the topics that were silent for longest; the same value is a quiet market.

    Another value of a book is shown as it was answered, another mark or last price comes with
    the next list of contracts, a later trade with the next list of quotes; whatever differs, the
    topic is named as deaf.
    """

    exchange: Exchange
    live: LiveMarket
    heard: dict[Topic, float] = field(default_factory=dict)  # told of, or asked about

    async def deaf(self, told: Mapping[Topic, float]) -> list[Topic]:
        """Of the topics that are live, with the time since when: those that were found deaf."""
        ways: dict[TopicKind, Callable[[str, float], Awaitable[bool]]] = {
            TopicKind.INSTRUMENT: self._same_mark,
            TopicKind.BOOK: self._same_book,
            TopicKind.DAY: self._same_last,
            TopicKind.TRADE: self._untraded,
            TopicKind.HOUR_BAR: self._untraded,
        }
        now = self.live.monotonic()
        last = {
            topic: max(since, self.heard.get(topic, _NEVER))
            for topic, since in told.items()
            if topic.kind in ways
        }
        self.heard = {topic: last[topic] for topic in last}
        silent = sorted(
            (at, topic) for topic, at in last.items() if now - at >= SILENCE_S[topic.kind]
        )
        found: list[Topic] = []
        for at, topic in silent[:AT_ONCE]:
            try:
                is_quiet = await ways[topic.kind](topic.code, at)
            except ServiceError:
                continue  # nothing was learned: asked again with the next look
            if self.heard.get(topic) != at:
                continue  # it spoke meanwhile
            self.heard[topic] = self.live.monotonic()
            if not is_quiet:
                found.append(topic)
        return found

    async def _same_mark(self, code: str, at: float) -> bool:
        del at
        answer = await self.exchange.mark_price(code)
        held = self.live.market.stats.get(code)
        return held is not None and held.value.mark_price == answer.mark

    async def _same_book(self, code: str, at: float) -> bool:
        del at
        answer = (await self.exchange.book(code)).top(SHOWN_LEVELS)
        market = self.live.market
        held = market.books.get(code)
        if held is not None and held.value.sequence > answer.sequence:
            return True  # what is held is newer
        books = joined(market.books, {code: self.live.received(answer)})
        self.live.publish(replace(market, books=books), Source.BOOKS)
        return held is not None and _levels(held.value) == _levels(answer)

    async def _same_last(self, code: str, at: float) -> bool:
        """Sums over a day change by what leaves it, too: the price tells whether it moved."""
        del at
        listing = await self.exchange.contract(code)
        held = self.live.market.stats.get(code)
        return held is not None and all(
            one.last_price == held.value.last_price for one in listing.stats if one.code == code
        )

    async def _untraded(self, code: str, at: float) -> bool:
        """Whether nobody has traded since that monotonic time."""
        clock, silent_ms = self.live.server_clock, (self.live.monotonic() - at) * 1000
        heard_ms = clock.now_ms() - silent_ms
        answer = await self.exchange.ticker(code)
        return answer.traded_ms <= heard_ms + GRACE_MS


def _levels(book: Book) -> tuple[object, object]:
    return book.bids, book.asks


_PHASES = (
    "waiting", "ticket", "opening", "greeting", "subscribing", "catching_up", "live",
)  # fmt: skip


def count_feed(
    metrics: Metrics, before: StreamFacts, now: StreamFacts, *, is_streaming: bool
) -> None:
    """Set the gauges to `now`, and count what has come since `before`."""
    set_feed(metrics, now, is_streaming=is_streaming)
    metrics.feed_messages.inc(now.messages - before.messages)
    metrics.feed_planned_reconnects.inc(now.reconnects_planned - before.reconnects_planned)
    for reason, count in now.dropped.items():
        metrics.feed_dropped_messages.labels(reason).inc(count - before.dropped.get(reason, 0))
    for reason, count in now.failures.items():
        metrics.feed_reconnects.labels(reason).inc(count - before.failures.get(reason, 0))


def set_feed(metrics: Metrics, now: StreamFacts, *, is_streaming: bool) -> None:
    """Set the gauges to `now`."""
    metrics.feed_streaming.set(is_streaming)
    phases = Counter(line.phase for line in now.lines)
    for phase in _PHASES:
        metrics.feed_connections.labels(phase).set(phases[phase])
    metrics.feed_topics.labels("wanted").set(now.topics)
    metrics.feed_topics.labels("live").set(now.active_topics)
    known = math.nan if now.seconds_since_last_message is None else now.seconds_since_last_message
    metrics.feed_last_message_age_seconds.set(known)


STEP_S: Final = 1.0
TOPICS_S: Final = 5.0
IDLE_S: Final = 10.0  # who waits for a bar to close says so often that it listens
BAR_S: Final = 0.5  # after the margin in which the exchange's servers may differ on a close
_ENOUGH: Final = 0.5  # of the quotes must be told, or it is no stream
_CLOSE: Final = tuple(kind for kind in TopicKind if kind is not TopicKind.QUOTE)
_NEVER: Final = float("-inf")
_log = structlog.get_logger("stream")


@dataclass(slots=True)
class StreamedMarket:
    """Hears the stream of the owner of the feed, and keeps the live market up to it.

    Quotes of all open contracts are told; marks, figures, books, trades and bars of those that
    `closest` names. Whether a quote is quiet or its topic deaf is seen by asking for all quotes
    beside it. Where too little is told for too long, answers take the place of the stream.
    """

    data: MarketData
    stream: MarketStream
    closest: Callable[[], Awaitable[Collection[str]]]  # symbols, the most important first
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    idle_s: float = IDLE_S
    silence: SilenceWatch = field(init=False)
    _mode_since: float | None = field(default=None, init=False)  # too little is told since
    _tried: float = field(default=_NEVER, init=False)
    _placed: float = field(default=_NEVER, init=False)
    _closest: tuple[str, ...] = field(default=(), init=False)
    _counted: StreamFacts = field(default=NO_STREAM, init=False)
    _was_streaming: bool = field(default=False, init=False)
    _in_doubt: bool = field(default=False, init=False)
    _bar_ms: int = field(default=0, init=False)  # when the newest bar that was told of opened
    _bar_closed: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def __post_init__(self) -> None:
        self.silence = SilenceWatch(self.data.exchange, self.data.live)

    # --- what the stream tells

    def told(self, news: Sequence[Told]) -> None:
        """All of it becomes visible at once."""
        market = self.data.live.market
        tickers: dict[str, Received[Ticker]] = {}
        stats: dict[str, Received[ContractStats]] = {}
        books: dict[str, Received[Book]] = {}
        stamped, is_quoted = self.data.live.stamps(), False
        for one in news:
            code, update = one.topic.code, one.update
            if isinstance(update, QuoteUpdate):  # nearly all of them are such
                held = tickers.get(code) or market.tickers.get(code)
                quote = held and self.data.quotes.told(held, one, update, stamped)
                if quote is not None:
                    tickers[code], is_quoted = quote, True
                continue
            self.silence.heard[one.topic] = one.mono
            match update:
                case Book():
                    books[code] = stamped(update, one.stamped_ms, one.mono)
                case TradeUpdate():
                    held = tickers.get(code) or market.tickers.get(code)
                    if traded := held and self.data.quotes.traded(held, update):
                        tickers[code] = traded
                case BarUpdate():
                    self._bar_runs(update.opened_ms)
                case MarkUpdate() | FundingUpdate() | DayUpdate():
                    known = stats.get(code) or market.stats.get(code)
                    if known is not None:
                        # Its age stays that of the answer: not everything in it was told.
                        stats[code] = known.saying(self._moved(known.value, update))
        sources = ((Source.TICKERS, is_quoted), (Source.BOOKS, bool(books)))
        self._show(market, tickers, stats, books, [one for one, is_told in sources if is_told])

    def _show(
        self,
        market: Market,
        tickers: Mapping[str, Received[Ticker]],
        stats: Mapping[str, Received[ContractStats]],
        books: Mapping[str, Received[Book]],
        answered: Sequence[Source],
    ) -> None:
        if not (tickers or stats or books):
            return
        news = replace(
            market,
            tickers=joined(market.tickers, tickers) if tickers else market.tickers,
            stats=joined(market.stats, stats) if stats else market.stats,
            books=joined(market.books, books) if books else market.books,
        )
        self.data.live.publish(news, *answered)

    def _bar_runs(self, opened_ms: int) -> None:
        if opened_ms > self._bar_ms > 0:
            self._bar_closed.set()
        self._bar_ms = max(self._bar_ms, opened_ms)

    def _moved(
        self, held: ContractStats, update: MarkUpdate | FundingUpdate | DayUpdate
    ) -> ContractStats:
        match update:
            case MarkUpdate(mark, index):
                return replace(held, mark_price=mark, index_price=index)
            case FundingUpdate(rate, is_predicted):
                if is_predicted:
                    return replace(held, predicted_funding_rate=rate)
                return replace(held, funding_rate=rate)
            case DayUpdate():
                contract = self._contract(held.code)
                turnover = update.turnover
                if contract is not None and contract.is_inverse:
                    # They report base coins; there the lots are the USD.
                    turnover = update.volume * contract.multiplier
                return replace(
                    held,
                    last_price=update.last,
                    high_24h=update.high,
                    low_24h=update.low,
                    change_24h=update.change,
                    turnover_24h=turnover,
                    volume_24h=update.volume,
                )

    def _contract(self, code: str) -> Contract | None:
        record = self.data.registry.known.by_code.get(code)
        return None if record is None else record.contract

    async def catch_up(self) -> None:
        """Quotes and closed bars that were missed. Raises UnavailableError."""
        await self.data.refresh_tickers(after_gap=True)
        await self.data.refresh_candles()

    def doubted(self, topic: Topic) -> None:
        _log.warning("stream_began_anew", topic=topic.kind.value, code=topic.code)
        self._in_doubt = True

    def exchange_ms(self) -> int:
        return self.data.server_clock.now_ms()

    def facts(self) -> StreamFacts:
        return self.stream.facts()

    def report(self) -> StreamReport:
        is_streaming = self.data.live.market.is_streaming
        return StreamReport(
            self.data.is_owner(), is_streaming, self._was_streaming, self.stream.facts()
        )

    async def run(self, beat: Callable[[], None]) -> None:
        """Hear it until cancelled."""
        await self.stream.run(self, beat)

    # --- what is watched

    def quotes_told(self) -> dict[str, float]:
        """Contracts whose quotes are told at present, and since when without a break."""
        return {
            topic.code: since
            for topic, since in self.stream.live().items()
            if topic.kind is TopicKind.QUOTE
        }

    async def watch(self, beat: Callable[[], None]) -> None:
        """A look a second, once the first fill has brought what the stream goes on from."""
        await self._wait_for_fill()
        self.data.quotes.told_of = self.quotes_told
        try:
            while True:
                await self.look()
                beat()
                await self.sleep(STEP_S)
        finally:
            self.stream.want(())
            self._set_streaming(False)
            self._was_streaming, self._mode_since, self._placed = False, None, _NEVER

    async def _wait_for_fill(self) -> None:
        """Quotes are asked for meanwhile: the age limits are those of a stream from the start."""
        while not self.data.filled.is_set():
            if self.data.quotes.asked > _NEVER:
                with suppress(ServiceError):
                    await self._ask(self.data.monotonic())
            with suppress(TimeoutError):
                async with asyncio.timeout(STEP_S):
                    await self.data.filled.wait()

    async def bars(self, beat: Callable[[], None]) -> None:
        """Reads the bars of everybody as soon as one was seen to have closed."""
        while True:
            try:
                async with asyncio.timeout(self.idle_s):
                    await self._bar_closed.wait()
            except TimeoutError:
                beat()
                continue
            self._bar_closed.clear()
            left_ms = self._bar_ms + CLOSE_MARGIN_MS + BAR_S * 1000 - self.exchange_ms()
            await self.sleep(max(0.0, left_ms / 1000))
            await self.data.refresh_candles()
            beat()

    async def look(self) -> None:
        """Wants what is traded, decides on the mode, and asks where somebody may be deaf."""
        now = self.data.monotonic()
        if now - self._placed >= TOPICS_S:
            self._placed = now
            self.stream.want(await self.topics())
        self._judge_mode(now)
        self._count()
        deaf = [Topic(TopicKind.QUOTE, code) for code in self.data.quotes.deaf()]
        deaf += await self.silence.deaf(self.stream.live())
        if deaf:
            _log.warning("topics_deaf", count=len(deaf), first=deaf[0].code)
            self.stream.deaf(deaf)
        try:
            await self._ask(now)
        except ServiceError as error:
            _log.warning("quotes_not_confirmed", cause=str(error.code))

    async def _ask(self, now: float) -> None:
        settings = self.data.configuration()
        # Twice in the time in which a quote has to be heard of: one answer may be lost.
        pause_s = settings.update_interval_s(Source.TICKERS, streaming=True) / 2
        if self._in_doubt or now - max(self._tried, self.data.quotes.asked) >= pause_s:
            after_gap, self._in_doubt = self._in_doubt, False
            self._tried = now
            await self.data.refresh_tickers(after_gap=after_gap)

    async def topics(self) -> list[Topic]:
        """Quotes of all that is traded, and everything of the closest."""
        index = self.data.registry.index
        traded = {
            entry.symbol: entry.contract.code
            for entry in index.entries
            if entry.contract.status is ContractStatus.OPEN
        }
        with suppress(ServiceError):  # without the database they stay those that they were
            self._closest = tuple(await self.closest())
        close = [traded[name] for name in self._closest if name in traded]
        topics = [Topic(TopicKind.QUOTE, code) for code in traded.values()]
        return [*topics, *(Topic(kind, code) for code in dict.fromkeys(close) for kind in _CLOSE)]

    def _judge_mode(self, now: float) -> None:
        """A stream as soon as enough is told; none any more after a while with too little."""
        wanted = [one for one in self.data.registry.index.entries
                  if one.contract.status is ContractStatus.OPEN]  # fmt: skip
        told = self.quotes_told()
        enough = bool(wanted) and len(told) >= _ENOUGH * len(wanted)
        self.data.quotes.is_stream_away = not enough
        if enough:
            self._mode_since = None
            self._set_streaming(True)
            return
        if self._mode_since is None:
            self._mode_since = now
        if now - self._mode_since >= self.data.configuration().feed.polling_fallback_after_s:
            self._set_streaming(False)

    def _count(self) -> None:
        before, now = self._counted, self.stream.facts()
        self._counted = now
        count_feed(self.data.metrics, before, now, is_streaming=self.data.live.market.is_streaming)

    def _set_streaming(self, is_streaming: bool) -> None:
        live = self.data.live
        if live.market.is_streaming is not is_streaming:
            _log.info("feed_mode", mode="stream" if is_streaming else "poll")
            live.market = replace(live.market, is_streaming=is_streaming)
            self._was_streaming |= is_streaming
