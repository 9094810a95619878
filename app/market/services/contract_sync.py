"""The list of contracts, asked for now: by the owner of the feed itself, by others through it."""

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

PATIENCE_S: Final = 30.0
LOOK_S: Final = 0.25
_RETRY_S: Final = 10.0


@dataclass(slots=True)
class SyncRequests:
    """Only the owner of the feed talks to the exchange: the others leave a request and wait.

    Whoever owns the feed when a request is found answers it, so it outlives an owner.
    """

    database: Database
    market: MarketData
    publisher: MarketPublisher
    follower: MarketFollower
    new_id: NewId
    patience_s: float = PATIENCE_S
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def sync_contracts(self) -> SyncSummary:
        """Raises UnavailableError as the exchange does, or when nobody has the feed."""
        request_id = self.new_id()
        async with self.database.write() as unit:
            await unit.get(SharedMarketRepository).request_sync(request_id)
        try:
            async with asyncio.timeout(self.patience_s):
                while True:
                    async with self.database.read() as unit:
                        request = await unit.get(SharedMarketRepository).sync_request(request_id)
                    if request is not None and request.is_done:
                        break
                    await self.sleep(LOOK_S)
        except TimeoutError:
            raise _nobody() from None
        if request.error is not None:
            raise UnavailableError(
                Code(request.error), request.detail or "", retry_after_s=_RETRY_S
            )
        await self.follower.look()
        summary = self.market.registry.last_sync
        if summary is None:
            raise _nobody()
        return summary

    async def answer(self) -> None:
        """Does what others have asked for. Raises UnavailableError without the database."""
        async with self.database.read() as unit:
            requests = await unit.get(SharedMarketRepository).open_sync_requests()
        if not requests:
            return
        error = None
        try:
            await self.market.fetch_contracts()
            await self.publisher.publish()  # they read it as soon as they hear that it is done
        except ServiceError as refused:
            error = refused
        async with self.database.write() as unit:
            await unit.get(SharedMarketRepository).answer_sync_requests(
                requests,
                None if error is None else str(error.code),
                None if error is None else error.detail,
            )


def _nobody() -> UnavailableError:
    return UnavailableError(
        Code.EXCHANGE_UNAVAILABLE,
        "No process answers that reads the exchange.",
        retry_after_s=_RETRY_S,
    )
