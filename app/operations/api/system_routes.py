"""Routes of the service itself: probes, health, status, integrity and sample data."""

from enum import StrEnum
from typing import Annotated, Final, Self

from fastapi import Depends, Request
from pydantic import Field
from starlette.responses import Response

from app.foundation.errors import Code, UnavailableError
from app.foundation.health import Mode, PoolFacts
from app.foundation.http.async_jobs import ACCEPTED, PrefersJobDep, begun
from app.foundation.http.dependencies import (
    CHECK,
    USE_CASES,
    Provided,
    UnversionedDep,
    UseCases,
)
from app.foundation.http.errors import RequestError, problems
from app.foundation.http.permissions import PrincipalDep, access_of, public, requires
from app.foundation.http.responses import keep, sent
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    Freshness,
    IndexUnits,
    Out,
    Percent,
    PercentPoints,
    Ratio,
    Score,
    Seconds,
    Share,
    UtcTime,
    finite,
    percent,
)
from app.foundation.idempotency import IdempotentExecutor, StoredResponse
from app.foundation.job_service import JobService
from app.foundation.jobs import JobKind
from app.foundation.metrics import CONTENT_TYPE, Metrics
from app.foundation.principals import Access, Permission, Role, Scope
from app.market.services.health_facts import MarketFacts, StreamReport
from app.operations.services.debug_report import DebugReport, DebugReporter
from app.operations.services.health import StatusService
from app.operations.services.health_checks import (
    ComponentHealth,
    ComponentState,
    Health,
    ServiceStatus,
)
from app.operations.services.integrity import Integrity, IntegrityService
from app.operations.services.sample_data import SampleData, SampleDataResult
from app.operations.services.service_figures import ServiceFigures
from app.portfolio.api.portfolio_routes import PortfolioOut
from app.security.api.authentication import is_local_caller
from app.security.domain.audit import SecurityEventKind
from app.signals.api.schemas import SignalQueueOut

integrity_router = api_router("portfolio", "/portfolio")


class InvariantOut(Out):
    name: str = Field(examples=["sum_of_weights"], description="Name of the invariant.")
    ok: bool = Field(description="True if the invariant holds.")
    detail: str | None = Field(description="Description of the violation.")


class IntegrityOut(Out):
    ok: bool = Field(description="True if every invariant holds.")
    version: int = Field(description="Portfolio version that was checked.")
    events: int = Field(description="Number of history events that were checked.")
    checked_at: UtcTime = Field(description="UTC time of the check.")
    invariants: list[InvariantOut] = Field(description="Invariants with their result.")

    @classmethod
    def from_integrity(cls, checked: Integrity) -> Self:
        return cls(
            ok=checked.ok,
            version=checked.version,
            events=checked.events,
            checked_at=checked.checked_at,
            invariants=[InvariantOut.model_validate(one) for one in checked.invariants],
        )


@integrity_router.get("/integrity", summary="Invariants of the portfolio", dependencies=CHECK)
@requires(Role.VIEWER)
async def check_portfolio_integrity(checks: Provided[IntegrityService]) -> IntegrityOut:
    """Check size, ranks, sums, bounds, scores, the hash chain, and that events give the state.

    Requests during a check share the next one.
    """
    return IntegrityOut.from_integrity(await checks.check())


class FeedMode(StrEnum):
    STREAM = "stream"
    POLL = "poll"


class ConnectionOut(Out):
    """One connection to the exchange."""

    phase: str = Field(examples=["live"], description="Phase of the connection.")
    since_s: Seconds = Field(description="Seconds in this phase.")
    topics: int = Field(description="Requested topics.")
    active_topics: int = Field(description="Acknowledged and without a gap.")
    seconds_since_last_message: Seconds | None = Field(description="Null while it is not open.")


class StreamOut(Out):
    """Market stream; connections and counts are those of the answering process."""

    mode: FeedMode = Field(description="`poll` also while the stream is down.")
    connections: list[ConnectionOut] = Field(description="Connections to the exchange.")
    topics: int = Field(description="Requested.")
    active_topics: int = Field(description="Number of acknowledged topics without a gap.")
    seconds_since_last_message: Seconds | None = Field(description="Null before the first.")
    messages: int = Field(description="Number of messages since the start of the process.")
    dropped: dict[str, int] = Field(description="Discarded messages by reason.")
    failures: dict[str, int] = Field(description="Lost connections by reason.")
    reconnects_planned: int = Field(description="Connections replaced before their expiry.")

    @classmethod
    def from_report(cls, report: StreamReport | None) -> Self | None:
        """Response model; None where the market is only polled."""
        if report is None:
            return None
        facts = report.facts
        return cls(
            mode=FeedMode.STREAM if report.is_streaming else FeedMode.POLL,
            connections=[ConnectionOut.model_validate(line) for line in facts.connections],
            topics=facts.topics,
            active_topics=facts.active_topics,
            seconds_since_last_message=facts.seconds_since_last_message,
            messages=facts.messages,
            dropped=dict(facts.dropped),
            failures=dict(facts.failures),
            reconnects_planned=facts.reconnects_planned,
        )


_DETAILS: Final = Permission(Role.VIEWER)
probes = api_router("probes")
router = api_router("system")


class AliveOut(Out):
    status: str = Field(examples=["alive"], description="`alive` or `ready`.")


class ComponentOut(Out):
    """Component with its state, the cause and the next step."""

    name: str = Field(examples=["exchange"], description="Name of the component.")
    state: ComponentState = Field(description="State of the component.")
    since: UtcTime | None = Field(description="Start of the state, as far as this process knows.")
    cause: str | None = Field(description="A stable error code.", examples=["exchange_timeout"])
    detail: str | None = Field(description="Cause; null without one.")
    last_success_at: UtcTime | None
    next_step: str | None = Field(description="Next step for the operator; null if there is none.")


class LevelOut(Out):
    """Share of the samples in a window in which the service level held."""

    name: str = Field(
        examples=["feed_uptime", "decision_freshness"], description="Name of the service level."
    )
    window_s: int = Field(description="Length of the window.")
    share: Share | None = Field(description="Null before the first sample.")
    samples: int = Field(description="Number of samples in the window.")


class BufferOut(Out):
    name: str = Field(description="Name of the buffer.")
    used: int = Field(description="Number of entries in the buffer.")
    capacity: int = Field(description="Largest number of entries.")
    dropped: int | None = Field(description="Null for a buffer that never drops.")


class ThroughputOut(Out):
    name: str = Field(examples=["requests"], description="Name of the counted events.")
    per_minute: Ratio | None = Field(description="Over the last minute; null before it is known.")


class ResponseTimeOut(Out):
    """Time from a request to the start of its response, over a bounded window."""

    window_s: Seconds = Field(description="Length of the window.")
    responses: int = Field(description="Number of responses in the window, at most 4,096.")
    p50_s: Seconds | None = Field(description="Median; null without a response.")
    p99_s: Seconds | None = Field(description="99th percentile; null without a response.")


class ProcessMetricsOut(Out):
    """Memory, CPU, disk, buffers, throughput and response times of the process that answers."""

    memory_bytes: int | None = Field(description="Null where the system does not report it.")
    cpu_share: Share | None = Field(
        description="Share of one core over the last minute; null before it is known."
    )
    disk_free_bytes: int | None = Field(
        description="Free space of the disk of the service; null where the system hides it."
    )
    response_time: ResponseTimeOut = Field(description="Response times of the process.")
    buffers: list[BufferOut] = Field(description="Buffers of the process.")
    throughput: list[ThroughputOut] = Field(description="Counted events of the process.")


class MemberFiguresOut(Out):
    """Weight and score of a member now."""

    symbol: str
    weight_percentage: Percent = Field(description="After price drift.")
    drift: PercentPoints = Field(description="Weight minus the target that was set last.")
    score: Score | None = Field(description="Composite score; null if unavailable.")


class PortfolioFiguresOut(Out):
    """Figures of the portfolio, as in `/metrics`; equity and drawdowns are at most a minute old."""

    equity_index: IndexUnits | None = Field(description="1 at the first member; null if unknown.")
    drawdown: Share | None = Field(description="Fall of the index from its highest value.")
    max_drawdown: Share | None = Field(description="Largest such fall so far.")
    equity_as_of: UtcTime = Field(description="Time of the equity.")
    equity_reason: str | None = Field(description="Reason for an unknown index.")
    members: list[MemberFiguresOut] = Field(description="Members by rank.")


class DecisionCountOut(Out):
    """Decisions of one kind and outcome since the start of this process."""

    kind: str = Field(description="Kind of the decision.", examples=["rebalance"])
    outcome: str = Field(description="`decided`, or the code of its refusal.")
    count: int = Field(description="Number of decisions.")


class FiguresOut(Out):
    """Portfolio, board, decisions and storage in figures."""

    portfolio: PortfolioFiguresOut = Field(description="Figures of the portfolio.")
    board_age_s: Seconds | None = Field(
        description="Age of the newest complete board; null before the first."
    )
    decisions: list[DecisionCountOut] = Field(description="Decisions by kind and outcome.")
    database_bytes: int = Field(description="Size of the database, at most a minute old.")

    @classmethod
    def from_figures(cls, figures: ServiceFigures | None) -> Self | None:
        """Response model; None while the database does not answer."""
        if figures is None:
            return None
        equity = figures.equity
        return cls(
            portfolio=PortfolioFiguresOut(
                equity_index=equity.index,
                drawdown=finite(equity.drawdown),
                max_drawdown=finite(equity.max_drawdown),
                equity_as_of=equity.as_of,
                equity_reason=equity.reason,
                members=[
                    MemberFiguresOut(
                        symbol=one.symbol,
                        weight_percentage=percent(one.weight_u),
                        drift=percent(one.drift_u),
                        score=finite(one.score),
                    )
                    for one in figures.members
                ],
            ),
            board_age_s=figures.board_age_s,
            decisions=[DecisionCountOut.model_validate(one) for one in figures.decisions],
            database_bytes=figures.database_bytes,
        )


class HealthOut(Freshness):
    """Health of the service and whether it may decide."""

    status: ComponentState = Field(
        description="The worst state of the components that the service needs."
    )
    mode: Mode = Field(description="Service mode; `normal` decides.")
    access: Access = Field(
        description="`open`: no key exists, and callers on this machine may do everything but live"
        " trading; `keys`: every caller needs a key."
    )
    components: list[ComponentOut] = Field(description="Components with their state.")
    service_levels: list[LevelOut] = Field(description="Since the start of this process.")
    process: ProcessMetricsOut = Field(description="Figures of the process that answers.")
    figures: FiguresOut | None = Field(description="Null while the database does not answer.")

    @classmethod
    def from_health(cls, health: Health, figures: ServiceFigures | None, access: Access) -> Self:
        return cls(
            status=health.status,
            mode=health.mode,
            access=access,
            components=[ComponentOut.model_validate(part) for part in health.components],
            service_levels=[LevelOut.model_validate(level) for level in health.levels],
            process=ProcessMetricsOut.model_validate(health.process),
            figures=FiguresOut.from_figures(figures),
            as_of=health.as_of,
            data_source=health.data_source,
            data_status=health.data_status,
        )


class MarketOut(Freshness):
    contracts: int = Field(description="Number of contracts in memory.")
    eligible: int = Field(description="Number of eligible symbols.")
    stale_symbols: int = Field(description="Number of symbols with stale data.")
    stage: str = Field(description="Step of the first fill, or `complete`.")
    done: int = Field(description="Number of symbols whose history is loaded.")
    total: int = Field(description="Number of symbols whose history is needed.")
    ages_s: dict[str, float | None] = Field(description="Age of the oldest value per source.")


class ScoringOut(Out):
    run_id: str
    as_of: UtcTime = Field(description="Exchange time of the inputs.")
    calculated_at: UtcTime
    scored: int = Field(description="Number of symbols with a composite score.")
    unavailable: int = Field(description="Number of symbols without one.")


class PortfolioStatusOut(Out):
    version: int = Field(description="Portfolio version.")
    size: int
    max_size: int
    cash_percentage: Percent


class TaskOut(Out):
    name: str = Field(description="Name of the task.")
    running: bool = Field(description="True while the task runs.")
    last_success_at: UtcTime | None
    last_error: str | None = Field(description="Cause of the last failure; null without one.")
    failures: int = Field(description="Number of failures since the last success.")


class ProcessOut(Out):
    """Process that shares the database."""

    name: str = Field(description="Name of the process.")
    role: str | None = Field(description="all, api or worker.", examples=["worker"])
    version: str | None = Field(description="Version of its code with a digest.")
    is_self: bool = Field(description="Whether it is the answering process.")
    leader_epoch: int | None = Field(description="Epoch of the market feed if it owns the feed.")
    configuration_matches: bool = Field(
        description="Whether code and settings match the answering process."
    )


class ConnectionPoolOut(Out):
    """Connection pool of the answering process, as it is used."""

    database: str = Field(description="`sqlite` or `postgresql`.")
    size: int = Field(description="Most connections; of SQLite one writes, the others read.")
    in_use: int = Field(description="Number of connections in use.")
    recycle_s: int | None = Field(
        description="Age at which a connection is replaced; null on SQLite, which needs none."
    )
    pre_ping: bool | None = Field(
        description="Whether a connection is tested before its use; null on SQLite."
    )

    @classmethod
    def from_pool(cls, pool: PoolFacts) -> Self:
        return cls(
            database=pool.database,
            size=pool.size,
            in_use=pool.in_use,
            recycle_s=pool.recycle_s,
            pre_ping=pool.is_pre_pinged,
        )


class StatusOut(Out):
    """Current figures of the service."""

    started_at: UtcTime
    version: str = Field(description="Version of the software.")
    mode: Mode = Field(description="Service mode; `normal` decides.")
    feed: MarketOut = Field(description="State of the market data.")
    stream: StreamOut | None = Field(
        description="Market stream; null where the market is only polled."
    )
    scoring: ScoringOut | None = Field(description="The newest board; null before the first.")
    portfolio: PortfolioStatusOut = Field(description="State of the portfolio.")
    signals: SignalQueueOut | None = Field(description="Null while the service starts.")
    tasks: list[TaskOut] = Field(description="Tasks of the process that answers.")
    connection_pool: ConnectionPoolOut | None = Field(description="Null while the service starts.")
    processes: list[ProcessOut] = Field(
        description="Processes on this database; empty where it cannot be shared."
    )

    @classmethod
    def from_status(cls, status: ServiceStatus) -> Self:
        market, book, queue = status.market, status.portfolio, status.signals
        return cls(
            started_at=status.started_at,
            version=status.version,
            mode=status.mode,
            feed=MarketOut(
                as_of=market.as_of,
                data_source=market.data_source,
                data_status=market.data_status,
                contracts=market.contracts,
                eligible=market.eligible,
                stale_symbols=market.stale_symbols,
                stage=market.stage,
                done=market.done,
                total=market.total,
                ages_s={name: finite(age) for name, age in market.ages_s.items()},
            ),
            stream=StreamOut.from_report(status.stream),
            scoring=None if status.scoring is None else ScoringOut.model_validate(status.scoring),
            portfolio=PortfolioStatusOut(
                version=book.version,
                size=book.size,
                max_size=book.max_size,
                cash_percentage=percent(book.cash_u),
            ),
            signals=None if queue is None else SignalQueueOut.model_validate(queue),
            tasks=[TaskOut.model_validate(task) for task in status.tasks],
            connection_pool=(
                None if status.pool is None else ConnectionPoolOut.from_pool(status.pool)
            ),
            processes=[ProcessOut.model_validate(process) for process in status.processes],
        )


class SampleDataOut(Freshness):
    """Loaded sample data."""

    symbols: list[str] = Field(description="Eligible symbols, all with candles.")
    daily_candles: int = Field(description="Number of daily candles.")
    run_id: str = Field(description="The newest board.")

    @classmethod
    def from_result(cls, loaded: SampleDataResult, market: MarketFacts) -> Self:
        return cls(
            symbols=list(loaded.symbols),
            daily_candles=loaded.daily_candles,
            run_id=loaded.run_id,
            as_of=market.as_of,
            data_source=market.data_source,
            data_status=market.data_status,
        )


class DatabaseStatisticsOut(Out):
    """Size and connections of the database."""

    size_bytes: int = Field(description="Of the database; for SQLite with the pages in its log.")
    connection_pool: ConnectionPoolOut = Field(
        description="Settings and use of the connection pool."
    )
    slow_statements: int = Field(description="Since the start of this process.")


class DebugInfoOut(Out):
    total_symbols: int = Field(description="Known contracts.")
    memory_usage: int | None = Field(
        description="Resident bytes of the process; null where the system does not report them."
    )
    database_stats: DatabaseStatisticsOut = Field(description="Figures of the database.")


class DebugOut(Out):
    """Portfolio and figures of the process."""

    portfolio: PortfolioOut = Field(description="The portfolio, as of `GET /portfolio`.")
    debug_info: DebugInfoOut = Field(description="Figures of process and database.")

    @classmethod
    def from_report(cls, report: DebugReport) -> Self:
        return cls(
            portfolio=PortfolioOut.of(report.portfolio),
            debug_info=DebugInfoOut(
                total_symbols=report.total_symbols,
                memory_usage=report.memory_bytes,
                database_stats=DatabaseStatisticsOut(
                    size_bytes=report.database_bytes,
                    connection_pool=ConnectionPoolOut.from_pool(report.pool),
                    slow_statements=report.slow_statements,
                ),
            ),
        )


async def get_metrics(request: Request) -> Metrics:
    """Metrics of this application."""
    metrics: Metrics = request.app.state.metrics
    return metrics


@probes.get("/livez", summary="Liveness of the process")
@public
async def check_liveness() -> AliveOut:
    """Liveness: answers while the event loop runs."""
    return AliveOut(status="alive")


@probes.get("/readyz", summary="Readiness for reads", responses=problems(Code.DATABASE_UNAVAILABLE))
@public
async def check_readiness(status: Provided[StatusService], principal: PrincipalDep) -> ComponentOut:
    """Readiness: 200 while the database answers, else 503; times are shown to viewers only."""
    database: ComponentHealth = await status.ready()
    if database.state is ComponentState.DOWN:
        raise UnavailableError(
            Code.DATABASE_UNAVAILABLE, "The database does not respond.", retry_after_s=5
        )
    shown = ComponentOut.model_validate(database)
    if _DETAILS.allows(principal):
        return shown
    hidden = dict.fromkeys(("since", "cause", "detail", "last_success_at", "next_step"))
    return shown.model_copy(update=hidden)


@probes.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
@requires(Role.VIEWER, scope=Scope.METRICS)
async def scrape_metrics(
    request: Request, metrics: Annotated[Metrics, Depends(get_metrics)]
) -> Response:
    """Metrics in Prometheus text format; gauges are read at the scrape."""
    use_cases: UseCases | None = getattr(request.state, USE_CASES, None)
    if use_cases is not None:
        await use_cases.get(StatusService).read_gauges()
    return Response(metrics.render(), media_type=CONTENT_TYPE)


@router.get("/health", summary="State of every component")
@requires(Role.VIEWER)
async def get_health(status: Provided[StatusService], request: Request) -> HealthOut:
    """State of every component with its cause; always 200 while the process can answer."""
    figures = await status.figures()
    return HealthOut.from_health(await status.health(), figures, access_of(request.scope))


@router.get("/status", summary="Current figures of the service")
@requires(Role.VIEWER)
async def get_status(status: Provided[StatusService]) -> StatusOut:
    """Portfolio, scoring, feed and background tasks in figures."""
    return StatusOut.from_status(await status.status())


@router.get(
    "/debug/portfolio",
    summary="Portfolio and figures of the process for debugging",
    responses=problems(Code.NOT_FOUND, Code.DATABASE_UNAVAILABLE),
)
@requires(Role.ADMIN)
async def get_portfolio_debug(debugging: Provided[DebugReporter], request: Request) -> DebugOut:
    """Portfolio, memory and database, with `MYSYMBOLS_DEBUG=1` only, and for this machine only."""
    if not is_local_caller(request.scope):
        raise RequestError(Code.FORBIDDEN, "Debugging answers callers on this machine only.")
    return DebugOut.from_report(await debugging.report())


@router.post(
    "/initialize-sample-data",
    summary="Fill an empty service from the local exchange",
    response_model=SampleDataOut,
    responses={
        **ACCEPTED,
        **problems(
            Code.SANDBOX_ONLY,
            Code.MARKET_DATA_STALE,
            Code.EXCHANGE_UNAVAILABLE,
            Code.EXCHANGE_RATE_LIMITED,
            Code.EXCHANGE_BAD_RESPONSE,
            Code.EXCHANGE_REDIRECTED,
            Code.EXCHANGE_TIMEOUT,
        ),
    },
)
@requires(Role.OPERATOR)
async def initialize_sample_data(
    status: Provided[StatusService],
    sample_data: Provided[SampleData],
    commands: Provided[IdempotentExecutor],
    jobs: Provided[JobService],
    command: UnversionedDep,
    as_job: PrefersJobDep,
) -> Response:
    """Load candles of at least 12 symbols from the sandbox; a repetition changes nothing.

    Only the sandbox allows it; a live exchange answers 409 `sandbox_only`.
    """

    def render(loaded: SampleDataResult) -> StoredResponse:
        return keep(SampleDataOut.from_result(loaded, status.market_facts()))

    if as_job:
        sample_data.require_sandbox()
        return await begun(commands, jobs, command, JobKind.SAMPLE_DATA)
    audited = command.audited(SecurityEventKind.MANUAL_RUN, "sample_data", "universe")
    return sent(await commands.share(audited, sample_data.load, render))
