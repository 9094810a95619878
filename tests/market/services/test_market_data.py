"""Live market data over a real socket: the first fill, refreshes, ages, what survives a restart."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from itertools import count
from uuid import UUID
from weakref import ref

import numpy as np
import pytest

from app.configuration.domain.model import Configuration, EligibilitySettings, IntervalSettings
from app.configuration.domain.sections import Source
from app.foundation.data_status import DataStatus
from app.foundation.errors import Code, UnavailableError
from app.foundation.idempotency import IdempotentExecutor
from app.foundation.sql.database import Database
from app.market.domain.data_quality import EMPTY, forward_filled_bars
from app.market.domain.models import STORED, CandleSeries, Contract, ContractStatus, Interval
from app.market.domain.panel import has_data, has_fresh_data
from app.market.services.backfill import FIRST_BOOKS, STAGES, first_fill
from app.market.services.service import MarketData
from app.market.storage.candles import CandleRepository
from app.market.storage.market_data import MarketRepository
from app.scoring.domain.board import Board
from app.scoring.services.service import Scoring
from app.workers.supervisor import Heartbeat, Supervisor
from tests.conftest import MakeDatabase
from tests.support.live_market import CONTRACTS, LiveMarket, open_market

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
KLINE = "/api/v1/kline/query"
DEPTH = "/api/v1/level2/depth100"
FUNDING = "/api/v1/contract/funding-rates"
HOUR_S = 3600
DAY_S = 86_400.0


@pytest.fixture
async def live(database: Database) -> AsyncIterator[LiveMarket]:
    async with open_market(database, contracts=14) as opened:
        yield opened


@pytest.fixture
async def filled(live: LiveMarket) -> MarketData:
    data = live.market()
    await first_fill(data)
    return data


async def test_first_fill_brings_what_a_scoring_reads_in_the_order_that_pays(
    live: LiveMarket, database: Database
) -> None:
    data = live.market()
    told: list[tuple[str, int, int]] = []
    scorable_at: list[str] = []
    filled_at: list[str] = []

    def progress(stage: str, done: int, total: int) -> None:
        told.append((stage, done, total))
        if data.scorable.is_set() and not scorable_at:
            scorable_at.append(stage)
        if data.is_filled():
            filled_at.append(stage)

    await first_fill(data, progress)
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == list(STAGES)
    assert scorable_at == ["books"]
    assert filled_at == ["complete"]
    for stage in stages:
        counts = [(done, total) for name, done, total in told if name == stage]
        assert counts[-1][0] == counts[-1][1]
        assert [done for done, _ in counts] == sorted(done for done, _ in counts)

    inputs = data.scoring_inputs()
    assert len(inputs.symbols) >= 8
    assert inputs.symbols == tuple(sorted(inputs.symbols))
    for source in Source:
        assert has_data(inputs, source).all(), source
        assert has_fresh_data(inputs, source).all(), source
    assert inputs.daily.close.shape == (250, len(inputs.symbols))
    assert inputs.hourly.close.shape == (400, len(inputs.symbols))
    assert np.isfinite(inputs.daily.close[-1]).all()
    assert np.isfinite(inputs.hourly.close).all()
    assert {*inputs.symbols, *inputs.excluded} == {
        one.symbol for one in data.registry.index.entries
    }
    # two pages a symbol bring the daily candles, and two the hourly ones
    days = len(data.history_candidates())
    assert (await live.requests())[KLINE] == 2 * (days + len(inputs.symbols))
    async with database.read() as unit:
        entry = data.resolve("BTCUSDT")
        stored = await unit.get(CandleRepository).load([entry.symbol_id], Interval.DAY)
        rates = await unit.get(MarketRepository).funding([entry.symbol_id])
    np.testing.assert_array_equal(
        stored[entry.symbol_id].close, data.live.market.daily["XBTUSDTM"].value.close
    )
    assert rates[entry.symbol_id] == data.live.market.funding["XBTUSDTM"].value


@ON_SQLITE
async def test_D16_nothing_that_was_heard_of_a_former_listing_is_of_the_one_after_it(
    live: LiveMarket, filled: MarketData, database: Database
) -> None:
    code = "ETHUSDTM"
    old, before = filled.resolve("ETHUSDT"), filled.live.market
    await filled.open_interest.record(filled.moment())
    live.held = [code]
    opened_ms = round(live.clock.wall() * 1000) + 1
    await live.fault("malformed", CONTRACTS, symbol=code, field="firstOpenDate", value=opened_ms)
    live.clock.pass_(60)
    await filled.refresh_market()
    assert filled.resolve("ETHUSDT").symbol_id == old.symbol_id, "a member, until it has left"
    market = filled.live.market
    assert (market.stats[code], market.tickers[code]) == (before.stats[code], before.tickers[code])
    assert market.tickers["XBTUSDTM"].mono > before.tickers["XBTUSDTM"].mono
    live.held = []
    await filled.fetch_contracts()
    entry, market = filled.resolve("ETHUSDT"), filled.live.market
    assert entry.symbol_id != old.symbol_id
    kept = (market.tickers, market.books, market.funding, market.daily, market.hourly)
    assert not any(code in one for one in (*kept, market.daily_facts, market.quality))
    assert not np.isfinite(market.open_interest.columns((code,))[:-1]).any()
    assert market.stats[code].mono == live.clock.monotonic(), "said of it just now"
    await filled.fetch.candles([old], Interval.DAY)
    await filled.fetch.funding([old])
    assert code not in filled.live.market.daily, "a late answer to a question about the former one"
    assert code not in filled.live.market.funding
    async with database.read() as unit:
        bars = await unit.get(CandleRepository).load([old.symbol_id, entry.symbol_id], Interval.DAY)
    assert len(bars[old.symbol_id].close) > 100
    assert not len(bars.get(entry.symbol_id, EMPTY).close)


@ON_SQLITE
async def test_a_first_board_has_books_for_the_most_traded(database: Database) -> None:
    async with open_market(database, contracts=140) as live:
        data = live.market()
        asked: list[int] = []

        def progress(stage: str, done: int, total: int) -> None:
            if stage == "books" and done == 0:
                asked.append(len(data.live.market.books))

        await first_fill(data, progress)
        assert asked == [FIRST_BOOKS]
        assert len(data.registry.index.entries) == 140
        best = data.eligible()[:FIRST_BOOKS]
        books = data.live.market.books
        assert all(one.contract.code in books for one in best)
        inputs = data.scoring_inputs()
        assert len(inputs.symbols) > FIRST_BOOKS
        for source in Source:
            assert has_data(inputs, source).mean() >= 0.95


async def test_a_restart_asks_only_for_what_is_missing(
    filled: MarketData, live: LiveMarket
) -> None:
    before = (await live.requests())[KLINE]
    again = live.market()
    await again.registry.load()
    await first_fill(again)
    assert (await live.requests())[KLINE] == before
    old, new = filled.live.market, again.live.market
    assert new.daily.keys() == old.daily.keys()
    for interval in STORED:
        for code, held in old.series(interval).items():
            np.testing.assert_array_equal(
                new.series(interval)[code].value.opened_ms, held.value.opened_ms
            )
    assert {code: one.value for code, one in new.funding.items()} == {
        code: one.value for code, one in old.funding.items()
    }
    np.testing.assert_array_equal(new.open_interest.times_ms, old.open_interest.times_ms)
    # three hours later: one page of new hours each, not two
    live.clock.pass_(3 * HOUR_S)
    third = live.market()
    await third.registry.load()
    await first_fill(third)
    count = len(third.eligible())
    assert count <= (await live.requests())[KLINE] - before <= 2 * count


@ON_SQLITE
async def test_D04_a_bar_is_taken_two_seconds_after_its_close_and_by_all_at_once(
    filled: MarketData, live: LiveMarket
) -> None:
    code = filled.resolve("BTCUSDT").contract.code
    last = int(filled.live.market.hourly[code].value.opened_ms[-1])
    closes_s = last / 1000 + 2 * HOUR_S
    live.clock.pass_(closes_s + 1.5 - live.clock.wall())
    await filled.refresh_market()
    await filled.refresh_candles()
    assert int(filled.live.market.hourly[code].value.opened_ms[-1]) == last
    live.clock.pass_(1.0)
    before = filled.live.market.hourly
    await filled.refresh_candles()
    after = filled.live.market.hourly
    assert before is not after
    assert int(after[code].value.opened_ms[-1]) == last + HOUR_S * 1000
    assert len(after[code].value) == 400
    asked = (await live.requests())[KLINE]
    await filled.refresh_candles()
    assert (await live.requests())[KLINE] == asked
    panel = filled.panel(Interval.HOUR)
    assert panel is not None
    assert int(panel.opened_ms[-1]) == last + HOUR_S * 1000


@ON_SQLITE
async def test_a_bar_that_never_comes_is_asked_for_a_few_times_only(
    filled: MarketData, live: LiveMarket
) -> None:
    live.clock.pass_(HOUR_S)
    await filled.refresh_market()
    await live.fault("empty_list", KLINE)
    for _ in range(6):
        await filled.refresh_candles()
    asked = (await live.requests())[KLINE]
    await filled.refresh_candles()
    assert (await live.requests())[KLINE] == asked
    await live.heal()
    live.clock.pass_(HOUR_S)
    await filled.refresh_market()
    await filled.refresh_candles()
    hourly = filled.live.market.hourly["XBTUSDTM"].value
    assert np.all(np.diff(hourly.opened_ms) == HOUR_S * 1000)


@ON_SQLITE
async def test_D05_a_hole_within_an_answer_is_asked_for_once_more_and_then_left_open(
    live: LiveMarket,
) -> None:
    data = live.market()
    await data.fetch_contracts()
    first, second = data.resolve("BTCUSDT"), data.resolve("ETHUSDT")
    day, end = Interval.DAY.ms, int(live.clock.wall() * 1000) // Interval.DAY.ms * Interval.DAY.ms
    gap = {"begin": end - 150 * day, "end": end - 148 * day}
    await live.fault("gap", KLINE, times=1, **gap)
    assert await data.fetch.candles([first], Interval.DAY) == []
    assert (await live.requests())[KLINE] == 3, "two pages, and the hole once more"
    held = data.live.market.daily[first.contract.code].value
    assert list(held.opened_ms) == list(range(end - 250 * day, end, day))
    assert forward_filled_bars(held, Interval.DAY) == 0
    await live.fault("gap", KLINE, **gap)
    assert await data.fetch.candles([second], Interval.DAY) == []
    held = data.live.market.daily[second.contract.code].value
    assert len(held) == 247
    assert forward_filled_bars(held, Interval.DAY) == 3
    await live.heal()
    assert await data.fetch.candles([first, second], Interval.DAY) == []
    assert (await live.requests())[KLINE] == 6, "once more, not again and again"


@ON_SQLITE
async def test_one_symbol_that_fails_does_not_stop_the_others(live: LiveMarket) -> None:
    data = live.market()
    await live.fault("error", DEPTH, times=1, code="400100", message="no")
    await live.fault("garbage", KLINE, times=1)
    await first_fill(data)
    codes = {one.contract.code for one in data.eligible()}
    assert len(codes - data.live.market.books.keys()) <= 1
    assert len(data.live.market.daily) == len(data.history_candidates()), "it was asked once more"


@ON_SQLITE
@pytest.mark.parametrize("stage", ["daily_candles", "hourly_candles"])
async def test_a_bar_that_closes_during_the_fill_is_there_for_everybody_after_it(
    live: LiveMarket, stage: str
) -> None:
    data = live.market()
    midnight_s = (live.clock.wall() // DAY_S + 1) * DAY_S
    live.clock.pass_(midnight_s - 5 - live.clock.wall())

    def progress(name: str, done: int, total: int) -> None:
        if name == stage and done == total // 2:
            live.clock.pass_(max(0.0, midnight_s + 5 - live.clock.wall()))

    await first_fill(data, progress)
    assert live.clock.wall() > midnight_s, "it closed during the fill"
    codes = {one.contract.code for one in data.eligible()}
    for interval, held in (
        (Interval.DAY, data.live.market.daily),
        (Interval.HOUR, data.live.market.hourly),
    ):
        newest = {int(held[code].value.opened_ms[-1]) + interval.ms for code in codes}
        assert newest == {int(midnight_s * 1000)}, interval


@ON_SQLITE
async def test_an_outage_ends_the_fill_and_the_next_one_goes_on(live: LiveMarket) -> None:
    data = live.market()
    await live.fault("status", DEPTH, status=503)
    with pytest.raises(UnavailableError):
        await first_fill(data)
    assert data.fill.stage == "first_books"
    assert not data.is_filled()
    assert not data.scorable.is_set()
    asked = (await live.requests())[KLINE]
    await live.heal()
    live.clock.pass_(60)
    await first_fill(data)
    assert data.fill.stage == "complete"
    assert data.is_filled()
    assert (await live.requests())[KLINE] == asked + 2 * len(data.eligible())


@ON_SQLITE
async def test_nothing_is_called_fresh_beyond_its_limit(
    filled: MarketData, live: LiveMarket
) -> None:
    assert filled.status() is DataStatus.FRESH
    entry = filled.resolve("BTCUSDT")
    assert filled.moment().is_fresh(entry)
    as_of = filled.as_of()
    assert as_of is not None
    live.clock.pass_(180)
    assert filled.status() is DataStatus.FRESH
    live.clock.pass_(1)
    assert filled.status() is DataStatus.STALE
    assert filled.as_of() == as_of
    assert not filled.moment().is_fresh(entry)
    quote = filled.quote("BTCUSDT")
    assert quote is not None
    assert not quote.is_fresh
    assert quote.mark is not None  # it is still told, with its age
    view = filled.view(entry)
    assert view.status is DataStatus.STALE
    assert view.ages[Source.TICKERS].age_s == pytest.approx(181)
    assert view.ages[Source.DAILY_CANDLES].status is DataStatus.FRESH
    assert filled.scoring_inputs().symbols == ()
    assert set(filled.scoring_inputs().excluded.values()) >= {"ticker"}
    facts = filled.facts()
    assert (facts.data_status, facts.eligible) == (DataStatus.STALE, 0)
    assert facts.stale_symbols > 0
    await filled.refresh_market()
    assert filled.status() is DataStatus.FRESH


@ON_SQLITE
async def test_as_of_is_what_everything_live_is_known_up_to(
    filled: MarketData, live: LiveMarket
) -> None:
    entry, begun = filled.resolve("BTCUSDT"), filled.as_of()
    assert begun is not None
    live.clock.pass_(100)
    await filled.fetch.books([entry])
    await filled.refresh_funding()
    await filled.sync_contracts()
    # contracts, books and funding are new; the prices that people see are not
    assert filled.as_of() == begun
    assert filled.view(entry).as_of == begun
    assert filled.moment().age_s(Source.CONTRACTS) == pytest.approx(0)
    assert filled.moment().age_s(Source.TICKERS) == pytest.approx(100)
    assert filled.scoring_inputs().as_of_ms == int(begun.timestamp() * 1000)
    live.clock.pass_(81)
    await filled.sync_contracts()
    assert filled.status() is DataStatus.STALE
    assert filled.moment().unknown() == (Source.TICKERS,)
    await filled.refresh_market()
    assert filled.moment().unknown() == ()
    passed = (filled.as_of() or begun) - begun
    assert abs(passed - timedelta(seconds=181)) < timedelta(seconds=1)
    assert filled.view(entry).as_of == filled.as_of()


@ON_SQLITE
async def test_a_board_rests_on_nothing_younger_than_its_as_of(
    filled: MarketData, live: LiveMarket
) -> None:
    code = filled.resolve("BTCUSDT").contract.code
    last_ms = int(filled.live.market.hourly[code].value.opened_ms[-1])
    live.clock.pass_(last_ms / 1000 + 2 * HOUR_S - 30 - live.clock.wall())
    await filled.refresh_market()
    live.clock.pass_(60)
    await filled.refresh_candles()
    await filled.sync_contracts()
    panel, inputs = filled.panel(Interval.HOUR), filled.scoring_inputs()
    assert panel is not None
    assert int(panel.opened_ms[-1]) == last_ms + HOUR_S * 1000
    assert int(inputs.hourly.opened_ms[-1]) == last_ms
    assert inputs.open_interest_ms[-1] == inputs.as_of_ms
    assert np.all(np.diff(inputs.open_interest_ms) > 0)


@ON_SQLITE
async def test_an_outage_leaves_the_board_and_the_first_good_answer_scores_again(
    filled: MarketData, live: LiveMarket
) -> None:
    scoring = Scoring(
        market=filled,
        database=live.database,
        clock=live.clock.now,
        monotonic=live.clock.monotonic,
        new_id=lambda: str(UUID(int=next(live.numbers))),
        configuration=Configuration,
        idempotency=IdempotentExecutor(live.database, live.clock.now),
    )
    before = await scoring.calculate()
    assert before.universe_size > 0
    await live.fault("reset")
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        live.clock.pass_(181 if len(waits) == 1 else 5)
        if len(waits) == 4:
            await live.heal()
            await filled.refresh_market()
        await asyncio.sleep(0)

    supervisor = Supervisor(live.clock.now, lambda: iter((1.0, 2.0)), sleep=sleep)
    boards: list[Board] = []

    async def score(beat: Heartbeat) -> None:
        if not waits:
            raise UnavailableError(Code.EXCHANGE_UNAVAILABLE, "the outage begins")
        boards.append(await scoring.calculate())

    supervisor.start("scoring", score, lambda: 60.0)
    await supervisor.wait("scoring")
    await supervisor.stop()
    # refused three times, after the back-off each, and the good board stood all the while
    assert waits == [1.0, 2.0, 2.0, 2.0]
    assert len(boards) == 1
    assert boards[0].universe_size == before.universe_size
    past = await scoring.history("BTCUSDT", None, 9)
    assert [one.run_id for one in past] == [boards[0].run_id, before.run_id]


@ON_SQLITE
async def test_nothing_is_scored_before_there_are_candles(live: LiveMarket) -> None:
    data = live.market()
    await data.refresh_market()
    assert data.moment().unknown() == (Source.DAILY_CANDLES,)
    assert not data.is_filled()


@ON_SQLITE
async def test_D04_a_bar_that_runs_or_is_not_sound_is_never_stored(
    live: LiveMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = live.market()
    await data.refresh_market()
    entry, ask = data.resolve("BTCUSDT"), data.exchange.candles

    async def with_two_bad_bars(
        contract: Contract, interval: Interval, start_ms: int, end_ms: int
    ) -> CandleSeries:
        series = await ask(contract, interval, start_ms, end_ms)
        high = series.high.copy()
        high[-2] = series.low[-2] / 2
        running_ms = int(series.opened_ms[-1]) + interval.ms
        return CandleSeries(
            np.append(series.opened_ms, np.int64(running_ms)),
            *(
                np.append(values, values[-1])
                for values in (
                    series.open, high, series.low, series.close, series.volume, series.turnover
                )
            ),
        )  # fmt: skip

    monkeypatch.setattr(data.exchange, "candles", with_two_bad_bars)
    await data.fetch.candles([entry], Interval.DAY)
    day = Interval.DAY.ms
    last_ms = int(live.clock.wall() * 1000) // day * day - day
    async with live.database.read() as unit:
        stored = (await unit.get(CandleRepository).load([entry.symbol_id], Interval.DAY))[
            entry.symbol_id
        ]
    for series in (stored, data.live.market.daily[entry.contract.code].value):
        assert int(series.opened_ms[-1]) == last_ms
        assert last_ms - day not in series.opened_ms
        assert len(series) > 100


@ON_SQLITE
async def test_before_the_first_answer_nothing_is_known(live: LiveMarket) -> None:
    data = live.market()
    await live.fault("reset")
    with pytest.raises(UnavailableError):
        await first_fill(data)
    assert data.status() is DataStatus.UNAVAILABLE
    assert data.as_of() is None
    assert data.panel(Interval.DAY) is None
    assert data.quote("BTCUSDT") is None
    assert data.facts().data_status is DataStatus.UNAVAILABLE
    assert data.scoring_inputs().symbols == ()


@ON_SQLITE
async def test_a_known_contract_without_quotes_is_shown_without_numbers(
    filled: MarketData, live: LiveMarket
) -> None:
    del filled
    again = live.market()
    await again.registry.load()
    quote = again.quote("BTCUSDT")
    assert quote is not None
    assert (quote.mark, quote.bid, quote.is_fresh, quote.sector) == (None, None, False, "layer1")
    view = again.view(again.resolve("BTCUSDT"))
    assert view.status is DataStatus.UNAVAILABLE
    assert (view.last, view.spread_bp, view.depth, view.open_interest) == (None,) * 4
    assert {aged.age_s for aged in view.ages.values()} == {None}


@ON_SQLITE
async def test_a_book_beyond_its_age_limit_is_not_decided_on(
    filled: MarketData, live: LiveMarket
) -> None:
    async def pass_(seconds: int) -> bool:
        live.clock.pass_(seconds)
        await filled.refresh_market()
        quote = filled.quote("BTCUSDT")
        assert quote is not None
        assert quote.is_fresh
        return quote.book is not None

    await filled.fetch.books([filled.resolve("BTCUSDT")])
    assert await pass_(900)  # three intervals
    assert not await pass_(1)


@ON_SQLITE
async def test_watched_books_have_their_turn_in_every_part(
    filled: MarketData, live: LiveMarket
) -> None:
    await live.fault("contract_status", symbol="ETHUSDTM", status="Paused")
    await filled.refresh_market()
    await filled.sync_contracts()
    closed = filled.resolve("ETHUSDT")
    assert closed.contract.status is not ContractStatus.OPEN
    eligible = {entry.symbol for entry in filled.eligible()}
    outside = next(
        entry
        for entry in filled.registry.index.entries
        if entry.symbol not in eligible and entry.contract.status is ContractStatus.OPEN
    )
    books = filled.live.market.books
    newest = max(eligible, key=lambda name: books[filled.resolve(name).contract.code].mono)
    names = (newest, outside.symbol, closed.symbol, "NOSUCHUSDT")
    watched = {filled.resolve(newest).contract.code, outside.contract.code}
    for _ in range(3):
        live.clock.pass_(60)
        before = filled.live.market.books
        await filled.refresh_books(60, names)  # a fifth of the rotation
        after = filled.live.market.books
        looked_at = {code for code, one in after.items() if one.mono == live.clock.monotonic()}
        assert watched <= looked_at
        assert closed.contract.code not in looked_at
        # The others go on: what was not looked at for longest, as many as without a watch list.
        others = looked_at - watched
        assert others
        assert all(before[code].mono < live.clock.monotonic() for code in others if code in before)


@ON_SQLITE
async def test_books_are_looked_at_in_a_rotation(filled: MarketData, live: LiveMarket) -> None:
    count = len(filled.eligible())
    first = {code: one.mono for code, one in filled.live.market.books.items()}
    for _ in range(20):  # 20 steps of 15 s are one cadence
        live.clock.pass_(15)
        await filled.refresh_market()
        await filled.refresh_books(15)
    books = filled.live.market.books
    assert len(books) >= count
    assert all(books[code].mono > mono for code, mono in first.items())
    inputs = filled.scoring_inputs()
    assert has_fresh_data(inputs, Source.BOOKS).all()
    assert (await live.requests())[DEPTH] <= 4 * count


@ON_SQLITE
async def test_a_book_is_scored_up_to_two_rotations_old(
    filled: MarketData, live: LiveMarket
) -> None:
    async def aged(seconds: float) -> tuple[int, int]:
        """Symbols with a book that may be scored, and all symbols; the quotes stay fresh."""
        live.clock.pass_(seconds)
        await filled.refresh_market()
        is_fresh = has_fresh_data(filled.scoring_inputs(), Source.BOOKS)
        return int(is_fresh.sum()), len(is_fresh)

    count = len(filled.eligible())
    assert count == 10
    assert await aged(0) == (count, count)
    assert await aged(600) == (count, count)
    assert await aged(1) == (0, count)
    await filled.refresh_books(15)  # they are overdue: all of them at once
    assert await aged(0) == (count, count)


@ON_SQLITE
async def test_first_books_come_round_in_a_minute_and_all_take_half_of_the_quota_at_most(
    filled: MarketData, live: LiveMarket
) -> None:
    names = tuple(entry.symbol for entry in filled.eligible())
    first = names[:4]
    for _ in range(4):  # steps of 15 s
        live.clock.pass_(15)
        await filled.refresh_books(15, first)
    held = filled.live.market.deep_books
    ages_s = {
        name: live.clock.monotonic() - held[filled.resolve(name).contract.code].mono
        for name in names
    }
    assert max(ages_s[name] for name in first) <= 60
    assert max(ages_s.values()) == 60, "the others come round in five minutes"
    live.clock.pass_(900)  # all are overdue
    filled.books_per_s = 0.4
    filled.quota_share = lambda: 0.5  # of two processes: three books a step
    for _ in range(3):
        live.clock.pass_(15)
        await filled.refresh_market()
        before = (await live.requests())[DEPTH]
        await filled.refresh_books(15, first)
        assert (await live.requests())[DEPTH] - before == 3
    books = filled.live.market.deep_books
    asked = {code for code, one in books.items() if live.clock.monotonic() - one.mono <= 45}
    close = {filled.resolve(name).contract.code for name in first}
    assert asked & close
    assert asked - close, "neither kind holds the other up"


@ON_SQLITE
async def test_books_have_a_hundred_levels_for_scoring_and_twenty_to_be_shown(
    filled: MarketData,
) -> None:
    inputs = filled.scoring_inputs()
    for symbol, book in zip(inputs.symbols, inputs.books, strict=True):
        assert book is not None
        assert len(book.bids) == len(book.asks) == 100
        shown = filled.live.market.books[book.code].value
        assert (shown.bids, shown.asks) == (book.bids[:20], book.asks[:20]), symbol


@ON_SQLITE
async def test_books_for_scoring_take_little_memory_after_any_number_of_rotations(
    filled: MarketData, live: LiveMarket
) -> None:
    for _ in range(3):
        live.clock.pass_(60)
        await filled.refresh_market()
        await filled.fetch.books(filled.eligible())
        inputs = filled.scoring_inputs()
    market = filled.live.market
    stored = [*market.deep_books.values(), *market.former_deep_books.values()]
    books = {id(one): one for one in (*(each.value for each in stored), *inputs.books) if one}
    assert len(books) == 2 * len(inputs.symbols), "the newest ones and their predecessors"
    for book in books.values():
        levels = len(book.bids) + len(book.asks)
        assert levels == 200
        assert _reachable_bytes(book) < 30 * levels, "as objects, a level takes over 200 bytes"


def _reachable_bytes(root: object) -> int:
    """Returns the bytes of all objects that only data of `root` leads to, types not counted."""
    found, pending = {}, [root]
    while pending:
        one = pending.pop()
        if id(one) not in found and not isinstance(one, type):
            found[id(one)] = sys.getsizeof(one)
            pending += gc.get_referents(one)
    return sum(found.values())


@ON_SQLITE
async def test_quotes_of_seldom_asked_symbols_keep_no_former_market_in_memory(
    filled: MarketData, live: LiveMarket
) -> None:
    former = []
    for entry in filled.eligible():
        assert filled.quote(entry.symbol) is filled.quote(entry.symbol), "computed once a market"
        former.append(ref(filled.live.market))
        live.clock.pass_(5)
        await filled.refresh_market()
    gc.collect()
    assert len(former) == 10
    assert [one() for one in former] == [None] * 10


@ON_SQLITE
async def test_books_stamped_after_the_as_of_of_a_run_are_not_in_its_inputs(
    filled: MarketData, live: LiveMarket
) -> None:
    before = filled.scoring_inputs()
    live.clock.pass_(5.5)
    await filled.fetch.books(filled.eligible())
    newer = filled.live.market.deep_books
    assert all(one.value.stamped_ms > before.as_of_ms for one in newer.values())
    late = filled.scoring_inputs()
    assert late.as_of_ms == before.as_of_ms
    assert late.books == before.books, "those of before, with their age"
    assert late.ages_s[Source.BOOKS] == pytest.approx(before.ages_s[Source.BOOKS] + 5.5)
    await filled.fetch.books(filled.eligible())  # a second answer does not push those out
    assert filled.scoring_inputs().books == before.books
    await filled.refresh_market()
    assert {book.stamped_ms for book in filled.scoring_inputs().books if book} == {
        one.value.stamped_ms for one in filled.live.market.deep_books.values()
    }


@ON_SQLITE
async def test_D09_funding_continues_after_the_last_known_rate_with_its_interval(
    filled: MarketData, live: LiveMarket
) -> None:
    before = filled.live.market.funding["XBTUSDTM"].value
    await filled.refresh_funding()
    assert filled.live.market.funding["XBTUSDTM"].value == before
    live.clock.pass_(8 * HOUR_S + 60)
    await filled.refresh_market()
    await filled.refresh_candles()
    await filled.refresh_funding()
    after = filled.live.market.funding["XBTUSDTM"].value
    assert after[: len(before)] == before
    (new,) = after[len(before) :]
    assert new.interval_ms == 8 * HOUR_S * 1000
    assert new.settled_ms - before[-1].settled_ms == new.interval_ms


async def test_D11_open_interest_is_kept_in_coins_once_an_hour(
    filled: MarketData, live: LiveMarket, database: Database
) -> None:
    taken = 0
    for _ in range(8):
        live.clock.pass_(1200)
        before = filled.live.market.open_interest
        await filled.refresh_market()
        log = filled.live.market.open_interest
        if log is before:
            continue
        stats = filled.live.market.stats["XBTUSDTM"].value
        assert stats.open_interest_lots is not None
        multiplier = filled.resolve("BTCUSDT").contract.multiplier
        in_coins = float(stats.open_interest_lots * multiplier)
        assert log.columns(("XBTUSDTM",))[-1].tolist() == [in_coins]
        taken += 1
    assert taken >= 2
    hours = log.times_ms // 3_600_000
    assert len(set(hours.tolist())) == len(hours) == 3
    entry = filled.resolve("BTCUSDT")
    stats = filled.live.market.stats[entry.contract.code].value
    assert stats.open_interest_lots is not None
    coins = filled.moment().open_interest(entry.contract)
    assert coins == stats.open_interest_lots * entry.contract.multiplier
    inputs = filled.scoring_inputs()
    assert inputs.open_interest.shape == (4, len(inputs.symbols))
    assert np.isfinite(inputs.open_interest).all()
    column = inputs.symbols.index("BTCUSDT")
    assert inputs.open_interest[-1, column] == float(coins)
    assert np.all(np.diff(inputs.open_interest_ms) > 0)
    async with database.read() as unit:
        times = await unit.get(MarketRepository).snapshot_times()
    assert times == tuple(log.times_ms.tolist())


@ON_SQLITE
async def test_T08_the_exchanges_clock_decides(live: LiveMarket) -> None:
    data = live.market()
    await live.post("clock", {"advance_ms": 5 * 3_600_000})
    await first_fill(data)
    assert data.server_clock.offset_s() == pytest.approx(5 * HOUR_S, abs=1)
    as_of = data.as_of()
    assert as_of is not None
    assert (as_of - live.clock.now()).total_seconds() == pytest.approx(5 * HOUR_S, abs=1)
    hourly = data.live.market.hourly["XBTUSDTM"].value
    newest = data.server_clock.now_ms() // 3_600_000 * 3_600_000 - 3_600_000
    assert int(hourly.opened_ms[-1]) == newest


@ON_SQLITE
async def test_R10_a_closed_exchange_is_halted_and_an_unknown_state_stays(
    filled: MarketData, live: LiveMarket
) -> None:
    assert not filled.is_halted()
    await live.fault("exchange_status", "/api/v1/status", status="cancelonly")
    await filled.refresh_market()
    assert filled.is_halted()
    await live.heal()
    await live.fault("garbage", "/api/v1/status")
    await filled.refresh_market()
    assert filled.is_halted()
    await live.heal()
    await filled.refresh_market()
    assert not filled.is_halted()


@ON_SQLITE
async def test_configuration_takes_effect_at_once(live: LiveMarket) -> None:
    settings = Configuration(
        intervals=IntervalSettings(market_s=10),
        eligibility=EligibilitySettings(min_daily_bars=1000),
    )
    data = live.market(settings)
    await data.registry.sync()
    await data.refresh_market()
    live.clock.pass_(31)
    assert data.status() is DataStatus.STALE
    data.configuration = lambda: replace(settings, intervals=IntervalSettings())
    assert data.status() is DataStatus.FRESH


@ON_SQLITE
async def test_the_funnel_names_one_rule_for_each_excluded_symbol(filled: MarketData) -> None:
    funnel = filled.funnel()
    assert sum(stage.failed for stage in funnel.stages) + len(funnel.eligible) == funnel.universe
    for entry in filled.registry.index.entries:
        failed = [one.name for one in filled.eligibility(entry) if not one.passed]
        assert funnel.excluded.get(entry.symbol) == (failed[0] if failed else None)


@ON_SQLITE
async def test_R12_what_the_exchange_leaves_out_is_missing_and_nothing_more(
    live: LiveMarket,
) -> None:
    gone = {"kind": "malformed", "path": CONTRACTS, "symbol": "ETHUSDTM", "value": None}
    fields = ("predictedFundingFeeRate", "markPrice", "lastTradePrice", "turnoverOf24h")
    await live.post("faults", [{**gone, "field": name} for name in fields])
    data = live.market()
    await first_fill(data)
    view = data.view(data.resolve("ETHUSDT"))
    assert (view.mark, view.turnover_24h, view.predicted_funding_rate) == (None, None, None)
    assert view.open_interest_lots is not None
    assert view.open_interest is None  # coins cannot be told without a price
    assert view.last is not None
    assert view.status is DataStatus.FRESH
    inputs = data.scoring_inputs()
    assert inputs.excluded["ETHUSDT"] == "turnover_24h"
    assert inputs.unread == 1, "what is not known counts as uncovered"
    assert "BTCUSDT" in inputs.symbols
    log = data.live.market.open_interest
    assert "ETHUSDTM" not in log.codes
    assert "XBTUSDTM" in log.codes


@ON_SQLITE
async def test_D11_a_contract_that_is_no_longer_quoted_leaves_a_gap_in_the_log(
    filled: MarketData, live: LiveMarket
) -> None:
    live.clock.pass_(HOUR_S)
    await live.fault("vanish", CONTRACTS, symbols=["ETHUSDTM"])
    await filled.refresh_market()
    log = filled.live.market.open_interest
    assert np.isnan(log.columns(("ETHUSDTM", "XBTUSDTM", "NOTHING"))[-1]).tolist() == [
        True,
        False,
        True,
    ]
    assert filled.eligibility(filled.resolve("ETHUSDT"))[2].passed is False


@ON_SQLITE
async def test_two_first_fills_at_once_ask_once(live: LiveMarket) -> None:
    data = live.market()
    await asyncio.gather(first_fill(data), first_fill(data))
    symbols = len(data.eligible())
    requests = await live.requests()
    assert requests[DEPTH] == requests[FUNDING] == symbols
    assert requests[KLINE] == 2 * len(data.history_candidates()) + 2 * symbols


@ON_SQLITE
async def test_an_exchange_set_back_in_time_brings_nothing_from_its_future(
    filled: MarketData, live: LiveMarket
) -> None:
    del filled
    live.clock.pass_(60)
    await live.post("clock", {"advance_ms": -30 * HOUR_S * 1000})
    again = live.market()
    await again.registry.load()
    await first_fill(again)
    now_ms = again.server_clock.now_ms()
    for interval in STORED:
        for one in again.live.market.series(interval).values():
            assert int(one.value.opened_ms[-1]) + interval.ms <= now_ms - 2_000
    assert all(one.value[-1].settled_ms <= now_ms for one in again.live.market.funding.values())
    assert again.live.market.open_interest.times_ms.tolist() == [
        int(again.live.market.stats["XBTUSDTM"].at.timestamp() * 1000)
    ]
    inputs = again.scoring_inputs()
    assert np.isfinite(inputs.daily.close[-1]).all()


async def test_a_batch_that_found_the_database_busy_is_stored_with_the_next(
    database_url: str, make_database: MakeDatabase
) -> None:
    database = make_database(database_url, busy_timeout_s=0.2, pool_wait_s=0.2, pool_size=1)
    await database.open()
    async with open_market(database, contracts=9) as live:
        data = live.market()
        await data.refresh_market()
        entries = data.registry.index.entries
        tried, asked = asyncio.Event(), count(1)

        def done() -> None:
            if next(asked) == len(entries):
                tried.set()

        async with asyncio.TaskGroup() as group, database.write():
            fetched = group.create_task(data.fetch.funding(entries, done, batch=4))
            await tried.wait()
        causes = {entry.contract.code: error.code for entry, error in fetched.result()}
        assert {Code.DATABASE_CONTENTION, Code.OVERLOADED} & {*causes.values()}, "it was not busy"
        paid = [one for one in entries if causes.get(one.contract.code) != Code.EXCHANGE_REFUSED]
        assert {entry.contract.code for entry in paid} == data.live.market.funding.keys()
        async with database.read() as unit:
            stored = await unit.get(MarketRepository).funding(
                [entry.symbol_id for entry in entries]
            )
    await database.close()
    assert stored.keys() == {entry.symbol_id for entry in paid}
