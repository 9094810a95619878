"""The history only grows, without gaps, and shows when somebody meddled."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import text

from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.errors import Code, ConflictError, ServiceError
from app.foundation.hash_chain import find_chain_faults
from app.foundation.sql.database import Database, UnitOfWork
from app.portfolio.domain.event_log import EventType
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import PortfolioRepository
from tests.support.stored_values import LATER, STAMP, draft


async def _append(database: Database, *symbols: str) -> None:
    async with database.write() as unit:
        await unit.get(PortfolioRepository).load(for_update=True)
        await unit.get(HistoryRepository).append([draft(symbol) for symbol in symbols], STAMP)


async def test_events_come_back_as_they_were_and_chained(database: Database) -> None:
    async with database.write() as unit:
        assert await unit.get(HistoryRepository).all() == ()
        first = await unit.get(HistoryRepository).append([draft(), draft("ETHUSDT", 2)], STAMP)
        second = await unit.get(HistoryRepository).append(
            [draft("XRPUSDT", 3)], replace(STAMP, occurred_at=LATER)
        )
        assert await unit.get(HistoryRepository).append([], STAMP) == ()
    async with database.read() as unit:
        events = await unit.get(HistoryRepository).all()
        assert events == first + second
        assert await unit.get(HistoryRepository).all(after_seq=2) == second
    assert [event.seq for event in events] == [1, 2, 3]
    assert find_chain_faults(events, None) == []


async def test_pages_go_back_in_time_by_symbol_and_kind(database: Database) -> None:
    swap = replace(
        draft("SOLUSDT"), type=EventType.REPLACE, other_symbol="BTCUSDT", payload={"version": 9}
    )
    async with database.write() as unit:
        await unit.get(HistoryRepository).append(
            [draft(), draft("ETHUSDT"), swap, draft("XRPUSDT")], STAMP
        )
    async with database.read() as unit:
        seqs = [event.seq for event in await unit.get(HistoryRepository).page(None, 2)]
        assert seqs == [4, 3]
        assert [event.seq for event in await unit.get(HistoryRepository).page(3, 2)] == [2, 1]
        of_btc = await unit.get(HistoryRepository).page(None, 10, symbol="BTCUSDT")
        assert [event.seq for event in of_btc] == [3, 1]
        swaps = await unit.get(HistoryRepository).page(None, 10, kind=EventType.REPLACE)
        assert [event.seq for event in swaps] == [3]


async def test_numbers_have_no_gap_when_many_append(database: Database) -> None:
    await asyncio.gather(*(_append(database, f"A{n}", f"B{n}") for n in range(20)))
    async with database.read() as unit:
        events = await unit.get(HistoryRepository).all()
    assert [event.seq for event in events] == list(range(1, 41))
    assert find_chain_faults(events, None) == []


async def test_without_the_lock_the_slower_one_loses(database: Database) -> None:
    appended = asyncio.Event()

    async def append(unit: UnitOfWork) -> None:
        await unit.get(HistoryRepository).append([draft()], STAMP)

    async def first(unit: UnitOfWork) -> None:
        await append(unit)
        appended.set()
        while not await waiting():
            await asyncio.sleep(0.01)

    async def second(unit: UnitOfWork) -> None:
        await appended.wait()
        await append(unit)

    async def waiting() -> bool:
        """Whether the other one waits for what this one wrote."""
        query = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        async with database.read() as unit:
            return bool((await unit.connection.execute(text(query))).scalar())

    if database.dialect == "sqlite":  # whoever writes has the lock already
        await asyncio.gather(database.run(append), database.run(append))
        return
    async with asyncio.timeout(120):
        results = await asyncio.gather(
            database.run(first), database.run(second), return_exceptions=True
        )
    lost = [one for one in results if one is not None]
    assert [type(one) for one in lost] == [ConflictError]
    async with database.read() as unit:
        assert len(await unit.get(HistoryRepository).all()) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE portfolio_history SET reason = 'other'",
        "DELETE FROM portfolio_history",
        "UPDATE configuration_versions SET created_by = 'other'",
        "DELETE FROM configuration_versions",
    ],
)
async def test_B17_history_and_configuration_refuse_to_change(
    database: Database, statement: str
) -> None:
    async with database.write() as unit:
        await unit.get(HistoryRepository).append([draft()], STAMP)
        await unit.get(ConfigurationRepository).get_or_create(LATER, "operator")
    with pytest.raises(ServiceError) as caught:
        async with database.write() as unit:
            await unit.connection.execute(text(statement))
    assert caught.value.code is Code.INTERNAL_ERROR
    async with database.read() as unit:
        assert len(await unit.get(HistoryRepository).all()) == 1


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
async def test_B17_truncating_is_refused_too(database: Database) -> None:
    with pytest.raises(ServiceError):
        async with database.write() as unit:
            await unit.connection.execute(text("TRUNCATE portfolio_history"))


async def test_B17_meddling_around_the_trigger_is_found(database: Database) -> None:
    await _append(database, "BTCUSDT", "ETHUSDT", "XRPUSDT")
    on = "" if database.dialect == "sqlite" else " ON portfolio_history"
    async with database.write() as unit:
        await unit.connection.execute(text(f"DROP TRIGGER portfolio_history_no_update{on}"))
        await unit.connection.execute(
            text("UPDATE portfolio_history SET reason = 'Because' WHERE seq = 2")
        )
    async with database.read() as unit:
        assert find_chain_faults(await unit.get(HistoryRepository).all(), None) == [
            "event 2 was altered"
        ]
