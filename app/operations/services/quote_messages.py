"""Publishes changed quotes of subscribed symbols to the stream."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from app.market.services.service import MarketData
from app.market.services.snapshot import MarketMoment, QuoteView
from app.operations.services.event_messages import Details, Frame, ticker_details, ticker_frame
from app.operations.services.event_stream import EventStream

STEP_S: Final = 1.0


@dataclass(slots=True)
class QuoteFeed:
    """Compares quotes in memory with the last published ones; no I/O."""

    market: MarketData
    stream: EventStream
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _given: dict[str, Details] = field(default_factory=dict)

    async def run(self, beat: Callable[[], None]) -> None:
        while True:
            self.look()
            beat()
            await self.sleep(STEP_S)

    def look(self) -> None:
        """Publish quotes that changed or became stale since the last call."""
        wanted = self.stream.wanted_symbols()
        self._given = {name: given for name, given in self._given.items() if name in wanted}
        moment = self.market.moment()
        frames: dict[str, Frame] = {}
        for name in sorted(wanted):
            view = _quoted(name, moment)
            if view is None:
                continue
            details = ticker_details(view, self.market.source.value)
            if self._given.get(name) != details:
                frames[name] = ticker_frame(view, details)
                self._given[name] = details
        if frames:
            self.stream.quote(frames)


def _quoted(name: str, moment: MarketMoment) -> QuoteView | None:
    entry = moment.known.index.find(name)
    if entry is None:
        return None  # delisted: the last quote keeps its time
    view = moment.quote(entry)
    return None if view.as_of is None else view
