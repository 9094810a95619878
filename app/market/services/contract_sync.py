"""Contract sync on request, carried out by the feed's owner for all processes."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from app.foundation.errors import Code, ServiceError, UnavailableError
from app.foundation.ports import NewId
from app.foundation.sql.database import Database
from app.market.services.service import MarketData
from app.market.services.shared_market import MarketFollower, MarketPublisher
from app.market.services.symbol_registry import SyncSummary
from app.market.storage.shared_market import SharedMarketRepository

TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.25
_RETRY_S: Final = 10.0


@dataclass(slots=True)
class SyncRequests:
    """Requests to the feed's owner, the only process that talks to the exchange.

    Whichever process owns the feed when it finds a request answers it, so a request survives its
    owner.
    """

    database: Database
    market: MarketData
    publisher: MarketPublisher
    follower: MarketFollower
    new_id: NewId
    timeout_s: float = TIMEOUT_S
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def sync_contracts(self) -> SyncSummary:
        """Requests a sync and waits for it.

        Raises UnavailableError as the exchange does, or when no process owns the feed.
        """
        request_id = self.new_id()
        async with self.database.write() as unit:
            await unit.get(SharedMarketRepository).request_sync(request_id)
        try:
            async with asyncio.timeout(self.timeout_s):
                while True:
                    async with self.database.read() as unit:
                        request = await unit.get(SharedMarketRepository).sync_request(request_id)
                    if request is not None and request.is_done:
                        break
                    await self.sleep(POLL_S)
        except TimeoutError:
            raise _no_leader_error() from None
        if request.error is not None:
            raise UnavailableError(
                Code(request.error), request.detail or "", retry_after_s=_RETRY_S
            )
        await self.follower.refresh()
        summary = self.market.registry.last_sync
        if summary is None:
            raise _no_leader_error()
        return summary

    async def answer(self) -> None:
        """Answers the open requests. Raises UnavailableError without the database."""
        async with self.database.read() as unit:
            requests = await unit.get(SharedMarketRepository).open_sync_requests()
        if not requests:
            return
        error = None
        try:
            await self.market.fetch_contracts()
            await self.publisher.publish()  # followers read it as soon as the request is done
        except ServiceError as refused:
            error = refused
        async with self.database.write() as unit:
            await unit.get(SharedMarketRepository).answer_sync_requests(
                requests,
                None if error is None else str(error.code),
                None if error is None else error.detail,
            )


def _no_leader_error() -> UnavailableError:
    return UnavailableError(
        Code.EXCHANGE_UNAVAILABLE,
        "No process that reads the exchange answers.",
        retry_after_s=_RETRY_S,
    )
