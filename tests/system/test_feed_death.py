"""What is decided, second by second, while stream, REST or both are dead: never on old quotes."""

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import httpx2
import pytest

from app.adapters.kucoin.limiter import KucoinLimits
from app.configuration.domain.sections import Source
from app.foundation.errors import Code
from app.foundation.health import Mode
from app.foundation.sql.database import Database
from app.operations.api import system_routes as system
from app.operations.services.health import StatusService
from app.portfolio.api import portfolio_routes as portfolio
from app.portfolio.api import rebalance_routes as portfolio_rebalance
from app.trading.api import routes as portfolio_trading
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.stepped_service import (
    Second,
    Walk,
    both_dead,
    heal,
    rest_dead,
    stream_dead,
    topic_dead,
    walking,
)

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
MODULES = (portfolio, portfolio_rebalance, portfolio_trading, system)
BEGUN_S = 10
LIMIT_S = 30


@pytest.fixture
async def walk(database: Database) -> AsyncIterator[Walk]:
    async with walking(database) as begun:
        await begun.until(BEGUN_S)
        yield begun


def decided(one: Second) -> bool:
    return one.mode is Mode.NORMAL and one.may_trade and one.refused is None


def refused(one: Second) -> bool:
    stale = Code.MARKET_DATA_STALE
    return one.mode is Mode.FROZEN and not one.may_trade and one.refused is stale


async def test_with_the_stream_dead_alone_quotes_are_asked_for_and_nothing_is_refused(
    walk: Walk,
) -> None:
    await stream_dead(walk)
    await walk.until(130)
    assert not walk.scene.is_streaming(), "it is asked for only"
    assert all(map(decided, walk.seconds)), walk.changes()
    assert walk.desk.refused == []


async def test_with_rest_dead_alone_what_is_told_is_decided_on(walk: Walk) -> None:
    await rest_dead(walk)
    await walk.until(130)
    assert all(map(decided, walk.seconds)), walk.changes()


async def test_with_both_dead_everything_is_refused_from_the_age_limit_to_the_first_fresh_quote(
    walk: Walk,
) -> None:
    await both_dead(walk)
    await walk.until(140)
    last = BEGUN_S + LIMIT_S
    assert all(map(decided, walk.seconds[:last])), walk.changes()
    assert all(map(refused, walk.seconds[last:])), walk.changes()
    assert not walk.scene.is_streaming()
    assert len(walk.desk.refused) == 2 * (140 - last), "each should-trade and each rebalance"

    await heal(walk)
    walk.is_stream_dead = True
    asked = walk.scene.data.quotes.last_poll
    while refused(one := await walk.second()):
        age_s = walk.scene.data.moment().age_s(Source.TICKERS)
        assert age_s is None or age_s > LIMIT_S
    assert one.may_trade, walk.changes()
    assert one.refused is None
    assert walk.scene.data.quotes.last_poll > asked
    await walk.second()  # stale symbols are counted once a second
    assert decided(walk.seconds[-1]), walk.changes()


async def test_with_one_topic_dead_its_symbol_alone_is_refused(walk: Walk) -> None:
    await topic_dead(walk)
    await walk.until(70)
    assert {one.refused for one in walk.seconds} == {None}, "the others make a plan"
    may = [one.may_trade for one in walk.seconds]
    assert may == sorted(may, reverse=True), "once it is stale it stays so"
    assert BEGUN_S < may.index(False) <= BEGUN_S + LIMIT_S
    assert walk.seconds[may.index(False) - 1].mode is Mode.NORMAL
    assert {one.mode for one in walk.seconds[may.index(False) + 1 :]} == {Mode.DEGRADED}


async def test_polling_has_its_own_limit_and_keeps_it(database: Database) -> None:
    async with walking(database, is_streamed=False) as walk:
        await walk.until(60)
        await rest_dead(walk)
        await walk.until(260)
        assert all(map(decided, walk.seconds[:240])), walk.changes()
        assert all(map(refused, walk.seconds[240:])), walk.changes()


class Face:
    """The desk with a status."""

    def __init__(self, walk: Walk) -> None:
        self.walk, data = walk, walk.scene.data
        clock, database = walk.scene.live.clock, walk.desk.database
        mode = walk.desk.mode
        assert mode is not None
        self.status = StatusService(
            started_at=clock.now(),
            version="1",
            clock=clock.now,
            ping_database=database.ping,
            exchange_link=walk.scene.live.exchange.link,
            market_facts=data.facts,
            scoring_facts=lambda: None,
            portfolio_facts=self._unused,
            task_facts=lambda: (),
            mode=mode,
        )

    async def _unused(self) -> Any:
        raise AssertionError

    def __getattr__(self, name: str) -> Any:
        return getattr(self.walk.desk, name)


async def test_R09_an_exchange_that_fails_for_five_minutes_is_left_alone_and_nothing_is_decided(
    walk: Walk,
) -> None:
    """Breaker open after 5 failures, a probe each 15 s, 25 calls in all; reads 200, decisions 503.

    Everything that the schedule asks for is asked for, and the stream is away as well.
    """
    limits, live, data = KucoinLimits(), walk.scene.live, walk.scene.data
    face = Face(walk)
    async with serve(
        [one.router for one in MODULES], {"my_symbols": face, "mode": walk.desk.mode}
    ) as client:
        await told(client, "NORMAL", "fresh")
        await both_dead(walk)
        before = sum((await live.requests()).values())
        begun, counts = walk.passed_s, list[int]()
        while walk.passed_s < begun + 300:
            await walk.second()
            if walk.passed_s % 15 == 0:
                await walk.scheduled()
            counts.append(sum((await live.requests()).values()) - before)
        assert counts[-1] <= 25
        # Five open it; from then on one each time.
        assert max(counts[:15]) >= limits.breaker_consecutive
        rises = [at for at, (one, two) in enumerate(pairwise(counts)) if two > one]
        late = [at for at in rises if counts[at] >= limits.breaker_consecutive]
        assert len(late) > 10, "it is probed"
        assert all(counts[at + 1] - counts[at] == 1 for at in late)
        assert all(two - one >= limits.breaker_probe_s - 1 for one, two in pairwise(late))

        await told(client, "FROZEN", "stale")
        rebalance = await client.post(f"{PREFIX}/portfolio/rebalance")
        assert problem(rebalance, 503, "market_data_stale")["retry_after_s"] >= 1
        assert rebalance.headers["X-Service-Mode"] == "FROZEN"
        member = (await walk.desk.members())[0]
        shown = await client.get(f"{PREFIX}/portfolio/symbols/{member}/should-trade")
        assert (shown.status_code, shown.json()["trade"]) == (200, False)
        dry = await client.post(f"{PREFIX}/portfolio/rebalance", json={"dry_run": True})
        assert dry.json()["would_be_refused"]["code"] == "market_data_stale"

        await heal(walk)
        while not decided(await walk.second()):
            assert walk.passed_s < begun + 300 + 2 * limits.breaker_probe_s, walk.changes()
            await walk.scheduled()
        await data.fetch_contracts()
        await told(client, "NORMAL", "fresh")


async def told(client: httpx2.AsyncClient, mode: str, status: str) -> None:
    """A read, its header and health say the same."""
    shown = await client.get(f"{PREFIX}/portfolio")
    assert (shown.status_code, shown.json()["data_status"]) == (200, status)
    assert shown.headers["X-Service-Mode"] == mode
    health = await client.get(f"{PREFIX}/health")
    assert (health.status_code, health.json()["mode"]) == (200, mode)
    assert health.headers["X-Service-Mode"] == mode
