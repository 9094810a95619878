"""Rate limits of principals, addresses and routes over the whole application (S18)."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from starlette.responses import Response
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close

from app.foundation.http.dependencies import USE_CASES, UseCases
from app.foundation.http.permissions import AUTHENTICATOR, ActorDep, public, requires
from app.foundation.http.response_cache import VERSIONS, cacheable
from app.foundation.http.responses import answer
from app.foundation.http.route_limits import limited_by
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import Out
from app.foundation.metrics import Metrics
from app.foundation.principals import Role, RouteLimit, Scope
from app.foundation.sql.database import Database
from app.foundation.state_version import Input, StateVersion
from app.operations.services.health import StatusService
from app.operations.services.health_checks import ComponentHealth, ComponentState
from app.security.api.rate_limiting import COUNT_EXCHANGE, SHARED_WINDOWS
from app.security.domain.keys import ENTROPY_BYTES, create_token
from app.security.domain.rate_limits import RateLimits
from app.security.services.count_exchange import CountExchange
from app.security.services.rate_limiter import SharedWindowStorage
from tests.support.api_keys import SYSTEM, KeyDesk, bearer
from tests.support.harness import PREFIX, make_api
from tests.support.peers import PeerAnswer, ask_from
from tests.support.streaming import served
from tests.support.trading_desk import NOW

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
QUOTAS = RateLimits(
    requests_per_s=5, changes_per_s=3, signals_per_s=7, heavy_per_min=2, address_per_s=12,
    open_mode_per_s=9,
)  # fmt: skip
HOME = "192.0.2.1"
UNKNOWN = create_token(bytes(range(ENTROPY_BYTES)))


class Answered(Out):
    actor: str


@dataclass
class Versions:
    """State that never changes."""

    def version(self, depends_on: Input) -> StateVersion:
        del depends_on
        return (1,)

    async def load_version(self, depends_on: Input) -> StateVersion:
        return self.version(depends_on)


class Ready:
    """Database that answers."""

    async def ready(self) -> ComponentHealth:
        return ComponentHealth("database", ComponentState.UP, *[None] * 5)


@dataclass
class Gate:
    """An application with limits and a clock that the test moves."""

    desk: KeyDesk
    quotas: RateLimits = QUOTAS
    options: dict[str, Any] = field(default_factory=dict)
    now_s: float = 1_020.0  # the start of a minute of this clock
    runs: list[str] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.state = {
            AUTHENTICATOR: self.desk.ring,
            VERSIONS: Versions(),
            USE_CASES: UseCases({StatusService: Ready()}),
        }
        self.api = make_api(
            routers=[self._router()],
            rate_limits=self.quotas,
            monotonic=lambda: self.now_s,
            metrics=self.metrics,
            **self.options,
        )

    def _router(self) -> Any:
        router = api_router("system")

        @router.get("/who")
        @requires(Role.VIEWER)
        async def who(actor: ActorDep) -> Answered:
            self.runs.append("who")
            return Answered(actor=actor)

        @router.get("/open")
        @public
        async def anyone(actor: ActorDep) -> Answered:
            return Answered(actor=actor)

        @router.get("/cached")
        @requires(Role.VIEWER)
        @cacheable(depends_on=Input.SCORES)
        async def cached() -> Response:
            self.runs.append("cached")
            return answer(b"{}")

        @router.post("/change")
        @requires(Role.TRADER)
        async def change(actor: ActorDep) -> Answered:
            return Answered(actor=actor)

        @router.post("/signals")
        @requires(Role.TRADER, scope=Scope.SIGNALS)
        @limited_by(RouteLimit.SIGNALS)
        async def signal(actor: ActorDep) -> Answered:
            return Answered(actor=actor)

        @router.get("/report/{name}")
        @requires(Role.VIEWER)
        @limited_by(RouteLimit.HEAVY)
        async def report(name: str) -> Answered:
            return Answered(actor=name)

        @router.post("/score")
        @requires(Role.TRADER)
        @limited_by(RouteLimit.HEAVY)
        async def score(actor: ActorDep) -> Answered:
            return Answered(actor=actor)

        @router.websocket("/stream")
        @requires(Role.VIEWER)
        async def stream(websocket: WebSocket) -> None:
            await websocket.accept()

        return router

    async def ask(
        self, path: str = "/who", *headers: tuple[str, str], peer: str = HOME, **more: Any
    ) -> PeerAnswer:
        return await ask_from(peer, self.api, self.state, *headers, path=PREFIX + path, **more)

    async def statuses(self, number: int, path: str = "/who", **more: Any) -> list[int]:
        return [(await self.ask(path, **more)).status for _ in range(number)]


@pytest.fixture
def gate(database: Database) -> Gate:
    return Gate(KeyDesk(database))


@ON_SQLITE
async def test_a_principal_gets_its_quota_and_then_429(gate: Gate) -> None:
    key = await gate.desk.issue("engine", Role.VIEWER)
    other = await gate.desk.issue("other", Role.VIEWER)
    for left in (4, 3, 2, 1, 0):
        found = await gate.ask(token=key)
        assert found.status == 200
        assert found.headers["ratelimit-policy"] == '"requests";q=5;w=1'
        assert found.headers["ratelimit"] == f'"requests";r={left};t=1'
    refused = await gate.ask(token=key)
    assert refused.status == 429
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["ratelimit"] == '"requests";r=0;t=1'
    assert refused.headers["ratelimit-policy"] == '"requests";q=5;w=1'
    assert refused.headers["x-frame-options"] == "DENY"
    problem = refused.document
    assert (problem["code"], problem["status"], problem["retry_after_s"]) == (
        "rate_limited", 429, 1,
    )  # fmt: skip
    assert problem["limit"] == "requests"
    assert gate.runs == ["who"] * 5, "a refused request reaches no route"
    assert (await gate.ask(token=other)).status == 200, "each principal has its own quota"
    count = gate.metrics.registry.get_sample_value
    assert count("mysymbols_rate_limited_requests_total", {"limit": "requests"}) == 1
    gate.now_s += 1.0
    # The window slides: after 0.21 s, 3.95 of the former five requests still count.
    assert await gate.statuses(1, token=key) == [429]
    gate.now_s += 0.21
    assert await gate.statuses(3, token=key) == [200, 200, 429]
    gate.now_s += 2.0
    assert await gate.statuses(6, token=key) == [200] * 5 + [429]


@ON_SQLITE
async def test_changes_signals_and_heavy_routes_have_their_own_quotas(gate: Gate) -> None:
    trader = await gate.desk.issue("trader", Role.TRADER)
    viewer = await gate.desk.issue("viewer", Role.VIEWER)
    signals = await gate.desk.issue("tv", None, Scope.SIGNALS)
    both = await gate.desk.issue("both", Role.TRADER, Scope.SIGNALS)
    far = iter(f"198.51.100.{n}" for n in range(1, 100))

    async def asked(number: int, path: str, token: str, method: str = "GET") -> list[int]:
        peer = next(far)
        return await gate.statuses(number, path, token=token, method=method, peer=peer)

    assert await asked(4, "/change", trader, "POST") == [200] * 3 + [429]
    assert await asked(6, "/who", trader) == [200] * 5 + [429], "reads are counted separately"
    assert await asked(6, "/change", viewer, "POST") == [403] * 5 + [429]
    assert await asked(8, "/signals", signals, "POST") == [200] * 7 + [429]
    assert await asked(8, "/signals", both, "POST") == [200] * 7 + [429]
    assert await asked(3, "/score", both, "POST") == [200, 200, 429]
    gate.now_s += 30
    found = await gate.ask("/score", token=both, method="POST")
    assert (found.status, found.document["limit"]) == (429, "heavy")
    wait_s = int(found.headers["retry-after"])
    assert wait_s == 30
    assert found.headers["ratelimit-policy"] == '"heavy";q=2;w=60'
    gate.now_s += wait_s - 0.5
    assert (await gate.ask("/score", token=both, method="POST")).status == 429
    gate.now_s += 0.6
    assert (await gate.ask("/score", token=both, method="POST")).status == 200


@ON_SQLITE
async def test_an_address_has_a_quota_over_all_its_keys(gate: Gate) -> None:
    keys = [await gate.desk.issue(f"key-{n}", Role.VIEWER) for n in range(4)]
    statuses = [(await gate.ask(token=key)).status for _ in range(4) for key in keys]
    assert statuses == [200] * 12 + [429] * 4
    found = await gate.ask(token=keys[0])
    assert found.document["limit"] == "address"
    assert await gate.statuses(13, "/open") == [200] * 12 + [429], "also without a key, on its own"
    assert (await gate.ask(token=keys[1], peer="192.0.2.2")).status == 200
    same = [await gate.statuses(1, "/open", peer=f"2001:db8:0:1::{n}") for n in range(1, 14)]
    assert same == [[200]] * 12 + [[429]], "a /64 network counts as one address"
    assert await gate.statuses(1, "/open", peer="2001:db8:0:2::1") == [200]


@ON_SQLITE
async def test_a_flood_without_a_valid_key_uses_up_nothing_of_a_key_behind_its_address(
    gate: Gate,
) -> None:
    key = await gate.desk.issue("engine", Role.VIEWER)
    flood = [await gate.ask("/open", token=(None, UNKNOWN)[n % 2]) for n in range(20)]
    assert [one.status for one in flood] == [200] * 12 + [429] * 8
    assert flood[-1].document["limit"] == "address"
    assert await gate.statuses(5, token=key) == [200] * 5


@ON_SQLITE
async def test_open_mode_has_one_quota_for_all(gate: Gate) -> None:
    peers = ["127.0.0.1", "::1", "127.0.0.2"]
    statuses = [(await gate.ask(peer=peers[n % 3])).status for n in range(12)]
    assert statuses == [200] * 9 + [429] * 3
    assert (await gate.ask("/report/x", peer="127.0.0.1")).document["limit"] == "open_mode"
    gate.now_s += 5
    assert await gate.statuses(9, "/report/x", peer="127.0.0.1") == [200] * 9


@ON_SQLITE
@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_probes_are_never_limited(gate: Gate, path: str) -> None:
    await gate.desk.issue("engine", Role.VIEWER)
    await gate.statuses(20, "/open")
    assert (await gate.ask("/open")).status == 429
    for _ in range(50):
        found = await ask_from(HOME, gate.api, gate.state, path=path)
        assert found.status == 200
        assert "ratelimit" not in found.headers


@ON_SQLITE
async def test_a_cached_answer_counts_too(gate: Gate) -> None:
    key = await gate.desk.issue("engine", Role.VIEWER)
    found = [await gate.ask("/cached", token=key) for _ in range(6)]
    assert [one.status for one in found] == [200] * 5 + [429]
    assert gate.runs == ["cached"], "the others came from the cache"
    left = [one.headers["ratelimit"] for one in found[:5]]
    assert left == [f'"requests";r={n};t=1' for n in (4, 3, 2, 1, 0)]


@ON_SQLITE
@pytest.mark.parametrize(
    ("paths", "method"),
    [
        (["/report/a", "/report/b", "/report/c"], "GET"),
        (["/report/a", "/report/a", "/report/a"], "HEAD"),
        (["/report/a", "/report/%61", "/%72eport/a"], "GET"),
    ],
    ids=["parameters", "head", "encoded"],
)
async def test_S18_no_spelling_of_a_heavy_route_evades_its_quota(
    gate: Gate, paths: list[str], method: str
) -> None:
    key = await gate.desk.issue("engine", Role.VIEWER)
    found = [await gate.ask(path, token=key, method=method) for path in paths]
    assert [one.status for one in found] == [200, 200, 429]
    assert found[2].headers["ratelimit-policy"] == '"heavy";q=2;w=60'
    for other in ("/Report/a", "/report/a/", "//report/a", "/report//a"):
        gate.now_s += 10
        assert (await gate.ask(other, token=key, method=method)).status == 404, other


@ON_SQLITE
async def test_S18_rotated_and_many_keys_do_not_add_up(gate: Gate) -> None:
    issued = await gate.desk.issued("engine", Role.VIEWER)
    outcome = await gate.desk.service.rotate(issued.key.id, timedelta(hours=1), SYSTEM)
    assert outcome.result is not None
    tokens = [issued.token, outcome.result.token]
    statuses = [(await gate.ask(token=tokens[n % 2])).status for n in range(8)]
    assert statuses == [200] * 5 + [429] * 3, "both keys of one name share its quota"
    gate.now_s += 10
    # Case, slash, method, forged keys and forwarding headers: one address all the same.
    key = await gate.desk.issue("other", Role.VIEWER)
    attempts: list[dict[str, Any]] = [
        {"path": "/who", "token": key}, {"path": "/WHO", "token": key},
        {"path": "/who/", "token": key}, {"path": "/who", "method": "HEAD", "token": key},
        {"path": "/who", "method": "DELETE", "token": key}, {"path": "/who"},
        *({"path": "/open", "token": (None, UNKNOWN)[n % 2]} for n in range(11)),
    ]  # fmt: skip
    first = [(await gate.ask(**one)).status for one in attempts]
    assert first == [200, 404, 404, 200, 405, 401] + [200] * 11
    spoofed = ("X-Forwarded-For", "198.51.100.7")
    for one in attempts:
        path = one.pop("path")
        assert (await gate.ask(path, spoofed, **one)).status == 429, one


@ON_SQLITE
async def test_a_trusted_proxy_spreads_its_clients_over_their_addresses(
    database: Database,
) -> None:
    gate = Gate(KeyDesk(database), options={"trusted_proxies": ("10.9.0.0/16",)})
    await gate.desk.issue("engine", Role.VIEWER)

    async def asked(client: str) -> int:
        named = ("X-Forwarded-For", client)
        return (await gate.ask("/open", named, peer="10.9.0.1")).status

    assert [await asked("198.51.100.7") for _ in range(13)] == [200] * 12 + [429]
    assert await asked("198.51.100.8") == 200
    assert [await asked("rubbish") for _ in range(13)] == [200] * 12 + [429], "its proxy's quota"


@ON_SQLITE
@pytest.mark.parametrize("is_able", [True, False], ids=["response", "close"])
async def test_a_websocket_beyond_a_limit_is_refused(gate: Gate, is_able: bool) -> None:
    key = await gate.desk.issue("engine", Role.VIEWER)
    extensions: Any = {"websocket.http.response": {}} if is_able else {}
    more: dict[str, Any] = {"token": key, "kind": "websocket", "extensions": extensions}
    assert await gate.statuses(5, "/stream", **more) == [101] * 5
    found = await gate.ask("/stream", **more)
    if is_able:
        assert (found.status, found.document["code"]) == (429, "rate_limited")
        assert found.headers["retry-after"] == "1"
    else:
        assert found.closed == 4429


@ON_SQLITE
async def test_a_principal_may_open_only_so_many_streams(database: Database) -> None:
    desk = KeyDesk(database)
    issued = await desk.issued("engine", Role.VIEWER)
    engine, other = bearer(issued.token), bearer(await desk.issue("other", Role.VIEWER))
    rotated = await desk.service.rotate(issued.key.id, timedelta(hours=1), SYSTEM)
    assert rotated.result is not None
    again = bearer(rotated.result.token)
    options = {"streams_per_principal": 2}
    async with (
        served(database, keys=desk.service, api=options) as opened,
        opened.client(additional_headers=engine) as first,
        opened.sse("topics=alert", **again) as second,
    ):
        await first.hear()
        await second.hear()
        for headers in (engine, again):
            async with opened.client(additional_headers=headers) as third:
                with pytest.raises(ConnectionClosed) as closed:
                    await third.hear()
                assert closed.value.rcvd == Close(4429, "rate_limited")
            async with opened.sse("topics=alert", **headers) as refused:
                assert refused.answer.status == 429
                problem = await refused.answer.json()
                assert (problem["code"], problem["limit"]) == ("rate_limited", "streams")
                assert int(refused.answer.headers["retry-after"]) >= 1
        async with opened.client(additional_headers=other) as allowed:
            assert (await allowed.hear())["type"] == "hello"
        await first.connection.close()
        async with asyncio.timeout(60), AsyncExitStack() as stack:
            while True:  # until the server has noticed the end of the first
                client = await stack.enter_async_context(opened.client(additional_headers=engine))
                try:
                    assert (await client.hear())["type"] == "hello"
                    break
                except ConnectionClosed:
                    await asyncio.sleep(0.05)


@ON_SQLITE
async def test_processes_of_one_database_share_the_quota_of_changes(database: Database) -> None:
    desk = KeyDesk(database)
    quotas = RateLimits(changes_per_s=50, heavy_per_min=4)
    gates = [Gate(desk, quotas), Gate(desk, quotas)]
    key = await desk.issue("trader", Role.TRADER)
    for gate in gates:
        gate.state[SHARED_WINDOWS] = SharedWindowStorage(database, lambda: NOW)
    statuses = [
        (await gate.ask("/score", token=key, method="POST")).status
        for _ in range(4)
        for gate in gates
    ]
    assert 4 <= statuses.count(200) <= 5, "a minute that ends meanwhile adds one"
    found = await gates[0].ask("/score", token=key, method="POST")
    assert (found.status, found.document["limit"]) == (429, "heavy")


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
async def test_processes_of_one_database_share_the_quota_of_reads(database: Database) -> None:
    desk = KeyDesk(database)
    gates = [Gate(desk), Gate(desk)]
    key = await desk.issue("engine", Role.VIEWER)
    exchange = CountExchange(database, "first")
    gates[0].state[COUNT_EXCHANGE] = exchange
    received = CountExchange(database, "second")
    gates[1].state[COUNT_EXCHANGE] = received
    received.open()
    connected = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        listening = group.create_task(database.listen(connected.set, lambda: None))
        assert await gates[1].statuses(1, token=key) == [200]
        assert await gates[0].statuses(3, token=key) == [200] * 3
        async with asyncio.timeout(60):
            await connected.wait()
            while True:  # until the listener has subscribed
                await exchange.announce()
                found = await gates[1].ask(token=key)
                if found.status == 429:
                    break
                gates[0].now_s += 10
                gates[1].now_s += 10
                assert await gates[0].statuses(5, token=key) == [200] * 5
                await asyncio.sleep(0.05)
        listening.cancel()
    assert found.document["limit"] == "requests"
