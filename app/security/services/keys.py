"""Creates, lists, rotates and revokes API keys; the first key comes with a local key file."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from app.foundation.errors import Code, ConflictError, RefusedError
from app.foundation.hash_chain import instant_text
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor, Render
from app.foundation.ports import Clock, NewId
from app.foundation.principals import Role, Scope
from app.foundation.sql.database import Database, UnitOfWork
from app.security.domain.audit import SecurityDraft, SecurityEventKind
from app.security.domain.events import ApiKeyChanged, KeyChange
from app.security.domain.keys import (
    ENTROPY_BYTES,
    LOCAL_KEY,
    ApiKey,
    KeyState,
    create_token,
    order_scopes,
    prefix_of,
)
from app.security.services.key_ring import KeyRing
from app.security.services.peppers import PepperStore
from app.security.services.secret_files import replace_secret
from app.security.storage.audit import SecurityEventRepository
from app.security.storage.keys import ApiKeyRepository

EXPIRY: Final = timedelta(days=365)  # of a key that names none
GRACE: Final = timedelta(hours=24)  # the replaced key stays valid for so long
_LOOPBACK: Final = ("127.0.0.0/8", "::1/128")
_log = structlog.get_logger("security")


@dataclass(frozen=True, slots=True)
class KeyDraft:
    """Wanted key: at least a role or a scope; `sources` bind the scope `signals`."""

    name: str
    role: Role | None = None
    scopes: frozenset[Scope] = frozenset()
    sources: frozenset[str] = frozenset()
    allow: tuple[str, ...] = ()
    lifetime: timedelta = EXPIRY


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """New key with its text, which is shown once; `has_local_key`: the file was written too."""

    key: ApiKey
    token: str = field(repr=False)
    has_local_key: bool = False


@dataclass(frozen=True, slots=True)
class ApiKeyService:
    """Use cases of API keys. `local_file` is the place of the local key; None: there is none."""

    database: Database
    clock: Clock
    new_id: NewId
    idempotency: IdempotentExecutor
    peppers: PepperStore
    ring: KeyRing
    local_file: Path | None
    entropy: Callable[[int], bytes] = secrets.token_bytes

    async def list(self) -> tuple[ApiKey, ...]:
        """All keys by name, also expired and revoked ones."""
        async with self.database.read() as unit:
            return await unit.get(ApiKeyRepository).all()

    async def create(
        self, draft: KeyDraft, command: Command, render: Render[IssuedKey] | None = None
    ) -> CommandResult[IssuedKey]:
        """Creates a key, and the local key if it is the first one.

        Raises RefusedError for a key without role and scope or with sources alone, ConflictError
        if an active key has the name, and PepperMissingError.
        """
        if draft.role is None and not draft.scopes:
            raise RefusedError(
                Code.VALIDATION_FAILED, "A key needs a role or a scope.", field="role"
            )
        if draft.sources and Scope.SIGNALS not in draft.scopes:
            raise RefusedError(
                Code.VALIDATION_FAILED, "Sources need the scope signals.", field="sources"
            )
        if draft.name == LOCAL_KEY:
            raise RefusedError(
                Code.VALIDATION_FAILED,
                f"{LOCAL_KEY} is the name of the key in the local file.",
                field="name",
            )
        wanted = self._issue(draft, command)
        local = self.issue_local(command)

        async def change(unit: UnitOfWork) -> IssuedKey:
            repository = unit.get(ApiKeyRepository)
            await repository.lock()
            has_local_key = await self.add_local_if_first(unit, local, command)
            await self._require_free(repository, draft.name)
            await repository.add(wanted.key)
            await _record(unit, wanted.key, KeyChange.CREATED, command, wanted.key.created_at)
            await repository.renew_revision(self.new_id())
            return replace(wanted, has_local_key=has_local_key)

        outcome = await self.idempotency.run(command, change, render)
        if outcome.result is not None and outcome.result.has_local_key:
            self.write_local(local)
        await self.ring.load()
        return outcome

    async def rotate(
        self,
        key_id: str,
        grace: timedelta,
        command: Command,
        render: Render[IssuedKey] | None = None,
    ) -> CommandResult[IssuedKey]:
        """Replaces a key by a new one with the same rights; the old one expires after `grace`.

        The new key lives as long as the old one was meant to. Raises NotFoundError, and
        ConflictError for a key that is not active.
        """
        entropy = self.entropy(ENTROPY_BYTES)

        async def change(unit: UnitOfWork) -> IssuedKey:
            repository = unit.get(ApiKeyRepository)
            await repository.lock()
            old, now = await repository.get(key_id), self.clock()
            if old.state(now) is not KeyState.ACTIVE:
                raise ConflictError(
                    Code.INVALID_STATE_TRANSITION,
                    f"Only an active key can be rotated; this one is {old.state(now).value}.",
                )
            lifetime = None if old.expires_at is None else old.expires_at - old.created_at
            issued = self._sealed(
                replace(
                    old,
                    id=self.new_id(),
                    created_by=command.actor,
                    created_at=now,
                    expires_at=None if lifetime is None else now + lifetime,
                    last_used_at=None,
                ),
                entropy,
            )
            await repository.expire([old.id], now + grace)
            await repository.add(issued.key)
            await repository.renew_revision(self.new_id())
            expiring = await repository.get(old.id)
            await _record(unit, issued.key, KeyChange.ROTATED, command, now, expiring)
            return replace(issued, has_local_key=old.name == LOCAL_KEY)

        outcome = await self.idempotency.run(command, change, render)
        if outcome.result is not None and outcome.result.has_local_key:
            self.write_local(outcome.result)
        await self.ring.load()
        return outcome

    async def revoke(
        self, key_id: str, command: Command, render: Render[ApiKey] | None = None
    ) -> CommandResult[ApiKey]:
        """Revokes a key at once; a revoked one stays as it is. Raises NotFoundError."""

        async def change(unit: UnitOfWork) -> ApiKey:
            repository, now = unit.get(ApiKeyRepository), self.clock()
            await repository.lock()
            key = await repository.get(key_id)
            if key.revoked_at is None:
                await repository.revoke([key_id], now)
                await repository.renew_revision(self.new_id())
                await _record(unit, key, KeyChange.REVOKED, command, now)
            return await repository.get(key_id)

        outcome = await self.idempotency.run(command, change, render)
        await self.ring.load()
        return outcome

    async def find(self, name_or_id: str) -> tuple[ApiKey, ...]:
        """Active keys of that name, prefix or id, the newest last."""
        now = self.clock()
        return tuple(
            key
            for key in await self.list()
            if name_or_id in {key.name, key.prefix, key.id} and key.state(now) is KeyState.ACTIVE
        )

    async def add_local_if_first(
        self, unit: UnitOfWork, local: IssuedKey, command: Command
    ) -> bool:
        """Stores the local key if no key was ever created; True if it did.

        The transaction must hold the lock of the keys; `write_local` follows its commit.
        """
        repository = unit.get(ApiKeyRepository)
        if self.local_file is None or await repository.has_any():
            return False
        await repository.add(local.key)
        await _record(unit, local.key, KeyChange.CREATED, command, local.key.created_at)
        await repository.renew_revision(self.new_id())
        return True

    async def _require_free(self, repository: ApiKeyRepository, name: str) -> None:
        now = self.clock()
        if any(key.state(now) is KeyState.ACTIVE for key in await repository.named(name)):
            raise ConflictError(
                Code.KEY_NAME_TAKEN, "An active key has this name: rotate it, or revoke it first."
            )

    def _issue(self, draft: KeyDraft, command: Command) -> IssuedKey:
        return self._create(draft, command, self.clock() + draft.lifetime)

    def issue_local(self, command: Command) -> IssuedKey:
        """A key for the local key file, not stored yet. Raises PepperMissingError."""
        draft = KeyDraft(LOCAL_KEY, Role.ADMIN, allow=_LOOPBACK)
        return self._create(draft, command, None)

    def _create(self, draft: KeyDraft, command: Command, expires_at: datetime | None) -> IssuedKey:
        key = ApiKey(
            id=self.new_id(),
            name=draft.name,
            prefix="",
            hash="",
            pepper_id="",
            role=draft.role,
            scopes=draft.scopes,
            sources=draft.sources,
            allow=draft.allow,
            created_by=command.actor,
            created_at=self.clock(),
            expires_at=expires_at,
        )
        return self._sealed(key, self.entropy(ENTROPY_BYTES))

    def _sealed(self, key: ApiKey, entropy: bytes) -> IssuedKey:
        """Key with a new text and its hash under the newest pepper."""
        token, pepper = create_token(entropy), self.peppers.newest()
        sealed = replace(
            key, prefix=prefix_of(token) or "", hash=pepper.hash(token), pepper_id=pepper.id
        )
        return IssuedKey(sealed, token)

    def write_local(self, local: IssuedKey) -> None:
        """Writes the local key file; the command line names another key without it."""
        if self.local_file is None:
            return
        try:
            replace_secret(self.local_file, local.token)
        except OSError as error:
            _log.error("local_key_not_written", cause=error.strerror)


_KINDS: Final = {
    KeyChange.CREATED: SecurityEventKind.KEY_CREATED,
    KeyChange.ROTATED: SecurityEventKind.KEY_ROTATED,
    KeyChange.REVOKED: SecurityEventKind.KEY_REVOKED,
}


async def _record(
    unit: UnitOfWork,
    key: ApiKey,
    change: KeyChange,
    command: Command,
    at: datetime,
    replaced: ApiKey | None = None,
) -> None:
    """Publishes the change and adds it to the chain of security events, in its transaction.

    `replaced` is the former key after a rotation, with the end of its grace.
    """
    role = None if key.role is None else key.role.value
    scopes = tuple(order_scopes(key.scopes))
    unit.publish_after_commit(
        ApiKeyChanged(key.id, key.name, key.prefix, change, role, scopes, command.actor, at)
    )
    former = {}
    if replaced is not None:
        former = {
            "replaced_key_id": replaced.id,
            "replaced_key_expires_at": _instant(replaced.expires_at),
        }
    await unit.get(SecurityEventRepository).append(
        SecurityDraft(
            _KINDS[change],
            command.actor,
            at,
            subject=key.name,
            payload={
                "key_id": key.id,
                "prefix": key.prefix,
                "role": role,
                "scopes": list(scopes),
                "sources": sorted(key.sources),
                "allow": list(key.allow),
                "expires_at": _instant(key.expires_at),
                **former,
            },
            request_id=command.request_id,
        )
    )


def _instant(at: datetime | None) -> str | None:
    return None if at is None else instant_text(at)
