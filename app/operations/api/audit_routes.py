"""Route of the audit log, for administrators."""

from typing import Annotated, Final, Literal, Self

from fastapi import Query
from pydantic import Field

from app.foundation.http.dependencies import CursorsDep, Provided
from app.foundation.http.pagination import (
    From,
    Key,
    Page,
    To,
    cut,
    moment,
    named_period,
    require_order,
)
from app.foundation.http.permissions import requires
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import CursorText, Json, Limit, Out, UtcTime
from app.foundation.principals import Role
from app.operations.services.audit_log import (
    ACTIONS,
    AuditChain,
    AuditEntry,
    AuditFilter,
    AuditLog,
    Position,
)

router = api_router("audit", "/audit")
_LISTING: Final = "audit"
ActionText = Literal[ACTIONS]  # type: ignore[valid-type]  # made from the kinds of both chains


class AuditEntryOut(Out):
    """One event of either chain."""

    chain: AuditChain = Field(description="Chain of the entry.")
    sequence: int = Field(description="Number within its chain.")
    occurred_at: UtcTime = Field(description="Of repeated refusals the first one.")
    actor: str = Field(examples=["key:engine"])
    action: str = Field(examples=["refused"], description="Recorded action.")
    subject: str | None = Field(
        description="Object of a change: a symbol, or the name of a key or user."
    )
    address: str | None = Field(description="Of the peer; an IPv6 one as its /64 network.")
    code: str | None = Field(
        examples=["forbidden"], description="Code of a refusal; null without one."
    )
    count: int = Field(description="Above 1 for refusals that repeat within a minute.")
    reason: str | None
    request_id: str | None
    details: Json
    hash: str

    @classmethod
    def of(cls, entry: AuditEntry) -> Self:
        return cls(
            chain=entry.chain,
            sequence=entry.seq,
            occurred_at=entry.occurred_at,
            actor=entry.actor,
            action=entry.action,
            subject=entry.subject,
            address=entry.address,
            code=entry.code,
            count=entry.count,
            reason=entry.reason,
            request_id=entry.request_id,
            details=dict(entry.payload),
            hash=entry.hash,
        )


def _position(start: Key | None) -> Position | None:
    at = moment(start)
    if start is None or at is None:
        return None
    return at, AuditChain(str(start[1])), int(start[2])


@router.get("", summary="Audit log")
@requires(Role.ADMIN)
async def list_audit_records(
    log: Provided[AuditLog],
    cursors: CursorsDep,
    actor: Annotated[
        str | None, Query(max_length=128, description="Exact actor, such as `key:engine`.")
    ] = None,
    action: Annotated[ActionText | None, Query(description="One action.")] = None,
    since: From = None,
    to: To = None,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[AuditEntryOut]:
    """Events of the portfolio history and of the chain of security events, newest first.

    At equal times security events come first, then the higher number. Refusals of the running
    minute appear when it is over.
    """
    require_order(since, to)
    chosen = {"actor": actor, "action": action, **named_period(since, to)}
    start = _position(cursors.decode(_LISTING, chosen, cursor))
    entries = await log.page(AuditFilter(actor, action, since, to), start, limit + 1)
    page, last = cut(
        entries,
        limit,
        lambda entry: (entry.occurred_at.isoformat(), entry.chain.value, entry.seq),
    )
    return Page(
        items=[AuditEntryOut.of(entry) for entry in page],
        next_cursor=None if last is None else cursors.encode(_LISTING, chosen, last),
    )
