"""Idempotency-Key, If-Match and ETag on the changes of membership, weights and settings."""

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import httpx2
import pytest

from app.foundation.sql.database import Database
from app.operations.api import configuration_routes as configuration
from app.portfolio.api import membership_routes as portfolio_changes
from app.portfolio.api import rebalance_routes as portfolio_rebalance
from app.portfolio.domain.event_log import EventType
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import PortfolioRepository
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.trading_desk import SYMBOLS, Desk

MODULES = (portfolio_changes, portfolio_rebalance, configuration)


class Change(NamedTuple):
    """One request that changes something, on a portfolio of `members`."""

    method: str
    path: str
    body: dict[str, Any]
    members: int = 4


CHANGES = {
    "initialize": Change("POST", "/portfolio/initialize", {"size": 3}, members=0),
    "add": Change("POST", "/portfolio/add-symbol", {"symbol": SYMBOLS[9]}),
    "remove": Change("POST", "/portfolio/remove-symbol", {"symbol": SYMBOLS[1]}),
    "replace": Change(
        "POST",
        "/portfolio/replace-symbol",
        {"old_symbol": SYMBOLS[1], "new_symbol": SYMBOLS[9]},
    ),
    "rebalance": Change("POST", "/portfolio/rebalance", {"reason": "by hand"}),
    "configure": Change("PATCH", "/configuration", {"max_weight_percentage": 33}),
}


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    async with serve([one.router for one in MODULES], {"my_symbols": desk}) as opened:
        yield opened


@pytest.fixture(params=list(CHANGES))
async def change(request: pytest.FixtureRequest, desk: Desk) -> Change:
    """A change, and a desk on which it would do something."""
    chosen = CHANGES[request.param]
    await (desk.filled(chosen.members) if chosen.members else desk.open())
    desk.later(days=2)
    desk.score({SYMBOLS[0]: 0.3})
    return chosen


async def ask(client: httpx2.AsyncClient, change: Change, **headers: str) -> httpx2.Response:
    return await client.request(
        change.method,
        PREFIX + change.path,
        json=change.body,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


async def seen(desk: Desk) -> Any:
    async with desk.database.read() as unit:
        return await unit.get(PortfolioRepository).load(), await unit.get(HistoryRepository).all()


async def test_I1_a_replay_is_the_first_answer_and_changes_nothing(
    desk: Desk, client: httpx2.AsyncClient, change: Change
) -> None:
    before = await seen(desk)
    first = await ask(client, change, idempotency_key="k")
    after = await seen(desk)
    assert first.status_code in {200, 201}, first.text
    assert after != before
    again = await ask(client, change, idempotency_key="k")
    assert (again.status_code, again.content) == (first.status_code, first.content)
    for name in ("etag", "content-type"):
        assert again.headers.get(name) == first.headers.get(name)
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert await seen(desk) == after


async def test_S20_a_change_without_a_key_is_marked_in_the_history(
    desk: Desk, client: httpx2.AsyncClient, change: Change
) -> None:
    """It is not refused. With a key the same request again has no effect and no mark."""
    _, before = await seen(desk)
    assert (await ask(client, change)).status_code in {200, 201}
    _, after = await seen(desk)
    marked = [one.payload.get("has_idempotency_key") for one in after[len(before) :]]
    assert marked
    assert set(marked) == {False}
    other = CHANGES["configure"]._replace(body={"max_weight_percentage": 34})
    for _ in range(2):
        assert (await ask(client, other, idempotency_key="k")).status_code == 200
    _, end = await seen(desk)
    keyed = end[len(after) :]
    assert sum(one.type is EventType.CONFIG for one in keyed) == 1
    assert not any("has_idempotency_key" in one.payload for one in keyed)


async def test_C03_the_key_with_another_body_is_refused(
    desk: Desk, client: httpx2.AsyncClient, change: Change
) -> None:
    await ask(client, change, idempotency_key="k")
    after = await seen(desk)
    other = change._replace(body={**change.body, "user": "somebody"})
    if change.path == "/configuration":
        other = change._replace(body={"max_weight_percentage": 34})
    problem(await ask(client, other, idempotency_key="k"), 422, "idempotency_key_reused")
    assert await seen(desk) == after


@pytest.mark.parametrize("key", ["", "x" * 256, "two words", "\u00fc"])
async def test_I19_a_key_that_is_none_changes_nothing(
    desk: Desk, client: httpx2.AsyncClient, change: Change, key: str
) -> None:
    before = await seen(desk)
    response = await client.request(
        change.method,
        PREFIX + change.path,
        json=change.body,
        headers=[(b"idempotency-key", key.encode())],
    )
    problem(response, 422, "validation_failed")
    assert await seen(desk) == before


async def test_C14_a_change_decided_on_another_version_is_refused(
    desk: Desk, client: httpx2.AsyncClient, change: Change
) -> None:
    before = await seen(desk)
    for tag in ('"999"', '"present"', 'W/"1"', '"01"'):
        problem(await ask(client, change, if_match=tag), 412, "precondition_failed")
    for no_tag in ("1", '"1', '"1", "1"', ""):
        refused = problem(await ask(client, change, if_match=no_tag), 422, "validation_failed")
        assert [one["loc"] for one in refused["errors"]] == [["header", "If-Match"]], no_tag
    assert await seen(desk) == before


async def test_a_change_decided_on_the_present_version_is_made_and_names_the_next(
    desk: Desk, client: httpx2.AsyncClient, change: Change
) -> None:
    portfolio, _ = await seen(desk)
    settings = await desk.configuration.current()
    is_setting = change.path == "/configuration"
    present = settings.version if is_setting else portfolio.version
    done = await ask(client, change, if_match=f'"{present}"')
    assert done.status_code in {200, 201}, done.text
    assert done.headers["etag"] == f'"{present + 1}"'
    assert (await seen(desk))[0].version == portfolio.version + 1
