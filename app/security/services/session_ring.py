"""Users and sessions in memory: finds a session without the database."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import structlog

from app.foundation.errors import ServiceError
from app.foundation.ports import Clock
from app.foundation.sql.database import Database, UnitOfWork
from app.security.domain.keys import Pepper
from app.security.domain.people import Session, SessionPolicy, User
from app.security.services.peppers import PepperStore
from app.security.storage.people import SessionRepository, UserRepository

STORE_INTERVAL: Final = timedelta(minutes=1)  # between two stored times of use of one session
_log = structlog.get_logger("security")


def hash_session(pepper: Pepper, token: str) -> str:
    """Stored form of the text of a session; no key has the same."""
    return pepper.hash(f"session {token}")


@dataclass(slots=True)
class SessionRing:
    """Users and sessions as they were read last, by the revision that covers both.

    Times of use in other processes are read again each minute, so that the idle time counts from
    the last use in any process, exact to two minutes.
    """

    database: Database
    clock: Clock
    peppers: PepperStore
    policy: SessionPolicy = field(default_factory=SessionPolicy)
    _users: dict[str, User] = field(default_factory=dict, init=False)
    _by_hash: dict[str, Session] = field(default_factory=dict, init=False)
    _by_id: dict[str, Session] = field(default_factory=dict, init=False)
    _last_use: dict[str, datetime] = field(default_factory=dict, init=False)
    _used: dict[str, datetime] = field(default_factory=dict, init=False)  # to be stored, by id
    _stored: dict[str, datetime] = field(default_factory=dict, init=False)
    _revision: str | None = field(default=None, init=False)
    _uses_read_at: datetime | None = field(default=None, init=False)

    @property
    def has_users(self) -> bool:
        """True once a user was created, whatever became of it."""
        return bool(self._users)

    @property
    def active_users(self) -> int:
        """Number of users that are not disabled."""
        return sum(one.is_active for one in self._users.values())

    def user(self, user_id: str) -> User | None:
        """Active user of that id; None for any other one."""
        user = self._users.get(user_id)
        return user if user is not None and user.is_active else None

    def find(self, token: str) -> Session | None:
        """Live session with that text; None for any other text."""
        for pepper in self.peppers.known():
            session = self._by_hash.get(hash_session(pepper, token))
            if session is not None:
                return session if self.is_live(session) else None
        return None

    def by_id(self, session_id: str) -> Session | None:
        """Live session of that id; None for any other one."""
        session = self._by_id.get(session_id)
        return session if session is not None and self.is_live(session) else None

    def live_sessions(self) -> tuple[Session, ...]:
        """Live sessions, the oldest first."""
        return tuple(session for session in self._by_id.values() if self.is_live(session))

    def is_live(self, session: Session) -> bool:
        """True if neither its end nor its idle time has passed."""
        return session.is_live(self.clock(), self.last_use(session), self.policy.idle)

    def last_use(self, session: Session) -> datetime:
        """Time of the last use that this process knows of."""
        return max(session.last_used_at, self._last_use.get(session.id, session.last_used_at))

    def note_use(self, session: Session) -> None:
        """Counts the idle time from now."""
        now = self.clock()
        self._last_use[session.id] = now
        if now - self._stored.get(session.id, session.last_used_at) >= STORE_INTERVAL:
            self._used[session.id] = now

    async def load(self, unit: UnitOfWork) -> None:
        """Reads users and sessions if their revision has changed. Raises UnavailableError."""
        users, sessions = unit.get(UserRepository), unit.get(SessionRepository)
        # Before the rest: a change between the two reads is then read again.
        revision = await users.revision()
        now = self.clock()
        if revision is not None and revision != self._revision:
            found, stored = await users.all(), await sessions.all()
            self._users = {user.id: user for user in found}
            self._by_hash = {session.hash: session for session in stored}
            self._by_id = {session.id: session for session in stored}
            self._last_use = {one: at for one, at in self._last_use.items() if one in self._by_id}
            self._stored = {one: at for one, at in self._stored.items() if one in self._by_id}
            self._revision, self._uses_read_at = revision, now
        elif self._by_id and self._must_read_uses(now):
            uses = await sessions.last_uses()
            for session_id, at in uses.items():
                self._last_use[session_id] = max(at, self._last_use.get(session_id, at))
            self._uses_read_at = now

    def _must_read_uses(self, now: datetime) -> bool:
        # The wall clock may have been set back.
        read_at = self._uses_read_at
        return read_at is None or abs(now - read_at) >= STORE_INTERVAL

    async def store_uses(self) -> None:
        """Stores the times of use; a failure is tried again."""
        if not self._used:
            return
        used = dict(self._used)
        try:
            async with self.database.write() as unit:
                for session_id, at in sorted(used.items()):
                    await unit.get(SessionRepository).used(session_id, at)
        except ServiceError as error:
            _log.warning("session_use_not_stored", cause=error.code.value)
            return
        self._stored |= used
        self._used = {one: at for one, at in self._used.items() if used.get(one) != at}
