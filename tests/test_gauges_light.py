"""Every gauge is right at the first scrape: it says what the API says, also right after a start."""

import math
import time
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest
from prometheus_client import Gauge
from prometheus_client.parser import text_string_to_metric_families

from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from app.telemetry.metrics import Metrics
from tests.api.harness import PREFIX
from tests.running import Running, running, settings_for

Samples = dict[tuple[str, str], float]
# Of the process alone: nothing in the API says them.
OWN = {
    "http_requests_in_flight": 1.0,  # the scrape itself
    "feed_epoch": math.nan,  # nothing runs by itself here
    "bus_dropped_events": 0.0,
}
# Labelled by what there was none of here, or moving between two answers.
BESIDE = {
    "feed_connections", "feed_topics", "stream_clients", "task_last_success_timestamp_seconds",
    "alerting_silence_seconds", "database_connections_in_use", "exchange_clock_offset_seconds",
    "feed_last_message_age_seconds",
}  # fmt: skip


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
        elif name[0] == "market_data_age_seconds":
            assert found[name] <= value, name
        else:
            assert found[name] == value, (name, found)
    for plain, value in OWN.items():
        assert found[plain, ""] == pytest.approx(value, nan_ok=True), plain
    names = {one.name for one in fields(Metrics) if isinstance(getattr(Metrics(), one.name), Gauge)}
    assert names == {name for name, _ in wanted} | OWN.keys() | BESIDE


async def test_every_gauge_says_at_the_first_scrape_what_the_api_says(tmp_path: Path) -> None:
    async with serve_exchange(SandboxOptions(contracts=40, quota=100_000), time.time) as exchange:
        url = f"sqlite+aiosqlite:///{tmp_path}/gauges.sqlite3"
        settings = settings_for(exchange, url, background=False)
        async with running(settings) as service:
            await compare(service)
            await service.post("/initialize-sample-data")
            await service.post("/portfolio/initialize", {"size": 5})
            await signalled(service)
            found = await scraped(service)
            assert found["portfolio_members", ""] == 5.0
            assert found["market_symbols", "eligible"] > 5.0
            assert not math.isnan(found["exchange_clock_offset_seconds", ""])
            await compare(service)
        async with running(settings) as service:
            assert (await scraped(service))["portfolio_members", ""] == 5.0
            await compare(service)


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
