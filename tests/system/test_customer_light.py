"""The customer's full workflow through HTTP, and the route for debugging."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.container.runtime_values import full_version
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from tests.support.harness import PREFIX
from tests.support.problem_assertions import problem
from tests.support.service_in_process import Running, running, settings_for
from tests.system.test_plugins import installed

CONTRACTS = 16
__all__ = ["installed"]  # a fixture of packages that extend the service


@dataclass(frozen=True, slots=True)
class Member:
    symbol: str
    position_rank: int
    status: str
    weight_percentage: float


@dataclass(frozen=True, slots=True)
class CustomerClient:
    """Typed calls of the customer's workflow."""

    service: Running

    async def initialize_sample_data(self) -> list[str]:
        symbols: list[str] = (await self.service.post("/initialize-sample-data"))["symbols"]
        return symbols

    async def calculate_all_scores(self) -> int:
        return int((await self.service.post("/scoring/calculate"))["scores_calculated"])

    async def get_symbol_rankings(self, algorithm_type: str, limit: int) -> list[str]:
        page = await self.service.get(
            "/scoring/rankings", algorithm_type=algorithm_type, limit=limit
        )
        return [one["symbol"] for one in page["items"]]

    async def add_symbol_to_portfolio(self, symbol: str, reason: str) -> Member:
        body = {"symbol": symbol, "reason": reason, "user": "test"}
        return _member(await self.service.post("/portfolio/add-symbol", body, status=201))

    async def get_current_portfolio(self) -> list[Member]:
        return [_member(one) for one in (await self.service.get("/portfolio"))["members"]]


def _member(body: dict[str, Any]) -> Member:
    return Member(**{name: body[name] for name in Member.__slots__})


@asynccontextmanager
async def served(path: Path, **changes: Any) -> AsyncIterator[Running]:
    """A service without background tasks over an exchange of sixteen contracts."""
    options = SandboxOptions(contracts=CONTRACTS, quota=100_000)
    async with serve_exchange(options, time.time) as url:
        settings = settings_for(url, f"sqlite+aiosqlite:///{path}/one.sqlite3", background=False)
        async with running(settings.model_copy(update=changes)) as service:
            yield service


async def test_full_workflow(tmp_path: Path) -> None:
    async with served(tmp_path) as service:
        client = CustomerClient(service)
        symbols = await client.initialize_sample_data()
        assert len(symbols) >= 12
        assert await client.calculate_all_scores() == len(symbols)
        top = await client.get_symbol_rankings("COMPOSITE", 5)
        assert len(set(top)) == 5
        assert await client.get_current_portfolio() == []
        added = await client.add_symbol_to_portfolio(top[0], "test_full_workflow")
        assert await client.get_current_portfolio() == [added]
        assert (added.symbol, added.position_rank, added.status) == (top[0], 1, "Active")
        # Each decision can be made again from its stored inputs, whose size is a metric.
        run = (await service.post("/portfolio/rebalance"))["run_id"]
        replay = await service.post(f"/portfolio/rebalances/{run}/replay")
        assert (replay["is_identical"], replay["code_version"]) == (True, full_version())
        metric = 'mysymbols_decision_input_bytes_per_day{kind="rebalance"} '
        lines = (await service.client.get("/metrics")).text.splitlines()
        (size,) = (float(one.split()[-1]) for one in lines if one.startswith(metric))
        assert 100 < size < 4_000
        # Debugging is off by default.
        refused = problem(await service.client.get(f"{PREFIX}/debug/portfolio"), 404, "not_found")
        assert "MYSYMBOLS_DEBUG=1" in refused["detail"]


@pytest.mark.usefixtures("installed")
async def test_figures_of_a_package_are_in_analytics_report_and_metrics(tmp_path: Path) -> None:
    async with served(tmp_path) as service:
        client = CustomerClient(service)
        await client.initialize_sample_data()
        unknown = dict.fromkeys(("desk.undefined", "desk.absent", "failing.one"))
        empty = {"desk.largest": None, "desk.members": 0.0, "desk.days": 0.0, **unknown}
        analytics = await service.get("/portfolio/analytics")
        assert analytics["custom_figures"] == empty
        (top,) = await client.get_symbol_rankings("COMPOSITE", 1)
        added = await client.add_symbol_to_portfolio(top, "figures")
        share = added.weight_percentage / 100
        known = {**empty, "desk.largest": share, "desk.members": 1.0, "desk.days": 2.0}
        assert (await service.get("/portfolio/analytics"))["custom_figures"] == known
        report = await service.get("/portfolio/report")
        assert report["custom_figures"] == {**known, "desk.days": len(report["equity"])}
        html = await service.client.get(
            f"{PREFIX}/portfolio/report", headers={"Accept": "text/html"}
        )
        assert "<h2>Custom figures</h2>" in html.text
        assert f"<tr><td>desk.largest</td><td>{share:.6g}</td></tr>" in html.text
        assert "<tr><td>failing.one</td><td>unknown</td></tr>" in html.text
        lines = (await service.client.get("/metrics")).text.splitlines()
        scraped = {line for line in lines if line.startswith("mysymbols_custom_figure{")}
        assert scraped == {
            f'mysymbols_custom_figure{{figure="{name}"}} {"NaN" if one is None else one}'
            for name, one in known.items()
        }


async def test_debugging_shows_the_inside_to_callers_on_this_machine(tmp_path: Path) -> None:
    with capture_logs() as lines:
        async with served(tmp_path, debug=True) as service:
            await CustomerClient(service).initialize_sample_data()
            shown = await service.get("/debug/portfolio")
            assert shown["portfolio"] == await service.get("/portfolio")
            info, pool = shown["debug_info"], (await service.get("/status"))["connection_pool"]
            # Background tasks may hold a connection at either moment.
            in_use = pool.pop("in_use"), info["database_stats"]["connection_pool"].pop("in_use")
            assert all(0 <= one <= pool["size"] for one in in_use)
            assert info["total_symbols"] == CONTRACTS
            assert info["memory_usage"] is None or info["memory_usage"] > 10_000_000
            statistics = info["database_stats"]
            assert statistics["size_bytes"] >= (tmp_path / "one.sqlite3").stat().st_size
            assert statistics["connection_pool"] == pool
            assert statistics["slow_statements"] >= 0
            assert (pool["database"], pool["size"]) == ("sqlite", 11)
            assert (pool["recycle_s"], pool["pre_ping"]) == (None, None)
            admin = await service.post("/keys", {"name": "admin", "role": "admin"}, status=201)
            admin_key = {"X-API-Key": admin["secret"]}
            for headers, status, code in (
                ({}, 401, "unauthenticated"),
                ({**admin_key, "X-Forwarded-For": "192.0.2.7"}, 403, "forbidden"),
            ):
                answer = await service.client.get(f"{PREFIX}/debug/portfolio", headers=headers)
                problem(answer, status, code)
            answer = await service.client.get(f"{PREFIX}/debug/portfolio", headers=admin_key)
            assert answer.status_code == 200
    statements = [one for one in lines if one["event"] == "statement"]
    assert any(one["sql"].startswith("INSERT INTO candles") for one in statements)
    assert all(one["seconds"] >= 0 for one in statements)
