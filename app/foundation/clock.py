"""The time that processes agree on: by it leases and locks end and retries fall due."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from app.foundation.ports import Clock
from app.foundation.sql.database import Database, UnitOfWork
from app.foundation.sql.leases import LeaseRepository

SharedClock = Callable[[UnitOfWork], Awaitable[datetime]]


async def of_database(unit: UnitOfWork) -> datetime:
    """Whatever the clock of this process says: those of two may be seconds apart."""
    return await unit.get(LeaseRepository).now()


def shared_by(database: Database) -> SharedClock | None:
    """None for a file: that belongs to one process, whose own clock costs no question."""
    return None if database.commits is not None else of_database


async def agreed(unit: UnitOfWork, shared: SharedClock | None, own: Clock) -> datetime:
    """The clock of this process where no other one shares the database."""
    return own() if shared is None else await shared(unit)
