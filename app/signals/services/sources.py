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
from app.market.domain.segments import contiguous
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
    """Source of signals; the settings enable it by `name` (up to 64 characters)."""

    @property
    def name(self) -> str: ...

    async def generate(self, source_input: SourceInput) -> Sequence[GeneratedSignal]:
        """Returns the current signals; repeated ones are allowed."""
        ...


class TechnicalSource:
    name = TECHNICAL

    async def generate(self, source_input: SourceInput) -> Sequence[GeneratedSignal]:
        return await asyncio.to_thread(find_technical_signals, source_input)


class FundamentalSource:
    name = FUNDAMENTAL

    async def generate(self, source_input: SourceInput) -> Sequence[GeneratedSignal]:
        return find_fundamental_signals(source_input)


BUILT_IN: Final[tuple[SignalSource, ...]] = (TechnicalSource(), FundamentalSource())


@dataclass(slots=True)
class SignalSources:
    """Polls all sources; one that fails or takes too long is skipped."""

    signals: SignalService
    sources: tuple[SignalSource, ...] = BUILT_IN
    timeout_s: float = TIMEOUT_S
    _board_id: str | None = field(default=None, init=False)
    _sent: frozenset[tuple[str, str]] = field(default=frozenset(), init=False)

    async def poll(self) -> int:
        """Polls each enabled source once per board; returns the number of new signals.

        After a restart a board may be polled again; the ids of the signals prevent duplicates.
        """
        async with self.signals.database.read() as unit:
            configuration = await unit.get(ConfigurationRepository).current()
        context = self.signals.contexts(configuration)
        board = usable_board(context)
        if board is None or board.run_id == self._board_id:
            return 0
        rules = configuration.signals
        hourly = context.market.panel(Interval.HOUR)
        source_input = SourceInput(board, None if hourly is None else contiguous(hourly), rules)
        new, keys = 0, set()
        for source in self.sources:
            if rules.sources.get(source.name, True):
                generated = await self._generate(source, source_input)
                signals = select_signals(generated, board, rules)
                new += await self._send(source.name, signals)
                keys |= {(source.name, signal.key) for signal in signals}
        self._board_id, self._sent = board.run_id, frozenset(keys)
        return new

    async def _generate(
        self, source: SignalSource, source_input: SourceInput
    ) -> Sequence[GeneratedSignal]:
        try:
            async with asyncio.timeout(self.timeout_s):
                return await source.generate(source_input)
        except Exception as error:  # noqa: BLE001  # a plug-in may raise any error
            _log.warning("source_failed", source=source.name, cause=type(error).__name__)
            return ()

    async def _send(self, name: str, signals: Sequence[GeneratedSignal]) -> int:
        """Submits signals; raises RateLimitedError when too many wait, to poll again later."""
        new = 0
        for signal in signals:
            if (name, signal.key) in self._sent:
                continue
            command = Command(_ACTOR, self.signals.new_id())
            try:
                intake = (await self.signals.submit(signal.claim(name), command)).result
            except RateLimitedError:
                raise
            except (ConflictError, RefusedError) as error:
                # Bars may be corrected later; the first signal remains valid.
                _log.info(
                    "generated_signal_refused",
                    source=name,
                    symbol=signal.symbol,
                    code=error.code.value,
                )
                continue
            new += intake is not None and intake.is_new
        return new
