"""Runs a command once per idempotency key and replays the stored response on retry."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Generic, Protocol, TypeVar

from app.foundation.clock import SharedClock, current_time
from app.foundation.errors import (
    Code,
    ConflictError,
    PreconditionFailedError,
    RateLimitedError,
    RefusedError,
    UnavailableError,
)
from app.foundation.ports import Clock
from app.foundation.sql.database import BULK_STATEMENT_S, Database, UnitOfWork
from app.foundation.sql.idempotency import (
    ClaimOutcome,
    IdempotencyRepository,
    KeyClaim,
    ResponseRow,
)

T = TypeVar("T")
_AUTHOR_CHARS: Final = 128  # of the columns that hold an author
_RETRY_S: Final = 1.0
_CAP_RETRY_S: Final = 3600.0  # a job deletes old keys
KEEP: Final = timedelta(hours=48)  # API.md promises 24 h


class IdempotencyKey(Protocol):
    """Key chosen by a caller, and the fingerprint of the request that it belongs to."""

    @property
    def key(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...


def _no_details(_: Any) -> Mapping[str, Any]:
    """No details: the default of an audit note."""
    return {}


@dataclass(frozen=True, slots=True)
class AuditNote:
    """Entry of the audit log for a command that changes nothing in the portfolio's history.

    `kind` is a kind of security events, `code` names the change, `subject` its object. `details`
    makes JSON without binary floating point of the result.
    """

    kind: str
    code: str
    subject: str
    details: Callable[[Any], Mapping[str, Any]] = _no_details


@dataclass(frozen=True, slots=True)
class Command:
    """Author and conditions of a change.

    `actor` is the authenticated principal; idempotency keys belong to it. `note` is the person that
    the request names, which nothing verifies. `is_unkeyed` marks a request without an idempotency
    key: the same request again is another change. `proposal_id` is the approved proposal that the
    command executes.
    """

    actor: str
    request_id: str
    if_match: int | None = None  # the version that the caller decided on
    idempotency_key: IdempotencyKey | None = None
    note: str | None = None
    is_unkeyed: bool = False
    audit: AuditNote | None = None  # recorded in the transaction of the change
    proposal_id: str | None = None

    @property
    def author(self) -> str:
        """Actor and note in one text of at most 128 characters: `key:desk (ana)`."""
        if self.note is None:
            return self.actor
        return f"{self.actor} ({self.note[: _AUTHOR_CHARS - len(self.actor) - 3]})"

    def audited(
        self,
        kind: str,
        code: str,
        subject: str,
        details: Callable[[Any], Mapping[str, Any]] = _no_details,
    ) -> "Command":
        """Returns the command with an entry of the audit log; see AuditNote."""
        return replace(self, audit=AuditNote(kind, code, subject, details))

    def on_version(self, version: int | None) -> "Command":
        """Returns the command with `version` as its precondition, unchanged for None."""
        return self if version is None else replace(self, if_match=version)

    def require_version(self, present: int) -> None:
        """Raises PreconditionFailedError if the caller decided on another version."""
        if self.if_match is not None and self.if_match != present:
            raise PreconditionFailedError(
                Code.PRECONDITION_FAILED, f"The current version is {present}."
            )


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """Stored HTTP response; a retry gets the same bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Render = Callable[[T], StoredResponse]
# Records the audit note of a command with the details of its result.
RecordAudit = Callable[[UnitOfWork, Command, AuditNote, Mapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class CommandResult(Generic[T]):
    """Result of a command: `result` is None for a replay, `answer` without a render function."""

    result: T | None
    answer: StoredResponse | None
    is_replay: bool = False


@dataclass(frozen=True, slots=True)
class TransactionHooks(Generic[T]):
    """Additions to a change: `before` its transaction, and `on_commit` as its last statements."""

    before: Callable[[], Awaitable[None]]  # not for a replay
    on_commit: Callable[[UnitOfWork, T], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class IdempotentExecutor:
    """Runs a change in one transaction, at most once per key."""

    database: Database
    clock: Clock
    shared: SharedClock | None = None  # None: no other process uses the database
    record_audit: RecordAudit | None = None

    async def now(self, unit: UnitOfWork) -> datetime:
        """Returns the time that locks and leases compare with."""
        return await current_time(unit, self.shared, self.clock)

    async def run(
        self,
        command: Command,
        change: Callable[[UnitOfWork], Awaitable[T]],
        render: Render[T] | None = None,
        prepare: Callable[[], Awaitable[object]] | None = None,
        hooks: TransactionHooks[T] | None = None,
    ) -> CommandResult[T]:
        """Runs `change` under the command's key; claim, change and answer are one transaction.

        The database may restart `change`, so `change` must have no effect outside the database.
        `prepare` and `hooks.before` run outside the transaction and not for a replay; the claim is
        committed before them. A failure releases the key. After a lost commit, the outcome is read
        on another connection. Raises the errors of `change`, RefusedError
        (idempotency_key_reused) and ConflictError (idempotency_in_progress).
        """
        before = None if hooks is None else hooks.before
        preparations = [step for step in (before, prepare) if step is not None]
        change = self._with_audit(command, _with_hooks(change, hooks))
        key = command.idempotency_key
        if key is None or render is None:
            for step in preparations:
                await step()
            result = await self.database.run(change)
            return CommandResult(result, None if render is None else render(result))
        if preparations:
            return await self._run_claimed(command.actor, key, preparations, change, render)
        try:
            return await self.database.run(
                lambda unit: self._run_in(unit, command.actor, key, change, render)
            )
        except UnavailableError:
            stored = await self._look_up(command.actor, key)
            if stored is None:
                raise
            return CommandResult(None, stored)

    async def share(
        self, command: Command, work: Callable[[], Awaitable[T]], render: Render[T]
    ) -> CommandResult[T]:
        """Runs `work`, which commits its own transactions, and stores its answer under the key.

        `work` may be shared between callers and must be safe to repeat. Raises as `run` does.
        """
        results: list[T] = []

        async def prepare() -> None:
            results.append(await work())

        async def change(_: UnitOfWork) -> T:
            return results[-1]

        return await self.run(command, change, render, prepare)

    async def forget_old(self) -> int:
        """Deletes answers older than `KEEP`; returns their number."""
        async with self.database.write(BULK_STATEMENT_S) as unit:
            return await unit.get(IdempotencyRepository).forget(await self.now(unit) - KEEP)

    def _with_audit(
        self, command: Command, change: Callable[[UnitOfWork], Awaitable[T]]
    ) -> Callable[[UnitOfWork], Awaitable[T]]:
        """Records the audit note last: the chain is then locked for a short time only."""
        record, note = self.record_audit, command.audit
        if record is None or note is None:
            return change

        async def change_and_record(unit: UnitOfWork) -> T:
            result = await change(unit)
            await record(unit, command, note, note.details(result))
            return result

        return change_and_record

    async def _run_in(
        self,
        unit: UnitOfWork,
        principal: str,
        key: IdempotencyKey,
        change: Callable[[UnitOfWork], Awaitable[T]],
        render: Render[T],
        *,
        is_ours: bool = False,
    ) -> CommandResult[T]:
        """Claims, changes and stores the answer; `is_ours` if this request committed the claim."""
        if is_ours:
            # Locks the row: a request that took the claim over cannot run beside this one.
            await unit.get(IdempotencyRepository).lock(principal, key.key)
        stored = _stored(await self._claim(unit, principal, key), is_ours=is_ours)
        if stored is not None:
            return CommandResult(None, stored, is_replay=True)
        result = await change(unit)
        answer = render(result)
        row = ResponseRow(answer.status, dict(answer.headers), answer.body)
        await unit.get(IdempotencyRepository).complete(principal, key.key, row)
        return CommandResult(result, answer)

    async def _run_claimed(
        self,
        principal: str,
        key: IdempotencyKey,
        preparations: list[Callable[[], Awaitable[object]]],
        change: Callable[[UnitOfWork], Awaitable[T]],
        render: Render[T],
    ) -> CommandResult[T]:
        """Commits the claim, then runs the preparations and the change."""
        async with self.database.write() as unit:
            stored = _stored(await self._claim(unit, principal, key))
        if stored is not None:
            return CommandResult(None, stored, is_replay=True)
        try:
            for step in preparations:
                await step()
            return await self.database.run(
                lambda unit: self._run_in(unit, principal, key, change, render, is_ours=True)
            )
        except BaseException as error:
            # The rows of a lost transaction stay locked until the database decides its outcome;
            # this DELETE waits for that.
            async with self.database.write() as unit:
                await unit.get(IdempotencyRepository).release(principal, key.key)
                row = await unit.get(IdempotencyRepository).answer(principal, key.key)
            if row is None or not isinstance(error, UnavailableError):
                raise
            return CommandResult(None, _answer(row))

    async def _look_up(self, principal: str, key: IdempotencyKey) -> StoredResponse | None:
        """Returns the answer stored by a lost commit; waits until its outcome is decided."""
        async with self.database.write() as unit:
            claim = await self._claim(unit, principal, key)
            if claim.outcome is ClaimOutcome.CLAIMED:
                await unit.get(IdempotencyRepository).release(principal, key.key)
        return None if claim.answer is None else _answer(claim.answer)

    async def _claim(self, unit: UnitOfWork, principal: str, key: IdempotencyKey) -> KeyClaim:
        return await unit.get(IdempotencyRepository).claim(
            principal, key.key, "", key.fingerprint, await self.now(unit)
        )


def _with_hooks(
    change: Callable[[UnitOfWork], Awaitable[T]], hooks: TransactionHooks[T] | None
) -> Callable[[UnitOfWork], Awaitable[T]]:
    if hooks is None:
        return change

    async def change_and_hook(unit: UnitOfWork) -> T:
        result = await change(unit)
        await hooks.on_commit(unit, result)
        return result

    return change_and_hook


def _answer(row: ResponseRow) -> StoredResponse:
    return StoredResponse(row.status, row.headers, row.body)


def _stored(claim: KeyClaim, *, is_ours: bool = False) -> StoredResponse | None:
    """Returns the answer to replay; None if the caller may run the command.

    Raises RefusedError (idempotency_key_reused), ConflictError (idempotency_in_progress) and
    RateLimitedError (rate_limited).
    """
    if claim.outcome is ClaimOutcome.REUSED:
        raise RefusedError(
            Code.IDEMPOTENCY_KEY_REUSED, "This key already belongs to another request."
        )
    if claim.outcome is ClaimOutcome.OVER_CAP:
        raise RateLimitedError(
            Code.RATE_LIMITED,
            "Too many idempotency keys are stored; send the request without a key, or later.",
            retry_after_s=_CAP_RETRY_S,
        )
    if claim.outcome is ClaimOutcome.IN_PROGRESS and not is_ours:
        raise ConflictError(
            Code.IDEMPOTENCY_IN_PROGRESS,
            "A request with this key is still running.",
            retry_after_s=_RETRY_S,
        )
    return None if claim.answer is None else _answer(claim.answer)
