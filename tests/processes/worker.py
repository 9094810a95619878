"""One process of several: real services over a real database, told what to do line by line.

Each line of standard input is a JSON list of acts that are begun at the same time, each line of
standard output their endings. The failpoint is where the process dies as by kill -9: `commit:N`
just before the Nth commit from now, `published` just after a commit, `committed:...` as soon as
anything happens after the commit of a piece of SQL, or a piece of SQL, just after (`after:...`) or
before (`before:...`) the first statement that has it. With `pause:N` it stops, as
by SIGSTOP, just before the Nth transaction from now begins, until it is told to go on.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from random import Random
from typing import Any

import structlog
from sqlalchemy import Engine, event

from app.foundation.errors import ServiceError
from app.foundation.idempotency import Command, CommandResult, StoredResponse
from app.foundation.sql.database import Database
from app.foundation.sql.engines import DatabaseOptions
from app.operations.domain.event_codec import encode_event
from app.portfolio.domain.models import faults
from tests.stateful.differential import Key, rendered
from tests.support.trading_desk import NOW, Desk

Act = Mapping[str, Any]
PATIENCE_S = 50.0  # a busy machine reads slowly


def die(*_: object) -> None:
    """As if by kill -9: nothing is flushed, closed or rolled back by us."""
    os.kill(os.getpid(), signal.SIGKILL)


def _arm(database: Database, failpoint: str) -> None:
    kind, _, detail = failpoint.partition(":")
    assert database._engines is not None
    engine = database._engines.writer.sync_engine
    if kind == "commit":
        left = [int(detail)]

        @event.listens_for(engine, "commit")
        def on_commit(_: object) -> None:
            left[0] -= 1
            if left[0] == 0:
                die()

    if kind == "pause":
        _stop_before_the_transaction(engine, int(detail))

    if kind == "committed":
        _die_after_the_commit(engine, detail)

    if kind in {"before", "after"}:

        @event.listens_for(engine, f"{kind}_cursor_execute")
        def on_statement(_c: object, _cursor: object, sql: str, *_: object) -> None:
            if detail in " ".join(sql.split()):
                die()


def _stop_before_the_transaction(engine: Engine, number: int) -> None:
    ahead = [number]

    @event.listens_for(engine, "begin")
    def on_begin(_: object) -> None:
        ahead[0] -= 1
        if ahead[0] == 0:
            os.kill(os.getpid(), signal.SIGSTOP)


def _die_after_the_commit(engine: Engine, of: str) -> None:
    """Whatever is said next after the commit of a statement that has `of` in it is not heard."""
    seen: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def on_statement(_c: object, _cursor: object, sql: str, *_: object) -> None:
        if seen == ["said", "committed"]:
            die()
        if not seen and of in " ".join(sql.split()):
            seen.append("said")

    @event.listens_for(engine, "commit")
    def on_commit(_: object) -> None:
        if seen == ["said"]:
            seen.append("committed")


async def _carried_out(desk: Desk, act: Act, who: Command) -> CommandResult[Any]:
    name, reason = act.get("symbol", ""), "by a process"
    match act["do"]:
        case "add":
            return await desk.portfolio.add(name, reason, who, rendered)
        case "remove":
            return await desk.portfolio.remove(name, reason, who, rendered)
        case "replace":
            return await desk.portfolio.replace(name, act["by"], reason, who, rendered)
        case "rebalance":
            tick = act.get("tick")
            at = None if tick is None else datetime.fromisoformat(tick)
            return await desk.rebalancing.rebalance(who, scheduled_at=at, render=rendered)
        case "configure":
            return await desk.configuration.put(act["changes"], reason, who, rendered)
        case other:
            raise ValueError(other)


async def _ended(desk: Desk, act: Act) -> Any:
    if act["do"] == "read":
        return await _read(desk, act["reads"], act["versions"])
    if act["do"] == "score":
        desk.score(act["changed"])
        return None
    if act["do"] == "look":  # as every process does at its start
        active, _ = await desk.alerts.evaluate()
        return [[one.rule.value, one.subject, one.id] for one in active]
    if act["do"] == "durability":
        return await _durability(desk)
    if act["do"] == "check":
        return await desk.rebalancing.check(
            Command("schedule", "tick"), datetime.fromisoformat(act["tick"])
        )
    key = Key(act["key"], act.get("print", "p")) if "key" in act else None
    who = Command(
        "process", act.get("request", "r"), if_match=act.get("if_match"), idempotency_key=key
    )
    try:
        outcome = await _carried_out(desk, act, who)
    except ServiceError as e:
        return {"code": e.code.value, **e.facts}
    assert isinstance(outcome.answer, StoredResponse)
    return {"body": outcome.answer.body.decode(), "is_replay": outcome.is_replay}


async def _durability(desk: Desk) -> list[Any]:
    """Journal and synchronisation of the connection that commits; SQLite only."""
    async with desk.database.write() as unit:
        asked = ("PRAGMA journal_mode", "PRAGMA synchronous")
        return [(await unit.connection.exec_driver_sql(one)).scalar_one() for one in asked]


async def _read(desk: Desk, least: int, most: int) -> dict[str, Any]:
    """Reads until it has read `least` times and seen `most` versions; everything unsound.

    `held` is who was a member with what weight, by version.
    """
    until, versions, reads = time.monotonic() + PATIENCE_S, [0], 0
    wrong: list[str] = []
    held: dict[int, list[str]] = {}
    while (reads < least or len(versions) < most) and time.monotonic() < until:
        state = (await desk.portfolio.view()).portfolio
        reads += 1
        wrong += faults(state, 50)
        if state.version < versions[-1]:
            wrong.append(f"version {state.version} after {versions[-1]}")
        elif state.version > versions[-1]:
            versions.append(state.version)
        members = [f"{one.symbol} {one.weight_u}" for one in state.members]
        if held.setdefault(state.version, members) != members:
            wrong.append(f"version {state.version} is not what it was")
    return {"reads": reads, "versions": len(versions), "wrong": wrong, "held": held}


async def _work(url: str, minutes: float, failpoint: str) -> None:
    dies = failpoint.startswith(("published", "committed"))
    on_publish = die if dies else lambda _: None
    loop = asyncio.get_running_loop()
    database = Database(
        DatabaseOptions(url=url), loop.time, Random(os.getpid()).random, encode_event, on_publish
    )
    await database.open()
    desk = Desk(database, process=f"run-{os.getpid()}")
    await desk.open()
    desk.later(minutes=minutes)
    desk.score({})
    assert desk.now >= NOW
    _arm(database, failpoint)
    print("ready", flush=True)  # noqa: T201  # the pipe is how it answers
    while line := await asyncio.to_thread(sys.stdin.readline):
        endings = await asyncio.gather(*(_ended(desk, act) for act in json.loads(line)))
        print(json.dumps(endings), flush=True)  # noqa: T201  # as above
    await database.close()


def work(url: str, minutes: float, failpoint: str) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(_work(url, minutes, failpoint))
