"""Writes what the owner of the feed sees where the other processes read it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from app.foundation.ports import Monotonic
from app.foundation.sql.database import Database
from app.market.domain.models import ExchangeLink
from app.market.services.feed_leader import FeedLease
from app.market.services.market_wire import Course, packed, shared
from app.market.services.service import MarketData
from app.market.services.state import Market
from app.scoring.services.service import Scoring


@dataclass(slots=True)
class MarketPublisher:
    """One row, only when something has changed, and only under the present epoch."""

    database: Database
    market: MarketData
    scoring: Scoring
    lease: FeedLease
    link: Callable[[], ExchangeLink]
    monotonic: Monotonic
    _sent: tuple[Market, object] | None = field(default=None, init=False)

    async def publish(self) -> bool:
        """Whether something was written; the lease is lost if it was refused.

        Raises UnavailableError.
        """
        epoch, market = self.lease.epoch, self.market.live.market
        course = self._course()
        # The time of the last answer changes with each request and is no news.
        news = epoch, course.fill, course.trading, course.link.state, course.registry, (
            course.is_scorable, course.is_filled, course.is_whole, course.synced,
            course.board_id,
        )  # fmt: skip
        if epoch is None or (
            self._sent is not None and self._sent[0] is market and self._sent[1] == news
        ):
            return False
        # Ages are taken after the time of writing: a pause in between makes nothing younger.
        async with self.database.read() as unit:
            stamped_ms = await unit.shared_market.clock_ms()
        moment = shared(market, self._course(), self.monotonic())
        payload = await asyncio.to_thread(packed, moment)
        async with self.database.write() as unit:
            written = await unit.shared_market.publish(epoch, stamped_ms, payload)
        if not written:
            self.lease.lost()
            return False
        self._sent = market, news
        return True

    def _course(self) -> Course:
        data, clock = self.market, self.market.server_clock
        board = self.scoring.in_force()
        return Course(
            server_ms=float(clock.now_ms()) if clock.synced else None,
            doubt_s=clock.doubt_s,
            trading=data.trading,
            link=self.link(),
            fill=(data.fill.stage, data.fill.done, data.fill.total),
            is_scorable=data.scorable.is_set(),
            is_filled=data.is_filled(),
            is_whole=self.scoring.is_whole(),
            registry=data.registry.revision,
            synced=data.registry.last_sync,
            is_streaming=data.live.market.is_streaming,
            board_id=None if board is None else board.run_id,
        )
