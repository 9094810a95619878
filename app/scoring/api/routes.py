"""Routes of scores: calculation, ranking, explanation, history and details of one symbol."""

from typing import Annotated, Final, Self

from fastapi import Path, Query, Request
from pydantic import Field
from starlette.responses import Response

from app.configuration.domain.document import ConfigurationRefusedError
from app.configuration.domain.model import Configuration
from app.configuration.services.current import ConfigurationChanges
from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import Code, FieldFault
from app.foundation.http.async_jobs import ACCEPTED, PrefersJobDep, begun
from app.foundation.http.dependencies import (
    EXPENSIVE,
    CommandDep,
    CursorsDep,
    IfNoneMatchDep,
    Provided,
    UnversionedDep,
    by,
    holds,
)
from app.foundation.http.errors import load_request_shape, problem_response, problems
from app.foundation.http.pagination import Page, cut, moment_and_id
from app.foundation.http.permissions import requires
from app.foundation.http.request_body import Body, SymbolText
from app.foundation.http.response_cache import cacheable
from app.foundation.http.responses import answer, etag, keep, large_json_bytes, not_modified, sent
from app.foundation.http.route_limits import limited_by
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    CHANGES,
    DEFAULT_REASON,
    CursorText,
    Freshness,
    IdPath,
    Limit,
    QueryFlag,
    QueryInt,
    SymbolPath,
    UtcTime,
    example,
)
from app.foundation.idempotency import IdempotentExecutor, StoredResponse
from app.foundation.job_service import JobService
from app.foundation.jobs import JobKind
from app.foundation.principals import Role, RouteLimit
from app.foundation.state_version import Input
from app.market.api.symbol_schemas import SpecificationOut, SymbolOut, fresh, instant_of
from app.market.domain.models import Contract, ContractKind
from app.market.services.ports import PortfolioMembers
from app.market.services.service import MarketData
from app.market.services.snapshot import MarketMoment
from app.market.services.symbol_queries import (
    SpecificationVersion,
    SymbolRow,
    specifications,
    symbol_row,
)
from app.market.services.symbol_registry import Registry
from app.scoring.api.run_schemas import (
    AlgorithmChangedOut,
    AlgorithmIn,
    AlgorithmName,
    AlgorithmOut,
    CalculationOut,
    ReplayOut,
    RunOut,
)
from app.scoring.api.schemas import ExplanationOut, RankingsOut, ScoreOut
from app.scoring.domain.board import Board
from app.scoring.domain.ranking import AlgorithmType
from app.scoring.services.service import Scoring

MAX_RANKINGS: Final = 1_000
_SYMBOL: Final = (Code.SYMBOL_UNKNOWN, Code.SYMBOL_AMBIGUOUS)
_NO_BOARD: Final = (Code.NO_BOARD_YET, Code.EXCHANGE_UNAVAILABLE)
router = api_router("scoring", "/scoring")


class CalculateIn(Body):
    """Symbol to return; the run always scores the whole universe, because scores are relative."""

    model_config = example({"symbol": "BTCUSDT"})

    symbol: SymbolText | None = Field(
        None, description="In any spelling, or the UUID; omitted: the whole universe."
    )
    symbol_id: SymbolText | None = Field(None, description="Accepted in place of `symbol`.")


@router.post(
    "/calculate",
    summary="Score the universe now",
    response_model=CalculationOut,
    responses={
        **ACCEPTED,
        **problems(
            *_SYMBOL,
            Code.MARKET_DATA_STALE,
            Code.CLOCK_UNSAFE,
            Code.ABORTED_INCONSISTENT,
            Code.EXCHANGE_UNAVAILABLE,
            Code.DATABASE_CONTENTION,
            Code.IDEMPOTENCY_IN_PROGRESS,
            Code.IDEMPOTENCY_KEY_REUSED,
        ),
    },
)
@requires(Role.TRADER)
@limited_by(RouteLimit.HEAVY)
async def calculate_scores(
    registry: Provided[Registry],
    scoring: Provided[Scoring],
    commands: Provided[IdempotentExecutor],
    jobs: Provided[JobService],
    command: UnversionedDep,
    as_job: PrefersJobDep,
    body: CalculateIn | None = None,
) -> Response:
    """Scores every eligible symbol and saves the board; simultaneous calls share one run.

    `symbol` (or `symbol_id`) narrows the response to one symbol. Stale market data is answered
    with 503 `market_data_stale`; no board is saved.
    """
    text = None if body is None else body.symbol or body.symbol_id
    symbol = None if text is None else registry.resolve(text)

    def render(board: Board) -> StoredResponse:
        status = scoring.status_of(board)
        return keep(CalculationOut.of(board, status, symbol))

    if as_job:
        return await begun(commands, jobs, command, JobKind.SCORING)
    return sent(await scoring.calculate_once(command, render))


@router.get(
    "/rankings",
    summary="All scores, best first",
    response_model=RankingsOut,
    responses={
        304: {"description": "The client has this board already."},
        **problems(Code.NO_BOARD_YET),
    },
)
@cacheable(depends_on=Input.SCORES | Input.SYMBOLS, compress=True)
@requires(Role.VIEWER)
async def list_rankings(
    scoring: Provided[Scoring],
    registry: Provided[Registry],
    held: IfNoneMatchDep,
    algorithm_type: Annotated[
        AlgorithmType, Query(description="Score to rank by: the composite or one family.")
    ] = AlgorithmType.COMPOSITE,
    limit: Annotated[
        QueryInt, Query(ge=1, le=MAX_RANKINGS, description=f"Lines, 1 to {MAX_RANKINGS}.")
    ] = 100,
    eligible_only: Annotated[
        QueryFlag, Query(description="Leave out symbols that are not eligible.")
    ] = False,
) -> Response:
    """Returns the newest board from memory.

    The ETag is the run id; it changes once the board is stale. With `Accept-Encoding: gzip` the
    response is compressed, and its tag is weak.
    """
    board = scoring.board()
    status = scoring.status_of(board)
    fresh = status is DataStatus.FRESH
    tag = etag(board.run_id if fresh else f"{board.run_id}-{status}")
    if holds(held, tag):
        return not_modified(tag)

    _, lines = scoring.rankings(algorithm_type, eligible_only=eligible_only)
    body = await large_json_bytes(
        lambda: RankingsOut.of(board, status, algorithm_type, lines, limit, registry.id_of)
    )
    return answer(body, headers={"ETag": tag})


@router.get(
    "/symbol/{symbol}/scores",
    summary="Scores of one symbol over time",
    responses=problems(*_SYMBOL, *_NO_BOARD),
)
@requires(Role.VIEWER)
async def list_symbol_scores(
    scoring: Provided[Scoring],
    registry: Provided[Registry],
    cursors: CursorsDep,
    symbol: SymbolPath,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[ScoreOut]:
    """Scores on stored complete boards, newest first."""
    scoring.board()  # raises no_board_yet before the first run
    entry = registry.resolve(symbol)
    name = entry.symbol
    chosen = {"symbol": name}
    start = cursors.decode("symbol_scores", chosen, cursor)
    before = moment_and_id(start)
    boards = await scoring.history(name, before, limit + 1)
    page, last = cut(boards, limit, lambda one: (one.calculated_at.isoformat(), one.run_id))
    return Page(
        items=[ScoreOut.of(one, one.cards[0], one.cards[0].rank, entry.symbol_id) for one in page],
        next_cursor=None if last is None else cursors.encode("symbol_scores", chosen, last),
    )


@router.get(
    "/symbol/{symbol}/explain",
    summary="Explanation of a score",
    responses=problems(Code.NOT_FOUND, *_SYMBOL, *_NO_BOARD),
)
@cacheable(depends_on=Input.SCORES | Input.SYMBOLS, compress=True)
@requires(Role.VIEWER)
async def explain_score(
    scoring: Provided[Scoring],
    registry: Provided[Registry],
    symbol: SymbolPath,
    top: Annotated[
        QueryInt, Query(ge=1, le=MAX_RANKINGS, description="Rank that `counterfactual` aims at.")
    ] = 10,
) -> ExplanationOut:
    """Raw value, z, weight and contribution of each factor; contributions add up to z.

    `counterfactual` is the smallest change found that would bring the symbol among the first
    `top` ranks.
    """
    board, card = scoring.explain(symbol)
    counterfactual = await scoring.counterfactuals.get(board, card.symbol, top)
    symbol_id = registry.id_of(card.symbol)
    return ExplanationOut.of(board, card, scoring.status_of(board), counterfactual, symbol_id)


@router.get("/algorithms", summary="Scoring algorithms")
@requires(Role.VIEWER)
async def list_scoring_algorithms(scoring: Provided[Scoring]) -> Page[AlgorithmOut]:
    """Returns composite and families with version, family weights and factor table."""
    known = await scoring.algorithms()
    items = [AlgorithmOut.of(one, kind) for one in known for kind in AlgorithmType]
    return Page(items=items, next_cursor=None)


@router.put(
    "/algorithms/{name}",
    summary="Change a scoring algorithm",
    response_model=AlgorithmChangedOut,
    responses=problems(Code.CONSTRAINTS_INFEASIBLE, *CHANGES),
)
@requires(Role.ADMIN)
async def update_scoring_algorithm(
    request: Request,
    scoring: Provided[Scoring],
    configuration: Provided[ConfigurationChanges],
    command: CommandDep,
    name: Annotated[AlgorithmName, Path(description="One of `GET /scoring/algorithms`.")],
    body: AlgorithmIn,
) -> Response:
    """Changes parameters and weights, which creates a new version of the configuration.

    A family takes the weights of its own factors; the composite takes all parameters.

    The first run with it gives the algorithm its next version, which every board names. Omitted
    fields keep their values; `If-Match` is the version of the configuration.
    """

    def render(settings: Configuration) -> StoredResponse:
        changed = AlgorithmChangedOut.of(name, scoring.algorithm_for(settings), settings)
        return keep(changed, headers={"ETag": etag(settings.version)})

    author, reason = by(command, body.user), body.reason or DEFAULT_REASON
    try:
        present = await configuration.current()
        changes = scoring.settings_changes(body.changes(), present, name.family)
        result = await configuration.put(changes, reason, author, render)
    except ConfigurationRefusedError as refused:
        places = [
            FieldFault(("body", *_body_location(one.loc)), one.type, one.message)
            for one in refused.complaints
        ]
        await load_request_shape(request)
        return problem_response(request, 422, refused.code, refused.detail, errors=places)
    return sent(result)


def _body_location(loc: str) -> list[str]:
    """Location in the request body, which has the settings of section `scoring` at its top."""
    return loc.removeprefix("scoring.").split(".")


@router.get("/runs/{run_id}", summary="One scoring run", responses=problems(Code.NOT_FOUND))
@requires(Role.VIEWER)
async def get_scoring_run(scoring: Provided[Scoring], run_id: IdPath) -> RunOut:
    """Returns metadata, coverage per factor, score distribution and reasons for missing scores."""
    board = await scoring.run(run_id)
    return RunOut.of(board, scoring.status_of(board))


@router.post(
    "/runs/{run_id}/replay",
    summary="Replay a scoring run from its stored inputs",
    dependencies=EXPENSIVE,
    responses=problems(Code.NOT_FOUND),
)
@requires(Role.TRADER)
@limited_by(RouteLimit.HEAVY)
async def replay_scoring_run(scoring: Provided[Scoring], run_id: IdPath) -> ReplayOut:
    """Recomputes a run from its inputs and its algorithm version; nothing is written.

    Inputs are stored for `retention.board_inputs_days`. Candles revised since the run are
    restored to their values at that time.
    """
    return ReplayOut.of(await scoring.replayer.replay(run_id))


symbol_router = api_router("symbols", "/symbols")
_CONTRACT: Final = (Code.SYMBOL_UNKNOWN, Code.SYMBOL_AMBIGUOUS, Code.EXCHANGE_UNAVAILABLE)


class SymbolDetailOut(Freshness):
    """A symbol with its contract, the history of its specification and its newest score."""

    symbol: SymbolOut = Field(description="Line of the symbol, as in the list.")
    kind: ContractKind = Field(description="Kind of the contract.")
    settle: str = Field(description="Settlement currency.")
    listed_at: UtcTime | None = Field(description="UTC time of the listing; null if unknown.")
    expires_at: UtcTime | None = Field(
        description="Set on a perpetual whose delisting is announced."
    )
    market_stage: str | None = Field(
        description="Stage of the market at KuCoin; null if not stated."
    )
    market_type: str | None = Field(description="Type of the market at KuCoin; null if not stated.")
    specification: SpecificationOut = Field(description="Current specification of the contract.")
    specification_history: list[SpecificationOut] = Field(description="Oldest first.")
    score: ScoreOut | None = Field(description="Score on the newest board; null without a board.")

    @classmethod
    def of(
        cls,
        moment: MarketMoment,
        source: DataSource,
        row: SymbolRow,
        versions: tuple[SpecificationVersion, ...],
        board: Board | None,
    ) -> Self:
        contract: Contract = row.entry.contract
        history = [SpecificationOut.of(one) for one in versions]
        card = None if board is None else board.card(row.entry.symbol)
        return cls(
            symbol=SymbolOut.of(row),
            kind=contract.kind,
            settle=contract.settle,
            listed_at=instant_of(contract.listed_ms),
            expires_at=instant_of(contract.expires_ms),
            market_stage=contract.market_stage,
            market_type=contract.market_type,
            specification=history[-1],
            specification_history=history,
            score=None
            if board is None or card is None
            else ScoreOut.of(board, card, card.rank, row.entry.symbol_id),
            **fresh(moment, source),
        )


@symbol_router.get("/{symbol}", summary="One symbol", responses=problems(*_CONTRACT))
@requires(Role.VIEWER)
async def get_symbol(
    members: Provided[PortfolioMembers],
    registry: Provided[Registry],
    market: Provided[MarketData],
    scoring: Provided[Scoring],
    symbol: SymbolPath,
) -> SymbolDetailOut:
    """Returns contract, specifications with their validity, newest score and membership."""
    entry = registry.resolve(symbol)
    moment = market.moment()
    row = symbol_row(moment, entry, await members.symbols(), moment.funnel().excluded)
    versions = await specifications(registry, entry)
    return SymbolDetailOut.of(moment, market.source, row, versions, scoring.latest())
