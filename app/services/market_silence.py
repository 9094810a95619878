"""Marks and books that are no longer told of: quiet, or is nobody heard any more."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from app.domain.errors import ServiceError
from app.domain.feed import Topic, TopicKind
from app.domain.market import Book
from app.domain.panel import Source
from app.services.market_state import LiveMarket, joined
from app.services.ports import Exchange

SILENCE_S: Final = 10.0  # ten times what a mark takes, a hundred times what a book takes
AT_ONCE: Final = 4  # topics that are asked about in one look
_NEVER: Final = float("-inf")


@dataclass(slots=True)
class SilenceWatch:
    """Asks about the topics that were silent for longest; the same value is a quiet market.

    Another value of a book is shown as it was answered, another mark price comes with the next
    list of contracts; either way the topic is named as deaf.
    """

    exchange: Exchange
    live: LiveMarket
    heard: dict[Topic, float] = field(default_factory=dict)  # told of, or asked about

    async def deaf(self, told: Mapping[Topic, float]) -> list[Topic]:
        """Of the topics that are live, with the time since when: those that were found deaf."""
        ways: dict[TopicKind, Callable[[str], Awaitable[bool]]] = {
            TopicKind.INSTRUMENT: self._same_mark,
            TopicKind.BOOK: self._same_book,
        }
        now = self.live.monotonic()
        last = {
            topic: max(since, self.heard.get(topic, _NEVER))
            for topic, since in told.items()
            if topic.kind in ways
        }
        self.heard = {topic: last[topic] for topic in last}
        silent = sorted((at, topic) for topic, at in last.items() if now - at >= SILENCE_S)
        found: list[Topic] = []
        for at, topic in silent[:AT_ONCE]:
            try:
                is_quiet = await ways[topic.kind](topic.code)
            except ServiceError:
                continue  # nothing was learned: asked again with the next look
            if self.heard.get(topic) != at:
                continue  # it spoke meanwhile
            self.heard[topic] = self.live.monotonic()
            if not is_quiet:
                found.append(topic)
        return found

    async def _same_mark(self, code: str) -> bool:
        answer = await self.exchange.mark_price(code)
        held = self.live.market.stats.get(code)
        return held is not None and held.value.mark_price == answer.mark

    async def _same_book(self, code: str) -> bool:
        answer = await self.exchange.book(code)
        market = self.live.market
        held = market.books.get(code)
        if held is not None and held.value.sequence > answer.sequence:
            return True  # what is held is newer
        books = joined(market.books, {code: self.live.received(answer)})
        self.live.publish(replace(market, books=books), Source.BOOKS)
        return held is not None and _levels(held.value) == _levels(answer)


def _levels(book: Book) -> tuple[object, object]:
    return book.bids, book.asks
