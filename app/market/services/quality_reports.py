"""The data of one symbol as the rules of quality look at it."""

from collections.abc import Mapping

from app.configuration.domain.sections import Source
from app.foundation.data_status import DataStatus
from app.market.domain.data_quality import bridged_bars, coverage, last_closed_open_ms, worst
from app.market.domain.models import CandleSeries, Interval
from app.market.domain.quality_report import QualityReport, SymbolData, report
from app.market.domain.symbols import SymbolEntry
from app.market.domain.volume_quality import longest_gap
from app.market.services.quotes import Aged, spread
from app.market.services.snapshot import BARS, MarketMoment
from app.market.services.state import LIVE
from app.market.services.symbol_quality import doubt_of, frozen, off_price_of, volume_jump_of

_BP = 10_000.0


def quality_of(moment: MarketMoment, entry: SymbolEntry) -> QualityReport:
    """Verdict, score and parts of one symbol."""
    return report(data_of(moment, entry), moment.configuration.quality)


def data_of(moment: MarketMoment, entry: SymbolEntry) -> SymbolData:
    """Everything that the rules ask for, as it is known at that moment."""
    market, code, contract = moment.market, entry.contract.code, entry.contract
    rules = moment.configuration.quality
    stats, ticker, book = market.stats.get(code), market.tickers.get(code), market.books.get(code)
    ages, hourly = moment.ages(entry), market.hourly.get(code)
    live = [ages[source] for source in LIVE]
    age_s, limit_s = _nearest_its_limit(moment, ages)
    bid, ask = (None, None) if ticker is None else (ticker.value.bid, ticker.value.ask)
    width = spread(bid, ask)
    best = (
        None
        if book is None or not book.value.bids or not book.value.asks
        else spread(book.value.bids[0].price, book.value.asks[0].price)
    )
    return SymbolData(
        status=worst(one.status for one in live),
        age_s=age_s,
        age_limit_s=limit_s,
        last=None if ticker is None else ticker.value.last,
        mark=None if stats is None else stats.value.mark_price,
        index=None if stats is None else stats.value.index_price,
        doubt=doubt_of(market, code, rules),
        is_frozen=frozen(market, contract, moment.server_ms, rules),
        spread=None if width is None else width / _BP,
        has_quote=bid is not None and ask is not None,
        book_status=ages[Source.BOOKS].status if book is not None else DataStatus.UNAVAILABLE,
        is_book_whole=best is not None,
        next_funding_ms=None if stats is None else stats.value.next_funding_ms,
        funding_interval_ms=contract.funding_interval_ms,
        server_ms=moment.server_ms,
        daily_coverage=_covered(moment, entry, Interval.DAY),
        hourly_coverage=_covered(moment, entry, Interval.HOUR),
        daily_bridged=_bridged(moment, code, Interval.DAY),
        hourly_bridged=_bridged(moment, code, Interval.HOUR),
        hourly_gap=0 if hourly is None else longest_gap(hourly.value, Interval.HOUR),
        turnover_24h=None if stats is None else stats.value.turnover_24h,
        off_price=off_price_of(market, contract),
        volume_jump=volume_jump_of(market, contract),
        has_diverged=code in market.diverged,
    )


def _nearest_its_limit(
    moment: MarketMoment, ages: Mapping[Source, Aged]
) -> tuple[float | None, float]:
    """Age and limit of contract or ticker, each by its own limit; no age where one never came."""
    limits_s = {source: moment.age_limit_s(source) for source in LIVE}
    known = [(age, limits_s[one]) for one in LIVE if (age := ages[one].age_s) is not None]
    if len(known) < len(LIVE):
        return None, min(limits_s.values())
    return max(known, key=lambda one: one[0] / one[1])


def _covered(moment: MarketMoment, entry: SymbolEntry, interval: Interval) -> float:
    """Share of the closed bars of the window that are here, since the contract was listed."""
    held = moment.market.series(interval).get(entry.contract.code)
    series: CandleSeries | None = None if held is None else held.value
    if series is None or not len(series):
        return 0.0
    newest = last_closed_open_ms(interval, moment.server_ms)
    listed = entry.contract.listed_ms
    begin = int(series.opened_ms[0]) if listed is None else -(-listed // interval.ms) * interval.ms
    wanted = min(BARS[interval], max(1, (newest - begin) // interval.ms + 1))
    return min(1.0, coverage(series, interval, wanted, moment.server_ms))


def _bridged(moment: MarketMoment, code: str, interval: Interval) -> int:
    held = moment.market.series(interval).get(code)
    return 0 if held is None else bridged_bars(held.value, interval)
