"""What each verdict on the data of a symbol forbids: scores, orders, sizes, weights, coming in."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

import pytest

from app.configuration.domain.model import Configuration
from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.errors import Code, ServiceError
from app.foundation.sql.database import Database
from app.market.domain.quality_report import QualityVerdict
from app.market.services.backfill import first_fill
from app.market.services.quality_monitor import quality_report
from app.market.services.service import MarketData
from app.portfolio.services.tradeability import FRESH, QUALITY
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.engine import score
from tests.support.live_market import CONTRACTS, LiveMarket, open_market
from tests.support.trading_desk import NOW, WHO, Desk

TICKERS, DEPTH = "/api/v1/allTickers", "/api/v1/level2/depth100"
SPEC = AlgorithmSpec("default", Configuration().family_weights)
MEMBERS = ("BTC", "ETH", "XRP", "SOL", "SUI", "ADA", "DOGE", "LINK", "BNB", "1000BONK")


@dataclass(frozen=True)
class Row:
    """`excluded`: the rule that keeps it from a score; `lost`: factors that it has none of."""

    verdict: QualityVerdict
    flag: str | None
    excluded: str | None = None
    lost: frozenset[str] = frozenset()
    fails: str | None = None  # the check of should-trade
    has_size: bool = True
    is_weighed: bool = True
    comes_in: bool = True


FLAGGED, SPREAD = QualityVerdict.FLAGGED, frozenset({"spread"})
TABLE = {
    "ETH": Row(QualityVerdict.GOOD, None),
    "BNB": Row(FLAGGED, "funding_time"),
    "LINK": Row(FLAGGED, "broken_book", lost=frozenset({"depth_25", "impact"}), has_size=False),
    "XRP": Row(FLAGGED, "crossed_quote", lost=SPREAD, fails=QUALITY, has_size=False),
    "SOL": Row(FLAGGED, "wide_spread", lost=SPREAD, fails=QUALITY, has_size=False),
    "SUI": Row(FLAGGED, "frozen", fails=QUALITY, has_size=False, is_weighed=False,
               comes_in=False),
    "ADA": Row(QualityVerdict.STALE, "stale", excluded="ticker", fails=FRESH, has_size=False,
               is_weighed=False, comes_in=False),
    "DOGE": Row(QualityVerdict.QUARANTINED, "last_off_mark", excluded="quarantine", fails=QUALITY,
                has_size=False, is_weighed=False, comes_in=False),
}  # fmt: skip


async def spoilt(live: LiveMarket, data: MarketData) -> None:
    """Half an hour later, with something wrong of most of them."""
    index = data.live.market.stats["SUIUSDTM"].value.index_price
    bid = data.live.market.tickers["XRPUSDTM"].value.bid
    wide = data.live.market.tickers["SOLUSDTM"].value.ask
    told = data.live.market.stats["BNBUSDTM"].value.next_funding_ms
    traded = data.live.market.tickers["SUIUSDTM"].value.traded_ms
    assert index is not None
    assert bid is not None
    assert wide is not None
    assert told is not None
    live.clock.pass_(1_860)
    faults: tuple[tuple[str, str, str, Any], ...] = (
        (TICKERS, "XRPUSDTM", "bestAskPrice", str(bid * Decimal("0.9"))),
        (TICKERS, "SOLUSDTM", "bestAskPrice", str(wide * Decimal("1.07"))),
        (TICKERS, "SUIUSDTM", "ts", traded * 1_000_000),
        (CONTRACTS, "SUIUSDTM", "indexPrice", str(index * Decimal("1.03"))),
        (CONTRACTS, "BNBUSDTM", "nextFundingRateDateTime", told + 86_400_000),
        (TICKERS, "DOGEUSDTM", "price", "149.04"),
    )
    for path, symbol, field, value in faults:
        await live.fault("malformed", path, symbol=symbol, field=field, value=value)
    await live.fault("vanish", TICKERS, symbols=["ADAUSDTM"])
    await data.refresh_market()
    await data.refresh_candles()
    entries = [data.resolve(f"{name}USDT") for name in MEMBERS]
    await data.fetch.books([one for one in entries if one.symbol != "LINKUSDT"])
    await live.fault("malformed", DEPTH, field="asks", value=[])
    await data.fetch.books([one for one in entries if one.symbol == "LINKUSDT"])


async def came_in(desk: Desk, symbol: str) -> bool:
    await desk.portfolio.remove(symbol, "to see whether it may come back", WHO)
    try:
        await desk.portfolio.add(symbol, "back", WHO)
    except ServiceError as error:
        return error.code not in {Code.SYMBOL_NOT_TRADABLE, Code.MARKET_DATA_STALE}
    return True


@pytest.mark.long
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_each_verdict_forbids_what_it_must_and_nothing_else(database: Database) -> None:
    async with open_market(database, contracts=22) as live:
        data = live.market()
        await first_fill(data)
        async with database.write() as unit:
            await unit.get(ConfigurationRepository).get_or_create(NOW, "test")
        desk = Desk(database, market=data, now=live.clock.now())  # type: ignore[arg-type]  # a real one
        symbols = [f"{name}USDT" for name in MEMBERS]
        desk.score(dict.fromkeys(symbols, 0.9))
        loose = {"replacement": {"max_per_sector": 10}, "correlation": {"limit": 1.0}}
        await desk.configuration.put(loose, "all of them", WHO)
        await desk.portfolio.initialize(10, "start", WHO)
        assert {*await desk.members()} == {*symbols}
        await spoilt(live, data)

        cards = {one.symbol: one for one in score(data.scoring_inputs(), SPEC).cards}
        desk.now = live.clock.now()
        desk.score({**dict.fromkeys(symbols, 0.9), "BTCUSDT": 0.3})  # its share goes to the others
        plan = (await desk.rebalancing.rebalance(WHO, dry_run=True)).result
        assert plan is not None
        weighed = {one.symbol for one in plan.plan.changes}
        for name, row in TABLE.items():
            symbol = f"{name}USDT"
            report = quality_report(data.moment(), data.resolve(symbol))
            assert (report.verdict, row.flag) == (row.verdict, next(iter(report.flags), None)), name
            assert (report.score == 0.0) is (row.verdict is QualityVerdict.QUARANTINED), name
            card = cards[symbol]
            assert (card.composite is None) is (row.excluded is not None), name
            assert card.detail == row.excluded, name
            lost = {one.name for one in card.factors if one.reason is not None}
            assert lost >= row.lost, (name, lost)
            verdict, _ = await desk.trading.should_trade(symbol)
            failed = [check.name for check in verdict.checks if not check.passed]
            assert failed == ([] if row.fails is None else [row.fails]), name
            size = await desk.trading.position_size(symbol, Decimal(10_000), Decimal(1))
            assert (size[0].size.lots > 0) is row.has_size, (name, size[0].size.reason)
            assert (symbol in weighed) is row.is_weighed, name
        for name, row in TABLE.items():
            assert await came_in(desk, f"{name}USDT") is row.comes_in, name

        again = live.market()  # nothing was received yet
        await again.registry.load()
        blind = Desk(database, market=cast("Any", again), now=live.clock.now())
        blind.boards = desk.boards
        report = quality_report(again.moment(), again.resolve("ETHUSDT"))
        assert (report.verdict, report.score) == (QualityVerdict.UNAVAILABLE, 0.0)
        assert not (await blind.trading.should_trade("ETHUSDT"))[0].trade
        with pytest.raises(ServiceError):
            await blind.rebalancing.rebalance(WHO)
