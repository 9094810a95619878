"""Client address of each request, behind trusted proxies too, and the allow list of the service."""

from dataclasses import dataclass
from typing import Final

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.foundation.errors import Code
from app.foundation.http.errors import problem_response
from app.foundation.http.origin_guard import FOREIGN_PAGE
from app.foundation.http.responses import MORE_HEADERS, TRANSPORT_SECURITY
from app.security.domain.addresses import (
    ClientAddress,
    client_of,
    is_loopback,
    networks_contain,
)

CLIENT_ADDRESS: Final = "client_address"  # in the state of a request: its ClientAddress
_FORWARDED_FOR: Final = b"x-forwarded-for"
_FORWARDED_PROTO: Final = b"x-forwarded-proto"
_FORWARDED_PREFIX: Final = b"x-forwarded"
_FORWARDING: Final = frozenset(
    {
        *(b"forwarded", b"x-real-ip", b"via", b"x-client-ip", b"true-client-ip", b"x-forward-for"),
        *(b"cf-connecting-ip", b"cf-ray", b"fastly-client-ip", b"fly-client-ip", b"cdn-loop"),
        *(b"x-cluster-client-ip", b"x-original-forwarded-for", b"x-envoy-external-address"),
        *(b"x-azure-clientip", b"x-appengine-user-ip", b"x-amzn-trace-id", b"x-original-host"),
    }
)
_SECURE: Final = {"http": "https", "ws": "wss"}
_log = structlog.get_logger("security")


@dataclass(frozen=True, slots=True)
class ClientAddressMiddleware:
    """Puts the client address into the state of each request; enforces the allow list.

    Networks are in CIDR notation. Only requests of `trusted_proxies` are read for X-Forwarded-For
    and X-Forwarded-Proto. A non-empty `allowed` refuses all other clients but those on this
    machine; a proxy on this machine does not make its clients local.
    """

    app: ASGIApp
    trusted_proxies: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        peer, state = peer_of(scope), scope.setdefault("state", {})
        client = ClientAddress(peer, peer)
        if self.trusted_proxies and peer and networks_contain(self.trusted_proxies, peer):
            client = self._read_proxy(scope, peer)
        state[CLIENT_ADDRESS] = client
        if self.allowed and not self._admits(scope, client):
            _log.warning("address_refused", address=client.counted)
            await _refuse(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _read_proxy(self, scope: Scope, peer: str) -> ClientAddress:
        """Client address by the headers of a trusted proxy; also takes over its scheme."""
        hops: list[str] = []
        protocols: list[bytes] = []
        is_forwarded = False
        for name, value in scope["headers"]:
            if name == _FORWARDED_FOR:
                hops.append(value.decode("latin-1"))
            elif name == _FORWARDED_PROTO:
                protocols.append(value)
            elif is_forwarding(name):
                is_forwarded = True
        if protocols and protocols[-1].rpartition(b",")[2].strip().lower() == b"https":
            scope["scheme"] = _SECURE.get(scope["scheme"], scope["scheme"])
            scope["state"][MORE_HEADERS] = (TRANSPORT_SECURITY,)
        if not hops:  # headers that only name the client in another way are not read
            return ClientAddress(peer, None if is_forwarded or protocols else peer)
        return client_of(peer, hops, self.trusted_proxies)

    def _admits(self, scope: Scope, client: ClientAddress) -> bool:
        if client.proven is None:
            return False
        if networks_contain(self.allowed, client.proven):
            return True
        is_direct = client.proven == peer_of(scope)
        return is_loopback(client.proven) and not (
            is_direct and any(is_forwarding(name) for name, _ in scope["headers"])
        )


def peer_of(scope: Scope) -> str | None:
    """Address of the peer; None where the server does not know it."""
    client = scope.get("client")
    return None if client is None else str(client[0])


def client_of_request(scope: Scope) -> ClientAddress:
    """Client address that the middleware has found."""
    client: ClientAddress = scope["state"][CLIENT_ADDRESS]
    return client


def is_forwarding(name: bytes) -> bool:
    """True for a header by which a proxy shows that it has forwarded the request."""
    return name.startswith(_FORWARDED_PREFIX) or name in _FORWARDING


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":  # a close before the handshake is a 403
        await send({"type": "websocket.close", "code": FOREIGN_PAGE})
        return
    refused = problem_response(
        Request(scope),
        403,
        Code.FORBIDDEN,
        "This address is not on the allow list of the service.",
        headers={"Connection": "close"},
    )
    await refused(scope, receive, send)
