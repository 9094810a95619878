"""Client address behind trusted proxies, and the allow list of the service (S08)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
from pydantic import ValidationError

from app.foundation.http.permissions import AUTHENTICATOR, ActorDep, public, requires
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import Out
from app.foundation.principals import Role
from app.foundation.sql.database import Database
from app.security.domain.addresses import ClientAddress, client_of
from app.security.domain.keys import ENTROPY_BYTES, create_token
from app.settings import HttpVariables
from tests.support.api_keys import KeyDesk
from tests.support.harness import PREFIX, make_api
from tests.support.peers import PeerAnswer, ask_from

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
PROXIES = ("10.9.0.0/16", "2001:db8::/32")
PROXY = "10.9.0.1"
UNKNOWN = create_token(bytes(range(ENTROPY_BYTES)))


class Caller(Out):
    actor: str


@dataclass
class Gate:
    """An application with one guarded and one public route, called from any peer address."""

    desk: KeyDesk
    api: Any

    async def ask(self, peer: str, *headers: tuple[str, str], **more: Any) -> PeerAnswer:
        state = {AUTHENTICATOR: self.desk.ring}
        return await ask_from(peer, self.api, state, *headers, **more)


def gate(desk: KeyDesk, *, proxies: Sequence[str] = PROXIES, allowed: Sequence[str] = ()) -> Gate:
    router = api_router("system")

    @router.get("/who")
    @requires(Role.VIEWER)
    async def who(actor: ActorDep) -> Caller:
        return Caller(actor=actor)

    @router.get("/open")
    @public
    async def anyone(actor: ActorDep) -> Caller:
        return Caller(actor=actor)

    api = make_api(routers=[router], trusted_proxies=proxies, allowed_addresses=allowed)
    return Gate(desk, api)


@pytest.fixture
async def desk(database: Database) -> KeyDesk:
    return KeyDesk(database)


@pytest.mark.parametrize(
    ("peer", "values", "client"),
    [
        (PROXY, [], PROXY),
        (PROXY, ["192.0.2.7"], "192.0.2.7"),
        (PROXY, ["198.51.100.1, 192.0.2.7"], "192.0.2.7"),
        (PROXY, ["198.51.100.1", "192.0.2.7"], "192.0.2.7"),
        (PROXY, ["198.51.100.1, 192.0.2.7, 10.9.3.4 , 2001:db8::5"], "192.0.2.7"),
        (PROXY, ["rubbish, 192.0.2.7, 10.9.3.4"], "192.0.2.7"),
        (PROXY, ["10.9.3.4, 10.9.3.5"], "10.9.3.4"),
        (PROXY, ["::ffff:192.0.2.7, ::ffff:10.9.3.4"], "192.0.2.7"),
        (PROXY, ["192.0.2.7:4711"], "192.0.2.7"),
        (PROXY, ["[2001:470::1]:4711"], "2001:470::1"),
        (PROXY, ["2001:470::1"], "2001:470::1"),
        *(
            (PROXY, [value], None)
            for value in (
                "", "unknown", "192.0.2.7,", "192.0.2.7, rubbish", "rubbish, 10.9.3.4",
                "127.0.0.1", "::1", "::ffff:127.0.0.1, 10.9.3.4",
                "192.0.2", "192.0.2.7:x", "fe80::1%eth0", "192.0.2.7%1", "_hidden", "1" * 5_000,
            )
        ),
    ],
)  # fmt: skip
def test_the_client_is_the_first_untrusted_hop_from_the_right(
    peer: str, values: list[str], client: str | None
) -> None:
    expected = ClientAddress(PROXY, None) if client is None else ClientAddress(client, client)
    assert client_of(peer, values, PROXIES) == expected


@ON_SQLITE
async def test_S08_a_forwarded_address_counts_only_from_a_trusted_proxy(desk: KeyDesk) -> None:
    site = gate(desk)
    key = await desk.issue("far", Role.VIEWER, allow=("192.0.2.0/24",))
    named = ("X-Forwarded-For", "192.0.2.7")
    assert (await site.ask(PROXY, named, token=key)).status == 200
    assert (await site.ask("::ffff:10.9.0.1", named, token=key)).status == 200
    assert (await site.ask("192.0.2.7", token=key)).status == 200
    for peer in ("203.0.113.5", "127.0.0.1"):
        assert (await site.ask(peer, named, token=key)).status == 401, peer
    refused = {
        "the client is another one": ("X-Forwarded-For", "192.0.2.7, 203.0.113.5"),
        "garbage": ("X-Forwarded-For", "192.0.2.7, 10.9.0.3, rubbish"),
        "the client left of garbage": ("X-Forwarded-For", "192.0.2.7, rubbish"),
        "another header": ("X-Real-IP", "192.0.2.7"),
        "Forwarded is not read": ("Forwarded", "for=192.0.2.7"),
    }
    for name, header in refused.items():
        assert (await site.ask(PROXY, header, token=key)).status == 401, name


@ON_SQLITE
async def test_S08_an_unknown_client_is_not_on_the_list_of_its_proxy(desk: KeyDesk) -> None:
    site = gate(desk)
    key = await desk.issue("proxy", Role.VIEWER, allow=("10.9.0.0/16",))
    assert (await site.ask(PROXY, token=key)).status == 200, "the proxy itself"
    for header in (
        ("X-Forwarded-For", "rubbish"),
        ("X-Forwarded-For", ""),
        ("Forwarded", "for=192.0.2.7"),
        ("X-Real-IP", "192.0.2.7"),
        ("X-Forwarded-Proto", "https"),
        ("Via", "1.1 proxy"),
    ):
        assert (await site.ask(PROXY, header, token=key)).status == 401, header


@ON_SQLITE
async def test_S08_failures_are_counted_for_the_client_not_for_its_proxy(desk: KeyDesk) -> None:
    site = gate(desk)
    await desk.issue("engine", Role.VIEWER)
    named = ("X-Forwarded-For", "192.0.2.7")
    with structlog.testing.capture_logs() as lines:
        statuses = [(await site.ask(PROXY, named, token=UNKNOWN)).status for _ in range(11)]
    assert statuses == [401] * 10 + [429]
    assert {line["address"] for line in lines if line["event"] == "authentication_failed"} == {
        "192.0.2.7"
    }
    other = ("X-Forwarded-For", "192.0.2.8")
    assert (await site.ask(PROXY, other, token=UNKNOWN)).status == 401
    spoofed = [
        (await site.ask("203.0.113.5", ("X-Forwarded-For", f"192.0.2.{n}"), token=UNKNOWN)).status
        for n in range(100, 111)
    ]
    assert spoofed == [401] * 10 + [429], "the header of an untrusted peer changes nothing"


@ON_SQLITE
async def test_S08_a_forwarded_request_is_never_in_open_mode(desk: KeyDesk) -> None:
    assert desk.ring.is_open
    site = gate(desk, proxies=("127.0.0.0/8",))
    assert (await site.ask("127.0.0.1")).status == 200
    for value in ("127.0.0.1", "::1", "127.0.0.1, 127.0.0.2", "rubbish"):
        assert (await site.ask("127.0.0.1", ("X-Forwarded-For", value))).status == 401, value
    assert (await site.ask("127.0.0.1", ("X-Forwarded-Proto", "https"))).status == 401


@ON_SQLITE
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_the_allow_list_of_the_service_is_checked_first(desk: KeyDesk, kind: str) -> None:
    site = gate(desk, allowed=("192.0.2.0/24",))
    key = await desk.issue("engine", Role.ADMIN)
    paths = [PREFIX + "/who", PREFIX + "/open", "/livez", "/docs", "/nothing"]
    for path in paths:
        for peer in ("203.0.113.5", PROXY, "not an address", "::1.2.3.4"):
            answer = await site.ask(peer, token=key, path=path, kind=kind)
            assert answer.status == 403, (path, peer)
            if kind == "websocket":
                assert answer.closed == 4403
            else:
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.headers["connection"] == "close"
                assert "x-request-id" in answer.headers
    if kind == "websocket":
        return
    forwarded = ("X-Forwarded-For", "192.0.2.7")
    for peer in ("192.0.2.7", "::ffff:192.0.2.7", "127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert (await site.ask(peer, token=key)).status == 200, peer
    assert (await site.ask(PROXY, forwarded, token=key)).status == 200
    assert (await site.ask(PROXY, ("X-Forwarded-For", "203.0.113.5"), token=key)).status == 403
    for unknown in ("rubbish", "127.0.0.1", "::1"):
        assert (await site.ask(PROXY, ("X-Forwarded-For", unknown), token=key)).status == 403
    with structlog.testing.capture_logs() as lines:
        # A proxy on this machine that is not trusted: its client is unknown.
        assert (await site.ask("127.0.0.1", forwarded, token=key)).status == 403
    refused = [line for line in lines if line["event"] == "address_refused"]
    assert refused == [{"address": "127.0.0.1", "event": "address_refused", "log_level": "warning"}]


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0"])
def test_S08_not_every_address_is_a_trusted_proxy(network: str) -> None:
    with pytest.raises(ValidationError):
        HttpVariables.model_validate({"trusted_proxies": ["10.9.0.0/16", network]})
    given = HttpVariables.model_validate({"trusted_proxies": ["10.9.0.0/16", "::1"]})
    assert [str(one) for one in given.trusted_proxies] == ["10.9.0.0/16", "::1/128"]


@ON_SQLITE
async def test_a_garbled_client_passes_only_an_empty_allow_list(desk: KeyDesk) -> None:
    key = await desk.issue("engine", Role.VIEWER)
    garbled = ("X-Forwarded-For", "rubbish")
    for allowed, status in (((), 200), (("0.0.0.0/0", "::/0"), 403)):
        site = gate(desk, allowed=allowed)
        assert (await site.ask(PROXY, garbled, token=key)).status == status


@ON_SQLITE
async def test_https_of_a_trusted_proxy_sets_strict_transport_security(desk: KeyDesk) -> None:
    site = gate(desk)
    name = "strict-transport-security"
    path = PREFIX + "/open"
    https = ("X-Forwarded-Proto", "https")
    answer = await site.ask(PROXY, https, path=path)
    assert answer.headers[name] == "max-age=31536000; includeSubDomains"
    for peer, header in (
        ("203.0.113.5", https),
        (PROXY, ("X-Forwarded-Proto", "http")),
        (PROXY, ("X-Forwarded-Proto", "https, http")),
        (PROXY, ("X-Forwarded-For", "192.0.2.7")),
    ):
        assert name not in (await site.ask(peer, header, path=path)).headers, (peer, header)
