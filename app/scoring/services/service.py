"""Scores the universe, stores and publishes boards, and answers questions on scores."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any, Final

import structlog

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Family
from app.foundation.data_status import DataStatus
from app.foundation.errors import Code, NotFoundError, ServiceError, UnavailableError
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor, Render
from app.foundation.metrics import Metrics
from app.foundation.ports import Clock, Monotonic, NewId
from app.foundation.sql.database import Database, UnitOfWork
from app.market.domain.data_quality import worst
from app.market.domain.panel import ScoringInputs
from app.market.services.feed_leader import Fence, no_fencing
from app.scoring.domain.algorithm import build_algorithm, settings_changes
from app.scoring.domain.board import Board, BoardDraft, Card
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.counterfactual import Counterfactual, find_counterfactual
from app.scoring.domain.engine import FeatureCache, score
from app.scoring.domain.events import ScoresUpdated, score_changes
from app.scoring.domain.factors import FACTORS, Factor
from app.scoring.domain.historical_moments import HistoricMoments, pool_by_name
from app.scoring.domain.input_hash import panel_hash
from app.scoring.domain.ranking import AlgorithmType, RankedCard, rank_cards
from app.scoring.services.algorithm_versions import (
    AlgorithmVersion,
    current_version,
    get_or_create_version,
)
from app.scoring.services.inputs import RETRY_S, ScoringMarket, ScoringMoment, require_known_market
from app.scoring.services.replay import RunReplayer, pack_inputs
from app.scoring.services.score_reliability import ScoreReliabilityCache
from app.scoring.storage.moments import MomentRepository
from app.scoring.storage.runs import ScoringRepository
from app.security.domain.audit import SecurityEventKind

_MAX_CACHED: Final = 1_000  # entries of one board


@dataclass(slots=True)
class CounterfactualCache:
    """Cache of counterfactuals of one board; another board clears it."""

    factors: tuple[Factor, ...]
    _run_id: str = field(default="", init=False)
    _known: dict[tuple[str, int], Counterfactual | None] = field(default_factory=dict, init=False)

    async def get(self, board: Board, symbol: str, top: int) -> Counterfactual | None:
        """Returns `find_counterfactual`, cached; the first call takes up to 0.25 s in a thread."""
        if board.run_id != self._run_id or len(self._known) >= _MAX_CACHED:
            self._run_id, self._known = board.run_id, {}
        known, key = self._known, (symbol, top)
        if key not in known:
            known[key] = await asyncio.to_thread(
                find_counterfactual, board, self.factors, symbol, top
            )
        return known[key]


async def load_historic_moments(
    database: Database, spec: AlgorithmSpec
) -> dict[str, HistoricMoments]:
    """Loads moments by factor, family and `composite`; names without enough values are left out.

    Only moments of the current version count, because other weights give other sums.
    """
    async with database.read() as unit:
        version = await current_version(unit, spec)
        return pool_by_name(await unit.get(MomentRepository).days(version.name, version.version))


async def save_day_moments(
    unit: UnitOfWork, draft: BoardDraft, algorithm: AlgorithmVersion, day: date
) -> None:
    """Stores the moments of a board of UTC day `day`; a board with too few symbols has none."""
    if draft.day_moments:
        await unit.get(MomentRepository).save_day(
            algorithm.name, algorithm.version, day, draft.day_moments
        )


_log = structlog.get_logger("scoring")


@dataclass(frozen=True, slots=True)
class _UnsavedBoard:
    """A computed board before it is saved."""

    draft: BoardDraft
    packed: bytes
    configuration: Configuration
    duration_ms: float
    moment: ScoringMoment


@dataclass(slots=True)
class Scoring:
    """Holds the newest board and the newest complete one in memory; reads need no lock or SQL.

    A provisional board is shown; decisions use the newest complete one until its age limit.
    `configuration` returns the current settings. `complete_board_ready` is set once a complete
    board was computed after this process filled its market data: automatic decisions wait for it.
    `fence` refuses to save a board after another process has taken over the market feed.
    """

    market: ScoringMarket
    database: Database
    clock: Clock
    monotonic: Monotonic
    new_id: NewId
    configuration: Callable[[], Configuration]
    idempotency: IdempotentExecutor
    fence: Fence = no_fencing
    score_reliability: ScoreReliabilityCache = field(default_factory=ScoreReliabilityCache)
    factors: tuple[Factor, ...] = FACTORS
    metrics: Metrics = field(default_factory=Metrics)
    features: FeatureCache = field(default_factory=FeatureCache, init=False)
    complete_board_ready: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    counterfactuals: CounterfactualCache = field(init=False)
    _latest: Board | None = field(default=None, init=False)
    _complete: Board | None = field(default=None, init=False)
    # The complete board that this process computed last, and the market data behind it.
    _scored: tuple[Board, ScoringMoment] | None = field(default=None, init=False, repr=False)
    _previewing: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)
    _running: asyncio.Future[Board] | None = field(default=None, init=False)
    _is_run_filled: bool = field(default=False, init=False)  # the run began with filled market data
    # Board and settings that own_status_of judged last, and the times between which it is fresh.
    _valid_span: tuple[Board, Configuration, datetime, datetime] | None = field(
        default=None, init=False
    )

    def __post_init__(self) -> None:
        self.counterfactuals = CounterfactualCache(self.factors)

    async def load(self) -> Board | None:
        """Loads the newest stored board and the newest complete one."""
        async with self.database.read() as unit:
            latest = self._latest = await unit.get(ScoringRepository).latest()
            is_complete = latest is None or not latest.is_provisional
            self._complete = (
                latest if is_complete else await unit.get(ScoringRepository).latest_complete()
            )
        return latest

    async def refresh(self) -> None:
        """Loads a newer board saved by another process."""
        async with self.database.read() as unit:
            newest = await unit.get(ScoringRepository).newest_run_id()
            if newest is None or (self._latest is not None and newest == self._latest.run_id):
                return
            board = await unit.get(ScoringRepository).run(newest)
            # A complete board may have been saved before this provisional one.
            complete = None
            if board is not None and board.is_provisional:
                complete = await unit.get(ScoringRepository).latest_complete()
        for newer in (complete, board):
            if newer is not None:
                self._set_if_newer(newer)

    def latest(self) -> Board | None:
        """Newest board for display, provisional or not."""
        return self._latest

    def latest_complete(self) -> Board | None:
        """Newest complete board; decisions use it while it is within its age limit."""
        return self._complete

    def has_complete_board(self) -> bool:
        """True once a complete board was computed after this process filled its market data."""
        return self.complete_board_ready.is_set()

    def is_provisional(self) -> bool:
        """True if the newest board is provisional although market data was filled."""
        board = self._latest
        return board is not None and board.is_provisional and self.market.is_filled()

    def board(self) -> Board:
        """Returns the newest board. Raises UnavailableError (no_board_yet) before the first one."""
        if self._latest is None:
            raise UnavailableError(
                Code.NO_BOARD_YET, "No scores have been calculated yet.", retry_after_s=RETRY_S
            )
        return self._latest

    def status_of(self, board: Board) -> DataStatus:
        """Status of a board: the worse of its own age and the current status of the market.

        A board from before this start is as unknown as the market until market data arrives.
        """
        return worst((self.age_status(board), self.market.status()))

    def best(self, count: int) -> tuple[str, ...]:
        """Returns up to `count` best symbols of the newest board."""
        cards = () if self._latest is None else self._latest.cards  # scored cards come first
        return tuple(card.symbol for card in cards[:count] if card.rank is not None)

    def age_status(self, board: Board) -> DataStatus:
        """Returns the status of the board by its age alone, whatever the market."""
        settings, known = self.configuration(), self._valid_span
        if known is None or known[0] is not board or known[1] is not settings:
            limit = timedelta(seconds=settings.max_age_intervals * settings.intervals.scoring_s)
            known = self._valid_span = (board, settings, *board.valid_span(limit))
        is_fresh = known[2] <= self.clock() <= known[3]
        return DataStatus.FRESH if is_fresh else DataStatus.STALE

    async def calculate(self) -> Board:
        """Scores the universe now; a call during a run shares the board of that run.

        A run that began before market data was filled is not shared once it is filled. Raises
        UnavailableError (market_data_stale) if the market data is stale.
        """
        is_filled = self.market.is_filled()
        while (running := self._running) is not None:
            suffices = self._is_run_filled or not is_filled
            await asyncio.wait([running])
            if suffices and not running.cancelled():
                return running.result()
        running = self._running = asyncio.get_running_loop().create_future()
        self._is_run_filled = is_filled = self.market.is_filled()
        try:
            prepared = await self._prepare()
            board = await self.database.run(lambda unit: self._save(unit, prepared))
        except ServiceError as e:
            running.set_exception(e)
            running.exception()  # retrieved, because there may be no waiter
            raise
        else:
            self._publish_board(board)
            if self._complete is board:
                self._scored = board, prepared.moment
                if is_filled:
                    self.complete_board_ready.set()
            running.set_result(board)
            return board
        finally:
            self._running = None
            running.cancel()  # no effect after a result; otherwise a waiter takes over

    async def calculate_once(self, command: Command, render: Render[Board]) -> CommandResult[Board]:
        """Runs `calculate` for a command: the run is shared, the response belongs to the key."""
        audited = command.audited(
            SecurityEventKind.MANUAL_RUN,
            "scoring",
            "universe",
            lambda board: {"run_id": board.run_id},
        )
        return await self.idempotency.share(audited, self.calculate, render)

    async def preview(self, settings: Configuration) -> Board:
        """Returns the board that `settings` would give; stores and publishes nothing.

        It scores the market data of the newest complete board, which this process computed itself;
        else the present data. One preview runs at a time, in a thread. Raises UnavailableError if
        the market data is stale.
        """
        scored, spec = self._scored, self.algorithm_for(settings)
        if scored is not None and scored[0] is self._complete:
            at, moment = scored[0].calculated_at, scored[1]
        else:
            at, moment = self.clock(), self.market.moment()
        async with self.database.read() as unit:
            version = await current_version(unit, spec)
            days = await unit.get(MomentRepository).days(version.name, version.version)

        def work() -> BoardDraft:
            return _score_inputs(
                _load_inputs(moment.under(settings)),
                spec,
                self.score_reliability.fork(),
                pool_by_name(days),
                self.features.fork(),
            )

        async with self._previewing:
            started = self.monotonic()
            draft = await asyncio.to_thread(work)
        return draft.to_board(
            run_id=self.new_id(),
            algorithm=version.name,
            algorithm_version=version.version,
            configuration_version=settings.version,
            calculated_at=at,
            duration_ms=(self.monotonic() - started) * 1e3,
            data_source=self.market.source,
            is_provisional=draft.is_provisional(settings.scoring.min_coverage),
        )

    async def _prepare(self) -> _UnsavedBoard:
        configuration = self.configuration()
        started = self.monotonic()
        spec = self.algorithm_for(configuration)
        moments = await load_historic_moments(self.database, spec)
        before = self.features.computed, self.features.reused
        moment = self.market.moment()
        inputs = await asyncio.to_thread(_load_inputs, moment)
        draft, packed = await asyncio.gather(
            asyncio.to_thread(
                _score_inputs, inputs, spec, self.score_reliability, moments, self.features
            ),
            asyncio.to_thread(_pack_inputs, inputs),
        )
        self._count_features(before)
        duration_ms = (self.monotonic() - started) * 1e3
        return _UnsavedBoard(draft, packed, configuration, duration_ms, moment)

    def _count_features(self, before: tuple[int, int]) -> None:
        computed, reused = before
        counter = self.metrics.scoring_features
        counter.labels("computed").inc(self.features.computed - computed)
        counter.labels("reused").inc(self.features.reused - reused)

    async def _save(self, unit: UnitOfWork, prepared: _UnsavedBoard) -> Board:
        await self.fence(unit)
        at, configuration = self.clock(), prepared.configuration
        algorithm = await get_or_create_version(unit, self.algorithm_for(configuration), at)
        board = prepared.draft.to_board(
            run_id=self.new_id(),
            algorithm=algorithm.name,
            algorithm_version=algorithm.version,
            configuration_version=configuration.version,
            calculated_at=at,
            duration_ms=prepared.duration_ms,
            data_source=self.market.source,
            is_provisional=prepared.draft.is_provisional(configuration.scoring.min_coverage),
        )
        seq = await unit.get(ScoringRepository).save(board, prepared.packed)
        board = replace(board, seq=seq)
        if not board.is_provisional:
            await save_day_moments(unit, prepared.draft, algorithm, board.as_of.date())
        unit.publish_after_commit(
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

    def _set_if_newer(self, board: Board) -> None:
        if self._latest is None or self._latest.seq <= board.seq:
            self._latest = board
        complete = self._complete
        if not board.is_provisional and (complete is None or complete.seq <= board.seq):
            self._complete = board

    def _publish_board(self, board: Board) -> None:
        self._set_if_newer(board)
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
    ) -> tuple[Board, tuple[RankedCard, ...]]:
        """Returns the newest board and its cards, best first by composite or by one family."""
        board = self.board()
        return board, rank_cards(board, order, eligible_only=eligible_only)

    def explain(self, text: str) -> tuple[Board, Card]:
        """Returns the newest board and its card of a symbol in any spelling.

        Raises RefusedError (symbol_unknown, symbol_ambiguous), or NotFoundError if the board has
        no card of the symbol.
        """
        board, symbol = self.board(), self.market.resolve(text).symbol
        card = board.card(symbol)
        if card is None:
            raise NotFoundError(Code.NOT_FOUND, f"The newest board has no card of {symbol}.")
        return board, card

    async def history(
        self, text: str, before: tuple[datetime, str] | None, limit: int
    ) -> tuple[Board, ...]:
        """Returns past complete boards, newest first, each with the card of one symbol alone.

        `before` is (calculated_at, run_id) of the last board of the previous page.
        """
        symbol = self.market.resolve(text).symbol
        async with self.database.read() as unit:
            return await unit.get(ScoringRepository).history(symbol, before, limit)

    async def run(self, run_id: str) -> Board:
        """Returns a stored board. Raises NotFoundError for an unknown run id."""
        async with self.database.read() as unit:
            board = await unit.get(ScoringRepository).run(run_id)
        if board is None:
            raise NotFoundError(Code.NOT_FOUND, "There is no scoring run with this id.")
        return board

    @property
    def replayer(self) -> RunReplayer:
        """Replays stored runs."""
        return RunReplayer(self.database, self.factors)

    def algorithm_for(self, settings: Configuration) -> AlgorithmSpec:
        """Returns the algorithm that `settings` describe."""
        return build_algorithm(settings, self.factors)

    def settings_changes(
        self, wanted: Mapping[str, object], present: Configuration, family: Family | None = None
    ) -> dict[str, Any]:
        """Translates a change of the algorithm; raises ConfigurationRefusedError."""
        return settings_changes(wanted, present, self.factors, family)

    async def algorithms(self) -> tuple[AlgorithmVersion, ...]:
        """Returns the active algorithms; version 1 is not stored before the first run."""
        async with self.database.read() as unit:
            return (await current_version(unit, self.algorithm_for(self.configuration())),)


def _load_inputs(moment: ScoringMoment) -> ScoringInputs:
    """Inputs of one board. Raises UnavailableError if the market is not known well enough."""
    inputs = moment.scoring_inputs()
    require_known_market(moment, inputs)
    return inputs


def _pack_inputs(inputs: ScoringInputs) -> bytes:
    """Inputs packed for a replay.

    Also computes the cached hashes of both panels for `_score_inputs`, which runs in parallel.
    """
    for panel in (inputs.daily, inputs.hourly):
        panel_hash(panel)
    return pack_inputs(inputs)


def _score_inputs(
    inputs: ScoringInputs,
    spec: AlgorithmSpec,
    past: ScoreReliabilityCache,
    moments: Mapping[str, HistoricMoments],
    features: FeatureCache,
) -> BoardDraft:
    reliability, noise = past.reliability(inputs, spec), past.noise(inputs, spec)
    return score(inputs, spec, reliability, moments, noise, features.measure)
