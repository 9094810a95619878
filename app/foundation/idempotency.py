"""One effect per Idempotency-Key: claim, carry out, keep the answer with it, or give it again."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Generic, Protocol, TypeVar

from app.foundation.clock import SharedClock, agreed
from app.foundation.errors import (
    Code,
    ConflictError,
    PreconditionFailedError,
    RefusedError,
    UnavailableError,
)
from app.foundation.ports import Clock
from app.foundation.sql.database import BULK_STATEMENT_S, Database
from app.foundation.sql.idempotency import ClaimOutcome, IdempotencyRepository, StoredAnswer
from app.foundation.sql.unit_of_work import UnitOfWork

T = TypeVar("T")
_PRINCIPAL: Final = "api"  # until there are keys to tell callers apart
_RETRY_S: Final = 1.0
KEEP: Final = timedelta(hours=48)  # 24 h are promised


class Keyed(Protocol):
    """A caller's key, and the fingerprint of the request that it stands for."""

    @property
    def key(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Command:
    """Who asks, under which conditions."""

    actor: str
    request_id: str
    if_match: int | None = None  # the version that the caller decided on
    once: Keyed | None = None

    def on_version(self, version: int | None) -> "Command":
        """The same, decided on `version` if one is given."""
        return self if version is None else replace(self, if_match=version)

    def require_version(self, present: int) -> None:
        """Raises PreconditionFailedError unless the caller decided on the present version."""
        if self.if_match is not None and self.if_match != present:
            raise PreconditionFailedError(
                Code.PRECONDITION_FAILED, f"The present version is {present}."
            )


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent: the very bytes, so that they can be sent again."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Render = Callable[[T], Answer]


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """`result` is None for a replay; `answer` is None where nobody asked for one."""

    result: T | None
    answer: Answer | None
    is_replay: bool = False


@dataclass(frozen=True, slots=True)
class Along(Generic[T]):
    """What else belongs to a change: `ready` before its transaction, `within` at its end."""

    ready: Callable[[], Awaitable[None]]  # not for a replay
    within: Callable[[UnitOfWork, T], Awaitable[None]]

    def before(
        self, prepare: Callable[[], Awaitable[object]] | None
    ) -> Callable[[], Awaitable[None]]:
        """`ready`, and then what prepares the change itself."""

        async def both() -> None:
            await self.ready()
            if prepare is not None:
                await prepare()

        return both

    def around(
        self, change: Callable[[UnitOfWork], Awaitable[T]]
    ) -> Callable[[UnitOfWork], Awaitable[T]]:
        """The change with `within` in the same transaction."""

        async def both(unit: UnitOfWork) -> T:
            result = await change(unit)
            await self.within(unit, result)
            return result

        return both


@dataclass(frozen=True, slots=True)
class Once:
    """Runs a change in one transaction, at most once per key."""

    database: Database
    clock: Clock
    lock: Callable[[UnitOfWork], Awaitable[object]]  # orders all changes: one at a time
    shared: SharedClock | None = None  # None: this process is the only one

    async def now(self, unit: UnitOfWork) -> datetime:
        """By the clock by which locks and leases end."""
        return await agreed(unit, self.shared, self.clock)

    async def run(
        self,
        command: Command,
        change: Callable[[UnitOfWork], Awaitable[T]],
        render: Render[T] | None = None,
        prepare: Callable[[], Awaitable[object]] | None = None,
        along: Along[T] | None = None,
    ) -> Outcome[T]:
        """`change` under the command's key; the answer is kept in the same transaction.

        `change` must begin by taking `lock` and do nothing outside the database: it may be run
        again. `prepare` runs before, outside the transaction, and not for a replay.
        A failure gives the key free; where the connection was lost on the way, the outcome is
        looked up on another one. Raises what `change` raises, RefusedError
        (idempotency_key_reused) and ConflictError (idempotency_in_progress).
        """
        if along is not None:
            change, prepare = along.around(change), along.before(prepare)
        once = command.once
        if once is None or render is None:
            if prepare is not None:
                await prepare()
            result = await self.database.run(change)
            return Outcome(result, None if render is None else render(result))
        if prepare is None and self.database.commits is not None:
            return await self._at_once(once, change, render)
        stored: Outcome[T] | None = await self._claim(once)
        if stored is not None:
            return stored
        try:
            if prepare is not None:
                await prepare()
            outcome = await self.database.run(lambda unit: self._keep(unit, once, change, render))
        except BaseException as error:
            kept = await self._let_go(once)
            if kept is None or not isinstance(error, UnavailableError):
                raise
            return Outcome(None, kept)
        return outcome

    async def _at_once(
        self,
        once: Keyed,
        change: Callable[[UnitOfWork], Awaitable[T]],
        render: Render[T],
    ) -> Outcome[T]:
        """Claim, change and answer in one transaction, where those that write stand in line.

        Nobody can find the claim unfinished then, and a failure leaves none behind: whoever comes
        with the same key meanwhile waits for the answer instead of being sent away.
        """
        try:
            return await self.database.run(
                lambda unit: self._keep(unit, once, change, render, holds=False)
            )
        except UnavailableError:
            async with self.database.write() as unit:
                kept = await unit.get(IdempotencyRepository).answer(_PRINCIPAL, once.key)
            if kept is None:
                raise
            return Outcome(None, Answer(kept.status, kept.headers, kept.body))

    async def share(
        self, command: Command, work: Callable[[], Awaitable[T]], render: Render[T]
    ) -> Outcome[T]:
        """The answer to `work`, which saves in transactions of its own, kept under the key.

        For work that may be shared with others or repeated without harm. Raises as `run` does.
        """
        done: list[T] = []

        async def prepare() -> None:
            done.append(await work())

        async def change(_: UnitOfWork) -> T:
            return done[-1]

        return await self.run(command, change, render, prepare)

    async def _let_go(self, once: Keyed) -> Answer | None:
        """Gives the key free, unless its effect is on record: then the answer kept with it.

        A connection that is lost during COMMIT leaves it open whether that was carried out. What
        the lost transaction wrote is locked until the database knows, so asking waits for it.
        """
        async with self.database.write() as unit:
            await unit.get(IdempotencyRepository).release(_PRINCIPAL, once.key)
            kept = await unit.get(IdempotencyRepository).answer(_PRINCIPAL, once.key)
        return None if kept is None else Answer(kept.status, kept.headers, kept.body)

    async def begun(self, unit: UnitOfWork, command: Command) -> Outcome[T] | None:
        """The answer to replay; None for a change to carry out in this very transaction.

        For changes that share one: `ended` or `undone` must follow in it, so that nobody finds
        the claim unfinished. Raises RefusedError (idempotency_key_reused) and ConflictError
        (idempotency_in_progress).
        """
        if command.once is None:
            return None
        return await self._state(unit, command.once, holds=False)

    async def ended(
        self, unit: UnitOfWork, command: Command, result: T, render: Render[T] | None
    ) -> Outcome[T]:
        """The outcome of a change that has begun so; its answer is kept with it."""
        answer = None if render is None else render(result)
        if command.once is not None and answer is not None:
            await _store(unit, command.once, answer)
        return Outcome(result, answer)

    async def undone(self, unit: UnitOfWork, command: Command) -> None:
        """Gives the key of a change free that was refused after it had begun so."""
        if command.once is not None:
            await unit.get(IdempotencyRepository).release(_PRINCIPAL, command.once.key)

    async def forget_old(self) -> int:
        """Forget answers that are older than was promised; gives their number."""
        async with self.database.write(BULK_STATEMENT_S) as unit:
            return await unit.get(IdempotencyRepository).forget(await self.now(unit) - KEEP)

    async def _claim(self, once: Keyed) -> Outcome[T] | None:
        async with self.database.write() as unit:
            return await self._state(unit, once, holds=False)

    async def _keep(
        self,
        unit: UnitOfWork,
        once: Keyed,
        change: Callable[[UnitOfWork], Awaitable[T]],
        render: Render[T],
        *,
        holds: bool = True,
    ) -> Outcome[T]:
        # The lock is taken first; then nobody who took the claim over can be ahead of us unseen.
        await self.lock(unit)
        stored: Outcome[T] | None = await self._state(unit, once, holds=holds)
        if stored is not None:
            return stored
        result = await change(unit)
        answer = render(result)
        await _store(unit, once, answer)
        return Outcome(result, answer)

    async def _state(self, unit: UnitOfWork, once: Keyed, *, holds: bool) -> Outcome[T] | None:
        """The answer to replay; None when it is ours to carry out."""
        claim = await unit.get(IdempotencyRepository).claim(
            _PRINCIPAL, once.key, "", once.fingerprint, await self.now(unit)
        )
        if claim.answer is not None:
            kept = claim.answer
            return Outcome(None, Answer(kept.status, kept.headers, kept.body), is_replay=True)
        if claim.outcome is ClaimOutcome.REUSED:
            raise RefusedError(
                Code.IDEMPOTENCY_KEY_REUSED, "This key belongs to another request already."
            )
        if claim.outcome is ClaimOutcome.IN_PROGRESS and not holds:
            raise ConflictError(
                Code.IDEMPOTENCY_IN_PROGRESS,
                "A request with this key is being carried out.",
                retry_after_s=_RETRY_S,
            )
        return None


async def _store(unit: UnitOfWork, once: Keyed, answer: Answer) -> None:
    kept = StoredAnswer(answer.status, dict(answer.headers), answer.body)
    await unit.get(IdempotencyRepository).complete(_PRINCIPAL, once.key, kept)
