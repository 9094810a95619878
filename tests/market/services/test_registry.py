"""The registry against a real socket: sync, versions, vanishing, quarantine; on both databases."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from app.foundation.errors import Code, RefusedError, UnavailableError
from app.foundation.sql.database import Database
from app.market.domain.models import ContractStatus
from app.market.services.symbol_registry import Registry
from app.market.storage.symbols import SymbolRepository
from tests.support.live_market import CONTRACTS, LiveMarket, open_market

# Where no statement differs between the databases, one of them is enough.
DAY_MS = 86_400_000
ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
ONE = "/api/v1/contracts/{symbol}"


@pytest.fixture
async def live(database: Database) -> AsyncIterator[LiveMarket]:
    async with open_market(database) as opened:
        yield opened


@pytest.fixture
async def registry(live: LiveMarket) -> Registry:
    made = live.registry()
    await made.sync()
    return made


async def test_first_sync_stores_everything_under_ids_of_ours(
    live: LiveMarket, database: Database
) -> None:
    registry = live.registry()
    with pytest.raises(UnavailableError) as nothing:
        registry.resolve("BTCUSDT")
    assert nothing.value.code is Code.EXCHANGE_UNAVAILABLE
    listing, summary = await registry.sync()
    assert len(listing.contracts) == summary.listed == len(summary.added) == 24
    assert (summary.updated, summary.delisted, summary.specification_changed) == ((), (), ())
    entry = registry.resolve("xbt-usdt")
    assert registry.resolve(entry.symbol_id) == entry
    assert registry.record(entry).sector == "layer1"
    async with database.read() as unit:
        stored = await unit.get(SymbolRepository).all()
    assert {one.symbol: one.contract for one in stored} == {
        one.symbol: one.contract for one in registry.index.entries
    }


@ON_SQLITE
async def test_a_second_sync_changes_nothing(registry: Registry, live: LiveMarket) -> None:
    before = registry.known.index
    live.clock.pass_(60)
    _, summary = await registry.sync()
    assert (summary.added, summary.updated, summary.delisted) == ((), (), ())
    assert registry.known.index is before
    entry = registry.resolve("BTCUSDT")
    record = registry.record(entry)
    assert record.last_seen - record.first_seen == timedelta(seconds=60)


@ON_SQLITE
async def test_a_restart_knows_what_was_known(registry: Registry, live: LiveMarket) -> None:
    again = live.registry()
    assert await again.load() == 24
    assert again.index.entries == registry.index.entries
    _, summary = await again.sync()
    assert summary.added == ()


async def test_a_changed_specification_gets_a_version_with_validity(
    registry: Registry, live: LiveMarket, database: Database
) -> None:
    entry = registry.resolve("ETHUSDT")
    live.clock.pass_(600)
    await live.fault("malformed", CONTRACTS, symbol="ETHUSDTM", field="tickSize", value=0.05)
    _, summary = await registry.sync()
    assert summary.specification_changed == ("ETHUSDT",)
    async with database.read() as unit:
        old, new = await unit.get(SymbolRepository).specifications(entry.symbol_id)
    assert old.valid_to == new.valid_from == live.clock.now()
    assert new.valid_to is None
    assert old.contract.tick_size == entry.contract.tick_size
    assert str(new.contract.tick_size) == "0.05"
    assert registry.resolve("ETHUSDT").symbol_id == entry.symbol_id


@ON_SQLITE
async def test_D14_R14_statuses_follow_within_one_refresh(
    registry: Registry, live: LiveMarket
) -> None:
    await live.fault("contract_status", symbol="ETHUSDTM", status="Paused", listed=True)
    await live.fault("malformed", CONTRACTS, symbol="XRPUSDTM", field="status", value="Foo")
    _, summary = await registry.sync()
    assert summary.updated == ("ETHUSDT", "XRPUSDT")
    assert registry.resolve("ETHUSDT").contract.status is ContractStatus.PAUSED
    assert registry.resolve("XRPUSDT").contract.status is ContractStatus.UNKNOWN


async def test_D14_the_start_of_a_pause_is_kept_and_survives_a_restart(
    registry: Registry, live: LiveMarket
) -> None:
    async def seen(status: str) -> Registry:
        live.clock.pass_(60)
        await live.heal()
        await live.fault("contract_status", symbol="ETHUSDTM", status=status, listed=True)
        await registry.sync()
        again = live.registry()
        await again.load()
        return again

    def since(found: Registry) -> datetime | None:
        return found.record(found.resolve("ETHUSDT")).paused_since

    first = await seen("Paused")
    began = live.clock.now()
    assert since(registry) == since(first) == began
    second = await seen("CancelOnly")
    assert since(registry) == since(second) == began, "one pause"
    third = await seen("BeingSettled")
    assert since(registry) is since(third) is None
    fourth = await seen("Paused")
    assert since(registry) == since(fourth) == live.clock.now() > began


@ON_SQLITE
@pytest.mark.parametrize(("behind", "late"), [(DAY_MS, True), (4_000, False), (-DAY_MS, False)])
async def test_a_pause_is_never_stamped_by_a_clock_that_is_behind(
    live: LiveMarket, behind: int, late: bool
) -> None:
    """Right again after a restart, that clock would make a minute look like a day."""
    data = live.market()
    await live.post("clock", {"advance_ms": behind})
    await data.refresh_market()
    await live.fault("contract_status", symbol="ETHUSDTM", status="Paused", listed=True)
    live.clock.pass_(60)
    await data.refresh_market()
    again = live.registry()
    await again.load()
    for found in (data.registry, again):
        began = found.record(found.resolve("ETHUSDT")).paused_since
        assert began is not None
        exact = data.server_clock.now() if late else live.clock.now()
        assert abs(began - exact) < timedelta(seconds=1)


async def test_a_vanished_contract_is_kept_marked_and_may_return(
    registry: Registry, live: LiveMarket
) -> None:
    entry = registry.resolve("ETHUSDT")
    seen = registry.record(entry).last_seen
    live.clock.pass_(60)
    await live.fault("vanish", CONTRACTS, symbols=["ETHUSDTM"])
    _, summary = await registry.sync()
    assert summary.delisted == ("ETHUSDT",)
    gone = registry.resolve("ETHUSDT")
    assert gone.symbol_id == entry.symbol_id
    assert gone.contract.status is ContractStatus.VANISHED
    record = registry.record(gone)
    assert (record.vanished_at, record.last_seen) == (live.clock.now(), seen)
    again = live.registry()
    await again.load()
    assert again.resolve("ETHUSDT") == gone
    _, summary = await registry.sync()
    assert summary.delisted == ()
    await live.heal()
    _, summary = await registry.sync()
    assert summary.updated == ("ETHUSDT",)
    back = registry.resolve("ETHUSDT")
    assert back == entry
    assert registry.record(back).vanished_at is None


@pytest.mark.parametrize("fault", [{"kind": "empty_list"}, {"kind": "vanish", "share": 0.3}])
async def test_R11_a_list_that_loses_too_much_is_quarantined(
    registry: Registry, live: LiveMarket, fault: dict[str, object]
) -> None:
    universe = registry.known.index
    gone = {"kind": "contract_status", "symbol": "ETHUSDTM", "status": "Paused", "listed": False}
    await live.post("faults", [{"path": CONTRACTS, **fault}, gone])
    live.held = ["XBTUSDTM", "ETHUSDTM"]
    asked = (await live.requests()).get(ONE, 0)

    # doubted at first, and however often it comes within a minute
    for _ in range(4):
        _, summary = await registry.sync()
        assert summary.quarantined is not None
        assert summary.confirmations == 1
        assert summary.delisted == ()
        live.clock.pass_(10)
    doubt = registry.anomaly
    assert doubt is not None
    # nothing was evicted; the members that were missing were asked for one by one
    assert {one.symbol for one in registry.index.entries} == {
        one.symbol for one in universe.entries
    }
    assert not any(one.contract.status is ContractStatus.VANISHED for one in registry.index.entries)
    assert registry.resolve("ETHUSDT").contract.status is ContractStatus.PAUSED
    assert registry.resolve("BTCUSDT") == universe.resolve("BTCUSDT")
    assert (await live.requests())[ONE] >= asked + 4
    again = live.registry()
    await again.load()
    assert len(again.index.entries) == len(universe.entries)

    # the third equal answer, each a minute or more after the last, convinces
    live.clock.pass_(30)
    _, summary = await registry.sync()
    assert summary.confirmations == 2
    live.clock.pass_(60)
    _, summary = await registry.sync()
    assert summary.quarantined is None
    assert registry.anomaly is None
    assert len(summary.delisted) > 0.2 * len(universe.entries)
    assert len(registry.index.entries) == len(universe.entries)


@ON_SQLITE
async def test_R11_another_list_begins_the_count_anew(registry: Registry, live: LiveMarket) -> None:
    for share, confirmations in ((0.3, 1), (0.3, 2), (0.5, 1), (0.5, 2)):
        await live.heal()
        await live.fault("vanish", CONTRACTS, share=share)
        _, summary = await registry.sync()
        assert summary.confirmations == confirmations
        live.clock.pass_(61)
    await live.heal()
    _, summary = await registry.sync()
    assert summary.quarantined is None
    assert registry.pending_anomaly is None
    assert summary.delisted == ()


@ON_SQLITE
async def test_a_fifth_may_vanish_without_doubt(registry: Registry, live: LiveMarket) -> None:
    codes = [one.contract.code for one in registry.index.entries][:4]
    await live.fault("vanish", CONTRACTS, symbols=codes)
    _, summary = await registry.sync()
    assert summary.quarantined is None
    assert len(summary.delisted) == 4


@ON_SQLITE
async def test_R13_a_rejected_record_is_no_vanished_contract(
    registry: Registry, live: LiveMarket
) -> None:
    await live.fault("malformed", CONTRACTS, symbol="ETHUSDTM", field="multiplier", value=True)
    _, summary = await registry.sync()
    assert [one.key for one in summary.rejections] == ["ETHUSDTM"]
    assert summary.delisted == ()
    assert registry.resolve("ETHUSDT").contract.status is ContractStatus.OPEN


@ON_SQLITE
async def test_a_list_given_twice_counts_once(registry: Registry, live: LiveMarket) -> None:
    await live.fault("duplicate", CONTRACTS)
    _, summary = await registry.sync()
    assert summary.listed == 24
    assert (summary.added, summary.delisted) == ((), ())


@ON_SQLITE
async def test_two_contracts_of_one_name_the_known_one_keeps_it(
    registry: Registry, live: LiveMarket
) -> None:
    await live.fault("malformed", CONTRACTS, symbol="XRPUSDTM", field="baseCurrency", value="ETH")
    _, summary = await registry.sync()
    (refused,) = summary.rejections
    assert refused.key == "XRPUSDTM"
    assert "ETHUSDTM" in refused.reason
    assert registry.resolve("ETHUSDT").contract.code == "ETHUSDTM"
    assert registry.resolve("XRPUSDT").contract.base == "XRP"


async def test_D16_a_newcomer_takes_the_name_of_a_vanished_contract(
    registry: Registry, live: LiveMarket
) -> None:
    old = registry.resolve("ETHUSDT")
    await live.fault("vanish", CONTRACTS, symbols=["ETHUSDTM"])
    await live.fault("malformed", CONTRACTS, symbol="XRPUSDTM", field="baseCurrency", value="ETH")
    await registry.sync()
    _, summary = await registry.sync()
    assert summary.rejections == ()
    entry = registry.resolve("ETHUSDT")
    assert entry.contract.code == "XRPUSDTM"
    assert entry.symbol_id != old.symbol_id, "what was written of the old one stays its own"
    again = live.registry()
    await again.load()
    assert again.resolve("ETHUSDT") == entry
    with pytest.raises(RefusedError):
        again.resolve(old.symbol_id)


@ON_SQLITE
async def test_D16_nobody_takes_the_name_of_a_member_that_vanished(
    registry: Registry, live: LiveMarket
) -> None:
    old = registry.resolve("ETHUSDT")
    live.held = ["ETHUSDTM"]
    await live.fault("vanish", CONTRACTS, symbols=["ETHUSDTM"])
    await live.fault("malformed", CONTRACTS, symbol="XRPUSDTM", field="baseCurrency", value="ETH")
    for _ in range(3):
        _, summary = await registry.sync()
        assert [one.key for one in summary.rejections] == ["XRPUSDTM"]
    kept = registry.resolve("ETHUSDT")
    assert (kept.symbol_id, kept.contract.code) == (old.symbol_id, "ETHUSDTM")
    assert kept.contract.status is ContractStatus.VANISHED, "so it leaves the portfolio"
    live.held = []
    _, summary = await registry.sync()
    assert summary.rejections == ()
    assert registry.resolve("ETHUSDT").contract.code == "XRPUSDTM"


@pytest.mark.parametrize("is_gone_first", [True, False])
async def test_D16_a_code_that_is_listed_again_is_another_contract(
    registry: Registry, live: LiveMarket, database: Database, is_gone_first: bool
) -> None:
    old = registry.resolve("ETHUSDT")
    if is_gone_first:
        await live.fault("vanish", CONTRACTS, symbols=["ETHUSDTM"], times=1)
        await registry.sync()
    live.clock.pass_(60)
    opened_ms = round(live.clock.wall() * 1000)
    await live.fault(
        "malformed", CONTRACTS, symbol="ETHUSDTM", field="firstOpenDate", value=opened_ms
    )
    _, summary = await registry.sync()
    assert (summary.added, summary.updated) == (("ETHUSDT",), ())
    assert summary.delisted == (() if is_gone_first else ("ETHUSDT",))
    new = registry.resolve("ETHUSDT")
    assert new.symbol_id != old.symbol_id
    assert new.contract == replace(old.contract, listed_ms=opened_ms)
    again = live.registry()
    await again.load()
    for known in (registry, again):
        assert known.resolve("ETHUSDTM") == new
        with pytest.raises(RefusedError):
            known.resolve(old.symbol_id)
    _, summary = await again.sync()
    assert (summary.added, summary.delisted, summary.updated) == ((), (), ())
    async with database.read() as unit:
        former = await unit.get(SymbolRepository).get(old.symbol_id)
    assert former is not None
    assert former.vanished_at is not None
    assert former.contract == replace(old.contract, status=ContractStatus.VANISHED)


@ON_SQLITE
async def test_D16_a_member_whose_code_is_listed_again_leaves_before_the_newcomer_is_known(
    registry: Registry, live: LiveMarket
) -> None:
    old = registry.resolve("ETHUSDT")
    live.held = ["ETHUSDTM"]
    opened_ms = round(live.clock.wall() * 1000) + 1
    await live.fault(
        "malformed", CONTRACTS, symbol="ETHUSDTM", field="firstOpenDate", value=opened_ms
    )
    for _ in range(2):
        _, summary = await registry.sync()
        assert [one.key for one in summary.rejections] == ["ETHUSDTM"]
    kept = registry.resolve("ETHUSDT")
    assert kept.symbol_id == old.symbol_id
    assert kept.contract.status is ContractStatus.VANISHED, "so it leaves the portfolio"
    live.held = []
    await registry.sync()
    assert registry.resolve("ETHUSDT").contract.listed_ms == opened_ms


@ON_SQLITE
async def test_an_unanswered_sync_leaves_everything_as_it_was(
    registry: Registry, live: LiveMarket
) -> None:
    before = registry.known
    await live.fault("reset", CONTRACTS)
    with pytest.raises(UnavailableError):
        await registry.sync()
    assert registry.known is before


@ON_SQLITE
async def test_R11_a_held_contract_that_cannot_be_confirmed_stays_as_it_was(
    registry: Registry, live: LiveMarket
) -> None:
    before = registry.resolve("ETHUSDT")
    live.held = ["ETHUSDTM"]
    await live.fault("empty_list", CONTRACTS)
    await live.fault("error", "/api/v1/contracts/ETHUSDTM", code="500000", message="later")
    _, summary = await registry.sync()
    assert summary.quarantined is not None
    assert registry.resolve("ETHUSDT") is before


async def test_changes_of_the_multiplier_survive_a_restart(
    registry: Registry, live: LiveMarket
) -> None:
    entry = registry.resolve("ETHUSDT")
    old, begun = entry.contract.multiplier, live.clock.now()
    live.clock.pass_(600)
    await live.post(
        "events", {"kind": "multiplier", "symbol": "ETHUSDTM", "multiplier": float(old * 1000)}
    )
    await registry.sync()
    (change,) = registry.record(entry).lot_changes
    assert (change.since, change.until) == (begun, live.clock.now())
    assert (change.before, change.after) == (old, old * 1000)
    again = live.registry()
    await again.load()
    assert again.record(entry).lot_changes == (change,)
    assert again.record(again.resolve("BTCUSDT")).lot_changes == ()
    await live.fault("contract_status", symbol="ETHUSDTM", status="Paused", listed=True)
    await again.sync()
    assert again.record(entry).lot_changes == (change,), "another change keeps them"
