"""Host guard: refuses requests for unknown host names, against DNS rebinding."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.foundation.errors import Code
from app.foundation.http.errors import problem_response

MISDIRECTED: Final = 4421  # close code of a WebSocket
_AUTHORITY: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._\-]+)(?::[0-9]{1,5})?", re.ASCII)
_LOOPBACK: Final = "localhost"
_REMEMBERED: Final = 64


@dataclass(frozen=True, slots=True)
class HostGuard:
    """Refuses all requests, reads included, for a host name that is not allowed.

    DNS rebinding: the name of a malicious page resolves to this machine, so the page reads here as
    its own origin; its requests carry its name. Numeric addresses cannot be rebound, and loopback
    names never leave the machine: both are allowed, at any port. `allowed` has further names. A
    client without a Host header is not a browser.
    """

    app: ASGIApp
    allowed: frozenset[str] = frozenset()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._is_meant(scope):
            await self.app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": MISDIRECTED})
            return
        refused = problem_response(
            Request(scope),
            421,
            Code.HOST_NOT_ALLOWED,
            "This service is not known by that name. Ask by its address, or add the name to "
            "MYSYMBOLS_HTTP__ALLOWED_HOSTS.",
            headers={"Connection": "close"},
        )
        await refused(scope, receive, send)

    def _is_meant(self, scope: Scope) -> bool:
        """Returns True if every host name of the request is allowed."""
        for name, value in scope["headers"]:
            if name == b"host" and not _is_ours(value, self.allowed):
                return False
        return True


@lru_cache(_REMEMBERED)
def _is_ours(authority: bytes, allowed: frozenset[str]) -> bool:
    return is_ours(authority.decode("latin-1"), allowed)


def is_ours(authority: str, allowed: Collection[str]) -> bool:
    """Returns True for an IP address, a loopback name or one of `allowed`, at any port."""
    found = _AUTHORITY.fullmatch(authority.lower())
    if found is None:
        return False
    name = found.group(1).removesuffix(".")
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return name in allowed or name == _LOOPBACK or name.endswith("." + _LOOPBACK)
    return True
