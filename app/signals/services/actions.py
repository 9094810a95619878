"""Approved signals become proposals or changes of the portfolio, each at most once."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from app.configuration.domain.policy import Policy
from app.foundation.errors import ConflictError, PreconditionFailedError, RefusedError
from app.foundation.events import ProposalOpened
from app.foundation.idempotency import Command
from app.foundation.ports import NewId
from app.foundation.sql.database import Database
from app.foundation.sql.unit_of_work import UnitOfWork
from app.portfolio.domain.proposals import Decision, Proposal, ProposalKind, ProposalState
from app.portfolio.services.decision_context import Grounds, GroundsNow
from app.portfolio.services.membership import PortfolioService
from app.portfolio.services.proposal_book import close
from app.signals.domain.evaluated_signal import Judged
from app.signals.domain.signal_action import policy_for, reason_of
from app.signals.domain.signal_effect import Effect, Step
from app.signals.services.signal_effects import applied, carried_out, proposal_of
from app.signals.services.signal_steps import step_of

BATCH: Final = 20
_ACTOR: Final = "signals"
_KINDS: Final = (ProposalKind.SIGNAL,)


async def _at_once() -> None:
    """Nothing has to be looked at before the transaction."""


@dataclass(frozen=True, slots=True)
class Due:
    """A change that the policy lets happen by itself."""

    judged: Judged
    step: Step
    version: int  # of the portfolio that it was decided on


@dataclass(frozen=True, slots=True)
class SignalActions:
    """Every effect is on record in the transaction that makes it: a crash repeats nothing."""

    database: Database
    grounds: GroundsNow
    portfolio: PortfolioService
    new_id: NewId

    async def act(self) -> int:
        """See to all approved signals that nothing has been done about; how many there were."""
        now = self.grounds.clock()
        async with self.database.read() as unit:
            waiting = await unit.signal_effects.waiting(now, BATCH)
        for signal_id in waiting:
            with self.grounds.refusals.counted():
                due = await self.database.run(self._deciding(signal_id))
            if due is not None:
                await self._carry_out(due)
        return len(waiting)

    def _deciding(self, signal_id: str) -> Callable[[UnitOfWork], Awaitable[Due | None]]:
        async def decide(unit: UnitOfWork) -> Due | None:
            portfolio = await unit.portfolio.load(for_update=True)
            if await unit.signal_effects.of([signal_id]):
                return None  # another process was first
            grounds = await self.grounds.of(unit)
            grounds.require_fresh_members(portfolio)
            judged = await unit.signals.one(signal_id)
            if judged.verdict is None:
                return None
            rules = grounds.configuration.signals
            policy = policy_for(judged.signal, judged.verdict, rules)
            step = await step_of(judged.signal, portfolio, grounds, unit)
            if isinstance(step, str):
                effect = Effect(signal_id, policy, None, step, grounds.at)
            elif policy is Policy.AUTO:
                return Due(judged, step, portfolio.version)
            elif policy is Policy.PROPOSE:
                made = await self._propose(unit, judged, step, portfolio.version, grounds)
                effect = Effect(signal_id, policy, step, None, grounds.at, made.proposal_id)
            else:
                effect = Effect(signal_id, policy, step, "only observed", grounds.at)
            await unit.signal_effects.add(effect)
            return None

        return decide

    async def _propose(
        self, unit: UnitOfWork, judged: Judged, step: Step, version: int, grounds: Grounds
    ) -> Proposal:
        """A newer signal about the same symbol takes the place of an older proposal."""
        for old in await unit.proposals.all_open(_KINDS):
            if old.subject == step.symbol:
                said = Decision(grounds.at, "schedule", "a newer signal asks for it")
                now = old.at(grounds.at)
                is_open = now.state is ProposalState.OPEN
                await close(unit, now.ended(ProposalState.SUPERSEDED, said) if is_open else now)
        lasts = timedelta(seconds=grounds.configuration.policy.expires_after)
        made = proposal_of(self.new_id(), judged, step, version, grounds, lasts)
        await unit.proposals.open(made)
        unit.announce(
            ProposalOpened(
                made.proposal_id, made.kind.value, made.subject, version, made.expires_at,
                grounds.at,
            )
        )  # fmt: skip
        return made

    async def _carry_out(self, due: Due) -> None:
        """By the ordinary use case; what that refuses is noted and not tried again."""
        who = Command(_ACTOR, self.new_id(), if_match=due.version)
        signal_id = due.judged.signal.signal_id

        async def within(unit: UnitOfWork, version: int) -> None:
            now = self.grounds.clock()
            made = Effect(signal_id, Policy.AUTO, due.step, None, now, version=version)
            await unit.signal_effects.add(made)
            await applied(unit, signal_id, version, now)

        try:
            await carried_out(
                self.portfolio, due.step, reason_of(due.judged), who, _at_once, within
            )
        except PreconditionFailedError:
            return  # the portfolio is another by now: the next look decides anew
        except (RefusedError, ConflictError) as error:
            now = self.grounds.clock()
            failed = Effect(signal_id, Policy.AUTO, due.step, f"{error.code}: {error.detail}", now)
            async with self.database.write() as unit:
                await unit.portfolio.load(for_update=True)
                if not await unit.signal_effects.of([signal_id]):
                    await unit.signal_effects.add(failed)
