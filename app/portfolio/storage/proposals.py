"""Stored proposals: opened, decided once, listed."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, Select, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.portfolio.domain.proposals import Decision, Proposal, ProposalKind, ProposalState
from app.portfolio.storage.tables import PORTFOLIO_ID
from app.portfolio.storage.tables import proposals as table

_PLAIN: Final = (
    "proposal_id", "subject", "version", "reason", "action", "opened_at", "expires_at", "run_id",
    "proposed_by",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ProposalRepository:
    """Stores the proposals of the portfolio, under its lock."""

    connection: AsyncConnection

    async def open(self, proposal: Proposal) -> None:
        """Store a new proposal; raises ConflictError if one for the same subject is open."""
        row = {name: getattr(proposal, name) for name in _PLAIN}
        row |= {"action": dict(proposal.action), "portfolio_id": PORTFOLIO_ID}
        row |= {"kind": proposal.kind.value, "state": proposal.state.value}
        await self.connection.execute(table.insert(), row)

    async def decide(self, proposal: Proposal) -> bool:
        """Store the end of an open proposal; False without a write if it was closed."""
        decision = proposal.decision
        if decision is None:
            raise ValueError("an open proposal has no decision to keep")
        ended = await self.connection.execute(
            table.update()
            .where(table.c.proposal_id == proposal.proposal_id)
            .where(table.c.state == ProposalState.OPEN.value)
            .values(
                state=proposal.state.value,
                decided_at=decision.at,
                decided_by=decision.by,
                decision_reason=decision.reason,
                decision_run_id=decision.run_id,
                decision_version=decision.version,
            )
        )
        return ended.rowcount == 1

    async def one(self, proposal_id: str) -> Proposal | None:
        wanted = _select().where(table.c.proposal_id == proposal_id)
        row = (await self.connection.execute(wanted)).first()
        return None if row is None else _proposal(row)

    async def all_open(self, kinds: Collection[ProposalKind]) -> tuple[Proposal, ...]:
        """Proposals stored as open, including expired ones, oldest first."""
        wanted = _select().where(
            table.c.state == ProposalState.OPEN.value,
            table.c.kind.in_([kind.value for kind in kinds]),
        )
        rows = await self.connection.execute(
            wanted.order_by(table.c.opened_at, table.c.proposal_id)
        )
        return tuple(_proposal(row) for row in rows)

    async def page(
        self, before: tuple[datetime, str] | None, limit: int, kind: ProposalKind | None = None
    ) -> tuple[Proposal, ...]:
        """Newest first; `before` is (opened_at, proposal_id) of the last of the page before."""
        wanted = (
            _select().order_by(table.c.opened_at.desc(), table.c.proposal_id.desc()).limit(limit)
        )
        if before is not None:
            wanted = wanted.where(tuple_(table.c.opened_at, table.c.proposal_id) < before)
        if kind is not None:
            wanted = wanted.where(table.c.kind == kind.value)
        return tuple(_proposal(row) for row in await self.connection.execute(wanted))


def _select() -> Select[Any]:
    return select(table).where(table.c.portfolio_id == PORTFOLIO_ID)


def _proposal(row: Row[Any]) -> Proposal:
    return Proposal(
        **{name: getattr(row, name) for name in _PLAIN},
        kind=ProposalKind(row.kind),
        state=ProposalState(row.state),
        decision=_decision(row),
    )


def _decision(row: Row[Any]) -> Decision | None:
    if row.decided_at is None:
        return None
    return Decision(
        at=row.decided_at,
        by=row.decided_by,
        reason=row.decision_reason,
        run_id=row.decision_run_id,
        version=row.decision_version,
    )
