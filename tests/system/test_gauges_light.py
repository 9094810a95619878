"""Every gauge is right at the first scrape: it says what the API says, also right after a start."""

import asyncio
import math
import shutil
import time
from collections import Counter
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from types import MethodType
from typing import Any, cast

import pytest
from prometheus_client import Gauge
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect

from app.alerts.services.monitor import SILENT_S
from app.foundation.metrics import Metrics
from app.operations.api import stream_routes
from app.operations.services.gauges import GaugeReader
from app.operations.services.service_figures import CachedFigure
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from tests.support.harness import PREFIX, make_api
from tests.support.service_in_process import PATIENCE_S, Running, running, settings_for
from tests.support.streaming import listening, port_of

Samples = dict[tuple[str, str], float]
# Of the process alone: nothing in the API says them.
OWN = {
    "http_requests_in_flight": 1.0,  # the scrape itself
    "leader_epoch": math.nan,  # nothing runs by itself here
    "bus_dropped_events": 0.0,
}
# Labelled by what there was none of here, or moving between two answers: the test of what runs by
# itself compares them.
BESIDE = {
    "feed_connections", "feed_topics", "stream_clients", "task_last_success_timestamp_seconds",
    "alerting_silence_seconds", "custom_figure", "database_connections_in_use",
    "decision_input_bytes_per_day", "exchange_clock_offset_seconds",
    "feed_last_message_age_seconds", "event_loop_tasks", "http_response_seconds",
    "buffer_fill_ratio", "disk_free_bytes",
}  # fmt: skip

OF_MEMBERS = {"portfolio_weight_ratio", "portfolio_drift_ratio", "portfolio_score"}


async def scraped(service: Running) -> Samples:
    """Every sample by its name without the prefix, and the values of its labels."""
    text = (await service.client.get("/metrics")).text
    return {
        (one.name.removeprefix("mysymbols_"), ",".join(one.labels.values())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


async def told(service: Running) -> dict[tuple[str, str], float | None]:
    """The same from the API; None where it says that it does not know."""
    status, health = await service.get("/status"), await service.get("/health")
    feed, board = status["feed"], status["scoring"]
    link = next(one for one in health["components"] if one["name"] == "exchange")
    figures = health["figures"]
    portfolio = figures["portfolio"]
    index = portfolio["equity_index"]
    alerts: Counter[str] = Counter()
    for one in (await service.get("/alerts", limit=500))["items"]:
        alerts[one["severity"]] += one["state"] == "open"
    return {
        ("portfolio_members", ""): len((await service.get("/portfolio"))["members"]),
        ("portfolio_version", ""): status["portfolio"]["version"],
        ("market_symbols", "known"): feed["contracts"],
        ("market_symbols", "eligible"): feed["eligible"],
        ("market_symbols", "stale"): feed["stale_symbols"],
        **{("market_data_age_seconds", name): age for name, age in feed["ages_s"].items()},
        ("scoring_symbols", "scored"): 0 if board is None else board["scored"],
        ("scoring_symbols", "unavailable"): 0 if board is None else board["unavailable"],
        ("signals_waiting", ""): status["signals"]["waiting"],
        ("signal_outcomes_open", ""): status["signals"]["open_outcomes"],
        **{("alerts_open", name): alerts[name] for name in ("info", "warning", "critical")},
        **{
            ("service_mode", mode): mode == health["mode"]
            for mode in ("NORMAL", "DEGRADED", "FROZEN", "HALTED")
        },
        ("scoring_board_age_seconds", ""): figures["board_age_s"],
        ("database_size_bytes", ""): figures["database_bytes"],
        ("portfolio_equity_index", ""): None if index is None else float(index),
        ("portfolio_drawdown_ratio", ""): portfolio["drawdown"],
        ("portfolio_max_drawdown_ratio", ""): portfolio["max_drawdown"],
        **{
            (f"portfolio_{name}", one["symbol"]): value
            for one in portfolio["members"]
            for name, value in (
                ("weight_ratio", one["weight_percentage"] / 100),
                ("drift_ratio", one["drift"] / 100),
                ("score", one["score"]),
            )
        },
        ("exchange_link_up", ""): link["state"] == "up",
        ("feed_streaming", ""): status["stream"]["mode"] == "stream",
        ("service_info", f"sandbox,{status['version']}"): 1.0,
    }


async def compare(service: Running) -> None:
    found = await scraped(service)  # first of all
    wanted = await told(service)
    for name, value in wanted.items():
        if value is None:
            assert math.isnan(found.get(name, math.nan)), name
        elif name[0] in {"market_data_age_seconds", "scoring_board_age_seconds"}:
            assert found[name] <= value, name
        elif name[0].startswith("portfolio_"):
            assert found[name] == pytest.approx(value), name
        else:
            assert found[name] == value, (name, found)
    for plain, value in OWN.items():
        assert found[plain, ""] == pytest.approx(value, nan_ok=True), plain
    names = {one.name for one in fields(Metrics) if isinstance(getattr(Metrics(), one.name), Gauge)}
    assert names == {name for name, _ in wanted} | OWN.keys() | BESIDE | OF_MEMBERS
    of_members = {name for name, _ in found if name in OF_MEMBERS}
    assert of_members == (OF_MEMBERS if found["portfolio_members", ""] else set())
    health = await service.get("/health")
    decisions = {
        f"{one['kind']},{one['outcome']}": one["count"] for one in health["figures"]["decisions"]
    }
    assert decisions == {
        labels: count for (name, labels), count in found.items() if name == "decisions_total"
    }


async def test_every_gauge_says_at_the_first_scrape_what_the_api_says(tmp_path: Path) -> None:
    async with serve_exchange(SandboxOptions(contracts=40, quota=100_000), time.time) as exchange:
        url = f"sqlite+aiosqlite:///{tmp_path}/gauges.sqlite3"
        settings = settings_for(exchange, url, background=False)
        async with running(settings) as service:
            await compare(service)
            await service.post("/initialize-sample-data")
            await service.post("/portfolio/initialize", {"size": 5})
            await signalled(service)
            unknown = await service.client.post(
                f"{PREFIX}/portfolio/add-symbol", json={"symbol": "NONSENSE"}
            )
            assert unknown.json()["code"] == "symbol_unknown"
            found = await scraped(service)
            assert found["decisions_total", "initialize,decided"] == 1.0
            assert found["decisions_total", "add,symbol_unknown"] == 1.0
            assert found["process_cpu_seconds_total", ""] > 0.0
            assert found["process_resident_memory_bytes", ""] > 0.0
            assert found["portfolio_members", ""] == 5.0
            assert found["market_symbols", "eligible"] > 5.0
            assert not math.isnan(found["exchange_clock_offset_seconds", ""])
            await compare(service)
            leaver = (await service.get("/portfolio"))["members"][0]["symbol"]
            assert ("portfolio_weight_ratio", leaver) in found
            await service.post("/portfolio/remove-symbol", {"symbol": leaver})
            found = await scraped(service)
            assert not [labels for name, labels in found if name in OF_MEMBERS and labels == leaver]
        async with running(settings) as service:
            assert (await scraped(service))["portfolio_members", ""] == 4.0
            await compare(service)


async def test_gauges_of_what_runs_by_itself_follow_what_they_are_about(tmp_path: Path) -> None:
    day_s = 86_400.0
    ahead = SandboxOptions(contracts=12, quota=100_000, now_ms=int((time.time() + day_s) * 1000))
    async with serve_exchange(ahead, time.time) as exchange:
        url = f"sqlite+aiosqlite:///{tmp_path}/moving.sqlite3"
        async with running(settings_for(exchange, url)) as service:
            await service.until("/status", is_streamed)
            before = await service.get("/status")
            metrics = service.services.my_symbols.market.metrics
            for gauge in (metrics.feed_streaming, metrics.feed_last_message_age_seconds):
                gauge.set(-1.0)  # a scrape rests on nothing that was set before it
            for state in ("wanted", "live"):
                metrics.feed_topics.labels(state).set(-1.0)
            found = await scraped(service)
            after = await service.get("/status")
            assert found["feed_streaming", ""] == 1.0
            compare_stream(found, before["stream"], after["stream"])
            compare_tasks(found, before["tasks"], after["tasks"])
            # The exchange's clock is a day ahead, to within what asking it took.
            assert found["exchange_clock_offset_seconds", ""] == pytest.approx(day_s, abs=240.0)
            await compare_silence(service)
            await read_by_one(service)
    async with running(settings_for(exchange, url, background=False)) as service:
        used = ("database_connections_in_use", "")
        async with asyncio.timeout(PATIENCE_S):
            while (await scraped(service))[used]:  # the start still works
                await asyncio.sleep(0.05)
        async with service.services.my_symbols.alerts.database.read():
            assert (await scraped(service))[used] == 1.0
        assert (await scraped(service))[used] == 0.0


async def test_gauges_of_the_process_count_what_it_has(tmp_path: Path) -> None:
    async with serve_exchange(SandboxOptions(contracts=12, quota=100_000), time.time) as exchange:
        url = f"sqlite+aiosqlite:///{tmp_path}/process.sqlite3"
        async with running(settings_for(exchange, url, background=False)) as service:
            before = await scraped(service)
            waiting = [asyncio.ensure_future(asyncio.Event().wait()) for _ in range(100)]
            bus = service.services.bus
            with bus.subscribe():  # and never read
                for number in range(bus.capacity + 3):
                    bus.publish(number)
                found = await scraped(service)
            assert found["buffer_fill_ratio", "bus"] == 1.0
            assert found["buffer_fill_ratio", "database_connections"] >= 0.0
            assert before["buffer_fill_ratio", "bus"] == 0.0
            shown = (await service.get("/health"))["process"]
            assert shown["response_time"]["responses"] >= 2
            assert 0.0 < found["http_response_seconds", "0.5"] <= PATIENCE_S
            assert found["http_response_seconds", "0.5"] <= found["http_response_seconds", "0.99"]
            assert 0 < shown["disk_free_bytes"] <= shutil.disk_usage(tmp_path).total
            assert found["disk_free_bytes", ""] > 0.0
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            buffers = (await service.get("/health"))["process"]["buffers"]
            (dropped,) = (one["dropped"] for one in buffers if one["name"] == "bus")
            assert found["bus_dropped_events", ""] == dropped >= 3
            tasks = ("event_loop_tasks", "")
            # The scrapes themselves run as tasks, too.
            assert found[tasks] - before[tasks] == pytest.approx(100, abs=10)


async def test_scrapes_within_a_minute_read_the_slow_figures_once(tmp_path: Path) -> None:
    loads: list[str] = []

    async def custom_figures() -> dict[str, float | None]:
        loads.append("custom")
        return {}

    async def bytes_per_day() -> dict[str, int]:
        loads.append("decisions")
        return {}

    async with serve_exchange(SandboxOptions(contracts=12, quota=100_000), time.time) as exchange:
        url = f"sqlite+aiosqlite:///{tmp_path}/slow.sqlite3"
        async with running(settings_for(exchange, url, background=False)) as service:
            status = service.services.my_symbols.status
            reader = cast("GaugeReader", cast("MethodType", status.read_gauges).__self__)
            status.read_gauges = replace(
                reader,
                custom_figures=CachedFigure(custom_figures),
                decision_bytes=CachedFigure(bytes_per_day),
            ).read
            for _ in range(3):
                await scraped(service)
    assert sorted(loads) == ["custom", "decisions"]


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
async def test_the_epoch_is_that_of_the_feed_which_this_process_owns(database_url: str) -> None:
    def owned(status: dict[str, Any]) -> bool:
        return any(one["leader_epoch"] is not None for one in status["processes"])

    async with serve_exchange(SandboxOptions(contracts=12, quota=100_000), time.time) as exchange:
        async with running(settings_for(exchange, database_url)) as service:
            (told,) = (await service.until("/status", owned))["processes"]
            assert (await scraped(service))["leader_epoch", ""] == told["leader_epoch"]
        async with running(settings_for(exchange, database_url, background=False)) as service:
            assert math.isnan((await scraped(service))["leader_epoch", ""])


def is_streamed(status: dict[str, Any]) -> bool:
    stream = status["stream"]
    return bool(
        stream["mode"] == "stream"
        and stream["topics"] == stream["active_topics"] > 0
        and stream["seconds_since_last_message"] is not None
        and status["feed"]["stage"] == "complete"
    )


def compare_stream(found: Samples, before: dict[str, Any], after: dict[str, Any]) -> None:
    phases = Counter(one["phase"] for one in after["connections"])
    shown = {name[1]: value for name, value in found.items() if name[0] == "feed_connections"}
    assert {phase: number for phase, number in shown.items() if number} == phases
    assert found["feed_topics", "wanted"] == after["topics"] > 0
    assert found["feed_topics", "live"] == after["active_topics"] > 0
    # Messages go on coming: it is no older than the one that was known before.
    assert before["messages"] > 0
    assert 0.0 <= found["feed_last_message_age_seconds", ""] <= 240.0


def compare_tasks(found: Samples, *told: list[dict[str, Any]]) -> None:
    """Each between what the status said before the scrape and after it."""
    before, after = (
        {
            one["name"]: datetime.fromisoformat(one["last_success_at"]).timestamp()
            for one in tasks
            if one["last_success_at"] is not None
        }
        for tasks in told
    )
    assert before
    for name, stamp in before.items():
        shown = found["task_last_success_timestamp_seconds", name]
        # The API says whole milliseconds.
        assert stamp - 0.001 <= shown <= after.get(name, shown) + 0.001, name


async def compare_silence(service: Running) -> None:
    """Of both parts no longer than what health calls silent; the exact ages are in test_U11."""
    parts = (await service.get("/health"))["components"]
    assert next(one["state"] for one in parts if one["name"] == "alerting") == "up"
    shown = {
        part: age
        for (name, part), age in (await scraped(service)).items()
        if name == "alerting_silence_seconds"
    }
    assert shown.keys() == {"evaluation", "delivery"}
    assert all(0.0 <= age <= SILENT_S for age in shown.values())


async def read_by_one(service: Running) -> None:
    """One WebSocket reader is one."""
    face = {"my_symbols": service.services.my_symbols, "mode": service.services.mode}
    async with listening(make_api(face, routers=[stream_routes.router])) as server:
        assert (await scraped(service)).get(("stream_clients", "websocket"), 0.0) == 0.0
        async with connect(f"ws://127.0.0.1:{port_of(server)}{PREFIX}/stream") as reader:
            await reader.recv()
            assert (await scraped(service))["stream_clients", "websocket"] == 1.0
            async with connect(f"ws://127.0.0.1:{port_of(server)}{PREFIX}/stream") as second:
                await second.recv()
                assert (await scraped(service))["stream_clients", "websocket"] == 2.0
        async with asyncio.timeout(PATIENCE_S):
            while (await scraped(service))["stream_clients", "websocket"]:
                await asyncio.sleep(0.05)


async def signalled(service: Running) -> None:
    """One verdict whose outcome is not known yet."""
    body = {
        "source_name": "us",
        "signal_type": "momentum",
        "signal_strength": 0.9,
        "confidence_level": 0.9,
        "signal_direction": "BUY",
        "symbol": "BTCUSDT",
    }
    answer = await service.client.post(f"{PREFIX}/signals", json=body)
    assert answer.status_code < 300, answer.text
