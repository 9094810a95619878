"""Routes of the portfolio: members, statistics, weights, correlation and history."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from fastapi import Query
from pydantic import Field
from starlette.responses import Response

from app.foundation.http.dependencies import EXPENSIVE, CursorsDep, Provided
from app.foundation.http.errors import problems
from app.foundation.http.pagination import Page, cut
from app.foundation.http.permissions import requires
from app.foundation.http.representations import rows_in
from app.foundation.http.response_cache import cacheable
from app.foundation.http.responses import answer, etag, json_bytes
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    NAMES,
    Correlation,
    CursorText,
    Freshness,
    Json,
    Limit,
    Out,
    Percent,
    PercentPoints,
    QueryInt,
    Score,
    Share,
    UtcTime,
    percent,
)
from app.foundation.principals import Role
from app.foundation.state_version import Input
from app.portfolio.api.schemas import TARGET, MemberOut, freshness
from app.portfolio.domain.event_log import EventType, PortfolioEvent
from app.portfolio.services.membership import PortfolioService
from app.portfolio.services.queries import (
    CorrelationReport,
    PortfolioQueries,
    Statistics,
)
from app.portfolio.services.rebalancing import Rebalancing
from app.portfolio.services.views import PortfolioView, WeightLine, WeightsReport

router = api_router("portfolio", "/portfolio")


class PortfolioOut(Freshness):
    """All members in rank order; weights and cash are 100 per cent together."""

    version: int = Field(description="Portfolio version, as in the `ETag`.")
    size: int
    max_size: int
    cash_percentage: Percent
    members: list[MemberOut]

    @classmethod
    def of(cls, view: PortfolioView) -> Self:
        return cls(
            version=view.portfolio.version,
            size=len(view.members),
            max_size=view.max_size,
            cash_percentage=percent(view.portfolio.cash_u),
            members=[MemberOut.of(member) for member in view.members],
            **freshness(view.facts),
        )


class ScoreRange(Out):
    min: Score = Field(description="Lowest composite score of a member.")
    max: Score = Field(description="Highest composite score of a member.")


class PerformanceMetrics(Out):
    """Averages over the members with a known figure."""

    avg_performance_since_inclusion: Share | None = Field(
        description="Mean return since inclusion."
    )
    avg_max_drawdown: Share | None = Field(
        description="Mean largest loss from a peak since inclusion, positive."
    )
    avg_volatility: Share | None = Field(description="Mean annualised volatility since inclusion.")


class StatisticsOut(Freshness):
    total_symbols: int = Field(description="Number of members.")
    max_portfolio_size: int = Field(description="Largest number of members.")
    replacement_candidates: int = Field(
        description="Number of members that are replacement candidates."
    )
    average_score: Score | None = Field(
        description="Mean composite score of the members; null for none."
    )
    score_range: ScoreRange | None = Field(
        description="Lowest and highest composite score; null without members."
    )
    sector_distribution: dict[str, int] = Field(description="Number of members by sector.")
    performance_metrics: PerformanceMetrics = Field(description="Averages over the members.")
    last_updated: UtcTime | None = Field(
        description="UTC time of the newest change of the portfolio; null before the first."
    )

    @classmethod
    def of(cls, shown: Statistics) -> Self:
        spread = shown.score_range
        return cls(
            total_symbols=shown.total_symbols,
            max_portfolio_size=shown.max_portfolio_size,
            replacement_candidates=shown.replacement_candidates,
            average_score=shown.average_score,
            score_range=None if spread is None else ScoreRange(min=spread[0], max=spread[1]),
            sector_distribution=dict(shown.sector_distribution),
            performance_metrics=PerformanceMetrics(
                avg_performance_since_inclusion=shown.average_performance,
                avg_max_drawdown=shown.average_drawdown,
                avg_volatility=shown.average_volatility,
            ),
            last_updated=shown.updated_at,
            **freshness(shown.facts),
        )


class WeightOut(Out):
    symbol: str
    weight_percentage: Percent = Field(description="As last set.")
    current_weight_percentage: Percent = Field(description="After price drift.")
    target_weight_percentage: Percent = Field(description=TARGET)
    drift: PercentPoints = Field(description="Current minus target, percentage points.")
    binding_bound: str | None = Field(description="minimum, maximum or null.")
    role: str | None = Field(description="funded, locked or excluded; null while data is stale.")
    reason: str = Field(description="Bound or rule that set the target.")

    @classmethod
    def of(cls, line: WeightLine) -> Self:
        return cls(
            symbol=line.member.symbol,
            weight_percentage=percent(line.member.weight_u),
            current_weight_percentage=percent(line.marked_u),
            target_weight_percentage=percent(line.target_u),
            drift=percent(line.drift_u),
            binding_bound=line.bound,
            role=None if line.role is None else line.role.value,
            reason=line.reason,
        )


class WeightsOut(Freshness):
    """Recorded weights beside those that a rebalance would set now."""

    version: int = Field(description="Portfolio version.")
    weights: list[WeightOut] = Field(description="Weights of the members by rank.")
    min_weight_percentage: Percent = Field(description="Smallest weight of a member.")
    max_weight_percentage: Percent = Field(description="Largest weight of a member.")
    cash_percentage: Percent
    target_cash_percentage: Percent = Field(
        description="Share that a rebalance would leave in cash."
    )
    flags: list[str] = Field(description="cap_bound_cash, floor_relaxed and the like.")

    @classmethod
    def of(cls, shown: WeightsReport) -> Self:
        return cls(
            version=shown.version,
            weights=[WeightOut.of(line) for line in shown.lines],
            min_weight_percentage=percent(shown.min_u),
            max_weight_percentage=percent(shown.max_u),
            cash_percentage=percent(shown.cash_u),
            target_cash_percentage=percent(shown.target_cash_u),
            flags=list(shown.flags),
            **freshness(shown.facts),
        )


class CorrelationOut(Freshness):
    """Correlations of all pairs of members; a pair without enough history is listed, not zero."""

    days: int = Field(description="Length of the window, in days.")
    basis: str
    correlations: dict[str, Correlation | None] = Field(
        description="On the basis; null for a pair that cannot have one, with the reason.",
        examples=[{"BTCUSDT-ETHUSDT": None, "ETHUSDT-SOLUSDT": 0.12}],
    )
    not_applicable: dict[str, str] = Field(
        examples=[{"BTCUSDT-ETHUSDT": "is_the_market"}],
        description="Reason by pair that has no correlation on this basis.",
    )
    raw_correlations: dict[str, Correlation] = Field(
        description="Of raw returns, including the market factor.",
        examples=[{"BTCUSDT-ETHUSDT": 0.81, "ETHUSDT-SOLUSDT": 0.74}],
    )
    warnings: list[str]
    average_correlation: Correlation | None
    max_correlation: Correlation | None
    average_raw_correlation: Correlation | None
    max_raw_correlation: Correlation | None
    pairs_without_history: list[str] = Field(description="Pairs with too few common returns.")
    symbols: list[str] = Field(description="Members in rank order: rows and columns.")
    matrix: list[list[Correlation | None]] = Field(
        description="For a heat map; null for a pair without enough history or correlation.",
        examples=[[[1.0, 0.12], [0.12, 1.0]]],
    )
    raw_matrix: list[list[Correlation | None]] = Field(
        examples=[[[1.0, 0.74], [0.74, 1.0]]],
        description="Correlations of returns as they are, in the order of `symbols`; null: "
        "unknown.",
    )

    @classmethod
    def of(cls, shown: CorrelationReport) -> Self:
        return cls(
            days=shown.days,
            basis=shown.basis,
            correlations=dict(shown.correlations),
            warnings=list(shown.warnings),
            average_correlation=shown.average,
            max_correlation=shown.highest,
            not_applicable=dict(shown.not_applicable),
            raw_correlations=dict(shown.raw),
            average_raw_correlation=shown.raw_average,
            max_raw_correlation=shown.raw_highest,
            raw_matrix=[list(row) for row in shown.raw_matrix],
            pairs_without_history=list(shown.unknown),
            symbols=list(shown.symbols),
            matrix=[list(row) for row in shown.matrix],
            **freshness(shown.facts),
        )


class CandidatesOut(Freshness):
    candidates: list[MemberOut] = Field(description="The weakest members, weakest first.")


@router.get("", summary="The portfolio", response_model=PortfolioOut)
@rows_in("members")
@cacheable(depends_on=Input.DECISION)
@requires(Role.VIEWER)
async def get_portfolio(portfolio: Provided[PortfolioService]) -> Response:
    """Members with current scores and figures. The ETag is the portfolio's version.

    Use the ETag for `If-Match` of a change. Scores change without it, so there is no 304 here.
    """
    view = await portfolio.view()
    headers = {"ETag": etag(view.portfolio.version)}
    return answer(json_bytes(PortfolioOut.of(view)), headers=headers)


@router.get("/statistics", summary="Averages and distribution")
@cacheable(depends_on=Input.DECISION)
@requires(Role.VIEWER)
async def get_portfolio_statistics(queries: Provided[PortfolioQueries]) -> StatisticsOut:
    """Size, scores, sectors and average figures since inclusion."""
    return StatisticsOut.of(await queries.statistics())


@router.get("/weights", summary="Weights, targets and drift", response_model=WeightsOut)
@rows_in("weights")
@cacheable(depends_on=Input.DECISION)
@requires(Role.VIEWER)
async def get_portfolio_weights(rebalancing: Provided[Rebalancing]) -> WeightsOut:
    """Weight of each member, its current target and the bound that limits it."""
    return WeightsOut.of(await rebalancing.weights())


@router.get("/correlation", summary="Correlation of the members", dependencies=EXPENSIVE)
@requires(Role.VIEWER)
async def get_portfolio_correlation(
    queries: Provided[PortfolioQueries],
    days: Annotated[QueryInt, Query(ge=2, le=365, description="Number of daily returns.")] = 30,
) -> CorrelationOut:
    """Pairwise, on the configured basis (residual: after removing the market factor)."""
    return CorrelationOut.of(await queries.correlation(days))


@router.get("/replacement-candidates", summary="The weakest members")
@cacheable(depends_on=Input.DECISION)
@requires(Role.VIEWER)
async def list_replacement_candidates(queries: Provided[PortfolioQueries]) -> CandidatesOut:
    """Lowest score first, priority 1 to n. Listed members are still traded."""
    found, facts = await queries.replacement_candidates()
    return CandidatesOut(candidates=[MemberOut.of(member) for member in found], **freshness(facts))


class EventOut(Out):
    """One event of the chain; `details` holds weights as integer micro-percent."""

    sequence: int = Field(description="Number within the history, from 1.")
    action: EventType = Field(description="Kind of the event.")
    symbol: str | None
    other_symbol: str | None = Field(description="The replaced symbol.")
    reason: str
    score: Score | None = Field(description="Composite score at the event; null without a symbol.")
    confidence: Score | None
    actor: str
    request_id: str
    occurred_at: UtcTime
    portfolio_version: int = Field(description="Portfolio version after the event.")
    configuration_version: int
    input_hash: str | None
    code_version: str = Field(description="Version of the software.")
    details: Json
    prev_hash: str = Field(description="SHA-256 of the entry before, in hexadecimal.")
    hash: str

    @classmethod
    def of(cls, event: PortfolioEvent) -> Self:
        return cls(
            sequence=event.seq,
            action=event.type,
            symbol=event.symbol,
            other_symbol=event.other_symbol,
            reason=event.reason,
            score=_number(event.payload, "score"),
            confidence=_number(event.payload, "confidence"),
            actor=event.actor,
            request_id=event.request_id,
            occurred_at=event.occurred_at,
            portfolio_version=event.payload["version"],
            configuration_version=event.configuration_version,
            input_hash=event.input_hash,
            code_version=event.code_version,
            details=dict(event.payload),
            prev_hash=event.prev_hash,
            hash=event.hash,
        )


@router.get(
    "/history",
    summary="The append-only history",
    responses=problems(*NAMES),
)
@cacheable(depends_on=Input.PORTFOLIO | Input.SYMBOLS)
@requires(Role.VIEWER)
async def list_portfolio_history(
    queries: Provided[PortfolioQueries],
    cursors: CursorsDep,
    limit: Limit = 50,
    cursor: CursorText = None,
    symbol: Annotated[
        str | None, Query(max_length=64, description="In any spelling, or the UUID.")
    ] = None,
    action: Annotated[EventType | None, Query(description="One kind of event.")] = None,
) -> Page[EventOut]:
    """Newest first, with actor, time, reason and inputs, chained by hashes."""
    chosen = {"symbol": symbol, "action": None if action is None else action.value}
    start = cursors.decode("portfolio_history", chosen, cursor)
    before = None if start is None else int(start[0])
    events = await queries.history(before, limit + 1, symbol, action)
    page, last = cut(events, limit, lambda event: (event.seq,))
    return Page(
        items=[EventOut.of(event) for event in page],
        next_cursor=None if last is None else cursors.encode("portfolio_history", chosen, last),
    )


def _number(payload: Mapping[str, Any], name: str) -> float | None:
    text = payload.get(name)
    return None if text is None else float(text)
