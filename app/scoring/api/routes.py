"""Routes of scores: calculate, rank, explain, look back, and one symbol with its newest score."""

from typing import Annotated, Final, Self

from fastapi import Path, Query, Request
from pydantic import Field
from starlette.responses import Response

from app.configuration.domain.document import ConfigurationRefusedError
from app.configuration.domain.model import Configuration
from app.configuration.services.current import ConfigurationChanges
from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import Code
from app.foundation.http.async_jobs import ACCEPTED, PrefersJobDep, begun
from app.foundation.http.dependencies import (
    EXPENSIVE,
    CommandDep,
    CursorsDep,
    IdempotencyDep,
    IfNoneMatchDep,
    Provided,
    RequestIdDep,
    by,
    caller,
    holds,
)
from app.foundation.http.errors import problem_response, problems
from app.foundation.http.pagination import Page, cut, moment_and_id
from app.foundation.http.request_body import Body, SymbolText
from app.foundation.http.response_cache import cacheable
from app.foundation.http.responses import answer, etag, keep, large_json_bytes, not_modified, sent
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
)
from app.foundation.idempotency import Command, IdempotentExecutor, StoredResponse
from app.foundation.job_service import JobService
from app.foundation.jobs import JobKind
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
from app.scoring.api.schemas import (
    AlgorithmChangedOut,
    AlgorithmIn,
    AlgorithmName,
    AlgorithmOut,
    CalculatedOut,
    ExplanationOut,
    RankingsOut,
    ReplayOut,
    RunOut,
    ScoreOut,
)
from app.scoring.domain.board import Board
from app.scoring.domain.ranking import AlgorithmType
from app.scoring.services.service import Scoring

MAX_RANKINGS: Final = 1_000
_SYMBOL: Final = (Code.SYMBOL_UNKNOWN, Code.SYMBOL_AMBIGUOUS)
_NO_BOARD: Final = (Code.NO_BOARD_YET, Code.EXCHANGE_UNAVAILABLE)
router = api_router("scoring", "/scoring")


class CalculateIn(Body):
    """Scores are relative to all others: the universe is scored whole, whatever is asked about."""

    symbol: SymbolText | None = None
    symbol_id: SymbolText | None = None


@router.post(
    "/calculate",
    summary="Score the universe now",
    response_model=CalculatedOut,
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
async def calculate(
    registry: Provided[Registry],
    scoring: Provided[Scoring],
    commands: Provided[IdempotentExecutor],
    jobs: Provided[JobService],
    request_id: RequestIdDep,
    idempotency: IdempotencyDep,
    as_job: PrefersJobDep,
    body: CalculateIn | None = None,
) -> Response:
    """Scores every eligible symbol and saves the board; simultaneous calls share one run.

    `symbol` (or `symbol_id`) narrows the answer to one symbol. 503 `market_data_stale` instead of
    scores of stale data.
    """
    text = None if body is None else body.symbol or body.symbol_id
    symbol = None if text is None else registry.resolve(text).symbol

    def render(board: Board) -> StoredResponse:
        status = scoring.status_of(board)
        return keep(CalculatedOut.of(board, status, symbol))

    command = Command(caller(None), request_id, idempotency_key=idempotency)
    if as_job:
        return await begun(commands, jobs, command, JobKind.SCORING)
    return sent(await scoring.calculate_once(command, render))


@router.get(
    "/rankings",
    summary="All scores, best first",
    response_model=RankingsOut,
    responses={304: {"description": "The caller holds this board."}, **problems(Code.NO_BOARD_YET)},
)
@cacheable(depends_on=Input.SCORES, compress=True)
async def rankings(
    scoring: Provided[Scoring],
    held: IfNoneMatchDep,
    algorithm_type: Annotated[
        AlgorithmType, Query(description="By the composite or by one family.")
    ] = AlgorithmType.COMPOSITE,
    limit: Annotated[
        QueryInt, Query(ge=1, le=MAX_RANKINGS, description=f"Lines, 1 to {MAX_RANKINGS}.")
    ] = 100,
    eligible_only: Annotated[
        QueryFlag, Query(description="Leave out symbols that are not eligible.")
    ] = False,
) -> Response:
    """The newest board from memory. ETag is the run; once the board is stale, another one.

    With `Accept-Encoding: gzip` it comes compressed, under the same tag made weak.
    """
    board = scoring.board()
    status = scoring.status_of(board)
    fresh = status is DataStatus.FRESH
    tag = etag(board.run_id if fresh else f"{board.run_id}-{status}")
    if holds(held, tag):
        return not_modified(tag)

    _, lines = scoring.rankings(algorithm_type, eligible_only=eligible_only)
    body = await large_json_bytes(
        lambda: RankingsOut.of(board, status, algorithm_type, lines, limit)
    )
    return answer(body, headers={"ETag": tag})


@router.get(
    "/symbol/{symbol}/scores",
    summary="Scores of one symbol over time",
    responses=problems(*_SYMBOL, *_NO_BOARD),
)
async def symbol_scores(
    scoring: Provided[Scoring],
    registry: Provided[Registry],
    cursors: CursorsDep,
    symbol: SymbolPath,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[ScoreOut]:
    """Newest first; runs are kept for some days."""
    scoring.board()  # before the first one there is nothing to look back on
    name = registry.resolve(symbol).symbol
    chosen = {"symbol": name}
    start = cursors.decode("symbol_scores", chosen, cursor)
    before = moment_and_id(start)
    boards = await scoring.history(name, before, limit + 1)
    page, last = cut(boards, limit, lambda one: (one.calculated_at.isoformat(), one.run_id))
    return Page(
        items=[ScoreOut.of(one, one.cards[0], one.cards[0].rank) for one in page],
        next_cursor=None if last is None else cursors.encode("symbol_scores", chosen, last),
    )


@router.get(
    "/symbol/{symbol}/explain",
    summary="Where a score comes from",
    responses=problems(Code.NOT_FOUND, *_SYMBOL, *_NO_BOARD),
)
@cacheable(depends_on=Input.SCORES | Input.SYMBOLS, compress=True)
async def explain(
    scoring: Provided[Scoring],
    symbol: SymbolPath,
    top: Annotated[
        QueryInt, Query(ge=1, le=MAX_RANKINGS, description="The places that `entry` speaks of.")
    ] = 10,
) -> ExplanationOut:
    """Raw value, z, weight and contribution of each factor; contributions add up to z.

    `entry` says what would bring the symbol among the first `top`: the least change that was found.
    """
    board, card = scoring.explain(symbol)
    entry = await scoring.entries.of(board, card.symbol, top)
    return ExplanationOut.of(board, card, scoring.status_of(board), entry)


@router.get("/algorithms", summary="How scores are made")
async def algorithms(scoring: Provided[Scoring]) -> Page[AlgorithmOut]:
    """The algorithm in force with its version, family weights and factor table."""
    known = await scoring.algorithms()
    return Page(items=[AlgorithmOut.of(one) for one in known], next_cursor=None)


@router.put(
    "/algorithms/{name}",
    summary="Change how scores are made",
    response_model=AlgorithmChangedOut,
    responses=problems(Code.CONSTRAINTS_INFEASIBLE, *CHANGES),
)
async def put_algorithm(
    request: Request,
    scoring: Provided[Scoring],
    configuration: Provided[ConfigurationChanges],
    command: CommandDep,
    name: Annotated[AlgorithmName, Path(description="One of `GET /scoring/algorithms`.")],
    body: AlgorithmIn,
) -> Response:
    """Parameters and weights are a part of the configuration: a change is a new version of it.

    Its first run gives the algorithm its own next version, which every board names. What is left
    out keeps its value; `If-Match` is the version of the configuration.
    """

    def render(settings: Configuration) -> StoredResponse:
        shown = AlgorithmChangedOut.of(name, scoring.algorithm_under(settings), settings)
        return keep(shown, headers={"ETag": etag(settings.version)})

    who, reason = by(command, body.user), body.reason or DEFAULT_REASON
    try:
        present = await configuration.current()
        changes = scoring.changes_of(body.changes(), present)
        done = await configuration.put(changes, reason, who, render)
    except ConfigurationRefusedError as refused:
        places = [(("body", *_asked(one.loc)), one.type) for one in refused.complaints]
        return problem_response(request, 422, refused.code, refused.detail, errors=places)
    return sent(done)


def _asked(loc: str) -> list[str]:
    """Where in the body it was asked for: there the settings of the scoring stand at the top."""
    return loc.removeprefix("scoring.").split(".")


@router.get("/runs/{run_id}", summary="One scoring run", responses=problems(Code.NOT_FOUND))
async def run(scoring: Provided[Scoring], run_id: IdPath) -> RunOut:
    """Circumstances, coverage per factor, spread of the scores and why others have none."""
    board = await scoring.run(run_id)
    return RunOut.of(board, scoring.status_of(board))


@router.post(
    "/runs/{run_id}/replay",
    summary="Recompute a scoring run from what it kept",
    dependencies=EXPENSIVE,
    responses=problems(Code.NOT_FOUND),
)
async def replay(scoring: Provided[Scoring], run_id: IdPath) -> ReplayOut:
    """The same inputs, the same version of the algorithm, byte for byte; nothing is written.

    Inputs are kept for a day. Candles that were revised since are taken as they were.
    """
    return ReplayOut.of(await scoring.replaying.replay(run_id))


symbol_router = api_router("symbols", "/symbols")
_CONTRACT: Final = (Code.SYMBOL_UNKNOWN, Code.SYMBOL_AMBIGUOUS, Code.EXCHANGE_UNAVAILABLE)


class SymbolDetailOut(Freshness):
    """A symbol with its contract, every specification that it had, and its newest score."""

    symbol: SymbolOut
    kind: ContractKind
    settle: str
    listed_at: UtcTime | None
    expires_at: UtcTime | None = Field(description="On a perpetual: delisting is announced.")
    market_stage: str | None
    market_type: str | None
    specification: SpecificationOut
    specification_history: list[SpecificationOut] = Field(description="Oldest first.")
    score: ScoreOut | None = Field(description="Its line on the newest board; null before one.")

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
            score=None if board is None or card is None else ScoreOut.of(board, card, card.rank),
            **fresh(moment, source),
        )


@symbol_router.get("/{symbol}", summary="One symbol", responses=problems(*_CONTRACT))
async def symbol_detail(
    members: Provided[PortfolioMembers],
    registry: Provided[Registry],
    market: Provided[MarketData],
    scoring: Provided[Scoring],
    symbol: SymbolPath,
) -> SymbolDetailOut:
    """Contract, specifications with their validity, newest score, membership."""
    entry = registry.resolve(symbol)
    moment = market.moment()
    row = symbol_row(moment, entry, await members.symbols(), moment.funnel().excluded)
    versions = await specifications(registry, entry)
    return SymbolDetailOut.of(moment, market.source, row, versions, scoring.latest())
