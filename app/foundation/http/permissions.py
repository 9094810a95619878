"""Permission of each route: declaration, check before the body is read, form in OpenAPI."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, Final, Protocol, TypeVar

from fastapi import APIRouter, Depends
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute
from starlette.types import Scope as AsgiScope

from app.foundation.errors import Code, RateLimitedError, ServiceError
from app.foundation.http.csrf import require_own_page
from app.foundation.http.errors import RequestError
from app.foundation.principals import (
    ANONYMOUS,
    AUTHENTICATED,
    PUBLIC,
    Access,
    Permission,
    Principal,
    Role,
    Scope,
)

AUTHENTICATOR: Final = "authenticator"  # key of the Authenticator in the state of the lifespan
AUDIT: Final = "audit"  # key of the AccessAudit in the state of the lifespan
PRINCIPAL: Final = "principal"  # in the state of a request
NOTE_REFUSAL: Final = "note_refusal"  # in the state of a WebSocket: function of a code
BLOCKED_S: Final = "blocked_s"  # in the state: too many failures, seconds until the next attempt
WRONG_PRINCIPAL: Final = 4401  # close code of a WebSocket whose credential is no longer valid
CREDENTIAL_ERROR: Final = "credential_error"  # in the state: why a credential cannot be verified
CHECKS_PERMISSION: Final = "checks_permission"  # attribute of routes that do
_PERMISSION: Final = "__permission__"
_TAKES_TICKET: Final = "__takes_ticket__"
_UNAUTHENTICATED: Final = (
    "A valid API key or session is needed: Authorization: Bearer KEY, the header X-API-Key, or a"
    " log-in at /sessions."
)
SESSION_COOKIE: Final = "__Host-mysym_session"  # under TLS: of this host, for all of its paths
PLAIN_SESSION_COOKIE: Final = "mysym_session"  # without TLS, where browsers refuse the other one
SECURITY_SCHEMES: Final[Mapping[str, Any]] = {
    "bearerKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "API key in `Authorization: Bearer mysym_...`.",
    },
    "headerKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same API key in a header of its own.",
    },
    "sessionCookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": SESSION_COOKIE,
        "description": f"Session of a log-in, without TLS named `{PLAIN_SESSION_COOKIE}`; changes"
        " also need the header X-Requested-With.",
    },
}

Endpoint = TypeVar("Endpoint")


class UndeclaredRouteError(Exception):
    """A route has no permission, so that the application must not start."""


class Authenticator(Protocol):
    """Verifies credentials and says when a principal ends; filled by the security capability."""

    @property
    def is_open(self) -> bool:
        """True while no key exists, so that callers on this machine need none."""
        ...

    def identify(self, token: str, peer: str | None) -> Principal | None:
        """The principal of a key that is valid for this peer address; None for any other text."""
        ...

    def explain(self, token: str, peer: str | None) -> tuple[str, str]:
        """Why `identify` knows no principal: a code, and the actor whom the key was made for."""
        ...

    def identify_session(
        self, token: str, peer: str | None, *, is_protected: bool
    ) -> Principal | None:
        """The principal of a live session; None for any other text.

        `is_protected` is True under TLS and for a caller on this machine.
        """
        ...

    def watch(
        self, principal: Principal, on_end: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """Calls `on_end` once, within a second after the principal lost its credential."""
        ...


class AccessAudit(Protocol):
    """Counts refused requests and invalid credentials; filled by the security capability."""

    def note_refusal(self, principal: str, address: str | None, code: str | None) -> None: ...

    def note_failure(self, principal: str, address: str | None, code: str) -> None: ...


def requires(
    role: Role, *, scope: Scope | None = None, is_live: bool = False
) -> Callable[[Endpoint], Endpoint]:
    """Declares the least role of a route, and the scope that grants it alone."""
    return _declare(Permission(role, scope, is_live))


def authenticated(endpoint: Endpoint) -> Endpoint:
    """Declares that a route is open to every caller with a credential, whatever its role."""
    return _declare(AUTHENTICATED)(endpoint)


def public(endpoint: Endpoint) -> Endpoint:
    """Declares that a route, or a mounted application, is open to everyone."""
    return _declare(PUBLIC)(endpoint)


def takes_ticket(endpoint: Endpoint) -> Endpoint:
    """Declares that a one-time ticket in the query may authenticate a GET route or a WebSocket."""
    setattr(endpoint, _TAKES_TICKET, True)
    return endpoint


def ticket_paths(routers: Iterable[APIRouter], prefix: str) -> frozenset[str]:
    """Paths of the routes that take tickets, all of them without parameters."""
    return frozenset(
        prefix + getattr(route, "path", "")
        for router in routers
        for route in router.routes
        if getattr(getattr(route, "endpoint", None), _TAKES_TICKET, False)
    )


def _declare(permission: Permission) -> Callable[[Endpoint], Endpoint]:
    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _PERMISSION, permission)
        return endpoint

    return mark


def permission_of(route: object) -> Permission | None:
    """Declared permission of a route or of a mounted application; None without a declaration."""
    declared = getattr(route, "endpoint", None) or getattr(route, "app", None)
    permission: Permission | None = getattr(declared, _PERMISSION, None)
    return permission


def require_declarations(routes: Iterable[BaseRoute]) -> None:
    """Raises UndeclaredRouteError that names every route without a permission or its check."""
    known = list(routes)
    missing = sorted(_name_of(route) for route in known if permission_of(route) is None)
    if missing:
        raise UndeclaredRouteError(
            f"No permission is declared for {', '.join(missing)}: add @requires(Role...) or"
            " @public to the endpoint."
        )
    unchecked = sorted(_name_of(route) for route in known if not _is_checked(route))
    if unchecked:
        raise UndeclaredRouteError(
            f"The permission of {', '.join(unchecked)} is never checked: make its router with"
            " api_router."
        )


def _is_checked(route: BaseRoute) -> bool:
    permission = permission_of(route)
    is_public = permission is not None and permission.is_public
    return is_public or getattr(route, CHECKS_PERMISSION, False)


def _name_of(route: BaseRoute) -> str:
    methods = ",".join(sorted(getattr(route, "methods", None) or ())) or type(route).__name__
    return f"{methods} {getattr(route, 'path', '?')}"


def principal_of(scope: AsgiScope) -> Principal:
    """Principal of a request; anonymous where no middleware has authenticated it."""
    principal: Principal = scope.get("state", {}).get(PRINCIPAL, ANONYMOUS)
    return principal


def may_use(route: object, scope: AsgiScope) -> bool:
    """True if the caller of the request may use the route; False without a declaration."""
    permission = permission_of(route)
    return permission is not None and permission.allows(principal_of(scope))


def check_permission(scope: AsgiScope, permission: Permission | None) -> None:
    """Passes a caller that the permission allows.

    Raises RequestError (unauthenticated) for an anonymous caller, RateLimitedError after too many
    invalid keys from its address, UnavailableError while its credential cannot be verified,
    RequestError (csrf_refused) for a change by cookie that no page of this origin asks for, and
    RequestError (forbidden) for any other caller.
    """
    principal = principal_of(scope)
    if principal.session_id is not None:
        require_own_page(scope)
    if permission is not None and permission.allows(principal):
        return
    if principal is not ANONYMOUS:
        needed = "another permission" if permission is None else permission.describe()
        raise RequestError(Code.FORBIDDEN, f"This operation needs {needed}.")
    error: ServiceError | None = scope["state"].get(CREDENTIAL_ERROR)
    if error is not None:
        raise error
    blocked_s: float | None = scope["state"].get(BLOCKED_S)
    if blocked_s is not None:
        raise RateLimitedError(
            Code.RATE_LIMITED,
            "Too many invalid keys came from this address.",
            retry_after_s=blocked_s,
        )
    raise RequestError(Code.UNAUTHENTICATED, _UNAUTHENTICATED)


def note_refusal(scope: AsgiScope, code: Code) -> None:
    """Counts a command that was refused within an open WebSocket, as a refused request."""
    note: Callable[[str], None] | None = scope["state"].get(NOTE_REFUSAL)
    if note is not None:
        note(code.value)


def watch_principal(scope: AsgiScope, on_end: Callable[[], None]) -> AbstractContextManager[None]:
    """Calls `on_end` once if the caller of a request loses its credential meanwhile."""
    authenticator: Authenticator | None = scope["state"].get(AUTHENTICATOR)
    if authenticator is None:
        return nullcontext()
    return authenticator.watch(principal_of(scope), on_end)


def access_of(scope: AsgiScope) -> Access:
    """How callers are let in now; by keys until the service knows whether one exists."""
    authenticator: Authenticator | None = scope["state"].get(AUTHENTICATOR)
    is_open = authenticator is not None and authenticator.is_open
    return Access.OPEN if is_open else Access.KEYS


def permission_guard(endpoint: object) -> Any:
    """Dependency that checks the permission of a WebSocket before it is accepted."""
    permission: Permission | None = getattr(endpoint, _PERMISSION, None)

    async def check(connection: HTTPConnection) -> None:
        check_permission(connection.scope, permission)

    return Depends(check)


def openapi_security(endpoint: object) -> dict[str, Any]:
    """Fields of an operation that say how to authenticate and which role it needs."""
    permission: Permission | None = getattr(endpoint, _PERMISSION, None)
    if permission is None or permission.is_public:
        return {"security": []}
    role = {} if permission.role is None else {"x-required-role": permission.role.value}
    scope = {} if permission.scope is None else {"x-required-scope": permission.scope.value}
    live = {"x-requires-live": True} if permission.is_live else {}
    return {"security": [{name: []} for name in SECURITY_SCHEMES], **role, **scope, **live}


async def get_principal(connection: HTTPConnection) -> Principal:
    """Principal of the request."""
    return principal_of(connection.scope)


async def get_actor(connection: HTTPConnection) -> str:
    """Actor that history and audit record for this request."""
    return principal_of(connection.scope).actor


PrincipalDep = Annotated[Principal, Depends(get_principal)]
ActorDep = Annotated[str, Depends(get_actor)]
