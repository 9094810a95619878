"""Reference prices: polls and streams another exchange, whose prices confirm or refute outliers."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from app.foundation.errors import ServiceError
from app.market.domain.reference_prices import ReferencePrice
from app.market.services.health_facts import ReferenceReport
from app.market.services.quality_monitor import QualityMonitor

SHOW_S: Final = 5.0  # updates received within it are applied together
_log = structlog.get_logger("reference")


class ReferenceSource(Protocol):
    """Last prices of another exchange."""

    @property
    def streams(self) -> bool:
        """True if the exchange streams its prices."""
        ...

    async def prices(self) -> Mapping[str, ReferencePrice]:
        """Returns polled prices by base coin. Raises UnavailableError."""
        ...

    async def updates(self) -> Mapping[str, ReferencePrice]:
        """Returns prices streamed since the last call, once one arrives.

        Raises UnavailableError.
        """
        ...

    async def close_stream(self) -> None: ...


@dataclass(slots=True)
class ReferencePriceFeed:
    """Runs in the feed's owner only; other processes read the prices from the shared market.

    Streamed prices arrive between polls; polling continues without a stream.
    """

    source: ReferenceSource
    quality: QualityMonitor
    is_owner: Callable[[], bool]
    poll_interval_s: float
    name: str = "another exchange"
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    is_streaming: bool = field(default=False, init=False)
    _error_code: str | None = field(default=None, init=False)  # error code of the last poll
    _has_answered: bool = field(default=False, init=False)

    async def run(self, beat: Callable[[], None]) -> None:
        """Polls until cancelled; an unavailable exchange does not end it."""
        while True:
            if self.is_owner():
                await self.refresh()
            beat()
            await self.sleep(self.poll_interval_s)

    async def refresh(self) -> int:
        """Polls once; returns the number of prices, 0 if the other exchange does not answer."""
        try:
            prices = await self.source.prices()
        except ServiceError as error:
            self._error_code = str(error.code)
            _log.warning("reference_unavailable", cause=self._error_code)
            return 0
        self._error_code, self._has_answered = None, True
        self.quality.apply_reference_prices(prices)
        return len(prices)

    async def run_stream(self, beat: Callable[[], None]) -> None:
        """Reads the stream until cancelled, and reopens it after a failure."""
        try:
            while True:
                has_prices = self.is_owner() and await self.receive()
                beat()
                await self.sleep(SHOW_S if has_prices else self.poll_interval_s)
        finally:
            self.is_streaming = False
            await self.source.close_stream()

    async def receive(self) -> bool:
        """Applies the streamed prices; False while the stream is away."""
        try:
            prices = await self.source.updates()
        except ServiceError as error:
            if self.is_streaming:
                _log.warning("reference_stream_away", cause=str(error.code))
            self.is_streaming = False
            await self.source.close_stream()
            return False
        self.is_streaming = True
        self.quality.apply_reference_prices(prices)
        return True

    def report(self) -> ReferenceReport:
        return ReferenceReport(
            name=self.name,
            is_owner=self.is_owner(),
            is_streaming=self.is_streaming,
            has_answered=self._has_answered,
            failed=self._error_code,
            poll_interval_s=self.poll_interval_s,
        )
