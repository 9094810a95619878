"""Looks at the quality of all data after each refresh, remembers quarantines, stores verdicts."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

import structlog

from app.configuration.domain.sections import Source
from app.foundation.data_status import DataStatus
from app.foundation.errors import ServiceError
from app.foundation.sql.database import Database
from app.foundation.sql.facts import FactRepository
from app.market.domain.data_quality import (
    bridged_bars,
    coverage,
    last_closed_open_ms,
    longest_gap,
    worst,
)
from app.market.domain.models import CandleSeries, Interval
from app.market.domain.price_quarantine import Doubt, PriceState, lot_changed, read, released
from app.market.domain.quality_report import QualityReport, QualityVerdict, SymbolData, report
from app.market.domain.reference_prices import ReferencePrice, referred
from app.market.domain.symbols import SymbolEntry
from app.market.services.feed_leader import Fence, anybody
from app.market.services.snapshot import BARS, Aged, MarketMoment, spread
from app.market.services.state import LIVE, LiveMarket
from app.market.services.symbol_quality import (
    doubt_of,
    frozen,
    off_price_of,
    reading_of,
    volume_jump_of,
)
from app.market.storage.candles import CandleRevisionRepository
from app.market.storage.quality import QualityRepository, StoredVerdict

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


LOTS: Final = "quality_lots"  # the fact: symbol id -> multiplier, value before a change in doubt


@dataclass(frozen=True, slots=True)
class Lot:
    """`value` is that of a lot before its size changed, while that is in doubt."""

    multiplier: Decimal
    value: Decimal | None = None


def seen(moment: MarketMoment) -> dict[str, Lot]:
    """By symbol id, of every contract whose price was looked at."""
    states = moment.market.quality
    return {
        entry.symbol_id: Lot(state.multiplier, state.lot_value)
        for entry in moment.known.index.entries
        if (state := states.get(entry.contract.code)) is not None
    }


def document(lots: Mapping[str, Lot]) -> dict[str, list[str | None]]:
    """As it is stored."""
    return {
        symbol_id: [str(lot.multiplier), None if lot.value is None else str(lot.value)]
        for symbol_id, lot in lots.items()
    }


def recalled(stored: Any) -> dict[str, Lot]:
    """What was stored; nothing where nothing was."""
    return {
        symbol_id: Lot(Decimal(multiplier), None if value is None else Decimal(value))
        for symbol_id, (multiplier, value) in (stored or {}).items()
    }


def noticed(
    state: PriceState, lot: Lot | None, entry: SymbolEntry, moment: MarketMoment
) -> PriceState:
    """The state of a contract that was last looked at with that lot, maybe a long time ago."""
    if lot is None:
        return state
    if lot.multiplier != entry.contract.multiplier:
        value = lot.value
        if value is None:
            price = _last_close(entry.contract.code, moment)
            value = None if price is None else price * lot.multiplier
        return lot_changed(state, value, moment.server_ms)
    if state.doubt is Doubt.LOT_CHANGED and state.lot_value is None:
        return replace(state, lot_value=lot.value)
    return state


def _last_close(code: str, moment: MarketMoment) -> Decimal | None:
    """Of the newest stored candle: nothing younger is known from before an absence."""
    for held in (moment.market.hourly.get(code), moment.market.daily.get(code)):
        if held is not None and len(held.value):
            return Decimal(str(held.value.close[-1]))
    return None


RELEASES: Final = "quality_releases"  # the fact: symbol id -> when (exchange time), why and by whom
_FORGET_MS: Final = 3_600_000
_DAY_MS: Final = 86_400_000
_JUDGE_S: Final = 30.0
PORTION: Final = 25  # contracts that are judged in one turn
_REPORTS: Final = 15  # that are reported on between two breaks
_BREAK_S: Final = 0.05
_log = structlog.get_logger("quality")


@dataclass(slots=True)
class QualityKeeper:
    """Only the owner of the feed looks; the others see its states in the shared market.

    Without the database prices are judged as before; verdicts are stored once it is back.
    """

    database: Database
    live: LiveMarket
    moment: Callable[[], MarketMoment]
    fence: Fence = anybody
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _stored: dict[str, QualityVerdict] | None = field(default=None, init=False)
    _lots: Mapping[str, Lot] = field(default_factory=dict, init=False)  # as they are stored
    _forgotten_ms: int = field(default=0, init=False)
    _judged: float = field(default=float("-inf"), init=False)  # monotonic second of the reports
    _doubts: Mapping[str, Doubt] = field(default_factory=dict, init=False)

    async def observe(self) -> None:
        """Judge the prices that have come in since, a few in each turn of the loop."""
        entries = self.moment().known.index.entries
        judged: dict[str, tuple[PriceState | None, PriceState]] = {}
        for begun in range(0, len(entries), PORTION):
            if begun:
                await asyncio.sleep(0)  # all at once took as long as fifty answers
            judged |= self._judged_of(entries[begun : begun + PORTION])
        self._take(judged)

    def _judged_of(
        self, entries: Sequence[SymbolEntry]
    ) -> dict[str, tuple[PriceState | None, PriceState]]:
        """The states that change, by code, with what they were."""
        moment = self.moment()
        market, rules = moment.market, moment.configuration.quality
        found: dict[str, tuple[PriceState | None, PriceState]] = {}
        for entry in entries:
            code = entry.contract.code
            reading = reading_of(market, entry.contract, moment.server_ms)
            if reading is None:
                continue
            before = market.quality.get(code)
            after = read(before, reading, rules)
            if before is None:
                after = noticed(after, self._lots.get(entry.symbol_id), entry, moment)
            if after is not before:
                found[code] = before, after
            _tell(entry.symbol, before, after)
        return found

    def _take(self, judged: Mapping[str, tuple[PriceState | None, PriceState]]) -> None:
        """All at once: every answer from memory is made anew for another market.

        What somebody else has changed meanwhile is judged again at the next look.
        """
        market = self.live.market
        news = {
            code: after
            for code, (before, after) in judged.items()
            if market.quality.get(code) is before
        }
        if news:
            self.live.market = replace(market, quality=MappingProxyType({**market.quality, **news}))

    def refer(self, prices: Mapping[str, ReferencePrice]) -> None:
        """Take up what other exchanges say, by base coin; nothing waits here."""
        moment = self.moment()
        entries, states = moment.known.index.entries, moment.market.quality
        after = referred(states, entries, prices, moment.server_ms)
        self.live.market = replace(self.live.market, quality=MappingProxyType(after))

    async def look(self) -> None:
        """Judge, take up what the operator has released, and store the verdicts that changed."""
        await self.observe()
        try:
            await self._recall()
            await self._release()
            await self._store()
        except ServiceError as error:
            _log.warning("verdicts_not_stored", cause=str(error.code))

    async def _recall(self) -> None:
        """A quarantine outlives a restart: the price has to be confirmed all the same."""
        if self._stored is not None:
            return
        async with self.database.read() as unit:
            newest = await unit.get(QualityRepository).newest()
            self._lots = recalled(await unit.get(FactRepository).get(LOTS))
        self._stored = {symbol_id: one.verdict for symbol_id, one in newest.items()}
        moment = self.moment()
        states = dict(moment.market.quality)
        for entry in moment.known.index.entries:
            stored, state = newest.get(entry.symbol_id), states.get(entry.contract.code)
            if state is None:
                continue
            after = state if stored is None else _continued(state, stored)
            after = noticed(after, self._lots.get(entry.symbol_id), entry, moment)
            _tell(entry.symbol, state, after)
            states[entry.contract.code] = after
        self.live.market = replace(self.live.market, quality=MappingProxyType(states))

    async def _release(self) -> None:
        async with self.database.read() as unit:
            told = await unit.get(FactRepository).get(RELEASES) or {}
        states = dict(self.live.market.quality)
        for entry in self.moment().known.index.entries:
            word, state = told.get(entry.symbol_id), states.get(entry.contract.code)
            if word is None or state is None or state.since_ms is None:
                continue
            if state.since_ms <= word["at_ms"]:
                after = states[entry.contract.code] = released(state)
                _tell(entry.symbol, state, after)
                held = MappingProxyType(dict(states))
                self.live.market = replace(self.live.market, quality=held)

    async def _reports(self, moment: MarketMoment, break_s: float) -> dict[str, QualityReport]:
        """In a thread, with breaks: in one go it took half the processor from every answer."""
        found: dict[str, QualityReport] = {}
        entries = moment.known.index.entries
        for begun in range(0, len(entries), _REPORTS):
            if begun:
                await self.sleep(break_s)
            found |= await asyncio.to_thread(_reports, moment, entries[begun : begun + _REPORTS])
        return found

    async def _store(self) -> None:
        moment, known = self.moment(), self._stored
        if known is None or moment.as_of() is None:
            return
        doubts = {code: one.doubt for code, one in moment.market.quality.items() if one.doubt}
        # A stream is looked at every few seconds; only a quarantine is worth all reports at once.
        if doubts == self._doubts and moment.mono - self._judged < _JUDGE_S:
            return
        # Who starts waits for the first of them, and has nobody to answer yet.
        break_s = 0.0 if math.isinf(self._judged) else _BREAK_S
        self._doubts, self._judged = doubts, moment.mono
        found = await self._reports(moment, break_s)
        at = self.live.server_clock.now()
        news = [
            StoredVerdict(symbol_id, at, one.verdict, one.score, one.flags)
            for symbol_id, one in found.items()
            if known.get(symbol_id) is not one.verdict
        ]
        rules = moment.configuration.quality
        is_due = moment.server_ms - self._forgotten_ms >= _FORGET_MS
        lots = {**self._lots, **seen(moment)}
        if not news and not is_due and lots == self._lots:
            return
        async with self.database.write() as unit:
            await self.fence(unit)
            await unit.get(QualityRepository).note(news)
            if lots != self._lots:
                await unit.get(FactRepository).put(LOTS, document(lots))
            if is_due:
                before = at - timedelta(days=rules.history_days)
                await unit.get(QualityRepository).forget(before, rules.history_rows)
                oldest_ms = moment.server_ms - rules.revision_days * _DAY_MS
                await unit.get(CandleRevisionRepository).forget(oldest_ms)
        if is_due:
            self._forgotten_ms = moment.server_ms
        self._lots = lots
        known.update({one.symbol_id: one.verdict for one in news})


def _reports(moment: MarketMoment, entries: Sequence[SymbolEntry]) -> dict[str, QualityReport]:
    """Of every contract that something was received of."""
    return {
        entry.symbol_id: quality_of(moment, entry)
        for entry in entries
        if entry.contract.code in moment.market.stats
    }


def _continued(state: PriceState, stored: StoredVerdict) -> PriceState:
    """With the doubt that was stored, where the present price raises none of its own."""
    doubts = [Doubt(flag) for flag in stored.flags if flag in set(Doubt)]
    if state.doubt is not None or stored.verdict is not QualityVerdict.QUARANTINED or not doubts:
        return state
    return replace(state, doubt=doubts[0], since_ms=round(stored.at.timestamp() * 1000))


def _tell(symbol: str, before: PriceState | None, after: PriceState) -> None:
    was = None if before is None else before.doubt
    if was is after.doubt:
        return
    if after.doubt is None:
        _log.info("quarantine_ended", symbol=symbol, was=str(was))
    elif was is None:
        _log.warning("quarantined", symbol=symbol, reason=after.doubt.value)
