"""API keys over a database of a test: a service with a clock that the test moves."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher

from app.foundation.idempotency import Command, IdempotentExecutor
from app.foundation.principals import Role, Scope
from app.foundation.sql.database import Database
from app.security.domain.people import SessionPolicy, User
from app.security.services.audit import SecurityAudit
from app.security.services.key_ring import KeyRing
from app.security.services.keys import ApiKeyService, IssuedKey, KeyDraft
from app.security.services.passwords import PasswordHashing
from app.security.services.peppers import PepperStore
from app.security.services.session_ring import SessionRing
from app.security.services.sessions import IssuedSession, SessionService
from app.security.services.users import UserDraft, UserService
from app.security.storage.audit import SecurityEventRepository
from tests.support.trading_desk import NOW

PEPPER = "a pepper of the tests, 0123456789abcdef"
OTHER_PEPPER = "another pepper of them, fedcba9876543210"
SYSTEM = Command("local", "request")
PASSWORD = "violet harbor 71 kites"
QUICK = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)  # a test takes no second of it


@dataclass
class KeyDesk:
    """One process: its keys in memory and its use cases."""

    database: Database
    peppers: tuple[str, ...] = (PEPPER,)
    pepper_file: Path | None = None
    local_file: Path | None = None
    now: datetime = NOW
    seconds: float = 0.0  # of the monotonic clock
    policy: SessionPolicy = field(default_factory=SessionPolicy)
    _numbers: Any = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.store = PepperStore(self.peppers, self.pepper_file)
        people = SessionRing(self.database, self.clock, self.store, self.policy)
        self.ring = KeyRing(self.database, self.clock, self.store, self.new_id, people)
        executor = IdempotentExecutor(self.database, self.clock)
        self.service = ApiKeyService(
            self.database, self.clock, self.new_id, executor, self.store, self.ring,
            self.local_file,
        )  # fmt: skip
        self.users = UserService(self.service, PasswordHashing(QUICK))
        self.audit = SecurityAudit(self.database, self.clock, lambda: self.seconds)
        self.sessions = SessionService(self.users, lambda: self.seconds, self.audit)

    async def person(self, name: str, role: Role, *scopes: Scope, password: str = PASSWORD) -> User:
        """A new user."""
        draft = UserDraft(name, role, frozenset(scopes))
        return (await self.users.add(draft, password, SYSTEM)).user

    async def log_in(self, name: str, password: str = PASSWORD) -> IssuedSession:
        """A new session; attempts are not limited."""
        self.seconds += 60
        issued = await self.sessions.log_in(name, password, "127.0.0.1", None)
        assert issued is not None
        return issued

    async def failures(self) -> list[tuple[str, str | None, int]]:
        """Principal, code and count of failed authentications, in the order of these."""
        await self.audit.store_counts()
        async with self.database.read() as unit:
            events = unit.get(SecurityEventRepository)
            found = await events.page(None, 100, kind="authentication_failed")
        return sorted((one.principal, one.code, one.count) for one in found)

    async def log_ins(self) -> list[tuple[int, list[str]]]:
        """Number and owners of the sessions that each log-in ended, the newest first."""
        async with self.database.read() as unit:
            found = await unit.get(SecurityEventRepository).page(None, 100, kind="logged_in")
        names = ("ended_sessions", "owners_of_ended_sessions")
        return [(one.payload[names[0]], one.payload[names[1]]) for one in found]

    def clock(self) -> datetime:
        return self.now

    def new_id(self) -> str:
        return f"00000000-0000-0000-0000-{id(self) % 10**6:06d}{next(self._numbers):06d}"

    async def issue(self, name: str, role: Role | None = None, *scopes: Scope, **more: Any) -> str:
        """The text of a new key."""
        return (await self.issued(name, role, *scopes, **more)).token

    async def issued(
        self,
        name: str,
        role: Role | None = None,
        *scopes: Scope,
        sources: frozenset[str] = frozenset(),
        allow: tuple[str, ...] = (),
        lifetime: timedelta = timedelta(days=1),
    ) -> IssuedKey:
        draft = KeyDraft(name, role, frozenset(scopes), sources, allow, lifetime)
        outcome = await self.service.create(draft, SYSTEM)
        assert outcome.result is not None
        return outcome.result


# Of a page of this service, as a browser sends them with a change.
OWN_PAGE = {"Sec-Fetch-Site": "same-origin", "X-Requested-With": "fetch"}


def cookie(issued: IssuedSession, name: str = "mysym_session") -> dict[str, str]:
    return {"Cookie": f"{name}={issued.token}"}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
