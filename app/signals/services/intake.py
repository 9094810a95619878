"""Intake of signals: each is evaluated and stored in one transaction."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Final

from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.errors import (
    Code,
    ConflictError,
    RateLimitedError,
    UnavailableError,
)
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor, Render
from app.foundation.ports import NewId
from app.foundation.sql.unit_of_work import UnitOfWork
from app.portfolio.services.decision_context import DecisionContext, DecisionContextFactory
from app.signals.domain.evaluated_signal import EvaluatedSignal
from app.signals.domain.models import SignalClaim, receive_signal
from app.signals.services.evaluation import SignalEvaluator, Skills, usable_board
from app.signals.services.signal_news import publish_signals
from app.signals.storage.signals import Name, SignalRepository

CONCURRENCY: Final = 4  # transactions at a time; signals that wait hold no connection
MAX_WAITING: Final = 500  # requests waiting for their answer
_RETRY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class IntakeResult:
    """Signal after its intake; `is_new` is false for a repeated delivery."""

    judged: EvaluatedSignal
    is_new: bool


@dataclass(frozen=True, slots=True)
class Submission:
    """Signal of one caller; without `render` no response is stored for the command's key."""

    claim: SignalClaim
    command: Command
    render: Render[IntakeResult] | None


@dataclass(slots=True)
class SignalIntake:
    """Stores each signal in a transaction of its own; a few at a time, the others wait."""

    contexts: DecisionContextFactory
    idempotency: IdempotentExecutor
    new_id: NewId
    judges: SignalEvaluator
    concurrency: int = CONCURRENCY
    max_waiting: int = MAX_WAITING
    _waiting: int = field(default=0, init=False)
    _slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.concurrency)

    async def submit(self, submission: Submission) -> CommandResult[IntakeResult]:
        """Take in a signal; raises its own error, and RateLimitedError when too many wait."""
        if self._waiting >= self.max_waiting:
            raise RateLimitedError(
                Code.RATE_LIMITED,
                f"{self._waiting} signals wait to be stored.",
                retry_after_s=_RETRY_S,
            )
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._store(submission)
        finally:
            self._slots.release()

    async def _store(self, submission: Submission) -> CommandResult[IntakeResult]:
        async def change(unit: UnitOfWork) -> IntakeResult:
            context = self.contexts(await unit.get(ConfigurationRepository).current())
            return await self._take_in(
                unit, _with_standard_symbol(submission.claim, context), context
            )

        try:
            return await self.idempotency.run(submission.command, change, submission.render)
        except UnavailableError as error:
            if error.code is Code.OVERLOADED:
                # All connections are in use: too much at once, not an outage.
                raise RateLimitedError(
                    Code.RATE_LIMITED, error.detail, retry_after_s=error.retry_after_s
                ) from error
            raise

    async def _take_in(
        self, unit: UnitOfWork, claim: SignalClaim, context: DecisionContext
    ) -> IntakeResult:
        signals, name = unit.get(SignalRepository), _name(claim)
        if name is not None and name in (known := await signals.all_named([name])):
            return _find_repeated(claim, known[name])
        skills = await self.judges.skills(unit, context.configuration.signals, [claim])
        gate = _Gate(context, self.judges, skills, await signals.pending_count())
        judged = gate.admit(self.new_id, claim)
        if not await signals.add([judged]):
            # A concurrent transaction has stored a signal of this name meanwhile.
            return _find_repeated(claim, await signals.named(claim.source, claim.source_id or ""))
        publish_signals(unit, [judged], context.at)
        return IntakeResult(judged, is_new=True)


@dataclass(slots=True)
class _Gate:
    """Checks of new signals: thresholds, queue and evaluator."""

    context: DecisionContext
    judges: SignalEvaluator
    skills: Skills
    waiting: int

    def admit(self, new_id: NewId, claim: SignalClaim) -> EvaluatedSignal:
        """Raises RateLimitedError and RefusedError."""
        rules = self.context.configuration.signals
        if self.waiting >= rules.max_pending:
            raise RateLimitedError(
                Code.RATE_LIMITED,
                f"{self.waiting} signals wait to be judged.",
                retry_after_s=_RETRY_S,
            )
        signal = receive_signal(new_id(), claim, self.context.at, rules)
        board = usable_board(self.context)
        may_wait = self.waiting or self.judges.needs_external_votes
        if signal.is_pending and board is not None and not may_wait:
            return self.judges.evaluate(signal, self.context, board, self.skills)
        self.waiting += signal.is_pending
        return EvaluatedSignal(signal)


def _name(claim: SignalClaim) -> Name | None:
    return None if claim.source_id is None else (claim.source, claim.source_id)


def _with_standard_symbol(claim: SignalClaim, context: DecisionContext) -> SignalClaim:
    """The claim with the standard spelling of its symbol. Raises RefusedError."""
    if claim.symbol is None:
        return claim
    return replace(claim, symbol=context.resolve(claim.symbol).symbol)


def _find_repeated(claim: SignalClaim, found: EvaluatedSignal) -> IntakeResult:
    """The signal stored earlier under this name. Raises ConflictError unless it says the same."""
    if found.signal.claim.same_content(claim):
        return IntakeResult(found, is_new=False)
    raise ConflictError(
        Code.SIGNAL_CONFLICT,
        "Its source has sent another signal under this name.",
        facts={"signal_id": found.signal.signal_id},
    )
