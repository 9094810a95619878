"""Marks of the portfolio: what it was worth when, as it was noted then."""

from datetime import datetime
from typing import Annotated, Self

from fastapi import Query
from pydantic import Field

from app.api.deps import CursorsDep, ServiceDep
from app.api.errors import invalid
from app.api.paging import Page, cut
from app.api.routing import api_router
from app.api.schemas import CursorText, Limit, MoneyString, Out, QueryTime, UtcTime
from app.domain.performance_mark import PerformanceMark

router = api_router("portfolio", "/portfolio")


class MarkOut(Out):
    """One slot of the schedule; closes that change later do not change it."""

    slot: UtcTime
    at: UtcTime = Field(description="When it was noted.")
    version: int = Field(description="Of the portfolio then.")
    equity: MoneyString | None = Field(description="Of the notional index, which began at 1.")
    reason: str | None = Field(description="Why the equity is not known.")
    prices: dict[str, MoneyString] = Field(description="Marks of the members that had one.")

    @classmethod
    def of(cls, mark: PerformanceMark) -> Self:
        return cls.model_validate(mark)


@router.get("/marks", summary="What the portfolio was worth, hour by hour")
async def marks(
    service: ServiceDep,
    cursors: CursorsDep,
    since: Annotated[
        QueryTime | None, Query(alias="from", description="At or after this time.")
    ] = None,
    to: Annotated[QueryTime | None, Query(description="Before this time.")] = None,
    limit: Limit = 500,
    cursor: CursorText = None,
) -> Page[MarkOut]:
    """Oldest first, as it was noted then; a slot in which nobody was there is missing."""
    if since is not None and to is not None and since >= to:
        raise invalid("query", "to", "reversed", "The period ends before it begins.")
    chosen = {
        "from": None if since is None else since.isoformat(),
        "to": None if to is None else to.isoformat(),
    }
    start = cursors.decode("portfolio_marks", chosen, cursor)
    last_seen = None if start is None else datetime.fromisoformat(str(start[0]))
    found = await service.performance_marks.page(limit + 1, last_seen, since, to)
    page, last = cut(found, limit, lambda mark: (mark.slot.isoformat(),))
    return Page(
        items=[MarkOut.of(mark) for mark in page],
        next_cursor=None if last is None else cursors.encode("portfolio_marks", chosen, last),
    )
