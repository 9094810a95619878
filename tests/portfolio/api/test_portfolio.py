"""The portfolio over HTTP, on real databases and the real services."""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, cast

import httpx2
import pytest

from app.alerts.api import alert_routes as alerts
from app.foundation.sql.database import Database
from app.market.domain.models import ContractStatus
from app.operations.api import configuration_routes as configuration
from app.operations.api.system_routes import integrity_router
from app.operations.services.integrity import IntegrityService
from app.performance.api import metrics_routes as portfolio_metrics
from app.portfolio.api import membership_routes as portfolio_changes
from app.portfolio.api import portfolio_routes as portfolio
from app.portfolio.api import rebalance_routes as portfolio_rebalance
from app.portfolio.storage.history import HistoryRepository
from app.trading.api import routes as portfolio_trading
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.stored_values import STAMP, draft
from tests.support.trading_desk import SYMBOLS, WHO, Desk, symbol_id

MODULES = (
    portfolio,
    portfolio_changes,
    portfolio_metrics,
    portfolio_rebalance,
    portfolio_trading,
    alerts,
    configuration,
)
Call = Callable[..., Coroutine[Any, Any, httpx2.Response]]


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    async with serve(
        [*(one.router for one in MODULES), integrity_router], {"my_symbols": desk}
    ) as opened:
        yield opened


async def get(client: httpx2.AsyncClient, path: str, **query: Any) -> Any:
    response = await client.get(f"{PREFIX}{path}", params=query)
    assert response.status_code == 200, response.text
    return response.json()


async def post(
    client: httpx2.AsyncClient, path: str, body: Any = None, **headers: str
) -> httpx2.Response:
    return await client.post(
        f"{PREFIX}/portfolio{path}",
        json={} if body is None else body,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


@dataclass
class Gated:
    """Decision contexts that wait for a gate."""

    factory: Any
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    runs: int = 0

    async def of(self, unit: Any) -> Any:
        self.runs += 1
        await self.gate.wait()
        return await self.factory.of(unit)


async def test_E03_slow_integrity_checks_are_shared_and_block_no_other_expensive_request(
    desk: Desk,
) -> None:
    await desk.open()
    gated = Gated(desk.integrity.contexts)
    desk.integrity = IntegrityService(desk.database, cast("Any", gated))
    routers = [*(one.router for one in MODULES), integrity_router]
    async with serve(routers, {"my_symbols": desk}) as client, asyncio.TaskGroup() as group:
        path = f"{PREFIX}/portfolio/integrity"
        calls = [group.create_task(client.get(path)) for _ in range(12)]
        async with asyncio.timeout(30):
            while sum(one.done() for one in calls) < 4 or not gated.runs:
                await asyncio.sleep(0.01)
            await get(client, "/portfolio/analytics")
        gated.gate.set()
    answers = [one.result() for one in calls]
    assert sorted(one.status_code for one in answers) == [200] * 8 + [503] * 4
    assert {one.json()["code"] for one in answers if one.status_code == 503} == {"overloaded"}
    assert gated.runs == 2, "the first one, and one for those that came during it"


async def test_a_portfolio_from_nothing_to_ten(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.open()
    empty = await get(client, "/portfolio")
    assert (empty["version"], empty["size"], empty["cash_percentage"]) == (0, 0, 100)
    made = await post(client, "/initialize", {"user": "ops"})
    assert made.status_code == 200
    assert made.headers["etag"] == '"1"'
    assert made.json()["refused"] == []
    response = await client.get(f"{PREFIX}/portfolio")
    shown = response.json()
    assert response.headers["etag"] == '"1"'
    assert [one["symbol"] for one in shown["members"]] == list(SYMBOLS[:10])
    total = sum(round(one["weight_percentage"] * 10**6) for one in shown["members"])
    assert total + round(shown["cash_percentage"] * 10**6) == 10**8
    assert (shown["data_source"], shown["data_status"]) == ("sandbox", "fresh")
    assert shown["as_of"] == "2026-03-01T12:00:00Z"
    first = shown["members"][0]
    assert first["status"] == "Active"
    assert first["is_tradeable"]
    assert first["realized_pnl"] is None
    assert float(first["inclusion_price"]) == 10.0
    same = await client.get(f"{PREFIX}/portfolio", headers={"If-None-Match": '"1"'})
    assert same.status_code == 200  # scores move without the version
    problem(await post(client, "/initialize"), 409, "portfolio_not_empty")
    event = (await get(client, "/portfolio/history", limit=1))["items"][0]
    assert (event["actor"], event["details"]["user"]) == ("local", "ops")


async def targets(client: httpx2.AsyncClient) -> list[dict[str, float]]:
    """By symbol, as the portfolio and as the weights tell them."""
    told = [
        (await get(client, "/portfolio"))["members"],
        (await get(client, "/portfolio/weights"))["weights"],
    ]
    return [{one["symbol"]: one["target_weight_percentage"] for one in lines} for lines in told]


async def test_a_target_is_the_same_wherever_it_is_told(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.filled(7)
    first, same = await targets(client)
    assert first == same
    assert all(first.values())

    desk.quote(SYMBOLS[1], mark=Decimal("13.0"))  # prices carry the weights away
    desk.score({SYMBOLS[2]: 0.3})  # it is just paused: no change has taken that up yet
    moved, same = await targets(client)
    assert moved == same
    assert (moved[SYMBOLS[2]], first[SYMBOLS[2]] > 0) == (0.0, True)
    assert sum(moved.values()) == pytest.approx(100)

    desk.stale(*SYMBOLS)  # nothing can be said of now: what was set last stands
    old, same = await targets(client)
    assert old == same == first


async def test_add_replace_remove(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.filled(3)
    added = await post(client, "/add-symbol", {"symbol": "c07-usdt", "reason": "by hand"})
    assert added.status_code == 201
    assert (added.json()["symbol"], added.json()["position_rank"]) == (SYMBOLS[7], 4)
    assert added.json()["version"] == 2
    assert added.headers["etag"] == '"2"'
    by_id = await post(client, "/add-symbol", {"symbol_id": symbol_id(8)})
    assert by_id.json()["inclusion_reason"] == "requested"
    swapped = await post(
        client, "/replace-symbol", {"old_symbol": SYMBOLS[7], "new_symbol": SYMBOLS[9]}
    )
    assert swapped.status_code == 200
    body = swapped.json()
    assert body["old_symbol"]["status"] == "Replaced"
    assert body["new_symbol"]["position_rank"] == 4
    assert body["score_difference"] == pytest.approx(-0.03)
    gone = await post(client, "/remove-symbol", {"symbol": SYMBOLS[0]})
    assert gone.json()["removed"]["status"] == "Removed"
    assert gone.json()["version"] == 5
    assert (await get(client, "/portfolio/integrity"))["ok"]


REFUSED: tuple[tuple[str, Any, int, str], ...] = (
    ("/add-symbol", {"symbol": SYMBOLS[0]}, 409, "symbol_already_in_portfolio"),
    ("/add-symbol", {"symbol": "NOSUCH"}, 422, "symbol_unknown"),
    ("/add-symbol", {}, 422, "validation_failed"),
    ("/add-symbol", {"symbol": "A", "symbol_id": "B"}, 422, "validation_failed"),
    ("/add-symbol", {"symbol": SYMBOLS[8], "tip": 1}, 422, "validation_failed"),
    ("/add-symbol", {"symbol": SYMBOLS[11]}, 422, "symbol_not_tradable"),
    ("/add-symbol", {"symbol": SYMBOLS[12]}, 503, "market_data_stale"),
    ("/remove-symbol", {"symbol": SYMBOLS[9]}, 409, "symbol_not_in_portfolio"),
    ("/replace-symbol", {"old_symbol": SYMBOLS[0]}, 422, "validation_failed"),
    ("/initialize", {"size": 0}, 422, "validation_failed"),
    ("/rebalance", {"method": "magic"}, 422, "validation_failed"),
    ("/rebalance", {"dry_run": "yes"}, 422, "validation_failed"),
    ("/rebalance", {"account_balance": "-5"}, 422, "validation_failed"),
)


async def test_I02_refusals_change_nothing(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.filled(3)
    desk.status(SYMBOLS[11], ContractStatus.PAUSED)
    desk.stale(SYMBOLS[12])
    before = await get(client, "/portfolio")
    extra = frozenset({"near_matches"})
    for path, body, status, code in REFUSED:
        problem(await post(client, path, body), status, code, extra=extra)
    assert await get(client, "/portfolio") == before
    assert len((await get(client, "/portfolio/history"))["items"]) == 4


async def test_C05_fifty_adds_over_http(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.filled(9)
    answers = await asyncio.gather(
        *(post(client, "/add-symbol", {"symbol": SYMBOLS[9 + at]}) for at in range(50))
    )
    statuses = [one.status_code for one in answers]
    assert statuses.count(201) == 1
    assert statuses.count(409) == 49
    codes = {one.json()["code"] for one in answers if one.status_code == 409}
    assert codes == {"portfolio_full"}
    assert (await get(client, "/portfolio"))["size"] == 10


async def test_C02_replays_are_byte_for_byte(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.filled(3)
    body = {"symbol": SYMBOLS[8]}
    first = await post(client, "/add-symbol", body, idempotency_key="k-1")
    again = await post(client, "/add-symbol", {"symbol": SYMBOLS[8]}, idempotency_key="k-1")
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["content-type"] == first.headers["content-type"]
    assert "idempotency-replayed" not in first.headers
    other = await post(client, "/add-symbol", {"symbol": SYMBOLS[9]}, idempotency_key="k-1")
    problem(other, 422, "idempotency_key_reused")
    route = await post(client, "/remove-symbol", body, idempotency_key="k-1")
    problem(route, 422, "idempotency_key_reused")
    assert (await get(client, "/portfolio"))["version"] == 2


async def test_C02_many_at_once_with_one_key(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.filled()
    desk.score({SYMBOLS[0]: 0.4})
    answers = await asyncio.gather(
        *(post(client, "/rebalance", idempotency_key="tick-7") for _ in range(30))
    )
    done = {one.content for one in answers if one.status_code == 200}
    assert len(done) == 1
    for one in answers:
        if one.status_code != 200:
            problem(one, 409, "idempotency_in_progress")
            assert one.headers["retry-after"] == "1"
    assert (await get(client, "/portfolio"))["version"] == 2


async def test_B16_a_client_that_hangs_up_leaves_a_whole_change_behind(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.filled(3)
    app, path = cast("Any", client)._transport.app, f"{PREFIX}/portfolio/add-symbol"
    body, once = {"symbol": SYMBOLS[9]}, {"idempotency-key": "k", "host": "service"}
    heard = [
        {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Any:
        return heard.pop(0) if len(heard) > 1 else heard[0]

    async def send(_: Any) -> None:
        raise OSError("nobody is there")

    asked = client.build_request("POST", path, json=body, headers=once)
    with suppress(OSError):
        await app(
            {
                "type": "http",
                "asgi": {"version": "3.0"},
                "http_version": "1.1",
                "method": "POST",
                "scheme": "http",
                "path": path,
                "raw_path": path.encode(),
                "query_string": b"",
                "headers": [(name.lower(), value) for name, value in asked.headers.raw],
                "client": ("127.0.0.1", 1),
                "server": ("service", 80),
            },
            receive,
            send,
        )
    assert desk.database.checked_out == 0
    assert (await get(client, "/portfolio"))["version"] == 2
    assert await desk.members() == [*SYMBOLS[:3], SYMBOLS[9]]
    again = await post(client, "/add-symbol", body, idempotency_key="k")
    assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")


async def test_if_match(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.filled(3)
    stale = await post(client, "/add-symbol", {"symbol": SYMBOLS[8]}, if_match='"0"')
    problem(stale, 412, "precondition_failed")
    fine = await post(client, "/add-symbol", {"symbol": SYMBOLS[8]}, if_match='"1"')
    assert fine.status_code == 201


async def test_rebalance_dry_then_real_then_nothing(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.filled()
    desk.score({SYMBOLS[0]: 0.4})
    body = {"dry_run": True, "account_balance": "10000"}
    dry = (await post(client, "/rebalance", body)).json()
    assert dry["dry_run"]
    assert dry["total_changes"] == len(dry["changes"]) == 10
    assert dry["triggers"] == ["drift"]
    left = {one["symbol"]: one for one in dry["changes"]}[SYMBOLS[0]]
    assert (left["new"], left["action"], left["lots"]) == (0, "exit", 0)
    assert left["change"] == -left["old"]
    assert dry["estimated_cost"] > 0
    real = (await client.post(f"{PREFIX}/portfolio/rebalance")).json()
    assert real["changes"] == [{**one, "lots": None} for one in dry["changes"]]
    assert real["version"] == 2
    second = (await post(client, "/rebalance")).json()
    assert (second["total_changes"], second["changes"], second["version"]) == (0, [], 2)
    desk.later(hours=1)
    stale = problem(await post(client, "/rebalance"), 503, "market_data_stale")
    assert stale["retry_after_s"] == 30


async def test_the_other_reads(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.filled()
    statistics = await get(client, "/portfolio/statistics")
    assert statistics["score_range"] == {"min": pytest.approx(0.855), "max": 0.99}
    assert statistics["performance_metrics"]["avg_volatility"] is None
    assert statistics["last_updated"] == "2026-03-01T12:00:00Z"
    analytics = await get(client, "/portfolio/analytics")
    assert (analytics["sharpe"], analytics["observations"]) == (None, 0)
    assert len(analytics["lowest_scorers"]) == len(analytics["top_performers"]) == 3
    weights = await get(client, "/portfolio/weights")
    assert [one["drift"] for one in weights["weights"]] == [0.0] * 10
    assert (weights["min_weight_percentage"], weights["max_weight_percentage"]) == (5, 20)
    correlation = await get(client, "/portfolio/correlation")
    assert correlation["days"] == 30
    assert len(correlation["correlations"]) == 45
    assert len((await get(client, "/portfolio/correlation", days=10))["pairs_without_history"])
    candidates = (await get(client, "/portfolio/replacement-candidates"))["candidates"]
    assert [one["replacement_priority"] for one in candidates] == [1, 2]
    tradeable = await get(client, "/portfolio/tradeable")
    assert [one["symbol"] for one in tradeable["symbols"]] == list(SYMBOLS[:10])


async def test_a_member_shows_its_weight_as_prices_have_carried_it(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.filled(5)
    still = (await get(client, "/portfolio"))["members"]
    assert {one["current_weight_percentage"] for one in still} == {20}
    desk.quote(SYMBOLS[0], mark=Decimal(20))  # twice what it was
    members = (await get(client, "/portfolio"))["members"]
    assert [one["weight_percentage"] for one in members] == [20] * 5
    assert members[0]["current_weight_percentage"] == pytest.approx(100 / 3, abs=1e-5)
    assert members[1]["current_weight_percentage"] == pytest.approx(100 / 6, abs=1e-5)
    lines = (await get(client, "/portfolio/weights"))["weights"]
    for member, line in zip(members, lines, strict=True):
        assert member["current_weight_percentage"] == line["current_weight_percentage"]


async def _lots(client: httpx2.AsyncClient, balance: str) -> tuple[dict[str, int], ...]:
    """Of every member, as the dry run, the sizes of all and the position size of each say."""
    dry = await post(client, "/rebalance", {"dry_run": True, "account_balance": balance})
    assert dry.status_code == 200, dry.text
    every = await get(client, "/portfolio/sizes", account_balance=balance)
    each = [
        await get(
            client, f"/portfolio/symbols/{one['symbol']}/position-size", account_balance=balance
        )
        for one in every["sizes"]
    ]
    for one, alone in zip(every["sizes"], each, strict=True):
        assert one == {name: value for name, value in alone.items() if name in one}
        assert one["caps"] == []
    return (
        dry.json()["lots"]["lots"],
        {one["symbol"]: one["lots"] for one in every["sizes"]},
        {one["symbol"]: one["lots"] for one in each},
    )


async def test_dry_run_sizes_and_position_size_count_the_same_lots(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.open()
    for place, symbol in enumerate(SYMBOLS[:10]):
        desk.quote(symbol, mark=Decimal(f"{7 + 61 * place}.37"))
    await desk.portfolio.initialize(10, "start", WHO)
    ups = 0
    for moved in ("1", "1.013", "0.99"):  # within the band: the weights stay, the lots need not
        for symbol in SYMBOLS[:10]:
            mark = desk.market.quotes[symbol].mark
            assert mark is not None
            desk.quote(symbol, mark=mark * Decimal(moved))
        desk.score({SYMBOLS[0]: 0.985})  # targets a little away from the weights in force
        for balance in ("200", "1000", "5003.5", "12345.67", "250000"):
            dry, every, each = await _lots(client, balance)
            assert dry == every == each
            sizes = (await get(client, "/portfolio/sizes", account_balance=balance))["sizes"]
            ups += sum(Decimal(one["rounding_error"]) < 0 for one in sizes)
            assert sum(Decimal(one["notional"]) for one in sizes) <= Decimal(balance)
    assert ups > 20
    desk.score({SYMBOLS[0]: 0.61})
    assert (await post(client, "/rebalance")).status_code == 200
    dry, every, each = await _lots(client, "12345.67")
    assert dry == every == each


async def test_trading_answers(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.filled()
    verdict = await get(client, "/portfolio/symbols/C00%2FUSDT:USDT/should-trade")
    assert (verdict["symbol"], verdict["trade"]) == (SYMBOLS[0], True)
    assert all(check["passed"] for check in verdict["checks"])
    outside = await get(client, f"/portfolio/symbols/{SYMBOLS[30]}/should-trade")
    assert (outside["trade"], outside["reason"]) == (False, "it is not a member")
    where = f"/portfolio/symbols/{SYMBOLS[0]}/position-size"
    sized = await get(client, where, account_balance="10000", leverage="2", confidence="0.5")
    weight = (await get(client, "/portfolio"))["members"][0]["weight_percentage"]
    assert sized["lots"] == int(10_000 * weight / 100)
    assert (sized["caps"], sized["binding_cap"]) == (["confidence"], "confidence")
    limits = {one["name"]: one for one in sized["limits"]}
    assert limits["leverage"] == {
        "name": "leverage",
        "value": "2",
        "limit": "100",
        "unit": "times",
        "source": "contract",
        "applied": False,
    }
    assert Decimal(limits["turnover"]["limit"]) == 500_000
    assert limits["confidence"]["applied"]
    assert 0 < Decimal(sized["liquidation_price"]) < Decimal(sized["price"])
    assert isinstance(sized["margin"], str)
    record = {"wins": "55", "losses": "45", "payoff_ratio": "1.2"}
    kelly = await get(client, where, account_balance="10000", **record)
    assert kelly["binding_cap"] == "kelly"
    assert float(kelly["wanted_notional"]) == pytest.approx(399.3, abs=0.1)
    for query in (
        {},
        {"account_balance": "0"},
        {"account_balance": "1", "leverage": "x"},
        {"account_balance": "1", "wins": "5", "losses": "5"},
        {"account_balance": "1", **record, "payoff_ratio": "0"},
    ):
        response = await client.get(f"{PREFIX}{where}", params=query)
        problem(response, 422, "validation_failed")
    inverse = replace(
        desk.market.quotes[SYMBOLS[0]].contract,
        is_inverse=True,
        multiplier=Decimal(1),
        quote="USD",
        settle="C00",
    )
    desk.quote(SYMBOLS[0], contract=inverse)  # a lot is a dollar now, at 10 a coin
    dollars = await get(client, where, account_balance="10000", leverage="2", price="12.5")
    assert dollars["lots"] == int(2 * 10_000 * weight / 100)
    assert Decimal(dollars["notional"]) == dollars["lots"] == 2 * Decimal(dollars["margin"])
    assert Decimal(dollars["quantity"]) == Decimal(dollars["lots"]) / Decimal("12.5")
    assert Decimal(dollars["liquidation_price"]) == Decimal("8.4")  # 12.5 * 1.005 / 1.5, by tick
    unknown = await client.get(f"{PREFIX}/portfolio/symbols/NOSUCH/should-trade")
    problem(unknown, 422, "symbol_unknown", extra=frozenset({"near_matches"}))


async def test_history_pages(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.filled(3)
    await post(client, "/remove-symbol", {"symbol": SYMBOLS[1], "reason": "weak", "user": "eve"})
    first = await get(client, "/portfolio/history", limit=4)
    rest = await get(client, "/portfolio/history", limit=4, cursor=first["next_cursor"])
    events = [*first["items"], *rest["items"]]
    assert [one["sequence"] for one in events] == [6, 5, 4, 3, 2, 1]
    assert rest["next_cursor"] is None
    removal = events[1]
    assert (removal["action"], removal["actor"], removal["reason"]) == ("REMOVE", "local", "weak")
    assert removal["details"]["user"] == "eve"
    assert removal["score"] == pytest.approx(0.975)
    assert removal["hash"] == events[0]["prev_hash"]
    assert removal["request_id"].startswith("request-")
    adds = await get(client, "/portfolio/history", action="ADD", symbol="c01usdt")
    assert [one["symbol"] for one in adds["items"]] == [SYMBOLS[1]]
    foreign = {"limit": 4, "cursor": first["next_cursor"], "action": "ADD"}
    problem(
        await client.get(f"{PREFIX}/portfolio/history", params=foreign), 422, "validation_failed"
    )


async def test_E04_pages_of_a_long_history_need_no_more_memory_than_of_a_short_one(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.filled(3)

    async def lengthen(count: int) -> None:
        async with desk.database.write() as unit:
            await unit.get(HistoryRepository).append([draft() for _ in range(count)], STAMP)

    async def peak(**query: str) -> tuple[int, dict[str, Any]]:
        """Bytes allocated while one page is read, and the page."""
        tracemalloc.start()
        try:
            page = await get(client, "/portfolio/history", limit=50, **query)
            return tracemalloc.get_traced_memory()[1], page
        finally:
            tracemalloc.stop()

    await lengthen(200)
    await peak()
    short, _ = await peak()
    await lengthen(3_000)
    long, page = await peak()
    assert long < 2 * short
    seqs = [one["sequence"] for one in page["items"]]
    assert seqs[0] > 3_200
    cursor = page["next_cursor"]
    while cursor is not None:
        query = {"limit": 500, "cursor": cursor}
        page = await get(client, "/portfolio/history", **query)
        seqs += [one["sequence"] for one in page["items"]]
        cursor = page["next_cursor"]
    assert seqs == list(range(seqs[0], 0, -1))


async def test_alerts_over_http(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.filled(3)
    off = {"enabled": False}
    unreal = {"price_anomaly": off, "sector_concentration": off, "var_above_limit": off}
    await desk.configuration.put({"alerts": {"rules": unreal}}, "why", WHO)
    assert (await get(client, "/alerts"))["items"] == []
    desk.status(SYMBOLS[0], ContractStatus.PAUSED)
    desk.score({SYMBOLS[1]: 0.2, SYMBOLS[2]: 0.3})
    first = await get(client, "/alerts", limit=2)
    rest = await get(client, "/alerts", limit=2, cursor=first["next_cursor"])
    assert [(one["rule"], one["subject"]) for one in (*first["items"], *rest["items"])] == [
        ("not_tradeable", SYMBOLS[0]),
        ("low_score", SYMBOLS[1]),
        ("low_score", SYMBOLS[2]),
    ]
    assert rest["next_cursor"] is None
    one = await get(client, "/alerts", severity="critical")
    assert [alert["rule"] for alert in one["items"]] == ["not_tradeable"]
    problem(await client.get(f"{PREFIX}/alerts", params={"rule": "mood"}), 422, "validation_failed")
