"""Egress check: connections of channels go to public addresses that were checked before."""

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

import aiohttp
import aiosmtplib
from aiohttp.abc import AbstractResolver, ResolveResult

from app.foundation.errors import Code, RefusedError, UnavailableError

# Setting that allows private addresses and plain HTTP; refused addresses name it.
ALLOW_PRIVATE: Final = "MYSYMBOLS_NOTIFICATIONS__ALLOW_PRIVATE_ADDRESSES"
MAX_ANSWER_BYTES: Final = 64 * 1024
HTTPS_PORTS: Final = frozenset({443, 8443})
_LOCAL_NAMES: Final = ("localhost", ".localhost", ".local", ".internal", ".lan", ".home.arpa")
# A last label that a resolver reads as a number: 127.1, 0x7f000001, 2130706433.
_NUMERIC: Final = re.compile(r"(?:^|\.)(?:0x[0-9a-f]*|[0-9]+)$", re.IGNORECASE)
# ASCII: a long s or a Kelvin sign would match letters, and become letters in a look-up.
_NAME: Final = re.compile(
    r"(?=.{1,253}$)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*", re.IGNORECASE | re.ASCII
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]

# The special-purpose registries of IANA, November 2026, anycast and AS112 entries included; the
# table of the standard library is as old as the interpreter. Addresses that clouds give to their
# own services stand at the end.
_SPECIAL_V4: Final = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared address space of carriers, metadata of Alibaba Cloud
            "127.0.0.0/8",  # loopback
            "169.254.0.0/16",  # link-local, metadata of most clouds
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # IETF protocol assignments, metadata of Oracle Cloud
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # AMT
            "192.88.99.0/24",  # 6to4 relays, withdrawn
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, broadcast
            "168.63.129.16/32",  # platform services of Azure
        ),
    )
)
_SPECIAL_V6: Final = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # IETF protocol assignments, Teredo among them
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4, wraps an IPv4 address
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
        ),
    )
)
# All other IPv6 is special or not assigned: ::/8 (loopback, IPv4-mapped), 64:ff9b:1::/48, 100::/64,
# 5f00::/16, fc00::/7, fe80::/10, fec0::/10, ff00::/8.
_GLOBAL_V6: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # the whole of IPv4, seen from IPv6


def is_public(address: Address) -> bool:
    """True if an address belongs to the public internet."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    if address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _GLOBAL_V6 and not any(address in network for network in _SPECIAL_V6)


async def addresses(host: str, port: int) -> list[str]:
    """All A and AAAA addresses of a name."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(entry[4][0]) for entry in found})


@dataclass(frozen=True, slots=True)
class MailServer:
    """Mail server of a channel; `starts_tls` None: if the server offers it."""

    host: str
    port: int
    login: tuple[str, str] | None = field(repr=False)
    has_tls: bool
    starts_tls: bool | None


@dataclass(frozen=True, slots=True)
class Egress:
    """Outgoing connections of channels; `allow_private` is for private networks and tests."""

    allow_private: bool = False
    resolve: Resolve = addresses
    timeout_s: float = 10.0
    tls: ssl.SSLContext | None = None  # replaces the certificates of the system

    def require_host(self, host: str) -> None:
        """Raises RefusedError (webhook_url_forbidden) for a forbidden host name."""
        host = host.rstrip(".").lower()
        if is_literal(host):
            if not (self.allow_private or is_public(ipaddress.ip_address(host))):
                raise forbidden_unless_private("it must be a public address")
            return
        if not _NAME.fullmatch(host):
            raise forbidden("it is not an address")
        if self.allow_private:
            return
        if _NUMERIC.search(host):
            raise forbidden_unless_private("an address must be written in full")
        if "." not in host or host.endswith(_LOCAL_NAMES):
            raise forbidden_unless_private("it must be a public name")

    async def addresses_of(self, host: str, port: int) -> list[str]:
        """Addresses to connect to; a single address that is not public refuses the host.

        Raises RefusedError (webhook_url_forbidden).
        """
        self.require_host(host)
        found = [host] if is_literal(host) else await self.resolve(host, port)
        if not self.allow_private and not all(
            is_public(ipaddress.ip_address(one)) for one in found
        ):
            raise forbidden_unless_private("its name resolves to an address that is not public")
        return found

    async def connect(self, host: str, port: int) -> socket.socket:
        """Connect to the first checked address that accepts. Raises OSError."""
        loop = asyncio.get_running_loop()
        failure = OSError("a name without address")
        for address in await self.addresses_of(host, port):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            connection = socket.socket(family, socket.SOCK_STREAM)
            connection.setblocking(False)
            try:
                await loop.sock_connect(connection, (address, port))
            except OSError as error:
                connection.close()
                failure = error
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise failure

    @asynccontextmanager
    async def guarded(self) -> AsyncIterator[None]:
        """Limit the time; turn failures into UnavailableError without any part of an address."""
        try:
            async with asyncio.timeout(self.timeout_s):
                yield
        except TimeoutError:
            raise undelivered("no answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise undelivered(type(error).__name__) from None

    @asynccontextmanager
    async def http(self, url: str) -> AsyncIterator["PinnedHttp"]:
        """HTTP client for the current, checked addresses of the host of `url` only.

        Raises RefusedError (webhook_url_forbidden), UnavailableError.
        """
        parts = split_url(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        async with self.guarded():
            pinned = _Pinned(await self.addresses_of(str(parts.hostname), port))
        connector = aiohttp.TCPConnector(
            resolver=pinned, use_dns_cache=False, limit=1, ssl=self.tls or True
        )
        session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),  # cookies of a receiver are not kept
            timeout=aiohttp.ClientTimeout(),  # `guarded` limits the time
            headers={"Content-Type": "application/json", "User-Agent": "my-symbols"},
        )
        async with session:
            yield PinnedHttp(self, session, url)

    async def mail(
        self, server: MailServer, message: EmailMessage, sender: str, recipients: Sequence[str]
    ) -> None:
        """Send one mail over a connection to the current, checked addresses of the server.

        Raises RefusedError (webhook_url_forbidden), UnavailableError.
        """
        async with self.guarded():
            try:
                await self._mail(server, message, sender, recipients)
            except aiosmtplib.SMTPResponseException as error:
                raise undelivered(f"answered {error.code}") from None
            except aiosmtplib.SMTPRecipientsRefused as error:
                raise undelivered(f"answered {error.recipients[0].code}") from None
            except aiosmtplib.SMTPException as error:
                raise undelivered(type(error).__name__) from None

    async def _mail(
        self, server: MailServer, message: EmailMessage, sender: str, recipients: Sequence[str]
    ) -> None:
        user, password = server.login or (None, None)
        client = aiosmtplib.SMTP(
            hostname=server.host,  # only for the certificate check, never resolved
            sock=await self.connect(server.host, server.port),
            username=user,
            password=password,
            use_tls=server.has_tls,
            start_tls=server.starts_tls,
            tls_context=self.tls,
            timeout=self.timeout_s,
        )
        async with client:
            await client.send_message(message, sender=sender, recipients=list(recipients))


@dataclass(frozen=True, slots=True)
class PinnedHttp:
    """Posts to one URL over one connection; follows no redirect and reads no long answer."""

    egress: Egress
    session: aiohttp.ClientSession
    url: str = field(repr=False)

    async def post(self, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Raises UnavailableError for anything but success."""
        async with self.egress.guarded():
            try:
                status = await self._post(body, headers)
            except aiohttp.ServerDisconnectedError:
                # A receiver may close the connection between two deliveries.
                status = await self._post(body, headers)
        if not 200 <= status < 300:
            raise undelivered(f"answered {status}")

    async def _post(self, body: bytes, headers: dict[str, str] | None) -> int:
        posting = self.session.post(self.url, data=body, headers=headers, allow_redirects=False)
        async with posting as answer:
            await answer.content.read(MAX_ANSWER_BYTES)
            return answer.status


@dataclass(slots=True)
class _Pinned(AbstractResolver):
    """Resolver that returns the checked addresses, whatever the name resolves to now."""

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
        """Does nothing: no resource is open."""


def split_url(url: str) -> SplitResult:
    """Parts of an http or https URL. Raises RefusedError (webhook_url_forbidden)."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise forbidden("it is not an address") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise forbidden("it is not an address")
    return parts


def query_of(text: str, known: Iterable[str]) -> dict[str, str]:
    """Query keys of a channel's URL, each at most once. Raises RefusedError (validation_failed)."""
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=20
        )
    except ValueError:
        raise malformed("Its query cannot be read.") from None
    allowed = sorted(known)
    if any(name not in allowed for name, _ in pairs):
        names = ", ".join(allowed) or "none"
        raise malformed(f"Its query has an unknown key; known: {names}.")
    if len({name for name, _ in pairs}) < len(pairs):
        raise malformed("Its query has a key twice.")
    return dict(pairs)


def is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def forbidden(why: str) -> RefusedError:
    return RefusedError(Code.WEBHOOK_URL_FORBIDDEN, f"The address of a channel is refused: {why}.")


def forbidden_unless_private(why: str) -> RefusedError:
    """Returns the error of an address that ALLOW_PRIVATE would permit."""
    return forbidden(f"{why}, unless {ALLOW_PRIVATE}=true")


def malformed(why: str) -> RefusedError:
    return RefusedError(
        Code.VALIDATION_FAILED, f"The URL of a channel is refused. {why}", field="url"
    )


def undelivered(why: str) -> UnavailableError:
    return UnavailableError(Code.RECEIVER_UNAVAILABLE, why)
