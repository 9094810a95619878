"""The owner of the feed asks the exchange; whoever follows it decides on the same market."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count

import pytest
from sqlalchemy import func, select, text

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Source
from app.foundation.data_status import DataStatus
from app.foundation.errors import Code, UnavailableError
from app.foundation.idempotency import IdempotentExecutor
from app.foundation.sql.database import Database
from app.foundation.sql.leases import LeaseRepository
from app.market.domain.models import ContractStatus, ExchangeStatus, Interval, LinkState
from app.market.services.backfill import first_fill
from app.market.services.contract_sync import SyncRequests
from app.market.services.feed_leader import LeaderLease, LeaseTimes
from app.market.services.service import MarketData
from app.market.services.shared_market import FeedOwnership, MarketFollower, MarketPublisher
from app.market.storage.shared_market import FEED, SharedMarketRepository
from app.market.storage.tables import candles, funding_rates, market_snapshots
from app.scoring.services.service import Scoring
from app.scoring.storage.runs import ScoringRepository
from tests.support.live_market import CONTRACTS, LiveMarket, open_market

NUMBERS = count(1)

pytestmark = pytest.mark.parametrize("backend", ["postgres"], indirect=True)


@dataclass
class Process:
    """One of several on the same database and in front of the same exchange."""

    market: MarketData
    scoring: Scoring
    lease: LeaderLease
    publisher: MarketPublisher
    follower: MarketFollower
    view: FeedOwnership

    def held(self) -> int | None:
        return self.lease.epoch

    async def own(self) -> int:
        epoch = await self.lease.acquire()
        assert epoch is not None
        return epoch


def process(live: LiveMarket, name: str, times: LeaseTimes | None = None) -> Process:
    database, clock = live.database, live.clock
    lease = LeaderLease(database, name, clock.monotonic, times or LeaseTimes())

    view = FeedOwnership(live.exchange.link, lease)
    market = live.market(fence=view.fence)
    market.registry.fence, market.is_owner = view.fence, view.is_owner
    scoring = Scoring(
        market=market,
        database=database,
        clock=clock.now,
        monotonic=clock.monotonic,
        new_id=lambda: f"00000000-0000-4000-9000-{next(NUMBERS):012}",
        configuration=Configuration,
        idempotency=IdempotentExecutor(database, clock.now),
        fence=view.fence,
    )
    follower = view.follower = MarketFollower(database, market, scoring, clock.monotonic)
    link = live.exchange.link
    return Process(
        market,
        scoring,
        lease,
        MarketPublisher(database, market, scoring, lease, link, clock.monotonic),
        follower,
        view,
    )


@pytest.fixture
async def live(database: Database) -> AsyncIterator[LiveMarket]:
    async with open_market(database, contracts=14) as opened:
        yield opened


async def filled_owner(live: LiveMarket) -> Process:
    owner = process(live, "owner")
    await owner.own()
    await first_fill(owner.market)
    await owner.scoring.calculate()
    assert await owner.publisher.publish()
    return owner


def seen(one: Process) -> object:
    """Everything of the market that decisions are made of, without the ages."""
    moment = one.market.moment()
    market, inputs = moment.market, moment.scoring_inputs()
    return (
        moment.funnel(),
        moment.as_of(),
        {code: (one.value, one.at) for code, one in market.stats.items()},
        {code: (one.value, one.at) for code, one in market.tickers.items()},
        {code: (one.value, one.at) for code, one in market.books.items()},
        {code: one.value for code, one in market.funding.items()},
        market.daily_facts,
        inputs.daily.close.tobytes(),
        inputs.hourly.close.tobytes(),
        inputs.open_interest[:-1].tobytes(),
        inputs.open_interest_ms[:-1].tolist(),
        one.market.trading,
        one.market.fill,
        one.market.registry.last_sync,
    )


async def test_a_follower_sees_what_the_owner_sees_and_asks_the_exchange_nothing(
    live: LiveMarket,
) -> None:
    owner = await filled_owner(live)
    follower = process(live, "follower")
    asked = await live.requests()
    assert await follower.follower.refresh()
    assert await live.requests() == asked
    assert seen(follower) == seen(owner)
    assert follower.market.status() is DataStatus.FRESH
    assert follower.market.is_filled()
    assert follower.scoring.board() == owner.scoring.board()
    assert follower.follower.link is not None
    assert not await follower.follower.refresh(), "nothing new"


async def test_what_changes_reaches_the_follower_bars_and_open_interest_included(
    live: LiveMarket,
) -> None:
    owner = await filled_owner(live)
    follower = process(live, "follower")
    await follower.follower.refresh()
    first = follower.market.panel(Interval.HOUR)
    assert first is not None
    live.clock.pass_(2 * 3600 + 10)
    await owner.own()
    await owner.market.refresh_market()
    await owner.market.refresh_candles()
    await owner.market.refresh_funding()
    await owner.publisher.publish()
    asked = await live.requests()
    assert await follower.follower.refresh()
    second = follower.market.panel(Interval.HOUR)
    assert second is not None
    assert second.opened_ms[-1] > first.opened_ms[-1]
    assert seen(follower) == seen(owner)
    assert await live.requests() == asked


async def test_a_contract_that_pauses_and_a_halt_reach_the_follower(live: LiveMarket) -> None:
    owner = await filled_owner(live)
    follower = process(live, "follower")
    await follower.follower.refresh()
    entry = owner.market.eligible()[3]
    await live.fault("contract_status", symbol=entry.contract.code, status="Paused")
    owner.market.trading = ExchangeStatus.CLOSE
    await owner.market.sync_contracts()
    await owner.publisher.publish()
    await follower.follower.refresh()
    assert follower.market.funnel() == owner.market.funnel()
    assert follower.market.is_halted()
    quotes = [one.market.quote(entry.symbol) for one in (owner, follower)]
    assert [one and one.paused_since for one in quotes] == [live.clock.now()] * 2
    await _is_another_contract_for_both(live, owner, follower)


async def _is_another_contract_for_both(
    live: LiveMarket, owner: Process, follower: Process
) -> None:
    """D16: nothing of the former listing stays, with whomever it was."""
    code = owner.market.eligible()[2].contract.code
    assert code in follower.market.live.market.daily
    opened_ms = round(live.clock.wall() * 1000) + 1
    await live.fault("malformed", CONTRACTS, symbol=code, field="firstOpenDate", value=opened_ms)
    await owner.market.sync_contracts()
    await owner.publisher.publish()
    await follower.follower.refresh()
    for one in (owner.market, follower.market):
        assert one.resolve(code).contract.listed_ms == opened_ms
        assert code not in {**one.live.market.daily, **one.live.market.tickers}


async def test_without_its_owner_a_followers_market_turns_stale_by_itself(
    live: LiveMarket,
) -> None:
    await filled_owner(live)
    follower = process(live, "follower")
    await follower.follower.refresh()
    limit_s = Configuration().age_limit_s(Source.TICKERS)
    live.clock.pass_(limit_s + 1)
    assert not await follower.follower.refresh()
    assert follower.market.status() is DataStatus.STALE
    # Whoever comes later is told by the database how long ago it was written.
    async with live.database.write() as unit:
        await unit.connection.execute(
            text("UPDATE shared_markets SET stamped_ms = stamped_ms - :ms"),
            {"ms": int(limit_s * 1000) + 1000},
        )
    newcomer = process(live, "newcomer")
    await newcomer.follower.refresh()
    assert newcomer.market.status() is DataStatus.STALE
    age_s = newcomer.market.moment().age_s(Source.TICKERS)
    assert age_s is not None
    assert age_s > limit_s


async def test_who_takes_over_goes_on_with_what_is_stored(live: LiveMarket) -> None:
    owner = await filled_owner(live)
    follower = process(live, "follower")
    await follower.follower.refresh()
    await owner.lease.release()
    assert await follower.own() == 2
    before = await live.requests()
    await first_fill(follower.market)
    asked = {path: n - before.get(path, 0) for path, n in (await live.requests()).items()}
    assert not any("kline" in path for path, n in asked.items() if n), "its bars are all here"
    # Books of 100 levels are too large to be shared every two seconds.
    assert any("depth" in path for path, n in asked.items() if n)
    assert not (await follower.scoring.calculate()).is_provisional
    board = await follower.scoring.calculate()
    assert await follower.publisher.publish()
    await owner.follower.refresh()
    assert owner.follower.epoch == 2
    assert owner.scoring.board() == board


async def test_a_follower_decides_on_no_stored_board_that_its_owner_does_not_decide_on(
    live: LiveMarket,
) -> None:
    owner = await filled_owner(live)
    board = owner.scoring.board()
    early = process(live, "early")
    await early.follower.refresh()
    assert (early.scoring.latest_complete(), early.scoring.has_complete_board()) == (board, True)
    ahead = replace(
        board,
        run_id="00000000-0000-4000-9000-999999999999",
        calculated_at=board.calculated_at + timedelta(seconds=30),
    )
    async with live.database.write() as unit:
        await unit.get(ScoringRepository).save(ahead, None)
    follower = process(live, "follower")
    await follower.follower.refresh()
    assert (owner.scoring.latest_complete(), follower.scoring.latest_complete()) == (board, ahead)
    assert owner.scoring.has_complete_board()
    assert not follower.scoring.has_complete_board()


async def test_K16_a_stopped_owner_that_wakes_writes_neither_board_nor_market_nor_contracts(
    live: LiveMarket,
) -> None:
    owner = await filled_owner(live)
    other = process(live, "other")
    await other.follower.refresh()
    async with live.database.write() as unit:
        await unit.connection.execute(text("UPDATE leases SET expires_ms = 1"))
    assert await other.own() == 2
    assert owner.held() == 1, "by its own clock it still is the owner"
    board = other.scoring.board()
    with pytest.raises(UnavailableError) as caught:
        await owner.scoring.calculate()
    assert caught.value.code is Code.MARKET_DATA_STALE
    code = owner.market.eligible()[3].contract.code
    await live.fault("contract_status", symbol=code, status="Paused")
    with pytest.raises(UnavailableError) as caught:
        await owner.market.fetch_contracts()
    assert caught.value.code is Code.MARKET_DATA_STALE
    stored = live.registry()
    await stored.load()
    assert stored.known.by_code[code].contract.status is ContractStatus.OPEN
    owner.market.fill = replace(owner.market.fill, done=7)
    assert not await owner.publisher.publish()
    assert owner.held() is None, "now it knows"
    async with live.database.read() as unit:
        stamp, latest = (
            await unit.get(SharedMarketRepository).stamp(),
            await unit.get(ScoringRepository).latest(),
        )
    assert stamp is not None
    assert stamp.epoch == 1, "what it wrote when it was the owner"
    assert latest is not None
    assert latest.run_id == board.run_id


async def test_K16_a_stopped_owner_that_wakes_stores_no_candle_no_rate_and_no_open_interest(
    live: LiveMarket,
) -> None:
    owner = await filled_owner(live)
    other = process(live, "other")
    await other.follower.refresh()
    async with live.database.write() as unit:
        await unit.connection.execute(text("UPDATE leases SET expires_ms = 1"))
    live.clock.pass_(9 * 3600.0 + 10)  # bars have closed, a rate was settled, an hour has begun
    await owner.own()
    async with live.database.write() as unit:
        await unit.connection.execute(text("UPDATE leases SET expires_ms = 1"))
    assert await other.own() == 3
    assert owner.held() == 2, "by its own clock it still is the owner"
    await owner.market.refresh_tickers()
    before = await stored_rows(live)
    for refresh in (
        owner.market.refresh_candles,
        owner.market.refresh_funding,
        lambda: owner.market.open_interest.record(owner.market.moment()),
    ):
        with pytest.raises(UnavailableError) as caught:
            await refresh()
        assert caught.value.code is Code.MARKET_DATA_STALE
    assert await stored_rows(live) == before
    await other.market.refresh_market()
    await other.market.refresh_candles()
    await other.market.refresh_funding()
    after = await stored_rows(live)
    assert all(after[name] > count for name, count in before.items()), "the new one stores them"


async def stored_rows(live: LiveMarket) -> dict[str, int]:
    async with live.database.read() as unit:
        return {
            table.name: int(
                (
                    await unit.connection.execute(select(func.count()).select_from(table))
                ).scalar_one()
            )
            for table in (candles, funding_rates, market_snapshots)
        }


async def test_a_board_of_a_follower_stands_while_its_market_is_that_of_the_present_owner(
    live: LiveMarket,
) -> None:
    owner, follower, heir = await filled_owner(live), process(live, "f"), process(live, "heir")
    with pytest.raises(UnavailableError, match="No market data has arrived yet"):
        async with live.database.write() as unit:
            await follower.view.fence(unit)
    await follower.follower.refresh()
    asked = await live.requests()
    board = await follower.scoring.calculate()
    assert await live.requests() == asked
    await owner.follower.refresh()
    assert owner.scoring.board() == board, "all have the newest one, whoever made it"
    await heir.follower.refresh()
    await owner.lease.release()
    assert await heir.own() == 2
    with pytest.raises(UnavailableError) as caught:
        await follower.scoring.calculate()
    assert caught.value.code is Code.MARKET_DATA_STALE
    assert await heir.publisher.publish()
    await follower.follower.refresh()
    await follower.scoring.calculate()


async def test_a_follower_shows_the_owners_way_to_the_exchange_and_waits_for_its_fill(
    live: LiveMarket,
) -> None:
    owner, follower = process(live, "owner"), process(live, "follower")
    assert not follower.view.is_owner()
    await owner.own()
    waiting = asyncio.ensure_future(first_fill(follower.market))
    await asyncio.sleep(0)
    await first_fill(owner.market)
    assert not waiting.done()
    await owner.publisher.publish()
    await follower.follower.refresh()
    await waiting
    assert follower.view.link().state is LinkState.UP
    assert follower.view.link() == follower.follower.link
    assert owner.view.link() == live.exchange.link()


async def test_who_could_not_renew_stops_by_its_own_clock_before_others_may_begin(
    live: LiveMarket,
) -> None:
    owner = process(live, "owner")
    assert await owner.own() == 1
    for _ in range(4):
        live.clock.pass_(4.9)
        await owner.lease.renew()
        assert owner.held() == 1
    live.clock.pass_(10.0)
    assert owner.held() is None
    await owner.lease.renew()
    assert owner.held() is None, "it must acquire it anew"
    assert await owner.own() == 2


async def test_T05_who_slept_while_its_lease_ran_out_does_not_get_it_back_by_renewing(
    live: LiveMarket,
) -> None:
    # The monotonic clock of a suspended machine may stand still: the database's does not.
    owner, other = process(live, "owner"), process(live, "other")
    assert await owner.own() == 1
    async with live.database.write() as unit:
        await unit.connection.execute(text("UPDATE leases SET expires_ms = 1"))
    live.clock.pass_(5.0)
    assert owner.held() == 1
    await owner.lease.renew()
    assert owner.held() is None
    assert await other.own() == 2
    assert await owner.lease.acquire() is None


async def test_a_follower_has_the_owner_ask_for_the_contracts(live: LiveMarket) -> None:
    owner, follower = await filled_owner(live), process(live, "follower")
    await follower.follower.refresh()

    async def turn(_: float) -> None:
        await sync_requests(live, owner).answer()

    asking = sync_requests(live, follower, turn)
    follower.market.remote_sync = asking.sync_contracts
    code = owner.market.eligible()[3].contract.code
    await live.fault("contract_status", symbol=code, status="Paused")
    summary = await follower.market.sync_contracts()
    assert summary == owner.market.registry.last_sync
    assert len(summary.updated) == 1
    assert follower.market.funnel() == owner.market.funnel()
    await live.fault("status", status=503)
    with pytest.raises(UnavailableError) as refused:
        await follower.market.sync_contracts()
    assert refused.value.code is Code.EXCHANGE_UNAVAILABLE
    nobody = sync_requests(live, follower)
    nobody.timeout_s = 0.2
    with pytest.raises(UnavailableError, match="No process that reads the exchange answers"):
        await nobody.sync_contracts()


def sync_requests(
    live: LiveMarket, one: Process, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> SyncRequests:
    return SyncRequests(
        live.database,
        one.market,
        one.publisher,
        one.follower,
        lambda: f"request-{next(NUMBERS)}",
        sleep=sleep,
    )


async def test_a_market_of_another_version_of_the_code_is_left_alone(live: LiveMarket) -> None:
    owner = await filled_owner(live)
    async with live.database.write() as unit:
        epoch = owner.lease.epoch
        assert epoch is not None
        await unit.get(SharedMarketRepository).publish(
            epoch, await unit.get(SharedMarketRepository).clock_ms(), b"what?"
        )
    follower = process(live, "follower")
    assert not await follower.follower.refresh()
    assert follower.market.status() is DataStatus.UNAVAILABLE
    async with live.database.read() as unit:
        present = await unit.get(LeaseRepository).current(FEED)
    assert present is not None
    assert present.holder == "owner"
    await asyncio.sleep(0)
