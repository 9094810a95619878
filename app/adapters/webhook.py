"""Signed messages to webhooks, only to public addresses that were checked before connecting."""

import asyncio
import hashlib
import hmac
import ipaddress
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from app.domain.errors import Code, RefusedError, UnavailableError
from app.domain.notification import Channel, ChannelKind, Delivery

TIMEOUT_S: Final = 10.0
MAX_ANSWER_BYTES: Final = 64 * 1024
_PORTS: Final = frozenset({443, 8443})
_LOCAL_NAMES: Final = ("localhost", ".localhost", ".local", ".internal", ".lan", ".home.arpa")
# A last label that a resolver would read as a number: 127.1, 0x7f000001, 2130706433.
_NUMERIC: Final = re.compile(r"(?:^|\.)(?:0x[0-9a-f]*|[0-9]+)$", re.IGNORECASE)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]


async def addresses(host: str, port: int) -> list[str]:
    """Every A and AAAA of a name."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(entry[4][0]) for entry in found})


def is_public(address: Address) -> bool:
    """Whether an address belongs to the open internet, also inside of one that wraps another."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if any(one is not None and not is_public(one) for one in inner):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Webhook:
    """Posts notices as JSON. `allow_private` is for receivers of one's own network and for tests.

    `now_s` gives Unix seconds for the signature.
    """

    now_s: Callable[[], int]
    allow_private: bool = False
    resolve: Resolve = addresses
    timeout_s: float = TIMEOUT_S

    @property
    def kind(self) -> ChannelKind:
        return ChannelKind.WEBHOOK

    def check(self, channel: Channel) -> None:
        """Raises RefusedError (webhook_url_forbidden) for an address that is never asked."""
        parts = _split(channel.url)
        if parts.username is not None or parts.password is not None:
            raise _forbidden("it must hold no user and no password")
        if self.allow_private:
            return
        if parts.scheme != "https" or (parts.port or 443) not in _PORTS:
            raise _forbidden("it must be https, on port 443 or 8443")
        host = (parts.hostname or "").rstrip(".").lower()
        if _is_literal(host):
            if not is_public(ipaddress.ip_address(host)):
                raise _forbidden("it must be a public address")
        elif _NUMERIC.search(host):
            raise _forbidden("an address must be written in full")
        elif "." not in host or host.endswith(_LOCAL_NAMES):
            raise _forbidden("it must be a public name")

    async def send(self, channel: Channel, delivery: Delivery) -> None:
        """One delivery over a connection of its own; raises as `line` does."""
        async with self.line(channel) as tell:
            await tell(delivery)

    @asynccontextmanager
    async def line(self, channel: Channel) -> AsyncIterator[Callable[[Delivery], Awaitable[None]]]:
        """Deliveries one after the other over one connection, to the addresses looked at now.

        Raises UnavailableError or RefusedError, whose text holds no part of the address.
        """
        self.check(channel)
        parts = _split(channel.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        async with self._judged():
            pinned = _Pinned(await self._checked(str(parts.hostname), port))
        connector = aiohttp.TCPConnector(resolver=pinned, use_dns_cache=False, limit=1)
        session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),  # what a receiver sets is none of our business
            timeout=aiohttp.ClientTimeout(),  # `_judged` has the time
            headers={"Content-Type": "application/json", "User-Agent": "my-symbols"},
        )
        async with session:

            async def tell(delivery: Delivery) -> None:
                async with self._judged():
                    try:
                        status = await self._post(session, channel, delivery)
                    except aiohttp.ServerDisconnectedError:
                        # The receiver had ended the connection between two: that is its right.
                        status = await self._post(session, channel, delivery)
                if not 200 <= status < 300:
                    raise _undelivered(f"answered {status}")

            yield tell

    @asynccontextmanager
    async def _judged(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.timeout_s):
                yield
        except TimeoutError:
            raise _undelivered("no answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _undelivered(type(error).__name__) from None

    async def _checked(self, host: str, port: int) -> list[str]:
        """The addresses to connect to; all of them must be public, or none is used."""
        found = [host] if _is_literal(host) else await self.resolve(host, port)
        if not self.allow_private and not all(
            is_public(ipaddress.ip_address(one)) for one in found
        ):
            raise _forbidden("its name leads to an address that is not public")
        return found

    async def _post(
        self, session: aiohttp.ClientSession, channel: Channel, delivery: Delivery
    ) -> int:
        body = content(delivery)
        stamp = self.now_s()
        headers = {
            "X-Event-Id": event_id(delivery),
            "X-Signature": signature(channel.secret or "", stamp, body),
        }
        asked = session.post(channel.url, data=body, headers=headers, allow_redirects=False)
        async with asked as answer:
            await answer.content.read(MAX_ANSWER_BYTES)  # taken and forgotten
            return answer.status


@dataclass(slots=True)
class _Pinned(AbstractResolver):
    """Gives the addresses that were checked, whatever the name has become since."""

    found: list[str] = field(default_factory=list)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del family
        return [
            ResolveResult(
                hostname=host,
                host=one,
                port=port,
                family=socket.AF_INET6 if ":" in one else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for one in self.found
        ]

    async def close(self) -> None:
        """Nothing is held."""


def event_id(delivery: Delivery) -> str:
    """The same for every attempt: a receiver that has seen it does nothing."""
    seq = delivery.notice.event_seq
    return f"notice-{delivery.id}" if seq is None else f"event-{seq}"


def content(delivery: Delivery) -> bytes:
    """The body, the same bytes at every attempt."""
    notice = delivery.notice
    document: dict[str, Any] = {
        "id": event_id(delivery),
        "kind": notice.kind.value,
        "critical": notice.is_critical,
        "title": notice.title,
        "body": notice.body,
        "created_at": delivery.created_at.isoformat().replace("+00:00", "Z"),
        "event": dict(notice.event),
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def signature(secret: str, stamp: int, body: bytes) -> str:
    """`t=<Unix seconds>,v1=<HMAC-SHA256 of "t.body" in hex>`; refuse what is older than 5 min."""
    message = f"{stamp}.".encode() + body
    return f"t={stamp},v1={hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()}"


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _forbidden("it is not an address") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise _forbidden("it is not an address")
    return parts


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _forbidden(why: str) -> RefusedError:
    return RefusedError(Code.WEBHOOK_URL_FORBIDDEN, f"The URL of a webhook is refused: {why}.")


def _undelivered(why: str) -> UnavailableError:
    return UnavailableError(Code.RECEIVER_UNAVAILABLE, why)
