"""What is thought of the data of a symbol: now, before, and the operator's word on it."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from app.foundation.data_status import DataStatus
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor, Render
from app.foundation.sql.database import Database, UnitOfWork
from app.foundation.sql.facts import FactRepository
from app.market.domain.quality_report import QualityReport
from app.market.domain.reference_prices import young
from app.market.domain.symbols import SymbolEntry
from app.market.services.exchange_clock import instant
from app.market.services.quality_monitor import RELEASES, quality_of
from app.market.services.service import MarketData
from app.market.services.symbol_quality import doubt_of
from app.market.storage.candles import CandleRevisionRepository
from app.market.storage.quality import QualityRepository, StoredVerdict

PastVerdict = StoredVerdict


@dataclass(frozen=True, slots=True)
class Quality:
    """The report of one symbol at one moment; `quarantined_since` by the exchange's clock."""

    entry: SymbolEntry
    report: QualityReport
    quarantined_since: datetime | None
    as_of: datetime | None  # of the quote
    status: DataStatus  # of the quote


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The last price of a coin at another exchange; `source` names that and the currency."""

    source: str
    price: Decimal
    at: datetime
    is_fresh: bool  # enough to confirm anything


@dataclass(frozen=True, slots=True)
class Release:
    """The operator vouches for the price as it was at `at`, by the exchange's clock."""

    symbol: str
    at: datetime
    reason: str
    released_by: str
    was_quarantined: bool  # else there was nothing to release, and nothing was kept


@dataclass(frozen=True, slots=True)
class QualityService:
    """Reads from memory and the stored verdicts; a release is taken up with the next refresh."""

    market: MarketData
    database: Database
    idempotency: IdempotentExecutor

    def now(self, text: str) -> Quality:
        """Raises RefusedError (symbol_unknown, symbol_ambiguous)."""
        entry = self.market.resolve(text)
        moment = self.market.moment()
        state = moment.market.quality.get(entry.contract.code)
        since = None if state is None or state.doubt is None else state.since_ms
        view = moment.quote(entry)
        return Quality(
            entry,
            quality_of(moment, entry),
            None if since is None else instant(since),
            view.as_of,
            view.status,
        )

    def elsewhere(self, entry: SymbolEntry) -> Elsewhere | None:
        """None where nobody else is asked, or has no such coin."""
        moment = self.market.moment()
        state = moment.market.quality.get(entry.contract.code)
        if state is None or state.elsewhere is None or state.elsewhere_ms is None:
            return None
        is_fresh = young(state, moment.server_ms) is not None
        at = instant(state.elsewhere_ms)
        return Elsewhere(state.elsewhere_at or "", state.elsewhere, at, is_fresh)

    async def revised(self, symbol_id: str) -> int:
        """How often the exchange has changed a candle of the symbol after its close."""
        async with self.database.read() as unit:
            return await unit.get(CandleRevisionRepository).count(symbol_id)

    async def history(
        self, symbol_id: str, before: datetime | None, limit: int
    ) -> tuple[StoredVerdict, ...]:
        """Changes of the verdict, newest first."""
        async with self.database.read() as unit:
            return await unit.get(QualityRepository).page(symbol_id, before, limit)

    async def release(
        self, text: str, reason: str, command: Command, render: Render[Release] | None = None
    ) -> CommandResult[Release]:
        """End a quarantine by word of the operator; what still contradicts itself goes back.

        Raises RefusedError for an unknown symbol.
        """

        async def change(unit: UnitOfWork) -> Release:
            entry, moment = self.market.resolve(text), self.market.moment()
            rules = moment.configuration.quality
            held = doubt_of(moment.market, entry.contract.code, rules)
            at = instant(moment.server_ms)
            made = Release(entry.symbol, at, reason, command.actor, held is not None)
            if held is None:
                return made
            told = dict(await unit.get(FactRepository).get_locked(RELEASES, {}))
            told[entry.symbol_id] = {
                "at_ms": moment.server_ms,
                "reason": made.reason,
                "by": made.released_by,
            }
            await unit.get(FactRepository).put(RELEASES, told)
            return made

        return await self.idempotency.run(command, change, render)
