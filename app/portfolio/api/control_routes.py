"""Routes of the operator controls: trading switch; pinned, banned and watched symbols."""

from typing import Literal, Self

from pydantic import Field
from starlette.responses import Response

from app.foundation.errors import Code
from app.foundation.http.dependencies import CommandDep, Provided, by
from app.foundation.http.errors import problems
from app.foundation.http.permissions import requires
from app.foundation.http.request_body import Body, NameText, ReasonText
from app.foundation.http.responses import keep, sent
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    CHANGES,
    DEFAULT_REASON,
    NAMES,
    Difference,
    Freshness,
    Out,
    Score,
    SymbolPath,
    TimeIn,
    UtcTime,
    finite,
)
from app.foundation.idempotency import StoredResponse
from app.foundation.principals import Role
from app.portfolio.api.schemas import freshness
from app.portfolio.domain.candidate_selection import CandidateRefusal
from app.portfolio.domain.controls import Lock, LockKind, Switch
from app.portfolio.services.controls import ControlService, WatchedSymbol

router = api_router("portfolio", "/portfolio")


class SwitchOut(Out):
    """While it is off there is no trade, rebalance or new member; removals are still allowed."""

    enabled: bool = Field(description="False: no trade, no rebalance, no new member.")
    reason: str
    changed_at: UtcTime | None = Field(
        description="UTC time of the last change; null before the first."
    )
    changed_by: str | None = Field(
        description="Principal of the last change; null before the first."
    )

    @classmethod
    def of(cls, switch: Switch) -> Self:
        return cls(
            enabled=switch.enabled,
            reason=switch.reason,
            changed_at=switch.changed_at,
            changed_by=switch.changed_by,
        )


class SwitchIn(Body):
    enabled: bool = Field(description="False switches trading off.")
    reason: ReasonText = Field(description="Reason that the history records.")
    user: NameText | None = Field(None, description="Recorded as the claimed actor.")


class LockOut(Out):
    """A pinned symbol is neither replaced, removed nor sold off; a banned one cannot enter.

    A watched symbol is on the watch list and its book is read first, without any restriction.
    """

    symbol: str
    kind: LockKind = Field(description="`pin`, `ban` or `watch`.")
    reason: str
    expires_at: UtcTime | None = Field(description="Null: no expiry.")
    set_at: UtcTime
    set_by: str

    @classmethod
    def of(cls, lock: Lock) -> Self:
        return cls(
            symbol=lock.symbol,
            kind=lock.kind,
            reason=lock.reason,
            expires_at=lock.expires_at,
            set_at=lock.set_at,
            set_by=lock.set_by,
        )


class LocksOut(Out):
    locks: list[LockOut] = Field(description="Locks by symbol.")


class LockIn(Body):
    kind: Literal["pin", "ban", "watch"] = Field(
        description="`pin` keeps a member, `ban` bars a symbol, `watch` observes it."
    )
    reason: ReasonText = Field(description="Reason that the history records.")
    expires_at: TimeIn | None = Field(
        None, description="Time at which the lock ends, with a time zone; null: never."
    )
    user: NameText | None = Field(None, description="Recorded as the claimed actor.")


class WatchedOut(Out):
    """A watched symbol with its current figures; null means unknown."""

    symbol: str
    reason: str
    expires_at: UtcTime | None = Field(description="Null: no expiry.")
    set_at: UtcTime
    set_by: str
    current_score: Score | None
    confidence: Score | None
    rank: int | None = Field(description="On the board of all symbols.")
    entry_score: Score = Field(
        description="Needed to enter: the threshold, or that of the weakest member when full."
    )
    distance_to_entry: Difference | None = Field(description="Missing score; 0 or less means none.")
    is_member: bool = Field(description="True for a member.")
    refused_because: CandidateRefusal | None = Field(
        description="Refusal that it would meet beside the members."
    )
    conflicting_symbol: str | None = Field(
        description="Member that it correlates with too closely."
    )

    @classmethod
    def of(cls, one: WatchedSymbol) -> Self:
        lock, refused = one.lock, one.refused
        return cls(
            symbol=lock.symbol,
            reason=lock.reason,
            expires_at=lock.expires_at,
            set_at=lock.set_at,
            set_by=lock.set_by,
            current_score=finite(one.score),
            confidence=finite(one.confidence),
            rank=one.rank,
            entry_score=one.entry_score,
            distance_to_entry=finite(one.distance),
            is_member=one.is_member,
            refused_because=None if refused is None else refused.reason,
            conflicting_symbol=None if refused is None else refused.conflicting_symbol,
        )


class WatchListOut(Freshness):
    symbols: list[WatchedOut] = Field(description="Watched symbols with their figures.")


def _lock(done: Lock) -> StoredResponse:
    return keep(LockOut.of(done))


def _switch(done: Switch) -> StoredResponse:
    return keep(SwitchOut.of(done))


@router.get("/trading-switch", summary="Is trading on")
@requires(Role.VIEWER)
async def get_trading_switch(controls: Provided[ControlService]) -> SwitchOut:
    """State of the trading switch, with author, time and reason of the last change."""
    return SwitchOut.of((await controls.controls()).switch)


@router.put(
    "/trading-switch",
    summary="Switch trading off or on",
    response_model=SwitchOut,
    responses=problems(*CHANGES),
)
@requires(Role.OPERATOR)
async def set_trading_switch(
    controls: Provided[ControlService], command: CommandDep, body: SwitchIn
) -> Response:
    """Switches trading for all processes and across restarts; one history event."""
    who = by(command, body.user)
    return sent(await controls.switch(body.enabled, body.reason, who, _switch))


@router.get("/locks", summary="Pinned, banned and watched symbols")
@requires(Role.VIEWER)
async def list_locks(controls: Provided[ControlService]) -> LocksOut:
    """Active locks, by symbol."""
    held = (await controls.controls()).locks
    return LocksOut(locks=[LockOut.of(held[symbol]) for symbol in sorted(held)])


@router.get("/watch-list", summary="Watched symbols and their distance to entry")
@requires(Role.VIEWER)
async def get_watch_list(controls: Provided[ControlService]) -> WatchListOut:
    """Watched symbols with score, rank and distance to entry.

    `PUT /portfolio/locks/{symbol}` adds a symbol.
    """
    found = await controls.watch_list()
    shown = [WatchedOut.of(one) for one in found.lines]
    return WatchListOut(symbols=shown, **freshness(found.facts))


@router.get(
    "/locks/{symbol}",
    summary="The lock of a symbol",
    responses=problems(Code.NOT_FOUND, *NAMES),
)
@requires(Role.VIEWER)
async def get_lock(controls: Provided[ControlService], symbol: SymbolPath) -> LockOut:
    """404 if the symbol is neither pinned nor banned nor watched."""
    return LockOut.of(await controls.lock_of(symbol))


@router.put(
    "/locks/{symbol}",
    summary="Pin, ban or watch a symbol",
    response_model=LockOut,
    responses=problems(*NAMES, *CHANGES),
)
@requires(Role.OPERATOR)
async def set_lock(
    controls: Provided[ControlService], command: CommandDep, symbol: SymbolPath, body: LockIn
) -> Response:
    """Replaces an existing lock of the symbol; it expires at `expires_at`."""
    return sent(
        await controls.lock(
            symbol,
            LockKind(body.kind),
            body.reason,
            body.expires_at,
            by(command, body.user),
            _lock,
        )
    )


@router.delete(
    "/locks/{symbol}",
    summary="Lift a lock",
    response_model=LockOut,
    responses=problems(Code.NOT_FOUND, *NAMES, *CHANGES),
)
@requires(Role.OPERATOR)
async def delete_lock(
    controls: Provided[ControlService], command: CommandDep, symbol: SymbolPath
) -> Response:
    """Returns the removed lock."""
    return sent(await controls.unlock(symbol, DEFAULT_REASON, command, _lock))
