"""Queries of symbols: registry, eligibility and portfolio membership in one view."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.foundation.errors import RefusedError
from app.market.domain.eligibility import Funnel
from app.market.domain.models import ContractStatus
from app.market.domain.sectors import UNCLASSIFIED
from app.market.domain.symbols import SymbolEntry, SymbolIndex
from app.market.services.snapshot import MarketMoment
from app.market.services.symbol_registry import Registry
from app.market.storage.symbols import SpecificationVersion, SymbolRepository

__all__ = [
    "SpecificationVersion",
    "SpellingResult",
    "SymbolFilter",
    "SymbolRow",
    "UniverseView",
    "select_symbols",
    "specifications",
    "symbol_row",
    "universe_view",
    "validate",
]


@dataclass(frozen=True, slots=True)
class SymbolFilter:
    """Filter of the list; None does not restrict. `search` is literal text in any case."""

    search: str | None = None
    eligible: bool | None = None
    status: ContractStatus | None = None
    sector: str | None = None
    in_portfolio: bool | None = None


@dataclass(frozen=True, slots=True)
class SymbolRow:
    """Line of the list; `excluded_by` is the first failed rule."""

    entry: SymbolEntry
    sector: str
    cap_category: str
    excluded_by: str | None
    in_portfolio: bool


@dataclass(frozen=True, slots=True)
class UniverseView:
    """Funnel with the number of symbols per sector; `unclassified` have no known sector."""

    funnel: Funnel
    sectors: Mapping[str, int]
    unclassified: int


@dataclass(frozen=True, slots=True)
class SpellingResult:
    """Result for one spelling: the entry, or the refusal."""

    entry: SymbolEntry | None
    refusal: RefusedError | None


_TESTS: Final[tuple[tuple[str, Callable[[SymbolRow], object]], ...]] = (
    ("eligible", lambda row: row.excluded_by is None),
    ("status", lambda row: row.entry.contract.status),
    ("sector", lambda row: row.sector),
    ("in_portfolio", lambda row: row.in_portfolio),
)


def select_symbols(
    moment: MarketMoment, members: Collection[str], chosen: SymbolFilter
) -> tuple[SymbolRow, ...]:
    """Returns every known symbol that matches `chosen`, by name."""
    excluded = moment.funnel().excluded
    rows = (symbol_row(moment, entry, members, excluded) for entry in moment.known.index.entries)
    return tuple(row for row in rows if _fits(row, chosen))


def symbol_row(
    moment: MarketMoment,
    entry: SymbolEntry,
    members: Collection[str],
    excluded: Mapping[str, str],
) -> SymbolRow:
    classified = moment.sectors.classify(entry.contract.base)
    return SymbolRow(
        entry=entry,
        sector=classified.sector,
        cap_category=classified.cap_category.value,
        excluded_by=excluded.get(entry.symbol),
        in_portfolio=entry.symbol in members,
    )


def universe_view(moment: MarketMoment) -> UniverseView:
    counts = Counter(
        moment.sectors.classify(entry.contract.base).sector for entry in moment.known.index.entries
    )
    return UniverseView(moment.funnel(), dict(sorted(counts.items())), counts[UNCLASSIFIED])


async def validate(registry: Registry, texts: Sequence[str]) -> tuple[SpellingResult, ...]:
    """Resolves each spelling, in order; the search for near matches runs in a thread."""
    if texts:
        registry.require_known()
    return await asyncio.to_thread(_validate, registry.index, texts)


async def specifications(
    registry: Registry, entry: SymbolEntry
) -> tuple[SpecificationVersion, ...]:
    """Returns every specification of the contract, oldest first."""
    async with registry.database.read() as unit:
        return await unit.get(SymbolRepository).specifications(entry.symbol_id)


def _validate(index: SymbolIndex, texts: Sequence[str]) -> tuple[SpellingResult, ...]:
    results: list[SpellingResult] = []
    for text in texts:
        try:
            results.append(SpellingResult(index.resolve(text), None))
        except RefusedError as refusal:
            results.append(SpellingResult(None, refusal))
    return tuple(results)


def _fits(row: SymbolRow, chosen: SymbolFilter) -> bool:
    wanted = ((getattr(chosen, name), test) for name, test in _TESTS)
    if any(value is not None and test(row) != value for value, test in wanted):
        return False
    if chosen.search is None:
        return True
    text, contract = chosen.search.casefold(), row.entry.contract
    names = (row.entry.symbol, contract.code, contract.base)
    return any(text in name.casefold() for name in names)
