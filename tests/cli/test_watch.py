"""`my-symbols watch` against a real service: events, resuming, refusals."""

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from app.cli.exit_codes import ExitCode
from app.foundation.sql.database import Database
from app.portfolio.domain.events import PlanCreated
from tests.cli.command import Ended, alone
from tests.support.streaming import Served, served
from tests.support.trading_desk import NOW

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


async def announce(opened: Served, *runs: str) -> None:
    async with opened.desk.database.write() as unit:
        for run in runs:
            unit.publish_after_commit(PlanCreated(run, 1, 0, NOW))


async def watched(opened: Served, *arguments: str) -> Ended:
    url = f"http://{opened.address.partition('/')[0]}"
    return await asyncio.to_thread(alone, "watch", *arguments, "--url", url, cwd=Path.cwd())


@ON_SQLITE
async def test_events_are_printed_one_per_line_from_the_requested_sequence(
    database: Database,
) -> None:
    async with served(database) as opened:
        await announce(opened, "one", "two", "three")
        ended = await watched(opened, "rebalance", "--resume-from", "1", "--count", "2", "--json")
        people = await watched(opened, "--resume-from", "0", "--count", "1")
    assert ended.code == ExitCode.OK
    shown = [json.loads(line) for line in ended.out.splitlines()]
    assert [(one["sequence"], one["data"]["run_id"]) for one in shown] == [(2, "two"), (3, "three")]
    assert people.code == ExitCode.OK
    assert "rebalance" in people.out
    assert '"run_id": "one"' in people.out


@ON_SQLITE
async def test_a_break_of_the_connection_is_no_end(database: Database) -> None:
    async with served(database) as opened:
        watching = asyncio.ensure_future(
            watched(opened, "rebalance", "--resume-from", "0", "--count", "2", "--json")
        )
        await announce(opened, "before")
        await opened.desk.until(lambda: len(opened.desk.stream._readers) == 1)
        for connection in list(opened.server.server_state.connections):
            connection.transport.abort()
        await announce(opened, "after")
        ended = await watching
    assert [json.loads(line)["data"]["run_id"] for line in ended.out.splitlines()] == [
        "before",
        "after",
    ]


async def test_a_break_before_the_replayed_events_loses_none_of_them() -> None:
    asked: list[str | None] = []
    frames = (
        '{"type":"resumed","sequence":9,"resume_from":1}',
        '{"type":"event","topic":"rebalance","sequence":2,"timestamp":null,"data":{}}',
    )

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(f"data: {frames[len(asked)]}\n\n".encode())
        asked.append(request.headers.get("Last-Event-ID"))
        return response  # the connection ends after one frame

    app = web.Application()
    app.router.add_get("/api/symbol-mgmt/events", answer)
    async with TestServer(app) as server:
        options = (
            "--resume-from",
            "1",
            "--count",
            "1",
            "--json",
            "--url",
            str(server.make_url("")),
        )
        ended = await asyncio.to_thread(alone, "watch", "rebalance", *options, cwd=Path.cwd())
    assert asked == ["1", "1"]
    assert json.loads(ended.out.splitlines()[0])["sequence"] == 2


@ON_SQLITE
async def test_a_topic_that_is_none_is_refused(database: Database) -> None:
    async with served(database) as opened:
        ended = await watched(opened, "gossip", "--json")
    assert ended.code == ExitCode.REFUSED
    assert json.loads(ended.out)["code"] == "validation_failed"
