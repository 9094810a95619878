"""Authenticates every request before anything answers it: key, session, local or anonymous."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from app.foundation.http.permissions import (
    AUDIT,
    AUTHENTICATOR,
    BLOCKED_S,
    PRINCIPAL,
    AccessAudit,
    Authenticator,
)
from app.foundation.principals import ANONYMOUS, LOCAL, LOCAL_READER, Principal
from app.security.api.client_address import client_of_request, is_forwarding
from app.security.api.cookies import is_encrypted, read_session_cookie
from app.security.domain.addresses import ClientAddress, is_loopback, site_of
from app.security.domain.failures import FailureCounter
from app.security.domain.keys import BRAND

_BEARER: Final = b"bearer"
# Keys in a URL end up in logs and histories: such a request is never authenticated.
_KEY_IN_QUERY: Final = re.compile(
    rb"(?:^|[&;])(?:x[-_])?(?:api[-_]?key|access[-_]?token|token|key|authorization|auth)="
    rb"|" + BRAND.encode(),
    re.IGNORECASE,
)
_UNREADABLE: Final = ""  # stands for a credential of another scheme; no key is empty
FAILED: Final = "authentication_failed"  # in the state of a request with an invalid credential
_log = structlog.get_logger("security")


@dataclass(frozen=True, slots=True)
class AuthenticationMiddleware:
    """Puts the principal of each request into its state; routes check their permission later.

    Outside of the response cache, inside of the guards for host, origin and start-up. A request
    with an invalid key continues as an anonymous one, so that public routes answer it, and every
    other route gives the same answer as without a key.
    """

    app: ASGIApp
    monotonic: Callable[[], float]
    failures: FailureCounter = field(default_factory=FailureCounter)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"}:
            scope.setdefault("state", {})[PRINCIPAL] = self._authenticate(scope)
        await self.app(scope, receive, send)

    def _authenticate(self, scope: Scope) -> Principal:
        authenticator: Authenticator | None = scope["state"].get(AUTHENTICATOR)
        client = client_of_request(scope)
        tokens, is_forwarded, cookies = _read_headers(scope)
        # A proxy on this machine makes every peer a local one: its headers tell that it is there.
        is_local = is_loopback(client.proven) and not is_forwarded
        if authenticator is None:  # the service does not know its keys yet
            return LOCAL_READER if is_local else ANONYMOUS
        has_key_in_query = bool(scope["query_string"]) and is_key_in_query(scope["query_string"])
        if not tokens and not has_key_in_query:
            session = None if not cookies else read_session_cookie(scope, cookies)
            if session is not None:
                is_protected = is_local or is_encrypted(scope)
                principal = authenticator.identify_session(
                    session, client.proven, is_protected=is_protected
                )
                if principal is not None:
                    return principal
            if authenticator.is_open and is_local:
                return LOCAL
        elif len(tokens) == 1 and not has_key_in_query:
            token = next(iter(tokens))
            principal = authenticator.identify(token, client.proven)
            if principal is not None:
                return principal
            self._note_failure(scope, client, *authenticator.explain(token, client.proven))
        else:
            code = "key_in_query" if has_key_in_query else "several_keys"
            self._note_failure(scope, client, code, ANONYMOUS.actor)
        if self.failures:
            blocked_s = self.failures.blocked_s(site_of(client.counted), self.monotonic())
            if blocked_s is not None:
                scope["state"][BLOCKED_S] = blocked_s
        return ANONYMOUS

    def _note_failure(self, scope: Scope, client: ClientAddress, code: str, actor: str) -> None:
        site, now_s = site_of(client.counted), self.monotonic()
        if self.failures.blocked_s(site, now_s) is None:  # a flood must not fill the log
            _log.warning("authentication_failed", address=site)
        self.failures.add(site, now_s)
        scope["state"][FAILED] = True
        audit: AccessAudit | None = scope["state"].get(AUDIT)
        if audit is not None:
            audit.note_failure(actor, site or None, code)


def is_key_in_query(query: bytes) -> bool:
    """True if the query string names a credential, also in percent-encoded form."""
    text = unquote_to_bytes(query) if b"%" in query else query
    return _KEY_IN_QUERY.search(text) is not None


def is_local_caller(scope: Scope) -> bool:
    """True for a caller on this machine whose request no proxy has forwarded."""
    _, is_forwarded, _ = _read_headers(scope)
    return is_loopback(client_of_request(scope).proven) and not is_forwarded


def _read_headers(scope: Scope) -> tuple[set[str], bool, list[bytes]]:
    """Distinct credentials of a request, whether a proxy has forwarded it, and its cookies."""
    tokens: set[str] = set()
    cookies: list[bytes] = []
    is_forwarded = False
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, rest = value.strip().partition(b" ")
            is_bearer = scheme.lower() == _BEARER
            tokens.add(rest.strip().decode("latin-1") if is_bearer else _UNREADABLE)
        elif name == b"x-api-key":
            tokens.add(value.strip().decode("latin-1"))
        elif is_forwarding(name):
            is_forwarded = True
        elif name == b"cookie":
            cookies.append(value)
    return tokens, is_forwarded, cookies
