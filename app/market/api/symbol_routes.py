"""Routes of symbols and the universe: list, spellings, eligibility rules, contract sync."""

from typing import Annotated, Final, Self

from fastapi import Query
from pydantic import Field
from starlette.responses import Response

from app.foundation.data_status import DataSource
from app.foundation.errors import Code
from app.foundation.http.async_jobs import ACCEPTED, PrefersJobDep, begun
from app.foundation.http.dependencies import (
    CursorsDep,
    Provided,
    UnversionedDep,
)
from app.foundation.http.errors import problems
from app.foundation.http.pagination import after
from app.foundation.http.permissions import requires
from app.foundation.http.request_body import Body
from app.foundation.http.responses import answer, keep, large_json_bytes, sent
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    CursorText,
    Freshness,
    Limit,
    Out,
    QueryFlag,
    RawString,
    SearchText,
    SymbolPath,
)
from app.foundation.idempotency import IdempotentExecutor, StoredResponse
from app.foundation.job_service import JobService
from app.foundation.jobs import JobKind
from app.foundation.principals import Role
from app.market.api.symbol_schemas import (
    EligibilityOut,
    FormatsOut,
    SymbolOut,
    SymbolPage,
    SyncOut,
    ValidatedOut,
    fresh,
)
from app.market.domain.eligibility import Stage
from app.market.domain.models import ContractStatus
from app.market.services.ports import PortfolioMembers
from app.market.services.service import MarketData
from app.market.services.snapshot import MarketMoment
from app.market.services.symbol_queries import (
    SymbolFilter,
    UniverseView,
    select_symbols,
    universe_view,
    validate,
)
from app.market.services.symbol_registry import Registry, SyncSummary
from app.security.domain.audit import SecurityEventKind

router = api_router("symbols", "/symbols")
_SYMBOL: Final = (Code.SYMBOL_UNKNOWN, Code.SYMBOL_AMBIGUOUS, Code.EXCHANGE_UNAVAILABLE)
_EXCHANGE: Final = (
    Code.EXCHANGE_UNAVAILABLE,
    Code.EXCHANGE_RATE_LIMITED,
    Code.EXCHANGE_BANNED,
    Code.EXCHANGE_BAD_RESPONSE,
    Code.EXCHANGE_REDIRECTED,
    Code.EXCHANGE_TIMEOUT,
)
# Longer than any symbol: each text gets its own result, like all others.
Spelling = Annotated[str, Field(max_length=256, examples=["BTC/USDT:USDT"])]


class ValidateIn(Body):
    """Spellings to look up."""

    symbols: Annotated[list[Spelling], Field(min_length=1, max_length=100)] = Field(
        description="Spellings to resolve, 1 to 100."
    )


@router.get("", summary="All symbols", response_model=SymbolPage)
@requires(Role.VIEWER)
async def list_symbols(
    members: Provided[PortfolioMembers],
    market: Provided[MarketData],
    cursors: CursorsDep,
    search: SearchText = None,
    eligible: Annotated[QueryFlag | None, Query(description="Only these, or only others.")] = None,
    status: Annotated[ContractStatus | None, Query(description="Of the contract.")] = None,
    sector: Annotated[
        str | None,
        Query(max_length=64, description="Of the shipped table.", examples=["defi"]),
    ] = None,
    in_portfolio: Annotated[QueryFlag | None, Query(description="Members or others.")] = None,
    limit: Limit = 100,
    cursor: CursorText = None,
) -> Response:
    """By name; `search` is literal text within symbol, contract code or base coin."""
    chosen = SymbolFilter(search, eligible, status, sector, in_portfolio)
    scope = {
        "search": search,
        "eligible": eligible,
        "status": None if status is None else status.value,
        "sector": sector,
        "in_portfolio": in_portfolio,
    }
    start = cursors.decode("symbols", scope, cursor)
    moment, in_use = market.moment(), await members.symbols()

    def build() -> SymbolPage:
        rows = select_symbols(moment, in_use, chosen)
        page, last = after(rows, limit, lambda row: (row.entry.symbol,), start)
        return SymbolPage(
            items=[SymbolOut.of(row) for row in page],
            next_cursor=None if last is None else cursors.encode("symbols", scope, last),
            **fresh(moment, market.source),
        )

    return answer(await large_json_bytes(build))


@router.post(
    "/validate",
    summary="Resolve spellings",
    responses=problems(Code.EXCHANGE_UNAVAILABLE),
)
@requires(Role.VIEWER)
async def validate_symbols(registry: Provided[Registry], body: ValidateIn) -> ValidatedOut:
    """Each spelling by its position: the symbol, or the reason and near matches."""
    return ValidatedOut.of(await validate(registry, body.symbols))


@router.post(
    "/sync",
    summary="Ask the exchange for its contracts now",
    response_model=SyncOut,
    responses={**ACCEPTED, **problems(*_EXCHANGE)},
)
@requires(Role.OPERATOR)
async def sync_symbols(
    market: Provided[MarketData],
    commands: Provided[IdempotentExecutor],
    jobs: Provided[JobService],
    command: UnversionedDep,
    as_job: PrefersJobDep,
    history: Annotated[
        QueryFlag, Query(description="Also missing data that scoring reads; always a job.")
    ] = False,
) -> Response:
    """New, changed and vanished contracts; an implausible list is not accepted at once."""

    def render(summary: SyncSummary) -> StoredResponse:
        return keep(SyncOut.of(market.moment(), market.source, summary))

    if history:
        return await begun(commands, jobs, command, JobKind.BACKFILL)
    if as_job:
        return await begun(commands, jobs, command, JobKind.CONTRACT_SYNC)
    audited = command.audited(SecurityEventKind.MANUAL_RUN, "contract_sync", "contracts")
    return sent(await commands.share(audited, market.sync_contracts, render))


@router.get("/{symbol}/formats", summary="Names at other venues", responses=problems(*_SYMBOL))
@requires(Role.VIEWER)
async def get_symbol_formats(registry: Provided[Registry], symbol: SymbolPath) -> FormatsOut:
    """Standard, KuCoin futures and spot, ccxt, Binance."""
    entry = registry.resolve(symbol)
    return FormatsOut.of(entry.symbol_id, entry.formats)


@router.get(
    "/{symbol}/eligibility", summary="Eligibility of one symbol", responses=problems(*_SYMBOL)
)
@requires(Role.VIEWER)
async def get_symbol_eligibility(
    registry: Provided[Registry], market: Provided[MarketData], symbol: SymbolPath
) -> EligibilityOut:
    """Each rule of the funnel with value, limit and result."""
    entry = registry.resolve(symbol)
    moment = market.moment()
    checks = moment.eligibility(entry)
    return EligibilityOut.of(moment, market.source, entry.symbol, checks)


universe_router = api_router("universe", "/universe")


class StageOut(Out):
    """Rule applied to the symbols that passed the rules before it."""

    name: str = Field(examples=["status"], description="Stable name of the rule.")
    title: str = Field(description="Rule, in words.")
    limit: RawString | str | int | float | bool | None = Field(
        description="Limit of the rule, in the unit of its title; null without one."
    )
    entered: int = Field(description="Number of symbols that the rule was applied to.")
    failed: int = Field(description="Number of symbols that the rule excluded.")
    passed: int = Field(description="Number of symbols left.")

    @classmethod
    def of(cls, stage: Stage) -> Self:
        return cls(
            name=stage.name,
            title=stage.title,
            limit=stage.limit,
            entered=stage.entered,
            failed=stage.failed,
            passed=stage.entered - stage.failed,
        )


class ExclusionOut(Out):
    symbol: str = Field(examples=["USDCUSDT"])
    rule: str = Field(description="First failed rule.", examples=["asset_class"])


class FunnelOut(Freshness):
    """Counts add up: universe = eligible + the failed of all stages."""

    universe: int = Field(description="Number of contracts that the exchange lists.")
    eligible: int = Field(description="Number of eligible symbols.")
    stages: list[StageOut] = Field(description="Rules in order of application.")
    excluded: list[ExclusionOut] = Field(description="By symbol.")
    sectors: dict[str, int] = Field(description="Symbols of the universe per sector.")
    unclassified: int = Field(description="Symbols of no known sector.")

    @classmethod
    def of(cls, moment: MarketMoment, source: DataSource, view: UniverseView) -> Self:
        return cls(
            universe=view.funnel.universe,
            eligible=len(view.funnel.eligible),
            stages=[StageOut.of(stage) for stage in view.funnel.stages],
            excluded=[
                ExclusionOut(symbol=symbol, rule=rule)
                for symbol, rule in view.funnel.excluded.items()
            ],
            sectors=dict(view.sectors),
            unclassified=view.unclassified,
            **fresh(moment, source),
        )


@universe_router.get(
    "/funnel", summary="From all contracts to the eligible ones", response_model=FunnelOut
)
@requires(Role.VIEWER)
async def get_universe_funnel(market: Provided[MarketData]) -> Response:
    """Number of symbols that enter and fail each rule, and the rule that excludes each symbol."""
    moment = market.moment()
    return answer(
        await large_json_bytes(lambda: FunnelOut.of(moment, market.source, universe_view(moment)))
    )
