"""Automatic decisions wait for a board of the whole market since this start."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast
from uuid import UUID

import pytest

from app.alerts.services.monitor import AlertScheduler
from app.alerts.services.service import AlertService
from app.configuration.domain.model import Configuration
from app.foundation.idempotency import Command, IdempotentExecutor
from app.foundation.jobs import Document, JobKind
from app.foundation.metrics import Metrics
from app.foundation.sql.database import Database
from app.market.domain.models import Funding
from app.market.services.backfill import STAGES, first_fill
from app.market.services.service import MarketData
from app.my_symbols import MySymbolsServiceV2
from app.scoring.services.service import Scoring
from app.scoring.storage.runs import ScoringRepository
from app.workers.activities import activities
from app.workers.runs import create_runs
from tests.support.live_market import LiveMarket, open_market
from tests.support.trading_desk import NOW

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@dataclass
class Asked:
    """Stands for what the schedule only calls; its own tests show what it does."""

    asked: list[str] = field(default_factory=list)

    async def check(self, command: Command, scheduled_at: datetime) -> None:
        self.asked.append(f"{command.actor}: check of {scheduled_at:%H:%M}")

    async def publish(self, event: object) -> None:
        self.asked.append(repr(event))

    @property
    def events(self) -> "Asked":
        return self

    @staticmethod
    def clock() -> datetime:
        return NOW


@dataclass(frozen=True)
class Recorded:
    """A journal with what a process had done before it died."""

    run_id: str
    done: dict[str, Document]

    async def step(self, name: str, action: Callable[[], Awaitable[Document]]) -> Document:
        return self.done[name] if name in self.done else await action()

    def share(self, done: int, total: int) -> None: ...


@dataclass(frozen=True)
class Face:
    """The part of the service that the schedule uses."""

    market: MarketData
    scoring: Scoring
    rebalancing: Asked
    portfolio: Asked
    alerts: AlertService
    jobs: Asked
    stream: Asked
    notifications: Asked


@pytest.fixture
async def live(database: Database) -> AsyncIterator[LiveMarket]:
    async with open_market(database, contracts=14) as opened:
        yield opened


def service(live: LiveMarket) -> MySymbolsServiceV2:
    market = live.market()
    scoring = Scoring(
        market=market,
        database=live.database,
        clock=live.clock.now,
        monotonic=live.clock.monotonic,
        new_id=lambda: str(UUID(int=next(live.numbers))),
        configuration=Configuration,
        idempotency=IdempotentExecutor(live.database, live.clock.now),
    )
    asked = Asked()
    return cast(
        "MySymbolsServiceV2",
        Face(market, scoring, asked, asked, cast("AlertService", None), asked, asked, asked),
    )


async def test_after_a_restart_nothing_decides_on_the_board_of_a_half_filled_market(
    live: LiveMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = service(live)
    await first_fill(former.market)
    old = await former.scoring.calculate()

    live.clock.pass_(3600)
    now = service(live)
    await now.market.registry.load()
    assert await now.scoring.load() is not None
    work = activities(now, AlertScheduler(now.alerts, Metrics()), lambda: "request-1")
    decides, fetches = (asyncio.ensure_future(gate()) for gate in (work.scored, work.filled))
    halves: list[bool] = []
    beats: list[str] = []
    rates = live.exchange.funding_history

    async def while_filling(code: str, start_ms: int, end_ms: int) -> tuple[Funding, ...]:
        """The market is scorable, and scored, in the midst of the fill."""
        if not halves:
            assert now.market.scorable.is_set()
            halves.append(False)
            board = await now.scoring.calculate()
            await asyncio.sleep(0.01)
            halves[0] = board.run_id != old.run_id and not (decides.done() or fetches.done())
        return await rates(code, start_ms, end_ms)

    monkeypatch.setattr(live.exchange, "funding_history", while_filling)
    await work.first_fill(lambda: beats.append(now.market.fill.stage))
    await asyncio.wait_for(asyncio.gather(decides, fetches), 60)
    assert halves == [True]
    assert set(beats) == set(STAGES), "each stage gives signs of life"
    newest = now.scoring.board()
    async with live.database.read() as unit:
        past = await unit.get(ScoringRepository).history("BTCUSDT", None, 9)
    assert past[0].run_id == newest.run_id
    assert [one.run_id for one in past] == [newest.run_id, old.run_id], "no provisional one"

    await work.rebalance_check(live.clock.now())
    assert cast("Asked", now.rebalancing).asked == [f"schedule: check of {live.clock.now():%H:%M}"]


async def test_a_backfill_of_a_dead_process_is_scored_once_this_one_has_a_market_itself(
    live: LiveMarket,
) -> None:
    now = service(live)
    work = activities(now, AlertScheduler(now.alerts, Metrics()), lambda: "request-1")
    runs = {one.kind: one for one in create_runs(now, work, lambda _: {})}
    assert runs.keys() == set(JobKind)
    run = runs[JobKind.BACKFILL]
    journal = Recorded("backfill:1", {"contracts": {"listed": 14}, "fill": {"eligible": 14}})
    going_on = asyncio.ensure_future(run.work(journal, {}))
    await asyncio.sleep(0.01)
    assert not going_on.done()
    await work.first_fill(lambda: None)
    made = await asyncio.wait_for(going_on, 60)
    assert now.market.is_filled()
    assert (made["listed"], made["scores_calculated"]) == (14, now.scoring.board().universe_size)
