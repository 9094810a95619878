"""Valid keys in memory: verifies a key or session without the database, within a second anew."""

import asyncio
import hmac
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from app.foundation.errors import ServiceError
from app.foundation.ports import Clock, NewId
from app.foundation.principals import ANONYMOUS, Principal, PrincipalKind
from app.foundation.sql.database import Database, UnitOfWork
from app.security.domain.keys import ApiKey, KeyState, Pepper, prefix_of
from app.security.domain.people import Session
from app.security.services.peppers import PepperStore, pepper_missing
from app.security.services.session_ring import SessionRing
from app.security.storage.keys import ApiKeyRepository

OPEN_MODE: Final = (
    "no API key and no user exists: callers on this machine may do everything but live trading;"
    " end it with `my-symbols keys create NAME --role admin`"
)
POLL_S: Final = 0.4  # a change must hold everywhere within a second
USE_INTERVAL: Final = timedelta(minutes=1)  # between two stored times of use of one key
_NO_PEPPER: Final = Pepper(b"no pepper of this key is known", "")
_NO_HASH: Final = "0" * 64
_log = structlog.get_logger("security")


@dataclass(frozen=True, slots=True)
class _KeyEntry:
    """Key with the values that each of its requests needs."""

    key: ApiKey
    pepper: Pepper
    principal: Principal


@dataclass(slots=True, eq=False)
class _Watch:
    """Open stream of a principal."""

    principal: Principal
    on_end: Callable[[], None]


@dataclass(slots=True)
class KeyRing:
    """Authenticator over the keys of the database; every process polls their revision.

    A database that is away leaves the keys as they were read last.
    """

    database: Database
    clock: Clock
    peppers: PepperStore
    new_id: NewId
    people: SessionRing
    # One at a time: a slow load must not put an older state over a newer one.
    _loading: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _entries: dict[str, _KeyEntry] = field(default_factory=dict, init=False)  # by prefix
    _by_id: dict[str, _KeyEntry] = field(default_factory=dict, init=False)
    _ended: dict[str, _KeyEntry] = field(default_factory=dict, init=False)  # by prefix
    _revision: str | None = field(default=None, init=False)
    _mark: object = field(default=None, init=False)  # of the database as it was read last
    _has_keys: bool = field(default=False, init=False)
    _watches: set[_Watch] = field(default_factory=set, init=False)
    _used: dict[str, datetime] = field(default_factory=dict, init=False)  # to be stored, by id
    _stored_use: dict[str, datetime] = field(default_factory=dict, init=False)
    _tokens: dict[str, str] = field(
        default_factory=dict, init=False, repr=False
    )  # to be hashed anew, by id

    @property
    def is_open(self) -> bool:
        """True while no key and no user was ever created."""
        return not (self._has_keys or self.people.has_users)

    @property
    def active_keys(self) -> int:
        """Number of keys that are valid now."""
        now = self.clock()
        return sum(entry.key.state(now) is KeyState.ACTIVE for entry in self._entries.values())

    def identify(self, token: str, peer: str | None) -> Principal | None:
        """The principal of a valid key; None for any other text, in the same time."""
        prefix = prefix_of(token)
        if prefix is None:
            return None
        entry = self._entries.get(prefix)
        pepper = _NO_PEPPER if entry is None else entry.pepper
        expected = _NO_HASH if entry is None else entry.key.hash
        is_same = hmac.compare_digest(pepper.hash(token), expected)
        if entry is None or not is_same:
            return None
        now = self.clock()
        if entry.key.state(now) is not KeyState.ACTIVE or not entry.key.admits(peer):
            return None
        self._note_use(entry, token, now)
        return entry.principal

    def identify_session(
        self, token: str, peer: str | None, *, is_protected: bool
    ) -> Principal | None:
        """The principal of a live session; None for any other text.

        A session without TLS from another machine (not `is_protected`) is none, unless the policy
        allows it.
        """
        session = self.people.find(token)
        if session is None:
            return None
        return self.admit_session(session, peer, is_protected=is_protected)

    def admit_session(
        self, session: Session, peer: str | None, *, is_protected: bool
    ) -> Principal | None:
        """The principal of a live session for a request from `peer`, which counts as its use."""
        if not is_protected and not self.people.policy.allows_plain:
            return None
        principal = self.session_principal(session)
        entry = None if session.key_id is None else self._by_id.get(session.key_id)
        if principal is None or (entry is not None and not entry.key.admits(peer)):
            return None
        self.people.note_use(session)
        return principal

    def key_principal(self, key_id: str, peer: str | None) -> Principal | None:
        """The caller that an active key authenticates from `peer`; None for any other key."""
        entry = self._active_entry(key_id)
        return entry.principal if entry is not None and entry.key.admits(peer) else None

    def session_principal(self, session: Session) -> Principal | None:
        """The caller that a live session authenticates; None once its user or key has ended."""
        if session.key_id is not None:
            entry = self._active_entry(session.key_id)
            return None if entry is None else replace(entry.principal, session_id=session.id)
        user = self.people.user(session.user_id or "")
        return None if user is None else user.principal(session.id)

    def expiry_of(self, principal: Principal) -> datetime | None:
        """Latest time until which the credential of a caller is valid; None without an end."""
        ends = []
        if principal.kind is PrincipalKind.KEY:
            entry = self._active_entry(principal.credential_id or "")
            ends.append(None if entry is None else entry.key.expires_at)
        if principal.session_id is not None:
            session = self.people.by_id(principal.session_id)
            ends.append(None if session is None else session.expires_at)
        return min((end for end in ends if end is not None), default=None)

    def _active_entry(self, key_id: str) -> _KeyEntry | None:
        entry = self._by_id.get(key_id)
        is_active = entry is not None and entry.key.state(self.clock()) is KeyState.ACTIVE
        return entry if is_active else None

    def explain(self, token: str, peer: str | None) -> tuple[str, str]:
        """Why `identify` knows no principal: a code, and the actor whom the key was made for.

        The code is malformed, unknown, expired, revoked or address. The actor is anonymous unless
        the text is the whole key.
        """
        prefix = prefix_of(token)
        if prefix is None:
            return "malformed", ANONYMOUS.actor
        entry = self._entries.get(prefix) or self._ended.get(prefix)
        pepper = _NO_PEPPER if entry is None else entry.pepper
        expected = _NO_HASH if entry is None else entry.key.hash
        is_same = hmac.compare_digest(pepper.hash(token), expected)
        if entry is None or not is_same:
            return "unknown", ANONYMOUS.actor
        state = entry.key.state(self.clock())
        code = "address" if state is KeyState.ACTIVE else state.value
        return code, entry.principal.actor

    def _note_use(self, entry: _KeyEntry, token: str, now: datetime) -> None:
        key_id = entry.key.id
        before = self._stored_use.get(key_id) or entry.key.last_used_at
        if before is None or now - before >= USE_INTERVAL:
            self._used[key_id] = now
        if entry.pepper is not self.peppers.known()[0]:
            self._tokens[key_id] = token

    @contextmanager
    def watch(self, principal: Principal, on_end: Callable[[], None]) -> Iterator[None]:
        """Calls `on_end` once, within a second after the principal lost its credential."""
        watch = _Watch(principal, on_end)
        self._watches.add(watch)
        try:
            yield
        finally:
            self._watches.discard(watch)

    async def load(self) -> None:
        """Reads keys, users and sessions if their revision has changed.

        Raises PepperMissingError if keys are active and no pepper of any of them is known, at the
        first load only, and UnavailableError.
        """
        async with self._loading:
            # Before the read: a commit meanwhile is then read again.
            mark = await self.database.change_mark()
            if mark is not None and mark == self._mark:
                return  # where it is known, no other process serves sessions and stores their use
            async with self.database.read() as unit:
                await self._read(unit)
            self._mark = mark

    async def _read(self, unit: UnitOfWork) -> None:
        await self.people.load(unit)
        repository = unit.get(ApiKeyRepository)
        # Before the keys: a change between the two reads is then read again.
        revision = await repository.revision()
        if revision is None or revision == self._revision:
            return
        self._take_over(await repository.all())
        self._revision = revision

    def _take_over(self, keys: tuple[ApiKey, ...]) -> None:
        peppers = {pepper.id: pepper for pepper in self.peppers.known()}
        now = self.clock()
        self._has_keys = self._has_keys or bool(keys)
        active = [key for key in keys if key.state(now) is KeyState.ACTIVE]
        entries = {
            key.prefix: _KeyEntry(key, peppers[key.pepper_id], key.principal())
            for key in active
            if key.pepper_id in peppers
        }
        # Later, an error here would leave revoked keys valid.
        if active and not entries and self._revision is None:
            raise pepper_missing("The stored keys were hashed under another pepper")
        self._ended = {
            key.prefix: _KeyEntry(key, peppers[key.pepper_id], key.principal())
            for key in keys
            if key.state(now) is not KeyState.ACTIVE and key.pepper_id in peppers
        }
        unknown = sorted(key.name for key in active if key.pepper_id not in peppers)
        if unknown:
            _log.warning("keys_without_pepper", keys=unknown)
        self._entries = entries
        self._by_id = {entry.key.id: entry for entry in entries.values()}

    async def follow(self, beat: Callable[[], None]) -> None:
        """Follows the keys until cancelled. Raises UnavailableError; call it again then."""
        while True:
            try:
                await self.load()
            finally:
                self._end_watches()
            await self._store_uses()
            await self.people.store_uses()
            beat()
            await asyncio.sleep(POLL_S)

    def _end_watches(self) -> None:
        for watch in [one for one in self._watches if not self._is_current(one.principal)]:
            self._watches.discard(watch)
            watch.on_end()

    def _is_current(self, principal: Principal) -> bool:
        if principal.kind is PrincipalKind.LOCAL:
            return self.is_open
        if principal.session_id is not None:
            session = self.people.by_id(principal.session_id)
            return session is not None and self.session_principal(session) == principal
        return self._active_entry(principal.credential_id or "") is not None

    async def _store_uses(self) -> None:
        """Stores times of use and hashes under the newest pepper; a failure is tried again."""
        if not self._used and not self._tokens:
            return
        used, tokens = dict(self._used), dict(self._tokens)
        newest = self.peppers.newest()
        try:
            async with self.database.write() as unit:
                repository = unit.get(ApiKeyRepository)
                for key_id, at in used.items():
                    await repository.used(key_id, at)
                for key_id, token in tokens.items():
                    if (entry := self._by_id.get(key_id)) is not None:
                        await repository.rehash(
                            key_id, entry.key.hash, newest.hash(token), newest.id
                        )
                if tokens:
                    await repository.renew_revision(self.new_id())
        except ServiceError as error:
            _log.warning("key_use_not_stored", cause=error.code.value)
            return
        self._stored_use |= used
        self._used = {key_id: at for key_id, at in self._used.items() if key_id not in used}
        self._tokens.clear()
