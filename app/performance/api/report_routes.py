"""Routes of the report (JSON or HTML page) and of the replacement ledger."""

import asyncio
from typing import Annotated, Literal, Self

from fastapi import Header, Query
from pydantic import Field
from starlette.responses import HTMLResponse, Response

from app.foundation.http.async_jobs import ACCEPTED, PrefersJobDep, begun
from app.foundation.http.dependencies import EXPENSIVE, Provided, RequestIdDep
from app.foundation.http.pagination import From, To, named_period, require_order
from app.foundation.http.permissions import ActorDep, requires
from app.foundation.http.responses import answer, json_bytes
from app.foundation.http.route_limits import limited_by
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import Freshness, Out, Raw, Share, UtcTime, finite
from app.foundation.idempotency import Command, IdempotentExecutor
from app.foundation.job_service import JobService
from app.foundation.jobs import Document, JobKind
from app.foundation.principals import Role, RouteLimit
from app.performance.api.report_page import render, report_page
from app.performance.api.schemas import (
    CUSTOM_FIGURES,
    LATE_MARKS,
    ActiveOut,
    DayOut,
    HypotheticalOut,
    LateMarkOut,
    LedgerOut,
    PairsOut,
    PerformanceFiguresOut,
    PositionOut,
    TradeOut,
    figures_fields,
)
from app.performance.domain.replacement_outcomes import (
    ReplacementLedger,
    ReplacementOutcome,
    ReturnPair,
)
from app.performance.domain.tear_sheet import MonthReturn
from app.performance.services.report import ReplacementReport, Report, ReportService
from app.portfolio.api.schemas import freshness

router = api_router("portfolio", "/portfolio")
# The page has inline style and loads nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


class ReturnPairOut(Out):
    at: UtcTime = Field(description="UTC time of the returns.")
    old_return: Share | None
    new_return: Share | None

    @classmethod
    def of(cls, one: ReturnPair) -> Self:
        return cls(at=one.at, old_return=finite(one.old), new_return=finite(one.new))


class ReplacementOutcomeOut(Out):
    """Replacement with the returns since then, before and after costs."""

    at: UtcTime = Field(description="UTC time of the replacement.")
    old_symbol: str
    new_symbol: str
    old_return: Share | None
    new_return: Share | None
    difference: Share | None = Field(description="New minus old, before costs.")
    fees: Share | None = Field(description="Taker fees of both legs.")
    spread: Share | None = Field(description="Half the spread of both legs at the replacement.")
    funding: Share | None = Field(
        description="Funding of the new member minus that of the old one since."
    )
    net: Share | None = Field(description="The difference less fees, spread and funding.")
    net_reason: str | None = Field(description="Reason for an unknown net figure.")
    outperformed: bool | None = Field(description="Whether the net figure is above zero.")
    improvement_z: float | None = Field(description="At the replacement; null for a requested one.")
    threshold_z: float | None = Field(description="D that the improvement had to exceed.")
    ended_at: UtcTime | None = Field(description="Removal of the new member.")
    delisted: list[str] = Field(
        description="Delisted ones of the two: their last known price is used from then on."
    )
    reason: str | None = Field(description="Reason for unknown returns.")
    path: list[ReturnPairOut] = Field(description="Returns over the time since then.")

    @classmethod
    def of(cls, one: ReplacementOutcome) -> Self:
        return cls(
            at=one.at,
            old_symbol=one.old,
            new_symbol=one.new,
            old_return=finite(one.old_return),
            new_return=finite(one.new_return),
            difference=finite(one.difference),
            fees=finite(one.fees),
            spread=finite(one.spread),
            funding=finite(one.funding),
            net=finite(one.net),
            net_reason=one.net_reason,
            outperformed=one.outperformed,
            improvement_z=finite(one.improvement_z),
            threshold_z=finite(one.threshold_z),
            ended_at=one.ended_at,
            delisted=list(one.delisted),
            reason=one.reason,
            path=[ReturnPairOut.of(moment) for moment in one.path],
        )


class DrawdownOut(Out):
    """Fall of the equity from a peak until the peak is reached again."""

    peak_at: UtcTime = Field(description="Time of the peak.")
    valley_at: UtcTime = Field(description="Time of the lowest value.")
    recovered_at: UtcTime | None = Field(description="Null until the peak is reached again.")
    depth: Share = Field(description="From peak to valley, positive.")


class MonthReturnOut(Out):
    """Return of one calendar month; all known ones compound to the whole growth."""

    month: str = Field(examples=["2026-03"], description="Year and month.")
    value: Share | None = Field(description="Simple return; null without a known value.")

    @classmethod
    def of(cls, one: MonthReturn) -> Self:
        return cls(month=f"{one.year:04}-{one.month:02}", value=finite(one.value))


class ReportOut(Freshness):
    created_at: UtcTime
    version: int = Field(description="Portfolio version of the report.")
    equity: list[DayOut] = Field(description="Equity by day.")
    figures: PerformanceFiguresOut = Field(
        description="Figures of the positions held in the period."
    )
    hypothetical: HypotheticalOut = Field(description="Today's weights over the past.")
    correlation: PairsOut = Field(description="Correlations of the members.")
    positions: list[PositionOut] = Field(description="Positions by rank.")
    attribution: list[LedgerOut] = Field(description="Attribution of the change by ledger.")
    active: ActiveOut = Field(description="Active return against the equal-weighted universe.")
    replacements: list[ReplacementOutcomeOut] = Field(description="Replacements of the period.")
    trades: list[TradeOut] = Field(description="Last 50 trades of the period.")
    drawdowns: list[DrawdownOut] = Field(
        description="Falls from a peak until it is reached again, the deepest first."
    )
    monthly_returns: list[MonthReturnOut] = Field(
        description="Returns of calendar months (UTC); the first and the last may be partial."
    )
    late_marks: list[LateMarkOut] = Field(description=LATE_MARKS)
    custom_figures: dict[str, Raw | None] = Field(description=CUSTOM_FIGURES)

    @classmethod
    def of(cls, made: Report) -> Self:
        return cls(
            created_at=made.created_at,
            version=made.version,
            equity=[DayOut.of(day) for day in made.days],
            figures=PerformanceFiguresOut(**figures_fields(made.figures)),
            hypothetical=HypotheticalOut.of(made.hypothetical),
            correlation=PairsOut.of(made.correlation),
            positions=[PositionOut.of(one) for one in made.positions],
            attribution=[LedgerOut.of(one) for one in made.ledgers],
            active=ActiveOut.of(made.active),
            replacements=[ReplacementOutcomeOut.of(one) for one in made.replacements],
            trades=[TradeOut.of(one) for one in made.trades],
            drawdowns=[DrawdownOut.model_validate(one) for one in made.drawdowns],
            monthly_returns=[MonthReturnOut.of(one) for one in made.months],
            late_marks=[LateMarkOut.of(one) for one in made.late_marks],
            custom_figures=dict(made.custom),
            **freshness(made.facts),
        )


class LedgerTotalOut(Out):
    """Sum of the known net figures as fractions of a slot; replacements count as independent."""

    net: Share | None = Field(description="Null where no net figure is known.")
    low: Share | None = Field(
        description="Lower bound of the 95 % interval; null below two figures."
    )
    high: Share | None = Field(description="Upper end of the 95 % interval of the sum.")
    counted: int = Field(description="Number of replacements with a net figure.")
    unknown: int = Field(description="Replacements without a net figure.")
    reason: str | None = Field(description="Replacements missing from the total.")

    @classmethod
    def of(cls, made: ReplacementLedger) -> Self:
        return cls(
            net=finite(made.total),
            low=finite(made.low),
            high=finite(made.high),
            counted=made.counted,
            unknown=made.unknown,
            reason=made.reason,
        )


class ReplacementLedgerOut(Freshness):
    version: int = Field(description="Of the portfolio.")
    total: LedgerTotalOut = Field(description="Sum over the known replacements.")
    replacements: list[ReplacementOutcomeOut] = Field(description="All replacements, oldest first.")

    @classmethod
    def of(cls, made: ReplacementReport) -> Self:
        return cls(
            version=made.version,
            total=LedgerTotalOut.of(made.ledger),
            replacements=[ReplacementOutcomeOut.of(one) for one in made.ledger.lines],
            **freshness(made.facts),
        )


@router.get("/replacements/ledger", summary="Replacement ledger", dependencies=EXPENSIVE)
@requires(Role.VIEWER)
async def get_replacement_ledger(reporting: Provided[ReportService]) -> ReplacementLedgerOut:
    """Gain of each replacement net of fees, spread and funding, and the total.

    A replacement with unknown costs has no net figure and is not in the total.
    """
    return ReplacementLedgerOut.of(await reporting.replacements())


@router.get(
    "/report",
    summary="The report",
    response_model=ReportOut,
    dependencies=EXPENSIVE,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}, **ACCEPTED},
)
@requires(Role.VIEWER)
@limited_by(RouteLimit.HEAVY)
async def get_portfolio_report(
    reporting: Provided[ReportService],
    commands: Provided[IdempotentExecutor],
    jobs: Provided[JobService],
    actor: ActorDep,
    request_id: RequestIdDep,
    as_job: PrefersJobDep,
    since: From = None,
    to: To = None,
    shape: Annotated[
        Literal["json", "html"] | None,
        Query(alias="format", description="Overrides the Accept header."),
    ] = None,
    accept: Annotated[str, Header(description="text/html for the page.")] = "",
) -> Response:
    """Equity with daily P&L, positions, attribution, trades and replacement outcomes.

    `figures` are those of the positions held. `hypothetical` applies today's members and weights
    to the past: nothing of it was earned.

    The page is self-contained: figures, tables and plots. The JSON can be the result of a job.
    """
    require_order(since, to)
    wants_page = shape == "html" or (shape is None and _prefers_page(accept))
    if as_job and not wants_page:
        command = Command(actor, request_id)
        return await begun(commands, jobs, command, JobKind.REPORT, named_period(since, to))
    made = await reporting.report(since, to)
    if wants_page:
        page = await asyncio.to_thread(render, report_page(made))
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})
    return answer(json_bytes(ReportOut.of(made)))


def report_document(made: Report) -> Document:
    """JSON of the response, as the result of a job."""
    document: Document = ReportOut.of(made).model_dump(mode="json")
    return document


def _prefers_page(accept: str) -> bool:
    """True if the first supported media type of the Accept header is HTML."""
    kinds = [part.split(";")[0].strip().lower() for part in accept.split(",")]
    ours = [kind for kind in kinds if kind in {"text/html", "application/json", "*/*"}]
    return bool(ours) and ours[0] == "text/html"
