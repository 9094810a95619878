"""Decisions on proposals: approval executes the action; each proposal is decided once."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from app.foundation.errors import Code, ConflictError, NotFoundError, PreconditionFailedError
from app.foundation.idempotency import (
    Command,
    CommandResult,
    IdempotentExecutor,
    Render,
    StoredResponse,
    TransactionHooks,
)
from app.foundation.ports import Clock
from app.foundation.sql.database import Database, UnitOfWork
from app.portfolio.domain.proposals import (
    ApprovedPlan,
    Decision,
    Proposal,
    ProposalKind,
    ProposalState,
)
from app.portfolio.services.decision_context import Elapsed, elapsed_by_wall
from app.portfolio.services.membership import PortfolioService, ReplaceResult
from app.portfolio.services.proposal_book import close_proposal
from app.portfolio.services.rebalance_runs import RebalanceRequest, RebalanceResult
from app.portfolio.services.rebalancing import Rebalancing
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.proposals import ProposalRepository
from app.security.domain.audit import SecurityEventKind

Ready = Callable[[], Awaitable[None]]
End = Callable[[UnitOfWork, str | None, int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Approval:
    """A proposal to execute: `ready` runs before the transaction, `end` at its end.

    `end` takes the run, if there was one, and the version of the portfolio that was made.
    """

    proposal: Proposal
    reason: str
    command: Command
    ready: Ready
    end: End
    render: Render[object]


Executor = Callable[[Approval], Awaitable[CommandResult[Any]]]


@dataclass(frozen=True, slots=True)
class ProposalView:
    """Proposal with its state at this moment."""

    proposal: Proposal
    is_outdated: bool  # open, but made for another version of the portfolio


@dataclass(frozen=True, slots=True)
class ProposalService:
    """Lists, approves and declines proposals."""

    database: Database
    clock: Clock
    idempotency: IdempotentExecutor
    rebalancing: Rebalancing
    portfolio: PortfolioService
    executors: Mapping[ProposalKind, Executor]  # of the kinds that other capabilities propose
    elapsed: Elapsed = elapsed_by_wall
    needs_four_eyes: bool = False

    async def page(
        self, before: tuple[datetime, str] | None, limit: int, kind: ProposalKind | None = None
    ) -> tuple[ProposalView, ...]:
        """Newest first; `before` is (opened_at, proposal_id) of the last of the page before."""
        async with self.database.read() as unit:
            version = (await unit.get(PortfolioRepository).load()).version
            found = await unit.get(ProposalRepository).page(before, limit, kind)
        return tuple(_shown(self._now(one), version) for one in found)

    async def approve(
        self, proposal_id: str, reason: str, command: Command, render: Render[Proposal]
    ) -> CommandResult[Proposal]:
        """Execute the action by its ordinary use case and close the proposal with it.

        It executes the proposed plan or swap after checking every safety rule again. A proposal
        for another version of the portfolio is superseded. So is a plan that is no longer valid,
        and the current plan is proposed instead. If the action is refused or unavailable, the
        proposal stays open. Raises NotFoundError, ConflictError (invalid_state_transition,
        version_conflict, plan_changed, four_eyes), PreconditionFailedError and what the action
        raises.
        """
        found = await self._one(proposal_id)
        decided: list[Proposal] = []

        async def ready() -> None:
            if command.if_match not in {None, found.version}:
                raise PreconditionFailedError(
                    Code.PRECONDITION_FAILED, f"The proposal is for version {found.version}."
                )
            await self._require_open(proposal_id)
            self._require_second_person(found, command)

        async def end(unit: UnitOfWork, run_id: str | None, version: int) -> None:
            decision = Decision(self.clock(), command.actor, reason, run_id, version)
            decided.append(await self._ended(unit, found, ProposalState.APPROVED, decision))

        def rendered(_: object) -> StoredResponse:
            return render(decided[-1])

        who = replace(command, if_match=found.version, proposal_id=proposal_id)
        try:
            answer = await self._execute(Approval(found, reason, who, ready, end, rendered))
        except PreconditionFailedError:
            await ready()  # raises for a closed proposal
            raise
        except ConflictError as error:
            if error.code is not Code.PLAN_CHANGED:
                raise
            raise _renewed(error, await self.rebalancing.propose_anew(who)) from error
        return CommandResult(decided[-1] if decided else None, answer.answer, answer.is_replay)

    async def decline(
        self, proposal_id: str, reason: str, command: Command, render: Render[Proposal]
    ) -> CommandResult[Proposal]:
        """Close the proposal without effect on the portfolio.

        Raises NotFoundError, ConflictError(invalid_state_transition), PreconditionFailedError.
        """
        found = await self._one(proposal_id)

        async def change(unit: UnitOfWork) -> Proposal:
            portfolio = await unit.get(PortfolioRepository).load(for_update=True)
            command.require_version(portfolio.version)
            decision = Decision(self.clock(), command.actor, reason)
            return await self._ended(unit, found, ProposalState.DECLINED, decision)

        audited = command.audited(
            SecurityEventKind.PROPOSAL_DECLINED,
            found.kind.value,
            proposal_id,
            lambda _: {"subject": found.subject, "reason": reason},
        )
        return await self.idempotency.run(audited, change, render)

    async def _execute(self, approval: Approval) -> CommandResult[Any]:
        own: Mapping[ProposalKind, Executor] = {
            ProposalKind.REBALANCE: self._rebalance,
            ProposalKind.REPLACEMENT: self._replace,
        }
        return await {**own, **self.executors}[approval.proposal.kind](approval)

    async def _rebalance(self, approval: Approval) -> CommandResult[RebalanceResult]:
        async def run_ends(unit: UnitOfWork, done: RebalanceResult) -> None:
            await approval.end(unit, done.run_id, done.version)

        approved = ApprovedPlan.of(approval.proposal.action)
        if approved is None:
            await approval.ready()
            raise ConflictError(Code.PLAN_CHANGED, "The proposal does not say all weights.")
        request = RebalanceRequest(approval.reason, approved=approved)
        hooks = TransactionHooks(approval.ready, run_ends)
        return await self.rebalancing.run(request, approval.command, approval.render, hooks)

    async def _replace(self, approval: Approval) -> CommandResult[ReplaceResult]:
        async def swap_ends(unit: UnitOfWork, done: ReplaceResult) -> None:
            await approval.end(unit, None, done.version)

        action, hooks = approval.proposal.action, TransactionHooks(approval.ready, swap_ends)
        return await self.portfolio.replace(
            action["old_symbol"],
            action["new_symbol"],
            approval.reason,
            approval.command,
            approval.render,
            hooks,
        )

    def _now(self, proposal: Proposal) -> Proposal:
        """Proposal as it stands now; a step of the wall clock does not end it."""
        opened_at = proposal.opened_at
        return proposal.at(opened_at + self.elapsed(opened_at, self.clock()))

    async def _ended(
        self, unit: UnitOfWork, found: Proposal, state: ProposalState, decision: Decision
    ) -> Proposal:
        """Final state of `found`, which may have changed since it was read."""
        stored = await unit.get(ProposalRepository).one(found.proposal_id)
        ended = self._now(stored or found).ended(state, decision)
        if not await close_proposal(unit, ended):
            raise _has_ended("decided")
        return ended

    async def _one(self, proposal_id: str) -> Proposal:
        async with self.database.read() as unit:
            found = await unit.get(ProposalRepository).one(proposal_id)
        if found is None:
            raise NotFoundError(Code.NOT_FOUND, "There is no such proposal.")
        return found

    def _require_second_person(self, proposal: Proposal, command: Command) -> None:
        """Raises ConflictError (four_eyes) if the proposer approves and four eyes are needed."""
        if self.needs_four_eyes and proposal.proposed_by == command.actor:
            raise ConflictError(
                Code.FOUR_EYES, "The proposal is your own: another person must approve it."
            )

    async def _require_open(self, proposal_id: str) -> None:
        """Check that a proposal may be approved; store an end that time or version caused."""

        async def look(unit: UnitOfWork) -> ConflictError | None:
            portfolio = await unit.get(PortfolioRepository).load(for_update=True)
            stored = await unit.get(ProposalRepository).one(proposal_id)
            now = self.clock()
            proposal = None if stored is None else self._now(stored)
            if proposal is None or proposal.state is not ProposalState.OPEN:
                if proposal is not None:
                    await close_proposal(unit, proposal)
                return _has_ended("gone" if proposal is None else proposal.state.value)
            if proposal.version == portfolio.version:
                return None
            said = f"The proposal was made for version {proposal.version} of the portfolio"
            reason = f"{said}, which has version {portfolio.version} now."
            decision = Decision(now, "schedule", reason)
            await close_proposal(unit, proposal.ended(ProposalState.SUPERSEDED, decision))
            return ConflictError(Code.VERSION_CONFLICT, f"{reason} It is superseded.")

        refused = await self.database.run(look)
        if refused is not None:
            raise refused


def _has_ended(state: str) -> ConflictError:
    return ConflictError(
        Code.INVALID_STATE_TRANSITION,
        f"The proposal is {state} already.",
        facts={"state": state},
    )


def _renewed(error: ConflictError, proposal_id: str | None) -> ConflictError:
    """Refusal that names the new proposal."""
    if proposal_id is None:
        said, facts = "No rebalance is needed now.", {}
    else:
        said, facts = "The current plan is proposed.", {"proposal_id": proposal_id}
    return ConflictError(error.code, f"{error.detail} {said}", facts=facts)


def _shown(proposal: Proposal, version: int) -> ProposalView:
    is_open = proposal.state is ProposalState.OPEN
    return ProposalView(proposal, is_outdated=is_open and proposal.version != version)
