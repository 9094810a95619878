"""Backtests over HTTP: a whole run in its process, refusals, and one trial for each job."""

import asyncio
import multiprocessing
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.configuration.storage.configuration import ConfigurationRepository
from app.research.services.backtest import BoardSeries
from app.research.services.backtest_jobs import Backtests
from app.research.services.trials import TrialRequest, run_trial
from app.research.storage.trials import TrialRepository
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from tests.support.harness import PREFIX
from tests.support.problem_assertions import problem
from tests.support.service_in_process import Running, running, settings_for

pytestmark = pytest.mark.long
PATH = f"{PREFIX}/research/backtests"
PATIENCE_S = 240.0
SMALL = {"every": 5, "draws": 20, "seed": 3}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Running]:
    options = SandboxOptions(quota=1_000_000, contracts=24)
    url = f"sqlite+aiosqlite:///{tmp_path}/research.sqlite3"
    async with serve_exchange(options, time.time) as exchange:
        settings = settings_for(exchange, url, background=False)
        async with running(settings) as one:
            yield one


def backtests(service: Running) -> Backtests:
    return service.services.my_symbols.backtests


async def trials(service: Running) -> list[str]:
    async with backtests(service).database.read() as unit:
        return [one.id for one in await unit.get(TrialRepository).all()]


async def ended(service: Running, location: str) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = (await service.client.get(location)).json()
            if found["state"] in {"done", "failed", "cancelled"}:
                return found
            await asyncio.sleep(0.05)


async def begun(service: Running, body: dict[str, Any], **headers: str) -> httpx2.Response:
    answer = await service.client.post(PATH, json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer


async def test_a_run_gives_the_report_of_the_trial_on_the_same_history(service: Running) -> None:
    await service.post("/initialize-sample-data")
    answer = await begun(service, SMALL)
    first = answer.json()
    assert answer.headers["location"] == f"{PATH}/{first['id']}"
    assert (first["trial_id"], first["report"], first["error"]) == (None, None, None)
    found = await ended(service, answer.headers["location"])
    assert (found["state"], found["progress"], found["error"]) == ("done", 1.0, None), found
    assert f"backtest:{found['trial_id']}" == found["id"]
    assert await trials(service) == [found["trial_id"]]

    desk = backtests(service)
    history = await desk.history()
    async with desk.database.read() as unit:
        configuration = await unit.get(ConfigurationRepository).current()
    request = TrialRequest(every=5, draws=20, seed=3)
    boards = BoardSeries.of(history, configuration, desk.sectors(), request.costs)
    same = run_trial(boards, configuration, request, "same", desk.clock, "0").trial
    assert found["report"] == same.result
    assert found["data_hash"] == history.data_hash
    assert history.name == "stored candles"
    assert len(history.symbols) >= 12

    # A job that is resumed after its trial was logged ends with that trial.
    again = await desk.run(found["id"], {}, lambda *_: None)  # without reading its parameters
    assert again == {"trial_id": found["trial_id"]}
    assert await trials(service) == [found["trial_id"]]


async def test_a_refused_request_starts_no_job_and_logs_no_trial(service: Running) -> None:
    client = service.client
    problem(await client.post(PATH, json={}), 422, "validation_failed")  # no candles yet
    await service.post("/initialize-sample-data")
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"last_day": "1999-01-01"}, "last_day"),
        ({"first_day": "2999-01-01"}, "first_day"),
        ({"first_day": "2999-01-01", "last_day": "2999-02-01"}, "first_day"),
        ({"first_day": "someday"}, "first_day"),
        ({"every": 0}, "every"),
        ({"every": 5, "offset": 5}, "offset"),
        ({"draws": 1_001}, "draws"),
        ({"fee_bp": -1}, "fee_bp"),
        ({"file": "/etc/passwd"}, "file"),
        ({"settings": {"replacement": {"confirmation": 2}}}, "settings.replacement.confirmation"),
        ({"settings": {"replacement": {"confirmations": 0}}}, "settings.replacement.confirmations"),
    )
    for body, place in refused:
        found = problem(await client.post(PATH, json=body), 422, "validation_failed")
        assert [".".join(map(str, one["loc"])) for one in found["errors"]] == [f"body.{place}"], (
            body
        )
    assert (await service.get("/jobs", kind="backtest"))["items"] == []
    assert await trials(service) == []
    problem(await client.get(f"{PATH}/backtest:none"), 404, "not_found")
    sync = await client.post(f"{PREFIX}/symbols/sync", headers={"Prefer": "respond-async"})
    problem(await client.get(f"{PATH}/{sync.json()['id']}"), 404, "not_found")


async def test_a_period_that_gives_no_trial_fails_the_job_with_its_cause(service: Running) -> None:
    await service.post("/initialize-sample-data")
    history = await backtests(service).history()
    newest = str(history.closed_at(history.rows - 2).date())
    answer = await begun(service, {"first_day": newest, "last_day": newest})
    found = await ended(service, answer.headers["location"])
    assert (found["state"], found["trial_id"], found["report"]) == ("failed", None, None)
    assert found["error"]["code"] == "validation_failed"
    assert "period is empty" in found["error"]["detail"]
    assert await trials(service) == []


LONG = {"every": 60, "all_offsets": True, "draws": 1_000}


async def working(service: Running, location: str) -> Any:
    """Returns the process of the only run as soon as it has finished a stage."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = (await service.client.get(location)).json()
            assert found["state"] in {"queued", "running"}, found
            if found["progress"] > 0.0:
                (process,) = multiprocessing.active_children()
                return process
            await asyncio.sleep(0.02)


async def test_a_cancelled_run_loses_its_process_and_logs_nothing(service: Running) -> None:
    await service.post("/initialize-sample-data")
    answer = await begun(service, LONG)
    location, job_id = answer.headers["location"], answer.json()["id"]
    assert (await begun(service, LONG)).json()["id"] == job_id, "the running job"
    process = await working(service, location)
    await service.post(f"/jobs/{job_id}/cancel")
    await asyncio.to_thread(process.join, PATIENCE_S)
    assert process.exitcode == -signal.SIGKILL
    found = await ended(service, location)
    assert (found["state"], found["trial_id"], found["report"]) == ("cancelled", None, None)
    assert await trials(service) == []


async def test_a_killed_process_fails_the_job_and_two_runs_of_it_log_one_trial(
    service: Running,
) -> None:
    await service.post("/initialize-sample-data")
    answer = await begun(service, LONG)
    process = await working(service, answer.headers["location"])
    process.kill()
    found = await ended(service, answer.headers["location"])
    assert (found["state"], found["error"]["code"]) == ("failed", "internal_error")
    assert await trials(service) == []

    # Two processes of the service may resume one job at the same time.
    desk = backtests(service)
    payload = {**(await desk.jobs.job(found["id"])).payload, **SMALL, "all_offsets": False}
    runs = [desk.run(found["id"], payload, lambda *_: None) for _ in range(2)]
    first, second = await asyncio.gather(*runs)
    assert first == second
    assert await trials(service) == [first["trial_id"]]
