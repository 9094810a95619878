"""Registry of all present and former contracts, under our own ids and names."""

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
    ContractDiff,
    ListAnomaly,
    count_anomaly,
    find_relisted,
    live,
    reconcile,
    reuses_vanished_name,
)
from app.market.domain.models import PAUSED, Contract, ContractListing, ContractStatus, Rejection
from app.market.domain.sectors import SectorTable, parse_sectors
from app.market.domain.symbols import SymbolEntry, SymbolIndex, standard_symbol
from app.market.services.feed_leader import Fence, no_fencing
from app.market.services.ports import Exchange
from app.market.storage.symbols import SavedSymbols, SymbolRecord, SymbolRepository

_log = structlog.get_logger("registry")


@dataclass(frozen=True, slots=True)
class SyncSummary:
    """Changes by one contract list; `quarantined` is the reason if the list was not accepted."""

    at: datetime
    listed: int
    added: tuple[str, ...]
    specification_changed: tuple[str, ...]
    updated: tuple[str, ...]  # changed status or listing attribute
    delisted: tuple[str, ...]
    rejections: tuple[Rejection, ...]
    quarantined: str | None
    confirmations: int


@dataclass(frozen=True, slots=True, repr=False, weakref_slot=True)
class KnownContracts:
    """Known contracts at one moment; replaced as a whole. A code names its newest listing."""

    index: SymbolIndex
    by_code: Mapping[str, SymbolRecord]

    def record(self, entry: SymbolEntry) -> SymbolRecord:
        return self.by_code[entry.contract.code]

    def relisted_since(self, former: "KnownContracts") -> frozenset[str]:
        """Returns the codes that named another contract in `former`."""
        old = former.by_code
        return frozenset(
            code for code, one in self.by_code.items() if code in old and old[code].id != one.id
        )


def _unchanged(wall: datetime) -> datetime:
    return wall


async def _no_members() -> Sequence[str]:
    return ()


@dataclass(slots=True)
class Registry:
    """Synchronises the known contracts with the exchange; former contracts are kept.

    `member_codes` returns the contract codes of portfolio members. They are checked one by one
    while a whole list is implausible, and no other contract takes their names. `fence` refuses
    writes of a process that lost the feed.
    """

    exchange: Exchange
    database: Database
    sectors: SectorTable
    clock: Clock
    monotonic: Monotonic
    new_id: NewId
    member_codes: Callable[[], Awaitable[Sequence[str]]] = _no_members
    fence: Fence = no_fencing
    no_earlier: Callable[[datetime], datetime] = _unchanged  # as `ServerClock.no_earlier`
    revision: int = 0  # incremented with each stored change
    known: KnownContracts = field(
        default_factory=lambda: KnownContracts(SymbolIndex.from_contracts(()), MappingProxyType({}))
    )
    pending_anomaly: ListAnomaly | None = None  # while a list is implausible
    last_sync: SyncSummary | None = None
    relisted_codes: frozenset[str] = (
        frozenset()
    )  # codes whose prices belong to another contract than the known one
    rejected_names: tuple[Rejection, ...] = ()  # of the newest list, after parsing
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def index(self) -> SymbolIndex:
        return self.known.index

    @property
    def anomaly(self) -> str | None:
        """Reason why the newest list was not accepted; None if it was."""
        return self.last_sync.quarantined if self.last_sync else None

    def resolve(self, text: str) -> SymbolEntry:
        """Returns the entry of any spelling or id.

        Raises RefusedError (symbol_unknown, symbol_ambiguous), or UnavailableError while no
        contract is known.
        """
        self.require_known()
        return self.known.index.resolve(text)

    def id_of(self, symbol: str) -> str | None:
        """Returns the id of a standard symbol; None if it is not known."""
        return self.known.index.id_of(symbol)

    def require_known(self) -> None:
        """Raises UnavailableError while no contract is known, because nothing can be resolved."""
        if not self.known.by_code:
            raise UnavailableError(
                Code.EXCHANGE_UNAVAILABLE,
                "No contract is known yet: the exchange has not answered.",
                retry_after_s=10,
            )

    def record(self, entry: SymbolEntry) -> SymbolRecord:
        return self.known.record(entry)

    def is_current(self, entry: SymbolEntry) -> bool:
        """True if the entry's code still names this contract."""
        return self.known.record(entry).id == entry.symbol_id

    async def load(self) -> int:
        """Loads stored contracts; returns their number."""
        async with self.database.read() as unit:
            records = await unit.get(SymbolRepository).all()
        # Of two listings of a code: the present one, else the one last seen.
        ordered = sorted(records, key=lambda one: (one.vanished_at is None, one.last_seen))
        self.known = _known({one.contract.code: one for one in ordered})
        return len(records)

    async def sync(self) -> tuple[ContractListing, SyncSummary]:
        """Fetches the contract list and applies it if it is plausible."""
        async with self._one_at_a_time:
            listing = await self.exchange.contracts()
            summary = await self._apply(listing)
        self.last_sync = summary
        self.rejected_names = summary.rejections[len(listing.rejections) :]
        if summary.quarantined or summary.added or summary.delisted or summary.rejections:
            _log.info(
                "contracts_synced",
                listed=summary.listed,
                added=len(summary.added),
                specification_changed=len(summary.specification_changed),
                delisted=len(summary.delisted),
                rejected=len(summary.rejections),
                quarantined=summary.quarantined,
            )
        return listing, summary

    async def _apply(self, listing: ContractListing) -> SyncSummary:
        known = {code: record.contract for code, record in self.known.by_code.items()}
        relisted = self._find_relisted(listing)
        needs_members = relisted or reuses_vanished_name(listing, known)
        members = frozenset(await self.member_codes()) if needs_members else frozenset[str]()
        diff = reconcile(listing, known, members, relisted)
        alive = live(list(known.values()))
        if diff.is_implausible(alive):
            codes = frozenset(one.code for one in diff.listed)
            self.pending_anomaly = count_anomaly(self.pending_anomaly, codes, self.monotonic())
            if not self.pending_anomaly.is_confirmed:
                self.relisted_codes = relisted
                return await self._quarantine(diff, alive, self.pending_anomaly.times)
        self.pending_anomaly = None
        self.relisted_codes = relisted & members
        # Vanished contracts first: their codes may name other contracts now.
        saved = await self._save((*diff.vanished, *diff.changed), diff.listed, relisted)
        return self._summary(diff, saved)

    async def _quarantine(self, diff: ContractDiff, alive: int, times: int) -> SyncSummary:
        """Applies nothing of an implausible list; fetches missing members one by one."""
        missing = {one.code for one in diff.vanished}
        confirmed: list[Contract] = []
        for code in await self.member_codes():
            if code in missing:
                confirmed.extend(await self._confirm(code))
        await self._save(confirmed, ())
        reason = f"{len(missing)} of {alive} contracts vanished at once"
        _log.warning("universe_anomaly", reason=reason, seen=times)
        summary = self._summary(diff, SavedSymbols((), ()))
        return replace(summary, updated=(), delisted=(), quarantined=reason, confirmations=times)

    async def _confirm(self, code: str) -> Sequence[Contract]:
        try:
            listing = await self.exchange.contract(code)
        except ServiceError as error:
            _log.warning("contract_not_confirmed", contract=code, cause=str(error.code))
            return ()
        known, relisted = {code: self.known.by_code[code].contract}, self._find_relisted(listing)
        return reconcile(listing, known, frozenset({code}), relisted).changed

    def _find_relisted(self, listing: ContractListing) -> frozenset[str]:
        known = self.known.by_code
        seen_ms = {code: round(one.first_seen.timestamp() * 1000) for code, one in known.items()}
        contracts = {code: one.contract for code, one in known.items()}
        return find_relisted(listing, contracts, seen_ms)

    async def _save(
        self,
        changed: Sequence[Contract],
        seen: Sequence[Contract],
        relisted: AbstractSet[str] = frozenset(),
    ) -> SavedSymbols:
        """Stores changed contracts; contracts merely seen again are updated in memory only.

        A new contract under a code of `relisted` gets its own id.
        """
        now = self.no_earlier(self.clock())
        known = dict(self.known.by_code)
        records = [
            self._record(
                one,
                None
                if one.code in relisted and one.status is not ContractStatus.VANISHED
                else known.get(one.code),
                now,
            )
            for one in changed
        ]
        saved = SavedSymbols((), ())
        if records:
            async with self.database.write() as unit:
                await self.fence(unit)
                saved = await unit.get(SymbolRepository).save(records, now)
                if saved.specification_changed:
                    lots = await unit.get(SymbolRepository).lot_changes()
                    records = [replace(one, lot_changes=lots.get(one.id, ())) for one in records]
            self.revision += 1
        known |= {one.contract.code: one for one in records}
        for contract in seen:
            known[contract.code] = replace(known[contract.code], last_seen=now)
        if records:
            self.known = _known(known)
        else:
            self.known = KnownContracts(self.known.index, MappingProxyType(known))
        return saved

    def _record(
        self, contract: Contract, known: SymbolRecord | None, now: datetime
    ) -> SymbolRecord:
        gone = contract.status is ContractStatus.VANISHED
        classified = self.sectors.classify(contract.base)
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

    def _summary(self, diff: ContractDiff, saved: SavedSymbols) -> SyncSummary:
        fresh = {*saved.added, *saved.specification_changed}
        changed = (standard_symbol(one) for one in diff.changed)
        return SyncSummary(
            at=self.clock(),
            listed=len(diff.listed),
            added=saved.added,
            specification_changed=saved.specification_changed,
            updated=tuple(sorted(name for name in changed if name not in fresh)),
            delisted=tuple(standard_symbol(one) for one in diff.vanished),
            rejections=diff.rejections,
            quarantined=None,
            confirmations=0,
        )


def shipped_sectors() -> SectorTable:
    """Loads the packaged sector table. Raises ValueError naming an invalid line."""
    return parse_sectors((files("app.market.domain") / "sectors.csv").read_text(encoding="utf-8"))


def _known(records: Mapping[str, SymbolRecord]) -> KnownContracts:
    """Indexes the records; a present contract takes the name of a vanished one."""
    taken = {one.symbol for one in records.values() if one.vanished_at is None}
    indexed: dict[str, SymbolRecord] = {}
    for one in sorted(records.values(), key=lambda record: record.last_seen, reverse=True):
        if one.vanished_at is None:
            indexed[one.id] = one
        elif one.symbol not in taken:
            taken.add(one.symbol)
            indexed[one.id] = one
    index = SymbolIndex.from_contracts((one.id, one.contract) for one in indexed.values())
    return KnownContracts(index, MappingProxyType(dict(records)))
