"""The port over the local exchange: every question, paging, and what a listing leaves out."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from app.adapters.kucoin.limiter import KucoinLimits
from app.adapters.kucoin.parse_contracts import contracts as parse_listing
from app.adapters.kucoin.rest import RestClient
from app.foundation.data_status import DataSource
from app.foundation.errors import BadResponseError, Code, RefusedError
from app.market.domain.models import Contract, ContractStatus, ExchangeStatus, Interval, LinkState
from tests.adapters.kucoin.harness import (
    Counting,
    Heard,
    Local,
    VirtualTime,
    asking,
    envelope,
    local_exchange,
    refused,
)
from tests.adapters.kucoin.payloads import LINEAR_2026, changed

DAY, HOUR = Interval.DAY.ms, Interval.HOUR.ms


def server_now(local: Local) -> int:
    return local.sandbox.clock.now_ms()


async def test_every_question_is_answered() -> None:
    heard = Heard()
    async with local_exchange() as local, asking(local.url, local.time, heard=heard) as exchange:
        assert exchange.source is DataSource.SANDBOX
        assert exchange.link().state is LinkState.UNTRIED
        listing = await exchange.contracts()
        assert listing.rejections == ()
        codes = {contract.code for contract in listing.contracts}
        assert len(codes) == len(listing.contracts) == len(listing.stats) > 5
        assert "XBTUSDTM" in codes
        alone = await exchange.contract("XBTUSDTM")
        assert alone.contracts[0] in listing.contracts
        tickers = await exchange.tickers()
        assert {ticker.code for ticker in tickers.tickers} == codes
        assert (await exchange.ticker("XBTUSDTM")).code == "XBTUSDTM"
        book = await exchange.book("XBTUSDTM")
        assert len(book.bids) == len(book.asks) == 100
        assert book.bids[0].price < book.asks[0].price
        funding = await exchange.funding_now("XBTUSDTM")
        assert funding.started_ms <= server_now(local) < funding.settles_ms
        stats = next(stats for stats in listing.stats if stats.code == "XBTUSDTM")
        assert stats.next_funding_ms == funding.settles_ms
        mark = await exchange.mark_price("XBTUSDTM")
        assert mark.index is not None
        assert abs(mark.mark / mark.index - 1) < Decimal("0.05")
        assert await exchange.server_time_ms() == server_now(local)
        assert await exchange.status() is ExchangeStatus.OPEN
        link = exchange.link()
        assert (link.state, link.cause, link.retry_in_s) == (LinkState.UP, None, None)
        assert link.last_success_at is not None
        assert set(heard.outcomes) == {"ok"}
        assert heard.rejections == []
        assert "/api/v1/mark-price/{symbol}/current" in {path for path, _, _ in heard.requests}


async def test_the_weights_are_those_of_the_exchange() -> None:
    async with local_exchange() as local, asking(local.url, local.time) as exchange:
        contract = (await exchange.contract("XBTUSDTM")).contracts[0]
        now = server_now(local)
        works: list[Callable[[], Any]] = [
            exchange.contracts,
            exchange.tickers,
            exchange.server_time_ms,
            exchange.status,
            lambda: exchange.ticker("XBTUSDTM"),
            lambda: exchange.book("XBTUSDTM"),
            lambda: exchange.funding_now("XBTUSDTM"),
            lambda: exchange.mark_price("XBTUSDTM"),
            lambda: exchange.candles(contract, Interval.DAY, now - 3 * DAY, now),
            lambda: exchange.funding_history("XBTUSDTM", now - DAY, now),
        ]
        rest = exchange._rest
        assert isinstance(rest, RestClient)
        for work in works:
            before = rest._pool._used, local.sandbox.pool.tally.weight
            await work()
            after = rest._pool._used, local.sandbox.pool.tally.weight
            assert after[0] - before[0] == after[1] - before[1] > 0


async def test_200_daily_candles_are_one_request() -> None:
    async with local_exchange() as local, asking(local.url, local.time) as exchange:
        contract = (await exchange.contract("XBTUSDTM")).contracts[0]
        now = server_now(local)
        end = now // DAY * DAY
        series = await exchange.candles(contract, Interval.DAY, end - 200 * DAY, end)
        assert list(series.opened_ms) == list(range(end - 200 * DAY, end, DAY))
        assert local.count("/api/v1/kline/query") == 1
        assert np.all(series.low <= np.minimum(series.open, series.close))
        assert series.turnover == pytest.approx(series.volume * series.close, rel=0.5)


async def test_R15_long_ranges_are_paged_and_whole() -> None:
    async with local_exchange() as local, asking(local.url, local.time) as exchange:
        contract = (await exchange.contract("XBTUSDTM")).contracts[0]
        end = server_now(local) // HOUR * HOUR
        local.fault("unordered", path="/api/v1/kline/query")
        local.fault("duplicate", path="/api/v1/kline/query")
        series = await exchange.candles(contract, Interval.HOUR, end - 1000 * HOUR - 7, end)
        assert list(series.opened_ms) == list(range(end - 1000 * HOUR, end, HOUR))
        targets = [target for _, _, target, _ in local.sandbox.pool.tally.arrivals]
        assert sum("kline" in target for target in targets) == 5


async def test_the_running_candle_is_included_when_asked_for() -> None:
    async with local_exchange() as local, asking(local.url, local.time) as exchange:
        contract = (await exchange.contract("XBTUSDTM")).contracts[0]
        now = server_now(local)
        series = await exchange.candles(contract, Interval.HOUR, now - 3 * HOUR, now)
        assert series.opened_ms[-1] == now // HOUR * HOUR


def klines(
    rows_for: Callable[[int, int, int], list[list[Any]]],
) -> tuple[Counting, list[tuple[int, int]]]:
    """A server of klines, and the ranges it was asked for."""
    asked: list[tuple[int, int]] = []

    async def respond(request: web.Request) -> web.Response:
        begin, end = int(request.query["from"]), int(request.query["to"])
        asked.append((begin, end))
        return web.Response(body=envelope(rows_for(begin, end, len(asked))))

    return Counting(respond), asked


def candle(moment: int) -> list[Any]:
    return [moment, 10, 12, 9, 11, 100]


def contract_of(**fields: Any) -> Contract:
    return parse_listing([changed(LINEAR_2026, **fields)], 0).contracts[0]


BEGIN = 1_750_032_000_000


@pytest.mark.parametrize("keeps", ["first", "last"])
async def test_R15_a_silent_cut_is_asked_for_once_more_whichever_end_is_lost(keeps: str) -> None:
    def cut(begin: int, end: int, _: int) -> list[list[Any]]:
        rows = [candle(m) for m in range(begin, end, DAY)]
        return rows[:100] if keeps == "first" else rows[-100:]

    server, asked = klines(cut)
    async with server.up() as url, asking(url) as exchange:
        series = await exchange.candles(contract_of(), Interval.DAY, BEGIN, BEGIN + 100 * DAY)
        assert len(asked) == 1
        asked.clear()
        begin = BEGIN - 300 * DAY
        series = await exchange.candles(contract_of(), Interval.DAY, begin, begin + 200 * DAY)
    assert len(asked) == 2
    assert list(series.opened_ms) == list(range(begin, begin + 200 * DAY, DAY))


async def test_R15_a_gap_is_asked_for_once_more_and_then_left_open() -> None:
    gap = range(BEGIN - 20 * DAY, BEGIN - 17 * DAY, DAY)
    server, asked = klines(
        lambda begin, end, _: [candle(m) for m in range(begin, end, DAY) if m not in gap]
    )
    async with server.up() as url, asking(url) as exchange:
        series = await exchange.candles(contract_of(), Interval.DAY, BEGIN - 50 * DAY, BEGIN)
    assert asked == [(BEGIN - 50 * DAY, BEGIN - 1), (gap[0], gap[-1] + DAY - 1)]
    assert len(series) == 47
    assert not set(gap) & set(series.opened_ms.tolist())


async def test_R15_what_comes_at_the_second_time_fills_the_gap() -> None:
    server, _ = klines(
        lambda begin, end, call: [
            candle(m) for m in range(begin, end, DAY) if call > 1 or m != BEGIN - 5 * DAY
        ]
    )
    async with server.up() as url, asking(url) as exchange:
        series = await exchange.candles(contract_of(), Interval.DAY, BEGIN - 10 * DAY, BEGIN)
    assert len(series) == 10


async def test_nothing_is_asked_for_before_the_listing() -> None:
    server, asked = klines(lambda begin, end, _: [candle(m) for m in range(begin, end, DAY)])
    listed = BEGIN - 4 * DAY + 5 * HOUR
    contract = contract_of(firstOpenDate=listed)
    async with server.up() as url, asking(url) as exchange:
        series = await exchange.candles(contract, Interval.DAY, BEGIN - 300 * DAY, BEGIN)
        assert asked == [(BEGIN - 4 * DAY, BEGIN - 1)]
        assert len(series) == 4
        assert len(await exchange.candles(contract, Interval.DAY, 0, BEGIN - 10 * DAY)) == 0
        assert len(asked) == 1


async def test_a_contract_of_unknown_age_is_not_asked_twice_for_what_may_not_exist() -> None:
    server, asked = klines(lambda *_: [])
    contract = contract_of(firstOpenDate=None)
    async with server.up() as url, asking(url) as exchange:
        series = await exchange.candles(contract, Interval.DAY, BEGIN - 10 * DAY, BEGIN)
    assert (len(series), len(asked)) == (0, 1)


async def test_D05_of_a_contract_of_unknown_age_only_what_is_missing_within_is_asked_again() -> (
    None
):
    gap = BEGIN - 3 * DAY
    server, asked = klines(
        lambda begin, end, call: [
            candle(m)
            for m in range(begin, end, DAY)
            if m >= BEGIN - 6 * DAY and (call > 1 or m != gap)
        ]
    )
    contract = contract_of(firstOpenDate=None)
    async with server.up() as url, asking(url) as exchange:
        series = await exchange.candles(contract, Interval.DAY, BEGIN - 10 * DAY, BEGIN)
    assert asked == [(BEGIN - 10 * DAY, BEGIN - 1), (gap, gap + DAY - 1)]
    assert list(series.opened_ms) == list(range(BEGIN - 6 * DAY, BEGIN, DAY))


async def test_impossible_candles_are_holes_and_reported() -> None:
    heard = Heard()
    bad = [BEGIN - 2 * DAY, 10, 9, 12, 11, 5]
    server, _ = klines(
        lambda begin, end, _: [bad if m == bad[0] else candle(m) for m in range(begin, end, DAY)]
    )
    async with server.up() as url, asking(url, heard=heard) as exchange:
        series = await exchange.candles(contract_of(), Interval.DAY, BEGIN - 4 * DAY, BEGIN)
    assert len(series) == 3
    assert {(path, r.field) for path, r in heard.rejections} == {("/api/v1/kline/query", "high")}


async def test_funding_history_is_paged_backwards_whatever_one_answer_holds() -> None:
    async def respond(request: web.Request) -> web.Response:
        begin, end = int(request.query["from"]), int(request.query["to"])
        moments = [m for m in range(BEGIN - 90 * DAY, BEGIN + 1, 8 * HOUR) if begin <= m <= end]
        newest = sorted(moments, reverse=True)[:10]
        rows = [{"symbol": "IDUSDTM", "fundingRate": 1e-4, "timepoint": m} for m in newest]
        return web.Response(body=envelope(rows))

    server = Counting(respond)
    async with server.up() as url, asking(url) as exchange:
        rates = await exchange.funding_history("IDUSDTM", BEGIN - 30 * DAY, BEGIN)
        assert [rate.settled_ms for rate in rates] == list(
            range(BEGIN - 30 * DAY, BEGIN + 1, 8 * HOUR)
        )
        assert {rate.interval_ms for rate in rates[1:]} == {8 * HOUR}
        assert len(server.paths) < 15
        assert await exchange.funding_history("IDUSDTM", BEGIN + 1, BEGIN) == ()


async def test_funding_history_of_the_local_exchange() -> None:
    async with local_exchange() as local, asking(local.url, local.time) as exchange:
        now = server_now(local)
        rates = await exchange.funding_history("XBTUSDTM", now - 40 * DAY, now)
        assert len(rates) in {119, 120, 121}
        assert {rate.interval_ms for rate in rates[1:]} == {8 * HOUR}


async def test_R11_an_empty_and_a_shrunken_listing_are_delivered_as_they_are() -> None:
    async with local_exchange() as local, asking(local.url, local.time) as exchange:
        whole = await exchange.contracts()
        local.fault("vanish", path="*/active", times=1, share=0.5)
        assert 0 < len((await exchange.contracts()).contracts) < len(whole.contracts)
        local.fault("empty_list", path="*/active", times=1)
        empty = await exchange.contracts()
        assert (empty.contracts, empty.stats, empty.rejections) == ((), (), ())
        assert await exchange.contracts() == whole
        assert exchange.link().state is LinkState.UP


async def test_R12_a_null_prediction_over_the_wire() -> None:
    async with local_exchange() as local, asking(local.url, local.time) as exchange:
        local.fault("malformed", path="*/active", field="predictedFundingFeeRate", value=None)
        local.fault("malformed", path="*/active", field="markPrice", value=None)
        listing = await exchange.contracts()
        assert listing.rejections == ()
        assert all(stats.predicted_funding_rate is None for stats in listing.stats)
        assert all(stats.mark_price is None for stats in listing.stats)


@pytest.mark.parametrize("change", [{"remove": True}, {"value": True}, {"value": "abc"}])
async def test_R13_one_drifting_record_over_the_wire(change: dict[str, Any]) -> None:
    heard = Heard()
    async with local_exchange() as local, asking(local.url, local.time, heard=heard) as exchange:
        whole = await exchange.contracts()
        local.fault("malformed", path="*/active", symbol="XBTUSDTM", field="multiplier", **change)
        listing = await exchange.contracts()
        lost = {c.code for c in whole.contracts} - {c.code for c in listing.contracts}
        assert lost == {"XBTUSDTM"}
        assert [(r.key, r.field) for r in listing.rejections] == [("XBTUSDTM", "multiplier")]
        assert [path for path, _ in heard.rejections] == ["/api/v1/contracts/active"]


async def test_R14_an_unknown_status_over_the_wire() -> None:
    async with local_exchange() as local, asking(local.url, local.time) as exchange:
        local.fault("malformed", path="*/active", symbol="XBTUSDTM", field="status", value="Foo")
        listing = await exchange.contracts()
        bitcoin = next(c for c in listing.contracts if c.code == "XBTUSDTM")
        assert bitcoin.status is ContractStatus.UNKNOWN
        assert listing.rejections == ()


@pytest.mark.parametrize("unit", ["s", "ms", "ns"])
async def test_T02_the_clock_in_any_unit_over_the_wire(unit: str) -> None:
    async with local_exchange() as local, asking(local.url, local.time) as exchange:
        local.fault("clock_skew", unit=unit)
        assert abs(await exchange.server_time_ms() - server_now(local)) <= 1000


async def test_T02_a_clock_outside_this_century_is_refused() -> None:
    async with local_exchange() as local, asking(local.url, local.time) as exchange:
        local.fault("scalar", path="/api/v1/timestamp", value=4_102_444_800_000)
        assert isinstance(await refused(exchange.server_time_ms()), BadResponseError)
        assert exchange.link().state is LinkState.UP  # reachable; only this answer is senseless


async def test_a_wrong_shape_does_not_open_the_breaker() -> None:
    async with local_exchange() as local, asking(local.url, local.time) as exchange:
        local.fault("scalar", path="/api/v1/ticker", value=7)
        for _ in range(8):
            error = await refused(exchange.ticker("XBTUSDTM"))
            assert error.code is Code.EXCHANGE_BAD_RESPONSE
        assert await exchange.status() is ExchangeStatus.OPEN


@pytest.mark.parametrize("word", ["close", "cancelonly"])
async def test_the_exchange_may_say_that_it_is_closed(word: str) -> None:
    async with local_exchange() as local, asking(local.url, local.time) as exchange:
        local.fault("exchange_status", status=word)
        assert await exchange.status() is ExchangeStatus(word)


async def test_an_unknown_symbol_is_a_refusal_and_does_not_hurt_the_link() -> None:
    async with local_exchange() as local, asking(local.url, local.time) as exchange:
        for work in (exchange.ticker, exchange.book, exchange.mark_price, exchange.funding_now):
            assert isinstance(await refused(work("NOSUCHUSDTM")), RefusedError)
        assert exchange.link().state is LinkState.UP
        assert isinstance(await refused(exchange.ticker("")), RefusedError)


async def test_a_long_body_is_read_outside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    aside: list[str] = []
    to_thread = asyncio.to_thread

    async def counted(work: Callable[..., Any], *arguments: Any) -> Any:
        aside.append(work.__name__)
        return await to_thread(work, *arguments)

    monkeypatch.setattr(asyncio, "to_thread", counted)
    async with local_exchange(contracts=None) as local, asking(local.url, local.time) as exchange:
        listing = await exchange.contracts()
        assert len(listing.contracts) == 556
        assert listing.rejections == ()
        assert aside == ["interpret_response", "judged"]
        assert len((await exchange.tickers()).tickers) == 556
        assert len(aside) == 4
        await exchange.status()
        assert len(aside) == 4


async def test_a_first_board_fits_into_one_window() -> None:
    time = VirtualTime()
    async with (
        local_exchange(time, contracts=None) as local,
        asking(local.url, time, KucoinLimits()) as exchange,
    ):
        began = time.passed
        listing = await exchange.contracts()
        await exchange.tickers()
        await exchange.server_time_ms()
        end = server_now(local) // DAY * DAY
        queue = iter(listing.contracts[:540])

        async def caller() -> None:
            for contract in queue:
                await exchange.candles(contract, Interval.DAY, end - 200 * DAY, end)

        await asyncio.gather(*(caller() for _ in range(16)))
        for contract in listing.contracts[:60]:
            await exchange.book(contract.code)
        assert time.passed - began < 60
        assert local.sandbox.pool.tally.rejected == 0
        assert local.in_closed_window == 0
