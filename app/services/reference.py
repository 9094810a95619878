"""Asks another exchange for prices, so that somebody else than KuCoin confirms an outlier."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from app.domain.errors import ServiceError
from app.domain.reference import ReferencePrice
from app.services.quality_keeper import QualityKeeper

_log = structlog.get_logger("reference")


class ReferenceSource(Protocol):
    """Another exchange; only its last prices are asked for."""

    async def prices(self) -> Mapping[str, ReferencePrice]:
        """By base coin. Raises UnavailableError."""
        ...


@dataclass(slots=True)
class References:
    """Only the owner of the feed asks; the others see the prices in the shared market."""

    source: ReferenceSource
    quality: QualityKeeper
    is_owner: Callable[[], bool]
    every_s: float
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def run(self, beat: Callable[[], None]) -> None:
        """For ever; an exchange that is away is no reason to stop."""
        while True:
            if self.is_owner():
                await self.refresh()
            beat()
            await self.sleep(self.every_s)

    async def refresh(self) -> int:
        """How many prices there are now; none where the other exchange does not answer."""
        try:
            found = await self.source.prices()
        except ServiceError as error:
            _log.warning("reference_unavailable", cause=str(error.code))
            return 0
        self.quality.refer(found)
        return len(found)
