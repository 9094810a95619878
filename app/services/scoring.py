"""Scoring: score the universe, keep the board, tell, and answer what the scores were."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol, cast

import numpy as np
import structlog

from app.domain.board import Board, BoardDraft, Card
from app.domain.composite import AlgorithmSpec
from app.domain.configuration import Configuration
from app.domain.errors import Code, NotFoundError, ServiceError, UnavailableError
from app.domain.events import ScoresUpdated, score_changes
from app.domain.market import DataSource, DataStatus
from app.domain.panel import ScoringInputs, Source, fresh
from app.domain.ranking import AlgorithmType, Ranked, ranked
from app.domain.scoring import score
from app.domain.symbols import SymbolEntry
from app.services.algorithms import AlgorithmFacts, in_force, kept
from app.services.once import Answer, Command, Once, Render
from app.services.ports import Clock, Monotonic, NewId
from app.services.run_inputs import pack
from app.storage.database import Database
from app.storage.unit_of_work import UnitOfWork

ALGORITHM: Final = "cross_sectional"
TICKER_RULE: Final = "ticker"  # the last one of the funnel
KEEP_RUNS: Final = timedelta(days=7)
KEEP_DAILY: Final = timedelta(days=35)  # of the runs before that, one a day
KEEP_INPUTS: Final = timedelta(days=1)
_RETRY_S: Final = 5.0
_LIVE: Final = (Source.CONTRACTS, Source.TICKERS, Source.DAILY_CANDLES)
_FRESH_SHARE: Final = 0.5  # of the symbols; below it the market as a whole is not known
_log = structlog.get_logger("scoring")


class ScoringMoment(Protocol):
    """The market frozen at one instant."""

    def unknown(self) -> tuple[Source, ...]:
        """Sources that as a whole never answered or are beyond their age limits."""
        ...

    def scoring_inputs(self) -> ScoringInputs:
        """Takes processor time: called in a thread."""
        ...


class ScoringMarket(Protocol):
    """Where the inputs come from."""

    @property
    def source(self) -> DataSource: ...

    def moment(self) -> ScoringMoment: ...

    def is_filled(self) -> bool:
        """Whether everything that a scoring reads has been asked for since the start."""
        ...

    def resolve(self, text: str) -> SymbolEntry:
        """Raises RefusedError (symbol_unknown, symbol_ambiguous)."""
        ...


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A board that still has to be saved."""

    draft: BoardDraft
    packed: bytes
    configuration: Configuration
    duration_ms: float
    is_whole: bool


@dataclass(slots=True)
class Scoring:
    """Holds the newest board; it is replaced whole, so readers need no lock and no SQL.

    `configuration` gives the settings in force. `whole` is set once a board stands that was made
    after the first fill of this process: what decides by itself waits for it.
    """

    market: ScoringMarket
    database: Database
    clock: Clock
    monotonic: Monotonic
    new_id: NewId
    configuration: Callable[[], Configuration]
    once: Once
    whole: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _latest: Board | None = field(default=None, init=False)
    _running: asyncio.Future[Board] | None = field(default=None, init=False)

    async def load(self) -> Board | None:
        """Take up the newest stored board."""
        async with self.database.read() as unit:
            self._latest = await unit.scoring.latest()
        return self._latest

    def latest(self) -> Board | None:
        return self._latest

    def board(self) -> Board:
        """The newest board. Raises UnavailableError no_board_yet before the first one."""
        if self._latest is None:
            raise UnavailableError(
                Code.NO_BOARD_YET, "No scores have been calculated yet.", retry_after_s=_RETRY_S
            )
        return self._latest

    def status_of(self, board: Board) -> DataStatus:
        """A board older than the age limit of scores is stale."""
        settings = self.configuration()
        limit = timedelta(seconds=settings.age_limit_cadences * settings.cadences.scoring)
        young = self.clock() - board.calculated_at <= limit
        return DataStatus.FRESH if young else DataStatus.STALE

    async def calculate(self) -> Board:
        """Score the universe as it is known now; a call during a run shares that run's board.

        Raises UnavailableError: market_data_stale rather than a board of stale data.
        """
        while (running := self._running) is not None:
            await asyncio.wait([running])
            if not running.cancelled():
                return running.result()
        running = self._running = asyncio.get_running_loop().create_future()
        try:
            prepared = await self._prepare()
            board = await self.database.run(lambda unit: self._save(unit, prepared))
        except ServiceError as e:
            running.set_exception(e)
            running.exception()  # seen: nobody may have waited
            raise
        else:
            self._take(board)
            if prepared.is_whole:
                self.whole.set()
            running.set_result(board)
            return board
        finally:
            self._running = None
            running.cancel()  # does nothing once there is a result; else a waiter takes over

    async def calculate_once(self, command: Command, render: Render[Board]) -> tuple[Answer, bool]:
        """`calculate` for a caller: the answer, and whether it is one given before to its key.

        The run is shared with everybody; only the answer is kept under the key's lock.
        """
        shared: list[Board] = []

        async def prepare() -> None:
            shared.append(await self.calculate())

        async def change(_: UnitOfWork) -> Board:
            return shared[-1]

        outcome = await self.once.run(command, change, render, prepare)
        return cast("Answer", outcome.answer), outcome.is_replay  # render was given

    async def _prepare(self) -> _Prepared:
        configuration = self.configuration()
        begun = self.monotonic()
        is_whole, moment = self.market.is_filled(), self.market.moment()
        draft, packed = await asyncio.to_thread(_work, moment, _spec(configuration))
        return _Prepared(draft, packed, configuration, (self.monotonic() - begun) * 1e3, is_whole)

    async def _save(self, unit: UnitOfWork, prepared: _Prepared) -> Board:
        at, configuration = self.clock(), prepared.configuration
        algorithm = await kept(unit, _spec(configuration), at)
        board = prepared.draft.issued(
            run_id=self.new_id(),
            algorithm=algorithm.name,
            algorithm_version=algorithm.version,
            configuration_version=configuration.version,
            calculated_at=at,
            duration_ms=prepared.duration_ms,
            data_source=self.market.source,
        )
        await unit.scoring.save(board, prepared.packed)
        await unit.scoring.drop_inputs(at - KEEP_INPUTS)
        await unit.scoring.forget(at - KEEP_RUNS, at - KEEP_DAILY)
        unit.announce(
            ScoresUpdated(
                board.run_id,
                board.as_of,
                board.universe_size,
                len(board.cards) - board.universe_size,
                board.duration_ms / 1e3,
                board.calculated_at,
                score_changes(self._latest, board),
            )
        )
        return board

    def _take(self, board: Board) -> None:
        if self._latest is None or self._latest.calculated_at <= board.calculated_at:
            self._latest = board
        _log.info(
            "scored",
            run_id=board.run_id,
            scored=board.universe_size,
            unavailable=len(board.cards) - board.universe_size,
            duration_ms=round(board.duration_ms, 1),
        )

    def rankings(
        self, algorithm: AlgorithmType, *, eligible_only: bool = False
    ) -> tuple[Board, tuple[Ranked, ...]]:
        """The newest board's cards, best first by composite or by one family."""
        board = self.board()
        return board, ranked(board, algorithm, eligible_only=eligible_only)

    def explain(self, text: str) -> tuple[Board, Card]:
        """The newest card of a symbol in any spelling.

        Raises RefusedError (symbol_unknown, symbol_ambiguous), NotFoundError when the board is
        older than the symbol.
        """
        board, symbol = self.board(), self.market.resolve(text).symbol
        card = board.card(symbol)
        if card is None:
            raise NotFoundError(Code.NOT_FOUND, f"The newest board has no card of {symbol}.")
        return board, card

    async def history(
        self, text: str, before: tuple[datetime, str] | None, limit: int
    ) -> tuple[Board, ...]:
        """Past boards, newest first, each with the card of one symbol alone.

        `before` is (calculated_at, run_id) of the last one of the page before.
        """
        symbol = self.market.resolve(text).symbol
        async with self.database.read() as unit:
            return await unit.scoring.history(symbol, before, limit)

    async def run(self, run_id: str) -> Board:
        """A stored board. Raises NotFoundError."""
        async with self.database.read() as unit:
            board = await unit.scoring.run(run_id)
        if board is None:
            raise NotFoundError(Code.NOT_FOUND, "There is no scoring run of that id.")
        return board

    async def algorithms(self) -> tuple[AlgorithmFacts, ...]:
        """What is in force, in its stored version; version 1 unstored before the first run."""
        async with self.database.read() as unit:
            return (await in_force(unit, _spec(self.configuration())),)


def _spec(configuration: Configuration) -> AlgorithmSpec:
    return AlgorithmSpec(ALGORITHM, configuration.family_weights)


def _work(moment: ScoringMoment, spec: AlgorithmSpec) -> tuple[BoardDraft, bytes]:
    """Everything that takes processor time; runs in a thread on immutable values."""
    inputs = moment.scoring_inputs()
    _refuse_unknown(moment, inputs)
    return score(inputs, spec), pack(inputs)


def _refuse_unknown(moment: ScoringMoment, inputs: ScoringInputs) -> None:
    """No board is better than one of a market that is not known: single gaps are not meant.

    Who has no fresh quote is left out before the scoring: they count here nevertheless, or an
    outage would look like a market in which nobody is eligible.
    """
    if not inputs.symbols and not inputs.excluded:
        raise _stale("No contract is known yet.", {})
    for source in moment.unknown():
        raise _stale(f"The {_words(source)} as a whole are not fresh.", {"source": source})
    silent = sum(rule == TICKER_RULE for rule in inputs.excluded.values())
    if not inputs.symbols and not silent:
        return  # a board that says why nobody is eligible
    for source in _LIVE:
        known = int(np.sum(fresh(inputs, source)))
        of = len(inputs.symbols) + (silent if source is Source.TICKERS else 0)
        if known < _FRESH_SHARE * of:
            raise _stale(
                f"Only {known} of {of} symbols have fresh {_words(source)}.",
                {"source": source, "fresh_share": f"{known / of:.4f}"},
            )


def _words(source: Source) -> str:
    return source.replace("_", " ")


def _stale(detail: str, facts: Mapping[str, str]) -> UnavailableError:
    return UnavailableError(Code.MARKET_DATA_STALE, detail, retry_after_s=_RETRY_S, facts=facts)
