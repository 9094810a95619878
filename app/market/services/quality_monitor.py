"""Judges data quality after each refresh, keeps quarantines over restarts, and stores verdicts."""

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
from app.foundation.sql.key_value import KeyValueRepository
from app.market.domain.data_quality import (
    coverage,
    forward_filled_bars,
    last_closed_open_ms,
    longest_gap,
    worst,
)
from app.market.domain.models import CandleSeries, Interval
from app.market.domain.price_quarantine import (
    PriceState,
    QuarantineReason,
    apply_reading,
    quarantine_changed_lot,
    release,
)
from app.market.domain.quality_report import QualityReport, QualityVerdict, SymbolData, report
from app.market.domain.reference_prices import ReferencePrice, with_reference_prices
from app.market.domain.symbols import SymbolEntry
from app.market.services.feed_leader import Fence, no_fencing
from app.market.services.snapshot import BARS, Aged, MarketMoment, spread
from app.market.services.state import LIVE, LiveMarket
from app.market.services.symbol_quality import (
    find_quarantine_reason,
    is_without_trades,
    newest_volume_jump,
    price_reading,
    turnover_price_deviation,
)
from app.market.storage.candles import CandleRevisionRepository
from app.market.storage.quality import QualityRepository, StoredVerdict

_BP = 10_000.0


def quality_report(moment: MarketMoment, entry: SymbolEntry) -> QualityReport:
    """Returns verdict, score and parts of one symbol."""
    return report(symbol_data(moment, entry), moment.configuration.quality)


def symbol_data(moment: MarketMoment, entry: SymbolEntry) -> SymbolData:
    """Returns the inputs of the quality rules at one moment."""
    market, code, contract = moment.market, entry.contract.code, entry.contract
    rules = moment.configuration.quality
    stats, ticker, book = market.stats.get(code), market.tickers.get(code), market.books.get(code)
    ages, hourly = moment.ages(entry), market.hourly.get(code)
    live = [ages[source] for source in LIVE]
    age_s, limit_s = _nearest_limit(moment, ages)
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
        quarantine_reason=find_quarantine_reason(market, code, rules),
        is_frozen=is_without_trades(market, contract, moment.server_ms, rules),
        spread=None if width is None else width / _BP,
        has_quote=bid is not None and ask is not None,
        book_status=ages[Source.BOOKS].status if book is not None else DataStatus.UNAVAILABLE,
        is_book_whole=best is not None,
        next_funding_ms=None if stats is None else stats.value.next_funding_ms,
        funding_interval_ms=contract.funding_interval_ms,
        server_ms=moment.server_ms,
        daily_coverage=_coverage_since_listing(moment, entry, Interval.DAY),
        hourly_coverage=_coverage_since_listing(moment, entry, Interval.HOUR),
        daily_bridged=_bridged(moment, code, Interval.DAY),
        hourly_bridged=_bridged(moment, code, Interval.HOUR),
        hourly_gap=0 if hourly is None else longest_gap(hourly.value, Interval.HOUR),
        turnover_24h=None if stats is None else stats.value.turnover_24h,
        price_deviation=turnover_price_deviation(market, contract),
        volume_jump=newest_volume_jump(market, contract),
        has_diverged=code in market.diverged,
    )


def _nearest_limit(moment: MarketMoment, ages: Mapping[Source, Aged]) -> tuple[float | None, float]:
    """Returns age and limit of contract or ticker, whichever is nearer to its limit.

    The age is None where one of them never arrived.
    """
    limits_s = {source: moment.age_limit_s(source) for source in LIVE}
    known = [(age, limits_s[one]) for one in LIVE if (age := ages[one].age_s) is not None]
    if len(known) < len(LIVE):
        return None, min(limits_s.values())
    return max(known, key=lambda one: one[0] / one[1])


def _coverage_since_listing(moment: MarketMoment, entry: SymbolEntry, interval: Interval) -> float:
    """Returns the share of closed bars of the window that are present since the listing."""
    current = moment.market.series(interval).get(entry.contract.code)
    series: CandleSeries | None = None if current is None else current.value
    if series is None or not len(series):
        return 0.0
    newest = last_closed_open_ms(interval, moment.server_ms)
    listed = entry.contract.listed_ms
    begin = int(series.opened_ms[0]) if listed is None else -(-listed // interval.ms) * interval.ms
    wanted = min(BARS[interval], max(1, (newest - begin) // interval.ms + 1))
    return min(1.0, coverage(series, interval, wanted, moment.server_ms))


def _bridged(moment: MarketMoment, code: str, interval: Interval) -> int:
    current = moment.market.series(interval).get(code)
    return 0 if current is None else forward_filled_bars(current.value, interval)


LOTS: Final = "quality_lots"  # key: symbol id -> multiplier, lot value before an unproven change


@dataclass(frozen=True, slots=True)
class Lot:
    """Multiplier; `value` is a lot's value before an unproven change of its size."""

    multiplier: Decimal
    value: Decimal | None = None


def current_lots(moment: MarketMoment) -> dict[str, Lot]:
    """Returns the lots of every contract with a price state, by symbol id."""
    states = moment.market.quality
    return {
        entry.symbol_id: Lot(state.multiplier, state.lot_value)
        for entry in moment.known.index.entries
        if (state := states.get(entry.contract.code)) is not None
    }


def encode_lots(lots: Mapping[str, Lot]) -> dict[str, list[str | None]]:
    """Returns the stored form of the lots."""
    return {
        symbol_id: [str(lot.multiplier), None if lot.value is None else str(lot.value)]
        for symbol_id, lot in lots.items()
    }


def decode_lots(stored: Any) -> dict[str, Lot]:
    """Parses stored lots; empty for None."""
    return {
        symbol_id: Lot(Decimal(multiplier), None if value is None else Decimal(value))
        for symbol_id, (multiplier, value) in (stored or {}).items()
    }


def compare_stored_lot(
    state: PriceState, lot: Lot | None, entry: SymbolEntry, moment: MarketMoment
) -> PriceState:
    """Returns the state of a contract after comparing it with its stored, maybe old, lot."""
    if lot is None:
        return state
    if lot.multiplier != entry.contract.multiplier:
        value = lot.value
        if value is None:
            price = _last_close(entry.contract.code, moment)
            value = None if price is None else price * lot.multiplier
        return quarantine_changed_lot(state, value, moment.server_ms)
    if state.quarantine_reason is QuarantineReason.LOT_CHANGED and state.lot_value is None:
        return replace(state, lot_value=lot.value)
    return state


def _last_close(code: str, moment: MarketMoment) -> Decimal | None:
    """Returns the newest stored close: the youngest price known from before an absence."""
    for current in (moment.market.hourly.get(code), moment.market.daily.get(code)):
        if current is not None and len(current.value):
            return Decimal(str(current.value.close[-1]))
    return None


RELEASES: Final = "quality_releases"  # key: symbol id -> exchange time, reason, actor
_PRUNE_MS: Final = 3_600_000
_DAY_MS: Final = 86_400_000
_JUDGE_S: Final = 60.0
PORTION: Final = 25  # contracts judged in one turn of the event loop
_REPORTS: Final = 15  # reports between two breaks
_BREAK_S: Final = 0.05
_log = structlog.get_logger("quality")


@dataclass(slots=True)
class QualityMonitor:
    """Runs in the feed's owner only; other processes read its states from the shared market.

    Without the database prices are still judged; verdicts are stored once it is back.
    """

    database: Database
    live: LiveMarket
    moment: Callable[[], MarketMoment]
    fence: Fence = no_fencing
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _stored: dict[str, QualityVerdict] | None = field(default=None, init=False)
    _lots: Mapping[str, Lot] = field(default_factory=dict, init=False)  # as stored
    _pruned_ms: int = field(default=0, init=False)
    _reported_at: float = field(default=float("-inf"), init=False)  # monotonic second
    _reasons: Mapping[str, QuarantineReason] = field(default_factory=dict, init=False)

    async def judge_prices(self) -> None:
        """Judges the newly received prices, a few in each turn of the event loop."""
        entries = self.moment().known.index.entries
        judged: dict[str, tuple[PriceState | None, PriceState]] = {}
        for begun in range(0, len(entries), PORTION):
            if begun:
                await asyncio.sleep(0)  # one go took as long as fifty answers
            judged |= self._changed_states(entries[begun : begun + PORTION])
        self._publish_states(judged)

    def _changed_states(
        self, entries: Sequence[SymbolEntry]
    ) -> dict[str, tuple[PriceState | None, PriceState]]:
        """Returns the changed states by code, each with its former one."""
        moment = self.moment()
        market, rules = moment.market, moment.configuration.quality
        found: dict[str, tuple[PriceState | None, PriceState]] = {}
        for entry in entries:
            code = entry.contract.code
            reading = price_reading(market, entry.contract, moment.server_ms)
            if reading is None:
                continue
            before = market.quality.get(code)
            after = apply_reading(before, reading, rules)
            if before is None:
                after = compare_stored_lot(after, self._lots.get(entry.symbol_id), entry, moment)
            if after is not before:
                found[code] = before, after
            _log_change(entry.symbol, before, after)
        return found

    def _publish_states(self, judged: Mapping[str, tuple[PriceState | None, PriceState]]) -> None:
        """Publishes all changes at once, because each change of the market voids cached responses.

        A state that was changed meanwhile is judged again in the next check.
        """
        market = self.live.market
        updates = {
            code: after
            for code, (before, after) in judged.items()
            if market.quality.get(code) is before
        }
        if updates:
            quality = MappingProxyType({**market.quality, **updates})
            self.live.market = replace(market, quality=quality)

    def apply_reference_prices(self, prices: Mapping[str, ReferencePrice]) -> None:
        """Takes over reference prices by base coin, without waiting."""
        moment = self.moment()
        entries, states = moment.known.index.entries, moment.market.quality
        after = with_reference_prices(states, entries, prices, moment.server_ms)
        self.live.market = replace(self.live.market, quality=MappingProxyType(after))

    async def check(self) -> None:
        """Judges prices, applies releases of the operator, and stores changed verdicts."""
        await self.judge_prices()
        try:
            await self._restore()
            await self._apply_releases()
            await self._store()
        except ServiceError as error:
            _log.warning("verdicts_not_stored", cause=str(error.code))

    async def _restore(self) -> None:
        """Restores stored quarantines: after a restart a price must be confirmed all the same."""
        if self._stored is not None:
            return
        async with self.database.read() as unit:
            newest = await unit.get(QualityRepository).newest()
            self._lots = decode_lots(await unit.get(KeyValueRepository).get(LOTS))
        self._stored = {symbol_id: one.verdict for symbol_id, one in newest.items()}
        moment = self.moment()
        states = dict(moment.market.quality)
        for entry in moment.known.index.entries:
            stored, state = newest.get(entry.symbol_id), states.get(entry.contract.code)
            if state is None:
                continue
            after = state if stored is None else _with_stored_quarantine(state, stored)
            after = compare_stored_lot(after, self._lots.get(entry.symbol_id), entry, moment)
            _log_change(entry.symbol, state, after)
            states[entry.contract.code] = after
        self.live.market = replace(self.live.market, quality=MappingProxyType(states))

    async def _apply_releases(self) -> None:
        async with self.database.read() as unit:
            releases = await unit.get(KeyValueRepository).get(RELEASES) or {}
        states = dict(self.live.market.quality)
        for entry in self.moment().known.index.entries:
            order, state = releases.get(entry.symbol_id), states.get(entry.contract.code)
            if order is None or state is None or state.since_ms is None:
                continue
            if state.since_ms <= order["at_ms"]:
                after = states[entry.contract.code] = release(state)
                _log_change(entry.symbol, state, after)
                quality = MappingProxyType(dict(states))
                self.live.market = replace(self.live.market, quality=quality)

    async def _reports(self, moment: MarketMoment, break_s: float) -> dict[str, QualityReport]:
        """Computes reports in a thread, with breaks: without them it took half the processor."""
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
        reasons = {
            code: one.quarantine_reason
            for code, one in moment.market.quality.items()
            if one.quarantine_reason
        }
        # A stream is checked every few seconds; only a change of quarantines needs reports at once.
        if reasons == self._reasons and moment.mono - self._reported_at < _JUDGE_S:
            return
        # The start waits for the first reports, and no requests arrive yet.
        break_s = 0.0 if math.isinf(self._reported_at) else _BREAK_S
        self._reasons, self._reported_at = reasons, moment.mono
        found = await self._reports(moment, break_s)
        at = self.live.server_clock.now()
        changed = [
            StoredVerdict(symbol_id, at, one.verdict, one.score, one.flags)
            for symbol_id, one in found.items()
            if known.get(symbol_id) is not one.verdict
        ]
        rules = moment.configuration.quality
        is_due = moment.server_ms - self._pruned_ms >= _PRUNE_MS
        lots = {**self._lots, **current_lots(moment)}
        if not changed and not is_due and lots == self._lots:
            return
        async with self.database.write() as unit:
            await self.fence(unit)
            await unit.get(QualityRepository).save(changed)
            if lots != self._lots:
                await unit.get(KeyValueRepository).put(LOTS, encode_lots(lots))
            if is_due:
                before = at - timedelta(days=rules.history_days)
                await unit.get(QualityRepository).prune(before, rules.history_rows)
                oldest_ms = moment.server_ms - rules.revision_days * _DAY_MS
                await unit.get(CandleRevisionRepository).prune(oldest_ms)
        if is_due:
            self._pruned_ms = moment.server_ms
        self._lots = lots
        known.update({one.symbol_id: one.verdict for one in changed})


def _reports(moment: MarketMoment, entries: Sequence[SymbolEntry]) -> dict[str, QualityReport]:
    """Returns reports of every contract with received data, by symbol id."""
    return {
        entry.symbol_id: quality_report(moment, entry)
        for entry in entries
        if entry.contract.code in moment.market.stats
    }


def _with_stored_quarantine(state: PriceState, stored: StoredVerdict) -> PriceState:
    """Returns the state with the stored quarantine, unless the present price has its own."""
    reasons = [QuarantineReason(flag) for flag in stored.flags if flag in set(QuarantineReason)]
    if (
        state.quarantine_reason is not None
        or stored.verdict is not QualityVerdict.QUARANTINED
        or not reasons
    ):
        return state
    return replace(
        state, quarantine_reason=reasons[0], since_ms=round(stored.at.timestamp() * 1000)
    )


def _log_change(symbol: str, before: PriceState | None, after: PriceState) -> None:
    was = None if before is None else before.quarantine_reason
    if was is after.quarantine_reason:
        return
    if after.quarantine_reason is None:
        _log.info("quarantine_ended", symbol=symbol, was=str(was))
    elif was is None:
        _log.warning("quarantined", symbol=symbol, reason=after.quarantine_reason.value)
