"""Scores the universe, stores, retains and publishes boards, and answers questions on them."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any, Final

import structlog

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import RetentionSettings
from app.foundation.data_status import DataStatus
from app.foundation.errors import Code, NotFoundError, ServiceError, UnavailableError
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor, Render
from app.foundation.metrics import Metrics
from app.foundation.ports import Clock, Monotonic, NewId
from app.foundation.sql.database import BULK_STATEMENT_S, Database, UnitOfWork
from app.market.domain.data_quality import worst
from app.market.domain.panel import ScoringInputs
from app.market.services.feed_leader import Fence, anybody
from app.scoring.domain.algorithm import algorithm, changes_of
from app.scoring.domain.board import Board, BoardDraft, Card
from app.scoring.domain.board_retention import StoredRun, runs_to_delete
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.counterfactual import Entry, entry
from app.scoring.domain.engine import FeatureCache, score
from app.scoring.domain.events import ScoresUpdated, score_changes
from app.scoring.domain.factors import FACTORS, Factor
from app.scoring.domain.historical_moments import HistoricMoments, historic
from app.scoring.domain.input_hash import panel_hash
from app.scoring.domain.ranking import AlgorithmType, Ranked, ranked
from app.scoring.services.algorithm_versions import AlgorithmFacts, in_force, kept
from app.scoring.services.inputs import RETRY_S, ScoringMarket, ScoringMoment, refuse_unknown
from app.scoring.services.replay import Replaying, pack
from app.scoring.services.score_reliability import ScoreReliabilityCache
from app.scoring.storage.moments import MomentRepository
from app.scoring.storage.runs import ScoringRepository

# Ids of the runs, among those given, that a stored decision rests on.
FindDecided = Callable[[UnitOfWork, Sequence[StoredRun]], Awaitable[Collection[str]]]


@dataclass(frozen=True, slots=True)
class BoardRetention:
    """Thins out stored boards; a board that a decision rests on stays whole, with its inputs."""

    database: Database
    clock: Clock
    find_decided: FindDecided

    async def forget_old(self, rules: RetentionSettings) -> int:
        """Number of deleted boards, by the settings in force."""
        now = self.clock()
        full, inputs = timedelta(days=rules.boards_days), timedelta(days=rules.board_inputs_days)
        async with self.database.write(BULK_STATEMENT_S) as unit:
            repository = unit.get(ScoringRepository)
            runs = await repository.stored_runs(now - min(full, inputs))
            decided = await self.find_decided(unit, runs)
            gone = runs_to_delete(
                runs, now, full, timedelta(days=rules.hourly_boards_days), decided
            )
            await repository.delete_runs(gone)
            stay = {*gone, *decided}
            emptied = [run.run_id for run in runs if run.has_inputs and run.is_before(now - inputs)]
            await repository.drop_inputs([run_id for run_id in emptied if run_id not in stay])
        return len(gone)


_MOST: Final = 1_000  # answers kept of one board


@dataclass(slots=True)
class Entries:
    """Answers of one board; another board forgets them."""

    factors: tuple[Factor, ...]
    _run_id: str = field(default="", init=False)
    _known: dict[tuple[str, int], Entry | None] = field(default_factory=dict, init=False)

    async def of(self, board: Board, symbol: str, top: int) -> Entry | None:
        """As `counterfactual.entry`; the first time it takes up to a quarter of a second."""
        if board.run_id != self._run_id or len(self._known) >= _MOST:
            self._run_id, self._known = board.run_id, {}
        known, key = self._known, (symbol, top)
        if key not in known:
            known[key] = await asyncio.to_thread(entry, board, self.factors, symbol, top)
        return known[key]


async def earlier(database: Database, spec: AlgorithmSpec) -> dict[str, HistoricMoments]:
    """By factor, family and `composite`; who never had enough values is left out.

    Of the version in force alone: a change of weights makes other sums.
    """
    async with database.read() as unit:
        facts = await in_force(unit, spec)
        return historic(await unit.get(MomentRepository).days(facts.name, facts.version))


async def keep_seen(
    unit: UnitOfWork, draft: BoardDraft, made_by: AlgorithmFacts, day: date
) -> None:
    """A board of too few symbols leaves what is known as it is. `day` is its UTC day."""
    if draft.seen:
        await unit.get(MomentRepository).keep(made_by.name, made_by.version, day, draft.seen)


_log = structlog.get_logger("scoring")


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A board that still has to be saved."""

    draft: BoardDraft
    packed: bytes
    configuration: Configuration
    duration_ms: float


@dataclass(slots=True)
class Scoring:
    """Holds the newest board and the newest complete one; readers need no lock and no SQL.

    A provisional board is shown; decisions use the complete one until its age limit.
    `configuration` gives the settings in force. `whole` is set once a complete board stands that
    was made after the first fill of this process: what decides by itself waits for it. `fence`
    refuses a board of a market that is no longer the present one.
    """

    market: ScoringMarket
    database: Database
    clock: Clock
    monotonic: Monotonic
    new_id: NewId
    configuration: Callable[[], Configuration]
    idempotency: IdempotentExecutor
    fence: Fence = anybody
    reliability: ScoreReliabilityCache = field(default_factory=ScoreReliabilityCache)
    factors: tuple[Factor, ...] = FACTORS
    metrics: Metrics = field(default_factory=Metrics)
    features: FeatureCache = field(default_factory=FeatureCache, init=False)
    whole: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    entries: Entries = field(init=False)
    _latest: Board | None = field(default=None, init=False)
    _complete: Board | None = field(default=None, init=False)
    _running: asyncio.Future[Board] | None = field(default=None, init=False)
    _runs_whole: bool = field(default=False, init=False)  # it began after the first fill
    # Board and settings that own_status_of judged last, and the times between which it is fresh.
    _valid_span: tuple[Board, Configuration, datetime, datetime] | None = field(
        default=None, init=False
    )

    def __post_init__(self) -> None:
        self.entries = Entries(self.factors)

    async def load(self) -> Board | None:
        """Take up the newest stored board, and the newest complete one."""
        async with self.database.read() as unit:
            latest = self._latest = await unit.get(ScoringRepository).latest()
            is_complete = latest is None or not latest.is_provisional
            self._complete = (
                latest if is_complete else await unit.get(ScoringRepository).latest_complete()
            )
        return latest

    async def refresh(self) -> None:
        """Take up a board that another process has made since."""
        async with self.database.read() as unit:
            newest = await unit.get(ScoringRepository).newest_run_id()
            if newest is None or (self._latest is not None and newest == self._latest.run_id):
                return
            board = await unit.get(ScoringRepository).run(newest)
            # A complete board may have come between two looks.
            passed = None
            if board is not None and board.is_provisional:
                passed = await unit.get(ScoringRepository).latest_complete()
        for one in (passed, board):
            if one is not None:
                self._keep_newer(one)

    def latest(self) -> Board | None:
        """The newest board, provisional or not: to be shown."""
        return self._latest

    def in_force(self) -> Board | None:
        """The newest complete board: decisions use it while it is within its age limit."""
        return self._complete

    def is_whole(self) -> bool:
        """Whether a complete board was made after the first fill of this process."""
        return self.whole.is_set()

    def is_provisional(self) -> bool:
        """Whether a market that was filled once gave a provisional board."""
        board = self._latest
        return board is not None and board.is_provisional and self.market.is_filled()

    def board(self) -> Board:
        """The newest board. Raises UnavailableError no_board_yet before the first one."""
        if self._latest is None:
            raise UnavailableError(
                Code.NO_BOARD_YET, "No scores have been calculated yet.", retry_after_s=RETRY_S
            )
        return self._latest

    def status_of(self, board: Board) -> DataStatus:
        """Stale beyond the age limit of scores, and never better than the market is known now.

        A board from before this start is as little known as the market, until that answers.
        """
        return worst((self.own_status_of(board), self.market.status()))

    def best(self, count: int) -> tuple[str, ...]:
        """The best symbols of the newest board."""
        ranked = () if self._latest is None else self._latest.cards  # the scored ones come first
        return tuple(card.symbol for card in ranked[:count] if card.rank is not None)

    def own_status_of(self, board: Board) -> DataStatus:
        """By its age alone, whatever the market is."""
        settings, known = self.configuration(), self._valid_span
        if known is None or known[0] is not board or known[1] is not settings:
            limit = timedelta(seconds=settings.max_age_intervals * settings.intervals.scoring_s)
            known = self._valid_span = (board, settings, *board.valid_span(limit))
        is_young = known[2] <= self.clock() <= known[3]
        return DataStatus.FRESH if is_young else DataStatus.STALE

    async def calculate(self) -> Board:
        """Score the universe as it is known now; a call during a run shares that run's board.

        Not that of a run which began before the first fill was complete, if it is complete now.
        Raises UnavailableError: market_data_stale rather than a board of stale data.
        """
        is_filled = self.market.is_filled()
        while (running := self._running) is not None:
            suffices = self._runs_whole or not is_filled
            await asyncio.wait([running])
            if suffices and not running.cancelled():
                return running.result()
        running = self._running = asyncio.get_running_loop().create_future()
        self._runs_whole = is_filled = self.market.is_filled()
        try:
            prepared = await self._prepare()
            board = await self.database.run(lambda unit: self._save(unit, prepared))
        except ServiceError as e:
            running.set_exception(e)
            running.exception()  # seen: nobody may have waited
            raise
        else:
            self._take(board)
            if is_filled and self._complete is board:
                self.whole.set()
            running.set_result(board)
            return board
        finally:
            self._running = None
            running.cancel()  # does nothing once there is a result; else a waiter takes over

    async def calculate_once(self, command: Command, render: Render[Board]) -> CommandResult[Board]:
        """`calculate` for a caller; the run is shared with everybody, the answer is the key's."""
        return await self.idempotency.share(command, self.calculate, render)

    async def _prepare(self) -> _Prepared:
        configuration = self.configuration()
        begun = self.monotonic()
        spec = self.algorithm_under(configuration)
        known = await earlier(self.database, spec)
        before = self.features.computed, self.features.reused
        inputs = await asyncio.to_thread(_known_inputs, self.market.moment())
        draft, packed = await asyncio.gather(
            asyncio.to_thread(_scored, inputs, spec, self.reliability, known, self.features),
            asyncio.to_thread(_packed, inputs),
        )
        self._count_features(before)
        return _Prepared(draft, packed, configuration, (self.monotonic() - begun) * 1e3)

    def _count_features(self, before: tuple[int, int]) -> None:
        computed, reused = before
        counter = self.metrics.scoring_features
        counter.labels("computed").inc(self.features.computed - computed)
        counter.labels("reused").inc(self.features.reused - reused)

    async def _save(self, unit: UnitOfWork, prepared: _Prepared) -> Board:
        await self.fence(unit)
        at, configuration = self.clock(), prepared.configuration
        made_by = await kept(unit, self.algorithm_under(configuration), at)
        board = prepared.draft.issued(
            run_id=self.new_id(),
            algorithm=made_by.name,
            algorithm_version=made_by.version,
            configuration_version=configuration.version,
            calculated_at=at,
            duration_ms=prepared.duration_ms,
            data_source=self.market.source,
            is_provisional=prepared.draft.is_provisional(configuration.scoring.min_coverage),
        )
        seq = await unit.get(ScoringRepository).save(board, prepared.packed)
        board = replace(board, seq=seq)
        if not board.is_provisional:
            await keep_seen(unit, prepared.draft, made_by, board.as_of.date())
        unit.announce(
            ScoresUpdated(
                board.run_id,
                board.as_of,
                board.universe_size,
                len(board.cards) - board.universe_size,
                board.duration_ms / 1e3,
                board.calculated_at,
                () if board.is_provisional else score_changes(self._complete, board),
                is_provisional=board.is_provisional,
            )
        )
        return board

    def _keep_newer(self, board: Board) -> None:
        if self._latest is None or self._latest.seq <= board.seq:
            self._latest = board
        complete = self._complete
        if not board.is_provisional and (complete is None or complete.seq <= board.seq):
            self._complete = board

    def _take(self, board: Board) -> None:
        self._keep_newer(board)
        _log.info(
            "scored",
            run_id=board.run_id,
            scored=board.universe_size,
            unavailable=len(board.cards) - board.universe_size,
            is_provisional=board.is_provisional,
            duration_ms=round(board.duration_ms, 1),
        )

    def rankings(
        self, order: AlgorithmType, *, eligible_only: bool = False
    ) -> tuple[Board, tuple[Ranked, ...]]:
        """The newest board's cards, best first by composite or by one family."""
        board = self.board()
        return board, ranked(board, order, eligible_only=eligible_only)

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
        """Past complete boards, newest first, each with the card of one symbol alone.

        `before` is (calculated_at, run_id) of the last one of the page before.
        """
        symbol = self.market.resolve(text).symbol
        async with self.database.read() as unit:
            return await unit.get(ScoringRepository).history(symbol, before, limit)

    async def run(self, run_id: str) -> Board:
        """A stored board. Raises NotFoundError."""
        async with self.database.read() as unit:
            board = await unit.get(ScoringRepository).run(run_id)
        if board is None:
            raise NotFoundError(Code.NOT_FOUND, "There is no scoring run of that id.")
        return board

    @property
    def replaying(self) -> Replaying:
        """Runs that are made again."""
        return Replaying(self.database, self.factors)

    def algorithm_under(self, settings: Configuration) -> AlgorithmSpec:
        """The algorithm that these settings describe."""
        return algorithm(settings, self.factors)

    def changes_of(self, wanted: Mapping[str, object], present: Configuration) -> dict[str, Any]:
        """A change of the algorithm as one of the settings; raises ConfigurationRefusedError."""
        return changes_of(wanted, present, self.factors)

    async def algorithms(self) -> tuple[AlgorithmFacts, ...]:
        """What is in force, in its stored version; version 1 unstored before the first run."""
        async with self.database.read() as unit:
            return (await in_force(unit, self.algorithm_under(self.configuration())),)


def _known_inputs(moment: ScoringMoment) -> ScoringInputs:
    """Inputs of one board. Raises UnavailableError for those that are not known well enough."""
    inputs = moment.scoring_inputs()
    refuse_unknown(moment, inputs)
    return inputs


def _packed(inputs: ScoringInputs) -> bytes:
    """Inputs as a replay reads them, and hashes of both panels.

    Runs beside `_scored`, which needs the hashes at its end.
    """
    for panel in (inputs.daily, inputs.hourly):
        panel_hash(panel)
    return pack(inputs)


def _scored(
    inputs: ScoringInputs,
    spec: AlgorithmSpec,
    past: ScoreReliabilityCache,
    known: Mapping[str, HistoricMoments],
    features: FeatureCache,
) -> BoardDraft:
    reliability, noise = past.of(inputs, spec), past.noise(inputs, spec)
    return score(inputs, spec, reliability, known, noise, features)
