"""A day of an engine through a typed client that is generated from the served document."""

import asyncio
import importlib
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from app.foundation.http.openapi import OPENAPI_PATH
from app.market.services.service import MarketData
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from tests.support.service_in_process import Running, running, settings_for
from tests.support.typed_client import METHODS, generate_client

ENGINE: Final = Path(__file__).parents[2] / "docs/examples/engine_day.py"
MODULES: Final = ("my_symbols_client", "engine_day")
HOURS: Final = 24
HOUR_MS: Final = 3_600_000


async def mypy(folder: Path) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mypy", "--strict", "--cache-dir", folder / "cache"),
        *(f"{name}.py" for name in MODULES),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(300):
        output, _ = await process.communicate()
    return process.returncode, output.decode()


async def check_types(folder: Path) -> None:
    """Client and engine are strictly typed; a field or an argument that is unknown is an error."""
    code, output = await mypy(folder)
    assert code == 0, output
    engine, source = folder / ENGINE.name, ENGINE.read_text(encoding="utf-8")
    for right, wrong in (
        ("rankings.items[0].symbol", "rankings.items[0].ticker"),
        ("signal_strength=0.7", 'signal_strength="strong"'),
        ("list_rankings(limit=10)", "list_rankings(most=10)"),
    ):
        assert source.count(right) == 1
        engine.write_text(source.replace(right, wrong), encoding="utf-8")
        code, output = await mypy(folder)
        assert code == 1, f"{wrong}: {output}"
    engine.write_text(source, encoding="utf-8")


async def generated(folder: Path, service: Running) -> dict[str, Any]:
    """Writes the client of the served document and the engine; returns the document."""
    answer = await service.client.get(OPENAPI_PATH)
    document: dict[str, Any] = answer.json()
    (folder / "my_symbols_client.py").write_text(generate_client(document), encoding="utf-8")
    shutil.copy(ENGINE, folder)
    return document


async def fetch_hour(market: MarketData) -> None:
    """The requests of the schedule, once the exchange's clock shows another hour."""
    await market.server_clock.sync()
    await market.fetch_contracts()
    await market.refresh_tickers()
    await market.refresh_market()
    await market.refresh_candles()
    await market.refresh_books(15.0)
    await market.refresh_funding()


async def test_an_engine_runs_a_day_with_a_client_of_the_served_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exchange's time moves by an hour 24 times; the clock of the service is the real one."""
    start_ms = int(time.time() * 1000) - HOURS * HOUR_MS
    options = SandboxOptions(contracts=16, quota=1_000_000, now_ms=start_ms, speed=0.0)
    database = f"sqlite+aiosqlite:///{tmp_path}/one.sqlite3"
    async with (
        serve_exchange(options, time.time) as url,
        running(settings_for(url, database, background=False)) as service,
        aiohttp.ClientSession() as control,
    ):
        document = await generated(tmp_path, service)
        await check_types(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        for name in MODULES:
            monkeypatch.delitem(sys.modules, name, raising=False)
        api, program = (importlib.import_module(name) for name in MODULES)
        client = api.Client(service.client)
        operations = {
            one["operationId"]
            for path in document["paths"].values()
            for method, one in path.items()
            if method in METHODS
        }
        assert {one for one in vars(api.Client) if not one.startswith("_")} == operations

        engine, hours = program.Engine(client, "10000"), []
        for number in range(HOURS):
            async with control.post(f"{url}/_control/clock", json={"advance_ms": HOUR_MS}) as moved:
                exchange_ms = (await moved.json())["now_ms"]
            if number == 0:
                await client.initialize_sample_data()
            await fetch_hour(service.services.my_symbols.market)
            await client.calculate_scores()
            if number == 0:
                begun = await client.initialize_portfolio(api.InitializeIn(reason="first", size=5))
                assert begun.version > 0
            hour = await engine.run_hour(number, datetime.now(UTC))
            hours.append(hour)
            assert hour.portfolio.data_status == "fresh"
            age_ms = exchange_ms - hour.portfolio.as_of.timestamp() * 1000
            assert abs(age_ms) < 60_000, "the data are those of this hour"
            weights = {one.symbol: one.weight_percentage for one in hour.portfolio.members}
            assert engine.known == weights, "the changes alone give the weights"
            assert {one.symbol for one in hour.sizes.sizes} == set(weights)
            assert hour.signal.source_signal_id == f"signal-{number}"
            assert (hour.trade.trade_id, hour.trade.net) == (f"fill-{number}", "12.5")
            assert set(hour.tradeable) <= set(weights)
        assert len({hour.plan.run_id for hour in hours}) == HOURS
        assert hours[0].portfolio.size > 1
        assert any(hour.tradeable for hour in hours)
        assert any("portfolio_change" in hour.topics for hour in hours)

        booked = await client.list_trades(limit=100)
        assert {one.trade_id for one in booked.items} == {f"fill-{one}" for one in range(HOURS)}
        again = await client.rebalance_portfolio(
            api.RebalanceIn(reason="hourly", user="engine"), idempotency_key="hour-23"
        )
        assert again == hours[-1].plan, "a repeated call has the stored answer"
        with pytest.raises(api.ProblemError) as refused:
            await client.get_symbol("NOSUCHUSDT")
        assert refused.value.problem.model_extra["near_matches"]
        assert (refused.value.status, refused.value.problem.code) == (422, "symbol_unknown")
