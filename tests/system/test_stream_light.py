"""The stream of a whole service on the sandbox: scores, changes and quotes over a real socket."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn
from fastapi import FastAPI
from websockets.asyncio.client import connect

from app.container.application import request_state
from app.container.assembly import Services, assemble
from app.foundation.events import EventTopic
from app.foundation.metrics import Metrics
from app.operations.services.event_messages import LiveTopic
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from tests.support.harness import PREFIX, make_api_with
from tests.support.service_in_process import settings_for
from tests.support.streaming import PATIENCE_S, Client, SseClient, listening, port_of

ALL = ("portfolio_change", "score_update", "scoring_run", "ticker:XBTUSDTM")


async def test_a_market_is_scored_changed_and_quoted_over_one_connection(tmp_path: Path) -> None:
    metrics, started = Metrics(), list[Services]()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with assemble(settings, metrics) as services:
            started.append(services)
            yield request_state(services.my_symbols)

    async with serve_exchange(SandboxOptions(contracts=60, quota=100_000), time.time) as exchange:
        settings = settings_for(exchange, f"sqlite+aiosqlite:///{tmp_path}/stream.sqlite3")
        async with listening(make_api_with(lifespan, metrics=metrics)) as server:
            service = started[0].my_symbols
            await service.market.scorable.wait()
            address = f"127.0.0.1:{port_of(server)}{PREFIX}"
            async with connect(f"ws://{address}/stream") as connection:
                client = Client(connection)
                confirmed = await client.subscribe(*ALL, resume_from=0)
                assert "ticker:BTCUSDT" in confirmed["topics"]  # the standard spelling
                heard: dict[str, list[dict[str, Any]]] = {}
                while not (complete(heard) and "ticker:BTCUSDT" in heard):
                    for event in await client.events(1):
                        heard.setdefault(event["topic"], []).append(event)
            await check_live_topics(address)
            await check_example(address, server)
            await check_every_topic(address)
    board = complete(heard)[0]
    scored = board["data"]
    earlier = [one for one in heard["scoring_run"] if one["sequence"] < board["sequence"]]
    provisional = {one["data"]["run_id"] for one in earlier}  # tells of no change of a score
    assert provisional.isdisjoint(one["data"]["run_id"] for one in heard["score_update"])
    updates = [one for one in heard["score_update"] if one["data"]["run_id"] == scored["run_id"]]
    assert len(updates) == scored["scored"] > 10
    for one in updates:
        assert one["sequence"] < board["sequence"]
        assert one["data"]["old_score"] is None  # the first complete board
        assert 0.0 <= one["data"]["new_score"] <= 1.0
    quote = heard["ticker:BTCUSDT"][0]
    assert quote["sequence"] is None
    assert quote["data"]["data_source"] == "sandbox"
    assert Decimal(quote["data"]["bid"]) < Decimal(quote["data"]["ask"])
    assert json.loads(json.dumps(quote)) == quote


EXAMPLE = Path(__file__).parents[2] / "docs/examples/follow_portfolio.py"


async def check_example(address: str, server: uvicorn.Server) -> None:
    """The script of the documentation keeps weights and sizes, over a lost connection too."""
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 40
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLE), f"http://{address.partition('/')[0]}", "10000"),
        stdout=asyncio.subprocess.PIPE,
        limit=1_000_000,
    )
    assert process.stdout is not None

    async def follow() -> None:
        """Reads lines until weights, version and sizes are those of the service."""
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            while True:
                shown = json.loads(await process.stdout.readline())
                async with http.get("portfolio") as answer:
                    book = await answer.json()
                weights = {one["symbol"]: one["weight_percentage"] for one in book["members"]}
                if shown["version"] != book["version"]:
                    continue
                known = {name: one for name, one in shown["weights"].items() if one}
                assert known == {name: one for name, one in weights.items() if one}
                marks = {}
                for symbol in weights:
                    async with http.get(f"market/{symbol}") as answer:
                        marks[symbol] = (await answer.json())["mark_price"]
                expected = {
                    symbol: Decimal(10_000) / 100 * Decimal(str(weight)) / Decimal(marks[symbol])
                    for symbol, weight in weights.items()
                }
                found = {name: Decimal(one) for name, one in shown["sizes"].items()}
                if {name: found.get(name) for name in expected} == expected:
                    return

    try:
        async with aiohttp.ClientSession(f"http://{address}/") as http:
            await follow()
            for connection in list(server.server_state.connections):
                connection.transport.abort()
            async with http.get("portfolio") as answer:
                book = await answer.json()
            gone = {"symbol": book["members"][0]["symbol"], "reason": "while away"}
            async with http.post("portfolio/remove-symbol", json=gone) as answer:
                assert answer.status == 200, await answer.text()
            await follow()
    finally:
        process.kill()
        await process.wait()


async def check_every_topic(address: str) -> None:
    """Each topic speaks over both transports; the clients check each message by its schema."""
    names = [*(topic.value for topic in EventTopic), *LiveTopic, "ticker:BTCUSDT"]
    async with aiohttp.ClientSession(f"http://{address}/") as http:

        async def change(method: str, path: str, body: Mapping[str, Any], **headers: str) -> Any:
            async with http.request(method, path, json=body, headers=headers) as answer:
                assert answer.status < 300, await answer.text()
                return await answer.json()

        await change("POST", "scoring/calculate", {}, Prefer="respond-async")  # a job
        await change("PATCH", "configuration", {"max_weight_percentage": "12"})
        done = await change("POST", "portfolio/rebalance", {})
        assert done["changes"]
        made = await change("POST", "keys", {"name": "boss", "role": "admin"})
        headers = {"X-API-Key": made["secret"]}
    url = f"ws://{address}/stream"
    async with connect(url, additional_headers=headers) as connection:
        client, heard = Client(connection), set[str]()
        await client.subscribe(*names, resume_from=0)
        while heard != {*names}:
            heard |= {event["topic"] for event in await client.events(1)}
    query = {"topics": ",".join(names), "resume_from": "0"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.get(f"http://{address}/events", params=query) as answer,
    ):
        source, heard = SseClient(answer), set()
        while heard != {*names}:
            heard |= {(await source.hear())["data"].get("topic")} - {None}


def predictions(dashboard: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["signal_id"]: one for one in dashboard["recent_predictions"]}


async def check_live_topics(address: str) -> None:
    """The dashboard is that of GET and follows trades and signals; tickers come once a second."""
    async with (
        connect(f"ws://{address}/stream") as connection,
        aiohttp.ClientSession(f"http://{address}/") as http,
    ):
        client = Client(connection)
        await client.subscribe("dashboard", "tickers")

        async def post(path: str, body: Mapping[str, Any]) -> Any:
            async with http.post(path, json=body) as answer:
                assert answer.status in {200, 201, 202}, await answer.text()
                return await answer.json()

        async def follow(holds: Callable[[Any], bool]) -> dict[str, Any]:
            while True:
                (event,) = await client.events(1)
                if event["topic"] == "tickers":
                    arrivals.append(event)
                elif holds(event["data"]):
                    assert event["sequence"] is None
                    return dict(event["data"])

        arrivals: list[dict[str, Any]] = []
        began = time.monotonic()
        shown = await follow(lambda data: True)
        assert (shown["portfolio_value"], shown["daily_pnl"]) == (None, None)
        assert shown["portfolio_value_reason"] == shown["daily_pnl_reason"]
        assert shown["portfolio_value_reason"] == "no account is connected"
        made = await post("portfolio/initialize", {"size": 3})
        traded = [one for one in made["members"] if one["weight_percentage"] > 0]
        symbol = traded[0]["symbol"]
        shown = await follow(lambda data: data["active_positions"] == len(traded) > 0)
        for number in range(11):
            body = {"pnl": f"{number}.50", "currency": "USDT", "trade_id": f"t{number}"}
            body["occurred_at"] = datetime.now(UTC).isoformat()
            await post(f"portfolio/symbols/{symbol}/performance", body)
        claim = {"source_name": "desk", "signal_type": "momentum", "symbol": symbol}
        claim |= {"signal_strength": 0.9, "confidence_level": 0.9, "signal_direction": "SELL"}
        sent = await post("signals", claim)
        shown = await follow(
            lambda data: (
                len(data["recent_trades"]) == 10
                and data["recent_trades"][0]["trade_id"] == "t10"
                and sent["signal_id"] in predictions(data)
            )
        )
        assert [one["trade_id"] for one in shown["recent_trades"]] == [
            f"t{number}" for number in range(10, 0, -1)
        ]
        assert shown["recent_trades"][0]["net"] == "10.5"
        assert predictions(shown)[sent["signal_id"]]["symbol"] == symbol
        async with http.get("dashboard") as answer:
            document = await answer.json()
        async with http.get("health") as answer:
            health = await answer.json()
        assert document.keys() == shown.keys()
        for name in ("recent_trades", "active_positions"):
            assert document[name] == shown[name]
        known = predictions(document)  # the service's own sources may have sent others since
        assert known[sent["signal_id"]] == predictions(shown)[sent["signal_id"]]
        names = [one["name"] for one in document["system_health"]["components"]]
        assert names == [one["name"] for one in health["components"]]
        while len(arrivals) < 3:
            arrivals += [one for one in await client.events(1) if one["topic"] == "tickers"]
        assert len(arrivals) <= time.monotonic() - began + 2  # at most one a second
    first, *later = (one["data"] for one in arrivals)
    assert (first["is_complete"], len(first["tickers"])) == (True, 60)
    assert all(len(one["tickers"]) <= 60 for one in later)
    assert {one["data"]["data_source"] for one in arrivals} == {"sandbox"}


def complete(heard: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Events of boards that are not provisional."""
    return [one for one in heard.get("scoring_run", []) if not one["data"]["is_provisional"]]
