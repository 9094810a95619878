"""Signals over HTTP: sent, looked up, listed, counted, tried again, cleared away."""

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
from app.signals.domain.models import Claim, Direction
from app.signals.services.intake import Taken
from app.signals.services.service import Cleared, Requeued, Signals

router = api_router("signals", "/signals")
_KEYS: Final = (Code.IDEMPOTENCY_IN_PROGRESS, Code.IDEMPOTENCY_KEY_REUSED)
_DAYS_KEPT: Final = 30
Part = Annotated[float, Field(ge=0, le=1)]
SourceText = Annotated[str, Field(min_length=1, max_length=64, examples=["my-desk"])]


class SignalIn(Body):
    """What a source says of a symbol; `symbol` and `symbol_id` name the same thing."""

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

    def claim(self) -> Claim:
        return Claim(
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
    """A signal has a state, no version that a caller could have decided on."""
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
async def send_signal(signals: Provided[Signals], command: AskedDep, body: SignalIn) -> Response:
    """Judged by the agents at once, or as soon as there is a board and those before it are done.

    Each agent gives the probability that the symbol beats the median of the universe, and so does
    the source: 1/2 +- 1/2 x k x strength x confidence, k = 0.2 + 0.8 x n / (n + 50) x max(0, skill)
    of its n outcomes of this type. They are pooled by weighted log-odds, and every vote is kept.
    The vote of a source without skill may worsen the verdict of the agents, never improve it.
    Below `signals.min_strength` or
    `min_confidence` it is rejected unjudged, and so is one without a symbol. The same
    `source_signal_id` of the same source is the same signal: with the same content it is
    answered with 200, with another 409 `signal_conflict`.
    """
    return sent(await signals.submit(body.claim(), command, _taken))


@router.get("/pending", summary="Signals that wait to be judged")
async def pending_signals(
    signals: Provided[Signals], cursors: CursorsDep, limit: Limit = 50, cursor: CursorText = None
) -> Page[PendingSignalOut]:
    """The oldest first."""
    start = moment_and_id(cursors.decode("signals_pending", {}, cursor))
    found = await signals.pending(limit + 1, start)
    page, last = cut(found, limit, lambda one: (one.received_at.isoformat(), one.signal_id))
    return Page(
        items=[PendingSignalOut.of(one) for one in page],
        next_cursor=None if last is None else cursors.encode("signals_pending", {}, last),
    )


@router.get("/processed", summary="Signals that have left the queue")
async def processed_signals(
    signals: Provided[Signals],
    cursors: CursorsDep,
    hours: Annotated[QueryInt, Query(ge=1, le=8_760, description="How far back.")] = 24,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[SignalOut]:
    """The last first, each with its verdict and every vote."""
    chosen = {"hours": hours}
    start = moment_and_id(cursors.decode("signals_processed", chosen, cursor))
    found = await signals.processed(hours, limit + 1, start)
    page, last = cut(
        found,
        limit,
        lambda one: (
            (one.signal.settled_at or one.signal.received_at).isoformat(),
            one.signal.signal_id,
        ),
    )
    return Page(
        items=[SignalOut.shown(one) for one in page],
        next_cursor=None if last is None else cursors.encode("signals_processed", chosen, last),
    )


@router.get("/statistics", summary="How many signals, what the agents said, and what came of it")
async def signal_statistics(
    signals: Provided[Signals],
    days: Annotated[QueryInt, Query(ge=1, le=365, description="How far back.")] = 30,
) -> SignalStatisticsOut:
    """By state, by source, by evaluation and by agent.

    After the horizon (`signals.horizon_days`, or the signal's `timeframe`) it is booked whether the
    symbol beat the median of the universe, from closed hourly bars. By that agents earn their
    weight (`record`) and sources their trust; while the skill of no agent is known all weigh the
    same, and nothing is done unasked.
    """
    return SignalStatisticsOut.of(await signals.statistics(days), days)


@router.post(
    "/cleanup",
    summary="Clear signals away",
    response_model=ClearedOut,
    responses=problems(*_KEYS),
)
async def clear_signals(
    signals: Provided[Signals], command: AskedDep, body: ClearIn | None = None
) -> Response:
    """Ends those whose time is over and drops the rejected, expired and failed ones before then.

    What was approved stays. Up to 1000 are ended at a time.
    """
    days = (body or ClearIn()).older_than_days
    return sent(await signals.cleanup(timedelta(days=days), command, _cleared))


@router.post(
    "/reprocess-failed",
    summary="Have failed signals judged again",
    response_model=RequeuedOut,
    responses=problems(*_KEYS),
)
async def reprocess_failed_signals(
    signals: Provided[Signals], command: AskedDep, body: RetryIn | None = None
) -> Response:
    """A signal fails where too few agents know anything of its symbol; up to 100 at a time."""
    retries = (body or RetryIn()).max_retries
    return sent(await signals.reprocess_failed(retries, command, _requeued))


@router.get("/{signal_id}", summary="One signal", responses=problems(Code.NOT_FOUND))
async def signal(signals: Provided[Signals], signal_id: IdPath) -> SignalOut:
    """In whatever state it is, with its verdict and every vote."""
    return SignalOut.shown(await signals.get(signal_id))


def _taken(taken: Taken) -> StoredResponse:
    one = taken.judged.signal
    status = 200 if not taken.is_new else 202 if one.is_pending else 201
    headers = {"Location": f"{PREFIX}/signals/{one.signal_id}"}
    return keep(SignalOut.shown(taken.judged), status, headers)


def _cleared(done: Cleared) -> StoredResponse:
    return keep(ClearedOut.model_validate(done))


def _requeued(done: Requeued) -> StoredResponse:
    return keep(RequeuedOut.model_validate(done))
