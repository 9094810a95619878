"""Every number of the stream's rules, and what goes in and out of its state machines."""

from dataclasses import dataclass
from typing import Final

from app.market.domain.stream import Topic

HOUR_S: Final = 3_600.0


@dataclass(frozen=True, slots=True)
class StreamTerms:
    """Seconds, counts and bytes; the defaults are those of the protocol."""

    topics_per_line: int = 300
    topics_per_message: int = 100
    own_lines: int = 4  # at most so many more, of topics that do not come elsewhere
    send_every_s: float = 0.125  # the exchange takes 100 messages in 10 s
    token_s: float = 30.0
    open_s: float = 10.0
    welcome_s: float = 5.0
    ack_s: float = 5.0
    ack_tries: int = 3
    busy_s: float = 1.0  # times the tries so far, after "exceed max permits"
    silence_s: float = 10.0  # without any frame: ask whether it lives
    check_s: float = 5.0  # and so long for the answer
    deaf_s: float = 5.0  # subscribed again and still not heard
    refused_s: float = 600.0  # a topic that is not found is asked for again after that
    backoff_first_s: float = 0.5
    # With 30 s it took up to 38 s after an outage until all topics were live again.
    backoff_cap_s: float = 8.0
    settled_s: float = 60.0  # alive for so long: the next failure is a first one
    rotate_s: tuple[float, float] = (20 * HOUR_S, 23 * HOUR_S)
    overlap_s: float = 2.0
    again_s: float = 2.0  # between two tries to catch up
    connects: int = 25  # the exchange allows 30 a minute and address
    connects_window_s: float = 60.0
    garbage: int = 10
    garbage_window_s: float = 60.0
    frame_bytes: int = 1024 * 1024  # a longer one is dropped
    message_bytes: int = 8 * 1024 * 1024  # a longer one ends the connection
    ping_interval_s: float = 18.0  # where the ticket says nothing
    ping_timeout_s: float = 10.0
    tick_s: float = 0.1
    flush_s: float = 0.05
    rest_s: float = 0.01  # between two looks into a socket, while these keep up with it


@dataclass(frozen=True, slots=True)
class Ticket:
    """What bullet-public gives: good for one connection."""

    token: str
    endpoint: str
    ping_interval_s: float
    ping_timeout_s: float


@dataclass(frozen=True, slots=True)
class AskTicket:
    """Get a new ticket for this connection."""

    line: int


@dataclass(frozen=True, slots=True)
class Open:
    """Connect with this ticket; `name` comes back in the welcome."""

    line: int
    ticket: Ticket
    name: str


@dataclass(frozen=True, slots=True)
class Send:
    """Send a command: ping, subscribe or unsubscribe."""

    line: int
    number: str
    kind: str
    topics: tuple[Topic, ...] = ()


@dataclass(frozen=True, slots=True)
class Close:
    """Let go of it, whatever it is doing."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Backfill:
    """Bring by other ways what was missed, then say `caught_up`."""

    line: int


Action = AskTicket | Open | Send | Close | Backfill


@dataclass(frozen=True, slots=True)
class Control:
    """A frame that is no market data: welcome, ack, pong, error."""

    kind: str
    number: str | None = None
    code: int | None = None
    text: str = ""
