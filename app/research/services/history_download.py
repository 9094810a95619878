"""Downloads closed candles and funding of an exchange into parts that a later start continues."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from app.foundation.concurrency import gather_bounded
from app.foundation.errors import RefusedError, ServiceError
from app.foundation.sql.database import BULK_STATEMENT_S, Database
from app.market.domain.data_quality import (
    last_closed_open_ms,
    merged,
    sliced,
    valid_candles,
)
from app.market.domain.models import (
    CandleSeries,
    Contract,
    ContractKind,
    Floats,
    Funding,
    Interval,
    Ints,
)
from app.market.domain.symbols import SymbolIndex, nameable, standard_symbol
from app.market.services.ports import Exchange
from app.market.storage.candles import CandleRepository
from app.market.storage.symbols import SymbolRepository
from app.research.services.history_parts import HistoryPart, PartFolder

BARS_PER_WINDOW: Final = 200  # one request of the exchange
WORKERS: Final = 8
_DAY_MS: Final = Interval.DAY.ms
_SETTLEMENTS: Final = 3  # funding_rate of a history is a fraction per 8 hours
_ALL: Final = 1 << 40
_END_MS: Final = 1 << 52

Progress = Callable[[int, int], None]  # windows done, windows in total


@dataclass(slots=True)
class RefusedRows:
    """Broken bars by contract since the last `take`; a bar that is sent twice counts once."""

    _most: dict[str, int] = field(default_factory=dict)

    def record(self, code: str, rows: int) -> None:
        """Counts the broken bars of one answer; a second answer repeats those of the first."""
        self._most[code] = max(rows, self._most.get(code, 0))

    def take(self, code: str) -> int:
        return self._most.pop(code, 0)


@dataclass(frozen=True, slots=True)
class SymbolCoverage:
    """Bars of one contract in the joined file; times are openings in epoch ms.

    `gaps` are the first and the last missing bar of each hole between `first_ms` and `last_ms`.
    """

    symbol: str
    code: str
    bars: int
    first_ms: int | None
    last_ms: int | None
    missing: int
    gaps: tuple[tuple[int, int], ...]
    refused: int


@dataclass(frozen=True, slots=True)
class DownloadedFile:
    """Joined file of one interval: coverage by symbol, and contracts whose download failed."""

    folder: PartFolder
    coverage: tuple[SymbolCoverage, ...]
    failures: Mapping[str, ServiceError]  # by contract code


def choose_contracts(contracts: Sequence[Contract], spellings: Sequence[str]) -> list[Contract]:
    """Returns the linear perpetual contracts of `spellings`, or all of them; by code.

    History files have volumes in base coins and one listing per symbol: inverse and dated contracts
    have neither. Raises ValueError for such a contract and for an unknown spelling.
    """
    named = [one for one in contracts if nameable(one)]
    if not spellings:
        return sorted(filter(_is_linear, named), key=lambda one: one.code)
    index = SymbolIndex.from_contracts([(one.code, one) for one in named])
    chosen: dict[str, Contract] = {}
    for text in spellings:
        try:
            one = index.resolve(text).contract
        except RefusedError as error:
            raise ValueError(f"{text}: {error.detail.rstrip('.')}") from None
        if not _is_linear(one):
            raise ValueError(f"{one.code} is not a linear perpetual contract")
        chosen[one.code] = one
    return [chosen[code] for code in sorted(chosen)]


def _is_linear(contract: Contract) -> bool:
    return contract.kind is ContractKind.PERPETUAL and not contract.is_inverse


@dataclass(frozen=True, slots=True)
class HistoryDownload:
    """Download of bars opened in [begin_ms, end_ms) and closed by `now_ms`, the exchange's time."""

    exchange: Exchange
    refused: RefusedRows
    begin_ms: int
    end_ms: int
    now_ms: int
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def run(
        self, folder: PartFolder, contracts: Sequence[Contract], progress: Progress
    ) -> DownloadedFile:
        """Requests the bars that no part has yet, then joins all parts of the folder.

        A part is stored after each request. Raises ValueError for a period without a closed bar or
        parts of another venue, and UnavailableError when the exchange is away.
        """
        step = folder.interval.ms
        end_ms = min(self.end_ms, last_closed_open_ms(folder.interval, self.now_ms) + step)
        if self.begin_ms >= end_ms:
            raise ValueError("the period has no closed bar")
        venue = self.exchange.source.value
        parts = {one.code: self._part(folder, one, venue) for one in contracts}
        windows = {one.code: self._windows(one, parts[one.code], end_ms, step) for one in contracts}
        total = sum(map(len, windows.values()))
        done = 0
        progress(done, total)

        async def fetch(contract: Contract) -> None:
            nonlocal done
            part = parts[contract.code]
            for first_ms, until_ms in self._windows(contract, part, end_ms, step):
                part = await self._extended(folder, contract, part, first_ms, until_ms)
                await asyncio.to_thread(folder.write, part)
                parts[contract.code] = part
                done += 1
                progress(done, total)

        failures = await gather_bounded(contracts, fetch, workers=WORKERS, sleep=self.sleep)
        coverage: list[SymbolCoverage] = []
        await asyncio.to_thread(folder.join, lambda part: coverage.append(coverage_of(part, step)))
        failed = {one.code: error for one, error in failures}
        joined = {one.code for one in coverage} | failed.keys()
        coverage += [coverage_of(parts[code], step) for code in parts if code not in joined]
        return DownloadedFile(folder, tuple(coverage), failed)

    def _part(self, folder: PartFolder, contract: Contract, venue: str) -> HistoryPart:
        part = folder.read(contract.code)
        if part is None:
            name = standard_symbol(contract)
            begin_ms = self._begin_ms(contract, folder.interval.ms)
            return HistoryPart(contract.code, name, venue, begin_ms, begin_ms)
        if part.venue != venue:
            raise ValueError(f"{folder.directory} has bars of {part.venue}, not of {venue}")
        return part

    def _begin_ms(self, contract: Contract, step: int) -> int:
        """Opening time of the first bar that can exist."""
        return max(self.begin_ms, (contract.listed_ms or 0) // step * step)

    def _windows(
        self, contract: Contract, part: HistoryPart, end_ms: int, step: int
    ) -> list[tuple[int, int]]:
        """Opening times [first, until) of each request, so that a part never has a hole."""
        earlier = [*_split(self._begin_ms(contract, step), part.begin_ms, step)]
        return [*reversed(earlier), *_split(part.end_ms, end_ms, step)]

    async def _extended(
        self,
        folder: PartFolder,
        contract: Contract,
        part: HistoryPart,
        first_ms: int,
        until_ms: int,
    ) -> HistoryPart:
        self.refused.take(contract.code)
        sent = await self.exchange.candles(contract, folder.interval, first_ms, until_ms)
        series = valid_candles(sent, folder.interval)
        broken = self.refused.take(contract.code) + len(sent) - len(series)
        whole = merged(part.series, series, _ALL)
        funding = part.funding
        if folder.has_funding:
            rates = await self._rates(contract, series, first_ms, until_ms)
            pieces = (rates, funding) if first_ms < part.begin_ms else (funding, rates)
            funding = np.concatenate(pieces)
        return replace(
            part,
            begin_ms=min(part.begin_ms, first_ms),
            end_ms=max(part.end_ms, until_ms),
            refused=part.refused + broken,
            series=whole,
            funding=funding,
        )

    async def _rates(
        self, contract: Contract, series: CandleSeries, first_ms: int, until_ms: int
    ) -> Floats:
        # A day of overlap shows the interval of the first settlement.
        begin_ms = max(first_ms - _DAY_MS, contract.listed_ms or 0)
        if begin_ms >= until_ms or not len(series):
            return np.full(len(series), np.nan)
        settled = await self.exchange.funding_history(contract.code, begin_ms, until_ms - 1)
        return daily_funding(settled, series.opened_ms)


async def store_older_bars(database: Database, folder: PartFolder) -> int:
    """Stores the bars of all parts that open before the first stored bar of their contract.

    The live service itself stores later bars, and continues after its last one: a contract without
    a stored bar gets none here. Returns the number of new bars. Raises UnavailableError.
    """
    async with database.read() as unit:
        records = await unit.get(SymbolRepository).all()
    stored = 0
    for record in records:
        part = None
        if record.vanished_at is None:
            part = await asyncio.to_thread(folder.read, record.contract.code)
        if part is None:
            continue
        async with database.write(BULK_STATEMENT_S) as unit:
            candles = unit.get(CandleRepository)
            first = await candles.page(record.id, folder.interval, 0, _END_MS, 1)
            if len(first):
                rows = int(part.series.opened_ms.searchsorted(first.opened_ms[0]))
                older = {record.id: sliced(part.series, 0, rows)}
                stored += (await candles.save(older, folder.interval)).written
    return stored


def _split(begin_ms: int, end_ms: int, step: int) -> Iterator[tuple[int, int]]:
    for first_ms in range(begin_ms, end_ms, BARS_PER_WINDOW * step):
        yield first_ms, min(first_ms + BARS_PER_WINDOW * step, end_ms)


def daily_funding(settled: Sequence[Funding], opened_ms: Ints) -> Floats:
    """Returns (T,) funding of each day as a fraction per 8 hours: a third of the day's sum.

    A settlement at the opening belongs to the day. NaN where a settlement may be missing: without
    any, with an unknown interval, or with a last one that leaves room for another.
    """
    days: dict[int, list[Funding]] = {}
    for one in settled:
        days.setdefault(one.settled_ms // _DAY_MS * _DAY_MS, []).append(one)
    rates = np.full(len(opened_ms), np.nan)
    for row, opened in enumerate(opened_ms.tolist()):
        found = days.get(opened, [])
        intervals = [one.interval_ms for one in found if one.interval_ms is not None]
        if not found or len(intervals) < len(found):
            continue
        if found[-1].settled_ms + intervals[-1] >= opened + _DAY_MS:
            rates[row] = float(sum(one.rate for one in found)) / _SETTLEMENTS
    return rates


def coverage_of(part: HistoryPart, step_ms: int) -> SymbolCoverage:
    """Returns the coverage of a part; gaps lie between its first and its last bar."""
    opened = part.series.opened_ms
    holes = np.flatnonzero(np.diff(opened) > step_ms)
    gaps = tuple((int(opened[row]) + step_ms, int(opened[row + 1]) - step_ms) for row in holes)
    return SymbolCoverage(
        part.symbol,
        part.code,
        len(opened),
        int(opened[0]) if len(opened) else None,
        int(opened[-1]) if len(opened) else None,
        sum((last - first) // step_ms + 1 for first, last in gaps),
        gaps,
        part.refused,
    )


def time_left_s(done: int, total: int, elapsed_s: float) -> float | None:
    """Returns the seconds left at the speed so far; None before the first window is done."""
    return None if done == 0 else elapsed_s / done * (total - done)
