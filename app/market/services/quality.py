"""Data quality of a symbol: current report, history of verdicts, and release by the operator."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from app.foundation.data_status import DataStatus
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor, Render
from app.foundation.sql.database import Database, UnitOfWork
from app.foundation.sql.key_value import KeyValueRepository
from app.market.domain.quality_report import QualityReport
from app.market.domain.reference_prices import fresh_reference_price
from app.market.domain.symbols import SymbolEntry
from app.market.services.exchange_clock import instant
from app.market.services.quality_monitor import RELEASES, quality_report
from app.market.services.service import MarketData
from app.market.services.symbol_quality import find_quarantine_reason
from app.market.storage.candles import CandleRevisionRepository
from app.market.storage.quality import QualityRepository, StoredVerdict
from app.security.domain.audit import SecurityEventKind

PastVerdict = StoredVerdict


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality report of one symbol at one moment; `quarantined_since` in exchange time."""

    entry: SymbolEntry
    report: QualityReport
    quarantined_since: datetime | None
    as_of: datetime | None  # of the quote
    status: DataStatus  # of the quote


@dataclass(frozen=True, slots=True)
class ReferencePriceView:
    """Reference price of a coin; `source` names the other exchange and the currency."""

    source: str
    price: Decimal
    at: datetime
    is_fresh: bool  # fresh enough to confirm a price


@dataclass(frozen=True, slots=True)
class Release:
    """Release of a quarantine by the operator, for the price at exchange time `at`."""

    symbol: str
    at: datetime
    reason: str
    released_by: str
    was_quarantined: bool  # else there was nothing to release or to store


@dataclass(frozen=True, slots=True)
class QualityService:
    """Queries of data quality, and the release command, which the next refresh applies."""

    market: MarketData
    database: Database
    idempotency: IdempotentExecutor

    def now(self, text: str) -> Quality:
        """Returns the report. Raises RefusedError (symbol_unknown, symbol_ambiguous)."""
        entry = self.market.resolve(text)
        moment = self.market.moment()
        state = moment.market.quality.get(entry.contract.code)
        since = None if state is None or state.quarantine_reason is None else state.since_ms
        view = moment.quote(entry)
        return Quality(
            entry,
            quality_report(moment, entry),
            None if since is None else instant(since),
            view.as_of,
            view.status,
        )

    def reference_price(self, entry: SymbolEntry) -> ReferencePriceView | None:
        """Returns the reference price; None without another exchange or without the coin there."""
        moment = self.market.moment()
        state = moment.market.quality.get(entry.contract.code)
        if state is None or state.reference_price is None or state.reference_ms is None:
            return None
        is_fresh = fresh_reference_price(state, moment.server_ms) is not None
        at = instant(state.reference_ms)
        return ReferencePriceView(state.reference_source or "", state.reference_price, at, is_fresh)

    async def count_revised_candles(self, symbol_id: str) -> int:
        """Returns how often the exchange changed a candle of the symbol after its close."""
        async with self.database.read() as unit:
            return await unit.get(CandleRevisionRepository).count(symbol_id)

    async def history(
        self, symbol_id: str, before: datetime | None, limit: int
    ) -> tuple[StoredVerdict, ...]:
        """Returns changes of the verdict, newest first."""
        async with self.database.read() as unit:
            return await unit.get(QualityRepository).page(symbol_id, before, limit)

    async def release(
        self, text: str, reason: str, command: Command, render: Render[Release] | None = None
    ) -> CommandResult[Release]:
        """Releases a quarantine; a price that still contradicts itself returns to quarantine.

        Raises RefusedError for an unknown symbol.
        """

        async def change(unit: UnitOfWork) -> Release:
            entry, moment = self.market.resolve(text), self.market.moment()
            rules = moment.configuration.quality
            reason_code = find_quarantine_reason(moment.market, entry.contract.code, rules)
            at = instant(moment.server_ms)
            release = Release(entry.symbol, at, reason, command.actor, reason_code is not None)
            if reason_code is None:
                return release
            releases = dict(await unit.get(KeyValueRepository).get_locked(RELEASES, {}))
            releases[entry.symbol_id] = {
                "at_ms": moment.server_ms,
                "reason": release.reason,
                "by": release.released_by,
            }
            await unit.get(KeyValueRepository).put(RELEASES, releases)
            return release

        audited = command.audited(
            SecurityEventKind.QUARANTINE_RELEASED,
            "released",
            text,
            lambda done: {"symbol": done.symbol, "reason": reason},
        )
        return await self.idempotency.run(audited, change, render)
