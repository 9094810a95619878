"""Asks and hears another exchange, so that somebody else than KuCoin confirms an outlier."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from app.foundation.errors import ServiceError
from app.market.domain.reference_prices import ReferencePrice
from app.market.services.health_facts import ReferenceReport
from app.market.services.quality_monitor import QualityKeeper

SHOW_S: Final = 5.0  # what is told meanwhile is taken up together
_log = structlog.get_logger("reference")


class ReferenceSource(Protocol):
    """Another exchange; only its last prices are asked for."""

    @property
    def streams(self) -> bool:
        """Whether it tells its prices by itself."""
        ...

    async def prices(self) -> Mapping[str, ReferencePrice]:
        """By base coin. Raises UnavailableError."""
        ...

    async def told(self) -> Mapping[str, ReferencePrice]:
        """What was told since the last time, once there is anything. Raises UnavailableError."""
        ...

    async def hang_up(self) -> None: ...


@dataclass(slots=True)
class References:
    """Only the owner of the feed asks; the others see the prices in the shared market.

    What is told comes in between; where nobody tells, asking goes on alone.
    """

    source: ReferenceSource
    quality: QualityKeeper
    is_owner: Callable[[], bool]
    every_s: float
    name: str = "another exchange"
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    is_told: bool = field(default=False, init=False)
    _failed: str | None = field(default=None, init=False)  # the code of the last answer
    _has_answered: bool = field(default=False, init=False)

    async def run(self, beat: Callable[[], None]) -> None:
        """Asks for ever; an exchange that is away is no reason to stop."""
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
            self._failed = str(error.code)
            _log.warning("reference_unavailable", cause=self._failed)
            return 0
        self._failed, self._has_answered = None, True
        self.quality.refer(found)
        return len(found)

    async def hear(self, beat: Callable[[], None]) -> None:
        """Hears its stream for ever, and opens it again when it has broken."""
        try:
            while True:
                heard = self.is_owner() and await self.listen()
                beat()
                await self.sleep(SHOW_S if heard else self.every_s)
        finally:
            self.is_told = False
            await self.source.hang_up()

    async def listen(self) -> bool:
        """Takes up what was told; False where the stream is away."""
        try:
            found = await self.source.told()
        except ServiceError as error:
            if self.is_told:
                _log.warning("reference_stream_away", cause=str(error.code))
            self.is_told = False
            await self.source.hang_up()
            return False
        self.is_told = True
        self.quality.refer(found)
        return True

    def report(self) -> ReferenceReport:
        return ReferenceReport(
            name=self.name,
            is_owner=self.is_owner(),
            is_told=self.is_told,
            has_answered=self._has_answered,
            failed=self._failed,
            every_s=self.every_s,
        )
