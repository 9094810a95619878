"""Intake of signals: one transaction for those that arrive together."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.concurrency import GroupCommit
from app.foundation.errors import (
    Code,
    ConflictError,
    RateLimitedError,
    ServiceError,
    UnavailableError,
)
from app.foundation.idempotency import Command, Once, Outcome, Render
from app.foundation.ports import NewId
from app.foundation.sql.database import Database
from app.foundation.sql.unit_of_work import UnitOfWork
from app.portfolio.services.decision_context import Grounds, GroundsNow
from app.signals.domain.evaluated_signal import EvaluatedSignal
from app.signals.domain.models import SignalClaim, receive_signal
from app.signals.services.evaluation import SignalEvaluator, Skills, usable_board
from app.signals.services.signal_news import publish_signals
from app.signals.storage.signals import Name, SignalRepository

GROUP: Final = 32  # signals per transaction; more would block the event loop
MOST_WAITING: Final = 500  # requests waiting for their answer
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


Reply = Outcome[IntakeResult] | Exception


@dataclass(slots=True)
class SignalIntake:
    """Each submission gets its own answer or error; an answer is given after its commit."""

    database: Database
    grounds: GroundsNow
    once: Once
    new_id: NewId
    judges: SignalEvaluator
    group: int = GROUP
    most_waiting: int = MOST_WAITING
    _groups: GroupCommit[Submission, Outcome[IntakeResult]] = field(init=False)

    def __post_init__(self) -> None:
        self._groups = GroupCommit(self._take_in, _key, self.group, self.most_waiting)

    async def submit(self, submission: Submission) -> Outcome[IntakeResult]:
        """Take in a signal; raises its own error, and RateLimitedError when too many wait."""
        if submission.render is None:
            submission = replace(submission, command=replace(submission.command, once=None))
        return await self._groups.join(submission)

    async def _take_in(self, submissions: Sequence[Submission]) -> list[Reply]:
        try:
            return await self.database.run(lambda unit: self._together(unit, submissions))
        except UnavailableError as error:
            if error.code is Code.OVERLOADED:
                # All connections are busy: overload, not an outage.
                busy = RateLimitedError(
                    Code.RATE_LIMITED, error.detail, retry_after_s=error.retry_after_s
                )
                return [busy for _ in submissions]
            return await self._looked_up(submissions, error)

    async def _looked_up(
        self, submissions: Sequence[Submission], error: UnavailableError
    ) -> list[Reply]:
        """After a lost connection, the answer already stored for the key."""
        if all(submission.command.once is None for submission in submissions):
            return [error for _ in submissions]
        try:
            async with self.database.write() as unit:
                return [
                    await self._on_record(unit, submission, error) for submission in submissions
                ]
        except UnavailableError:
            return [error for _ in submissions]

    async def _on_record(
        self, unit: UnitOfWork, submission: Submission, error: UnavailableError
    ) -> Reply:
        if submission.command.once is None:
            return error
        try:
            stored: Outcome[IntakeResult] | None = await self.once.begun(unit, submission.command)
        except ServiceError as other:
            return other
        if stored is None:
            await self.once.undone(unit, submission.command)
            return error
        return replace(stored, is_replay=False)

    async def _together(self, unit: UnitOfWork, submissions: Sequence[Submission]) -> list[Reply]:
        grounds = self.grounds(await unit.get(ConfigurationRepository).current())
        replies: dict[int, Reply] = {}
        claims: dict[int, SignalClaim] = {}
        for at, submission in enumerate(submissions):
            try:
                stored: Outcome[IntakeResult] | None = await self.once.begun(
                    unit, submission.command
                )
            except ServiceError as error:  # another process has claimed the key
                replies[at] = error
                continue
            if stored is not None:
                replies[at] = stored
                continue
            try:
                claims[at] = _with_standard_symbol(submission.claim, grounds)
            except ServiceError as error:
                replies[at] = error
                await self.once.undone(unit, submission.command)
        for at, taken in (await self._taken(unit, claims, grounds)).items():
            submission = submissions[at]
            if isinstance(taken, ServiceError):
                replies[at] = taken
                await self.once.undone(unit, submission.command)
            else:
                replies[at] = await self.once.ended(
                    unit, submission.command, taken, submission.render
                )
        return [replies[at] for at in range(len(submissions))]

    async def _taken(
        self, unit: UnitOfWork, claims: Mapping[int, SignalClaim], grounds: Grounds
    ) -> dict[int, IntakeResult | ServiceError]:
        """New signals by position of the claim; the first of several with one name counts."""
        known = await unit.get(SignalRepository).all_named(
            filter(None, map(_name, claims.values()))
        )
        gate = await self._gate(unit, grounds, claims.values())
        found: dict[int, IntakeResult | ServiceError] = {}
        made: dict[int, EvaluatedSignal] = {}
        names = set(known)
        for at, claim in claims.items():
            name = _name(claim)
            if name is None or name not in names:
                try:
                    made[at] = gate.admit(self.new_id, claim)
                except ServiceError as error:
                    found[at] = error
                    continue
                names |= set() if name is None else {name}
        new = await unit.get(SignalRepository).add([*made.values()])
        mine = {at: one for at, one in made.items() if one.signal.signal_id in new}
        publish_signals(unit, mine.values(), grounds.at)
        found |= {at: IntakeResult(one, is_new=True) for at, one in mine.items()}
        known |= {name: made[at] for at in mine if (name := _name(claims[at])) is not None}
        # Another process has stored these first.
        known |= await unit.get(SignalRepository).all_named(names - known.keys())
        rest = (at for at in claims if at not in found)
        return found | {at: _find_repeated(claims[at], known) for at in rest}

    async def _gate(
        self, unit: UnitOfWork, grounds: Grounds, claims: Iterable[SignalClaim]
    ) -> "_Gate":
        skills = await self.judges.skills(unit, grounds.configuration.signals, claims)
        return _Gate(grounds, self.judges, skills, await unit.get(SignalRepository).pending_count())


@dataclass(slots=True)
class _Gate:
    """Checks of new signals: thresholds, queue and evaluator."""

    grounds: Grounds
    judges: SignalEvaluator
    skills: Skills
    waiting: int

    def admit(self, new_id: NewId, claim: SignalClaim) -> EvaluatedSignal:
        """Check a claim; raises RateLimitedError and RefusedError."""
        rules = self.grounds.configuration.signals
        if self.waiting >= rules.max_pending:
            raise RateLimitedError(
                Code.RATE_LIMITED,
                f"{self.waiting} signals wait to be judged.",
                retry_after_s=_RETRY_S,
            )
        signal = receive_signal(new_id(), claim, self.grounds.at, rules)
        board = usable_board(self.grounds)
        may_wait = self.waiting or self.judges.needs_external_votes
        if signal.is_pending and board is not None and not may_wait:
            return self.judges.evaluate(signal, self.grounds, board, self.skills)
        self.waiting += signal.is_pending
        return EvaluatedSignal(signal)


def _key(submission: Submission) -> Hashable | None:
    """Idempotency key: the second of two submissions gets the answer of the first."""
    return None if submission.command.once is None else submission.command.once.key


def _name(claim: SignalClaim) -> Name | None:
    return None if claim.source_id is None else (claim.source, claim.source_id)


def _with_standard_symbol(claim: SignalClaim, grounds: Grounds) -> SignalClaim:
    """Claim with the standard spelling of its symbol. Raises RefusedError."""
    if claim.symbol is None:
        return claim
    return replace(claim, symbol=grounds.resolve(claim.symbol).symbol)


def _find_repeated(
    claim: SignalClaim, known: Mapping[Name, EvaluatedSignal]
) -> IntakeResult | ServiceError:
    """Earlier signal of the source with this id, if its content is equal."""
    name = _name(claim)
    if name is None or name not in known:
        raise LookupError("a signal was there and is not")
    found = known[name]
    if found.signal.claim.same_content(claim):
        return IntakeResult(found, is_new=False)
    return ConflictError(
        Code.SIGNAL_CONFLICT,
        "Its source has sent another signal under this name.",
        facts={"signal_id": found.signal.signal_id},
    )
