"""What changed after an absence: by number and by time, in pages, with its net effect and gaps."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from app.alerts.domain.events import AlertRaised
from app.alerts.domain.models import AlertRule
from app.configuration.domain.sections import Severity
from app.foundation.metrics import Metrics
from app.foundation.sql.database import Database
from app.operations.api import change_routes
from app.operations.services.changes import ChangeReader
from app.operations.services.event_stream import KEEP, EventStream
from app.portfolio.domain.events import PlanCreated
from app.scoring.domain.events import ScoresUpdated
from app.signals.domain.events import SignalChanged
from tests.support.harness import PREFIX, make_api, open_client
from tests.support.problem_assertions import problem
from tests.support.streaming import served
from tests.support.trading_desk import NOW, SYMBOLS, WHO, Desk

PLAN = PlanCreated("run", 1, 0, NOW)
RUN = ScoresUpdated("run", NOW, 1, 0, 0.1, NOW)
ALERT = AlertRaised(
    "id", AlertRule.LOW_SCORE, SYMBOLS[0], (SYMBOLS[0],), Severity.WARNING, 0.4, 0.5, "low", NOW
)
SIGNAL = SignalChanged(
    "s", "desk", "momentum", SYMBOLS[0], "BUY", "approved", "APPROVE", 0.1 + 0.2, "likely", NOW
)


@dataclass
class Face:
    """The part of the service that the route uses."""

    changes: ChangeReader


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx2.AsyncClient]:
    api = make_api({"my_symbols": Face(ChangeReader(database))}, routers=[change_routes.router])
    async with open_client(api) as opened:
        yield opened


async def announce(database: Database, *events: object) -> None:
    async with database.write() as unit:
        for event in events:
            unit.publish_after_commit(event)


async def changes(client: httpx2.AsyncClient, since: object, **params: Any) -> dict[str, Any]:
    answer = await client.get(f"{PREFIX}/changes", params={"since": str(since), **params})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def weights(net: dict[str, Any], side: str) -> dict[str, float]:
    found = {one["symbol"]: one[f"{side}_weight_percentage"] for one in net["members"]}
    return {symbol: weight for symbol, weight in found.items() if weight is not None}


async def test_an_absence_is_one_page_of_events_with_its_net_effect(
    database: Database, client: httpx2.AsyncClient
) -> None:
    desk = Desk(database)
    await desk.open()
    nothing = await changes(client, 0)
    assert nothing == {
        "items": [],
        "next_cursor": None,
        "since": 0,
        "sequence": 0,
        "missing": None,
        "portfolio": None,
    }
    await desk.portfolio.initialize(3, "start", WHO)
    seen = (await changes(client, 0))["sequence"]
    before = {
        one.symbol: one.weight_u / 1e6 for one in (await desk.portfolio.view()).portfolio.members
    }
    await desk.portfolio.replace(SYMBOLS[2], SYMBOLS[7], "better", WHO)
    await announce(database, RUN, ALERT, SIGNAL)
    await desk.configuration.put({"max_portfolio_symbols": 9}, "smaller", WHO)
    await desk.portfolio.remove(SYMBOLS[0], "enough", WHO)

    found = await changes(client, seen)
    kinds = [(one["topic"], one["data"]["type"]) for one in found["items"]]
    assert kinds == [  # a scoring run is no change of these
        ("portfolio_change", "REPLACE"),
        ("alert", "alert_raised"),
        ("signal", "signal_changed"),
        ("portfolio_change", "CONFIG"),
        ("configuration", "configuration_changed"),
        ("portfolio_change", "REMOVE"),
    ]
    assert found["items"][2]["data"]["score"] == 0.3
    assert [one["sequence"] for one in found["items"]] == [2, 4, 5, 6, 7, 8]
    assert (found["since"], found["sequence"], found["missing"]) == (1, 8, None)
    net = found["portfolio"]
    after = {
        one.symbol: one.weight_u / 1e6 for one in (await desk.portfolio.view()).portfolio.members
    }
    assert (net["old_version"], net["new_version"]) == (1, 4)
    assert weights(net, "old") == {
        name: weight for name, weight in before.items() if after.get(name) != weight
    }
    assert weights(net, "new") == {
        name: weight for name, weight in after.items() if before.get(name) != weight
    }
    gone = [one["symbol"] for one in net["members"] if one["new_weight_percentage"] is None]
    assert sorted(gone) == sorted([SYMBOLS[0], SYMBOLS[2]])
    assert net["new_cash_percentage"] == pytest.approx(100 - sum(after.values()))
    assert await changes(client, 8) == nothing | {"since": 8, "sequence": 8}


async def test_pages_are_bounded_complete_and_lead_into_the_stream(database: Database) -> None:
    async with served(database) as opened:
        opened_api = make_api(
            {"my_symbols": Face(ChangeReader(database))}, routers=[change_routes.router]
        )
        async with open_client(opened_api) as client:
            for number in range(7):
                await announce(database, replace(PLAN, run_id=str(number)), RUN)
            found, cursor = [], None
            while True:
                page = await changes(client, 0, limit=3, **({"cursor": cursor} if cursor else {}))
                assert len(page["items"]) <= 3
                found += [one["data"]["run_id"] for one in page["items"]]
                if page["next_cursor"] is None:
                    break
                assert page["sequence"] == page["items"][-1]["sequence"]
                cursor = page["next_cursor"]
                await announce(database, replace(PLAN, run_id=f"late {len(found)}"))
            assert found == [*"0123456", "late 3", "late 6"]
            assert page["sequence"] == 16  # also past events of other topics
            await announce(database, replace(PLAN, run_id="after"))
            async with opened.client() as reader:
                await reader.subscribe("rebalance", resume_from=page["sequence"])
                (event,) = await reader.events(1)
            assert event["data"]["run_id"] == "after"
            wrong = await client.get(f"{PREFIX}/changes", params={"since": 1, "cursor": cursor})
            problem(wrong, 422, "validation_failed")


async def test_a_time_is_as_good_as_a_number(
    database: Database, client: httpx2.AsyncClient
) -> None:
    for minutes in (-3, -1, -2, 0):  # numbers follow commits, not times
        at = NOW + timedelta(minutes=minutes)
        await announce(database, replace(PLAN, run_id=str(minutes), occurred_at=at))
    for since, expected in (
        (NOW - timedelta(minutes=2), ["-1", "-2", "0"]),
        (NOW - timedelta(minutes=1), ["0"]),
        (NOW - timedelta(days=400), ["-3", "-1", "-2", "0"]),
        (NOW, []),
    ):
        found = await changes(client, f"{since:%Y-%m-%dT%H:%M:%SZ}")
        assert [one["data"]["run_id"] for one in found["items"]] == expected
        assert (found["sequence"], found["missing"]) == (4, None)


async def test_events_that_are_no_longer_stored_are_reported(
    database: Database, client: httpx2.AsyncClient
) -> None:
    stream = EventStream(database, lambda: NOW, Metrics())
    for number in range(5):
        age = KEEP + timedelta(hours=1) if number < 3 else timedelta(hours=1)
        await announce(database, replace(PLAN, run_id=str(number), occurred_at=NOW - age))
    assert await stream.forget_old() == 3
    gap = {"oldest": 4, "history": f"{PREFIX}/portfolio/history"}
    long_ago = f"{NOW - timedelta(days=2):%Y-%m-%dT%H:%M:%SZ}"
    for since, reason in ((1, "too_old"), (long_ago, "too_old")):
        found = await changes(client, since)
        assert found["missing"] == {"reason": reason, **gap}
        assert [one["sequence"] for one in found["items"]] == [4, 5]
        assert found["sequence"] == 5
    recent = f"{NOW - timedelta(minutes=90):%Y-%m-%dT%H:%M:%SZ}"
    unknown = await changes(client, 99)
    assert unknown["missing"] == {"reason": "unknown_sequence", **gap}
    assert (unknown["items"], unknown["sequence"]) == ([], 5)
    for since in (3, f"{NOW - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"):
        assert (await changes(client, since))["missing"] is None
    assert (await changes(client, recent))["missing"] == {"reason": "too_old", **gap}


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "since", ["", "-1", "1e3", "yesterday", "9" * 19, "2026-03-01", "2026-03-01T12:00:00", "\u0661"]
)
async def test_another_text_is_refused(client: httpx2.AsyncClient, since: str) -> None:
    answer = await client.get(f"{PREFIX}/changes", params={"since": since})
    errors = problem(answer, 422, "validation_failed")["errors"]
    assert [one["loc"] for one in errors] == [["query", "since"]]
