"""Routes of the append-only portfolio history."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from fastapi import Query
from pydantic import Field

from app.foundation.http.dependencies import CursorsDep, Provided
from app.foundation.http.errors import problems
from app.foundation.http.pagination import Page, cut
from app.foundation.http.response_cache import cacheable
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import NAMES, CursorText, Json, Limit, Out, Score, UtcTime
from app.foundation.state_version import Input
from app.portfolio.domain.event_log import EventType, PortfolioEvent
from app.portfolio.services.queries import PortfolioQueries

router = api_router("portfolio", "/portfolio")


class EventOut(Out):
    """One link of the chain; `details` holds weights as integer micro-percent."""

    sequence: int
    action: EventType
    symbol: str | None
    other_symbol: str | None = Field(description="The replaced symbol.")
    reason: str
    score: Score | None
    confidence: Score | None
    actor: str
    request_id: str
    occurred_at: UtcTime
    portfolio_version: int
    configuration_version: int
    input_hash: str | None
    code_version: str
    details: Json
    prev_hash: str
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
async def history(
    queries: Provided[PortfolioQueries],
    cursors: CursorsDep,
    limit: Limit = 50,
    cursor: CursorText = None,
    symbol: Annotated[
        str | None, Query(max_length=64, description="In any spelling, or the UUID.")
    ] = None,
    action: Annotated[EventType | None, Query(description="One kind of event.")] = None,
) -> Page[EventOut]:
    """Newest first: who, when, why, on which inputs, chained by hashes."""
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
