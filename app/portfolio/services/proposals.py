"""Deciding on proposals: approve, which carries the action out, or decline; each once, in time."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime

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
from app.foundation.sql.database import Database
from app.foundation.sql.unit_of_work import UnitOfWork
from app.portfolio.domain.proposals import Approved, Decision, Proposal, ProposalKind, ProposalState
from app.portfolio.services.membership import PortfolioService, Replaced
from app.portfolio.services.proposal_book import close
from app.portfolio.services.rebalance_runs import Rebalanced
from app.portfolio.services.rebalance_steps import RebalanceRequest
from app.portfolio.services.rebalancing import Rebalancing
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.proposals import ProposalRepository
from app.signals.services.actions import Changed, execute_step, mark_applied, step_from_action
from app.signals.storage.signals import SignalEffectRepository

Ready = Callable[[], Awaitable[None]]
End = Callable[[UnitOfWork, str | None, int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Shown:
    """A proposal as it stands now."""

    proposal: Proposal
    is_outdated: bool  # open, but made for another version of the portfolio


@dataclass(frozen=True, slots=True)
class Proposals:
    """What waits for an operator."""

    database: Database
    clock: Clock
    idempotency: IdempotentExecutor
    rebalancing: Rebalancing
    portfolio: PortfolioService

    async def page(
        self, before: tuple[datetime, str] | None, limit: int, kind: ProposalKind | None = None
    ) -> tuple[Shown, ...]:
        """Newest first; `before` is (opened_at, proposal_id) of the last of the page before."""
        async with self.database.read() as unit:
            version = (await unit.get(PortfolioRepository).load()).version
            found = await unit.get(ProposalRepository).page(before, limit, kind)
        now = self.clock()
        return tuple(_shown(one.at(now), version) for one in found)

    async def approve(
        self, proposal_id: str, reason: str, command: Command, render: Render[Proposal]
    ) -> CommandResult[Proposal]:
        """Carry the action out by the ordinary use case, and end the proposal with it.

        A rebalance is the plan that was proposed, a replacement that of the two symbols; every
        rule of safety is looked at again. A proposal that was made for another version of the
        portfolio is superseded. A plan that does not hold any more is, too, and the one of this
        moment is proposed in its place. Where the action is refused or cannot be done now, the
        proposal stays open. Raises NotFoundError, ConflictError (invalid_state_transition,
        version_conflict, plan_changed), PreconditionFailedError and what the action raises.
        """
        found = await self._one(proposal_id)
        decided: list[Proposal] = []

        async def ready() -> None:
            if command.if_match not in {None, found.version}:
                raise PreconditionFailedError(
                    Code.PRECONDITION_FAILED, f"The proposal is for version {found.version}."
                )
            await self._require_open(proposal_id)

        async def end(unit: UnitOfWork, run_id: str | None, version: int) -> None:
            decision = Decision(self.clock(), command.actor, reason, run_id, version)
            decided.append(await _ended(unit, found, ProposalState.APPROVED, decision))

        def rendered(_: object) -> StoredResponse:
            return render(decided[-1])

        who = replace(command, if_match=found.version)
        try:
            answer = await self._carried_out(found, reason, who, ready, end, rendered)
        except PreconditionFailedError:
            await ready()  # it says what became of the proposal
            raise
        except ConflictError as error:
            if error.code is not Code.PLAN_CHANGED:
                raise
            raise _renewed(error, await self.rebalancing.propose_anew(who)) from error
        return CommandResult(decided[-1] if decided else None, answer.answer, answer.is_replay)

    async def decline(
        self, proposal_id: str, reason: str, command: Command, render: Render[Proposal]
    ) -> CommandResult[Proposal]:
        """End the proposal; the portfolio stays as it is.

        Raises NotFoundError, ConflictError(invalid_state_transition), PreconditionFailedError.
        """
        found = await self._one(proposal_id)

        async def change(unit: UnitOfWork) -> Proposal:
            portfolio = await unit.get(PortfolioRepository).load(for_update=True)
            command.require_version(portfolio.version)
            decision = Decision(self.clock(), command.actor, reason)
            return await _ended(unit, found, ProposalState.DECLINED, decision)

        return await self.idempotency.run(command, change, render)

    async def _carried_out(
        self,
        proposal: Proposal,
        reason: str,
        who: Command,
        ready: Ready,
        end: End,
        render: Render[object],
    ) -> Changed | CommandResult[Rebalanced]:
        if proposal.kind is ProposalKind.SIGNAL:

            async def signal_ends(unit: UnitOfWork, version: int) -> None:
                signal_id = proposal.action["signal_id"]
                await unit.get(SignalEffectRepository).carried_out(signal_id, version)
                await mark_applied(unit, signal_id, version, self.clock())
                await end(unit, None, version)

            step, why = step_from_action(proposal.action), f"{reason} ({proposal.reason})"[:500]
            return await execute_step(self.portfolio, step, why, who, ready, signal_ends, render)
        if proposal.kind is ProposalKind.REBALANCE:

            async def run_ends(unit: UnitOfWork, done: Rebalanced) -> None:
                await end(unit, done.run_id, done.version)

            hooks = TransactionHooks(ready, run_ends)
            request = RebalanceRequest(reason, approved=Approved.of(proposal.action))
            if request.approved is None:
                await ready()
                raise ConflictError(Code.PLAN_CHANGED, "The proposal does not say all weights.")
            return await self.rebalancing.run(request, who, render, hooks)

        async def swap_ends(unit: UnitOfWork, done: Replaced) -> None:
            await end(unit, None, done.version)

        old, new = proposal.action["old_symbol"], proposal.action["new_symbol"]
        return await self.portfolio.replace(
            old, new, reason, who, render, TransactionHooks(ready, swap_ends)
        )

    async def _one(self, proposal_id: str) -> Proposal:
        async with self.database.read() as unit:
            found = await unit.get(ProposalRepository).one(proposal_id)
        if found is None:
            raise NotFoundError(Code.NOT_FOUND, "There is no such proposal.")
        return found

    async def _require_open(self, proposal_id: str) -> None:
        """That it may be approved; what has ended by itself is written down as such."""

        async def look(unit: UnitOfWork) -> ConflictError | None:
            portfolio = await unit.get(PortfolioRepository).load(for_update=True)
            stored = await unit.get(ProposalRepository).one(proposal_id)
            now = self.clock()
            proposal = None if stored is None else stored.at(now)
            if proposal is None or proposal.state is not ProposalState.OPEN:
                if proposal is not None:
                    await close(unit, proposal)
                return _has_ended("gone" if proposal is None else proposal.state.value)
            if proposal.version == portfolio.version:
                return None
            said = f"The proposal was made for version {proposal.version} of the portfolio"
            reason = f"{said}, which has version {portfolio.version} now."
            decision = Decision(now, "schedule", reason)
            await close(unit, proposal.ended(ProposalState.SUPERSEDED, decision))
            return ConflictError(Code.VERSION_CONFLICT, f"{reason} It is superseded.")

        refused = await self.database.run(look)
        if refused is not None:
            raise refused


async def _ended(
    unit: UnitOfWork, found: Proposal, state: ProposalState, decision: Decision
) -> Proposal:
    """`found`, which may have moved since it was read, in its final state."""
    stored = await unit.get(ProposalRepository).one(found.proposal_id)
    ended = (stored or found).at(decision.at).ended(state, decision)
    if not await close(unit, ended):
        raise _has_ended("decided")
    return ended


def _has_ended(state: str) -> ConflictError:
    return ConflictError(
        Code.INVALID_STATE_TRANSITION,
        f"The proposal is {state} already.",
        facts={"state": state},
    )


def _renewed(error: ConflictError, proposal_id: str | None) -> ConflictError:
    """The same refusal with what is proposed instead."""
    if proposal_id is None:
        said, facts = "Nothing calls for a rebalance now.", {}
    else:
        said, facts = "The plan of this moment is proposed.", {"proposal_id": proposal_id}
    return ConflictError(error.code, f"{error.detail} {said}", facts=facts)


def _shown(proposal: Proposal, version: int) -> Shown:
    is_open = proposal.state is ProposalState.OPEN
    return Shown(proposal, is_outdated=is_open and proposal.version != version)
