"""Authenticates every request before anything answers it: key, session, ticket, local or none."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote_to_bytes

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from app.foundation.errors import ServiceError
from app.foundation.http.permissions import (
    AUDIT,
    AUTHENTICATOR,
    BLOCKED_S,
    CREDENTIAL_ERROR,
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
from app.security.services.tickets import TicketService

_BEARER: Final = b"bearer"
# Keys in a URL end up in logs and histories: such a request is never authenticated.
_KEY_IN_QUERY: Final = re.compile(
    rb"(?:^|[&;])(?:x[-_])?(?:api[-_]?key|access[-_]?token|token|key|authorization|auth)="
    rb"|" + BRAND.encode(),
    re.IGNORECASE,
)
_UNREADABLE: Final = ""  # stands for a credential of another scheme; no key is empty
TICKETS: Final = "tickets"  # key of the TicketService in the state of the lifespan
_TICKET: Final = "ticket"  # name of the query parameter
_MAX_QUERY_FIELDS: Final = 64
FAILED: Final = "authentication_failed"  # in the state of a request with an invalid credential
_log = structlog.get_logger("security")


@dataclass(frozen=True, slots=True)
class AuthenticationMiddleware:
    """Puts the principal of each request into its state; routes check their permission later.

    Outside of the response cache, inside of the guards for host, origin and start-up. A request
    with an invalid key continues as an anonymous one, so that public routes answer it, and every
    other route gives the same answer as without a key. A ticket in the query authenticates on the
    paths `ticket_paths` only, in place of a cookie.
    """

    app: ASGIApp
    monotonic: Callable[[], float]
    ticket_paths: frozenset[str] = frozenset()
    failures: FailureCounter = field(default_factory=FailureCounter)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"}:
            tickets = self._read_tickets(scope) if scope["query_string"] else ()
            principal = (
                await self._exchange(scope, tickets) if tickets else self._authenticate(scope)
            )
            scope.setdefault("state", {})[PRINCIPAL] = principal
        await self.app(scope, receive, send)

    def _read_tickets(self, scope: Scope) -> Sequence[str]:
        """Values of the parameter `ticket` where a ticket authenticates; most requests have none.

        The preflight of a page uses up no ticket.
        """
        if scope["path"] not in self.ticket_paths:
            return ()
        if scope["type"] == "http" and scope["method"] != "GET":
            return ()
        try:
            pairs = parse_qsl(
                scope["query_string"].decode("latin-1"),
                keep_blank_values=True,
                max_num_fields=_MAX_QUERY_FIELDS,
            )
        except ValueError:  # too many parameters
            return ()
        return [value for name, value in pairs if name == _TICKET]

    async def _exchange(self, scope: Scope, texts: Sequence[str]) -> Principal:
        """Principal of the one ticket; it excludes every other credential but a cookie."""
        state = scope["state"]
        tickets: TicketService | None = state.get(TICKETS)
        if tickets is None:  # the service does not know its keys yet
            return ANONYMOUS
        client = client_of_request(scope)
        tokens, is_forwarded, _ = _read_headers(scope)
        if tokens or len(texts) > 1 or is_key_in_query(scope["query_string"]):
            self._note_failure(scope, client, "several_keys", ANONYMOUS.actor)
            return self._refuse(scope, client)
        is_local = is_loopback(client.proven) and not is_forwarded
        try:
            result = await tickets.exchange(
                texts[0], client, is_local=is_local, is_protected=is_local or is_encrypted(scope)
            )
        except ServiceError as error:
            state[CREDENTIAL_ERROR] = error
            return ANONYMOUS
        if result.principal is not None:
            return result.principal
        self._note_failure(scope, client, result.code, result.actor)
        return self._refuse(scope, client)

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
        return self._refuse(scope, client)

    def _refuse(self, scope: Scope, client: ClientAddress) -> Principal:
        """Anonymous caller; the state says whether its address has failed too often."""
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
