"""Tells of each change of the mode once, with its cause, however often it is looked at."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import structlog

from app.foundation.errors import ServiceError
from app.foundation.mode import Mode
from app.foundation.ports import Clock, NewId
from app.foundation.sql.database import Database
from app.foundation.sql.facts import FactRepository
from app.foundation.sql.unit_of_work import UnitOfWork
from app.market.domain.events import ModeChanged
from app.market.services.service_mode import ModeState

LOOK_S: Final = 1.0
MODE: Final = "mode"  # the fact: which mode was told last, and with which change
_MOST: Final = 100  # changes that wait for the database; of more the oldest are not told
_log = structlog.get_logger("mode")


@dataclass(frozen=True, slots=True)
class _Seen:
    id: str
    mode: Mode
    cause: str
    stale_symbols: int
    at: datetime


@dataclass(slots=True)
class ModeWatch:
    """Only the owner of the feed looks, so that of many processes one tells.

    What was told last is stored with the event, so that neither a restart nor another owner
    repeats it. Without the database changes wait, each with the time at which it was seen.
    `fence` refuses to write for who is no longer the owner.
    """

    database: Database
    state: Callable[[], ModeState]
    fence: Callable[[UnitOfWork], Awaitable[None]]
    clock: Clock
    new_id: NewId
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _waiting: deque[_Seen] = field(default_factory=lambda: deque(maxlen=_MOST), init=False)
    _newest: Mode | None = field(default=None, init=False)

    async def run(self, beat: Callable[[], None]) -> None:
        """Looks once a second, for ever."""
        self._newest = None  # another owner may have told of it since
        while True:
            await self.look()
            beat()
            await self.sleep(LOOK_S)

    async def look(self) -> None:
        """Notes the present mode if it is another one, and tells what has not been told yet."""
        state = self.state()
        if state.mode is not self._newest:
            self._newest = state.mode
            cause = state.cause.value
            self._waiting.append(
                _Seen(self.new_id(), state.mode, cause, state.stale_symbols, self.clock())
            )
            _log.info("mode_seen", mode=state.mode.value, cause=cause)
        if not self._waiting:
            return
        try:
            await self.database.run(self._tell)
        except ServiceError as error:
            _log.warning("mode_not_told", mode=state.mode.value, cause=str(error.code))
        else:
            self._waiting.clear()

    async def _tell(self, unit: UnitOfWork) -> None:
        await self.fence(unit)
        told = await unit.get(FactRepository).get(MODE)
        # Before anything was known nothing was decided.
        was = Mode.FROZEN if told is None else Mode(told["mode"])
        last = None if told is None else told["id"]
        waiting = list(self._waiting)
        # The commit before may have come through although we were told that it had not.
        known = [at for at, one in enumerate(waiting) if one.id == last]
        for one in waiting[known[0] + 1 :] if known else waiting:
            if one.mode is was:
                continue
            unit.announce(
                ModeChanged(was.value, one.mode.value, one.cause, one.stale_symbols, one.at)
            )
            was, last = one.mode, one.id
        if last is not None:
            await unit.get(FactRepository).put(MODE, {"mode": was.value, "id": last})
