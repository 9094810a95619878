"""Routes that start a backtest over the stored history and read it."""

from datetime import date
from typing import Annotated, Any, Final, Self

from fastapi import Request
from pydantic import BeforeValidator, Field
from starlette.responses import Response

from app.configuration.api.schemas import SettingsUpdate
from app.configuration.domain.document import ConfigurationRefusedError
from app.foundation.errors import Code, FieldFault
from app.foundation.http.async_jobs import JobErrorOut
from app.foundation.http.dependencies import Provided, UnversionedDep
from app.foundation.http.errors import load_request_shape, problem_response, problems
from app.foundation.http.permissions import requires
from app.foundation.http.protocol import PREFIX
from app.foundation.http.request_body import Body
from app.foundation.http.responses import answer, keep, large_json_bytes, sent
from app.foundation.http.route_limits import limited_by
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    BasisPoints,
    IdPath,
    Json,
    Out,
    Share,
    UtcTime,
    example,
)
from app.foundation.idempotency import IdempotentExecutor, StoredResponse
from app.foundation.jobs import Job, JobKind, JobState
from app.foundation.principals import Role, RouteLimit
from app.research.services.backtest_jobs import BacktestJob, Backtests
from app.research.services.evidence import DRAWS
from app.research.services.historical_market import TradingCosts
from app.research.services.trials import TrialRequest
from app.security.domain.audit import SecurityEventKind

router = api_router("research", "/research")
_COSTS: Final = TradingCosts()
_MOST_BP: Final = 1_000.0


def _day(value: object) -> object:
    """Accepts a day as text such as 2024-01-31; the strict body takes only dates."""
    if isinstance(value, str) and len(value) == len("2024-01-31"):
        try:
            return date.fromisoformat(value)
        except ValueError:
            return value
    return value


DayIn = Annotated[date, BeforeValidator(_day)]


class BacktestIn(Body):
    """Period, steps, costs and settings of a backtest; all have defaults."""

    model_config = example({"first_day": "2024-01-01", "every": 7})

    first_day: DayIn | None = Field(
        None, description="Omitted: the first day with ten eligible symbols."
    )
    last_day: DayIn | None = Field(None, description="Inclusive; omitted: the last stored day.")
    every: int = Field(7, ge=1, le=90, description="Days between two decisions.")
    offset: int = Field(0, ge=0, le=89, description="Days to the first decision; below `every`.")
    all_offsets: bool = Field(False, description="Run every offset and report their spread.")
    draws: int = Field(DRAWS, ge=1, le=1_000, description="Number of random portfolios.")
    seed: int = Field(1, ge=0, le=2**31 - 1, description="Of the random portfolios.")
    fee_bp: Annotated[BasisPoints, Field(ge=0, le=_MOST_BP, strict=False)] = Field(
        _COSTS.fee_bp, description="Fee of a trade."
    )
    half_spread_bp: Annotated[BasisPoints, Field(ge=0, le=_MOST_BP, strict=False)] = Field(
        _COSTS.half_spread_bp, description="Half spread and price impact of a trade."
    )
    settings: SettingsUpdate | None = Field(
        None, description="As for `PATCH /configuration`; changes those in force for this run."
    )

    def request(self) -> TrialRequest:
        return TrialRequest(
            first_day=self.first_day,
            last_day=self.last_day,
            every=self.every,
            offset=self.offset,
            all_offsets=self.all_offsets,
            draws=self.draws,
            seed=self.seed,
            costs=TradingCosts(self.fee_bp, self.half_spread_bp),
        )


class BacktestJobOut(Out):
    """State of a backtest; the report is null before its end."""

    id: str = Field(
        examples=["backtest:8d0ae8a3-2d0b-4c1c-9c39-0a53a4b56a55"],
        description="Identifier of the job, for `/jobs/{job_id}` too.",
    )
    state: JobState = Field(description="State of the job.")
    progress: Share = Field(description="Completed part; 1 exactly in state done.")
    created_at: UtcTime
    started_at: UtcTime | None
    finished_at: UtcTime | None
    error: JobErrorOut | None = Field(description="Cause of a failure; null without one.")
    trial_id: str | None = Field(
        description="Of the logged trial; null before the end.",
        examples=["8d0ae8a3-2d0b-4c1c-9c39-0a53a4b56a55"],
    )
    data_hash: str | None = Field(
        description="SHA-256 of the history; null before the end.", examples=["9f86d081"]
    )
    report: Json = Field(description="As `my-symbols backtest --json`; null before the end.")

    @classmethod
    def of(cls, found: BacktestJob) -> Self:
        job, trial = found.job, found.trial
        return cls(
            id=job.run_id,
            state=job.state,
            progress=job.progress,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            error=None if job.error is None else JobErrorOut.of(job.error),
            trial_id=None if trial is None else trial.id,
            data_hash=None if trial is None else trial.data_hash,
            report=None if trial is None else dict(trial.result),
        )


_STARTED: Final[dict[int | str, dict[str, Any]]] = {
    202: {
        "model": BacktestJobOut,
        "description": "The job that runs the backtest.",
        "headers": {
            "Location": {"description": "Address of the backtest.", "schema": {"type": "string"}}
        },
    }
}


@router.post(
    "/backtests",
    summary="Start a backtest",
    status_code=202,
    response_model=BacktestJobOut,
    responses={
        **_STARTED,
        **problems(
            Code.CONSTRAINTS_INFEASIBLE,
            Code.IDEMPOTENCY_IN_PROGRESS,
            Code.IDEMPOTENCY_KEY_REUSED,
        ),
    },
)
@requires(Role.TRADER)
@limited_by(RouteLimit.HEAVY)
async def start_backtest(
    request: Request,
    backtests: Provided[Backtests],
    commands: Provided[IdempotentExecutor],
    command: UnversionedDep,
    body: BacktestIn | None = None,
) -> Response:
    """Runs the algorithm over the daily candles that the service has stored, in a job.

    The job logs one trial when it is done. The same request gets the running job. A history or
    settings that give no trial fail the job with their cause. `POST /jobs/{job_id}/cancel` stops
    it.
    """
    asked = body or BacktestIn()
    if asked.offset >= asked.every:
        fault = FieldFault(("body", "offset"), "less_than", "the offset must be below `every`")
        await load_request_shape(request)
        return problem_response(request, 422, Code.VALIDATION_FAILED, fault.message, errors=[fault])
    settings = {} if asked.settings is None else asked.settings.model_dump(exclude_unset=True)
    key = None if command.idempotency_key is None else command.idempotency_key.key

    def render(job: Job) -> StoredResponse:
        location = {"Location": f"{PREFIX}{router.prefix}/backtests/{job.run_id}"}
        return keep(BacktestJobOut.of(BacktestJob(job, None)), 202, location)

    audited = command.audited(
        SecurityEventKind.JOB_CHANGED,
        "started",
        JobKind.BACKTEST.value,
        lambda job: {"job_id": job.run_id},
    )
    try:
        made = await commands.share(
            audited, lambda: backtests.start(asked.request(), settings, key), render
        )
    except ConfigurationRefusedError as refused:
        errors = [
            FieldFault(("body", "settings", *one.loc.split(".")), one.type, one.message)
            for one in refused.complaints
        ]
        await load_request_shape(request)
        return problem_response(request, 422, refused.code, refused.detail, errors=errors)
    return sent(made)


@router.get(
    "/backtests/{job_id}",
    summary="One backtest",
    response_model=BacktestJobOut,
    responses=problems(Code.NOT_FOUND),
)
@requires(Role.VIEWER)
async def get_backtest(backtests: Provided[Backtests], job_id: IdPath) -> Response:
    """State and progress of a backtest, and its report when it is done.

    Jobs are deleted after `retention.jobs_days`; `my-symbols trials show` reads their trials.
    """
    found = await backtests.get(job_id)
    return answer(await large_json_bytes(lambda: BacktestJobOut.of(found)))
