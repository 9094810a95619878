"""Does what a tape holds, step by step: the same whether it is being recorded or played."""

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
from app.research.domain.recording import BoardLine, EndOfTapeError, Schedule, Step
from app.scoring.domain.board import Board
from app.scoring.domain.input_hash import board_hash
from app.scoring.services.service import Scoring

_log = structlog.get_logger("tape")


class Steps(Protocol):
    """Says what is done next, and hears what came of it."""

    async def next(self) -> Step:
        """The next step, once it is due. Raises EndOfTapeError when there is none."""
        ...

    def ended(self, step: Step, error: ServiceError | None) -> None:
        """It has come to its end, or to that error."""
        ...

    def scored(self, board: BoardLine) -> None: ...


class Journal(Protocol):
    """Where a recording is written; each entry moves the clock to its time."""

    def began(self, step: Step) -> None: ...

    def scored(self, board: BoardLine) -> None: ...

    def flush(self) -> None:
        """Nothing may come for a while: what was written must be safe by now."""
        ...


class Stream(MarketStream, Protocol):
    """What is told is used between the steps, when `drain` is called."""

    listener: Listener | None


class Inflow(Protocol):
    """What comes in by itself while a recording runs."""

    @property
    def is_behind(self) -> bool:
        """Whether a connection asks for what it has missed."""
        ...

    def drain(self) -> None: ...

    def catching_up(self) -> None: ...

    def caught_up(self, error: ServiceError | None) -> None: ...


class Script(Protocol):
    """What a recording said. Both raise TapeError where it says something else."""

    def began(self) -> Step: ...

    def scored(self) -> BoardLine | None:
        """None where the recording has no such board."""
        ...


def _as_before() -> None:
    """Nobody changes the settings."""


async def decide_nothing(board: Board | None) -> None:
    """Boards are made and nothing rests on them."""


@dataclass(slots=True)
class LiveSteps:
    """The schedule of a recording, which ends `for_s` seconds after its first fill.

    `wait` returns after so many seconds, or earlier. `settle` takes up other business settings:
    it is called right before each step, so that all of a step goes by the same.
    """

    schedule: Schedule
    journal: Journal
    inflow: Inflow
    monotonic: Monotonic
    wait: Callable[[float], Awaitable[None]]
    for_s: float
    settle: Callable[[], None] = _as_before
    _until: float = field(default=float("inf"), init=False)

    async def next(self) -> Step:
        while True:
            if self.schedule.is_filled:
                self.inflow.drain()
            now = self.monotonic()
            step, due = self.schedule.due(now)
            if self.schedule.is_filled and self.inflow.is_behind:
                step, due = Step.CATCH_UP, now
                self.inflow.catching_up()
            if min(now, due) >= self._until:
                raise EndOfTapeError("the time is over")
            if due <= now:
                self.settle()
                self.journal.began(step)
                self.schedule.began(step, now)
                return step
            self.journal.flush()
            await self.wait(min(due, self._until) - now)

    def ended(self, step: Step, error: ServiceError | None) -> None:
        now = self.monotonic()
        if step is Step.CATCH_UP:
            self.inflow.caught_up(error)
        elif step is Step.FILL and error is None:
            self.schedule.filled(now)
            self._until = now + self.for_s

    def scored(self, board: BoardLine) -> None:
        self.journal.scored(board)


@dataclass(slots=True)
class PlayedSteps:
    """The steps of a recording, and which boards are not those of it."""

    script: Script
    different: list[int] = field(default_factory=list)
    compared: int = 0

    async def next(self) -> Step:
        return self.script.began()

    def ended(self, step: Step, error: ServiceError | None) -> None:
        del step, error  # what follows stands on the tape

    def scored(self, board: BoardLine) -> None:
        recorded = self.script.scored()
        if recorded is not None:
            self.compared += 1
            if recorded != board:
                self.different.append(board.number)


@dataclass(slots=True)
class TapedMarket:
    """One market, its scores, and `decide`, which is called after each scoring.

    It gets the new board; None where there is none, so that the last one is decided on or refused.
    The requests to the exchange are those of the market alone, whatever is decided.
    """

    data: MarketData
    scoring: Scoring
    stream: Stream
    steps: Steps
    tell: Callable[[BoardLine], None]
    missed: Callable[[Step, str], None]  # with the code of the error
    decide: Callable[[Board | None], Awaitable[None]] = decide_nothing
    _boards: int = field(default=0, init=False)

    async def run(self) -> None:
        """Until there is no further step. Raises TapeError."""
        streamed = StreamConsumer(self.data, self.stream, self._best)
        self.data.registry.member_codes = self._best_contracts
        self.data.open_replacements = no_replacements  # of the ledger, which depends on decisions
        self.stream.listener = streamed
        self.data.quotes.streamed_since = streamed.streamed_quotes
        actions: Mapping[Step, Callable[[], Awaitable[object]]] = {
            Step.FILL: lambda: first_fill(self.data),
            Step.CATCH_UP: streamed.catch_up,
            Step.LOOK: streamed.check,
            Step.MARKET: self.data.refresh_market,
            Step.CANDLES: self.data.refresh_candles,
            Step.BOOKS: self._books,
            Step.FUNDING: self.data.refresh_funding,
            Step.SCORING: self._score,
        }
        try:
            while True:
                step = await self.steps.next()
                try:
                    await actions[step]()
                except ServiceError as error:
                    self.missed(step, str(error.code))
                    self.steps.ended(step, error)
                else:
                    self.steps.ended(step, None)
        except EndOfTapeError:
            _log.debug("tape_ended", boards=self._boards)

    async def _score(self) -> None:
        try:
            board = await self.scoring.calculate()
        except ServiceError:
            await self.decide(None)
            raise
        self._boards += 1
        line = self._line(board)
        self.steps.scored(line)
        self.tell(line)
        await self.decide(board)

    async def _best(self) -> tuple[str, ...]:
        """In place of members, on whom requests would depend: the best are asked for first."""
        return self.scoring.best(self.data.configuration().feed.candidates)

    async def _books(self) -> None:
        step_s = self.data.configuration().intervals.order_book_check_s
        await self.data.refresh_books(step_s, await self._best())

    async def _best_contracts(self) -> tuple[str, ...]:
        resolve = self.data.registry.resolve
        return tuple(resolve(symbol).contract.code for symbol in await self._best())

    def _line(self, board: Board) -> BoardLine:
        market = self.data.live.market
        doubted = {
            code for code, state in market.quality.items() if state.quarantine_reason is not None
        }
        entries = self.data.registry.index.entries
        return BoardLine(
            number=self._boards,
            as_of=board.as_of,
            scored=board.universe_size,
            unavailable=len(board.cards) - board.universe_size,
            quarantined=tuple(
                sorted(one.symbol for one in entries if one.contract.code in doubted)
            ),
            input_hash=board.input_hash,
            board_hash=board_hash(board),
        )
