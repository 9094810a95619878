"""Recovery times after faults: `python -m benchmarks.chaos`, or `make chaos`.

Three processes of the service share one PostgreSQL in front of the local exchange. Each line gives
the seconds from the end of a fault (for a death: from the death) until every living process
decides on fresh data, and for runs until a run requested at that moment is done. Quotes are polled
every two seconds instead of every minute: recovery is measured, not the wait for the next poll.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from rich.console import Console

from tests.processes.fleet import Fleet, fleet, seconds, until

PATIENCE_S = 300.0
LIMIT_S = 30.0
RUNS_LIMIT_S = 90.0
AWAY_S = (5.0, 60.0)
SIMULATED_S = 600.0  # by the exchange's clock, of which only the last ones pass here
REALLY_S = 20.0
DATABASE_AWAY_S = 10.0
TICKERS = "/api/v1/allTickers"
ASKERS = 2  # the watch of the stream and the schedule, where nothing else is amiss


@dataclass(frozen=True)
class Healed:
    fault: str
    what: str
    took_s: float
    limit_s: float

    def line(self) -> str:
        verdict = "" if self.took_s <= self.limit_s else f"  OVER {self.limit_s:.0f} s"
        return f"{self.fault:<34} {self.what:<34} {self.took_s:6.1f} s{verdict}"


async def decided(running: Fleet) -> float:
    """Seconds until all living processes decide."""

    async def all_decide() -> bool:
        return all([await running.decides(one) for one in running.alive()])

    return await seconds(all_decide, PATIENCE_S)


async def ran(running: Fleet) -> float:
    """Seconds until a run requested now is done."""
    begun = time.monotonic()
    one = running.alive()[0]

    async def asked() -> str | None:
        job = await running.post(one, "/scoring/calculate", prefer="respond-async")
        return str(job["id"])

    job_id = await until(asked, PATIENCE_S)

    async def done() -> bool:
        shown = await running.get(one, f"/jobs/{job_id}")
        return shown is not None and shown["state"] in {"done", "failed"}

    await until(done, PATIENCE_S)
    return time.monotonic() - begun


async def exchange_away(running: Fleet, away_s: float) -> list[Healed]:
    await running.fault("reset")
    await asyncio.sleep(away_s)
    await running.heal()
    took = await decided(running)
    return [Healed(f"exchange away {away_s:.0f} s", "all decide", took, LIMIT_S)]


async def long_away(running: Fleet) -> list[Healed]:
    """After the outage the exchange's clock is ten minutes further on."""
    await running.fault("reset")
    await asyncio.sleep(REALLY_S)
    await running.later(SIMULATED_S - REALLY_S)
    await running.heal()
    took = await decided(running)
    return [Healed("exchange away 10 min (simulated)", "all decide", took, LIMIT_S)]


async def dead_feed(running: Fleet) -> list[Healed]:
    """The connections of the stream stay open, and no message passes on them."""
    before = await running.told()
    for connection in before:
        await running.fault("stream_half_open", connection=connection)
    begun = time.monotonic()

    async def told_anew() -> bool:
        now = await running.told()
        return sum(now[one] for one in now.keys() - before.keys()) >= sum(before.values())

    await until(told_anew, PATIENCE_S)
    await decided(running)
    took = time.monotonic() - begun
    await running.heal()
    return [Healed("dead feed", "all is told on new connections", took, LIMIT_S)]


async def stuck_task(running: Fleet) -> list[Healed]:
    """Requests without an answer block both tasks that poll quotes.

    The stream goes on, so that no process has to stop deciding. Each task waits for its own
    request: one request more than have hung shows that one of the tasks is free.
    """
    before = await running.asked(TICKERS)
    await running.fault("hang", TICKERS, times=ASKERS)

    async def beyond(count: int) -> bool:
        return await running.asked(TICKERS) > count

    await until(lambda: beyond(before), PATIENCE_S)
    begun = time.monotonic()
    await until(lambda: beyond(before + ASKERS), PATIENCE_S)
    await decided(running)
    took = time.monotonic() - begun
    return [Healed("tasks stuck in a request", "quotes are asked for, all decide", took, LIMIT_S)]


async def database_away(running: Fleet) -> list[Healed]:
    running.cluster.stop()
    await asyncio.sleep(DATABASE_AWAY_S)
    running.cluster.start()
    begun = time.monotonic()

    async def serving() -> bool:
        return all([await running.ask(one, "/readyz") is not None for one in running.alive()])

    served = await seconds(serving, PATIENCE_S)
    await decided(running)
    deciding = time.monotonic() - begun
    await ran(running)
    fault = f"database killed, back after {DATABASE_AWAY_S:.0f} s"
    return [
        Healed(fault, "all serve", served, LIMIT_S),
        Healed(fault, "all decide", deciding, LIMIT_S),
        Healed(fault, "a run is done", time.monotonic() - begun, RUNS_LIMIT_S),
    ]


async def owner_gone(running: Fleet, number: int, fault: str) -> list[Healed]:
    """The owner of the feed is killed or stopped; the other processes go on without it."""
    owner, (_, before, _) = await running.owner(), await running.lease()
    owner.signal(number)
    begun = time.monotonic()

    async def owned() -> bool:
        _, epoch, stands = await running.lease()
        return stands and epoch > before

    owning = await seconds(owned, PATIENCE_S)
    others = [one for one in running.alive() if one is not owner]

    async def fresh() -> bool:
        epoch, _, _ = await running.market()
        return epoch > before and all([await running.decides(one) for one in others])

    await until(fresh, PATIENCE_S)
    deciding = time.monotonic() - begun
    if number == signal.SIGSTOP:
        owner.signal(signal.SIGCONT)
    else:
        owner.process.wait()
    return [
        Healed(fault, "another owns the feed", owning, LIMIT_S),
        Healed(fault, "all others decide", deciding, LIMIT_S),
    ]


async def main() -> int:
    console = Console(width=120, highlight=False)
    healed: list[Healed] = []
    async with fleet(["all", "all", "all"]) as running:
        await running.settings(market_s=2, order_books_s=10, alerts_s=5)
        await decided(running)
        trials: list[Callable[[], Awaitable[list[Healed]]]] = [
            *(lambda away_s=away_s: exchange_away(running, away_s) for away_s in AWAY_S),
            lambda: long_away(running),
            lambda: dead_feed(running),
            lambda: stuck_task(running),
            lambda: database_away(running),
            lambda: owner_gone(running, signal.SIGSTOP, "feed owner stopped (SIGSTOP)"),
            lambda: owner_gone(running, signal.SIGKILL, "feed owner killed (kill -9)"),
        ]
        for trial in trials:
            await decided(running)
            for one in await trial():
                healed.append(one)
                console.print(one.line())
    load = os.getloadavg()[0]
    over = [one for one in healed if one.took_s > one.limit_s]
    console.print(
        f"{len(healed)} measured, {len(over)} over their limit; load of the machine {load:.1f}"
    )
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
