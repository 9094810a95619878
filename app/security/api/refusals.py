"""Counts refused requests for the chain of security events: 401, 403, 429, and four eyes."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.foundation.errors import Code
from app.foundation.http.origin_guard import FOREIGN_PAGE
from app.foundation.http.permissions import AUDIT, NOTE_REFUSAL, AccessAudit, principal_of
from app.security.api.authentication import FAILED
from app.security.api.client_address import CLIENT_ADDRESS
from app.security.api.rate_limiting import TOO_MANY
from app.security.domain.addresses import ClientAddress, site_of

_CONFLICT: Final = 409
_CODES: Final = {401: "unauthenticated", 403: "forbidden", 429: "rate_limited"}
NOTED: Final = "failure_noted"  # in the state of a request whose use case has counted it
_CLOSES: Final = {FOREIGN_PAGE: 403, TOO_MANY: 429}
_STARTS: Final = frozenset({"http.response.start", "websocket.http.response.start"})


@dataclass(frozen=True, slots=True)
class RefusalAuditMiddleware:
    """Outside of all guards, so that their refusals count too.

    An invalid credential and a failed log-in are counted as failed authentications already.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return

        def watched(message: Message) -> Awaitable[None]:
            # Not a coroutine itself: it runs for every part of every answer.
            status = _status(message)
            if status in _CODES or (status == _CONFLICT and _needs_four_eyes(scope)):
                _note(scope, status)
            return send(message)

        if scope["type"] == "websocket":
            scope.setdefault("state", {})[NOTE_REFUSAL] = lambda code: _count(scope, code)
        await self.app(scope, receive, watched)


def _status(message: Message) -> int:
    """Status of an answer, and what the close of a WebSocket stands for; 0 for other parts."""
    if message["type"] in _STARTS:
        return int(message["status"])
    is_close = message["type"] == "websocket.close"
    return _CLOSES.get(message.get("code", 0), 0) if is_close else 0


def _needs_four_eyes(scope: Scope) -> bool:
    return bool(scope.get("state", {}).get("problem_code") == Code.FOUR_EYES.value)


def _note(scope: Scope, status: int) -> None:
    state = scope.get("state", {})
    if not (state.get(NOTED) or (status == 401 and state.get(FAILED))):
        _count(scope, state.get("problem_code") or _CODES.get(status))


def _count(scope: Scope, code: str | None) -> None:
    state = scope.get("state", {})
    audit: AccessAudit | None = state.get(AUDIT)
    if audit is None:
        return
    client: ClientAddress | None = state.get(CLIENT_ADDRESS)
    site = site_of(None if client is None else client.counted)
    audit.note_refusal(principal_of(scope).actor, site or None, code)
