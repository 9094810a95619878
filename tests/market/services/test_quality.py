"""Quarantines over a real socket to the local exchange, and what is kept of them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest
from sqlalchemy import text

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import QualitySettings, Source
from app.foundation.data_status import DataStatus
from app.foundation.errors import Code, UnavailableError
from app.foundation.idempotency import IdempotentExecutor
from app.foundation.sql.database import Database, UnitOfWork
from app.market.domain.models import CandleSeries, ExchangeLink, Interval, LinkState
from app.market.domain.panel import FIELDS
from app.market.domain.price_quarantine import QuarantineReason
from app.market.domain.quality_report import QualityVerdict
from app.market.domain.reference_prices import ReferencePrice
from app.market.services import quality_monitor as quality_keeper
from app.market.services.quality import QualityService
from app.market.services.service import MarketData
from app.market.services.shared_market import (
    LeaderState,
    create_message,
    decode_message,
    encode_message,
)
from app.market.services.symbol_quality import turnover_price_deviation
from app.market.storage.candles import CandleRepository, CandleRevisionRepository
from app.market.storage.quality import QualityRepository, StoredVerdict
from tests.support.live_market import CONTRACTS, LiveMarket, open_market
from tests.support.trading_desk import WHO

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
TICKERS = "/api/v1/allTickers"
ETH, CODE = "ETHUSDT", "ETHUSDTM"
LINK = ExchangeLink(LinkState.UP, datetime(2026, 3, 1, tzinfo=UTC), None, None, None, None)
COURSE = LeaderState(None, 0.0, None, LINK, ("", 0, 0), False, False, False, 1, None)


@pytest.fixture
async def live(database: Database) -> AsyncIterator[LiveMarket]:
    async with open_market(database, contracts=14) as opened:
        yield opened


async def refreshed(live: LiveMarket) -> MarketData:
    """A service that knows contracts and tickers, and nothing else yet."""
    data = live.market()
    await data.registry.load()
    await data.refresh_market()
    return data


async def later(live: LiveMarket, data: MarketData, times: int = 1) -> None:
    for _ in range(times):
        live.clock.pass_(60)
        await data.refresh_market()


def doubt(data: MarketData) -> QuarantineReason | None:
    quote = data.quote(ETH)
    assert quote is not None
    return quote.quarantine_reason


def passes(data: MarketData) -> bool:
    checks = data.eligibility(data.resolve(ETH))
    return next(one.passed for one in checks if one.name == "quarantine")


async def verdicts(database: Database, data: MarketData) -> list[str]:
    """Oldest first."""
    async with database.read() as unit:
        page = await unit.get(QualityRepository).page(data.resolve(ETH).symbol_id, None, 50)
    return [one.verdict.value for one in reversed(page)]


async def thousandfold(live: LiveMarket) -> None:
    await live.fault("malformed", TICKERS, symbol=CODE, field="price", value="3200000.5")


@ON_SQLITE
async def test_D02_a_price_a_thousand_times_too_high_waits_for_the_index(
    live: LiveMarket, database: Database
) -> None:
    data = await refreshed(live)
    await data.fetch.candles(data.history_candidates(), Interval.DAY)
    assert doubt(data) is None
    assert passes(data)
    assert ETH in data.scoring_inputs().symbols
    await thousandfold(live)
    await later(live, data)
    assert doubt(data) is QuarantineReason.LAST_OFF_MARK
    assert not passes(data)
    assert data.scoring_inputs().excluded[ETH] == "quarantine", "it gets no score"
    assert "BTCUSDT" in data.scoring_inputs().symbols
    quality = QualityService(data, database, IdempotentExecutor(database, live.clock.now)).now(ETH)
    assert (quality.report.verdict, quality.report.score) == (QualityVerdict.QUARANTINED, 0.0)
    assert quality.quarantined_since is not None
    await live.heal()
    await later(live, data, 2)
    assert doubt(data) is QuarantineReason.LAST_OFF_MARK, "two readings are not three"
    await later(live, data)
    assert doubt(data) is None
    assert passes(data)
    before, *seen = await verdicts(database, data)
    assert before != "quarantined"
    assert seen == ["quarantined", before]


@ON_SQLITE
async def test_a_turnover_in_another_unit_is_quarantined_like_a_price(live: LiveMarket) -> None:
    data = await refreshed(live)
    known = data.live.market.stats[CODE].value.turnover_24h
    assert known is not None
    assert {one.quarantine_reason for one in data.live.market.quality.values()} == {None}
    field = {"field": "turnoverOf24h", "value": float(known * 1000)}
    await live.fault("malformed", CONTRACTS, symbol=CODE, **field)
    await later(live, data)
    assert doubt(data) is QuarantineReason.TURNOVER_OFF_PRICE
    assert not passes(data)
    await live.heal()
    await later(live, data, 3)
    assert doubt(data) is None


@ON_SQLITE
async def test_an_hour_of_far_too_much_volume_is_quarantined_where_no_move_confirms_it(
    live: LiveMarket,
) -> None:
    data = await refreshed(live)
    await data.fetch.candles(data.history_candidates(), Interval.HOUR)
    held = data.live.market.hourly[CODE]
    volume = held.value.volume.copy()
    volume[-1] *= 1e6
    low, high = held.value.low.copy(), held.value.high.copy()
    low[-1] = high[-1] = held.value.close[-1]
    loud = replace(held.value, volume=volume)
    market = data.live.market

    def with_hour(series: CandleSeries) -> None:
        hourly = {**market.hourly, CODE: held.with_value(series)}
        data.live.market = replace(data.live.market, hourly=hourly)

    flat = replace(loud, low=low, high=high, open=held.value.close)
    with_hour(replace(flat, turnover=flat.volume * flat.close))
    await later(live, data)
    assert doubt(data) is QuarantineReason.UNCONFIRMED_VOLUME
    quality = QualityService(
        data, live.database, IdempotentExecutor(live.database, live.clock.now)
    ).now(ETH)
    assert "unconfirmed_volume" in quality.report.flags
    with_hour(held.value)
    await later(live, data, 3)
    assert doubt(data) is None


@ON_SQLITE
async def test_the_newest_hour_in_another_unit_is_quarantined_unless_the_contract_is_inverse(
    live: LiveMarket,
) -> None:
    """The turnover of an inverse contract is made from its volume: it contradicts nothing."""
    data = await refreshed(live)
    await data.fetch.candles(data.history_candidates(), Interval.HOUR)
    held, contract = data.live.market.hourly[CODE], data.resolve(ETH).contract
    usual = turnover_price_deviation(data.live.market, contract)
    assert usual is not None
    assert usual < 0.01
    turnover = held.value.turnover.copy()
    turnover[-1] *= 1000.0
    hourly = {
        **data.live.market.hourly,
        CODE: held.with_value(replace(held.value, turnover=turnover)),
    }
    data.live.market = replace(data.live.market, hourly=hourly)
    assert turnover_price_deviation(data.live.market, replace(contract, is_inverse=True)) is None
    await later(live, data)
    assert doubt(data) is QuarantineReason.TURNOVER_OFF_PRICE
    assert not passes(data)


@ON_SQLITE
async def test_volume_and_gaps_are_judged_by_the_limits_of_the_settings(live: LiveMarket) -> None:
    data = await refreshed(live)
    await data.fetch.candles(data.history_candidates(), Interval.HOUR)

    def volume_flags(**limits: float) -> set[str]:
        rules = replace(QualitySettings(), **limits)  # type: ignore[arg-type]  # a count among them
        data.configuration = lambda: replace(Configuration(), quality=rules)
        report = quality_keeper.quality_report(data.moment(), data.resolve(ETH))
        parts = {one.name: one.flag for one in report.parts}
        return {flag for name in ("volume", "hourly_candles") if (flag := parts[name])}

    turnover = data.live.market.stats[CODE].value.turnover_24h
    assert turnover is not None
    assert volume_flags() == set()
    assert volume_flags(min_volume=float(turnover) + 1.0) == {"thin_volume"}
    assert volume_flags(min_volume=float(turnover) - 1.0) == set()

    held = data.live.market.hourly[CODE]
    kept = np.delete(np.arange(len(held.value)), np.arange(100, 106))
    figures = (getattr(held.value, name)[kept] for name in ("opened_ms", *FIELDS))
    hourly = {**data.live.market.hourly, CODE: held.with_value(CandleSeries(*figures))}
    data.live.market = replace(data.live.market, hourly=hourly)
    assert volume_flags() == {"hourly_gap"}, "six in a row are missing"
    assert volume_flags(max_gap=6) == set()

    odd = {"field": "turnoverOf24h", "value": float(turnover * 2)}
    await live.fault("malformed", CONTRACTS, symbol=CODE, **odd)
    data.configuration = Configuration
    await later(live, data)
    assert volume_flags(max_gap=6) == {"turnover_off_price"}
    assert volume_flags(max_gap=6, max_turnover_price_deviation=2.0) == set()
    assert doubt(data) is QuarantineReason.TURNOVER_OFF_PRICE, "it was read under the usual limit"
    await later(live, data, 3)
    assert doubt(data) is None, "under the wider one it is confirmed"


@ON_SQLITE
async def test_D02_a_quarantine_outlives_a_restart_and_reaches_the_other_processes(
    live: LiveMarket,
) -> None:
    data = await refreshed(live)
    await thousandfold(live)
    await later(live, data)
    await live.heal()
    again = live.market()
    await again.registry.load()
    await later(live, again)
    assert doubt(again) is QuarantineReason.LAST_OFF_MARK
    market = data.live.market
    sent = decode_message(encode_message(create_message(market, COURSE, live.clock.monotonic())))
    assert sent.quality == dict(market.quality)
    await later(live, again, 3)
    assert doubt(again) is None


@ON_SQLITE
async def test_a_price_is_judged_before_anybody_has_looked_at_it(live: LiveMarket) -> None:
    data = await refreshed(live)
    await thousandfold(live)
    calm = data.live.market.quality
    await later(live, data)
    data.live.publish(replace(data.live.market, quality=calm))  # as if nobody had looked
    assert doubt(data) is QuarantineReason.LAST_OFF_MARK


@ON_SQLITE
@pytest.mark.parametrize("portion", [1, 5, 100])
async def test_judging_a_whole_market_lets_others_have_their_turns(
    live: LiveMarket, monkeypatch: pytest.MonkeyPatch, portion: int
) -> None:
    data = await refreshed(live)
    contracts = len(data.registry.index.entries)
    monkeypatch.setattr(quality_keeper, "PORTION", portion)
    judged = dict(data.live.market.quality)
    data.live.market = replace(data.live.market, quality={})
    known: list[int] = []

    async def others() -> None:
        while not data.live.market.quality:
            known.append(len(data.live.market.quality))
            await asyncio.sleep(0)

    await asyncio.gather(data.quality.judge_prices(), others())
    assert data.live.market.quality.keys() == judged.keys()
    assert len(known) == (contracts - 1) // portion, "one turn between two portions"


@ON_SQLITE
async def test_what_changes_while_others_are_judged_is_not_undone(
    live: LiveMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = await refreshed(live)
    monkeypatch.setattr(quality_keeper, "PORTION", 1)
    entry = data.resolve(ETH)
    code = entry.contract.code
    assert entry is not data.registry.index.entries[-1]
    states = dict(data.live.market.quality)
    aged = {one: replace(state, stamp=state.stamp - 1) for one, state in states.items()}
    data.live.market = replace(data.live.market, quality=aged)
    other = replace(aged[code], quarantine_reason=QuarantineReason.LOT_CHANGED)

    async def meanwhile() -> None:
        for _ in range(len(data.registry.index.entries) - 2):  # its own portion is over by then
            await asyncio.sleep(0)
        held = {**data.live.market.quality, code: other}
        data.live.market = replace(data.live.market, quality=held)

    await asyncio.gather(data.quality.judge_prices(), meanwhile())
    assert data.live.market.quality[code] is other
    others = states.keys() - {code}
    assert {one: data.live.market.quality[one].stamp for one in others} == {
        one: states[one].stamp for one in others
    }


@ON_SQLITE
async def test_D13_another_size_of_a_lot_waits_for_the_operator(
    live: LiveMarket, database: Database
) -> None:
    data = await refreshed(live)
    service = QualityService(data, database, IdempotentExecutor(database, live.clock.now))
    nothing = await service.release(ETH, "too early", WHO)
    assert nothing.result is not None
    assert not nothing.result.was_quarantined
    old = data.resolve(ETH).contract.multiplier
    await live.post(
        "events", {"kind": "multiplier", "symbol": CODE, "multiplier": float(old * 1000)}
    )
    await later(live, data)
    assert data.resolve(ETH).contract.multiplier == old * 1000
    assert doubt(data) is QuarantineReason.LOT_CHANGED
    await later(live, data, 4)
    assert doubt(data) is QuarantineReason.LOT_CHANGED
    done = await service.release(ETH, "announced by the exchange", WHO)
    assert done.result is not None
    assert done.result.was_quarantined
    await later(live, data)
    assert doubt(data) is None
    assert (await verdicts(database, data))[-2] == "quarantined"


async def other_lots(live: LiveMarket, multiplier: Decimal) -> None:
    body = {"kind": "multiplier", "symbol": CODE, "multiplier": float(multiplier)}
    await live.post("events", body)


@ON_SQLITE
async def test_D13_a_lot_that_changed_while_nobody_looked_is_noticed_after_the_start(
    live: LiveMarket,
) -> None:
    data = await refreshed(live)
    entry = data.resolve(ETH)
    await data.fetch.candles([entry], Interval.HOUR)
    old = entry.contract.multiplier

    async def restarted() -> MarketData:
        again = live.market()
        await again.registry.load()
        await again.recall()
        await later(live, again)
        return again

    assert doubt(await restarted()) is None, "the same lots"
    await other_lots(live, old * 1000)
    changed = await restarted()
    assert doubt(changed) is QuarantineReason.LOT_CHANGED
    quote = (await restarted()).quote(ETH)
    assert quote is not None
    (change,) = quote.lot_changes
    assert (change.before, change.after) == (old, old * 1000), "decisions read it after a start"
    state = changed.live.market.quality[CODE]
    close = Decimal(str(data.live.market.hourly[CODE].value.close[-1]))
    assert state.lot_value == close * old, "what one was worth when it was last looked at"
    await later(live, changed, 4)
    assert doubt(changed) is QuarantineReason.LOT_CHANGED
    # What it was worth is known after one more start, so the old lots prove themselves.
    again = await restarted()
    assert doubt(again) is QuarantineReason.LOT_CHANGED
    assert again.live.market.quality[CODE].lot_value == close * old
    await other_lots(live, old)
    last = await restarted()
    assert doubt(last) is QuarantineReason.LOT_CHANGED
    await later(live, last, 3)
    assert doubt(last) is None


@ON_SQLITE
async def test_D10_a_funding_time_that_is_one_interval_off_is_missing(live: LiveMarket) -> None:
    data = await refreshed(live)
    entry = data.resolve(ETH)
    told = data.view(entry).next_funding
    assert told is not None
    interval = entry.contract.funding_interval_ms
    assert interval is not None
    off = int(told.timestamp() * 1000) + interval
    await live.fault(
        "malformed",
        "/api/v1/contracts/active",
        symbol=CODE,
        field="nextFundingRateDateTime",
        value=off,
    )
    await later(live, data)
    assert data.view(entry).next_funding is None
    service = QualityService(data, data.database, IdempotentExecutor(data.database, live.clock.now))
    assert "funding_time" in service.now(ETH).report.flags


FUNDING = "nextFundingRateDateTime"


@ON_SQLITE
@pytest.mark.parametrize(
    ("left_ms", "is_told"), [(-3_600_000, False), (0, False), (1, True), (None, True), (1, False)]
)
async def test_D10_the_next_funding_lies_after_now_and_at_most_one_interval_ahead(
    live: LiveMarket, left_ms: int | None, *, is_told: bool
) -> None:
    data = await refreshed(live)
    entry = data.resolve(ETH)
    interval = entry.contract.funding_interval_ms
    assert interval is not None
    then = data.server_clock.now_ms() + 60_000
    if left_ms is None:
        left_ms = interval
    elif left_ms == 1 and not is_told:
        left_ms += interval
    told = {"symbol": CODE, "field": FUNDING, "value": then + left_ms}
    await live.fault("malformed", CONTRACTS, **told)
    await later(live, data)
    assert data.server_clock.now_ms() == then
    found = data.view(entry).next_funding
    assert (found is not None) == is_told
    if found is not None:
        assert round(found.timestamp() * 1000) == then + left_ms


@ON_SQLITE
async def test_D10_without_an_interval_the_next_funding_is_missing(live: LiveMarket) -> None:
    data = await refreshed(live)
    entry = data.resolve(ETH)
    assert data.view(entry).next_funding is not None
    for field in ("currentFundingRateGranularity", "fundingRateGranularity"):
        await live.fault("malformed", CONTRACTS, symbol=CODE, field=field, value=None)
    await later(live, data)
    changed = data.resolve(ETH)
    assert changed.contract.funding_interval_ms is None
    assert data.view(changed).next_funding is None, "nothing proves that it is the next one"
    assert data.view(changed).funding_rate is not None


@ON_SQLITE
async def test_D10_a_predicted_rate_of_null_is_missing(live: LiveMarket) -> None:
    data = await refreshed(live)
    entry = data.resolve(ETH)
    name = {"symbol": CODE, "field": "predictedFundingFeeRate"}
    await live.fault("malformed", CONTRACTS, **name, value="0.0005")
    await later(live, data)
    assert data.view(entry).predicted_funding_rate == Decimal("0.0005")
    await live.heal()
    await live.fault("malformed", CONTRACTS, **name, value=None)
    await later(live, data)
    after = data.view(entry)
    assert after.predicted_funding_rate is None, "neither 0 nor the last one"
    assert after.funding_rate is not None
    assert after.next_funding is not None


@ON_SQLITE
@pytest.mark.parametrize(
    ("worth", "is_believed"), [("0.7999", False), ("0.8", True), ("1.2", True), ("1.2001", False)]
)
async def test_D13_a_lot_worth_the_same_within_a_fifth_ends_the_quarantine(
    live: LiveMarket, database: Database, worth: str, *, is_believed: bool
) -> None:
    data = await refreshed(live)
    entry = data.resolve(ETH)
    stats = data.live.market.stats[CODE].value
    assert stats.mark_price is not None
    await other_lots(live, entry.contract.multiplier * 1000)
    price = stats.mark_price * Decimal(worth) / 1000
    for path, names in {
        CONTRACTS: ("markPrice", "indexPrice", "lastTradePrice"),
        TICKERS: ("price", "bestBidPrice", "bestAskPrice"),
    }.items():
        for name in names:
            await live.fault("malformed", path, symbol=CODE, field=name, value=str(price))
    await later(live, data)
    assert doubt(data) is QuarantineReason.LOT_CHANGED
    await later(live, data, 2)
    assert doubt(data) is QuarantineReason.LOT_CHANGED, "two readings are not three"
    await later(live, data)
    assert doubt(data) is (None if is_believed else QuarantineReason.LOT_CHANGED)
    await later(live, data, 3)
    assert doubt(data) is (None if is_believed else QuarantineReason.LOT_CHANGED)


async def test_verdicts_are_kept_for_a_while_and_so_many_of_a_symbol(database: Database) -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    names = ("00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002")
    rows = [
        StoredVerdict(name, start + timedelta(days=day), QualityVerdict.FLAGGED, 0.5, ("no_book",))
        for name in names
        for day in range(10)
    ]
    async with database.write() as unit:
        await unit.get(QualityRepository).save(rows)
        await unit.get(QualityRepository).save(rows[:1])
        assert await unit.get(QualityRepository).newest() == {names[0]: rows[9], names[1]: rows[19]}
        assert await unit.get(QualityRepository).page(names[0], rows[3].at, 2) == (rows[2], rows[1])
        # what was replaced before the fourth day is over
        assert await unit.get(QualityRepository).prune(rows[4].at, 50) == 6
        assert len(await unit.get(QualityRepository).page(names[0], None, 50)) == 7
        assert await unit.get(QualityRepository).prune(rows[4].at, 5) == 4
        assert await unit.get(QualityRepository).page(names[1], None, 50) == tuple(rows[:14:-1])
        # the last word stays, however old it is
        assert await unit.get(QualityRepository).prune(start + timedelta(days=900), 50) == 8
        assert await unit.get(QualityRepository).newest() == {names[0]: rows[9], names[1]: rows[19]}


async def ticker(
    live: LiveMarket, data: MarketData, **fault: object
) -> tuple[Decimal | None, float]:
    """Last price and age of ours after a refresh under a fault of its ticker, 60 s later."""
    await live.fault("malformed", TICKERS, symbol=CODE, **fault)
    await later(live, data)
    await live.heal()
    entry = data.resolve(ETH)
    shown, other = data.view(entry), data.view(data.resolve("BTCUSDT"))
    assert other.ages[Source.TICKERS].age_s == 0.0, "the others are not affected"
    age_s = shown.ages[Source.TICKERS].age_s
    assert age_s is not None
    return shown.last, age_s


@ON_SQLITE
async def test_D01_a_price_that_is_none_is_refused_and_the_last_good_one_ages(
    live: LiveMarket,
) -> None:
    data = await refreshed(live)
    good = data.view(data.resolve(ETH)).last
    wrong = ("0", "-3.5", "null", "1e400", '"NaN"', '"Infinity"', '"-Infinity"', '"3.5.1"', "[]")
    for times, raw in enumerate(wrong, start=1):
        assert await ticker(live, data, field="price", raw=raw) == (good, 60.0 * times), raw
    last, age_s = await ticker(live, data, field="bestBidSize", value=1)
    assert (last != good, age_s) == (True, 0.0)
    # no JSON at all: the whole answer is refused
    await live.fault("malformed", TICKERS, symbol=CODE, field="price", raw="NaN")
    with pytest.raises(UnavailableError) as caught:
        await later(live, data)
    assert caught.value.code is Code.EXCHANGE_BAD_RESPONSE
    assert data.view(data.resolve(ETH)).last == last


@ON_SQLITE
async def test_D20_a_late_tick_and_one_from_the_future_are_dropped(live: LiveMarket) -> None:
    data = await refreshed(live)
    entry = data.resolve(ETH)
    good = data.view(entry).last
    held = data.live.market.tickers[CODE].value.traded_ms
    start_ms = data.server_clock.now_ms()
    wrong = (held - 1, start_ms + 120_000 + 6_000, start_ms + 86_400_000)
    for times, stamp in enumerate(wrong, start=1):
        found = await ticker(live, data, field="ts", value=stamp * 1_000_000)
        assert found == (good, 60.0 * times), stamp
    counted = data.metrics.exchange_rejected_records.labels("untimely tickers", "ts")
    assert counted._value.get() == 3.0
    last, age_s = await ticker(
        live, data, field="ts", value=(start_ms + 240_000 + 4_000) * 1_000_000
    )
    assert (last != good, age_s) == (True, 0.0)


@ON_SQLITE
@pytest.mark.parametrize("step_h", [-1, 1])
async def test_T03_a_step_of_our_clock_makes_nothing_stale(live: LiveMarket, step_h: int) -> None:
    data = await refreshed(live)
    entry = data.resolve(ETH)
    as_of, closed = data.as_of(), data.moment().server_ms
    data.server_clock.clock = lambda: live.clock.now() + timedelta(hours=step_h)
    live.clock.pass_(30)
    assert data.status() is DataStatus.FRESH
    assert data.view(entry).ages[Source.TICKERS].age_s == pytest.approx(30.0)
    assert (data.as_of(), data.moment().server_ms) == (as_of, closed + 30_000)
    await later(live, data)
    assert doubt(data) is None
    assert data.status() is DataStatus.FRESH


@ON_SQLITE
async def test_D02_another_exchange_confirms_or_refutes_what_has_no_index(
    live: LiveMarket,
) -> None:
    await live.fault("malformed", CONTRACTS, symbol=CODE, field="indexPrice", value=None)
    data = await refreshed(live)
    mark = data.view(data.resolve(ETH)).mark
    assert mark is not None
    assert doubt(data) is None

    def elsewhere(factor: str) -> None:
        price = mark * Decimal(factor)
        now_ms = data.server_clock.now_ms()
        data.quality.apply_reference_prices(
            {"ETH": ReferencePrice("binance", "ETH", "USDT", price, now_ms)}
        )

    elsewhere("0.5")
    assert doubt(data) is QuarantineReason.MARK_OFF_INDEX
    await later(live, data)
    assert doubt(data) is QuarantineReason.MARK_OFF_INDEX
    for _ in range(3):
        elsewhere("1.01")
        await later(live, data)
    assert doubt(data) is None
    elsewhere("0.5")
    await later(live, data, 4)  # 240 s later: too old to speak for or against anything
    assert doubt(data) is QuarantineReason.MARK_OFF_INDEX, "nothing confirms it either"
    shown = QualityService(data, data.database, IdempotentExecutor(data.database, live.clock.now))
    found = shown.reference_price(data.resolve(ETH))
    assert found is not None
    assert (found.source, found.is_fresh) == ("binance USDT", False)
    assert data.view(data.resolve(ETH)).index is None, "it is nobody's index"


@ON_SQLITE
async def test_D06_a_closed_candle_that_is_changed_is_revised_and_its_former_word_kept(
    live: LiveMarket, database: Database
) -> None:
    data = await refreshed(live)
    entry = data.resolve(ETH)
    await data.fetch.candles([entry], Interval.HOUR)
    first = data.live.market.hourly[CODE].value
    at = int(first.opened_ms[-1])
    async with database.write() as unit:  # as if the exchange had said something else then
        row = "UPDATE candles SET close = low, revision = revision + 1 WHERE opened_ms = :at"
        await unit.connection.execute(text(row), {"at": at})
        before = await unit.get(CandleRevisionRepository).count(entry.symbol_id)
        held = (await unit.get(CandleRepository).load([entry.symbol_id], Interval.HOUR))[
            entry.symbol_id
        ]
    market = data.live.market
    received = data.live.received(held)
    data.live.publish(market.with_candles(Interval.HOUR, {CODE: received}))
    live.clock.pass_(3600)
    await data.fetch.candles([entry], Interval.HOUR)
    now = data.live.market.hourly[CODE].value
    assert int(now.opened_ms[-1]) > at
    assert float(now.close[now.opened_ms == at][0]) == float(first.close[-1])
    async with database.read() as unit:
        kept = await unit.get(CandleRevisionRepository).all(entry.symbol_id, Interval.HOUR)
        assert await unit.get(CandleRevisionRepository).count(entry.symbol_id) == before + 1
    assert (kept[-1].opened_ms, kept[-1].values["close"]) == (at, float(first.low[-1]))
    live.clock.pass_(60)
    assert len(await data.fetch._new_bars(entry, Interval.HOUR)) == 0
    # no scoring reaches back so far any more
    days = data.configuration().quality.revision_days
    async with database.write() as unit:
        await unit.connection.execute(
            text("UPDATE candle_revisions SET opened_ms = :at"),
            {"at": data.server_clock.now_ms() - (days - 1) * 86_400_000},
        )
    for passed, count in ((0, before + 1), (86_400, before + 1), (86_400, 0)):
        live.clock.pass_(passed)
        await data.sync_clock()
        await data.quality.check()
        async with database.read() as unit:
            assert await unit.get(CandleRevisionRepository).count(entry.symbol_id) == count


@ON_SQLITE
async def test_K16_who_has_lost_the_feed_stores_no_verdict(
    live: LiveMarket, database: Database
) -> None:
    data = await refreshed(live)
    before = await verdicts(database, data)

    async def refused(unit: UnitOfWork) -> None:
        raise UnavailableError(Code.MARKET_DATA_STALE, "another owns the feed")

    data.quality.fence = refused
    await thousandfold(live)
    await later(live, data)
    assert doubt(data) is QuarantineReason.LAST_OFF_MARK
    assert await verdicts(database, data) == before
