"""S09: one-time tickets that open an event stream without a key in its URL."""

import asyncio
import re
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import aiohttp
import pytest
from sqlalchemy import text
from starlette.responses import Response
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.foundation.http.dependencies import USE_CASES, UseCases
from app.foundation.http.permissions import (
    AUDIT,
    AUTHENTICATOR,
    ActorDep,
    requires,
    takes_ticket,
)
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import Out
from app.foundation.principals import Role, Scope
from app.foundation.sql.database import Database
from app.operations.api import stream_routes
from app.security.api.authentication import TICKETS
from app.security.domain.addresses import ClientAddress
from app.security.domain.tickets import create_ticket
from app.security.services.tickets import IssuedTicket, TicketService
from app.security.storage.keys import ApiKeyRepository
from tests.support.api_keys import SYSTEM, KeyDesk, bearer, cookie
from tests.support.harness import PREFIX, make_api
from tests.support.peers import PeerAnswer, ask_from
from tests.support.streaming import PATIENCE_S, Client, Served, served

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
HOME = "192.0.2.1"
LOCALHOST = ClientAddress("127.0.0.1", "127.0.0.1")
DENIAL: Any = {"websocket.http.response": {}}
FORM = re.compile(r"[0-9a-f]{96}")


async def stored(database: Database) -> list[dict[str, Any]]:
    async with database.read() as unit:
        rows = await unit.connection.execute(text("SELECT * FROM stream_tickets"))
        return [dict(row) for row in rows.mappings()]


async def post_ticket(streams: Served, **headers: str) -> dict[str, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://{streams.address}/stream/tickets", headers=headers) as answer,
    ):
        assert answer.status == 201, await answer.text()
        document: dict[str, Any] = await answer.json()
        return document


async def hear_to_the_end(client: Client) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            await client.hear()


async def refused_status(stream: AbstractAsyncContextManager[Any]) -> int:
    with pytest.raises(InvalidStatus) as refused:
        async with stream:
            pass
    return refused.value.response.status_code


# --- over sockets


async def test_S09_a_ticket_opens_one_stream_and_only_its_hash_is_stored(
    database: Database,
) -> None:
    desk = KeyDesk(database)
    key = bearer(await desk.issue("engine", Role.VIEWER))
    async with served(database, keys=desk.service, audit=desk.audit) as streams:
        first, second = [await post_ticket(streams, **key) for _ in range(2)]
        assert set(first) == {"ticket", "expires_at"}
        assert FORM.fullmatch(first["ticket"])
        ends = datetime.fromisoformat(first["expires_at"])
        assert ends == desk.now + timedelta(seconds=30)
        rows = await stored(database)
        assert [row["actor"] for row in rows] == ["key:engine"] * 2
        for ticket in (first["ticket"], second["ticket"]):
            assert ticket[:64] not in repr(rows)

        async with streams.client(f"?ticket={first['ticket']}") as socket:
            assert (await socket.subscribe("alert"))["type"] == "subscribed"
            refused = await socket.subscribe("security")
            assert refused["code"] == "forbidden", "the rights are those of the key"
            assert len(await stored(database)) == 1
            again = streams.client(f"?ticket={first['ticket']}")
            assert await refused_status(again) == 401
        async with streams.sse(f"topics=alert&ticket={second['ticket']}") as events:
            assert (await events.hear())["event"] == "hello"
        async with streams.sse(f"topics=alert&ticket={second['ticket']}") as events:
            assert events.answer.status == 401
            problem = await events.answer.json()
            assert problem["code"] == "unauthenticated"
            assert second["ticket"] not in await events.answer.text()
        assert await stored(database) == []
    assert await desk.failures() == [("anonymous", "ticket_used", 2)]


@ON_SQLITE
@pytest.mark.parametrize("end", ["key", "session", "user"])
async def test_S09_a_stream_by_ticket_ends_with_the_credential_behind_it(
    database: Database, end: str
) -> None:
    desk = KeyDesk(database)
    issued = await desk.issued("engine", Role.VIEWER)
    ana = await desk.person("ana", Role.ADMIN)
    await desk.person("boss", Role.ADMIN)
    session = await desk.log_in("ana")
    tickets = TicketService(desk.service)
    principal = session.principal
    if end == "key":
        found = desk.ring.identify(issued.token, "127.0.0.1")
        assert found is not None
        principal = found
    loop = asyncio.get_running_loop()
    async with served(database, keys=desk.service) as streams:
        first, second = [(await tickets.issue(principal, LOCALHOST)).ticket for _ in range(2)]
        own = f"http://{streams.address.partition('/')[0]}"
        async with (
            streams.client(f"?ticket={first}", origin=own) as socket,
            streams.sse(f"topics=alert&ticket={second}") as events,
        ):
            assert (await events.hear())["event"] == "hello"
            assert (await socket.subscribe("alert"))["type"] == "subscribed"
            began = loop.time()
            if end == "key":
                await desk.service.revoke(issued.key.id, SYSTEM)
            elif end == "session":
                await desk.sessions.end(session.session.id, session.principal)
            else:
                await desk.users.set_password(ana.id, "another violet harbor", SYSTEM)
            with pytest.raises(ConnectionClosed) as closed:
                await hear_to_the_end(socket)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4401
            async with asyncio.timeout(PATIENCE_S):
                assert await events.answer.content.read() == b""
            assert loop.time() - began < 1.0


@ON_SQLITE
async def test_S09_a_ticket_of_a_session_is_for_pages_of_this_origin(database: Database) -> None:
    desk = KeyDesk(database)
    await desk.person("ana", Role.VIEWER)
    session = await desk.log_in("ana")
    tickets = TicketService(desk.service)
    async with served(database, keys=desk.service) as streams:
        own = f"http://{streams.address.partition('/')[0]}"
        for origin in (None, "null", "http://evil.example"):
            ticket = (await tickets.issue(session.principal, LOCALHOST)).ticket
            assert await refused_status(streams.client(f"?ticket={ticket}", origin=origin)) == 403
        forged = {**cookie(session), "Origin": own}
        async with (
            aiohttp.ClientSession() as client,
            client.post(f"http://{streams.address}/stream/tickets", headers=forged) as answer,
        ):
            assert (answer.status, (await answer.json())["code"]) == (403, "csrf_refused")
        genuine = {**forged, "X-Requested-With": "fetch"}
        ticket = (await post_ticket(streams, **genuine))["ticket"]
        # A browser sends its cookie as well; the ticket comes first.
        options: dict[str, Any] = {"origin": own, "additional_headers": cookie(session)}
        async with streams.client(f"?ticket={ticket}", **options) as socket:
            assert (await socket.hear())["type"] == "hello"
        assert await refused_status(streams.client(f"?ticket={ticket}", **options)) == 401


# --- from any address


class Answered(Out):
    actor: str


@dataclass
class Door:
    """The application with routes that show the caller, and tickets of one process."""

    desk: KeyDesk

    def __post_init__(self) -> None:
        self.tickets = TicketService(self.desk.service)
        self.state = {
            AUTHENTICATOR: self.desk.ring,
            AUDIT: self.desk.audit,
            TICKETS: self.tickets,
            USE_CASES: UseCases({TicketService: self.tickets}),
        }
        self.api = make_api(routers=[self._router()], monotonic=lambda: self.desk.seconds)

    def _router(self) -> Any:
        router = api_router("stream")
        router.add_api_route(
            "/stream/tickets", stream_routes.issue_stream_ticket, methods=["POST"], status_code=201
        )

        @router.websocket("/stream")
        @takes_ticket
        @requires(Role.VIEWER)
        async def stream(websocket: WebSocket) -> None:
            await websocket.accept()

        @router.get("/events")
        @takes_ticket
        @requires(Role.VIEWER)
        async def events(actor: ActorDep, ticket: str | None = None) -> Answered:
            del ticket
            return Answered(actor=actor)

        @router.get("/other")
        @requires(Role.VIEWER)
        async def other(ticket: str | None = None) -> Response:
            del ticket
            return Response()

        return router

    async def issue(self, token: str, peer: str = HOME, *headers: tuple[str, str]) -> str:
        found = await self.ask(
            "/stream/tickets", *headers, token=token, peer=peer, method="POST"
        )  # fmt: skip
        assert found.status == 201, found.body
        ticket: str = found.document["ticket"]
        return ticket

    async def ask(
        self, path: str, *headers: tuple[str, str], peer: str = HOME, **more: Any
    ) -> PeerAnswer:
        return await ask_from(peer, self.api, self.state, *headers, path=PREFIX + path, **more)

    async def use(
        self, ticket: str, *headers: tuple[str, str], peer: str = HOME, **more: Any
    ) -> PeerAnswer:
        """Opens the WebSocket."""
        return await self.ask(
            "/stream", *headers, peer=peer, query=f"ticket={ticket}", kind="websocket",
            extensions=DENIAL, **more,
        )  # fmt: skip


@pytest.fixture
async def door(database: Database) -> Door:
    return Door(KeyDesk(database))


async def test_S09_an_expired_foreign_or_reused_ticket_is_refused_and_used_up(door: Door) -> None:
    desk = door.desk
    key = await desk.issue("engine", Role.VIEWER)
    tickets = [await door.issue(key) for _ in range(4)]
    assert (await door.use(tickets[0])).status == 101
    assert (await door.use(tickets[0])).status == 401
    for peer in ("192.0.2.2", "2001:db8::1"):
        refused = await door.use(tickets[1], peer=peer)
        assert (refused.status, refused.document["code"]) == (401, "unauthenticated")
        assert refused.headers["www-authenticate"]
    assert (await door.use(tickets[1])).status == 401, "the attempt has used it up"
    desk.now += timedelta(seconds=29.9)
    assert (await door.use(tickets[2])).status == 101
    desk.now += timedelta(seconds=0.1)
    assert (await door.use(tickets[3])).status == 401
    assert await desk.failures() == [
        ("anonymous", "ticket_used", 1),
        ("anonymous", "ticket_used", 2),
        ("key:engine", "ticket_address", 1),
        ("key:engine", "ticket_expired", 1),
    ]
    mapped = await door.issue(key)
    assert (await door.use(mapped, peer=f"::ffff:{HOME}")).status == 101


async def expire(desk: KeyDesk, key_id: str) -> None:
    """Lets a key expire now, as the end of its grace does."""
    async with desk.database.write() as unit:
        keys = unit.get(ApiKeyRepository)
        await keys.expire([key_id], desk.now)
        await keys.renew_revision("expired")
    await desk.ring.load()


@ON_SQLITE
@pytest.mark.parametrize("end", ["revoked", "allow", "session", "expired"])
async def test_S09_a_ticket_of_an_ended_principal_is_refused(database: Database, end: str) -> None:
    door = Door(KeyDesk(database))
    desk, tickets = door.desk, door.tickets
    issued = await desk.issued("engine", Role.VIEWER, allow=("192.0.2.0/24", "127.0.0.1/32"))
    by_key = desk.ring.identify(issued.token, HOME)
    assert by_key is not None
    await desk.person("ana", Role.ADMIN)
    ana = await desk.log_in("ana")
    principal = ana.principal if end == "session" else by_key
    address = "198.51.100.1" if end == "allow" else "127.0.0.1"
    client = ClientAddress(address, address)
    good, bad = [(await tickets.issue(principal, client)).ticket for _ in range(2)]
    origin = (("Origin", "http://127.0.0.1"), ("Host", "127.0.0.1"))
    if end != "allow":
        assert (await door.use(good, *origin, peer=address)).status == 101
    if end == "revoked":
        await desk.service.revoke(issued.key.id, SYSTEM)
    elif end == "session":
        await desk.sessions.end(ana.session.id, ana.principal)
    elif end == "expired":
        desk.now += timedelta(seconds=20)
        await expire(desk, issued.key.id)
    refused = await door.use(bad, *origin, peer=address)
    assert (refused.status, refused.document["code"]) == (401, "unauthenticated")
    actor = "user:ana" if end == "session" else "key:engine"
    assert await desk.failures() == [(actor, "ticket_withdrawn", 1)]


@ON_SQLITE
async def test_S09_a_ticket_shows_the_caller_of_the_key_and_excludes_other_credentials(
    door: Door,
) -> None:
    desk = door.desk
    key = await desk.issue("engine", Role.VIEWER)
    scoped = await desk.issue("bot", None, Scope.METRICS)
    found = await door.ask("/events", query=f"ticket={await door.issue(key)}")
    assert (found.status, found.document) == (200, {"actor": "key:engine"})
    encoded = await door.ask("/events", query=f"tic%6Bet={await door.issue(key)}")
    assert encoded.document == {"actor": "key:engine"}
    refused = await door.ask("/stream/tickets", token=scoped, method="POST")
    assert (refused.status, refused.document["code"]) == (403, "forbidden")
    first, second = await door.issue(key), await door.issue(key)
    for path, query, token in (
        ("/events", f"ticket={first}", key),
        ("/events", f"ticket={first}&ticket={second}", None),
        ("/events", f"ticket={first}&token={second}", None),
        ("/other", f"ticket={first}", None),
        ("/events/", f"ticket={first}", None),
    ):
        found = await door.ask(path, query=query, token=token)
        assert found.status == (404 if path == "/events/" else 401), (path, query)
    preflight = await door.ask("/events", method="OPTIONS", query=f"ticket={first}")
    assert preflight.status == 405
    many = "&".join(f"a{number}=" for number in range(70))
    assert (await door.ask("/events", query=f"{many}&ticket={first}")).status == 401
    assert (await door.use(first)).status == 101, "none of these has used it up"
    failures = await desk.failures()
    assert failures == [("anonymous", "several_keys", 3)]


async def test_S09_guessed_tickets_reach_no_database_and_block_their_address(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = door.desk
    key = await desk.issue("engine", Role.VIEWER)
    genuine = await door.issue(key)
    transactions: list[str] = []
    write = Database.write

    def counted(self: Database, *given: Any) -> Any:
        transactions.append("write")
        return write(self, *given)

    monkeypatch.setattr(Database, "write", counted)
    other = KeyDesk(desk.database, peppers=("a pepper of nobody, 0123456789abcdefgh",))
    forged = create_ticket(other.store.newest(), bytes(32))
    flipped = ("0" if genuine[0] != "0" else "1") + genuine[1:]
    guesses = ["", "x", forged, flipped, genuine[:-1], genuine.upper(), genuine + "0", "0" * 96]
    statuses = [(await door.use(guesses[n % len(guesses)])).status for n in range(14)]
    assert statuses == [401] * 10 + [429] * 4
    assert transactions == []
    assert (await door.use(genuine)).status == 101, "a valid ticket is never blocked"
    assert transactions == ["write"]
    assert (await door.ask("/events", token=key)).status == 200
    assert await desk.failures() == [("anonymous", "ticket_unknown", 14)]


async def test_S09_one_of_many_attempts_in_all_processes_gets_the_ticket(
    database: Database,
) -> None:
    desks = [KeyDesk(database), KeyDesk(database)]
    token = await desks[0].issue("engine", Role.VIEWER)
    await desks[1].ring.load()
    principal = desks[0].ring.identify(token, HOME)
    assert principal is not None
    client = ClientAddress(HOME, HOME)
    services = [TicketService(desk.service) for desk in desks]
    for _ in range(5):
        issued = await services[0].issue(principal, client)
        results = await asyncio.gather(
            *(
                services[number % 2].exchange(
                    issued.ticket, client, is_local=False, is_protected=True
                )
                for number in range(8)
            )
        )
        assert [one.principal for one in results if one.principal] == [principal]
        assert [one.code for one in results].count("ticket_used") == 7


async def test_S09_unused_tickets_are_bounded_and_expired_ones_are_deleted(
    database: Database,
) -> None:
    desk = KeyDesk(database)
    tickets, client = TicketService(desk.service), ClientAddress(HOME, HOME)
    callers = []
    for name in ("engine", "other"):
        principal = desk.ring.identify(await desk.issue(name, Role.VIEWER), HOME)
        assert principal is not None
        callers.append(principal)
    engine, other = callers
    spare = await tickets.issue(other, client)
    issued: list[IssuedTicket] = []
    for _ in range(25):
        desk.now += timedelta(milliseconds=1)
        issued.append(await tickets.issue(engine, client))
    rows = await stored(database)
    assert sorted(row["actor"] for row in rows) == ["key:engine"] * 20 + ["key:other"]

    async def code(ticket: IssuedTicket) -> str:
        given = {"is_local": False, "is_protected": True}
        return (await tickets.exchange(ticket.ticket, client, **given)).code

    codes = [await code(one) for one in issued]
    assert codes == ["ticket_used"] * 5 + [""] * 20, "the oldest go"
    assert await code(spare) == ""
    for _ in range(3):
        await tickets.issue(other, client)
    desk.now += timedelta(seconds=30)
    await tickets.issue(engine, client)
    assert [row["actor"] for row in await stored(database)] == ["key:engine"]


@ON_SQLITE
async def test_S09_without_the_database_a_ticket_gets_503_before_the_handshake(
    database: Database,
) -> None:
    door = Door(KeyDesk(database))
    key = await door.desk.issue("engine", Role.VIEWER)
    ticket = await door.issue(key)
    await database.close()
    for found in (await door.use(ticket), await door.ask("/events", query=f"ticket={ticket}")):
        assert found.status == 503
        assert ticket not in found.body.decode()
    assert (await door.ask("/events", token=key)).status == 200, "keys are in memory"
    await database.open()
    assert await door.desk.failures() == [], "the caller has not failed"


@ON_SQLITE
async def test_S09_in_open_mode_a_ticket_is_for_callers_on_this_machine(database: Database) -> None:
    door = Door(KeyDesk(database))

    async def local() -> str:
        found = await door.ask("/stream/tickets", peer="127.0.0.1", method="POST")
        assert found.status == 201, found.body
        ticket: str = found.document["ticket"]
        return ticket

    found = await door.ask("/events", peer="127.0.0.1", query=f"ticket={await local()}")
    assert found.document == {"actor": "local"}
    forwarded = ("X-Forwarded-For", "198.51.100.7")
    assert (await door.use(await local(), forwarded, peer="127.0.0.1")).status == 401
    ticket = await local()
    await door.desk.issue("engine", Role.VIEWER)
    assert (await door.use(ticket, peer="127.0.0.1")).status == 401, "the open mode has ended"
    assert await door.desk.failures() == [("local", "ticket_withdrawn", 2)]
