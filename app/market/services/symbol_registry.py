"""The registry: every contract that there is or was, under our own ids and names."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib.resources import files
from types import MappingProxyType

import structlog

from app.foundation.errors import Code, ServiceError, UnavailableError
from app.foundation.ports import Clock, Monotonic, NewId
from app.foundation.sql.database import Database
from app.market.domain.contract_diff import (
    Reconciled,
    Suspicion,
    listed_anew,
    live,
    reconcile,
    suspect,
    wants_an_old_name,
)
from app.market.domain.models import PAUSED, Contract, ContractListing, ContractStatus, Rejection
from app.market.domain.sectors import SectorTable, parse_sectors
from app.market.domain.symbols import SymbolEntry, SymbolIndex, standard_symbol
from app.market.services.feed_leader import Fence, anybody
from app.market.services.ports import Exchange
from app.market.storage.symbols import SavedSymbols, SymbolRecord, SymbolRepository

_log = structlog.get_logger("registry")


@dataclass(frozen=True, slots=True)
class SyncSummary:
    """What one list of contracts changed; `quarantined` says why nothing was believed."""

    at: datetime
    listed: int
    added: tuple[str, ...]
    respecified: tuple[str, ...]
    updated: tuple[str, ...]  # another status or listing attribute
    vanished: tuple[str, ...]
    rejections: tuple[Rejection, ...]
    quarantined: str | None
    confirmations: int


@dataclass(frozen=True, slots=True, repr=False)
class Known:
    """The universe at one moment; replaced as a whole. Of a code it has the newest listing."""

    index: SymbolIndex
    by_code: Mapping[str, SymbolRecord]

    def record(self, entry: SymbolEntry) -> SymbolRecord:
        return self.by_code[entry.contract.code]

    def others_than(self, former: "Known") -> frozenset[str]:
        """Codes that stood for another contract then."""
        old = former.by_code
        return frozenset(
            code for code, one in self.by_code.items() if code in old and old[code].id != one.id
        )


def _as_it_is(wall: datetime) -> datetime:
    return wall


async def _nobody() -> Sequence[str]:
    return ()


@dataclass(slots=True)
class Registry:
    """Keeps the universe in step with the exchange, and never loses what it knew.

    `held` names the contract codes of the portfolio's members: when a whole list is doubted,
    they are looked at one by one, and nobody takes their names. `fence` refuses to write for who
    is no longer the one to do it.
    """

    exchange: Exchange
    database: Database
    sectors: SectorTable
    clock: Clock
    monotonic: Monotonic
    new_id: NewId
    held: Callable[[], Awaitable[Sequence[str]]] = _nobody
    fence: Fence = anybody
    no_earlier: Callable[[datetime], datetime] = _as_it_is  # as `ServerClock.no_earlier`
    revision: int = 0  # raised with each change of what is stored
    known: Known = field(default_factory=lambda: Known(SymbolIndex.of(()), MappingProxyType({})))
    suspicion: Suspicion | None = None  # while a list is in quarantine
    last_sync: SyncSummary | None = None
    strangers: frozenset[str] = frozenset()  # codes whose prices are not those of what we know
    refused_names: tuple[Rejection, ...] = ()  # of the newest list; the border let them pass
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def index(self) -> SymbolIndex:
        return self.known.index

    @property
    def anomaly(self) -> str | None:
        """Why the newest list is not believed; None when it is."""
        return self.last_sync.quarantined if self.last_sync else None

    def resolve(self, text: str) -> SymbolEntry:
        """Any spelling or id -> the entry.

        Raises RefusedError (symbol_unknown, symbol_ambiguous), or UnavailableError while no
        contract is known at all.
        """
        self.require_known()
        return self.known.index.resolve(text)

    def require_known(self) -> None:
        """Raises UnavailableError while no contract is known: then nothing can be told apart."""
        if not self.known.by_code:
            raise UnavailableError(
                Code.EXCHANGE_UNAVAILABLE,
                "No contract is known yet: the exchange has not been reached.",
                retry_after_s=10,
            )

    def record(self, entry: SymbolEntry) -> SymbolRecord:
        return self.known.record(entry)

    def has(self, entry: SymbolEntry) -> bool:
        """Whether it still is what stands under its code."""
        return self.known.record(entry).id == entry.symbol_id

    async def load(self) -> int:
        """Take up what was stored before; the number of contracts."""
        async with self.database.read() as unit:
            records = await unit.get(SymbolRepository).all()
        # Of two listings of a code the one that is there, else the one that was seen last.
        ordered = sorted(records, key=lambda one: (one.vanished_at is None, one.last_seen))
        self.known = _known({one.contract.code: one for one in ordered})
        return len(records)

    async def sync(self) -> tuple[ContractListing, SyncSummary]:
        """Ask the exchange for its contracts and take over what can be believed."""
        async with self._one_at_a_time:
            listing = await self.exchange.contracts()
            summary = await self._take(listing)
        self.last_sync = summary
        self.refused_names = summary.rejections[len(listing.rejections) :]
        if summary.quarantined or summary.added or summary.vanished or summary.rejections:
            _log.info(
                "contracts_synced",
                listed=summary.listed,
                added=len(summary.added),
                respecified=len(summary.respecified),
                vanished=len(summary.vanished),
                rejected=len(summary.rejections),
                quarantined=summary.quarantined,
            )
        return listing, summary

    async def _take(self, listing: ContractListing) -> SyncSummary:
        known = {code: record.contract for code, record in self.known.by_code.items()}
        anew = self._anew(listing)
        asked = anew or wants_an_old_name(listing, known)
        held = frozenset(await self.held()) if asked else frozenset[str]()
        news = reconcile(listing, known, held, anew)
        alive = live(list(known.values()))
        if news.anomalous(alive):
            codes = frozenset(one.code for one in news.listed)
            self.suspicion = suspect(self.suspicion, codes, self.monotonic())
            if not self.suspicion.dispelled:
                self.strangers = anew
                return await self._quarantine(news, alive, self.suspicion.times)
        self.suspicion = None
        self.strangers = anew & held
        # What is over goes first: another contract may stand under its code now.
        saved = await self._save((*news.vanished, *news.changed), news.listed, anew)
        return self._summary(news, saved)

    async def _quarantine(self, news: Reconciled, alive: int, times: int) -> SyncSummary:
        """Nothing of a doubtful list is taken; held contracts are asked for one by one."""
        missing = {one.code for one in news.vanished}
        looked_at: list[Contract] = []
        for code in await self.held():
            if code in missing:
                looked_at.extend(await self._look(code))
        await self._save(looked_at, ())
        reason = f"{len(missing)} of {alive} contracts vanished at once"
        _log.warning("universe_anomaly", reason=reason, seen=times)
        summary = self._summary(news, SavedSymbols((), ()))
        return replace(summary, updated=(), vanished=(), quarantined=reason, confirmations=times)

    async def _look(self, code: str) -> Sequence[Contract]:
        try:
            listing = await self.exchange.contract(code)
        except ServiceError as error:
            _log.warning("contract_not_confirmed", contract=code, cause=str(error.code))
            return ()
        known, anew = {code: self.known.by_code[code].contract}, self._anew(listing)
        return reconcile(listing, known, frozenset({code}), anew).changed

    def _anew(self, listing: ContractListing) -> frozenset[str]:
        known = self.known.by_code
        seen_ms = {code: round(one.first_seen.timestamp() * 1000) for code, one in known.items()}
        contracts = {code: one.contract for code, one in known.items()}
        return listed_anew(listing, contracts, seen_ms)

    async def _save(
        self,
        news: Sequence[Contract],
        seen: Sequence[Contract],
        anew: AbstractSet[str] = frozenset(),
    ) -> SavedSymbols:
        """Store the changed ones; what was merely seen again is noted in memory only.

        What is there under a code of `anew` gets an id of its own.
        """
        now = self.no_earlier(self.clock())
        known = dict(self.known.by_code)
        records = [
            self._record(
                one,
                None
                if one.code in anew and one.status is not ContractStatus.VANISHED
                else known.get(one.code),
                now,
            )
            for one in news
        ]
        saved = SavedSymbols((), ())
        if records:
            async with self.database.write() as unit:
                await self.fence(unit)
                saved = await unit.get(SymbolRepository).save(records, now)
                if saved.respecified:
                    lots = await unit.get(SymbolRepository).lot_changes()
                    records = [replace(one, lot_changes=lots.get(one.id, ())) for one in records]
            self.revision += 1
        known |= {one.contract.code: one for one in records}
        for contract in seen:
            known[contract.code] = replace(known[contract.code], last_seen=now)
        if records:
            self.known = _known(known)
        else:
            self.known = Known(self.known.index, MappingProxyType(known))
        return saved

    def _record(
        self, contract: Contract, known: SymbolRecord | None, now: datetime
    ) -> SymbolRecord:
        gone = contract.status is ContractStatus.VANISHED
        classified = self.sectors.of(contract.base)
        was_paused = None if known is None else known.paused_since
        return SymbolRecord(
            id=known.id if known else self.new_id(),
            symbol=standard_symbol(contract),
            contract=contract,
            sector=classified.sector,
            cap_category=classified.cap_category.value,
            first_seen=known.first_seen if known else now,
            last_seen=known.last_seen if known and gone else now,
            vanished_at=now if gone else None,
            paused_since=(was_paused or now) if contract.status in PAUSED else None,
            lot_changes=known.lot_changes if known else (),
        )

    def _summary(self, news: Reconciled, saved: SavedSymbols) -> SyncSummary:
        fresh = {*saved.added, *saved.respecified}
        changed = (standard_symbol(one) for one in news.changed)
        return SyncSummary(
            at=self.clock(),
            listed=len(news.listed),
            added=saved.added,
            respecified=saved.respecified,
            updated=tuple(sorted(name for name in changed if name not in fresh)),
            vanished=tuple(standard_symbol(one) for one in news.vanished),
            rejections=news.rejections,
            quarantined=None,
            confirmations=0,
        )


def shipped_sectors() -> SectorTable:
    """The sector table that comes with the product. Raises ValueError naming a wrong line."""
    return parse_sectors((files("app.market.domain") / "sectors.csv").read_text(encoding="utf-8"))


def _known(records: Mapping[str, SymbolRecord]) -> Known:
    """Index them; a vanished contract gives its name up where a present one has taken it."""
    taken = {one.symbol for one in records.values() if one.vanished_at is None}
    indexed: dict[str, SymbolRecord] = {}
    for one in sorted(records.values(), key=lambda record: record.last_seen, reverse=True):
        if one.vanished_at is None:
            indexed[one.id] = one
        elif one.symbol not in taken:
            taken.add(one.symbol)
            indexed[one.id] = one
    index = SymbolIndex.of((one.id, one.contract) for one in indexed.values())
    return Known(index, MappingProxyType(dict(records)))
