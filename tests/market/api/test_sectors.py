"""The sector table over HTTP: defaults, edits, import and export, and what reads it."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.market.services.backfill import first_fill
from app.market.services.sectors import SectorService
from app.market.services.symbol_registry import shipped_sectors
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from tests.support.harness import PREFIX
from tests.support.problem_assertions import problem
from tests.support.service_in_process import Running, running, settings_for

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
HEADER = "base,asset_class,sector,cap_category\n"


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[Running]:
    options = SandboxOptions(quota=1_000_000, contracts=14, speed=0.0)
    async with (
        serve_exchange(options, time.time) as url,
        running(settings_for(url, database_url, background=False)) as made,
    ):
        await first_fill(made.services.my_symbols.market)
        yield made


async def _row(service: Running, base: str) -> dict[str, Any]:
    items = (await service.get("/sectors", search=base, limit=500))["items"]
    return next(one for one in items if one["base"] == base)


async def _put(service: Running, base: str, status: int = 200, **body: Any) -> Any:
    got = await service.client.put(f"{PREFIX}/sectors/{base}", json=body)
    assert got.status_code == status, got.text
    return got.json()


async def test_the_table_is_listed_filtered_and_paged(service: Running) -> None:
    defaults = shipped_sectors().rows
    pages: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = await service.get("/sectors", limit=100, **cursor)
        assert page["version"] == 0
        pages += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert [one["base"] for one in pages] == sorted(defaults)
    assert not any(one["is_edited"] for one in pages)
    btc = next(one for one in pages if one["base"] == "BTC")
    assert (btc["asset_class"], btc["sector"], btc["cap_category"]) == ("coin", "layer1", "large")
    assert {"BTCUSDT"} <= set(btc["symbols"])
    listed = (await service.get("/sectors", listed="true", limit=500))["items"]
    assert {name for one in listed for name in one["symbols"]} == {
        one["symbol"] for one in (await service.get("/symbols", limit=500))["items"]
    }
    memes = (await service.get("/sectors", sector="meme", limit=500))["items"]
    assert {one["base"] for one in memes} == {
        base for base, one in defaults.items() if one.sector == "meme"
    }


async def test_an_edit_is_in_force_at_once_wherever_sectors_are_read(service: Running) -> None:
    before = await service.get("/universe/funnel")
    market = service.services.my_symbols.market
    known = market.quote("ETHUSDT")
    assert known is not None
    assert known.sector == "layer1"
    done = await _put(service, "ETH", sector="test_sector", reason="an experiment")
    assert done == {
        "version": 1,
        "changes": [
            {
                "base": "ETH",
                "before": {"asset_class": "coin", "sector": "layer1", "cap_category": "large"},
                "after": {"asset_class": "coin", "sector": "test_sector", "cap_category": "large"},
            }
        ],
    }
    assert (await _row(service, "ETH"))["is_edited"] is True
    edited = await service.get("/sectors", edited="true")
    assert ([one["base"] for one in edited["items"]], edited["version"]) == (["ETH"], 1)
    assert (await service.get("/symbols/ETHUSDT"))["symbol"]["sector"] == "test_sector"
    funnel = await service.get("/universe/funnel")
    assert funnel["sectors"]["test_sector"] > 0
    assert funnel["eligible"] == before["eligible"]
    quote = market.quote("ETHUSDT")
    assert quote is not None
    assert quote.sector == "test_sector", "the next decision reads it"
    async with market.database.read() as unit:
        rows = await unit.connection.exec_driver_sql(
            "SELECT DISTINCT sector, cap_category FROM contracts WHERE base = 'ETH'"
        )
        assert [tuple(row) for row in rows] == [("test_sector", "large")]

    # Only coins are scored: another kind leaves the universe at once.
    await _put(service, "ETH", sector="wrapped", asset_class="wrapped", cap_category="mid")
    excluded = {
        one["symbol"]: one["rule"] for one in (await service.get("/universe/funnel"))["excluded"]
    }
    assert excluded["ETHUSDT"] == "asset_class"
    again = await _put(service, "ETH", sector="wrapped")
    assert again == {"version": 2, "changes": []}, "without an effect there is no version"

    reset = await service.client.delete(f"{PREFIX}/sectors/ETH")
    assert reset.json()["changes"][0]["after"] is None
    row = await _row(service, "ETH")
    assert (row["sector"], row["asset_class"], row["is_edited"]) == ("layer1", "coin", False)
    assert (await service.get("/universe/funnel"))["sectors"] == before["sectors"]
    problem(await service.client.delete(f"{PREFIX}/sectors/ETH"), 404, "not_found")


async def test_every_change_is_in_the_audit_log_with_what_was_before(service: Running) -> None:
    key = {"Idempotency-Key": "once"}
    for _ in range(2):
        got = await service.client.put(
            f"{PREFIX}/sectors/SOL", json={"sector": "defi", "reason": "why not"}, headers=key
        )
        assert got.json()["version"] == 1, "a retry is no second change"
    await service.post("/sectors/import", {"csv": f"{HEADER}XYZ,coin,ai,micro\n"})
    await service.client.delete(f"{PREFIX}/sectors/SOL")
    items = (await service.get("/audit", limit=50))["items"]
    found = [one for one in items if one["action"] == "sectors_changed"][::-1]
    assert [(one["code"], one["subject"]) for one in found] == [
        ("set", "SOL"), ("imported", "table"), ("reset", "SOL"),
    ]  # fmt: skip
    assert found[0]["details"] == {
        "version": 1, "reason": "why not", "changed": 1,
        "changes": [
            {"base": "SOL", "before": "coin,layer1,large", "after": "coin,defi,large"}
        ],
    }  # fmt: skip
    assert found[2]["details"]["changes"] == [
        {"base": "SOL", "before": "coin,defi,large", "after": None}
    ]


async def test_an_export_can_be_edited_and_imported_as_a_whole(service: Running) -> None:
    table = (await service.get("/sectors/export"))["csv"]
    assert table.startswith(HEADER)
    assert len(table.splitlines()) == len(shipped_sectors().rows) + 1
    same = await service.post("/sectors/import", {"csv": table})
    assert same == {"version": 0, "changes": []}

    await _put(service, "ADA", sector="payments")
    changed = (await service.get("/sectors/export"))["csv"]
    edited = changed.replace("BTC,coin,layer1,large", "BTC,coin,store_of_value,large")
    edited = edited.replace("ADA,coin,payments,large\n", "") + "# a note\nNEWCOIN,coin,ai,micro\n"
    done = await service.post("/sectors/import", {"csv": edited, "reason": "from the desk"})
    assert (done["version"], [one["base"] for one in done["changes"]]) == (2, ["BTC", "NEWCOIN"])
    assert (await _row(service, "ADA"))["sector"] == "payments", "what a table lacks stays"
    done = await service.post("/sectors/import", {"csv": edited, "resets_missing": True})
    assert [(one["base"], one["after"]) for one in done["changes"]] == [("ADA", None)]
    assert (await _row(service, "NEWCOIN"))["symbols"] == []
    assert (await service.get("/sectors/export"))["csv"].count("\n") == table.count("\n") + 1


async def test_a_wrong_table_or_word_is_named_and_nothing_is_applied(service: Running) -> None:
    for rows, place in (
        ("BTC,coin,ai,large\nETH,rock,ai,large\n", "Line 3"),
        ("BTC,coin,AI sector,large\n", "Line 2"),
        ("B T C,coin,ai,large\n", "Line 2"),
        ("BTC,coin,ai,huge\n", "Line 2"),
        ("BTC,coin,ai,large\nBTC,coin,defi,large\n", "Line 3"),
        ("BTC,coin\n", "Line 2"),
    ):
        answer = await service.client.post(f"{PREFIX}/sectors/import", json={"csv": HEADER + rows})
        body = problem(answer, 422, "validation_failed")
        assert body["detail"].startswith(place), body["detail"]
    answer = await service.client.post(f"{PREFIX}/sectors/import", json={"csv": "BTC,layer1"})
    assert "must begin with base,asset_class" in problem(answer, 422, "validation_failed")["detail"]
    for base, body in (
        ("BTC", {"sector": "Layer 1"}),
        ("BTC", {"sector": "layer1", "asset_class": "rock"}),
        ("B-T", {"sector": "layer1"}),
        ("BTC", {}),
    ):
        await _put(service, base, 422, **body)
    assert (await service.get("/sectors"))["version"] == 0
    assert (await service.get("/sectors", edited="true"))["items"] == []


async def test_edits_outlive_a_restart_and_reach_other_processes_by_their_events(
    service: Running,
) -> None:
    mine = service.services.my_symbols
    other = SectorService(
        registry=type(mine.registry)(
            exchange=mine.market.exchange,
            database=mine.market.database,
            sectors=shipped_sectors(),
            clock=mine.registry.clock,
            monotonic=mine.registry.monotonic,
            new_id=mine.registry.new_id,
        ),
        database=mine.market.database,
        idempotency=mine.idempotency,
        defaults=shipped_sectors(),
    )
    await other.load()
    stream = mine.stream
    heard = stream.on_record

    records = []

    def both(record: Any) -> None:
        records.append(record)
        heard(record)
        other.on_record(record)

    stream.on_record = both
    await _put(service, "BTC", sector="store_of_value")
    await _put(service, "ETH", sector="platform")
    await stream.catch_up()
    assert other.registry.sectors.classify("BTC").sector == "store_of_value"
    assert other.registry.sectors.classify("ETH").sector == "platform"
    assert (other.version, mine.sectors.version) == (2, 2), "each is applied once"
    assert (await _row(service, "BTC"))["sector"] == "store_of_value", "own events change nothing"
    other.on_record(next(one for one in records if one.type == "sectors_changed"))
    assert other.version == 2, "an earlier change that comes again is no change"
    await asyncio.gather(*(_put(service, f"C{at}", sector="ai") for at in range(10)))
    await stream.catch_up()
    assert (other.version, mine.sectors.version) == (12, 12)
    assert other.registry.sectors.rows == mine.registry.sectors.rows

    started = SectorService(other.registry, other.database, other.idempotency, shipped_sectors())
    await started.load()
    assert started.registry.sectors.rows == mine.registry.sectors.rows
