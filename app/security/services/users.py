"""Creates, lists, changes and disables users, and sets their passwords."""

from dataclasses import dataclass, replace

from app.foundation.errors import Code, ConflictError, RefusedError
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor, Render
from app.foundation.ports import Clock, NewId
from app.foundation.principals import Role, Scope
from app.foundation.sql.database import Database, UnitOfWork
from app.security.domain.audit import SecurityDraft, SecurityEventKind
from app.security.domain.events import SessionChange, SessionChanged, UserChange, UserChanged
from app.security.domain.keys import KeyState, order_scopes
from app.security.domain.people import User, normalize_password, password_fault
from app.security.services.key_ring import KeyRing
from app.security.services.keys import ApiKeyService
from app.security.services.passwords import PasswordHashing
from app.security.storage.audit import SecurityEventRepository
from app.security.storage.keys import ApiKeyRepository
from app.security.storage.people import SessionRepository, UserRepository


@dataclass(frozen=True, slots=True)
class UserDraft:
    """Wanted user."""

    name: str
    role: Role
    scopes: frozenset[Scope] = frozenset()


@dataclass(frozen=True, slots=True)
class UserEdit:
    """Wanted values of a user; None leaves a value as it is."""

    role: Role | None = None
    scopes: frozenset[Scope] | None = None
    is_active: bool | None = None


@dataclass(frozen=True, slots=True)
class AddedUser:
    """New user; `has_local_key`: the local key file was written, too."""

    user: User
    has_local_key: bool = False


@dataclass(frozen=True, slots=True)
class UserService:
    """Use cases of users over those of API keys."""

    keys: ApiKeyService
    passwords: PasswordHashing

    @property
    def database(self) -> Database:
        return self.keys.database

    @property
    def clock(self) -> Clock:
        return self.keys.clock

    @property
    def new_id(self) -> NewId:
        return self.keys.new_id

    @property
    def idempotency(self) -> IdempotentExecutor:
        return self.keys.idempotency

    @property
    def ring(self) -> KeyRing:
        return self.keys.ring

    async def list(self) -> tuple[User, ...]:
        """All users by name, also disabled ones."""
        async with self.database.read() as unit:
            return await unit.get(UserRepository).all()

    async def find(self, name_or_id: str) -> User | None:
        """User of that name or id; None if there is none."""
        found = (user for user in await self.list() if name_or_id in {user.name, user.id})
        return next(found, None)

    async def add(self, draft: UserDraft, password: str, command: Command) -> AddedUser:
        """Creates a user, and the local key if no key was ever created.

        An idempotency key is not used: its fingerprint would store a fast hash of the password.
        Raises RefusedError for a password that breaks a rule, ConflictError if the name is taken,
        PepperMissingError, and UnavailableError.
        """
        require_good_password(password, draft.name)
        local = self.keys.issue_local(command)
        password_hash = await self.passwords.hash(password)
        now = self.clock()
        user = User(
            id=self.new_id(),
            name=draft.name,
            role=draft.role,
            scopes=draft.scopes,
            password_hash=password_hash,
            created_by=command.actor,
            created_at=now,
            password_changed_at=now,
        )

        async def change(unit: UnitOfWork) -> AddedUser:
            users = await self._lock(unit)
            if await users.named(user.name) is not None:
                raise ConflictError(Code.USER_NAME_TAKEN, "A user has this name already.")
            has_local_key = await self.keys.add_local_if_first(unit, local, command)
            await users.add(user)
            await users.renew_revision(self.new_id())
            await self._record(unit, user, UserChange.CREATED, command)
            return AddedUser(user, has_local_key)

        added = await self.database.run(change)
        if added.has_local_key:
            self.keys.write_local(local)
        await self.ring.load()
        return added

    async def edit(
        self, user_id: str, edit: UserEdit, command: Command, render: Render[User] | None = None
    ) -> CommandResult[User]:
        """Changes role, scopes or state of a user; one that is disabled loses all sessions.

        Raises NotFoundError, and ConflictError (last_admin) where no other active administrator,
        neither user nor key, would remain.
        """

        async def change(unit: UnitOfWork) -> User:
            users, now = await self._lock(unit), self.clock()
            user = await users.get(user_id)
            edited = replace(
                user,
                role=user.role if edit.role is None else edit.role,
                scopes=user.scopes if edit.scopes is None else edit.scopes,
            )
            if edit.is_active is not None and edit.is_active is not user.is_active:
                edited = replace(edited, disabled_at=None if edit.is_active else now)
            if edited == user:
                return user
            if _is_admin(user) and not _is_admin(edited):
                await self._require_other_admin(unit, user)
            await users.put(edited)
            ended = 0 if edited.is_active else await self._end_sessions(unit, user, command)
            await users.renew_revision(self.new_id())
            for one in _changes(user, edited):
                number = ended if one is UserChange.DISABLED else 0
                await self._record(unit, edited, one, command, number)
            return edited

        outcome = await self.idempotency.run(command, change, render)
        await self.ring.load()
        return outcome

    async def set_password(self, user_id: str, password: str, command: Command) -> User:
        """Replaces the password and ends all sessions of the user.

        An idempotency key is not used, as in `add`. Raises NotFoundError, RefusedError for a
        password that breaks a rule, and UnavailableError.
        """
        async with self.database.read() as unit:
            name = (await unit.get(UserRepository).get(user_id)).name
        require_good_password(password, name)
        password_hash = await self.passwords.hash(password)

        async def change(unit: UnitOfWork) -> User:
            users = await self._lock(unit)
            user = replace(
                await users.get(user_id),
                password_hash=password_hash,
                password_changed_at=self.clock(),
            )
            await users.put(user)
            ended = await self._end_sessions(unit, user, command)
            await users.renew_revision(self.new_id())
            await self._record(unit, user, UserChange.PASSWORD_CHANGED, command, ended)
            return user

        user = await self.database.run(change)
        await self.ring.load()
        return user

    async def _lock(self, unit: UnitOfWork) -> UserRepository:
        """Locks keys, then users: always in this order."""
        await unit.get(ApiKeyRepository).lock()
        users = unit.get(UserRepository)
        await users.lock()
        return users

    async def _require_other_admin(self, unit: UnitOfWork, user: User) -> None:
        now = self.clock()
        users, keys = await unit.get(UserRepository).all(), await unit.get(ApiKeyRepository).all()
        has_user = any(_is_admin(other) and other.id != user.id for other in users)
        has_key = any(key.role is Role.ADMIN and key.state(now) is KeyState.ACTIVE for key in keys)
        if not has_user and not has_key:
            raise ConflictError(
                Code.LAST_ADMIN,
                "This is the last active administrator, and no admin key exists: add one first.",
            )

    async def _end_sessions(self, unit: UnitOfWork, user: User, command: Command) -> int:
        """Ends all sessions of a user; returns their number."""
        ended = await unit.get(SessionRepository).delete_of_user(user.id)
        for session_id in ended:
            unit.publish_after_commit(
                SessionChanged(
                    session_id,
                    user.principal(session_id).actor,
                    SessionChange.ENDED,
                    command.actor,
                    self.clock(),
                )
            )
        return len(ended)

    async def _record(
        self,
        unit: UnitOfWork,
        user: User,
        change: UserChange,
        command: Command,
        ended_sessions: int = 0,
    ) -> None:
        """Publishes the change and adds it to the chain of security events, in its transaction."""
        scopes, now = tuple(order_scopes(user.scopes)), self.clock()
        unit.publish_after_commit(
            UserChanged(user.id, user.name, change, user.role.value, scopes, command.actor, now)
        )
        await unit.get(SecurityEventRepository).append(
            SecurityDraft(
                SecurityEventKind.USER_CHANGED,
                command.actor,
                now,
                code=change.value,
                subject=user.name,
                payload={
                    "user_id": user.id,
                    "role": user.role.value,
                    "scopes": list(scopes),
                    "ended_sessions": ended_sessions,
                },
                request_id=command.request_id,
            )
        )


def require_good_password(password: str, name: str) -> None:
    """Raises RefusedError with the broken rule."""
    fault = password_fault(normalize_password(password), name)
    if fault is not None:
        raise RefusedError(Code.VALIDATION_FAILED, fault, field="password")


def _is_admin(user: User) -> bool:
    return user.is_active and user.role is Role.ADMIN


def _changes(before: User, after: User) -> list[UserChange]:
    found = []
    if (before.role, before.scopes) != (after.role, after.scopes):
        found.append(UserChange.CHANGED)
    if before.is_active is not after.is_active:
        found.append(UserChange.ENABLED if after.is_active else UserChange.DISABLED)
    return found
