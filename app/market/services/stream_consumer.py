"""Applies stream updates to the market, detects stalled topics, and falls back to polling."""

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

import structlog

from app.configuration.domain.sections import ExecutionScope, Source
from app.foundation.errors import ServiceError
from app.foundation.metrics import Metrics
from app.market.domain.data_quality import CLOSE_MARGIN_MS
from app.market.domain.models import Book, Contract, ContractStats, ContractStatus, Ticker
from app.market.domain.stream import (
    NO_STREAM,
    BarUpdate,
    DayUpdate,
    FundingUpdate,
    MarketUpdate,
    MarkUpdate,
    QuoteUpdate,
    StreamStatus,
    StreamTopic,
    TopicKind,
    TradeUpdate,
)
from app.market.domain.trade_flow import TradeWindow
from app.market.services.health_facts import StreamReport
from app.market.services.ports import Exchange, MarketStream
from app.market.services.service import MarketData
from app.market.services.state import SHOWN_LEVELS, LiveMarket, Market, Received, joined

# Silence before a check: three times the period of a periodic topic, at least ten seconds.
# Topics that follow trades may be silent for long.
SILENCE_S: Final[Mapping[TopicKind, float]] = MappingProxyType(
    {
        TopicKind.INSTRUMENT: 10.0,
        TopicKind.BOOK: 10.0,
        TopicKind.DAY: 15.0,
        TopicKind.TRADE: 30.0,
        TopicKind.HOUR_BAR: 30.0,
    }
)
MAX_POLLS: Final = 4  # topics polled in one check
GRACE_MS: Final = 2_000  # an update in flight for that long is not missing


@dataclass(slots=True)
class StaleTopicDetector:
    """Polls the topics that were silent for longest; an equal value means a quiet market.

    A different value means a stalled topic. A different book is shown as polled. A different mark
    or last price arrives with the next contract list, a later trade with the next list of quotes.
    """

    exchange: Exchange
    live: LiveMarket
    last_update: dict[StreamTopic, float] = field(default_factory=dict)  # last update or poll

    async def find_stalled(self, live: Mapping[StreamTopic, float]) -> list[StreamTopic]:
        """Returns the stalled topics of `live`, which has the time since which each is live."""
        ways: dict[TopicKind, Callable[[str, float], Awaitable[bool]]] = {
            TopicKind.INSTRUMENT: self._same_mark,
            TopicKind.BOOK: self._same_book,
            TopicKind.DAY: self._same_last,
            TopicKind.TRADE: self._untraded,
            TopicKind.HOUR_BAR: self._untraded,
        }
        now = self.live.monotonic()
        last = {
            topic: max(since, self.last_update.get(topic, _NEVER))
            for topic, since in live.items()
            if topic.kind in ways
        }
        self.last_update = {topic: last[topic] for topic in last}
        silent = sorted(
            (at, topic) for topic, at in last.items() if now - at >= SILENCE_S[topic.kind]
        )
        stalled: list[StreamTopic] = []
        for at, topic in silent[:MAX_POLLS]:
            try:
                is_quiet = await ways[topic.kind](topic.code, at)
            except ServiceError:
                continue  # unknown: polled again in the next check
            if self.last_update.get(topic) != at:
                continue  # an update arrived meanwhile
            self.last_update[topic] = self.live.monotonic()
            if not is_quiet:
                stalled.append(topic)
        return stalled

    async def _same_mark(self, code: str, at: float) -> bool:
        del at
        answer = await self.exchange.mark_price(code)
        current = self.live.market.stats.get(code)
        return current is not None and current.value.mark_price == answer.mark

    async def _same_book(self, code: str, at: float) -> bool:
        del at
        answer = (await self.exchange.book(code)).top(SHOWN_LEVELS)
        market = self.live.market
        current = market.books.get(code)
        if current is not None and current.value.sequence > answer.sequence:
            return True  # the stored book is newer
        books = joined(market.books, {code: self.live.received(answer)})
        self.live.publish(replace(market, books=books), Source.BOOKS)
        return current is not None and _levels(current.value) == _levels(answer)

    async def _same_last(self, code: str, at: float) -> bool:
        """Compares the last price only: 24-hour sums also change by what leaves the window."""
        del at
        listing = await self.exchange.contract(code)
        current = self.live.market.stats.get(code)
        return current is not None and all(
            one.last_price == current.value.last_price for one in listing.stats if one.code == code
        )

    async def _untraded(self, code: str, at: float) -> bool:
        """True if there was no trade since that monotonic time."""
        clock, silent_ms = self.live.server_clock, (self.live.monotonic() - at) * 1000
        updated_ms = clock.now_ms() - silent_ms
        answer = await self.exchange.ticker(code)
        return answer.traded_ms <= updated_ms + GRACE_MS


def _levels(book: Book) -> tuple[object, object]:
    return book.bids, book.asks


_PHASES = (
    "waiting", "ticket", "opening", "greeting", "subscribing", "catching_up", "live",
)  # fmt: skip


def count_stream_metrics(
    metrics: Metrics, before: StreamStatus, now: StreamStatus, *, is_streaming: bool
) -> None:
    """Sets the gauges to `now`, and adds the difference to `before` to the counters."""
    set_stream_gauges(metrics, now, is_streaming=is_streaming)
    metrics.feed_messages.inc(now.messages - before.messages)
    metrics.feed_planned_reconnects.inc(now.reconnects_planned - before.reconnects_planned)
    for reason, count in now.dropped.items():
        metrics.feed_dropped_messages.labels(reason).inc(count - before.dropped.get(reason, 0))
    for reason, count in now.failures.items():
        metrics.feed_reconnects.labels(reason).inc(count - before.failures.get(reason, 0))


def set_stream_gauges(metrics: Metrics, now: StreamStatus, *, is_streaming: bool) -> None:
    """Sets the gauges to `now`."""
    metrics.feed_streaming.set(is_streaming)
    phases = Counter(line.phase for line in now.connections)
    for phase in _PHASES:
        metrics.feed_connections.labels(phase).set(phases[phase])
    metrics.feed_topics.labels("wanted").set(now.topics)
    metrics.feed_topics.labels("live").set(now.active_topics)
    known = math.nan if now.seconds_since_last_message is None else now.seconds_since_last_message
    metrics.feed_last_message_age_seconds.set(known)


STEP_S: Final = 1.0
TOPICS_S: Final = 5.0
IDLE_S: Final = 10.0  # heartbeat interval while waiting for a bar to close
BAR_S: Final = 0.5  # after the margin within which the exchange's servers agree on a close
_ENOUGH: Final = 0.5  # share of quotes that must be streamed for the streaming mode
_CLOSE_KINDS: Final = tuple(kind for kind in TopicKind if kind is not TopicKind.QUOTE)
_NEVER: Final = float("-inf")
_log = structlog.get_logger("stream")


@dataclass(slots=True)
class StreamConsumer:
    """Reads the stream in the feed's owner, and applies its updates to the live market.

    All open contracts have streamed quotes; only the symbols of `closest` have streamed marks,
    figures, books, trades and bars. Polls of all quotes show whether a silent topic is quiet or
    stalled. Where too little is streamed for too long, polled quotes replace the stream.
    """

    data: MarketData
    stream: MarketStream
    closest: Callable[[], Awaitable[Collection[str]]]  # symbols, the most important first
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    idle_s: float = IDLE_S
    silence: StaleTopicDetector = field(init=False)
    _too_few_since: float | None = field(default=None, init=False)  # too few streamed quotes since
    _last_try: float = field(default=_NEVER, init=False)
    _topics_set_at: float = field(default=_NEVER, init=False)
    _closest: tuple[str, ...] = field(default=(), init=False)
    _last_status: StreamStatus = field(default=NO_STREAM, init=False)
    _was_streaming: bool = field(default=False, init=False)
    _has_restarted: bool = field(default=False, init=False)
    _bar_ms: int = field(default=0, init=False)  # opening time of the newest streamed bar
    _bar_closed: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    # When the trades of each contract were last without a gap, as far as its window goes back.
    _flow_since: dict[str, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.silence = StaleTopicDetector(self.data.exchange, self.data.live)

    # --- updates of the stream

    def on_updates(self, updates: Sequence[MarketUpdate]) -> None:
        """Applies all updates at once."""
        market = self.data.live.market
        tickers: dict[str, Received[Ticker]] = {}
        stats: dict[str, Received[ContractStats]] = {}
        books: dict[str, Received[Book]] = {}
        trades: list[tuple[StreamTopic, TradeUpdate]] = []
        stamped, is_quoted = self.data.live.stamps(), False
        for one in updates:
            code, update = one.topic.code, one.update
            if isinstance(update, QuoteUpdate):  # the common case
                current = tickers.get(code) or market.tickers.get(code)
                quote = current and self.data.quotes.apply_streamed(current, one, update, stamped)
                if quote is not None:
                    tickers[code], is_quoted = quote, True
                continue
            self.silence.last_update[one.topic] = one.mono
            match update:
                case Book():
                    books[code] = stamped(update, one.stamped_ms, one.mono)
                case TradeUpdate():
                    current = tickers.get(code) or market.tickers.get(code)
                    if traded := current and self.data.quotes.apply_trade(current, update):
                        tickers[code] = traded
                    trades.append((one.topic, update))
                case BarUpdate():
                    self._on_bar(update.opened_ms)
                case MarkUpdate() | FundingUpdate() | DayUpdate():
                    known = stats.get(code) or market.stats.get(code)
                    if known is not None:
                        # Its age stays that of the poll: only a part was updated.
                        stats[code] = known.with_value(self._with_update(known.value, update))
        market = self._with_trades(market, trades)
        sources = ((Source.TICKERS, is_quoted), (Source.BOOKS, bool(books)))
        self._publish(market, tickers, stats, books, [one for one, is_new in sources if is_new])

    def _with_trades(
        self, market: Market, trades: Sequence[tuple[StreamTopic, TradeUpdate]]
    ) -> Market:
        """Adds trades to their windows; a gap begins a window anew.

        The trades of the first update after a gap may be older than its end, so they do not count.
        """
        flows: dict[str, TradeWindow] = {}
        for topic, update in trades:
            code, flow = topic.code, update.flow
            window = flows.get(code) or market.flows.get(code)
            since = self.stream.live().get(topic)
            if window is None or flow is None or since != self._flow_since.get(code, since):
                window = TradeWindow(self.exchange_ms())
            else:
                window = window.with_trades(update.traded_ms, *flow)
            flows[code] = window
            if since is not None:
                self._flow_since[code] = since
        if flows:
            market = replace(market, flows=joined(market.flows, flows))
            self.data.live.publish(market)
        return market

    def _restart_flows(self) -> None:
        """Begins the windows of topics with a gap anew, and drops those that are not streamed."""
        live = {
            topic.code: since
            for topic, since in self.stream.live().items()
            if topic.kind is TopicKind.TRADE
        }
        market, begun = self.data.live.market, TradeWindow(self.exchange_ms())
        kept = {
            code: market.flows.get(code, begun) if self._flow_since.get(code) == since else begun
            for code, since in live.items()
        }
        self._flow_since = live
        if kept != market.flows:
            self.data.live.market = replace(market, flows=MappingProxyType(kept))

    def _publish(
        self,
        market: Market,
        tickers: Mapping[str, Received[Ticker]],
        stats: Mapping[str, Received[ContractStats]],
        books: Mapping[str, Received[Book]],
        answered: Sequence[Source],
    ) -> None:
        if not (tickers or stats or books):
            return
        new_market = replace(
            market,
            tickers=joined(market.tickers, tickers) if tickers else market.tickers,
            stats=joined(market.stats, stats) if stats else market.stats,
            books=joined(market.books, books) if books else market.books,
        )
        self.data.live.publish(new_market, *answered)

    def _on_bar(self, opened_ms: int) -> None:
        if opened_ms > self._bar_ms > 0:
            self._bar_closed.set()
        self._bar_ms = max(self._bar_ms, opened_ms)

    def _with_update(
        self, current: ContractStats, update: MarkUpdate | FundingUpdate | DayUpdate
    ) -> ContractStats:
        match update:
            case MarkUpdate(mark, index):
                return replace(current, mark_price=mark, index_price=index)
            case FundingUpdate(rate, is_predicted):
                if is_predicted:
                    return replace(current, predicted_funding_rate=rate)
                return replace(current, funding_rate=rate)
            case DayUpdate():
                contract = self._contract(current.code)
                turnover = update.turnover
                if contract is not None and contract.is_inverse:
                    # Inverse contracts report base coins; their lots are USD.
                    turnover = update.volume * contract.multiplier
                return replace(
                    current,
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
        """Loads missed quotes and closed bars. Raises UnavailableError."""
        await self.data.refresh_tickers(after_gap=True)
        await self.data.refresh_candles()

    def on_sequence_restart(self, topic: StreamTopic) -> None:
        _log.warning("stream_sequence_restarted", topic=topic.kind.value, code=topic.code)
        self._has_restarted = True

    def exchange_ms(self) -> int:
        return self.data.server_clock.now_ms()

    def facts(self) -> StreamStatus:
        return self.stream.facts()

    def report(self) -> StreamReport:
        is_streaming = self.data.live.market.is_streaming
        return StreamReport(
            self.data.is_owner(), is_streaming, self._was_streaming, self.stream.facts()
        )

    async def run(self, beat: Callable[[], None]) -> None:
        """Reads the stream until cancelled."""
        await self.stream.run(self, beat)

    # --- supervision

    def streamed_quotes(self) -> dict[str, float]:
        """Returns contracts with streamed quotes, and the time since which each has no gap."""
        return {
            topic.code: since
            for topic, since in self.stream.live().items()
            if topic.kind is TopicKind.QUOTE
        }

    async def watch(self, beat: Callable[[], None]) -> None:
        """Checks once a second, after the first fill has loaded the base of the stream."""
        await self._wait_for_fill()
        self.data.quotes.streamed_since = self.streamed_quotes
        try:
            while True:
                await self.check()
                beat()
                await self.sleep(STEP_S)
        finally:
            self.stream.want(())
            self._set_streaming(False)
            self._flow_since = {}
            self.data.live.market = replace(self.data.live.market, flows=MappingProxyType({}))
            self._was_streaming, self._too_few_since, self._topics_set_at = False, None, _NEVER

    async def _wait_for_fill(self) -> None:
        """Polls quotes meanwhile, because the age limits are those of a stream from the start."""
        while not self.data.filled.is_set():
            if self.data.quotes.last_poll > _NEVER:
                with suppress(ServiceError):
                    await self._poll_if_due(self.data.monotonic())
            with suppress(TimeoutError):
                async with asyncio.timeout(STEP_S):
                    await self.data.filled.wait()

    async def bars(self, beat: Callable[[], None]) -> None:
        """Fetches the bars of all symbols as soon as a bar has closed."""
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

    async def check(self) -> None:
        """Updates topics and mode, and polls where a topic may be stalled."""
        now = self.data.monotonic()
        if now - self._topics_set_at >= TOPICS_S:
            self._topics_set_at = now
            self.stream.want(await self.topics())
        self._update_mode(now)
        self._restart_flows()
        self._count()
        stalled = [StreamTopic(TopicKind.QUOTE, code) for code in self.data.quotes.take_stalled()]
        stalled += await self.silence.find_stalled(self.stream.live())
        if stalled:
            _log.warning("topics_stalled", count=len(stalled), first=stalled[0].code)
            self.stream.resubscribe(stalled)
        try:
            await self._poll_if_due(now)
        except ServiceError as error:
            _log.warning("quotes_not_confirmed", cause=str(error.code))

    async def _poll_if_due(self, now: float) -> None:
        settings = self.data.configuration()
        # Twice within the quotes' interval, because one answer may be lost.
        pause_s = settings.update_interval_s(Source.TICKERS, streaming=True) / 2
        if self._has_restarted or now - max(self._last_try, self.data.quotes.last_poll) >= pause_s:
            after_gap, self._has_restarted = self._has_restarted, False
            self._last_try = now
            await self.data.refresh_tickers(after_gap=after_gap)

    async def topics(self) -> list[StreamTopic]:
        """Returns quotes of all open contracts, and all topics of the closest symbols."""
        index = self.data.registry.index
        traded = {
            entry.symbol: entry.contract.code
            for entry in index.entries
            if entry.contract.status is ContractStatus.OPEN
        }
        with suppress(ServiceError):  # without the database the former ones stay
            self._closest = tuple(await self.closest())
        close = [traded[name] for name in self._closest if name in traded]
        topics = [StreamTopic(TopicKind.QUOTE, code) for code in traded.values()]
        if self.data.configuration().feed.executions is ExecutionScope.ALL:
            others = (code for code in traded.values() if code not in close)
            topics += [StreamTopic(TopicKind.TRADE, code) for code in others]
        return [
            *topics,
            *(StreamTopic(kind, code) for code in dict.fromkeys(close) for kind in _CLOSE_KINDS),
        ]

    def _update_mode(self, now: float) -> None:
        """Sets streaming mode with enough streamed quotes, polling mode after a while without."""
        wanted = [one for one in self.data.registry.index.entries
                  if one.contract.status is ContractStatus.OPEN]  # fmt: skip
        streamed = self.streamed_quotes()
        enough = bool(wanted) and len(streamed) >= _ENOUGH * len(wanted)
        self.data.quotes.is_stream_away = not enough
        if enough:
            self._too_few_since = None
            self._set_streaming(True)
            return
        if self._too_few_since is None:
            self._too_few_since = now
        if now - self._too_few_since >= self.data.configuration().feed.polling_fallback_after_s:
            self._set_streaming(False)

    def _count(self) -> None:
        before, now = self._last_status, self.stream.facts()
        self._last_status = now
        count_stream_metrics(
            self.data.metrics, before, now, is_streaming=self.data.live.market.is_streaming
        )

    def _set_streaming(self, is_streaming: bool) -> None:
        live = self.data.live
        if live.market.is_streaming is not is_streaming:
            _log.info("feed_mode", mode="stream" if is_streaming else "poll")
            live.market = replace(live.market, is_streaming=is_streaming)
            self._was_streaming |= is_streaming
