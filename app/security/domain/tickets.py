"""One-time tickets that open an event stream: text form, stored hash and bounds."""

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from app.security.domain.addresses import ClientAddress, parse_address
from app.security.domain.keys import Pepper

TICKET_LIFETIME: Final = timedelta(seconds=30)
MAX_TICKETS: Final = 20  # unused ones of one principal; a further one replaces the oldest
TICKET_ENTROPY_BYTES: Final = 32
_TAG_CHARS: Final = 32
_TICKET: Final = re.compile(rf"[0-9a-f]{{{2 * TICKET_ENTROPY_BYTES + _TAG_CHARS}}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class OneTimeTicket:
    """Stored ticket without its text. Times are UTC.

    A session, an API key or, without both ids, a caller in open mode has asked for it. `actor` is
    the name of that caller in the audit log.
    """

    hash: str = field(repr=False)
    actor: str
    key_id: str | None
    session_id: str | None
    address: str
    expires_at: datetime


def create_ticket(pepper: Pepper, entropy: bytes) -> str:
    """Text of a new ticket: TICKET_ENTROPY_BYTES random bytes and their authentication tag.

    Raises ValueError for another number of bytes.
    """
    if len(entropy) != TICKET_ENTROPY_BYTES:
        raise ValueError(f"a ticket needs {TICKET_ENTROPY_BYTES} random bytes")
    secret = entropy.hex()
    return secret + _tag(pepper, secret)


def hash_ticket(peppers: Iterable[Pepper], text: str) -> str | None:
    """Stored form of a ticket; None for a text that was not issued under one of the peppers.

    The tag keeps guessed tickets away from the database.
    """
    if _TICKET.fullmatch(text) is None:
        return None
    secret, tag = text[:-_TAG_CHARS], text[-_TAG_CHARS:]
    for pepper in peppers:
        if hmac.compare_digest(_tag(pepper, secret), tag):
            return pepper.hash(f"stream ticket {text}")
    return None


def address_of_ticket(client: ClientAddress) -> str:
    """Address to which a ticket is bound: that of counters, an IPv4-mapped one as IPv4."""
    address = None if client.counted is None else parse_address(client.counted)
    return client.counted or "" if address is None else str(address)


def _tag(pepper: Pepper, secret: str) -> str:
    return pepper.hash(f"tag of stream ticket {secret}")[:_TAG_CHARS]
