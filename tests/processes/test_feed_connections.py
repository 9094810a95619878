"""Of all processes on one database only the owner of the feed is connected to the stream."""

import asyncio
import signal
from typing import Any

import pytest

from tests.processes.fleet import Fleet, fleet, until

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("fleet")]
RESTARTS = 12
ALLOWED = 30  # connections a minute that the exchange takes of one address


async def tally(running: Fleet) -> dict[str, Any]:
    async with running.session.get(f"{running.exchange_url}/_control/stream") as answer:
        counted: dict[str, Any] = (await answer.json())["tally"]
        return counted


async def restart(running: Fleet) -> None:
    """The exchange takes every connection and lets it fall."""
    url = f"{running.exchange_url}/_control/stream/close"
    async with running.session.post(url, json={"code": 1012}) as answer:
        assert answer.status == 200


async def test_W07_only_the_owner_connects_and_never_more_often_than_is_allowed() -> None:
    async with fleet(["all", "all"]) as running:
        owner = await running.owner()
        (follower,) = [one for one in running.replicas if one is not owner]
        await until(lambda: told(running))
        connected = await running.told()
        # Whether the other one is there or not is all the same to the exchange.
        follower.kill()
        follower = running.launch("all")
        await until(lambda: running.decides(follower))
        assert (await running.told()).keys() == connected.keys()
        assert (await tally(running))["opened"] == len(connected)
        for _ in range(RESTARTS):
            await restart(running)
            await asyncio.sleep(1.0)
        await until(lambda: told(running))
        after = await tally(running)
        assert 1 < after["opened"] <= ALLOWED
        assert after["refused"] == 0
        assert not (await running.told()).keys() & connected.keys()
        # The next owner connects as soon as it is one.
        connected = await running.told()
        owner.signal(signal.SIGKILL)
        owner.process.wait()
        assert await until(running.owner) is follower
        await until(lambda: told(running))
        assert not (await running.told()).keys() & connected.keys()
        await until(lambda: running.decides(follower))
        assert (await tally(running))["refused"] == 0


async def told(running: Fleet) -> bool:
    lines = await running.told()
    return bool(lines) and all(lines.values())
