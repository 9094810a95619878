"""A market that is followed over real sockets, its time moved by hand."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.adapters.kucoin.stream.market_stream import KucoinStream
from app.adapters.kucoin.stream.protocol import StreamLimits
from app.foundation.sql.database import Database
from app.market.services.backfill import first_fill
from app.market.services.service import MarketData
from app.market.services.stream_consumer import StreamConsumer
from tests.support.live_market import LiveMarket, open_market

PATIENCE_S = 120.0
CONTRACTS = 14
TERMS = StreamLimits(send_every_s=0.01, tick_s=0.02, flush_s=0.01, connects=1_000)


@dataclass
class Followed:
    """A market of 14 contracts that is followed over real sockets; time is moved by hand."""

    live: LiveMarket
    data: MarketData
    stream: KucoinStream
    streamed: StreamConsumer

    async def until(self, holds: Callable[[], bool], step_s: float = 1.0) -> None:
        """For exchange, stream and service alike it is later by `step_s` at each look."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self.live.clock.pass_(step_s)
                await asyncio.sleep(0.02)
                await self.streamed.check()


@asynccontextmanager
async def followed(
    database: Database, terms: StreamLimits = TERMS, later_s: float = 0.0
) -> AsyncIterator[Followed]:
    """It begins `later_s` after the usual moment."""
    async with open_market(database, contracts=CONTRACTS) as live:
        live.clock.pass_(later_s)
        data = live.market()
        data.is_streamed = True
        await first_fill(data)

        async def closest() -> tuple[str, ...]:
            return ("BTCUSDT",)

        stream = live.exchange.stream(terms)
        streamed = StreamConsumer(data, stream, closest)
        data.quotes.streamed_since = streamed.streamed_quotes
        running = asyncio.ensure_future(streamed.run(lambda: None))
        try:
            yield Followed(live, data, stream, streamed)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
