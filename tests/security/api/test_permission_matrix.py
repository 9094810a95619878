"""S03: every operation against every role and scope, from the OpenAPI document and one table."""

from collections.abc import AsyncIterator
from typing import Any, Final

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from app.container.application import ROUTERS
from app.foundation.errors import Code, UnavailableError
from app.foundation.http.dependencies import USE_CASES
from app.foundation.http.permissions import (
    AUTHENTICATOR,
    UndeclaredRouteError,
    public,
    requires,
)
from app.foundation.http.responses import SECURITY_HEADERS
from app.foundation.http.routing import api_router
from app.foundation.principals import (
    ANONYMOUS,
    AUTHENTICATED,
    LOCAL,
    Permission,
    Principal,
    PrincipalKind,
    Role,
    Scope,
)
from app.foundation.sql.database import Database
from tests.support.api_keys import OWN_PAGE, KeyDesk, bearer, cookie
from tests.support.harness import PREFIX, make_api, open_client, openapi_document
from tests.support.streaming import listening, port_of

pytestmark = pytest.mark.xdist_group("openapi")  # the document takes a second: made once
ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

# The specification. Each line: least role, method, path, and a scope that is enough by itself.
# `any` stands for every caller with a credential.
SPECIFICATION: Final = """
public    GET     /livez
public    GET     /readyz
viewer    GET     /metrics                                         metrics
viewer    GET     {}/symbols
viewer    POST    {}/symbols/validate
operator  POST    {}/symbols/sync
viewer    GET     {}/symbols/{symbol}
viewer    GET     {}/symbols/{symbol}/formats
viewer    GET     {}/symbols/{symbol}/eligibility
viewer    GET     {}/universe/funnel
viewer    GET     {}/market/{symbol}
viewer    GET     {}/market/{symbol}/candles
viewer    GET     {}/market/{symbol}/funding
viewer    GET     {}/market/{symbol}/open-interest
viewer    GET     {}/market/{symbol}/book
viewer    GET     {}/market/{symbol}/impact
viewer    GET     {}/market/{symbol}/quality
operator  POST    {}/market/{symbol}/quality/release
viewer    GET     {}/sectors
viewer    GET     {}/sectors/export
operator  POST    {}/sectors/import
operator  PUT     {}/sectors/{base}
operator  DELETE  {}/sectors/{base}
trader    POST    {}/scoring/calculate
trader    POST    {}/research/backtests
viewer    GET     {}/research/backtests/{job_id}
viewer    GET     {}/scoring/rankings
viewer    GET     {}/scoring/symbol/{symbol}/scores
viewer    GET     {}/scoring/symbol/{symbol}/explain
viewer    GET     {}/scoring/algorithms
viewer    GET     {}/scoring/validation
admin     PUT     {}/scoring/algorithms/{name}
viewer    GET     {}/scoring/runs/{run_id}
trader    POST    {}/scoring/runs/{run_id}/replay
viewer    GET     {}/portfolio
viewer    GET     {}/portfolio/statistics
viewer    GET     {}/portfolio/weights
viewer    GET     {}/portfolio/correlation
viewer    GET     {}/portfolio/replacement-candidates
viewer    GET     {}/portfolio/history
operator  POST    {}/portfolio/initialize
operator  POST    {}/portfolio/add-symbol
operator  POST    {}/portfolio/remove-symbol
operator  POST    {}/portfolio/replace-symbol
viewer    GET     {}/portfolio/replacements
viewer    GET     {}/portfolio/trading-switch
operator  PUT     {}/portfolio/trading-switch
viewer    GET     {}/portfolio/locks
viewer    GET     {}/portfolio/watch-list
viewer    GET     {}/portfolio/locks/{symbol}
operator  PUT     {}/portfolio/locks/{symbol}
operator  DELETE  {}/portfolio/locks/{symbol}
viewer    GET     {}/portfolio/proposals
operator  POST    {}/portfolio/proposals/{proposal_id}/approve
operator  POST    {}/portfolio/proposals/{proposal_id}/decline
trader    POST    {}/portfolio/rebalance
trader    POST    {}/portfolio/optimize-weights
viewer    GET     {}/portfolio/rebalances
viewer    GET     {}/portfolio/rebalances/{run_id}
trader    POST    {}/portfolio/rebalances/{run_id}/replay
trader    POST    {}/portfolio/replacements/{decision_id}/replay
viewer    GET     {}/portfolio/tradeable                           pairlist
trader    GET     {}/portfolio/symbols/{symbol}/should-trade
trader    GET     {}/portfolio/symbols/{symbol}/position-size
trader    GET     {}/portfolio/sizes
viewer    GET     {}/portfolio/safety
viewer    GET     {}/portfolio/integrity
viewer    GET     {}/portfolio/metrics
viewer    GET     {}/portfolio/analytics
trader    POST    {}/portfolio/symbols/{symbol}/performance
viewer    GET     {}/portfolio/positions
viewer    GET     {}/portfolio/equity
viewer    GET     {}/portfolio/trades
viewer    GET     {}/portfolio/performance-attribution
viewer    GET     {}/portfolio/marks
viewer    GET     {}/portfolio/replacements/ledger
viewer    GET     {}/portfolio/report
viewer    GET     {}/alerts/rules
admin     PUT     {}/alerts/rules/{name}
viewer    GET     {}/alerts
viewer    GET     {}/alerts/{alert_id}
trader    POST    {}/alerts/{alert_id}/replay
operator  POST    {}/alerts/{alert_id}/acknowledge
operator  POST    {}/alerts/{alert_id}/snooze
operator  POST    {}/alerts/{alert_id}/resolve
trader    POST    {}/signals                                       signals
viewer    GET     {}/signals/pending
viewer    GET     {}/signals/processed
viewer    GET     {}/signals/statistics
operator  POST    {}/signals/cleanup
operator  POST    {}/signals/reprocess-failed
viewer    GET     {}/signals/{signal_id}
trader    POST    {}/signals/{signal_id}/replay
viewer    GET     {}/events
viewer    GET     {}/changes
viewer    POST    {}/stream/tickets
viewer    GET     {}/notifications
viewer    GET     {}/notifications/channels
admin     POST    {}/notifications/channels
admin     PUT     {}/notifications/channels/{channel_id}
admin     DELETE  {}/notifications/channels/{channel_id}
admin     POST    {}/notifications/test
operator  POST    {}/notifications/{notification_id}/redrive
viewer    GET     {}/configuration
viewer    POST    {}/portfolio/preview
admin     PATCH   {}/configuration
admin     PUT     {}/configuration
admin     POST    {}/configuration/rollback
viewer    GET     {}/configuration/history
viewer    GET     {}/configuration/diff
viewer    GET     {}/jobs
viewer    GET     {}/jobs/{job_id}
operator  POST    {}/jobs/{job_id}/cancel
admin     GET     {}/keys
admin     POST    {}/keys
admin     POST    {}/keys/{key_id}/rotate
admin     DELETE  {}/keys/{key_id}
admin     GET     {}/audit
admin     GET     {}/debug/portfolio
public    POST    {}/sessions
any       GET     {}/sessions
any       DELETE  {}/sessions/current
any       DELETE  {}/sessions/{session_id}
any       GET     {}/users/me
any       PUT     {}/users/me/password
admin     GET     {}/users
admin     POST    {}/users
admin     PATCH   {}/users/{user_id}
admin     PUT     {}/users/{user_id}/password
viewer    GET     {}/health
viewer    GET     {}/status
viewer    GET     {}/dashboard
operator  POST    {}/initialize-sample-data
"""
LOG_IN: Final = ("POST", f"{PREFIX}/sessions")  # refuses wrong credentials
RANKS: Final = ("viewer", "trader", "operator", "admin")
SCOPES: Final = ("pairlist", "metrics", "signals", "live")
WEBSOCKET: Final = "viewer"  # role of {}/stream, which OpenAPI cannot describe


def specified() -> dict[tuple[str, str], tuple[str, str | None]]:
    """Role and scope by method and path."""
    table = {}
    for line in SPECIFICATION.strip().splitlines():
        role, method, path, *scope = line.split()
        table[method, path.replace("{}", PREFIX)] = role, scope[0] if scope else None
    return table


def allowed(caller: str, role: str, scope: str | None) -> bool:
    if role == "public":
        return True
    if role == "any":
        return caller != "nobody"
    if caller in SCOPES:
        return caller == scope
    rank = caller.removeprefix("user ")
    return rank in RANKS and RANKS.index(rank) >= RANKS.index(role)


class Nothing:
    """No use case is there: a request that passes its permission ends with 503."""

    def get(self, kind: type) -> Any:
        raise UnavailableError(Code.SHUTTING_DOWN, f"no {kind.__name__}")


@pytest.fixture
async def desk(database: Database) -> KeyDesk:
    return KeyDesk(database)


@pytest.fixture
async def callers(desk: KeyDesk) -> dict[str, dict[str, str]]:
    """Headers of a key of each role and of each scope alone, of sessions, and of nobody."""
    found: dict[str, dict[str, str]] = {"nobody": {}}
    for role in RANKS:
        await desk.person(role, Role(role))
        found[f"user {role}"] = {**OWN_PAGE, **cookie(await desk.log_in(role))}
        found[role] = bearer(await desk.issue(role, Role(role)))
    for scope in SCOPES:
        found[scope] = bearer(await desk.issue(scope, None, Scope(scope)))
    return found


@pytest.fixture
async def client(desk: KeyDesk) -> AsyncIterator[httpx2.AsyncClient]:
    state = {AUTHENTICATOR: desk.ring, USE_CASES: Nothing()}
    async with open_client(make_api(state)) as opened:
        yield opened


def test_the_specification_names_every_operation() -> None:
    document = openapi_document()
    found = {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    table = specified()
    assert found.keys() == table.keys()
    schemes = document["components"]["securitySchemes"]
    assert {(one["type"], one.get("scheme"), one.get("name")) for one in schemes.values()} == {
        ("http", "bearer", None),
        ("apiKey", None, "X-API-Key"),
        ("apiKey", None, "__Host-mysym_session"),
    }
    for key, (role, scope) in table.items():
        operation = found[key]
        if role == "public":
            assert operation["security"] == []
            refusals = {"401", "403"} & operation["responses"].keys()
            assert refusals == ({"401", "403"} if key == LOG_IN else set()), key
            continue
        assert operation["security"] == [{name: []} for name in schemes], key
        assert operation.get("x-required-role") == (None if role == "any" else role), key
        assert operation.get("x-required-scope") == scope, key
        assert "`unauthenticated`" in operation["responses"]["401"]["description"], key
        assert "`forbidden`" in operation["responses"]["403"]["description"], key
        is_forgeable = "`csrf_refused`" in operation["responses"]["403"]["description"]
        assert is_forgeable == (key[0] != "GET"), key
        assert "429" in operation["responses"], key


@ON_SQLITE
async def test_S03_every_operation_obeys_the_role_and_the_scope_of_the_key(
    client: httpx2.AsyncClient, callers: dict[str, dict[str, str]]
) -> None:
    wrong = []
    for (method, template), (role, scope) in specified().items():
        path = template.replace("{", "").replace("}", "")
        for caller, headers in callers.items():
            # The body is broken: a refusal comes before anything reads it.
            content = None if method == "GET" else b"{"
            answer = await client.request(method, path, headers=headers, content=content)
            if allowed(caller, role, scope):
                passed = answer.status_code not in {401, 403, 429}
            else:
                code = 401 if caller == "nobody" else 403
                name = "unauthenticated" if caller == "nobody" else "forbidden"
                passed = (answer.status_code, answer.json()["code"]) == (code, name)
            if not passed:
                wrong.append((method, template, caller, answer.status_code))
    assert wrong == []


@ON_SQLITE
async def test_S03_a_websocket_obeys_the_role_before_it_is_accepted(
    desk: KeyDesk, callers: dict[str, dict[str, str]]
) -> None:
    state = {AUTHENTICATOR: desk.ring, USE_CASES: Nothing()}
    async with listening(make_api(state)) as server:
        place = f"127.0.0.1:{port_of(server)}"
        address = f"ws://{place}{PREFIX}/stream"
        for caller, headers in callers.items():
            origin = Origin(f"http://{place}") if "Cookie" in headers else None
            with pytest.raises(InvalidStatus) as refused:
                await connect(address, additional_headers=headers, origin=origin)
            response = refused.value.response
            if allowed(caller, WEBSOCKET, None):
                assert response.status_code == 503, caller  # there is no stream
            else:
                expected = 401 if caller == "nobody" else 403
                assert response.status_code == expected, caller
                assert (response.headers.get("www-authenticate") is None) == (expected == 403)


@ON_SQLITE
async def test_S10_a_refused_websocket_has_the_headers_of_every_answer(
    desk: KeyDesk, caplog: pytest.LogCaptureFixture
) -> None:
    await desk.issue("engine", Role.VIEWER)  # ends the open mode
    state = {AUTHENTICATOR: desk.ring, USE_CASES: Nothing()}
    async with listening(make_api(state)) as server:
        address = f"ws://127.0.0.1:{port_of(server)}{PREFIX}"
        given = {"X-Request-ID": "caller-chosen-1"}
        for path, headers, status in (
            ("/stream", {}, 401),
            ("/stream", {"Origin": "https://evil.example"}, 403),
            ("/nothing", {}, 403),
        ):
            with pytest.raises(InvalidStatus) as refused:
                await connect(address + path, additional_headers={**headers, **given})
            response = refused.value.response
            assert response.status_code == status, path
            for name, value in SECURITY_HEADERS:
                assert response.headers.get_all(name.decode()) == [value.decode()], (path, name)
            assert response.headers.get_all("x-request-id") == ["caller-chosen-1"]
            assert "strict-transport-security" not in response.headers
            assert (response.body or b"").count(b"caller-chosen-1") == (status == 401)
    assert [one for one in caplog.records if one.levelname == "ERROR"] == []


def test_a_caller_of_any_role_is_not_an_anonymous_one() -> None:
    assert not AUTHENTICATED.is_public
    assert AUTHENTICATED.describe() == "a credential"
    scoped = Principal(PrincipalKind.KEY, "bot", None, frozenset({Scope.METRICS}))
    assert [AUTHENTICATED.allows(one) for one in (scoped, LOCAL, ANONYMOUS)] == [True, True, False]


def test_S03_a_route_without_a_permission_stops_the_start() -> None:
    router = api_router("system")

    @router.post("/forgotten")
    async def forgotten() -> None: ...

    @router.websocket("/forgotten-socket")
    async def forgotten_socket() -> None: ...

    with pytest.raises(UndeclaredRouteError) as raised:
        make_api(routers=[*ROUTERS, router])
    assert "POST /forgotten" in str(raised.value)
    assert "/forgotten-socket" in str(raised.value)


def test_S03_a_permission_that_no_route_checks_stops_the_start() -> None:
    from fastapi import APIRouter

    router = APIRouter()

    @router.get("/open")
    @public
    async def harmless() -> None: ...

    make_api(routers=[router])

    @router.get("/unchecked")
    @requires(Role.ADMIN)
    async def unchecked() -> None: ...

    with pytest.raises(UndeclaredRouteError, match="GET /unchecked is never checked"):
        make_api(routers=[router])


def test_real_money_needs_the_scope_live_whatever_the_role() -> None:
    order = Permission(Role.TRADER, Scope.SIGNALS, is_live=True)
    trader = Principal(PrincipalKind.KEY, "engine", Role.TRADER)
    live = Principal(PrincipalKind.KEY, "engine", Role.TRADER, frozenset({Scope.LIVE}))
    viewer = Principal(PrincipalKind.KEY, "eye", Role.VIEWER, frozenset({Scope.LIVE}))
    admin = Principal(PrincipalKind.KEY, "admin", Role.ADMIN)
    assert order.allows(live)
    for refused in (trader, viewer, admin, LOCAL):
        assert not order.allows(refused)
    assert Permission(Role.TRADER).allows(trader)
    assert order.describe() == "role trader or scope signals and scope live"
