"""From the answer of bullet-public to the ticket of one connection."""

from typing import Final

from yarl import URL

from app.adapters.kucoin.fields import FieldError, Record, some_lots
from app.adapters.kucoin.parse import whole_answer
from app.adapters.kucoin.stream_terms import Ticket

_LONGEST: Final = 8_192
_LONGEST_MS: Final = 300_000


def ticket(data: object, base_url: str) -> Ticket:
    """The first server of the answer.

    A token goes to nobody but who gave it: the endpoint must be of the same host as `base_url`, or
    of the same domain, and as safe. Raises BadResponseError.
    """
    return whole_answer(lambda: _ticket(data, URL(base_url)))


def _ticket(data: object, base: URL) -> Ticket:
    record = Record.of(data, "data")
    servers = record.values.get("instanceServers")
    if not isinstance(servers, list) or not servers:
        raise FieldError("instanceServers", "not a list of servers")
    server = Record.of(servers[0], "instanceServers[0]")
    return Ticket(
        token=_text(record, "token"),
        endpoint=_endpoint(_text(server, "endpoint"), base),
        ping_interval_s=_seconds(server, "pingInterval"),
        ping_timeout_s=_seconds(server, "pingTimeout"),
    )


def _text(record: Record, name: str) -> str:
    value = record.values.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST or not value.isascii():
        raise FieldError(name, "not a plain text")
    return value


def _seconds(record: Record, name: str) -> float:
    value = record.need(name, some_lots)
    if value > _LONGEST_MS:
        raise FieldError(name, "too long")
    return value / 1000


def _endpoint(text: str, base: URL) -> str:
    try:
        url = URL(text)
    except ValueError:
        raise FieldError("endpoint", "not an address") from None
    allowed = {"wss"} if base.scheme == "https" else {"ws", "wss"}
    if url.scheme not in allowed:
        raise FieldError("endpoint", "not as safe as the exchange itself")
    if url.host != base.host and _domain(url) != _domain(base):
        raise FieldError("endpoint", "an address of somebody else")
    return text


def _domain(url: URL) -> str:
    """The last two parts of a name; a numeric address has none but itself."""
    host = url.host or ""
    parts = host.split(".")
    return host if parts[-1].isdigit() or ":" in host else ".".join(parts[-2:])
