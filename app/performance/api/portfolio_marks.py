"""Marks of the portfolio: what it was worth when, as it was noted then."""

from typing import Self

from pydantic import Field

from app.foundation.http.dependencies import CursorsDep, ServiceDep
from app.foundation.http.pagination import Page, cut, moment
from app.foundation.http.period import From, To, named_period, require_order
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import CursorText, Limit, MoneyString, Out, UtcTime
from app.performance.domain.performance_mark import PerformanceMark

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
    since: From = None,
    to: To = None,
    limit: Limit = 500,
    cursor: CursorText = None,
) -> Page[MarkOut]:
    """Oldest first, as it was noted then; a slot in which nobody was there is missing."""
    require_order(since, to)
    chosen = named_period(since, to)
    start = cursors.decode("portfolio_marks", chosen, cursor)
    last_seen = moment(start)
    found = await service.performance_marks.page(limit + 1, last_seen, since, to)
    page, last = cut(found, limit, lambda mark: (mark.slot.isoformat(),))
    return Page(
        items=[MarkOut.of(mark) for mark in page],
        next_cursor=None if last is None else cursors.encode("portfolio_marks", chosen, last),
    )
