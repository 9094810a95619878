"""`my-symbols watch` against a real service: events, resuming, refusals."""

import asyncio
import json
from pathlib import Path

import pytest

from app.cli.exit_codes import ExitCode
from app.foundation.sql.database import Database
from app.portfolio.domain.events import PlanCreated
from tests.cli.command import Ended, alone
from tests.support.streaming import Served, served
from tests.support.trading_desk import NOW

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


async def announce(opened: Served, *runs: str) -> None:
    async with opened.desk.database.write() as unit:
        for run in runs:
            unit.publish_after_commit(PlanCreated(run, 1, 0, NOW))


async def watched(opened: Served, *arguments: str) -> Ended:
    url = f"http://{opened.address.partition('/')[0]}"
    return await asyncio.to_thread(alone, "watch", *arguments, "--url", url, cwd=Path.cwd())


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


async def test_a_topic_that_is_none_is_refused(database: Database) -> None:
    async with served(database) as opened:
        ended = await watched(opened, "gossip", "--json")
    assert ended.code == ExitCode.REFUSED
    assert json.loads(ended.out)["code"] == "validation_failed"
