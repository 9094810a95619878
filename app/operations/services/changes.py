"""Changes after an absence: events of decisions, alerts and settings, with their net effect."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from app.foundation.events import EventRecord, EventTopic
from app.foundation.sql.database import Database, UnitOfWork
from app.foundation.sql.events import EventRepository
from app.operations.domain.event_codec import decode_event
from app.operations.services.event_stream import TOO_OLD, UNKNOWN
from app.portfolio.domain.events import MemberWeights, PortfolioChanged

CHANGE_TOPICS: Final = (
    EventTopic.PORTFOLIO_CHANGE,
    EventTopic.REBALANCE,
    EventTopic.SIGNAL,
    EventTopic.ALERT,
    EventTopic.CONFIGURATION,
)


@dataclass(frozen=True, slots=True)
class MissingEvents:
    """Events that are no longer stored; `oldest` is the number of the oldest stored one."""

    reason: str
    oldest: int


@dataclass(frozen=True, slots=True)
class NetChange:
    """Members and weights before the first and after the last version of a period.

    `members` holds only symbols that entered, left or have another weight.
    """

    old_version: int
    new_version: int
    old_cash_u: int | None
    cash_u: int | None
    members: tuple[MemberWeights, ...]


@dataclass(frozen=True, slots=True)
class ChangePage:
    """Page of events after number `since`, complete up to `sequence`."""

    since: int
    sequence: int
    missing: MissingEvents | None
    portfolio: NetChange | None  # None without a change of the portfolio
    events: tuple[EventRecord, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class ChangeReader:
    """Reads what changed since a number or a time."""

    database: Database

    async def read(self, since: int | datetime, limit: int, after: int | None = None) -> ChangePage:
        """Returns at most `limit` events; `after` is the last number of the page before.

        Raises UnavailableError without the database.
        """
        async with self.database.read() as unit:
            events = unit.get(EventRepository)
            head, floor = await events.head(), await events.floor()
            start, missing = await _resolve(events, since, head, floor)
            position = start if after is None else max(start, after)
            found = await events.after(position, limit + 1, CHANGE_TOPICS)
            # An event committed since the head was read is left to the stream.
            page = [record for record in found if record.seq <= head]
            has_more = len(page) > limit
            page = page[:limit]
            return ChangePage(
                since=start,
                sequence=page[-1].seq if has_more else head,
                missing=missing,
                portfolio=await _net_change(unit, start, head),
                events=tuple(page),
                has_more=has_more,
            )


async def _resolve(
    events: EventRepository, since: int | datetime, head: int, floor: int
) -> tuple[int, MissingEvents | None]:
    """Returns the number to read after, and the gap before it if there is one."""
    if isinstance(since, datetime):
        start = max(floor, await events.number_before(since))
        oldest = await events.oldest_time()
        is_missing = floor > 0 and (oldest is None or since < oldest)
        return start, MissingEvents(TOO_OLD, floor + 1) if is_missing else None
    if since > head:
        return head, MissingEvents(UNKNOWN, floor + 1)
    return max(since, floor), MissingEvents(TOO_OLD, floor + 1) if since < floor else None


async def _net_change(unit: UnitOfWork, start: int, head: int) -> NetChange | None:
    topic = EventTopic.PORTFOLIO_CHANGE
    first = await unit.get(EventRepository).after(start, 1, [topic])
    last = await unit.get(EventRepository).newest(topic, head)
    if not first or last is None or last.seq < first[0].seq:
        return None
    before, after = decode_event(first[0]), decode_event(last)
    if not isinstance(before, PortfolioChanged) or not isinstance(after, PortfolioChanged):
        return None
    return NetChange(
        old_version=before.version - 1,
        new_version=after.version,
        old_cash_u=before.old_cash_u,
        cash_u=after.cash_u,
        members=_compare(
            {one.symbol: one for one in before.members if one.old_u is not None},
            {one.symbol: one for one in after.members if one.new_u is not None},
        ),
    )


def _compare(
    old: Mapping[str, MemberWeights], new: Mapping[str, MemberWeights]
) -> tuple[MemberWeights, ...]:
    """Returns members by rank, then those that left; unchanged ones are left out."""
    changed = [
        replace(one, old_u=old[one.symbol].old_u if one.symbol in old else None, reason=None)
        for one in new.values()
    ]
    left = [
        replace(one, rank=None, new_u=None, reason=None)
        for one in old.values()
        if one.symbol not in new
    ]
    return tuple(one for one in (*changed, *left) if one.old_u != one.new_u)
