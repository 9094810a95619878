"""The ticket of a connection: whatever is wrong with it, a token goes to nobody else."""

from typing import Any

import pytest

from app.adapters.kucoin.stream.protocol import StreamTicket, parse_ticket
from app.foundation.errors import BadResponseError

BASE = "https://api-futures.kucoin.com"
SERVER = {
    "endpoint": "wss://ws-api-futures.kucoin.com/",
    "encrypt": True,
    "protocol": "websocket",
    "pingInterval": 18000,
    "pingTimeout": 10000,
}


def answer(**server: Any) -> dict[str, Any]:
    return {"token": "2neA.x", "instanceServers": [{**SERVER, **server}]}


def test_what_the_exchange_documents_is_read() -> None:
    found = parse_ticket(answer(), BASE)
    assert found == StreamTicket("2neA.x", "wss://ws-api-futures.kucoin.com/", 18.0, 10.0)


@pytest.mark.parametrize(
    "endpoint",
    [
        "wss://ws-api-futures.kucoin.com.evil.net/",
        "ws://ws-api-futures.kucoin.com/",
        "https://ws-api-futures.kucoin.com/",
        "wss://10.0.0.1/",
        "",
        None,
        7,
    ],
)
def test_R16_a_token_is_not_sent_to_another_host_or_in_the_clear(endpoint: object) -> None:
    with pytest.raises(BadResponseError):
        parse_ticket(answer(endpoint=endpoint), BASE)


def test_a_local_exchange_may_speak_in_the_clear_to_its_own_address_only() -> None:
    base = "http://127.0.0.1:4711"
    assert (
        parse_ticket(answer(endpoint="ws://127.0.0.1:4711/"), base).endpoint
        == "ws://127.0.0.1:4711/"
    )
    with pytest.raises(BadResponseError):
        parse_ticket(answer(endpoint="ws://128.0.0.1:4711/"), base)


@pytest.mark.parametrize(
    "given",
    [
        {},
        [],
        None,
        {"token": "x", "instanceServers": []},
        {"token": "", "instanceServers": [SERVER]},
        {"token": "x" * 9_000, "instanceServers": [SERVER]},
        answer(pingInterval=True),
        answer(pingTimeout=0),
        answer(pingInterval=10**9),
    ],
)
def test_a_ticket_that_makes_no_sense_is_an_error_of_the_exchange(given: object) -> None:
    with pytest.raises(BadResponseError):
        parse_ticket(given, BASE)
