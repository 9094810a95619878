"""Route of the changes after an absence, from which a reader goes on with the stream."""

import re
from datetime import datetime
from typing import Annotated, Final, Literal, Self

from fastapi import Query
from pydantic import Field, TypeAdapter, ValidationError

from app.foundation.events import EventTopic
from app.foundation.http.dependencies import CursorsDep, Provided
from app.foundation.http.errors import invalid
from app.foundation.http.pagination import Page
from app.foundation.http.permissions import requires
from app.foundation.http.protocol import PREFIX
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    CursorText,
    Limit,
    Out,
    Percent,
    QueryTime,
    RoundedJson,
    UtcTime,
    percent,
)
from app.foundation.principals import Role
from app.operations.services.changes import ChangeReader, NetChange
from app.operations.services.event_messages import event_envelope

router = api_router("stream")
_LISTING: Final = "changes"
_NUMBER: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_TIME: Final[TypeAdapter[datetime]] = TypeAdapter(QueryTime)
_SINCE: Final = "`since` is a number of an event or an ISO 8601 time with time zone."
_HISTORY: Final = PREFIX + "/portfolio/history"


class EventEnvelopeOut(Out):
    """Stored event in the envelope of the stream; `/asyncapi.json` has the schema of `data`."""

    type: Literal["event"] = Field(description="Always `event`.")
    topic: EventTopic = Field(description="Topic of the stream.")
    sequence: int = Field(description="Number of the event.")
    timestamp: UtcTime = Field(description="UTC time of the event.")
    data: RoundedJson = Field(description="Content, by topic.")


class MissingEventsOut(Out):
    """Events of the period that are no longer stored."""

    reason: str = Field(
        examples=["too_old"],
        description="`too_old`, or `unknown_sequence` for a number that does not exist.",
    )
    oldest: int = Field(description="Number of the oldest stored event.")
    history: str = Field(
        examples=[_HISTORY], description="Address of all changes of the portfolio."
    )


class MemberChangeOut(Out):
    """Weight of one symbol before and after; null outside of the portfolio."""

    symbol: str
    contract: str
    position_rank: int | None
    old_weight_percentage: Percent | None = Field(description="Weight before; null if no member.")
    new_weight_percentage: Percent | None = Field(description="Weight after; null if no member.")


class NetChangeOut(Out):
    """Net effect of all changes of the portfolio, whatever the page."""

    old_version: int = Field(description="Version of the portfolio before the first change.")
    new_version: int = Field(description="Version of the portfolio after the last change.")
    old_cash_percentage: Percent | None = Field(description="Share not invested, before.")
    new_cash_percentage: Percent | None = Field(description="Share not invested, after.")
    members: list[MemberChangeOut] = Field(
        description="Symbols that entered, left or have another weight."
    )

    @classmethod
    def from_net_change(cls, net: NetChange) -> Self:
        return cls(
            old_version=net.old_version,
            new_version=net.new_version,
            old_cash_percentage=None if net.old_cash_u is None else percent(net.old_cash_u),
            new_cash_percentage=None if net.cash_u is None else percent(net.cash_u),
            members=[
                MemberChangeOut(
                    symbol=one.symbol,
                    contract=one.contract,
                    position_rank=one.rank,
                    old_weight_percentage=None if one.old_u is None else percent(one.old_u),
                    new_weight_percentage=None if one.new_u is None else percent(one.new_u),
                )
                for one in net.members
            ],
        )


class ChangesOut(Page[EventEnvelopeOut]):
    """Events after an absence, oldest first, with their net effect on the portfolio."""

    since: int = Field(description="Number after which the events come.")
    sequence: int = Field(
        description="Number up to which the pages so far are complete: pass it as `resume_from` to"
        " the stream after the last page."
    )
    missing: MissingEventsOut | None = Field(description="Null if every event is still stored.")
    portfolio: NetChangeOut | None = Field(description="Null without a change of the portfolio.")


@router.get("/changes", summary="Changes after an absence")
@requires(Role.VIEWER)
async def list_changes(
    changes: Provided[ChangeReader],
    cursors: CursorsDep,
    since: Annotated[
        str,
        Query(
            min_length=1,
            max_length=40,
            description="Number of the last known event, or an ISO 8601 time with time zone.",
            examples=["0", "2026-03-01T12:00:00Z"],
        ),
    ],
    limit: Limit = 100,
    cursor: CursorText = None,
) -> ChangesOut:
    """Members, weights, decisions, alerts and settings that changed since a number or a time.

    Events of the topics `portfolio_change`, `rebalance`, `signal`, `alert` and `configuration`,
    oldest first; `portfolio` is their net effect. `missing` says that older ones are no longer
    stored: `GET /portfolio/history` has all changes of the portfolio. After the last page the
    stream goes on with `resume_from` = `sequence`.
    """
    moment = _moment(since)
    start = cursors.decode(_LISTING, {"since": since}, cursor)
    page = await changes.read(moment, limit, None if start is None else int(start[0]))
    key = (page.sequence,) if page.has_more else None
    missing = page.missing
    return ChangesOut(
        items=[EventEnvelopeOut(**event_envelope(record)) for record in page.events],
        next_cursor=None if key is None else cursors.encode(_LISTING, {"since": since}, key),
        since=page.since,
        sequence=page.sequence,
        missing=None
        if missing is None
        else MissingEventsOut(reason=missing.reason, oldest=missing.oldest, history=_HISTORY),
        portfolio=None if page.portfolio is None else NetChangeOut.from_net_change(page.portfolio),
    )


def _moment(text: str) -> int | datetime:
    """Returns a number or a time. Raises RequestError (422) for other text."""
    if _NUMBER.fullmatch(text):
        return int(text)
    try:
        return _TIME.validate_python(text)
    except ValidationError as error:
        raise invalid("query", "since", error.errors()[0]["type"], _SINCE) from None
