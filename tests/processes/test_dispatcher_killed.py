"""K11, for real: a dispatcher that is killed between telling and noting it down."""

import asyncio
import json
import os
import signal
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from app.alerts.domain.notifications import DeliveryState
from app.foundation.sql.database import Database
from tests.alerts.services.test_notifications import KEY, Office, change
from tests.processes.dispatcher_worker import deliver
from tests.support import child_processes

PATIENCE_S = 60.0
EVENTS = 12


@dataclass
class Killer:
    """A receiver that kills who tells it, after it has taken an event and before it says so."""

    at: int
    pid: int = 0
    got: list[tuple[str, bytes]] = field(default_factory=list)
    dead: asyncio.Event = field(default_factory=asyncio.Event)
    whole: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((request.headers["X-Event-Id"], await request.read()))
        if len(self.got) == self.at:
            os.kill(self.pid, signal.SIGKILL)
            self.dead.set()
        if len({name for name, _ in self.got}) == EVENTS:
            self.whole.set()
        return web.Response()


def begun(url: str, ahead_s: float, killer: Killer) -> ForkServerProcess:
    process, link = child_processes.born(deliver, url, KEY, ahead_s)
    with link, link.makefile() as said:
        killer.pid = int(said.readline())
    return process


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
async def test_K11_a_dispatcher_killed_before_it_noted_tells_it_again_under_the_same_id(
    database: Database, database_url: str
) -> None:
    office, killer = Office(database), Killer(at=5)
    app = web.Application()
    app.router.add_post("/hook", killer.take)
    async with TestServer(app) as server:
        await office.channel("desk", f"http://127.0.0.1:{server.port}/hook")
        await office.publish(*(change(number) for number in range(EVENTS)))
        async with asyncio.timeout(PATIENCE_S):
            first = await asyncio.to_thread(begun, database_url, 0.0, killer)
            await killer.dead.wait()
            await asyncio.to_thread(first.join)
            assert first.exitcode == -signal.SIGKILL
            before = len(killer.got)
            second = await asyncio.to_thread(begun, database_url, 120.0, killer)
            try:
                await killer.whole.wait()
                while set(await office.states()) != {DeliveryState.DELIVERED}:
                    await asyncio.sleep(0.05)
            finally:
                second.kill()
                await asyncio.to_thread(second.join)
    names = [f"event-{number}" for number in range(1, EVENTS + 1)]
    ids = [name for name, _ in killer.got]
    assert ids[:before] == names[:before]
    again = ids[before:]
    # What was not noted comes again from there on, in order; what was told twice is the same.
    assert again == names[names.index(again[0]) :]
    assert names.index(again[0]) < before, "the one it died of was not told again"
    bodies: dict[str, set[bytes]] = {}
    for name, body in killer.got:
        bodies.setdefault(name, set()).add(body)
        assert json.loads(body)["notification"]["id"] == name
    assert all(len(one) == 1 for one in bodies.values())
