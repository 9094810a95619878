"""The history of a service that decided is checked, and planted violations are reported."""

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.foundation.hash_chain import instant_text
from app.foundation.sql.database import Database
from app.foundation.sql.engines import DatabaseOptions
from app.operations.domain.event_codec import encode_event
from app.portfolio.domain.event_log import Draft, EventOrigin, EventType, PortfolioEvent
from app.portfolio.storage.history import HistoryRepository
from benchmarks.decisions import decided
from benchmarks.history_check import BELOW_ONE_LOT, REVERSED, STALE, WITHIN, Checked, check
from tests.golden.scenario import plant

pytestmark = pytest.mark.xdist_group("history_check")


@pytest.fixture
async def database(tmp_path: Path) -> Any:
    """A quarter of an hour in which members came in and weights moved."""
    url = f"sqlite+aiosqlite:///{tmp_path}/history.sqlite3"
    acts = {310.0: plant(symbol="XBTUSDTM", price_factor=1.3)}
    await decided(tmp_path / "history.tape", 900.0, acts, url)
    opened = Database(DatabaseOptions(url), lambda: 0.0, lambda: 0.0, encode_event)
    await opened.open()
    yield opened
    await opened.close()


async def planted(
    database: Database,
    kind: EventType,
    later: timedelta,
    payload: Mapping[str, Any],
    symbol: str | None = None,
    other: str | None = None,
) -> PortfolioEvent:
    """One more event, so much later than the last one, on the same board and settings."""
    async with database.write() as unit:
        last = (await unit.get(HistoryRepository).all())[-1]
        stamp = EventOrigin(
            actor="planted",
            request_id="planted",
            occurred_at=last.occurred_at + later,
            configuration_version=last.configuration_version,
            input_hash=last.input_hash,
            code_version=last.code_version,
        )
        (event,) = await unit.get(HistoryRepository).append(
            [Draft(kind, symbol, other, payload, "planted")], stamp
        )
    return event


async def last_event(database: Database) -> PortfolioEvent:
    async with database.read() as unit:
        return (await unit.get(HistoryRepository).all())[-1]


def told(found: Checked) -> set[tuple[str, int]]:
    return {(one.rule, one.seq) for one in found.violations}


async def test_the_history_of_the_service_holds_no_violation(database: Database) -> None:
    found = await check(database)
    assert found.violations == []
    assert found.decisions >= 3
    async with database.read() as unit:
        events = await unit.get(HistoryRepository).all()
    assert {EventType.ADD, EventType.REBALANCE} <= {event.type for event in events}


async def test_a_decision_on_data_older_than_its_limit_is_reported(database: Database) -> None:
    at = (await last_event(database)).occurred_at
    second = timedelta(seconds=1)
    at_limit = await planted(
        database,
        EventType.ADD,
        timedelta(0),
        {"data_as_of": instant_text(at - 180 * second)},
    )
    stale_market = await planted(
        database,
        EventType.WEIGHTS,
        timedelta(0),
        {"data_as_of": instant_text(at - 181 * second)},
    )
    unknown = await planted(database, EventType.WEIGHTS, timedelta(0), {"data_as_of": None})
    stale_board = await planted(
        database,
        EventType.WEIGHTS,
        timedelta(minutes=16),
        {"data_as_of": instant_text(at + timedelta(minutes=16))},
    )
    removed = await planted(database, EventType.REMOVE, timedelta(0), {}, "ETHUSDT")
    found = await check(database)
    assert told(found) == {(STALE, one.seq) for one in (stale_market, unknown, stale_board)}
    assert not {at_limit.seq, removed.seq} & {one.seq for one in found.violations}
    said = {one.seq: one.detail for one in found.violations}
    assert said[stale_market.seq] == "its market was 181 s old, the limit is 180 s"
    assert said[unknown.seq] == "the age of its market is not known"
    assert "board" in said[stale_board.seq]


@pytest.mark.parametrize(
    ("passed", "is_reported"), [(WITHIN - timedelta(seconds=1), True), (WITHIN, False)]
)
async def test_a_replacement_reversed_within_seven_days_is_reported(
    database: Database, passed: timedelta, is_reported: bool
) -> None:
    kind, nothing = EventType.REPLACE, timedelta(0)
    await planted(database, kind, nothing, {}, "ADAUSDT", "XRPUSDT")
    await planted(database, kind, nothing, {}, "XRPUSDT", "ETHUSDT")
    undone = await planted(database, kind, passed, {}, "XRPUSDT", "ADAUSDT")
    found = await check(database)
    reversed_ones = [one for one in found.violations if one.rule == REVERSED]
    assert [one.seq for one in reversed_ones] == [undone.seq] * is_reported


async def test_a_trade_below_one_lot_is_reported(database: Database) -> None:
    """With an account of one unit of money no member can be moved by a lot."""
    async with database.read() as unit:
        events = await unit.get(HistoryRepository).all()
    rebalanced = {event.seq for event in events if event.type is EventType.REBALANCE}
    found = await check(database, Decimal(1))
    assert told(found) == {(BELOW_ONE_LOT, seq) for seq in rebalanced}
    assert found.sized == len(rebalanced) > 0
    assert (await check(database, Decimal(1_000_000_000))).violations == []
