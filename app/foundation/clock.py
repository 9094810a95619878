"""Shared clock of all processes on one database, for leases, locks and retries."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from app.foundation.ports import Clock
from app.foundation.sql.database import Database, UnitOfWork
from app.foundation.sql.leases import LeaseRepository

SharedClock = Callable[[UnitOfWork], Awaitable[datetime]]


async def database_time(unit: UnitOfWork) -> datetime:
    """Returns the time of the database; clocks of two processes may differ by seconds."""
    return await unit.get(LeaseRepository).now()


def shared_clock(database: Database) -> SharedClock | None:
    """Returns the shared clock; None for SQLite, which one process uses with its own clock."""
    return None if database.commits is not None else database_time


async def current_time(unit: UnitOfWork, shared: SharedClock | None, own: Clock) -> datetime:
    """Returns the shared time; `own` where no other process uses the database."""
    return own() if shared is None else await shared(unit)
