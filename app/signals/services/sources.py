"""Built-in and plug-in signal sources: polled after each new board, each signal sent once."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.errors import ConflictError, RateLimitedError, RefusedError
from app.foundation.idempotency import Command
from app.market.domain.models import Interval
from app.market.domain.panel import contiguous
from app.signals.domain.sources import (
    FUNDAMENTAL,
    GeneratedSignal,
    SourceInput,
    find_fundamental_signals,
    select_signals,
)
from app.signals.domain.technical_source import TECHNICAL, find_technical_signals
from app.signals.services.evaluation import usable_board
from app.signals.services.service import SignalService

TIMEOUT_S: Final = 30.0
_ACTOR: Final = "sources"
_log = structlog.get_logger("signals")


class SignalSource(Protocol):
    """Source of signals; `name` (up to 64 characters) is also its switch in the settings."""

    @property
    def name(self) -> str: ...

    async def ideas(self, seen: SourceInput) -> Sequence[GeneratedSignal]:
        """Current signals; repeated ones are allowed."""
        ...


class TechnicalSource:
    name = TECHNICAL

    async def ideas(self, seen: SourceInput) -> Sequence[GeneratedSignal]:
        return await asyncio.to_thread(find_technical_signals, seen)


class FundamentalSource:
    name = FUNDAMENTAL

    async def ideas(self, seen: SourceInput) -> Sequence[GeneratedSignal]:
        return find_fundamental_signals(seen)


BUILT_IN: Final[tuple[SignalSource, ...]] = (TechnicalSource(), FundamentalSource())


@dataclass(slots=True)
class SignalSources:
    """Polls all sources; one that fails or takes too long is skipped."""

    signals: SignalService
    sources: tuple[SignalSource, ...] = BUILT_IN
    timeout_s: float = TIMEOUT_S
    _board_id: str | None = field(default=None, init=False)
    _sent: frozenset[tuple[str, str]] = field(default=frozenset(), init=False)

    async def look(self) -> int:
        """Poll each enabled source about the newest board; returns the number of new signals.

        A board is polled once. After a restart it may be polled again; the ids of the
        signals prevent duplicates.
        """
        async with self.signals.database.read() as unit:
            configuration = await unit.get(ConfigurationRepository).current()
        context = self.signals.contexts(configuration)
        board = usable_board(context)
        if board is None or board.run_id == self._board_id:
            return 0
        rules = configuration.signals
        hourly = context.market.panel(Interval.HOUR)
        seen = SourceInput(board, None if hourly is None else contiguous(hourly), rules)
        new, said = 0, set()
        for source in self.sources:
            if rules.sources.get(source.name, True):
                ideas = select_signals(await self._said(source, seen), board, rules)
                new += await self._send(source.name, ideas)
                said |= {(source.name, idea.key) for idea in ideas}
        self._board_id, self._sent = board.run_id, frozenset(said)
        return new

    async def _said(self, source: SignalSource, seen: SourceInput) -> Sequence[GeneratedSignal]:
        try:
            async with asyncio.timeout(self.timeout_s):
                return await source.ideas(seen)
        except Exception as error:  # noqa: BLE001  # a plug-in may raise any error
            _log.warning("source_failed", source=source.name, cause=type(error).__name__)
            return ()

    async def _send(self, name: str, ideas: Sequence[GeneratedSignal]) -> int:
        """Send signals; raises RateLimitedError when too many wait, to poll again later."""
        new = 0
        for idea in ideas:
            if (name, idea.key) in self._sent:
                continue
            command = Command(_ACTOR, self.signals.new_id())
            try:
                taken = (await self.signals.submit(idea.claim(name), command)).result
            except RateLimitedError:
                raise
            except (ConflictError, RefusedError) as error:
                # Bars may be corrected later: the first signal stands.
                _log.info("idea_refused", source=name, symbol=idea.symbol, code=error.code.value)
                continue
            new += taken is not None and taken.is_new
        return new
