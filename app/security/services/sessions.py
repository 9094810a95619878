"""Log-ins by password or API key, sessions and their end, and the change of an own password."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from app.foundation.errors import Code, ConflictError, NotFoundError, RateLimitedError
from app.foundation.idempotency import Command
from app.foundation.ports import Monotonic
from app.foundation.principals import ANONYMOUS, Principal, PrincipalKind, Role
from app.foundation.sql.database import UnitOfWork
from app.security.domain.addresses import ClientAddress, site_of
from app.security.domain.audit import SecurityDraft, SecurityEventKind
from app.security.domain.events import SessionChange, SessionChanged
from app.security.domain.failures import FailureCounter
from app.security.domain.keys import KeyState
from app.security.domain.people import Session, SessionPolicy, User
from app.security.services.audit import SecurityAudit
from app.security.services.key_ring import POLL_S, KeyRing
from app.security.services.session_ring import hash_session
from app.security.services.users import UserService
from app.security.storage.audit import SecurityEventRepository
from app.security.storage.keys import ApiKeyRepository
from app.security.storage.people import SessionRepository, UserRepository

MAX_SESSIONS: Final = 10  # of one user or key; the one that was used longest ago ends
MAX_ATTEMPTS: Final = 10  # a minute, by address
MAX_ATTEMPTS_ON_NAME: Final = 100  # a minute, by name: one address alone can block none
_TOKEN_BYTES: Final = 32
_SPREAD_S: Final = POLL_S + 0.1  # until every process has read a new session
_USE_DELAY: Final = timedelta(minutes=5)  # longest delay of a stored time of use, with a reserve
_log = structlog.get_logger("security")


# The caller that a new session authenticates, as it is in the transaction; None: no longer.
Owner = Callable[[UnitOfWork, str], Awaitable[Principal | None]]


# Codes of failed log-ins; an invalid key has those of KeyRing.explain.
_UNKNOWN_USER: Final = "unknown_user"
_WRONG_PASSWORD: Final = "wrong_password"  # noqa: S105  # a code, not a password
_DISABLED: Final = "disabled"
_WITHDRAWN: Final = "withdrawn"  # the user or key has changed during the log-in
_BLOCKED: Final = "blocked"  # beyond the limits: nothing was verified


@dataclass(frozen=True, slots=True)
class _Origin:
    """Origin of a log-in: its method, peer, the session of its browser, and request."""

    method: str  # password or key
    peer: str | None
    replaced: str | None
    request_id: str | None


def _attempts(most: int) -> FailureCounter:
    return FailureCounter(most - 1)


@dataclass(frozen=True, slots=True)
class IssuedSession:
    """New session with its text, which only its cookie has."""

    session: Session
    principal: Principal
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class LiveSession:
    """Session with the caller that it authenticates and the time of its last use."""

    session: Session
    principal: Principal
    last_used_at: datetime


@dataclass(frozen=True, slots=True)
class SessionService:
    """Use cases of sessions over those of users. Attempts are counted in this process."""

    users: UserService
    monotonic: Monotonic
    audit: SecurityAudit
    by_site: FailureCounter = field(default_factory=lambda: _attempts(MAX_ATTEMPTS))
    by_name: FailureCounter = field(default_factory=lambda: _attempts(MAX_ATTEMPTS_ON_NAME))

    @property
    def ring(self) -> KeyRing:
        return self.users.ring

    @property
    def policy(self) -> SessionPolicy:
        return self.ring.people.policy

    async def log_in(
        self,
        name: str,
        password: str,
        peer: str | None,
        replaced: str | None,
        request_id: str | None = None,
    ) -> IssuedSession | None:
        """Starts a session of a user, in place of the session `replaced`.

        None for a wrong name, a wrong password and a disabled user, after the same time. Raises
        RateLimitedError after too many attempts, PepperMissingError and UnavailableError.
        """
        self._admit(peer, name)
        user = await self._named(name)
        password_hash = None if user is None else user.password_hash
        is_right = await self.users.passwords.verify(password_hash, password)
        if user is None:
            self._note_failure(peer, _UNKNOWN_USER, ANONYMOUS.actor)
            return None
        actor = user.principal("").actor
        if not is_right or not user.is_active:
            self._note_failure(peer, _DISABLED if is_right else _WRONG_PASSWORD, actor)
            return None
        renewed = None
        if self.users.passwords.is_outdated(user.password_hash):
            renewed = await self.users.passwords.hash(password)
        account = user

        async def owner(unit: UnitOfWork, session_id: str) -> Principal | None:
            users = unit.get(UserRepository)
            stored = await users.get(account.id)
            has_changed = stored.password_changed_at != account.password_changed_at
            if not stored.is_active or has_changed:
                return None
            if renewed is not None:
                await users.rehash(account.id, account.password_hash, renewed)
            return stored.principal(session_id)

        origin = _Origin("password", peer, replaced, request_id)
        issued = await self._start(user.id, None, owner, origin)
        if issued is None:
            self._note_failure(peer, _WITHDRAWN, actor)
        return issued

    async def exchange(
        self,
        key: str,
        client: ClientAddress,
        replaced: str | None,
        request_id: str | None = None,
    ) -> IssuedSession | None:
        """Starts a session with the rights of an API key, which ends with the key at the latest.

        None for a key that is not valid for this client. Raises as `log_in` does.
        """
        self._admit(client.counted, None)
        principal = self.ring.identify(key, client.proven)
        if principal is None or principal.credential_id is None:
            self._note_failure(client.counted, *self.ring.explain(key, client.proven))
            return None
        key_id, caller = principal.credential_id, principal

        async def owner(unit: UnitOfWork, session_id: str) -> Principal | None:
            stored = await unit.get(ApiKeyRepository).get(key_id)
            is_active = stored.state(self.users.clock()) is KeyState.ACTIVE
            return replace(caller, session_id=session_id) if is_active else None

        origin = _Origin("key", client.counted, replaced, request_id)
        issued = await self._start(None, key_id, owner, origin)
        if issued is None:
            self._note_failure(client.counted, _WITHDRAWN, caller.actor)
        return issued

    async def list(self, caller: Principal) -> tuple[LiveSession, ...]:
        """Live sessions of the caller, of all callers for an administrator; the oldest first."""
        await self.ring.load()
        people = self.ring.people
        found = [(one, self.ring.session_principal(one)) for one in people.live_sessions()]
        return tuple(
            LiveSession(session, principal, people.last_use(session))
            for session, principal in found
            if principal is not None and _may_see(caller, principal)
        )

    async def end(
        self,
        session_id: str,
        caller: Principal,
        peer: str | None = None,
        request_id: str | None = None,
    ) -> None:
        """Ends a session within a second in every process; its open streams are closed.

        Raises NotFoundError, also for the session of another caller unless an administrator asks.
        """
        known = {one.session.id: one for one in await self.list(caller)}
        found = known.get(session_id)
        if found is None:
            raise NotFoundError(Code.NOT_FOUND, "There is no session with this id.")

        async def change(unit: UnitOfWork) -> None:
            users = unit.get(UserRepository)
            await users.lock()
            owner = found.principal.actor
            owners = await self._delete(unit, [(session_id, owner)], caller.actor)
            await users.renew_revision(self.users.new_id())
            if owners:
                is_own = session_id == caller.session_id
                await unit.get(SecurityEventRepository).append(
                    SecurityDraft(
                        SecurityEventKind.LOGGED_OUT if is_own else SecurityEventKind.SESSION_ENDED,
                        caller.actor,
                        self.users.clock(),
                        site_of(peer) or None,
                        subject=owner,
                        payload={"session_id": session_id},
                        request_id=request_id,
                    )
                )

        await self.users.database.run(change)
        await self.ring.load()

    async def change_password(
        self, caller: Principal, current: str, wanted: str, peer: str | None, command: Command
    ) -> User | None:
        """Replaces the password of the calling user, whose sessions all end.

        None for a wrong current password. Raises ConflictError for a caller without a password,
        and otherwise as `log_in` and `UserService.set_password` do.
        """
        if caller.kind is not PrincipalKind.USER or caller.credential_id is None:
            raise ConflictError(Code.INVALID_STATE_TRANSITION, "Only a user has a password.")
        self._admit(peer, caller.name)
        user = await self._named(caller.name)
        stored = None if user is None else user.password_hash
        if not await self.users.passwords.verify(stored, current):
            self._note_failure(peer, _WRONG_PASSWORD, caller.actor)
            return None
        return await self.users.set_password(caller.credential_id, wanted, command)

    def _admit(self, peer: str | None, name: str | None) -> None:
        """Counts an attempt. Raises RateLimitedError instead after too many ones."""
        now_s = self.monotonic()
        counted = [(self.by_site, site_of(peer))]
        if name is not None:
            counted.append((self.by_name, name))
        blocked = [counter.blocked_s(key, now_s) for counter, key in counted]
        waits_s = [wait_s for wait_s in blocked if wait_s is not None]
        if waits_s:
            self.audit.note_failure(ANONYMOUS.actor, site_of(peer) or None, _BLOCKED)
            raise RateLimitedError(
                Code.RATE_LIMITED, "Too many log-ins were tried.", retry_after_s=max(waits_s)
            )
        for counter, key in counted:
            counter.add(key, now_s)

    def _note_failure(self, peer: str | None, code: str, actor: str) -> None:
        # Without a name that no user has: people type passwords into the wrong field.
        _log.warning("login_failed", address=site_of(peer))
        self.audit.note_failure(actor, site_of(peer) or None, code)

    async def _named(self, name: str) -> User | None:
        async with self.users.database.read() as unit:
            return await unit.get(UserRepository).named(name)

    async def _start(
        self, user_id: str | None, key_id: str | None, owner: Owner, origin: _Origin
    ) -> IssuedSession | None:
        """Stores a session with a new text; None if its owner has lost the right meanwhile."""
        keys = self.users.keys
        pepper, now = keys.peppers.newest(), self.users.clock()
        token, replaced = keys.entropy(_TOKEN_BYTES).hex(), origin.replaced
        former = self._owner_of(replaced)  # may be another caller, in the same browser
        session = Session(
            id=self.users.new_id(),
            hash=hash_session(pepper, token),
            pepper_id=pepper.id,
            user_id=user_id,
            key_id=key_id,
            created_at=now,
            last_used_at=now,
            expires_at=now + self.policy.absolute,
        )

        async def change(unit: UnitOfWork) -> Principal | None:
            users, sessions = unit.get(UserRepository), unit.get(SessionRepository)
            await users.lock()
            principal = await owner(unit, session.id)
            if principal is None:
                return None
            await sessions.delete_ended(now, now - self.policy.idle - _USE_DELAY)
            own = [
                one
                for one in await sessions.all()
                if (one.user_id, one.key_id) == (user_id, key_id) and one.id != replaced
            ]
            own.sort(key=lambda one: (one.last_used_at, one.created_at, one.id))
            surplus = [one.id for one in own[: max(0, len(own) + 1 - MAX_SESSIONS)]]
            actor = principal.actor
            ended = [(one, actor) for one in surplus]
            if replaced is not None:
                ended.append((replaced, former or actor))
            owners = await self._delete(unit, ended, actor)
            await sessions.add(session)
            self._publish(unit, session.id, actor, SessionChange.STARTED, actor)
            await users.renew_revision(self.users.new_id())
            await unit.get(SecurityEventRepository).append(
                SecurityDraft(
                    SecurityEventKind.LOGGED_IN,
                    actor,
                    now,
                    site_of(origin.peer) or None,
                    origin.method,
                    payload={
                        "session_id": session.id,
                        "ended_sessions": len(owners),
                        "owners_of_ended_sessions": sorted(set(owners)),
                    },
                    request_id=origin.request_id,
                )
            )
            return principal

        principal = await self.users.database.run(change)
        if principal is None:
            return None
        await self.ring.load()
        if self.users.database.commits is None:  # the next request may reach another process
            await asyncio.sleep(_SPREAD_S)
        return IssuedSession(session, principal, token)

    def _owner_of(self, session_id: str | None) -> str | None:
        """Actor of a live session; None for any other one."""
        session = None if session_id is None else self.ring.people.by_id(session_id)
        principal = None if session is None else self.ring.session_principal(session)
        return None if principal is None else principal.actor

    async def _delete(
        self, unit: UnitOfWork, ended: Sequence[tuple[str, str]], actor: str
    ) -> Sequence[str]:
        """Ends those sessions that exist; returns the owner of each."""
        owners = []
        for session_id, owner in ended:
            if await unit.get(SessionRepository).delete([session_id]):
                self._publish(unit, session_id, owner, SessionChange.ENDED, actor)
                owners.append(owner)
        return owners

    def _publish(
        self, unit: UnitOfWork, session_id: str, owner: str, change: SessionChange, actor: str
    ) -> None:
        unit.publish_after_commit(
            SessionChanged(session_id, owner, change, actor, self.users.clock())
        )


def _may_see(caller: Principal, owner: Principal) -> bool:
    is_admin = caller.role is not None and caller.role.includes(Role.ADMIN)
    is_own = (caller.kind, caller.credential_id) == (owner.kind, owner.credential_id)
    return is_admin or is_own
