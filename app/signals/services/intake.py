"""Intake of signals: those that come at the same time are taken in by one transaction."""

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
from app.signals.domain.evaluated_signal import Judged
from app.signals.domain.models import Claim, received
from app.signals.services.evaluation import Judges, Skills, board_of
from app.signals.services.signal_news import tell
from app.signals.storage.signals import Name, SignalRepository

GROUP: Final = 32  # in one transaction; judging more would hold up the event loop
MOST_WAITING: Final = 500  # each is a request that waits for its answer
_RETRY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Taken:
    """A signal after its intake; one that its source had sent before is not new."""

    judged: Judged
    is_new: bool


@dataclass(frozen=True, slots=True)
class Submission:
    """What one caller sends; without a `render` nothing is kept under the command's key."""

    claim: Claim
    command: Command
    render: Render[Taken] | None


Reply = Outcome[Taken] | Exception


@dataclass(slots=True)
class SignalIntake:
    """Each submission has an answer, or an error, of its own; what is answered is committed."""

    database: Database
    grounds: GroundsNow
    once: Once
    new_id: NewId
    judges: Judges
    group: int = GROUP
    most_waiting: int = MOST_WAITING
    _groups: GroupCommit[Submission, Outcome[Taken]] = field(init=False)

    def __post_init__(self) -> None:
        self._groups = GroupCommit(self._take_in, _key, self.group, self.most_waiting)

    async def submit(self, submission: Submission) -> Outcome[Taken]:
        """Raises what is wrong with it, and RateLimitedError where too many wait."""
        if submission.render is None:
            submission = replace(submission, command=replace(submission.command, once=None))
        return await self._groups.join(submission)

    async def _take_in(self, submissions: Sequence[Submission]) -> list[Reply]:
        try:
            return await self.database.run(lambda unit: self._together(unit, submissions))
        except UnavailableError as error:
            if error.code is Code.OVERLOADED:
                # All connections work: that is too much at once, not an outage.
                busy = RateLimitedError(
                    Code.RATE_LIMITED, error.detail, retry_after_s=error.retry_after_s
                )
                return [busy for _ in submissions]
            return await self._looked_up(submissions, error)

    async def _looked_up(
        self, submissions: Sequence[Submission], error: UnavailableError
    ) -> list[Reply]:
        """Where the connection was lost on the way: what is on record under a key is answered."""
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
            stored: Outcome[Taken] | None = await self.once.begun(unit, submission.command)
        except ServiceError as other:
            return other
        if stored is None:
            await self.once.undone(unit, submission.command)
            return error
        return replace(stored, is_replay=False)

    async def _together(self, unit: UnitOfWork, submissions: Sequence[Submission]) -> list[Reply]:
        grounds = self.grounds(await unit.get(ConfigurationRepository).current())
        replies: dict[int, Reply] = {}
        claims: dict[int, Claim] = {}
        for at, submission in enumerate(submissions):
            try:
                stored: Outcome[Taken] | None = await self.once.begun(unit, submission.command)
            except ServiceError as error:  # the key is another's, who sees to it
                replies[at] = error
                continue
            if stored is not None:
                replies[at] = stored
                continue
            try:
                claims[at] = _spelled(submission.claim, grounds)
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
        self, unit: UnitOfWork, claims: Mapping[int, Claim], grounds: Grounds
    ) -> dict[int, Taken | ServiceError]:
        """By the place of the claim. Of several under one name the first counts."""
        known = await unit.get(SignalRepository).all_named(
            filter(None, map(_name, claims.values()))
        )
        gate = await self._gate(unit, grounds, claims.values())
        found: dict[int, Taken | ServiceError] = {}
        made: dict[int, Judged] = {}
        names = set(known)
        for at, claim in claims.items():
            name = _name(claim)
            if name is None or name not in names:
                try:
                    made[at] = gate.let_in(self.new_id, claim)
                except ServiceError as error:
                    found[at] = error
                    continue
                names |= set() if name is None else {name}
        new = await unit.get(SignalRepository).add([*made.values()])
        mine = {at: one for at, one in made.items() if one.signal.signal_id in new}
        tell(unit, mine.values(), grounds.at)
        found |= {at: Taken(one, is_new=True) for at, one in mine.items()}
        known |= {name: made[at] for at in mine if (name := _name(claims[at])) is not None}
        # Of these another process has been quicker.
        known |= await unit.get(SignalRepository).all_named(names - known.keys())
        rest = (at for at in claims if at not in found)
        return found | {at: _again(claims[at], known) for at in rest}

    async def _gate(self, unit: UnitOfWork, grounds: Grounds, claims: Iterable[Claim]) -> "_Gate":
        skills = await self.judges.skills(unit, grounds.configuration.signals, claims)
        return _Gate(grounds, self.judges, skills, await unit.get(SignalRepository).pending_count())


@dataclass(slots=True)
class _Gate:
    """What new signals meet: thresholds, what waits before them, and the judges."""

    grounds: Grounds
    judges: Judges
    skills: Skills
    waiting: int

    def let_in(self, new_id: NewId, claim: Claim) -> Judged:
        """Raises RateLimitedError and RefusedError."""
        rules = self.grounds.configuration.signals
        if self.waiting >= rules.max_pending:
            raise RateLimitedError(
                Code.RATE_LIMITED,
                f"{self.waiting} signals wait to be judged.",
                retry_after_s=_RETRY_S,
            )
        signal = received(new_id(), claim, self.grounds.at, rules)
        board = board_of(self.grounds)
        may_wait = self.waiting or self.judges.asks_outside
        if signal.is_pending and board is not None and not may_wait:
            return self.judges.judged(signal, self.grounds, board, self.skills)
        self.waiting += signal.is_pending
        return Judged(signal)


def _key(submission: Submission) -> Hashable | None:
    """Of two under one key the second is to find the answer to the first."""
    return None if submission.command.once is None else submission.command.once.key


def _name(claim: Claim) -> Name | None:
    return None if claim.source_id is None else (claim.source, claim.source_id)


def _spelled(claim: Claim, grounds: Grounds) -> Claim:
    """The claim with the standard spelling of its symbol. Raises RefusedError."""
    if claim.symbol is None:
        return claim
    return replace(claim, symbol=grounds.resolve(claim.symbol).symbol)


def _again(claim: Claim, known: Mapping[Name, Judged]) -> Taken | ServiceError:
    """What its source has sent under this name before, if that said the same."""
    name = _name(claim)
    if name is None or name not in known:
        raise LookupError("a signal was there and is not")
    found = known[name]
    if found.signal.claim.same_content(claim):
        return Taken(found, is_new=False)
    return ConflictError(
        Code.SIGNAL_CONFLICT,
        "Its source has sent another signal under this name.",
        facts={"signal_id": found.signal.signal_id},
    )
