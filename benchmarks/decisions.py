"""Decisions in virtual time: `python -m benchmarks.decisions`, part of `make chaos`.

First a day without faults on a simulated clock: nothing may be refused after the first usable
board. should-trade is asked at every pause of the feed, when quotes are oldest, and the scheduled
decisions run after each board. Then an hour with faults, whose history `benchmarks.history_check`
reads.
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import structlog
from rich.console import Console

from app.configuration.domain.document import validate
from app.configuration.domain.model import Configuration
from app.container.recording import RecordedService
from app.foundation.errors import ServiceError
from app.foundation.idempotency import Command
from app.portfolio.storage.portfolio import PortfolioRepository
from app.scoring.domain.board import Board
from benchmarks.history_check import check_url, report
from tests.golden.scenario import event, fault, heal, plant
from tests.support.recording_fixtures import Act, Studio

HOURS: Final = float(os.environ.get("MYBENCH_QUIET_HOURS", "24"))
FAULTY_S: Final = 3_600.0
CONTRACTS: Final = 20
BALANCE: Final = Decimal(25_000)
PROBE_S: Final = 15.0  # between two looks at should-trade
REFUSED: Final = "mysymbols_decisions_refused_total"


@dataclass
class Decider(Studio):
    """A market that is recorded in virtual time, and a service that decides on it."""

    taped: RecordedService | None = None
    before: Counter[str] = field(default_factory=Counter)  # refused before the first usable board
    is_usable: bool = False
    asked: int = 0
    denied: Counter[str] = field(default_factory=Counter)
    _probed: float = 0.0

    async def _sleep(self, seconds: float) -> None:
        await super()._sleep(seconds)
        if self.is_usable and self.clock.passed_s - self._probed >= PROBE_S:
            self._probed = self.clock.passed_s
            await self._probe()

    async def _probe(self) -> None:
        """Asks for each member whether it may be traded now, on the clock as it has moved on."""
        if self.taped is None:
            return
        self.taped.clock.move(self.clock.monotonic())
        for member in await self._members():
            verdict, _ = await self.taped.service.trading.should_trade(member)
            failed = [one.name for one in verdict.checks if not one.passed]
            self.asked += 1
            self.denied.update(failed[:1])

    async def _members(self) -> tuple[str, ...]:
        if self.taped is None:
            return ()
        async with self.taped.database.read() as unit:
            return tuple(one.symbol for one in (await unit.get(PortfolioRepository).load()).members)

    async def decide(self, taped: RecordedService, board: Board | None) -> None:
        """Runs the scheduled decisions after a board; the service counts refusals."""
        self.taped = taped
        service, work = taped.service, taped.work
        if not await self._members():
            command = Command("benchmark", "initialise")
            await self._attempt(lambda: service.portfolio.initialize(5, "benchmark", command))
        if not self.is_usable and await self._members():
            self.is_usable, self.before = True, refusals(taped)
        at: datetime = taped.clock.now()
        actions: list[Callable[[], Any]] = [
            work.alerts,
            work.forced_replacement,
            work.replacement_check,
            lambda: work.rebalance_check(at),
            work.signals,
        ]
        for action in actions:
            await self._attempt(action)
        for member in await self._members():
            size = partial(service.trading.position_size, member, BALANCE, Decimal(1))
            await self._attempt(size)

    @staticmethod
    async def _attempt(action: Callable[[], Any]) -> None:
        try:
            await action()
        except ServiceError as error:
            structlog.get_logger("benchmark").warning("refused", code=str(error.code))

    def refused(self) -> Counter[str]:
        """Refusals by code, since the first usable board."""
        return Counter() if self.taped is None else refusals(self.taped) - self.before


def refusals(taped: RecordedService) -> Counter[str]:
    """Counts of refused decisions as /metrics has them."""
    families = taped.metrics.registry.collect()
    samples = (one for family in families for one in family.samples if one.name == REFUSED)
    return Counter({one.labels["code"]: int(one.value) for one in samples})


def settings() -> Configuration:
    """The defaults as version 2, with a reference balance, so that trades are judged by lots."""
    return validate({"sizing": {"reference_balance": str(BALANCE)}}, Configuration())


async def decided(
    path: Path, for_s: float, acts: dict[float, Act] | None = None, url: str | None = None
) -> Decider:
    """Records for a while and decides meanwhile."""
    decider = Decider(path, acts or {})
    await decider.recorded(
        for_s,
        None,
        CONTRACTS,
        configuration=settings(),
        decide=decider.decide,
        database_url=url,
    )
    return decider


async def quiet_day(console: Console, folder: Path) -> bool:
    """True if nothing was refused."""
    decider = await decided(folder / "quiet.tape", HOURS * 3_600)
    refused = +decider.refused()
    denied = {name: count for name, count in decider.denied.items() if name in _UNDECIDED}
    console.print(
        f"quiet day: {HOURS:g} virtual hours, {len(decider.boards)} boards,"
        f" {decider.asked} times asked whether to trade, {refused.total()} decisions refused"
        f" {dict(refused) or ''}{denied or ''}"
    )
    return decider.is_usable and not refused and not denied


# Checks of should-trade that say that the service cannot decide.
_UNDECIDED: Final = frozenset({"data_fresh", "clock_known", "service_decides"})


def faults() -> dict[float, Act]:
    """Faults of an hour, by their second."""
    return {
        400.0: fault(kind="status", path="/api/v1/allTickers", status=503),
        800.0: heal,
        1_000.0: fault(kind="contract_status", symbol="ETHUSDTM", status="BeingSettled"),
        1_300.0: plant(symbol="XBTUSDTM", price_factor=1.08),
        1_600.0: heal,
        1_800.0: fault(kind="reset", path="*"),
        2_300.0: heal,
        2_500.0: event(kind="delist", symbol="SOLUSDTM", in_minutes=5),
        2_700.0: plant(symbol="XRPUSDTM", price_factor=0.85),
        3_000.0: fault(kind="status", path="*/level2/*", status=503),
        3_300.0: heal,
    }


async def faulty_hour(console: Console, folder: Path) -> bool:
    """True if the history holds no decision that had to be refused."""
    url = f"sqlite+aiosqlite:///{folder}/faulty.sqlite3"
    decider = await decided(folder / "faulty.tape", FAULTY_S, faults(), url)
    found = await check_url(url)
    refused = dict(+decider.refused())
    console.print(f"faulty hour: refused meanwhile {refused or 'nothing'}")
    return report(found, console) and found.decisions > 0


async def main() -> int:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    console = Console(width=120, highlight=False)
    with TemporaryDirectory(prefix="decisions-") as folder:
        is_quiet = await quiet_day(console, Path(folder))
        is_sound = await faulty_hour(console, Path(folder))
    return 0 if is_quiet and is_sound else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
