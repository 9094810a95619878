"""Records that retention deletes, and records that it never deletes."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import select

from app.foundation.sql.database import Database
from app.foundation.sql.events import EventRepository
from app.foundation.sql.idempotency import IdempotencyRepository
from app.foundation.sql.schema import metadata
from app.foundation.sql.tables import events, idempotency_keys
from app.market.storage.market_data import MarketRepository
from app.market.storage.tables import market_snapshots
from app.operations.storage.audit import verify_history
from app.scoring.storage.runs import ScoringRepository
from app.scoring.storage.tables import scoring_runs
from tests.support.trading_desk import NOW, WHO, Desk

# What may go: market data and boards made of it, answers kept for a caller, the stream's memory.
FORGOTTEN = {table.name for table in (events, idempotency_keys, market_snapshots, scoring_runs)} | {
    "symbol_scores",
    "scoring_run_details",
}
KEPT = {"portfolio_history", "portfolio_members", "rebalance_runs", "rebalance_run_steps"}


async def _everything(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    async with database.read() as unit:
        return {
            table.name: sorted(
                tuple(map(str, row)) for row in await unit.connection.execute(select(table))
            )
            for table in metadata.sorted_tables
        }


async def test_B18_retention_leaves_history_and_intents_alone(
    database: Database, database_url: str
) -> None:
    desk = await Desk(database).filled(4)
    desk.score({"C00USDT": 0.95, "C03USDT": 0.61})
    await desk.rebalancing.rebalance(WHO, account_balance=Decimal(10_000))
    last = (await desk.members())[-1]
    await desk.portfolio.remove(last, "a test", WHO)
    before = await _everything(database)
    assert all(before[name] for name in KEPT), "nothing there to be forgotten"

    late = NOW + timedelta(days=3_650)
    async with database.write() as unit:
        await unit.get(IdempotencyRepository).forget(late)
        await unit.get(EventRepository).forget(late, 0)
        await unit.get(MarketRepository).prune_snapshots(int(late.timestamp() * 1000))
        runs = [run.run_id for run in await unit.get(ScoringRepository).stored_runs(late)]
        await unit.get(ScoringRepository).drop_inputs(runs)
        await unit.get(ScoringRepository).delete_runs(runs)

    after = await _everything(database)
    assert {name for name in before if before[name] != after[name]} <= FORGOTTEN
    assert before["events"]
    assert not after["events"]
    findings = await verify_history(database_url)
    assert findings.ok, findings.breaks
    assert findings.events == len(before["portfolio_history"])
