"""Every rule of the alerts, raised and ended by what the exchange does, or by the clock.

The rules about the answers of the exchange are in test_alert_light, by the ids of the catalogue.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from tests.support.harness import PREFIX
from tests.support.service_in_process import running, settings_for
from tests.system.test_alert_light import CONTRACTS, Scene

pytestmark = pytest.mark.long
OPTIONS = SandboxOptions(contracts=80, quota=100_000)
# Short intervals, so that no test waits for a cadence. A book counts for two of its intervals, and
# one rotation over all eligible contracts takes about twenty seconds.
FAST = {"market_s": 1, "scoring_s": 2, "order_books_s": 30, "order_book_batch_s": 1}
DAY_MS = 86_400_000


class Stage(Scene):
    """A service with a portfolio."""

    async def plant(self, **change: Any) -> None:
        """A change of the market, in force at once: the exchange moves on by a minute."""
        await self.control("POST", "/market", change)
        await self.control("POST", "/clock", {"advance_ms": 60_000})

    async def rule(self, name: str, **wanted: Any) -> None:
        put = await self.service.client.put(f"{PREFIX}/alerts/rules/{name}", json=wanted)
        assert put.status_code == 200, put.text

    async def members(self) -> list[dict[str, Any]]:
        held: list[dict[str, Any]] = (await self.service.get("/portfolio"))["members"]
        return held

    async def about(self, rule: str, subject: str) -> dict[str, Any]:
        """The alert of the rule about the subject, once there is one."""
        return (await self.wait(rule, subject, there=True))[0]

    async def over(self, rule: str, subject: str) -> None:
        await self.wait(rule, subject, there=False)


@asynccontextmanager
async def stage(
    path: Path,
    size: int = 10,
    options: SandboxOptions = OPTIONS,
    of_a_sector: int = 3,
    **settings: Any,
) -> AsyncIterator[Stage]:
    async with serve_exchange(options, time.time) as url:
        given = settings_for(url, f"sqlite+aiosqlite:///{path}/rules.sqlite3")
        async with running(given) as service:
            await service.filled()
            made = Stage(service, url)
            # Before anything is decided: on a busy machine the fill may be old when it is over, and
            # a check of the schedule may come when a member has been taken away already.
            calm = {"auto_execute_forced": False, "max_per_sector": of_a_sector}
            # Nor does the service undo what the market does to its weights.
            patient = {
                "max_age_intervals": 100,
                "replacement": calm,
                "automation": {"rebalance": "observe"},
            }
            await made.settle(**patient)
            await service.post("/scoring/calculate")
            await service.post("/portfolio/initialize", {"size": size})
            await made.settle(**{"intervals": FAST, **patient, **settings})
            yield made


def morning() -> SandboxOptions:
    """Six o'clock of tomorrow: no day ends in between, and hours have closed since the start."""
    tomorrow = int(time.time()) // 86_400 + 1
    return replace(OPTIONS, now_ms=(tomorrow * 24 + 6) * 3_600_000)


async def test_what_prices_and_funding_do(tmp_path: Path) -> None:
    async with stage(tmp_path, options=morning()) as here:
        first, second, *_ = await here.members()
        name, contract = first["symbol"], first["contract"]
        await here.plant(symbol=contract, price_factor=0.5)
        for rule in ("poor_performance", "drawdown", "price_anomaly"):
            alert = await here.about(rule, name)
            assert alert["symbols"] == [name]
        assert (await here.about("poor_performance", name))["value"] < -0.4
        await here.plant(symbol=contract, price_factor=2.0)
        await here.over("poor_performance", name)
        await here.over("price_anomaly", name)
        await here.over("drawdown", name)  # no bar has closed on the fall

        name, contract = second["symbol"], second["contract"]
        await here.plant(symbol=contract, funding_rate=0.02)
        assert (await here.about("funding_extreme", name))["value"] > 0.001
        await here.plant(symbol=contract, funding_rate=0.0001)
        await here.over("funding_extreme", name)

        await here.rule("weight_out_of_bounds", cooldown_s=0)
        await here.plant(symbol=contract, price_factor=3.0)
        await here.about("weight_out_of_bounds", name)
        await here.plant(symbol=contract, price_factor=1 / 3.0)
        await here.over("weight_out_of_bounds", name)
        await here.plant(symbol=contract, price_factor=3.0)
        await here.about("weight_out_of_bounds", name)
        plan = await here.service.post("/portfolio/rebalance")
        assert plan["total_changes"] > 0
        await here.over("weight_out_of_bounds", name)
        (done,) = await here.raised("rebalance_done")
        assert done["severity"] == "info"
        await here.rule("rebalance_done", limit=1)  # seconds: the clock ends it
        await here.gone("rebalance_done")


async def test_what_becomes_of_a_contract(tmp_path: Path) -> None:
    async with stage(tmp_path, size=3) as here:
        first, second, *_ = await here.members()
        ends = int(time.time() * 1000) + 10 * 86_400_000
        await here.arm(
            "malformed", path=CONTRACTS, symbol=first["contract"], field="expireDate", value=ends
        )
        alert = await here.about("delisting_announced", first["symbol"])
        assert alert["severity"] == "critical"
        await here.disarm()
        await here.over("delisting_announced", first["symbol"])

        await here.arm("contract_status", symbol=second["contract"], status="Closed")
        await here.about("contract_delisted", second["symbol"])
        await here.about("not_tradeable", second["symbol"])
        # A member that nobody can trade any more is one that the portfolio does not have.
        small = await here.about("portfolio_below_size", "portfolio")
        assert (small["value"], small["limit"]) == (2.0, 3.0)
        await here.disarm()
        await here.over("contract_delisted", second["symbol"])
        await here.over("not_tradeable", second["symbol"])
        await here.over("portfolio_below_size", "portfolio")


async def test_an_exchange_that_is_away_and_comes_back(tmp_path: Path) -> None:
    async with stage(tmp_path, max_age_intervals=4) as here:
        await here.rule("job_late", limit=0.3)
        await here.arm("status", path="/api/*", status=500)
        for rule in ("exchange_disconnected", "data_stale", "job_failing", "job_late"):
            await here.raised(rule)
        whole = await here.about("data_stale", "market")
        assert whole["symbols"] == [], "one alert of the market, not one of each member"
        await here.disarm()
        await here.settle(max_age_intervals=100)
        await here.rule("job_late", limit=5)
        for rule in ("exchange_disconnected", "data_stale", "job_failing", "job_late"):
            await here.gone(rule)
        subjects = {one["subject"] for one in await here.raised("recovered")}
        assert {"exchange_disconnected:exchange", "data_stale:market"} <= subjects
        await here.rule("recovered", limit=0)
        await here.gone("recovered")


async def test_clocks_that_drift_apart(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        assert await here.alerts("clock_offset") == []
        await here.control("POST", "/clock", {"advance_ms": 5_000})
        (alert,) = await here.raised("clock_offset")
        assert alert["value"] > 4.0
        await here.control("POST", "/clock", {"advance_ms": -5_000})
        await here.gone("clock_offset")


async def test_what_scores_and_their_comparison_do(tmp_path: Path) -> None:
    async with stage(tmp_path, size=4) as here:
        await here.settle(alerts={"score_drop_runs": 2})
        await here.rule("score_dropped", limit=0.02, clear_limit=0.01, cooldown_s=0)
        weak = (await here.members())[0]
        before = weak["current_score"]
        await here.plant(
            symbol=weak["contract"], spread_factor=80.0, depth_factor=0.01, volume_factor=0.2,
            range_factor=6.0, days=60,
        )  # fmt: skip
        await here.about("score_dropped", weak["symbol"])
        now = (await here.members())[0]["current_score"]
        assert now is None or now < before
        # Two boards later it has not fallen any more.
        await here.over("score_dropped", weak["symbol"])


async def test_a_portfolio_that_leans_to_one_side(tmp_path: Path) -> None:
    async with stage(tmp_path, size=4) as here:
        held = await here.members()
        first = held[0]
        # The numbers are those of this market; the limits are moved around them.
        await here.rule("low_score", limit=1.0)
        low = await here.about("low_score", first["symbol"])
        assert low["value"] == (await here.members())[0]["current_score"]
        await here.rule("low_score", limit=0.0)
        await here.gone("low_score")
        await here.rule("var_above_limit", limit=0.0001, clear_limit=0.0001)
        (risk,) = await here.raised("var_above_limit")
        assert 0.001 < risk["value"] < 1.0
        await here.rule("var_above_limit", limit=0.99)
        await here.gone("var_above_limit")
        await here.rule("high_correlation", limit=0.0)
        assert "-" in (await here.raised("high_correlation"))[0]["subject"]
        await here.rule("high_correlation", limit=1.0)
        await here.gone("high_correlation")
        coins = (await here.service.get("/sectors", listed="true", limit=500))["items"]
        base = next(one["base"] for one in coins if first["symbol"] in one["symbols"])
        edited = await here.service.client.put(
            f"{PREFIX}/sectors/{base}", json={"sector": "unclassified"}
        )
        assert edited.status_code == 200
        await here.rule("sector_concentration", limit=0.0)
        metrics = await here.service.get("/portfolio/metrics")
        named = set(metrics["sector_analysis"]["weights"])
        assert "unclassified" in named, "a sector like any other"
        assert {one["subject"] for one in await here.raised("sector_concentration")} == named
        await here.rule("sector_concentration", limit=1.0)
        await here.gone("sector_concentration")

        assert await here.alerts("portfolio_below_size") == []
        for member in held[:2]:
            await here.service.post("/portfolio/remove-symbol", {"symbol": member["symbol"]})
        (small,) = await here.raised("portfolio_below_size")
        assert (small["value"], small["limit"]) == (2.0, 3.0)
        await here.service.post("/portfolio/add-symbol", {"symbol": first["symbol"]}, status=201)
        await here.gone("portfolio_below_size")


async def test_a_rival_is_recommended_while_a_member_is_hard_to_trade(tmp_path: Path) -> None:
    # How much better a rival must be is as it comes; only boards and days pass faster here.
    swift = {"auto_execute_forced": False, "confirmation_interval_s": 0, "min_holding_s": 0}
    intervals = {**FAST, "replacement_check_s": 2}
    async with stage(tmp_path, 4, morning(), replacement=swift, intervals=intervals) as here:
        held = await here.members()
        weak = min(held, key=lambda one: one["current_score"])
        assert await here.alerts("replacement_recommended") == []
        await here.plant(symbol=weak["contract"], spread_factor=4.0, depth_factor=0.01)
        alert = await here.about("replacement_recommended", weak["symbol"])
        old, rival = alert["symbols"]
        assert old == weak["symbol"]
        assert rival not in {one["symbol"] for one in held}
        await here.plant(symbol=weak["contract"], spread_factor=0.25, depth_factor=100.0)
        await here.over("replacement_recommended", weak["symbol"])
        assert {one["symbol"] for one in await here.members()} == {one["symbol"] for one in held}


async def test_what_the_market_makes_of_scores_sectors_and_risk(tmp_path: Path) -> None:
    async with stage(tmp_path, size=4, options=morning(), of_a_sector=2) as here:
        weak = min(await here.members(), key=lambda one: one["current_score"])
        # What the market shows now is allowed, and little more: what then happens is its doing.
        allowed = weak["current_score"] - 0.02
        await here.rule("low_score", limit=allowed, clear_limit=allowed, cooldown_s=0)
        assert await here.alerts("low_score") == []
        await here.plant(symbol=weak["contract"], spread_factor=80.0, depth_factor=0.01)
        assert (await here.about("low_score", weak["symbol"]))["value"] < allowed
        await here.plant(symbol=weak["contract"], spread_factor=1 / 80.0, depth_factor=100.0)
        await here.over("low_score", weak["symbol"])

        metrics = await here.service.get("/portfolio/metrics")
        shares = metrics["sector_analysis"]["weights"]
        held = {one["symbol"]: one["contract"] for one in await here.members()}
        most = max(shares, key=shares.__getitem__)
        same = await here.service.get("/symbols", sector=most, in_portfolio=True)
        others = held.keys() - {one["symbol"] for one in same["items"]}
        share = shares[most] / sum(shares.values())
        await here.rule("sector_concentration", limit=share + 0.01, clear_limit=share + 0.01)
        await here.over("sector_concentration", most)
        for name in others:
            await here.plant(symbol=held[name], price_factor=0.5)
        assert (await here.about("sector_concentration", most))["value"] > share + 0.01
        for name in others:
            await here.plant(symbol=held[name], price_factor=2.0)
        await here.over("sector_concentration", most)

        await here.rule("var_above_limit", limit=0.0001, clear_limit=0.0001, cooldown_s=0)
        usual = (await here.raised("var_above_limit"))[0]["value"]
        await here.rule("var_above_limit", limit=usual * 1.05, clear_limit=usual * 1.05)
        await here.gone("var_above_limit")
        # Where all rise alike the mix stays, and the cash is less of the whole.
        for contract in held.values():
            await here.plant(symbol=contract, price_factor=3.0)
        assert (await here.raised("var_above_limit"))[0]["value"] > usual * 1.05
        for contract in held.values():
            await here.plant(symbol=contract, price_factor=1 / 3.0)
        await here.gone("var_above_limit")


async def test_two_that_fall_together_are_told_until_they_part(tmp_path: Path) -> None:
    async with stage(tmp_path, size=4, options=morning()) as here:
        await here.rule("high_correlation", limit=0.55, clear_limit=0.45, cooldown_s=0)
        # Nothing is left of the market itself once the market is taken out.
        others = [one for one in await here.members() if one["symbol"] != "BTCUSDT"]
        one, other = sorted(others, key=lambda member: str(member["symbol"]))[:2]
        pair = f"{one['symbol']}-{other['symbol']}"
        await here.over("high_correlation", pair)
        for member in (one, other):
            await here.plant(symbol=member["contract"], price_factor=0.7)
        await here.control("POST", "/clock", {"advance_ms": DAY_MS})
        assert (await here.about("high_correlation", pair))["value"] > 0.55
        await here.plant(symbol=one["contract"], price_factor=1.5)
        await here.plant(symbol=other["contract"], price_factor=0.7)
        await here.control("POST", "/clock", {"advance_ms": DAY_MS})
        await here.over("high_correlation", pair)
