"""Weights that the market has carried away are set right by the next board, not in an hour."""

import asyncio
from pathlib import Path

import pytest

from tests.support.service_in_process import PATIENCE_S
from tests.system.test_alert_rules_light import morning, stage

pytestmark = pytest.mark.long


async def test_drift_is_rebalanced_by_the_next_board(tmp_path: Path) -> None:
    async with stage(tmp_path, options=morning(), automation={"rebalance": "auto"}) as here:
        grown = (await here.members())[0]
        before = (await here.service.get("/portfolio"))["version"]
        await here.plant(symbol=grown["contract"], price_factor=3.0)

        async def checked() -> list[str]:
            jobs = (await here.service.get("/jobs", kind="rebalance_check", state="done"))["items"]
            return [job["id"] for job in jobs if job["id"].endswith(":drift")]

        async with asyncio.timeout(PATIENCE_S):
            while not await checked():
                await asyncio.sleep(0.1)
        held = await here.service.get("/portfolio")
        assert held["version"] > before
        runs = (await here.service.get("/portfolio/rebalances", state="done"))["items"]
        (made,) = [one for one in runs if one["version_after"] == before + 1]
        assert (made["reason"], made["actor"]) == ("scheduled check", "schedule")
        assert "drift" in made["triggers"]
        # What has grown threefold was sold: nobody is further from its target than allowed.
        weights = (await here.service.get("/portfolio/weights"))["weights"]
        assert all(abs(float(one["drift"])) <= 1.0 for one in weights), weights
