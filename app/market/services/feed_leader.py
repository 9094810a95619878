"""The lease of the market feed: one process at a time talks to the exchange."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from app.foundation.errors import Code, UnavailableError
from app.foundation.ports import Monotonic
from app.foundation.sql.database import Database, UnitOfWork
from app.foundation.sql.leases import Lease, LeaseRepository
from app.market.storage.shared_market import FEED

TTL_S: Final = 9.0
RENEW_S: Final = 2.0
DEMOTE_S: Final = 6.0
_RETRY_S: Final = 5.0
_log = structlog.get_logger("feed")

# Refuses to write for who is no longer the one to do it: raises UnavailableError.
Fence = Callable[[UnitOfWork], Awaitable[None]]


async def anybody(unit: UnitOfWork) -> None:
    """The fence where one process alone writes: nobody has to be refused."""
    del unit


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Seconds. Whoever could not renew for `demote_s` stops before others may begin at `ttl_s`."""

    ttl_s: float = TTL_S
    renew_s: float = RENEW_S
    demote_s: float = DEMOTE_S


@dataclass(slots=True)
class FeedLease:
    """Times of the database decide who may have it, our monotonic clock when we must stop.

    A process that slept believes in a lease that is no longer its own: therefore what it writes
    for others carries its epoch and is refused by the database (`require`).
    """

    database: Database
    holder: str
    monotonic: Monotonic
    times: LeaseTimes = field(default_factory=LeaseTimes)
    seen: Lease | None = field(default=None, init=False)  # as it stood when we last looked
    _epoch: int | None = field(default=None, init=False)
    _highest: int = field(default=0, init=False)  # of all epochs that we have seen
    _renewed: float = field(default=0.0, init=False)  # when the last renewal was sent

    @property
    def epoch(self) -> int | None:
        """Ours at present; None without the lease, and as soon as it may be another's."""
        held = self._epoch
        if held is None or self.monotonic() - self._renewed >= self.times.demote_s:
            return None
        return held

    async def look(self) -> Lease | None:
        """As it stands; None where nobody ever had it. Raises UnavailableError."""
        async with self.database.read() as unit:
            present = self.seen = await unit.get(LeaseRepository).present(FEED)
        if present is not None:
            self._highest = max(self._highest, present.epoch)
        return present

    async def acquire(self) -> int | None:
        """The new epoch, or None while another process has the lease. Raises UnavailableError."""
        sent = self.monotonic()
        present = await self.look()
        if present is not None and present.left_ms >= 0 and present.holder != self.holder:
            return None
        async with self.database.write() as unit:
            epoch = await unit.get(LeaseRepository).acquire(
                FEED, self.holder, self._ttl_ms, self._highest
            )
        if epoch is not None:
            self._epoch, self._highest, self._renewed = epoch, epoch, sent
            self.seen = Lease(self.holder, epoch, self._ttl_ms)
            _log.info("feed_acquired", epoch=epoch, holder=self.holder)
        return epoch

    async def keep(self) -> None:
        """Renews it when that is due; `epoch` is None after it was lost.

        Raises UnavailableError: nothing is lost by that before `demote_s` have passed.
        """
        sent = self.monotonic()
        if self.epoch is None or sent - self._renewed < self.times.renew_s:
            return
        held = self.epoch
        async with self.database.write() as unit:
            renewed = await unit.get(LeaseRepository).renew(FEED, held, self._ttl_ms)
        if renewed:
            self._renewed = sent
        else:
            self.lost()

    def lost(self) -> None:
        """Somebody has seen that it is no longer ours."""
        if self._epoch is not None:
            _log.warning("feed_lost", epoch=self._epoch, holder=self.holder)
        self._epoch = None

    async def release(self) -> None:
        """Others may have it at once. Raises UnavailableError."""
        held, self._epoch = self._epoch, None
        if held is not None:
            async with self.database.write() as unit:
                await unit.get(LeaseRepository).release(FEED, held)
            _log.info("feed_released", epoch=held, holder=self.holder)

    @property
    def _ttl_ms(self) -> int:
        return int(self.times.ttl_s * 1000)


async def require_epoch(unit: UnitOfWork, epoch: int) -> None:
    """Refuses what rests on the market of an earlier owner, up to the end of the transaction.

    Raises UnavailableError(market_data_stale).
    """
    if not await unit.get(LeaseRepository).is_present(FEED, epoch):
        raise UnavailableError(
            Code.MARKET_DATA_STALE,
            "The market feed has another owner by now; what was seen before is not written.",
            retry_after_s=_RETRY_S,
        )
