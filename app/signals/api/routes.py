"""HTTP routes of signals: submission, lists, statistics, retry and clean-up."""

import json
from datetime import timedelta
from typing import Annotated, Any, Final, Self

from fastapi import Query
from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from app.foundation.errors import Code
from app.foundation.http.dependencies import (
    EXPENSIVE,
    CursorsDep,
    Provided,
    UnversionedDep,
)
from app.foundation.http.errors import RequestError, problems
from app.foundation.http.pagination import Page, cut, moment_and_id
from app.foundation.http.permissions import PrincipalDep, requires
from app.foundation.http.protocol import PREFIX
from app.foundation.http.request_body import Body, NameText, SymbolText
from app.foundation.http.responses import keep, sent
from app.foundation.http.route_limits import limited_by
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    NAMES,
    REPLAYS,
    CursorText,
    DecisionReplayOut,
    IdPath,
    Limit,
    Out,
    QueryInt,
    TimeIn,
    example,
    unit,
)
from app.foundation.idempotency import StoredResponse
from app.foundation.principals import Permission, Role, RouteLimit, Scope
from app.signals.api.schemas import PendingSignalOut, SignalOut, SignalStatisticsOut
from app.signals.domain.models import Direction, SignalClaim
from app.signals.services.service import CleanupResult, IntakeResult, RequeueResult, SignalService
from app.signals.services.verdict_replay import VerdictReplayer

router = api_router("signals", "/signals")
_KEYS: Final = (Code.IDEMPOTENCY_IN_PROGRESS, Code.IDEMPOTENCY_KEY_REUSED)
_DEFAULT_RETENTION_DAYS: Final = 30
MAX_DATA_BYTES: Final = 8_192  # of `signal_data` as compact JSON in ASCII, as it is stored
UnitInterval = Annotated[float, Field(ge=0, le=1), unit("score")]
SourceText = Annotated[str, Field(min_length=1, max_length=64, examples=["my-desk"])]


class SignalIn(Body):
    """Claim of a source about a symbol, named by `symbol` or `symbol_id`."""

    model_config = example(
        {
            "source_name": "my-desk",
            "signal_type": "momentum",
            "signal_strength": 0.7,
            "confidence_level": 0.8,
            "symbol": "BTCUSDT",
            "signal_direction": "BUY",
        }
    )

    source_name: SourceText
    signal_type: Annotated[str, Field(min_length=1, max_length=64, examples=["momentum"])]
    signal_strength: UnitInterval = Field(description="Strength of the claim.")
    confidence_level: UnitInterval = Field(description="Confidence of the source in its claim.")
    symbol: SymbolText | None = Field(None, description="In any spelling, or the UUID.")
    symbol_id: SymbolText | None = Field(None, description="The same as `symbol`.")
    signal_direction: Direction = Field(
        Direction.NEUTRAL,
        strict=False,
        description="Direction of the claim: `BUY`, `SELL` or `NEUTRAL`.",
    )
    signal_data: dict[str, Any] | None = Field(
        None,
        description="Free-form data. `timeframe` (15m, 4h, 1d, 2w; up to 90 days) is the horizon "
        "of the outcome, at least one hour. `unused_fields` of the response names all other "
        "fields, and an unreadable `timeframe`. "
        f"At most {MAX_DATA_BYTES:,} bytes as compact JSON in ASCII.",
        examples=[{"timeframe": "4h"}],
    )
    source_signal_id: Annotated[str, Field(min_length=1, max_length=255)] | None = Field(
        None, description="Id of the signal at its source; a repeated id is the same signal."
    )
    signal_timestamp: TimeIn | None = Field(
        None, description="Time of the claim; not in the future."
    )
    expiry_timestamp: TimeIn | None = Field(
        None, description="By default `signals.ttl_s` after the claim (one day)."
    )

    @field_validator("signal_data")
    @classmethod
    def _bounded(cls, data: dict[str, Any] | None) -> dict[str, Any] | None:
        if len(json.dumps(data, separators=(",", ":"))) > MAX_DATA_BYTES:
            raise PydanticCustomError("too_long", f"more than {MAX_DATA_BYTES:,} bytes of JSON")
        return data

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
            claimed_at=self.signal_timestamp,
            expires_at=self.expiry_timestamp,
        )


class RetryIn(Body):
    max_retries: int = Field(3, ge=1, le=100, description="Signals with more retries stay failed.")
    user: NameText | None = Field(None, description="Recorded as the claimed actor.")


class ClearIn(Body):
    older_than_days: int = Field(
        _DEFAULT_RETENTION_DAYS,
        ge=1,
        le=3_650,
        description="Age from which ended signals are deleted, in days.",
    )
    user: NameText | None = Field(None, description="Recorded as the claimed actor.")


class RequeuedOut(Out):
    queued: int = Field(description="Number of signals that were queued again.")
    expired: int = Field(description="Signals past their expiry.")


class ClearedOut(Out):
    expired: int = Field(description="Waiting or failed signals past their expiry.")
    removed: int = Field(description="Deleted signals: rejected, expired or failed before.")


_SENDER: Final = Permission(Role.TRADER)  # may send signals that are applied automatically


@router.post(
    "",
    summary="Send a signal",
    status_code=201,
    response_model=SignalOut,
    responses={
        200: {"model": SignalOut, "description": "The source has sent it before."},
        202: {
            "model": SignalOut,
            "description": "The signal waits for its evaluation; see `Location`.",
        },
        **problems(*_KEYS, *NAMES, Code.SIGNAL_CONFLICT, Code.SIGNAL_EXPIRED, Code.RATE_LIMITED),
    },
)
@requires(Role.TRADER, scope=Scope.SIGNALS)
@limited_by(RouteLimit.SIGNALS)
async def send_signal(
    signals: Provided[SignalService],
    command: UnversionedDep,
    principal: PrincipalDep,
    body: SignalIn,
) -> Response:
    """Stores a signal and evaluates it at once, or once a board and earlier signals permit.

    Each agent estimates the probability that the symbol outperforms the median of the universe.
    The source votes 1/2 +- 1/2 x k x strength x confidence, with k = 0.2 + 0.8 x n / (n + 50) x
    max(0, skill) of its n outcomes of this type. Probabilities are pooled by weighted log-odds,
    and every vote is stored. The vote of a source without skill may worsen the verdict of the
    agents, but never improve it. A signal below `signals.min_strength` or `min_confidence`, or
    without a symbol, is rejected without evaluation. A repeated `source_signal_id` of a source is
    the same signal: equal content is answered with 200, other content with 409 `signal_conflict`.
    A key that is bound to sources may send signals of these only. A signal of a caller with the
    scope `signals`, but without the role trader, is at most proposed, never applied automatically.
    """
    if not principal.may_post_for(body.source_name):
        raise RequestError(Code.FORBIDDEN, "This key is bound to other signal sources.")
    # The scope signals alone lets a caller propose, whatever the settings automate.
    is_propose_only = not _SENDER.allows(principal)
    return sent(
        await signals.submit(
            body.claim(), command, _submission_response, is_propose_only=is_propose_only
        )
    )


@router.get("/pending", summary="Signals that wait for their evaluation")
@requires(Role.VIEWER)
async def list_pending_signals(
    signals: Provided[SignalService],
    cursors: CursorsDep,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[PendingSignalOut]:
    """Lists waiting signals, oldest first."""
    start = moment_and_id(cursors.decode("signals_pending", {}, cursor))
    found = await signals.pending(limit + 1, start)
    page, last = cut(found, limit, lambda one: (one.received_at.isoformat(), one.signal_id))
    return Page(
        items=[PendingSignalOut.of(one) for one in page],
        next_cursor=None if last is None else cursors.encode("signals_pending", {}, last),
    )


@router.get("/processed", summary="Signals that have left the queue")
@requires(Role.VIEWER)
async def list_processed_signals(
    signals: Provided[SignalService],
    cursors: CursorsDep,
    hours: Annotated[QueryInt, Query(ge=1, le=8_760, description="Length of the period.")] = 24,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[SignalOut]:
    """Lists processed signals, newest first, each with its verdict and every vote."""
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
        items=[SignalOut.from_evaluated(one) for one in page],
        next_cursor=None if last is None else cursors.encode("signals_processed", chosen, last),
    )


@router.get("/statistics", summary="Counts of signals and votes, and forecast records")
@requires(Role.VIEWER)
async def get_signal_statistics(
    signals: Provided[SignalService],
    days: Annotated[QueryInt, Query(ge=1, le=365, description="Length of the period.")] = 30,
) -> SignalStatisticsOut:
    """Returns counts of signals by state, source, evaluation and agent, and forecast records.

    After the horizon (`signals.horizon_days`, or the signal's `timeframe`) closed hourly bars
    decide if the symbol outperformed the median of the universe. These outcomes set the weight of
    agents (`record`) and the trust in sources. While the skill of every agent is unknown, all
    weights are equal, and no signal is applied automatically.
    """
    return SignalStatisticsOut.of(await signals.statistics(days), days)


@router.post(
    "/cleanup",
    summary="Expire and delete old signals",
    response_model=ClearedOut,
    responses=problems(*_KEYS),
)
@requires(Role.OPERATOR)
async def clean_up_signals(
    signals: Provided[SignalService], command: UnversionedDep, body: ClearIn | None = None
) -> Response:
    """Expires overdue signals and deletes older rejected, expired and failed ones.

    Approved signals stay. One call expires up to 1000 signals.
    """
    days = (body or ClearIn()).older_than_days
    return sent(await signals.cleanup(timedelta(days=days), command, _cleanup_response))


@router.post(
    "/reprocess-failed",
    summary="Requeue failed signals",
    response_model=RequeuedOut,
    responses=problems(*_KEYS),
)
@requires(Role.OPERATOR)
async def reprocess_failed_signals(
    signals: Provided[SignalService], command: UnversionedDep, body: RetryIn | None = None
) -> Response:
    """Requeues up to 100 signals that failed because too few agents could vote."""
    retries = (body or RetryIn()).max_retries
    return sent(await signals.reprocess_failed(retries, command, _requeue_response))


@router.get("/{signal_id}", summary="One signal", responses=problems(Code.NOT_FOUND))
@requires(Role.VIEWER)
async def get_signal(signals: Provided[SignalService], signal_id: IdPath) -> SignalOut:
    """Returns a signal in any state, with its verdict and every vote."""
    return SignalOut.from_evaluated(await signals.get(signal_id))


@router.post(
    "/{signal_id}/replay",
    summary="Replay the verdict on a signal from its stored inputs",
    dependencies=EXPENSIVE,
    responses=problems(*REPLAYS),
)
@requires(Role.TRADER)
@limited_by(RouteLimit.HEAVY)
async def replay_verdict(
    replayer: Provided[VerdictReplayer], signal_id: IdPath
) -> DecisionReplayOut:
    """Reaches the consensus again and compares it, byte for byte; nothing is written.

    Inputs are stored for `retention.decision_inputs_days`. Another version of the algorithm answers
    409 `algorithm_version` with the version of the service that can replay the verdict.
    """
    return DecisionReplayOut.from_replay(await replayer.replay(signal_id))


def _submission_response(result: IntakeResult) -> StoredResponse:
    signal = result.evaluated.signal
    status = 200 if not result.is_new else 202 if signal.is_pending else 201
    headers = {"Location": f"{PREFIX}/signals/{signal.signal_id}"}
    return keep(SignalOut.from_evaluated(result.evaluated), status, headers)


def _cleanup_response(result: CleanupResult) -> StoredResponse:
    return keep(ClearedOut.model_validate(result))


def _requeue_response(result: RequeueResult) -> StoredResponse:
    return keep(RequeuedOut.model_validate(result))
