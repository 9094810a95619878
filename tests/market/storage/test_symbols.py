"""Symbols and their specifications through time."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from app.foundation.errors import Code, RefusedError
from app.foundation.sql.database import Database
from app.market.domain.models import ContractStatus
from app.market.storage.symbols import SavedSymbols, SymbolRepository
from tests.support.stored_values import LATER, T0, listed, record, symbol_id


async def test_records_come_back_as_saved_by_name(database: Database) -> None:
    async with database.write() as unit:
        assert await unit.get(SymbolRepository).save([], T0) == SavedSymbols((), ())
        saved = await unit.get(SymbolRepository).save([record("ETH"), record("BTC")], T0)
        assert saved == SavedSymbols(("BTCUSDT", "ETHUSDT"), ())
        again = await unit.get(SymbolRepository).save([record("ETH"), record("BTC")], LATER)
        assert again == SavedSymbols((), ())
    async with database.read() as unit:
        assert await unit.get(SymbolRepository).all() == (record("BTC"), record("ETH"))
        assert await unit.get(SymbolRepository).get(symbol_id("ETH")) == record("ETH")
        assert await unit.get(SymbolRepository).get("nobody") is None


async def test_D12_a_changed_specification_is_a_new_version(database: Database) -> None:
    await listed(database, "BTC", "ETH")
    old = record("BTC")
    finer = replace(old.contract, tick_size=Decimal("0.01"))
    paused = replace(finer, status=ContractStatus.PAUSED)
    async with database.write() as unit:
        saved = await unit.get(SymbolRepository).save(
            [replace(old, contract=finer, last_seen=LATER)], LATER
        )
        assert saved == SavedSymbols((), ("BTCUSDT",))
        later = LATER + timedelta(hours=1)
        saved = await unit.get(SymbolRepository).save(
            [replace(old, contract=paused, last_seen=later)], later
        )
        assert saved == SavedSymbols((), ())  # a state is no specification
    async with database.read() as unit:
        versions = await unit.get(SymbolRepository).specifications(old.id)
        now = await unit.get(SymbolRepository).get(old.id)
        others = await unit.get(SymbolRepository).specifications(symbol_id("ETH"))
    spans = [(one.valid_from, one.valid_to, one.contract.tick_size) for one in versions]
    assert spans == [(T0, LATER, Decimal("0.1")), (LATER, None, Decimal("0.01"))]
    assert now is not None
    assert (now.contract, now.first_seen, now.last_seen) == (paused, T0, later)
    assert len(others) == 1


async def test_a_vanished_symbol_stays_and_frees_its_name(database: Database) -> None:
    await listed(database, "OLD")
    gone = replace(record("OLD"), vanished_at=LATER)
    heir = replace(record("NEW"), symbol="OLDUSDT")
    async with database.write() as unit:
        await unit.get(SymbolRepository).save([heir, gone], LATER)
    async with database.read() as unit:
        assert set(await unit.get(SymbolRepository).all()) == {gone, heir}
    with pytest.raises(RefusedError) as caught:
        async with database.write() as unit:
            await unit.get(SymbolRepository).save([record("OLD")], LATER)
    assert caught.value.code is Code.SYMBOL_AMBIGUOUS
