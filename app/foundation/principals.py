"""Roles, scopes, permissions and principals: who calls, and what an operation demands."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """Role of a principal; each role includes every lower one.

    Roles are ordered by `includes`, never by `<`, which compares their texts.
    """

    VIEWER = "viewer"
    TRADER = "trader"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, least: "Role") -> bool:
        """True if this role is `least` or a higher one."""
        return _RANKS[self] >= _RANKS[least]


_RANKS: Final = {role: rank for rank, role in enumerate(Role)}


class Scope(StrEnum):
    """Narrow right of a machine. `live` is needed in addition wherever real money moves."""

    PAIRLIST = "pairlist"
    METRICS = "metrics"
    SIGNALS = "signals"
    LIVE = "live"


class RouteLimit(StrEnum):
    """Limit of a route beside the general ones."""

    SIGNALS = "signals"  # replaces the limit of changes for callers with the scope `signals`
    HEAVY = "heavy"  # long computations: scoring and reports
    PREVIEW = "preview"  # computations of up to a second that a page repeats


class Access(StrEnum):
    """How callers are let in: those on this machine without a key, or everyone by keys."""

    OPEN = "open"
    KEYS = "keys"


class PrincipalKind(StrEnum):
    ANONYMOUS = "anonymous"  # no credential, or one that is not valid
    LOCAL = "local"  # caller on this machine while no key exists
    KEY = "key"
    USER = "user"


_NAMED: Final = frozenset({PrincipalKind.KEY, PrincipalKind.USER})  # an administrator named them


@dataclass(frozen=True, slots=True)
class Principal:
    """Authenticated caller of one request.

    `sources` names the signal sources that it may post for; an empty set allows every source.
    `credential_id` identifies the API key or the user; None for a caller without one. `session_id`
    identifies the session whose cookie has authenticated the caller; None for any other way.
    """

    kind: PrincipalKind
    name: str
    role: Role | None
    scopes: frozenset[Scope] = frozenset()
    sources: frozenset[str] = frozenset()
    credential_id: str | None = None
    session_id: str | None = None

    @property
    def actor(self) -> str:
        """Name in history and audit; the kind keeps callers apart from parts of the service."""
        return f"{self.kind.value}:{self.name}" if self.kind in _NAMED else self.name

    def may_post_for(self, source: str) -> bool:
        """True if this principal may post signals in the name of `source`."""
        return not self.sources or source in self.sources


ANONYMOUS: Final = Principal(PrincipalKind.ANONYMOUS, "anonymous", None)
LOCAL: Final = Principal(PrincipalKind.LOCAL, "local", Role.ADMIN)
# Before the keys are known, a caller on this machine may only read why the service is not ready.
LOCAL_READER: Final = Principal(PrincipalKind.LOCAL, "local", Role.VIEWER)


@dataclass(frozen=True, slots=True)
class Permission:
    """Demand of an operation: a least role, or a scope that grants it alone.

    Without a role the operation is open to everyone, or with `needs_principal` to every caller with
    a credential. `is_live` marks an operation that moves real money: it needs the scope `live` in
    addition, whatever the role.
    """

    role: Role | None
    scope: Scope | None = None
    is_live: bool = False
    needs_principal: bool = False

    @property
    def is_public(self) -> bool:
        return self.role is None and not self.needs_principal

    def allows(self, principal: Principal) -> bool:
        """True if `principal` may carry the operation out."""
        if self.role is None:
            return self.is_public or principal.kind is not PrincipalKind.ANONYMOUS
        if self.is_live and Scope.LIVE not in principal.scopes:
            return False
        if self.scope is not None and self.scope in principal.scopes:
            return True
        return principal.role is not None and principal.role.includes(self.role)

    def describe(self) -> str:
        """The demand in words: `role trader or scope signals`."""
        if self.role is None:
            return "nothing" if self.is_public else "a credential"
        scope = "" if self.scope is None else f" or scope {self.scope.value}"
        live = f" and scope {Scope.LIVE.value}" if self.is_live else ""
        return f"role {self.role.value}{scope}{live}"


PUBLIC: Final = Permission(None)
AUTHENTICATED: Final = Permission(None, needs_principal=True)
