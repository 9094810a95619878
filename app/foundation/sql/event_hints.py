"""PostgreSQL's word that another process committed events; a hint, never the truth."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.foundation.sql.errors import CONNECT_ERRORS, translated, unavailable
from app.foundation.sql.events import CHANNEL

CHECK_S: Final = 10.0  # a connection that says nothing may be dead


async def listen(engine: AsyncEngine, hint: Callable[[], None], beat: Callable[[], None]) -> None:
    """Calls `hint` at each commit of events by any process, on a connection of its own.

    Returns never; raises UnavailableError when the connection is lost. `hint` is called once at
    the beginning, for what came before.
    """
    lost = asyncio.Event()
    try:
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            driver: Any = raw.driver_connection
            driver.add_termination_listener(lambda _: lost.set())
            await driver.add_listener(CHANNEL, lambda *_: hint())
            hint()
            while not lost.is_set():
                beat()
                try:
                    async with asyncio.timeout(CHECK_S):
                        await lost.wait()
                except TimeoutError:
                    await driver.execute("SELECT 1")
            await connection.invalidate()
    except (SQLAlchemyError, *CONNECT_ERRORS) as e:
        raise translated(e) or unavailable() from e
    raise unavailable()
