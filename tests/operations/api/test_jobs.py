"""Jobs over HTTP: long calls that became one, how far they are, the list, and how to stop one."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.foundation.data_status import DataSource
from app.foundation.events import EventTopic
from app.foundation.sql.events import EventRepository
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from app.settings import DatabaseVariables, KucoinVariables, Settings
from tests.support.harness import PREFIX
from tests.support.problem_assertions import problem
from tests.support.service_in_process import Running, running, settings_for

pytestmark = pytest.mark.long

ASYNC = {"Prefer": "respond-async"}
PATIENCE_S = 90.0
NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens there


@dataclass(frozen=True)
class Desk:
    service: Running

    async def begin(self, path: str, **headers: str) -> httpx2.Response:
        return await self.service.client.post(PREFIX + path, json={}, headers={**ASYNC, **headers})

    async def begun(self, path: str, **headers: str) -> Any:
        answer = await self.begin(path, **headers)
        assert answer.status_code == 202, answer.text
        return answer.json()

    async def ended(self, job_id: str) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                job = await self.service.get(f"/jobs/{job_id}")
                if job["state"] in {"done", "failed", "cancelled"}:
                    return job
                await asyncio.sleep(0.05)


@asynccontextmanager
async def service_at(url: str, database_url: str) -> AsyncIterator[Desk]:
    async with running(settings_for(url, database_url, background=False)) as service:
        yield Desk(service)


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    options = SandboxOptions(quota=1_000_000, contracts=16)
    async with serve_exchange(options, time.time) as url, service_at(url, database_url) as one:
        yield one


@pytest.fixture
async def cut_off(tmp_path: Path) -> AsyncIterator[Desk]:
    """A service whose exchange cannot be reached."""
    async with service_at(NOBODY, f"sqlite+aiosqlite:///{tmp_path}/cut-off.sqlite3") as one:
        yield one


async def test_a_long_call_becomes_a_job_that_can_be_followed(desk: Desk) -> None:
    answer = await desk.begin("/symbols/sync")
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "respond-async"
    begun = answer.json()
    assert answer.headers["location"] == f"{PREFIX}/jobs/{begun['id']}"
    assert (begun["kind"], begun["result"], begun["error"]) == ("contract_sync", None, None)
    assert [step["name"] for step in begun["steps"]] == ["contracts"]

    followed = await desk.service.client.get(answer.headers["location"])
    assert followed.json()["id"] == begun["id"]
    job = await desk.ended(begun["id"])
    assert (job["state"], job["progress"], job["error"]) == ("done", 1.0, None)
    assert job["steps"][0]["state"] == "done"
    assert (job["result"]["listed"], job["result"]["quarantined"]) == (16, None)
    assert len((await desk.service.get("/symbols"))["items"]) == 16


async def test_without_the_preference_the_call_waits_as_ever(desk: Desk) -> None:
    for headers in ({}, {"Prefer": "return=minimal, wait=10"}, {"Prefer": "respond-asyncx"}):
        answer = await desk.service.client.post(f"{PREFIX}/symbols/sync", json={}, headers=headers)
        assert answer.status_code == 200
        assert "listed" in answer.json()
    many = {"Prefer": "return=minimal, Respond-Async; x=1"}
    answer = await desk.service.client.post(f"{PREFIX}/symbols/sync", json={}, headers=many)
    assert answer.status_code == 202


async def test_sample_data_and_a_scoring_by_jobs(desk: Desk) -> None:
    loaded = await desk.ended((await desk.begun("/initialize-sample-data"))["id"])
    assert loaded["state"] == "done", loaded
    assert [step["name"] for step in loaded["steps"]] == ["fill", "board"]
    assert loaded["result"]["symbols"] >= 12
    scored = await desk.ended((await desk.begun("/scoring/calculate"))["id"])
    assert scored["result"]["scores_calculated"] >= 12
    board = await desk.service.get("/scoring/rankings")
    assert board["run_id"] == scored["result"]["run_id"]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_backfill_is_a_job_and_the_stream_tells_of_it(desk: Desk) -> None:
    answer = await desk.service.client.post(f"{PREFIX}/symbols/sync?history=true")
    assert answer.status_code == 202, answer.text
    begun = answer.json()
    assert (begun["kind"], [one["name"] for one in begun["steps"]]) == (
        "backfill",
        ["contracts", "fill", "board"],
    )
    job = await desk.ended(begun["id"])
    assert (job["state"], job["result"]["listed"]) == ("done", 16), job
    assert job["result"]["scores_calculated"] >= 12
    waiting = await desk.begun("/scoring/calculate")
    await desk.service.post(f"/jobs/{waiting['id']}/cancel")
    async with desk.service.services.my_symbols.stream.database.read() as unit:
        records = [
            one
            for one in await unit.get(EventRepository).after(0, 1_000)
            if one.type == "job_changed"
        ]
    assert {one.topic for one in records} == {EventTopic.JOB}
    told = [one.data for one in records if one.data["job_id"] == begun["id"]]
    assert [one["change"] for one in (told[0], told[-1])] == ["started", "ended"]
    assert (told[-1]["state"], told[-1]["progress"]) == ("done", 1.0)
    assert [one["progress"] for one in told] == sorted(one["progress"] for one in told)
    ends = [one.data["state"] for one in records if one.data["job_id"] == waiting["id"]]
    assert ends[-1] in {"cancelled", "done"}  # what is there to be scored is scored at once


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_report_made_by_a_job_is_the_report(desk: Desk) -> None:
    await desk.service.post("/initialize-sample-data")
    await desk.service.post("/portfolio/initialize", {"size": 3})
    client, path = desk.service.client, f"{PREFIX}/portfolio/report"
    answer = await client.get(path, headers=ASYNC)
    assert answer.status_code == 202, answer.text
    job = await desk.ended(answer.json()["id"])
    now = await desk.service.get("/portfolio/report")
    assert (job["state"], job["result"].keys()) == ("done", now.keys()), job
    for name in ("version", "replacements", "trades", "data_source"):
        assert job["result"][name] == now[name]
    held = [one["symbol"] for one in job["result"]["positions"]]
    assert held == [one["symbol"] for one in now["positions"]]
    later = {"from": "2999-01-01T00:00:00Z"}
    other = await client.get(path, params=later, headers=ASYNC)
    ended = await desk.ended(other.json()["id"])
    assert ended["result"]["equity"] == []
    assert job["result"]["equity"] != []
    before = (await desk.service.get("/jobs", kind="report"))["items"]
    looked = await client.head(path, headers=ASYNC)
    assert looked.status_code == 200, "who wants no answer begins nothing"
    page = await client.get(path, headers={**ASYNC, "Accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert (await desk.service.get("/jobs", kind="report"))["items"] == before


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_scoring_waits_until_there_is_something_to_score(desk: Desk) -> None:
    begun = await desk.begun("/scoring/calculate")
    async with asyncio.timeout(PATIENCE_S):
        while (await desk.service.get(f"/jobs/{begun['id']}"))["state"] != "running":
            await asyncio.sleep(0.05)
    await desk.service.post("/initialize-sample-data")
    assert (await desk.ended(begun["id"]))["state"] == "done"


async def test_a_second_request_gets_the_running_job(desk: Desk) -> None:
    first, second = await asyncio.gather(desk.begun("/symbols/sync"), desk.begun("/symbols/sync"))
    assert first["id"] == second["id"]
    await desk.ended(first["id"])
    assert (await desk.begun("/symbols/sync"))["id"] != first["id"]


async def test_the_same_key_is_the_same_job_also_when_it_has_ended(desk: Desk) -> None:
    first = await desk.begin("/symbols/sync", **{"Idempotency-Key": "k-1"})
    await desk.ended(first.json()["id"])
    again = await desk.begin("/symbols/sync", **{"Idempotency-Key": "k-1"})
    assert (again.status_code, again.content) == (202, first.content)
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert len((await desk.service.get("/jobs"))["items"]) == 1


async def test_a_job_that_fails_says_why(cut_off: Desk) -> None:
    job = await cut_off.ended((await cut_off.begun("/symbols/sync"))["id"])
    assert (job["state"], job["result"]) == ("failed", None)
    assert job["error"]["code"] == "exchange_unavailable"
    assert job["error"]["detail"]
    assert job["steps"][0]["state"] == "failed"
    assert job["steps"][0]["error"] == job["error"]
    listed = (await cut_off.service.get("/jobs", state="failed"))["items"]
    assert [one["error"]["code"] for one in listed] == ["exchange_unavailable"]


async def test_a_job_can_be_stopped_and_once_it_has_ended_nothing_changes(desk: Desk) -> None:
    waiting = await desk.begun("/scoring/calculate")  # there is nothing to score
    stopped = await desk.service.post(f"/jobs/{waiting['id']}/cancel")
    assert (stopped["id"], stopped["state"]) == (waiting["id"], "cancelled")
    async with desk.service.services.my_symbols.stream.database.read() as unit:
        (told,) = [
            one.data
            for one in await unit.get(EventRepository).after(0, 99)
            if one.topic is EventTopic.JOB
        ]
    assert (told["job_id"], told["change"], told["state"]) == (waiting["id"], "ended", "cancelled")
    assert stopped["finished_at"] is not None
    assert (await desk.begun("/scoring/calculate"))["id"] != waiting["id"], "its place is free"
    done = await desk.ended((await desk.begun("/symbols/sync"))["id"])
    assert await desk.service.post(f"/jobs/{done['id']}/cancel") == done


async def test_the_list_by_kind_state_and_page(desk: Desk) -> None:
    ids = []
    for _ in range(5):
        ids.append((await desk.begun("/symbols/sync"))["id"])
        await desk.ended(ids[-1])
    waiting = await desk.begun("/scoring/calculate")
    every = (await desk.service.get("/jobs"))["items"]
    assert {one["id"] for one in every} == {*ids, waiting["id"]}
    assert "steps" not in every[0]
    of_kind = await desk.service.get("/jobs", kind="scoring")
    assert [one["id"] for one in of_kind["items"]] == [waiting["id"]]
    assert (await desk.service.get("/jobs", kind="sample_data"))["items"] == []
    done = (await desk.service.get("/jobs", state="done"))["items"]
    assert {one["id"] for one in done} == set(ids)
    seen: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        page = await desk.service.get("/jobs", limit=2, **cursor)
        seen += [one["id"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == [one["id"] for one in every]
    other = await desk.service.client.get(
        f"{PREFIX}/jobs", params={"limit": 2, "state": "done", **cursor}
    )
    problem(other, 422, "validation_failed")


async def test_unknown_jobs_and_states_are_refused(cut_off: Desk) -> None:
    client = cut_off.service.client
    problem(await client.get(f"{PREFIX}/jobs/scoring:none"), 404, "not_found")
    problem(await client.post(f"{PREFIX}/jobs/scoring:none/cancel"), 404, "not_found")
    for query in ({"state": "lost"}, {"kind": "other"}, {"limit": 0}):
        problem(await client.get(f"{PREFIX}/jobs", params=query), 422, "validation_failed")


async def test_sample_data_of_the_live_exchange_is_refused_at_once(tmp_path: Path) -> None:
    settings = Settings(
        kucoin=KucoinVariables(base_url=NOBODY, source=DataSource.KUCOIN),
        database=DatabaseVariables(url=f"sqlite+aiosqlite:///{tmp_path}/live.sqlite3"),
        run_background_tasks=False,
    )
    async with running(settings) as service:
        problem(await Desk(service).begin("/initialize-sample-data"), 409, "sandbox_only")
        assert (await service.get("/jobs"))["items"] == []


async def test_a_job_survives_the_process_and_goes_on_in_the_next(tmp_path: Path) -> None:
    """Its scoring waits for data; the service that is started next has some."""
    file = f"sqlite+aiosqlite:///{tmp_path}/again.sqlite3"
    options = SandboxOptions(quota=1_000_000, contracts=16)
    async with serve_exchange(options, time.time) as url:
        async with service_at(url, file) as desk:
            begun = await desk.begun("/scoring/calculate")
            async with asyncio.timeout(PATIENCE_S):
                while (await desk.service.get(f"/jobs/{begun['id']}"))["state"] != "running":
                    await asyncio.sleep(0.05)
        async with service_at(url, file) as desk:
            assert (await desk.service.get(f"/jobs/{begun['id']}"))["state"] in {
                "queued",
                "running",
            }
            await desk.service.post("/initialize-sample-data")
            assert (await desk.ended(begun["id"]))["state"] == "done"
