"""Limits of the stream, and the events and actions of its state machines."""

from dataclasses import dataclass, field
from typing import Final

from yarl import URL

from app.adapters.kucoin.fields import FieldReader, InvalidFieldError, some_lots
from app.adapters.kucoin.parse import whole_answer
from app.market.domain.stream import StreamTopic

HOUR_S: Final = 3_600.0


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Limits and time-outs in seconds, counts and bytes; defaults are those of the protocol."""

    topics_per_connection: int = 300
    topics_per_message: int = 100
    own_connections: int = 4  # extra connections for topics that fail elsewhere
    send_every_s: float = 0.125  # the exchange takes 100 messages in 10 s
    token_s: float = 30.0
    open_s: float = 10.0
    welcome_s: float = 5.0
    ack_s: float = 5.0
    ack_tries: int = 3
    busy_s: float = 1.0  # times the number of tries, after "exceed max permits"
    silence_s: float = 10.0  # silence before a ping
    check_s: float = 5.0  # time limit of the pong
    stalled_s: float = 5.0  # silence after a resubscription before a move
    refused_s: float = 600.0  # pause before a retry of an unknown topic
    backoff_first_s: float = 0.5
    # With 30 s it took up to 38 s after an outage until all topics were live again.
    backoff_cap_s: float = 8.0
    settled_s: float = 60.0  # uptime after which failures count anew
    rotate_s: tuple[float, float] = (20 * HOUR_S, 23 * HOUR_S)
    overlap_s: float = 2.0
    again_s: float = 2.0  # between two backfill attempts
    connects: int = 25  # the exchange allows 30 a minute and address
    connects_window_s: float = 60.0
    garbage: int = 10
    garbage_window_s: float = 60.0
    frame_bytes: int = 1024 * 1024  # a longer message is dropped
    message_bytes: int = 8 * 1024 * 1024  # a longer message ends the connection
    ping_interval_s: float = 18.0  # default without a value in the ticket
    ping_timeout_s: float = 10.0
    tick_s: float = 0.1
    flush_s: float = 0.1  # quotes are published once a second
    rest_s: float = 0.05  # pause between two reads of a socket under load; each read costs a wake


@dataclass(frozen=True, slots=True)
class StreamTicket:
    """Endpoint, token and ping interval from bullet-public, for one connection."""

    token: str = field(repr=False)
    endpoint: str
    ping_interval_s: float
    ping_timeout_s: float


@dataclass(frozen=True, slots=True)
class AskTicket:
    """Action: request a new ticket for this connection."""

    connection: int


@dataclass(frozen=True, slots=True)
class Open:
    """Action: connect with this ticket; `name` comes back in the welcome."""

    connection: int
    ticket: StreamTicket
    name: str


@dataclass(frozen=True, slots=True)
class Send:
    """Action: send a ping, subscribe or unsubscribe command."""

    connection: int
    number: str
    kind: str
    topics: tuple[StreamTopic, ...] = ()


@dataclass(frozen=True, slots=True)
class Close:
    """Action: close the connection in any state."""

    connection: int
    reason: str


@dataclass(frozen=True, slots=True)
class Backfill:
    """Action: load missed data over REST, then call `caught_up`."""

    connection: int


Action = AskTicket | Open | Send | Close | Backfill


@dataclass(frozen=True, slots=True)
class Control:
    """Control frame: welcome, ack, pong or error."""

    kind: str
    number: str | None = None
    code: int | None = None
    text: str = ""


_LONGEST: Final = 8_192
_LONGEST_MS: Final = 300_000


def parse_ticket(data: object, base_url: str) -> StreamTicket:
    """First server of the bullet-public answer.

    A token may go only to its issuer: the endpoint must have the host or domain of `base_url`
    and be as safe. Raises BadResponseError.
    """
    return whole_answer(lambda: _ticket(data, URL(base_url)))


def _ticket(data: object, base: URL) -> StreamTicket:
    record = FieldReader.from_value(data, "data")
    servers = record.values.get("instanceServers")
    if not isinstance(servers, list) or not servers:
        raise InvalidFieldError("instanceServers", "not a list of servers")
    server = FieldReader.from_value(servers[0], "instanceServers[0]")
    return StreamTicket(
        token=_text(record, "token"),
        endpoint=_endpoint(_text(server, "endpoint"), base),
        ping_interval_s=_seconds(server, "pingInterval"),
        ping_timeout_s=_seconds(server, "pingTimeout"),
    )


def _text(record: FieldReader, name: str) -> str:
    value = record.values.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST or not value.isascii():
        raise InvalidFieldError(name, "not a plain text")
    return value


def _seconds(record: FieldReader, name: str) -> float:
    value = record.need(name, some_lots)
    if value > _LONGEST_MS:
        raise InvalidFieldError(name, "too long")
    return value / 1000


def _endpoint(text: str, base: URL) -> str:
    try:
        url = URL(text)
    except ValueError:
        raise InvalidFieldError("endpoint", "not an address") from None
    allowed = {"wss"} if base.scheme == "https" else {"ws", "wss"}
    if url.scheme not in allowed:
        raise InvalidFieldError("endpoint", "not as safe as the exchange itself")
    if url.host != base.host and _domain(url) != _domain(base):
        raise InvalidFieldError("endpoint", "an address of another host")
    return text


def _domain(url: URL) -> str:
    """Last two labels of a name; a numeric address is its own domain."""
    host = url.host or ""
    parts = host.split(".")
    return host if parts[-1].isdigit() or ":" in host else ".".join(parts[-2:])
