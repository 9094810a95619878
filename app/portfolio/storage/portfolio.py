"""Stored portfolio: current version, memberships, operator controls and the state revision."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Row, and_, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.configuration.storage.configuration import configuration_versions
from app.foundation.errors import Code, ConflictError
from app.foundation.hash_chain import instant_text
from app.foundation.sql.key_value import KeyValueRepository
from app.portfolio.domain.controls import Controls, Lock, Switch, lock_payload, read_lock
from app.portfolio.domain.event_log import instant
from app.portfolio.domain.models import Member, Portfolio
from app.portfolio.storage.tables import (
    PORTFOLIO_ID,
    portfolio,
    portfolio_history,
    portfolio_members,
    replacement_confirmations,
)

_ASIDE: Final = 1_000_000  # temporary offset of ranks while they are exchanged


class MembershipStatus(StrEnum):
    ACTIVE = "Active"
    REMOVED = "Removed"
    REPLACED = "Replaced"


# Built once: building a statement takes as long as executing it.
_LOCKED_HEAD: Final = select(portfolio).where(portfolio.c.id == PORTFOLIO_ID).with_for_update()
_OF_HEAD: Final = {
    name: portfolio.c[name].label(f"head_{name}")
    for name in ("version", "configuration_version", "cash_u", "weighted_at")
}
# One statement: an empty portfolio yields one row with the head alone.
_WHOLE: Final = (
    select(*_OF_HEAD.values(), *(portfolio_members.c[name] for name in Member.__slots__))
    .select_from(
        portfolio.outerjoin(
            portfolio_members,
            and_(
                portfolio_members.c.portfolio_id == portfolio.c.id,
                portfolio_members.c.status == MembershipStatus.ACTIVE.value,
            ),
        )
    )
    .where(portfolio.c.id == PORTFOLIO_ID)
    .order_by(portfolio_members.c.rank)
)
_STAYS: Final = (
    select(portfolio_members)
    .where(portfolio_members.c.portfolio_id == PORTFOLIO_ID)
    .order_by(portfolio_members.c.entered_version, portfolio_members.c.rank)
)
_STAYS_OF: Final = _STAYS.where(portfolio_members.c.symbol_id == bindparam("of"))
_HEAD_FIELDS: Final = (
    "version",
    "configuration_version",
    "cash_u",
    "weighted_at",
    "updated_at",
)
_SWAP: Final = (
    portfolio.update()
    .where(portfolio.c.id == PORTFOLIO_ID, portfolio.c.version == bindparam("replaced"))
    .values({name: bindparam(name) for name in _HEAD_FIELDS})
)


@dataclass(frozen=True, slots=True)
class Departure:
    """Exit of a member, with its status and reason."""

    status: MembershipStatus  # REMOVED or REPLACED
    reason: str


@dataclass(frozen=True, slots=True)
class Membership:
    """One membership, ended or current."""

    member: Member
    status: MembershipStatus
    left_at: datetime | None
    leaving_reason: str | None


@dataclass(frozen=True, slots=True)
class PortfolioRepository:
    """Stores one portfolio; its row lock serialises all changes."""

    connection: AsyncConnection
    # Portfolio loaded under the lock of this transaction, until it is saved.
    _locked: list[Portfolio] = field(default_factory=list, init=False)

    async def load(self, *, for_update: bool = False) -> Portfolio:
        """Load the committed version; `for_update` must be the first statement of its transaction.

        `for_update` waits for the row lock (PostgreSQL) or the write transaction (SQLite).
        """
        if self._locked:  # the lock excludes other writers
            return self._locked[0]
        if for_update and self.connection.dialect.name == "postgresql":
            # After a wait for the row, joined rows are still stale: lock the row first.
            await self.connection.execute(_LOCKED_HEAD)
        rows = (await self.connection.execute(_WHOLE)).all()
        head = rows[0]
        loaded = Portfolio(
            version=head.head_version,
            configuration_version=head.head_configuration_version,
            members=tuple(_member(row) for row in rows if row.symbol_id is not None),
            cash_u=head.head_cash_u,
            weighted_at=head.head_weighted_at,
        )
        if for_update:
            self._locked.append(loaded)
        return loaded

    async def save(
        self,
        old: Portfolio,
        new: Portfolio,
        now: datetime,
        departures: Mapping[str, Departure] | None = None,
    ) -> None:
        """Replace `old`, which was loaded in this transaction, by `new`.

        `departures` describes the exits of members by symbol id; by default they are removed.
        Raises ConflictError(version_conflict) if another version was committed meanwhile.
        """
        self._locked.clear()
        await self._save_head(old, new, now)
        before = {member.symbol_id: member for member in old.members}
        after = {member.symbol_id: member for member in new.members}
        leaving = [member for member in old.members if member.symbol_id not in after]
        staying = [member for member in new.members if member.symbol_id in before]
        await self._save_leaving(leaving, now, departures or {})
        await self._save_staying(
            [member for member in staying if member != before[member.symbol_id]],
            reordered=any(member.rank != before[member.symbol_id].rank for member in staying),
        )
        joining = [member for member in new.members if member.symbol_id not in before]
        if joining:
            rows = [_joining_row(member, new.version) for member in joining]
            await self.connection.execute(portfolio_members.insert(), rows)

    async def memberships(self, symbol_id: str | None = None) -> tuple[Membership, ...]:
        """Memberships of one symbol or of all, oldest first."""
        if symbol_id is None:
            rows = await self.connection.execute(_STAYS)
        else:
            rows = await self.connection.execute(_STAYS_OF, {"of": symbol_id})
        return tuple(
            Membership(_member(row), MembershipStatus(row.status), row.left_at, row.leaving_reason)
            for row in rows
        )

    async def _save_head(self, old: Portfolio, new: Portfolio, now: datetime) -> None:
        swapped = await self.connection.execute(
            _SWAP,
            {
                "replaced": old.version,
                "version": new.version,
                "configuration_version": new.configuration_version,
                "cash_u": new.cash_u,
                "weighted_at": new.weighted_at,
                "updated_at": now,
            },
        )
        if swapped.rowcount != 1:
            raise ConflictError(
                Code.VERSION_CONFLICT, f"version {old.version} is no longer the present one"
            )

    async def _save_leaving(
        self, leaving: list[Member], now: datetime, departures: Mapping[str, Departure]
    ) -> None:
        if not leaving:
            return
        unsaid = Departure(MembershipStatus.REMOVED, "removed")
        rows = [
            {
                "of": member.symbol_id,
                "status": departures.get(member.symbol_id, unsaid).status.value,
                "leaving_reason": departures.get(member.symbol_id, unsaid).reason,
                "left_at": now,
            }
            for member in leaving
        ]
        changed: dict[str, Any] = {
            name: bindparam(name) for name in ("status", "leaving_reason", "left_at")
        }
        await self.connection.execute(
            _active().where(portfolio_members.c.symbol_id == bindparam("of")).values(**changed),
            rows,
        )

    async def _save_staying(self, changed: list[Member], *, reordered: bool) -> None:
        if reordered:
            # Uniqueness is checked row by row, so two ranks cannot be exchanged in place.
            aside = portfolio_members.c.rank + _ASIDE
            moved = [member.symbol_id for member in changed]
            await self.connection.execute(
                _active().where(portfolio_members.c.symbol_id.in_(moved)).values(rank=aside)
            )
        if changed:
            names = ("rank", "weight_u", "target_weight_u")
            rows = [
                {"of": member.symbol_id, **{name: getattr(member, name) for name in names}}
                for member in changed
            ]
            await self.connection.execute(
                _active()
                .where(portfolio_members.c.symbol_id == bindparam("of"))
                .values(**{name: bindparam(name) for name in names}),
                rows,
            )


def _active() -> Any:
    table = portfolio_members
    return table.update().where(
        table.c.portfolio_id == PORTFOLIO_ID, table.c.status == MembershipStatus.ACTIVE.value
    )


def _joining_row(member: Member, version: int) -> dict[str, Any]:
    return {
        "portfolio_id": PORTFOLIO_ID,
        "entered_version": version,
        "status": MembershipStatus.ACTIVE.value,
        **{name: getattr(member, name) for name in Member.__slots__},
    }


def _member(row: Row[Any]) -> Member:
    return Member(**{name: getattr(row, name) for name in Member.__slots__})


SWITCH: Final = "trading_switch"
LOCKS: Final = "symbol_locks"


@dataclass(frozen=True, slots=True)
class ControlRepository:
    """Stores the operator controls, in the transaction of their event."""

    connection: AsyncConnection

    async def load(self) -> Controls:
        """Load the stored controls, including expired locks."""
        facts = await KeyValueRepository(self.connection).get_many(SWITCH, LOCKS)
        switch, locks = facts.get(SWITCH), facts.get(LOCKS)
        held = {symbol: read_lock(one) for symbol, one in (locks or {}).items()}
        if switch is None:
            return Controls(locks=held)
        changed = instant(switch["changed_at"])
        return Controls(
            Switch(switch["enabled"], switch["reason"], changed, switch["changed_by"]), held
        )

    async def store_switch(self, switch: Switch) -> None:
        """Store a changed switch."""
        moved = switch.changed_at
        fact = {
            "enabled": switch.enabled,
            "reason": switch.reason,
            "changed_at": None if moved is None else instant_text(moved),
            "changed_by": switch.changed_by,
        }
        await KeyValueRepository(self.connection).put(SWITCH, fact)

    async def store_locks(self, locks: Mapping[str, Lock]) -> None:
        fact = {symbol: lock_payload(lock) for symbol, lock in sorted(locks.items())}
        await KeyValueRepository(self.connection).put(LOCKS, fact)


_confirmed = and_(
    replacement_confirmations.c.portfolio_id == portfolio.c.id,
    replacement_confirmations.c.is_confirmed,
)
_NOW: Final = (
    select(
        portfolio.c.version,
        select(func.max(portfolio_history.c.seq))
        .where(portfolio_history.c.aggregate == PORTFOLIO_ID)
        .scalar_subquery()
        .label("history"),
        select(portfolio_history.c.hash)
        .where(portfolio_history.c.aggregate == PORTFOLIO_ID)
        .order_by(portfolio_history.c.seq.desc())
        .limit(1)
        .scalar_subquery()
        .label("tip"),
        select(func.max(configuration_versions.c.version)).scalar_subquery().label("configuration"),
        replacement_confirmations.c.symbol.label("leaving"),
    )
    .select_from(portfolio.outerjoin(replacement_confirmations, _confirmed))
    .where(portfolio.c.id == PORTFOLIO_ID)
)


@dataclass(frozen=True, slots=True)
class Revision:
    """Revision of the state; equal revisions mean no commit in between, None no row yet."""

    portfolio: int
    history: int | None  # covers weights, switch, locks and booked results
    configuration: int | None
    tip: str | None  # hash of the last event; numbers repeat if a failover lost commits
    leaving: frozenset[str]  # members whose replacement is confirmed, which has no event


@dataclass(frozen=True, slots=True)
class RevisionRepository:
    """Reads the revision that validates the state in memory."""

    connection: AsyncConnection

    async def now(self) -> Revision:
        rows = (await self.connection.execute(_NOW)).all()
        first = rows[0]
        return Revision(
            first.version,
            first.history,
            first.configuration,
            first.tip,
            frozenset(row.leaving for row in rows if row.leaving is not None),
        )
