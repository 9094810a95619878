"""Three real processes on one PostgreSQL under kill -9, SIGSTOP and a database that goes away."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.processes.fleet import PREFIX, Fleet, Replica, fleet, seconds, until

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("fleet")]
HEALS_S = 30.0


@pytest.fixture
async def three() -> AsyncIterator[Fleet]:
    async with fleet(["all", "all", "all"]) as running:
        await running.settings(market_s=2, order_books_s=10, rebalance_check_s=2, alerts_s=5)
        yield running


async def owned_by_another(running: Fleet, before: int) -> bool:
    pid, epoch, stands = await running.lease()
    return stands and epoch > before and any(one.pid == pid for one in running.alive())


def numbers(ids: list[str]) -> list[int]:
    """The slots of ticks, in seconds."""
    return sorted({int(datetime.fromisoformat(_slot(one)).timestamp()) for one in ids})


def _slot(run_id: str) -> str:
    return run_id.partition(":")[2].rpartition(":")[0].replace("Z", "+00:00")


async def read(one: Replica, last: int, seen: list[int], enough: asyncio.Event) -> None:
    """Reads portfolio changes from after `last`, until it is stopped or the process dies."""
    async with connect(f"ws://127.0.0.1:{one.port}{PREFIX}/stream", proxy=None) as socket:
        asked = {"type": "subscribe", "topics": ["portfolio_change"], "resume_from": last}
        await socket.send(json.dumps(asked))
        async for text in socket:
            message: dict[str, Any] = json.loads(text)
            if message["type"] == "event":
                seen.append(message["sequence"])
            elif message["type"] == "subscribed":
                enough.set()


async def committed(running: Fleet) -> list[int]:
    rows = await running.cluster.rows(
        "SELECT seq FROM events WHERE topic = 'portfolio_change' ORDER BY seq"
    )
    return [row["seq"] for row in rows]


async def test_K17_kill_9_of_the_feed_owner_costs_nothing_but_seconds(three: Fleet) -> None:
    owner, before = await three.owner(), (await three.lease())[1]
    others = [one for one in three.alive() if one is not owner]
    # A reader of the process that will die, and a portfolio to read about.
    seen: list[int] = []
    reading = asyncio.Event()
    reader = asyncio.ensure_future(read(owner, 0, seen, reading))
    await reading.wait()

    async def initialized() -> Any:
        made = await three.tried(others[0], "/portfolio/initialize", {"size": 3})
        return made is not None and made["members"]  # nobody comes in while quotes are late

    await until(initialized)  # a follower hears within seconds that the first board is whole
    await until(lambda: _has(seen))
    # A run in the middle of its only step: the exchange lets it wait.
    await three.fault("delay", "/api/v1/contracts/active", seconds=4.0)
    job = await three.post(others[0], "/symbols/sync", prefer="respond-async")

    async def running() -> str | None:
        rows = await three.runs("contract_sync")
        return rows[-1]["executor"] if rows and rows[-1]["status"] == "PENDING" else None

    await until(running)
    owner.kill()
    with pytest.raises(ConnectionClosed):
        await reader
    assert await seconds(lambda: owned_by_another(three, before)) < HEALS_S
    await three.heal()

    async def done() -> bool:
        shown = await three.get(others[0], f"/jobs/{job['id']}")
        return shown is not None and shown["state"] == "done"

    assert await seconds(done) < HEALS_S, "the run of the dead goes on"

    async def fresh() -> bool:
        epoch, _, _ = await three.market()
        return epoch > before and all([await three.decides(one) for one in others])

    assert await seconds(fresh) < HEALS_S
    # Who was reading goes on elsewhere and misses nothing.
    members = (await three.get(others[0], "/portfolio"))["members"]
    await three.post(others[0], "/portfolio/remove-symbol", {"symbol": members[-1]["symbol"]})
    again = asyncio.ensure_future(read(others[1], seen[-1], seen, asyncio.Event()))
    wanted = await committed(three)
    await until(lambda: _equal(seen, wanted))
    again.cancel()
    assert seen == wanted

    async def same_version() -> bool:
        versions = {(await three.get(one, "/portfolio"))["version"] for one in others}
        return len(versions) == 1

    assert await same_version()

    async def ticked() -> bool:
        return len(numbers([row["id"] for row in await three.runs("rebalance_check")])) > 3

    await until(ticked)
    rows = await three.runs("rebalance_check")
    # The first is of the hourly ticks before the settings were changed.
    slots = numbers([row["id"] for row in rows])[1:]
    # While the market was nobody's a check may have failed: it is tried again, and done once.
    done_slots = [_slot(row["id"]) for row in rows if row["status"] == "SUCCESS"]
    assert len(set(done_slots)) == len(done_slots), "each tick once"
    assert max(b - a for a, b in pairwise(slots)) <= HEALS_S


async def _has(seen: list[int]) -> bool:
    return bool(seen)


async def _equal(seen: list[int], wanted: list[int]) -> bool:
    return seen == wanted


async def test_K16_an_owner_that_is_stopped_and_wakes_writes_nothing_of_its_old_epoch(
    three: Fleet,
) -> None:
    owner, before = await three.owner(), (await three.lease())[1]
    owner.signal(signal.SIGSTOP)
    try:
        assert await seconds(lambda: owned_by_another(three, before)) < HEALS_S
        other = await three.owner()

        async def written() -> bool:
            return (await three.market())[0] == before + 1

        await until(written)
        await asyncio.sleep(2.0)
    finally:
        owner.signal(signal.SIGCONT)
    epochs = []
    for _ in range(40):
        epochs.append((await three.market())[0])
        await asyncio.sleep(0.1)
    assert set(epochs) == {before + 1}
    assert await three.owner() is other

    async def knows() -> bool:
        return await three.decides(owner)

    await until(knows)  # it follows the new one
    assert owner.process.poll() is None


async def test_B12_after_a_crash_of_the_database_all_go_on(three: Fleet) -> None:
    before = len(await three.runs("rebalance_check"))
    await three.cluster.rows("CHECKPOINT")  # this server loses its last commits: not the settings
    three.cluster.stop()
    await asyncio.sleep(5.0)
    for one in three.alive():
        assert await three.ask(one, "/livez") is not None
    three.cluster.start()

    async def serving() -> bool:
        return all([await three.ask(one, "/readyz") is not None for one in three.alive()])

    assert await seconds(serving) < HEALS_S
    assert len(three.alive()) == 3

    async def deciding() -> bool:
        return all([await three.decides(one) for one in three.alive()])

    assert await seconds(deciding) < HEALS_S

    async def ticking() -> bool:
        rows = await three.runs("rebalance_check")
        return len(rows) > before and rows[-1]["status"] == "SUCCESS"

    assert await seconds(ticking) < 90.0
    pid, _, stands = await three.lease()
    assert stands
    assert pid in {one.pid for one in three.alive()}


async def test_G09_a_process_with_other_settings_is_an_alert_for_as_long_as_it_lives() -> None:
    async with fleet(["worker", "api"]) as running:
        worker, api = running.replicas
        await running.settings(alerts_s=5)
        await running.rule("config_drift", duration_s=5)

        async def told() -> list[Any]:
            found: list[Any] = (await running.get(api, "/alerts?rule=config_drift"))["items"]
            return found

        assert await told() == []
        other = running.launch("worker", MYSYMBOLS_NOTIFICATIONS__ALLOW_PRIVATE_ADDRESSES="true")
        (alert,) = await until(told)
        assert f"-{other.pid}-" in alert["message"]
        assert "other settings" in alert["message"]
        assert f"-{worker.pid}-" not in alert["message"]
        shown = (await running.get(api, "/status"))["processes"]
        assert len(shown) == 3
        assert sum(not one["configuration_matches"] for one in shown) == 1
        other.kill()

        async def over() -> bool:
            return await told() == []

        await until(over)  # once it has been silent for so long that it counts as dead


def told_before(running: Fleet, path: str, *names: str) -> Callable[[], Awaitable[bool]]:
    """Whether the second shows what the first has shown: quotes move, and it is told of them."""
    first, second = running.replicas
    shown: set[tuple[Any, ...]] = set()

    async def is_known() -> bool:
        one = await running.get(first, path)
        shown.add(tuple(one[name] for name in names))
        other = await running.get(second, path)
        return tuple(other[name] for name in names) in shown

    return is_known


async def test_an_api_process_answers_with_the_owners_data_and_leaves_work_to_the_workers() -> None:
    async with fleet(["worker", "api"]) as running:
        worker, api = running.replicas
        assert (await running.owner()) is worker
        rankings = await running.get(worker, "/scoring/rankings")
        assert (await running.get(api, "/scoring/rankings"))["run_id"] == rankings["run_id"]
        symbol = rankings["items"][0]["symbol"]
        for path in ("/portfolio/tradeable", f"/portfolio/symbols/{symbol}/should-trade"):
            one, other = await running.get(worker, path), await running.get(api, path)
            assert one.keys() == other.keys(), path
            await until(told_before(running, path, "data_status", "as_of"))
        await until(told_before(running, f"/market/{symbol}", "bid", "as_of"))
        job = await running.post(api, "/scoring/calculate", prefer="respond-async")

        async def done() -> bool:
            shown = await running.get(api, f"/jobs/{job['id']}")
            return shown is not None and shown["state"] == "done"

        await until(done)
        executor = (await running.runs("scoring"))[-1]["executor"]
        assert str(worker.pid) in executor
        summary = await running.post(api, "/symbols/sync")
        assert summary["listed"] > 0
        worker.kill()
        asked = await running.asked()
        for path in ("/scoring/rankings", "/portfolio", f"/market/{symbol}", "/symbols", "/health"):
            assert await running.get(api, path) is not None, path
        await asyncio.sleep(3.0)
        assert await running.asked() == asked, "it never asks the exchange"
        assert not (await running.lease())[2] or (await running.lease())[0] == worker.pid
