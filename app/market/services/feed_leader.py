"""Leader election for the market feed: one process at a time talks to the exchange."""

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

# Fencing check inside a transaction: raises UnavailableError in a process that lost the lease.
Fence = Callable[[UnitOfWork], Awaitable[None]]


async def no_fencing(unit: UnitOfWork) -> None:
    """Fencing check of a single process: does nothing."""
    del unit


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Times of the lease in seconds.

    A leader that could not renew for `demote_s` stops; another process may start after `ttl_s`.
    """

    ttl_s: float = TTL_S
    renew_s: float = RENEW_S
    demote_s: float = DEMOTE_S


@dataclass(slots=True)
class LeaderLease:
    """Lease of the feed: the database's clock decides its holder, our monotonic clock when to stop.

    A process that slept may still act on a lost lease. Its writes carry its epoch, so the database
    refuses them (`require_epoch`).
    """

    database: Database
    holder: str
    monotonic: Monotonic
    times: LeaseTimes = field(default_factory=LeaseTimes)
    seen: Lease | None = field(default=None, init=False)  # as last read
    _epoch: int | None = field(default=None, init=False)
    _highest: int = field(default=0, init=False)  # highest epoch seen
    _renewed: float = field(default=0.0, init=False)  # monotonic time of the last renewal request

    @property
    def epoch(self) -> int | None:
        """Epoch of our lease; None without it, and as soon as another process may have it."""
        if self.monotonic() - self._renewed >= self.times.demote_s:
            return None
        return self._epoch

    async def read(self) -> Lease | None:
        """Reads the lease; None if no process ever had it. Raises UnavailableError."""
        async with self.database.read() as unit:
            present = self.seen = await unit.get(LeaseRepository).current(FEED)
        if present is not None:
            self._highest = max(self._highest, present.epoch)
        return present

    async def acquire(self) -> int | None:
        """Returns the new epoch; None while another process leads. Raises UnavailableError."""
        sent = self.monotonic()
        present = await self.read()
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

    async def renew(self) -> None:
        """Renews the lease when due; `epoch` is None after it was lost.

        Raises UnavailableError, which loses nothing before `demote_s` have passed.
        """
        sent = self.monotonic()
        if self.epoch is None or sent - self._renewed < self.times.renew_s:
            return
        epoch = self.epoch
        async with self.database.write() as unit:
            renewed = await unit.get(LeaseRepository).renew(FEED, epoch, self._ttl_ms)
        if renewed:
            self._renewed = sent
        else:
            self.give_up()

    def give_up(self) -> None:
        """Gives the lease up after a write was refused."""
        if self._epoch is not None:
            _log.warning("feed_lost", epoch=self._epoch, holder=self.holder)
        self._epoch = None

    async def release(self) -> None:
        """Releases the lease to other processes at once. Raises UnavailableError."""
        epoch, self._epoch = self._epoch, None
        if epoch is not None:
            async with self.database.write() as unit:
                await unit.get(LeaseRepository).release(FEED, epoch)
            _log.info("feed_released", epoch=epoch, holder=self.holder)

    @property
    def _ttl_ms(self) -> int:
        return int(self.times.ttl_s * 1000)


async def require_epoch(unit: UnitOfWork, epoch: int) -> None:
    """Refuses writes based on the market of an earlier leader, until the end of the transaction.

    Raises UnavailableError(market_data_stale).
    """
    if not await unit.get(LeaseRepository).is_current(FEED, epoch):
        raise UnavailableError(
            Code.MARKET_DATA_STALE,
            "The market feed has a new owner; data of the former one is not written.",
            retry_after_s=_RETRY_S,
        )
