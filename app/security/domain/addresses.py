"""Network addresses of peers: loopback, networks of an allow list, and the key of a counter."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

LOOPBACK_NAME: Final = "localhost"
_REMEMBERED: Final = 1_024
_IPV6_SITE_BITS: Final = 64  # one client usually owns a whole network of that size
# Some proxies add the port of the client: 192.0.2.1:4711, [2001:db8::1]:4711.
_WITH_PORT: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9]{1,5})?", re.ASCII)


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Address without zone, an IPv4-mapped one as IPv4; None for any other text."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


@lru_cache(_REMEMBERED)
def is_loopback(host: str | None) -> bool:
    """True for a loopback address and for the name localhost."""
    if host is None:
        return False
    address = parse_address(host)
    return host.lower() == LOOPBACK_NAME if address is None else address.is_loopback


def parse_network(text: str) -> str:
    """Canonical CIDR notation of a network. Raises ValueError for any other text."""
    return str(ip_network(text.strip(), strict=False))


@lru_cache(_REMEMBERED)
def networks_contain(networks: tuple[str, ...], host: str) -> bool:
    """True if one of the networks contains the address of `host`."""
    address = parse_address(host)
    return address is not None and any(address in ip_network(one) for one in networks)


@lru_cache(_REMEMBERED)
def site_of(host: str | None) -> str:
    """Key under which a peer is counted: its IPv4 address, or its /64 network of IPv6."""
    address = None if host is None else parse_address(host)
    if isinstance(address, IPv6Address):
        return str(ip_network((address, _IPV6_SITE_BITS), strict=False))
    return host or "" if address is None else str(address)


def parse_networks(texts: Iterable[str]) -> tuple[str, ...]:
    """Canonical networks, each once. Raises ValueError."""
    return tuple(dict.fromkeys(parse_network(text) for text in texts))


@dataclass(frozen=True, slots=True)
class ClientAddress:
    """Address of the client of a request.

    `counted` is for counters and the log. `proven` is for allow lists; None if it is unknown.
    """

    counted: str | None
    proven: str | None


def client_of(
    peer: str | None, forwarded_for: Sequence[str], trusted: tuple[str, ...]
) -> ClientAddress:
    """Client of a request that a trusted proxy has passed on.

    `forwarded_for` has the values of X-Forwarded-For in their order. It is read from the right:
    addresses of trusted proxies are skipped, and the next one is the client. If all of them are
    trusted, it is the leftmost. An entry that is not an address leaves the client unknown, and so
    does a loopback address that a proxy on another machine names: it is not of this machine.
    """
    client: str | None = None
    for text in reversed([part.strip() for value in forwarded_for for part in value.split(",")]):
        client = _parse_hop(text)
        if client is None:
            return ClientAddress(peer, None)
        if not networks_contain(trusted, client):
            break
    if client is None:
        return ClientAddress(peer, peer)
    if is_loopback(client) and not is_loopback(peer):
        return ClientAddress(peer, None)
    return ClientAddress(client, client)


def _parse_hop(text: str) -> str | None:
    """Address of one entry without its port, an IPv4-mapped one as IPv4; None for garbage."""
    if "%" in text:
        return None
    found = _WITH_PORT.fullmatch(text)
    address = parse_address(text if found is None else found.group(1) or found.group(2))
    return None if address is None else str(address)
