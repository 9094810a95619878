"""Reads the history of a portfolio and reports decisions that should not have been made.

`python -m benchmarks.history_check DATABASE_URL [--balance B] [--streaming]` prints a line for each
violation and ends with 1 where there is one:

- stale: a decision on a board or a market that was older than its age limit
- reversed: a replacement that was undone within seven days
- below_one_lot: a rebalance that moved a member by less than one lot of its contract

Lots are judged by `--balance`, else by the setting `sizing.reference_balance` of the version that
was decided by; without either that rule does not apply, which is said.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random  # noqa: TID251  # nobody competes for the database
from typing import Final

from rich.console import Console
from sqlalchemy import select

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Source
from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.sql.database import Database, UnitOfWork
from app.foundation.sql.engines import DatabaseOptions
from app.market.storage.symbols import SymbolRepository
from app.operations.domain.event_codec import drafts_of
from app.portfolio.domain.event_log import EventType, PortfolioEvent, instant
from app.portfolio.domain.models import FULL
from app.portfolio.domain.rebalance_run import RunState
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.rebalance_runs import RebalanceRunRepository
from app.scoring.storage.tables import scoring_runs as runs

STALE, REVERSED, BELOW_ONE_LOT = "stale", "reversed", "below_one_lot"
WITHIN: Final = timedelta(days=7)
# Decisions on data; a removal may be made without any.
DECIDED: Final = frozenset(
    {EventType.ADD, EventType.REPLACE, EventType.REBALANCE, EventType.WEIGHTS}
)
_BOARDS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Violation:
    """One decision that breaks a rule; `seq` is its event in the history."""

    rule: str
    seq: int
    symbol: str | None
    detail: str


@dataclass(slots=True)
class Checked:
    """All violations, and how many decisions were read; `sized` of them were judged by lots."""

    decisions: int = 0
    sized: int = 0
    violations: list[Violation] = field(default_factory=list)


async def check(
    database: Database, balance: Decimal | None = None, *, is_streaming: bool = False
) -> Checked:
    """Reads everything; nothing is written."""
    found = Checked()
    async with database.read() as unit:
        events = await unit.get(HistoryRepository).all()
        settings = {
            version: await unit.get(ConfigurationRepository).get(version)
            for version in {event.configuration_version for event in events}
        }
        boards = await _board_times(unit)
        for event in events:
            if event.type in DECIDED:
                found.decisions += 1
                chosen = settings[event.configuration_version]
                found.violations += _stale(event, chosen, boards, is_streaming=is_streaming)
        found.violations += _reversed(events)
        for event in events:
            chosen = settings[event.configuration_version]
            worth = balance or chosen.sizing.reference_balance
            if event.type is EventType.REBALANCE and worth:
                found.sized += 1
                found.violations += await _below_one_lot(unit, event, worth)
    return found


async def check_url(
    url: str, balance: Decimal | None = None, *, is_streaming: bool = False
) -> Checked:
    """`check` on a database that no service uses now."""
    dice = Random(0)  # noqa: S311  # nobody competes for it
    database = Database(DatabaseOptions(url), time.monotonic, dice.random, drafts_of)
    await database.open()
    try:
        return await check(database, balance, is_streaming=is_streaming)
    finally:
        await database.close()


async def _board_times(unit: UnitOfWork) -> dict[str, list[datetime]]:
    """When boards of each input hash were made."""
    times: dict[str, list[datetime]] = {}
    rows = await unit.connection.execute(select(runs.c.input_hash, runs.c.calculated_at))
    for name, at in rows:
        times.setdefault(name, []).append(at)
    return times


def _stale(
    event: PortfolioEvent,
    chosen: Configuration,
    boards: Mapping[str, list[datetime]],
    *,
    is_streaming: bool,
) -> Iterator[Violation]:
    made = [at for at in boards.get(event.input_hash or "", ()) if at <= event.occurred_at]
    limits = {
        "market": max(
            chosen.age_limit_s(source, streaming=is_streaming)
            for source in (Source.CONTRACTS, Source.TICKERS)
        ),
        "board": chosen.max_age_intervals * chosen.intervals.scoring_s,
    }
    as_of = event.payload.get("data_as_of")
    times = {"market": None if as_of is None else instant(as_of), "board": max(made, default=None)}
    for name, at in times.items():
        if at is None:
            yield Violation(STALE, event.seq, event.symbol, f"the age of its {name} is not known")
            continue
        age_s = (event.occurred_at - at).total_seconds()
        if age_s > limits[name]:
            detail = f"its {name} was {age_s:.0f} s old, the limit is {limits[name]:.0f} s"
            yield Violation(STALE, event.seq, event.symbol, detail)


def _reversed(events: tuple[PortfolioEvent, ...]) -> Iterator[Violation]:
    swaps = [event for event in events if event.type is EventType.REPLACE]
    for number, later in enumerate(swaps):
        for earlier in swaps[:number]:
            is_undone = (earlier.symbol, earlier.other_symbol) == (
                later.other_symbol,
                later.symbol,
            )
            passed = later.occurred_at - earlier.occurred_at
            if is_undone and passed < WITHIN:
                detail = f"it undoes event {earlier.seq} after {passed}"
                yield Violation(REVERSED, later.seq, later.symbol, detail)


async def _below_one_lot(
    unit: UnitOfWork, event: PortfolioEvent, balance: Decimal
) -> list[Violation]:
    run = await unit.get(RebalanceRunRepository).one(str(event.payload.get("run_id")))
    if run is None or run.outcome is None or run.state is not RunState.DONE:
        return [Violation(BELOW_ONE_LOT, event.seq, None, "its run is not on record")]
    marks = {one["symbol"]: one["mark"] for one in event.payload.get("marks", {}).values()}
    ids = {one["symbol"]: key for key, one in event.payload["weights"].items()}
    found: list[Violation] = []
    for shift in run.outcome.changes:
        mark = marks.get(shift.symbol)
        if mark is None:
            continue  # without a price no lots are counted
        lot = await _lot_value(unit, ids[shift.symbol], Decimal(mark), event.occurred_at)
        moved = abs(shift.change_u) * balance / FULL
        if moved < lot:
            detail = f"it moves {moved:.2f}, a lot is {lot:.2f}"
            found.append(Violation(BELOW_ONE_LOT, event.seq, shift.symbol, detail))
    return found


async def _lot_value(unit: UnitOfWork, symbol_id: str, mark: Decimal, at: datetime) -> Decimal:
    """Of one lot as the contract was specified then."""
    versions = await unit.get(SymbolRepository).specifications(symbol_id)
    valid = [
        one
        for one in versions
        if one.valid_from <= at and (one.valid_to is None or at < one.valid_to)
    ]
    contract = (valid or list(versions))[-1].contract
    return mark * contract.multiplier * contract.lot_size


def report(found: Checked, console: Console) -> bool:
    """Prints every violation; whether there is none."""
    for one in found.violations:
        symbol = "" if one.symbol is None else f" {one.symbol}"
        console.print(f"{one.rule}: event {one.seq}{symbol}: {one.detail}", markup=False)
    lots = f"{found.sized} rebalances judged by lots" if found.sized else "lots: not applicable"
    console.print(
        f"history: {found.decisions} decisions, {lots}, {len(found.violations)} violations"
    )
    return not found.violations


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database_url")
    parser.add_argument("--balance", type=Decimal)
    parser.add_argument("--streaming", action="store_true")
    asked = parser.parse_args()
    found = await check_url(asked.database_url, asked.balance, is_streaming=asked.streaming)
    return 0 if report(found, Console(width=120, highlight=False)) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
