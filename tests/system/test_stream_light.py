"""The stream of a whole service on the sandbox: scores, changes and quotes over a real socket."""

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from websockets.asyncio.client import connect

from app.container.application import request_state
from app.container.assembly import Services, assemble
from app.foundation.metrics import Metrics
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from tests.support.harness import PREFIX, make_api_with
from tests.support.service_in_process import settings_for
from tests.support.streaming import Client, listening, port_of

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
            url = f"ws://127.0.0.1:{port_of(server)}{PREFIX}/stream"
            async with connect(url) as connection:
                client = Client(connection)
                confirmed = await client.subscribe(*ALL, resume_from=0)
                assert "ticker:BTCUSDT" in confirmed["topics"]  # the standard spelling
                heard: dict[str, list[dict[str, Any]]] = {}
                while not (complete(heard) and "ticker:BTCUSDT" in heard):
                    for event in await client.events(1):
                        heard.setdefault(event["topic"], []).append(event)
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


def complete(heard: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Events of boards that are not provisional."""
    return [one for one in heard.get("scoring_run", []) if not one["data"]["is_provisional"]]
