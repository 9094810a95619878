"""Runs a session step by step; a live session is recorded, a recorded one is replayed."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from app.foundation.errors import ServiceError
from app.foundation.ports import Monotonic
from app.market.domain.stream import Listener
from app.market.services.backfill import first_fill
from app.market.services.ports import MarketStream
from app.market.services.service import MarketData, no_replacements
from app.market.services.stream_consumer import StreamConsumer
from app.research.domain.recording import (
    BoardFingerprint,
    EndOfRecordingError,
    Schedule,
    SessionStep,
)
from app.scoring.domain.board import Board
from app.scoring.domain.input_hash import board_hash
from app.scoring.services.service import Scoring

_log = structlog.get_logger("tape")


class RecordingSteps(Protocol):
    """Source of steps; it receives their results."""

    async def next(self) -> SessionStep:
        """Returns the next step once it is due. Raises EndOfRecordingError after the last one."""
        ...

    def finish_step(self, step: SessionStep, error: ServiceError | None) -> None:
        """Receives the result of a step: `error`, or None for success."""
        ...

    def record_board(self, board: BoardFingerprint) -> None: ...


class RecordingJournal(Protocol):
    """Journal of a recording; each entry moves the clock to its time."""

    def record_step(self, step: SessionStep) -> None: ...

    def record_board(self, board: BoardFingerprint) -> None: ...

    def flush(self) -> None:
        """Writes buffered entries, before a wait."""
        ...


class BufferedMarketStream(MarketStream, Protocol):
    """Stream whose updates are applied between the steps, by `InputSource.drain`."""

    listener: Listener | None


class InputSource(Protocol):
    """Unsolicited input of a live session: updates of the stream."""

    @property
    def is_behind(self) -> bool:
        """True if a connection needs the updates that it has missed."""
        ...

    def drain(self) -> None: ...

    def begin_catch_up(self) -> None: ...

    def end_catch_up(self, error: ServiceError | None) -> None: ...


class StepSequence(Protocol):
    """Steps and boards of a recording. Both methods raise RecordingError for another entry."""

    def next_step(self) -> SessionStep: ...

    def next_board(self) -> BoardFingerprint | None:
        """Returns the recorded board; None without one."""
        ...


def _keep_settings() -> None:
    """Applies no change of the settings."""


async def ignore_board(board: Board | None) -> None:
    """Makes no decision about the board."""


@dataclass(slots=True)
class LiveRecordingSteps:
    """Live session that ends `duration_s` seconds after its first fill.

    `wait` returns after the given seconds or earlier. `apply_settings` loads changed business
    settings right before each step, so that a step uses one version.
    """

    schedule: Schedule
    journal: RecordingJournal
    inflow: InputSource
    monotonic: Monotonic
    wait: Callable[[float], Awaitable[None]]
    duration_s: float
    apply_settings: Callable[[], None] = _keep_settings
    _until: float = field(default=float("inf"), init=False)

    async def next(self) -> SessionStep:
        while True:
            if self.schedule.is_filled:
                self.inflow.drain()
            now = self.monotonic()
            step, due = self.schedule.next_due(now)
            if self.schedule.is_filled and self.inflow.is_behind:
                step, due = SessionStep.CATCH_UP, now
                self.inflow.begin_catch_up()
            if min(now, due) >= self._until:
                raise EndOfRecordingError("the session has ended")
            if due <= now:
                self.apply_settings()
                self.journal.record_step(step)
                self.schedule.start_step(step, now)
                return step
            self.journal.flush()
            await self.wait(min(due, self._until) - now)

    def finish_step(self, step: SessionStep, error: ServiceError | None) -> None:
        now = self.monotonic()
        if step is SessionStep.CATCH_UP:
            self.inflow.end_catch_up(error)
        elif step is SessionStep.FILL and error is None:
            self.schedule.finish_fill(now)
            self._until = now + self.duration_s

    def record_board(self, board: BoardFingerprint) -> None:
        self.journal.record_board(board)


@dataclass(slots=True)
class ReplaySession:
    """Steps of a recording; it compares the boards with the recorded ones."""

    sequence: StepSequence
    different: list[int] = field(default_factory=list)
    compared: int = 0

    async def next(self) -> SessionStep:
        return self.sequence.next_step()

    def finish_step(self, step: SessionStep, error: ServiceError | None) -> None:
        del step, error  # the next entry comes from the recording

    def record_board(self, board: BoardFingerprint) -> None:
        recorded = self.sequence.next_board()
        if recorded is not None:
            self.compared += 1
            if recorded != board:
                self.different.append(board.number)


@dataclass(slots=True)
class RecordedSession:
    """Runs the steps of a session on one market and its scoring.

    `decide` receives each new board, or None after a failed scoring, so that decisions use or
    refuse the last one. Requests to the exchange never depend on decisions.
    """

    data: MarketData
    scoring: Scoring
    stream: BufferedMarketStream
    session: RecordingSteps
    on_board: Callable[[BoardFingerprint], None]
    on_error: Callable[[SessionStep, str], None]  # step and error code
    decide: Callable[[Board | None], Awaitable[None]] = ignore_board
    _boards: int = field(default=0, init=False)

    async def run(self) -> None:
        """Runs all steps. Raises RecordingError."""
        streamed = StreamConsumer(self.data, self.stream, self._top_symbols)
        self.data.registry.member_codes = self._top_contracts
        self.data.open_replacements = (
            no_replacements  # replacements are decisions, and requests must not depend on them
        )
        self.stream.listener = streamed
        self.data.quotes.streamed_since = streamed.streamed_quotes
        actions: Mapping[SessionStep, Callable[[], Awaitable[object]]] = {
            SessionStep.FILL: lambda: first_fill(self.data),
            SessionStep.CATCH_UP: streamed.catch_up,
            SessionStep.LOOK: streamed.check,
            SessionStep.MARKET: self.data.refresh_market,
            SessionStep.CANDLES: self.data.refresh_candles,
            SessionStep.BOOKS: self._refresh_books,
            SessionStep.FUNDING: self.data.refresh_funding,
            SessionStep.SCORING: self._score,
        }
        try:
            while True:
                step = await self.session.next()
                try:
                    await actions[step]()
                except ServiceError as error:
                    self.on_error(step, str(error.code))
                    self.session.finish_step(step, error)
                else:
                    self.session.finish_step(step, None)
        except EndOfRecordingError:
            _log.debug("tape_ended", boards=self._boards)

    async def _score(self) -> None:
        try:
            board = await self.scoring.calculate()
        except ServiceError:
            await self.decide(None)
            raise
        self._boards += 1
        fingerprint = self._fingerprint(board)
        self.session.record_board(fingerprint)
        self.on_board(fingerprint)
        await self.decide(board)

    async def _top_symbols(self) -> tuple[str, ...]:
        """Best symbols, requested first; members would make requests depend on decisions."""
        return self.scoring.best(self.data.configuration().feed.candidates)

    async def _refresh_books(self) -> None:
        step_s = self.data.configuration().intervals.order_book_check_s
        await self.data.refresh_books(step_s, await self._top_symbols())

    async def _top_contracts(self) -> tuple[str, ...]:
        resolve = self.data.registry.resolve
        return tuple(resolve(symbol).contract.code for symbol in await self._top_symbols())

    def _fingerprint(self, board: Board) -> BoardFingerprint:
        market = self.data.live.market
        quarantined = {
            code for code, state in market.quality.items() if state.quarantine_reason is not None
        }
        entries = self.data.registry.index.entries
        return BoardFingerprint(
            number=self._boards,
            as_of=board.as_of,
            scored=board.universe_size,
            unavailable=len(board.cards) - board.universe_size,
            quarantined=tuple(
                sorted(entry.symbol for entry in entries if entry.contract.code in quarantined)
            ),
            input_hash=board.input_hash,
            board_hash=board_hash(board),
        )
