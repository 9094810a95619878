"""Origin guard: pages of other sites cannot change anything through a visitor's browser."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.foundation.errors import Code
from app.foundation.http.errors import problem_response

FOREIGN_PAGE: Final = 4403  # close code of a WebSocket
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class OriginGuard:
    """Refuses changes that a browser sends for a page of another origin.

    A browser names the page's origin with every request that may change something, and sends a
    bodyless one to loopback without a preflight. Other clients send no `Origin`.
    """

    app: ASGIApp
    allowed: Sequence[str] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and self._is_foreign(scope):
            # Browsers let any page open a WebSocket; a close before the handshake is a 403.
            await send({"type": "websocket.close", "code": FOREIGN_PAGE})
            return
        if scope["type"] == "http" and scope["method"] not in SAFE and self._is_foreign(scope):
            refused = problem_response(
                Request(scope),
                403,
                Code.FORBIDDEN,
                "A page of another origin may not change anything here.",
                headers={"Connection": "close"},
            )
            await refused(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _is_foreign(self, scope: Scope) -> bool:
        origins = [value for name, value in scope["headers"] if name == b"origin"]
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        texts = [origin.decode("latin-1") for origin in origins]
        own = hosts[0].decode("latin-1") if hosts else None
        return any(text not in self.allowed and place_of_origin(text) != own for text in texts)


def place_of_origin(origin: str) -> str | None:
    """Returns host and port of an origin; None for `null` and an invalid one."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None
