"""HTTP routes of signals: send, look up, list, count, retry and clear."""

from datetime import timedelta
from typing import Annotated, Any, Final, Self

from fastapi import Depends, Query
from pydantic import Field, model_validator
from starlette.responses import Response

from app.foundation.errors import Code
from app.foundation.http.dependencies import (
    UNNAMED,
    CursorsDep,
    IdempotencyDep,
    Provided,
    RequestIdDep,
)
from app.foundation.http.errors import problems
from app.foundation.http.pagination import Page, cut, moment_and_id
from app.foundation.http.protocol import PREFIX
from app.foundation.http.request_body import Body, NameText, SymbolText
from app.foundation.http.responses import keep, sent
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import NAMES, CursorText, IdPath, Limit, Out, QueryInt, TimeIn
from app.foundation.idempotency import Command, StoredResponse
from app.signals.api.schemas import PendingSignalOut, SignalOut, SignalStatisticsOut
from app.signals.domain.models import Direction, SignalClaim
from app.signals.services.service import CleanupResult, IntakeResult, RequeueResult, SignalService

router = api_router("signals", "/signals")
_KEYS: Final = (Code.IDEMPOTENCY_IN_PROGRESS, Code.IDEMPOTENCY_KEY_REUSED)
_DAYS_KEPT: Final = 30
Part = Annotated[float, Field(ge=0, le=1)]
SourceText = Annotated[str, Field(min_length=1, max_length=64, examples=["my-desk"])]


class SignalIn(Body):
    """Statement of a source about a symbol; `symbol` and `symbol_id` name the same thing."""

    source_name: SourceText
    signal_type: Annotated[str, Field(min_length=1, max_length=64, examples=["momentum"])]
    signal_strength: Part
    confidence_level: Part
    symbol: SymbolText | None = Field(None, description="In any spelling, or the UUID.")
    symbol_id: SymbolText | None = Field(None, description="The same as `symbol`.")
    signal_direction: Direction = Field(Direction.NEUTRAL, strict=False)
    signal_data: dict[str, Any] | None = Field(
        None,
        description="The source's own. `timeframe` (15m, 4h, 1d, 2w; up to 90 days) is the horizon "
        "over which the signal is to prove right, an hour at least; the answer names all other "
        "fields in `unused_fields`, and a `timeframe` that cannot be read.",
        examples=[{"timeframe": "4h"}],
    )
    source_signal_id: Annotated[str, Field(min_length=1, max_length=255)] | None = Field(
        None, description="Names the signal at its source; the same name twice is one signal."
    )
    signal_timestamp: TimeIn | None = Field(None, description="When it was said; not ahead of us.")
    expiry_timestamp: TimeIn | None = Field(
        None, description="Without it `signals.ttl_s` of the settings, a day by default."
    )

    @model_validator(mode="after")
    def _one_symbol(self) -> Self:
        if self.symbol is not None and self.symbol_id is not None:
            raise ValueError("give either symbol or symbol_id")
        return self

    def claim(self) -> SignalClaim:
        return SignalClaim(
            source=self.source_name,
            type=self.signal_type,
            strength=self.signal_strength,
            confidence=self.confidence_level,
            symbol=self.symbol if self.symbol is not None else self.symbol_id,
            direction=self.signal_direction,
            data=self.signal_data,
            source_id=self.source_signal_id,
            said_at=self.signal_timestamp,
            expires_at=self.expiry_timestamp,
        )


class RetryIn(Body):
    max_retries: int = Field(3, ge=1, le=100, description="Not for those retried so often.")
    user: NameText | None = Field(None, description="Recorded as the claimed actor.")


class ClearIn(Body):
    older_than_days: int = Field(_DAYS_KEPT, ge=1, le=3_650)
    user: NameText | None = Field(None, description="Recorded as the claimed actor.")


class RequeuedOut(Out):
    queued: int
    expired: int = Field(description="Their time was over.")


class ClearedOut(Out):
    expired: int = Field(description="Waited, or had failed, until their time was over.")
    removed: int = Field(description="Rejected, expired or failed before.")


def _unversioned(request_id: RequestIdDep, idempotency_key: IdempotencyDep) -> Command:
    """Command without a version: a signal has a state, but no version to decide on."""
    return Command(actor=UNNAMED, request_id=request_id, idempotency_key=idempotency_key)


AskedDep = Annotated[Command, Depends(_unversioned)]


@router.post(
    "",
    summary="Send a signal",
    status_code=201,
    response_model=SignalOut,
    responses={
        200: {"model": SignalOut, "description": "The source has sent it before."},
        202: {"model": SignalOut, "description": "It waits to be judged; see `Location`."},
        **problems(*_KEYS, *NAMES, Code.SIGNAL_CONFLICT, Code.SIGNAL_EXPIRED, Code.RATE_LIMITED),
    },
)
async def send_signal(
    signals: Provided[SignalService], command: AskedDep, body: SignalIn
) -> Response:
    """Send a signal; agents evaluate it at once, or as soon as a board and earlier signals permit.

    Each agent gives the probability that the symbol beats the median of the universe, and so
    does the source: 1/2 +- 1/2 x k x strength x confidence, k = 0.2 + 0.8 x n / (n + 50) x
    max(0, skill) of its n outcomes of this type. They are pooled by weighted log-odds, and
    every vote is stored. The vote of a source without skill may worsen the verdict of the
    agents, never improve it. A signal below `signals.min_strength` or `min_confidence` is
    rejected without evaluation, and so is one without a symbol. The same `source_signal_id` of
    the same source is the same signal: the same content is answered with 200, other content
    with 409 `signal_conflict`.
    """
    return sent(await signals.submit(body.claim(), command, _submission_response))


@router.get("/pending", summary="SignalService that wait to be judged")
async def pending_signals(
    signals: Provided[SignalService],
    cursors: CursorsDep,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[PendingSignalOut]:
    """List waiting signals, oldest first."""
    start = moment_and_id(cursors.decode("signals_pending", {}, cursor))
    found = await signals.pending(limit + 1, start)
    page, last = cut(found, limit, lambda one: (one.received_at.isoformat(), one.signal_id))
    return Page(
        items=[PendingSignalOut.of(one) for one in page],
        next_cursor=None if last is None else cursors.encode("signals_pending", {}, last),
    )


@router.get("/processed", summary="SignalService that have left the queue")
async def processed_signals(
    signals: Provided[SignalService],
    cursors: CursorsDep,
    hours: Annotated[QueryInt, Query(ge=1, le=8_760, description="How far back.")] = 24,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[SignalOut]:
    """List processed signals, newest first, each with its verdict and every vote."""
    chosen = {"hours": hours}
    start = moment_and_id(cursors.decode("signals_processed", chosen, cursor))
    found = await signals.processed(hours, limit + 1, start)
    page, last = cut(
        found,
        limit,
        lambda one: (
            (one.signal.completed_at or one.signal.received_at).isoformat(),
            one.signal.signal_id,
        ),
    )
    return Page(
        items=[SignalOut.shown(one) for one in page],
        next_cursor=None if last is None else cursors.encode("signals_processed", chosen, last),
    )


@router.get("/statistics", summary="How many signals, what the agents said, and what came of it")
async def signal_statistics(
    signals: Provided[SignalService],
    days: Annotated[QueryInt, Query(ge=1, le=365, description="How far back.")] = 30,
) -> SignalStatisticsOut:
    """Count signals by state, source, evaluation and agent.

    After the horizon (`signals.horizon_days`, or the signal's `timeframe`) closed hourly bars
    show whether the symbol beat the median of the universe. These outcomes set the weight of
    agents (`record`) and the trust in sources. While the skill of every agent is unknown, all
    weigh the same, and no signal is applied automatically.
    """
    return SignalStatisticsOut.of(await signals.statistics(days), days)


@router.post(
    "/cleanup",
    summary="Clear signals away",
    response_model=ClearedOut,
    responses=problems(*_KEYS),
)
async def clear_signals(
    signals: Provided[SignalService], command: AskedDep, body: ClearIn | None = None
) -> Response:
    """Expire overdue signals and delete older rejected, expired and failed ones.

    Approved signals stay. One call expires up to 1000 signals.
    """
    days = (body or ClearIn()).older_than_days
    return sent(await signals.cleanup(timedelta(days=days), command, _cleanup_response))


@router.post(
    "/reprocess-failed",
    summary="Have failed signals judged again",
    response_model=RequeuedOut,
    responses=problems(*_KEYS),
)
async def reprocess_failed_signals(
    signals: Provided[SignalService], command: AskedDep, body: RetryIn | None = None
) -> Response:
    """Requeue up to 100 signals that failed because too few agents knew their symbol."""
    retries = (body or RetryIn()).max_retries
    return sent(await signals.reprocess_failed(retries, command, _requeue_response))


@router.get("/{signal_id}", summary="One signal", responses=problems(Code.NOT_FOUND))
async def signal(signals: Provided[SignalService], signal_id: IdPath) -> SignalOut:
    """Show a signal in any state, with its verdict and every vote."""
    return SignalOut.shown(await signals.get(signal_id))


def _submission_response(taken: IntakeResult) -> StoredResponse:
    one = taken.judged.signal
    status = 200 if not taken.is_new else 202 if one.is_pending else 201
    headers = {"Location": f"{PREFIX}/signals/{one.signal_id}"}
    return keep(SignalOut.shown(taken.judged), status, headers)


def _cleanup_response(done: CleanupResult) -> StoredResponse:
    return keep(ClearedOut.model_validate(done))


def _requeue_response(done: RequeueResult) -> StoredResponse:
    return keep(RequeuedOut.model_validate(done))
