"""What is told of the closest and is no longer told: quiet, or is nobody heard any more."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from app.configuration.domain.sections import Source
from app.foundation.errors import ServiceError
from app.market.domain.models import Book
from app.market.domain.stream import Topic, TopicKind
from app.market.services.ports import Exchange
from app.market.services.state import SHOWN_LEVELS, LiveMarket, joined

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
_NEVER: Final = float("-inf")


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
