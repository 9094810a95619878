"""The algorithm changed over HTTP, and what boards say of it; a run made again."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import pytest

from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.sql.database import Database
from app.market.domain.models import Interval
from app.market.storage.candles import CandleRepository, CandleRevisionRepository
from app.operations.services.configuration import ConfigurationService
from app.scoring.api import routes
from app.scoring.services.service import Scoring
from app.scoring.storage.runs import ScoringRepository
from tests.scoring.services.test_replay import IDS, INPUTS, changed, stored
from tests.scoring.services.test_scoring import Bench, Market
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.trading_desk import Desk

PATH = f"{PREFIX}/scoring/algorithms"
OWN = f"{PATH}/cross_sectional"
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@dataclass(frozen=True, slots=True)
class Face:
    registry: Market
    scoring: Scoring
    configuration: ConfigurationService


@pytest.fixture
async def bench(database: Database) -> Bench:
    bench = Bench(database)
    bench.market.inputs = INPUTS
    return bench


@pytest.fixture
async def client(bench: Bench, database: Database) -> AsyncIterator[httpx2.AsyncClient]:
    desk = Desk(database)
    await desk.open()
    face = Face(bench.market, bench.scoring, desk.configuration)
    bench.database.publish = lambda event: None
    async with serve([routes.router], {"my_symbols": face}) as client:
        yield client


async def in_force(bench: Bench, client: httpx2.AsyncClient) -> dict[str, Any]:
    """Takes up the stored settings, scores, and gives the algorithm as it is told."""
    async with bench.database.read() as unit:
        bench.settings = await unit.get(ConfigurationRepository).current()
    board = await bench.scoring.calculate()
    told, *families = (await client.get(PATH)).json()["items"]
    assert told["name"] == "COMPOSITE"
    assert (board.algorithm, board.algorithm_version) == (told["algorithm"], told["version"])
    assert [one["name"].lower() for one in families] == list(told["parameters"]["family_weights"])
    factors = [factor for one in families for factor in one["parameters"]["factors"]]
    assert {one["name"] for one in factors} == {
        one["name"] for one in told["parameters"]["factors"]
    }
    for one in families:
        family = one["name"].lower()
        assert {factor["family"] for factor in one["parameters"]["factors"]} == {family}
        assert one["parameters"]["family_weights"] == {
            family: told["parameters"]["family_weights"][family]
        }
        has_impact = family == "market_structure"
        assert one["parameters"]["parameters"] == (
            told["parameters"]["parameters"] if has_impact else {}
        )
    weights = {one["name"]: one["weight"] for one in told["parameters"]["factors"]}
    return {**told, "weights": weights}


async def test_a_change_is_a_version_and_scores_follow_it(
    bench: Bench, client: httpx2.AsyncClient
) -> None:
    first = await in_force(bench, client)
    before = bench.scoring.board()
    body: dict[str, Any] = {
        "factor_weights": {"rsi_14": 0.5, "volume_trend": 0.25},
        "impact_notional": 50_000,
    }
    response = await client.put(OWN, json={**body, "reason": "larger", "user": "ops"})
    assert response.status_code == 200
    answer = response.json()
    assert (answer["name"], answer["configuration_version"]) == ("cross_sectional", 2)
    assert response.headers["etag"] == '"2"'
    second = await in_force(bench, client)
    assert answer["parameters"] == second["parameters"]
    assert (first["version"], second["version"]) == (1, 2)
    assert second["parameters"]["parameters"] == {"impact_notional": 50_000}
    assert second["weights"] == {**first["weights"], **body["factor_weights"]}
    after = bench.scoring.board()
    assert after.configuration_version == 2
    assert after.input_hash == before.input_hash
    card, former = after.cards[0], before.card(after.cards[0].symbol)
    assert former is not None
    counted = {one.name: one.weight for one in card.factors}
    assert counted["volume_trend"] == pytest.approx(0.15 * 0.25 / 1.67)
    assert {one.name: one.raw for one in card.factors}["impact"] != {
        one.name: one.raw for one in former.factors
    }["impact"]
    only = await client.put(
        OWN, json={"factor_weights": {"rsi_14": 0.1}}, headers={"If-Match": '"2"'}
    )
    assert only.json()["configuration_version"] == 3
    third = await in_force(bench, client)
    assert (third["weights"]["rsi_14"], third["weights"]["volume_trend"]) == (0.1, 0.25)


async def test_weights_are_changed_by_family(bench: Bench, client: httpx2.AsyncClient) -> None:
    first = await in_force(bench, client)
    changed = await client.put(f"{PATH}/TECHNICAL", json={"factor_weights": {"rsi_14": 0.5}})
    assert changed.json()["name"] == "TECHNICAL"
    assert {one["family"] for one in changed.json()["parameters"]["factors"]} == {"technical"}
    body = {"factor_weights": {"spread": 0.5}, "impact_notional": 7}
    assert (await client.put(f"{PATH}/MARKET_STRUCTURE", json=body)).status_code == 200
    body = {"family_weights": dict.fromkeys(first["parameters"]["family_weights"], 0.25)}
    assert (await client.put(f"{PATH}/COMPOSITE", json=body)).status_code == 200
    last = await in_force(bench, client)
    assert last["weights"] == {**first["weights"], "rsi_14": 0.5, "spread": 0.5}
    assert last["parameters"]["parameters"] == {"impact_notional": 7}
    assert set(last["parameters"]["family_weights"].values()) == {0.25}


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"factor_weights": {"rsi_14": 0.5, "spread": 0.5}}, ["factor_weights", "rsi_14"]),
        ({"family_weights": {"risk": 1.0}}, ["family_weights"]),
    ],
)
async def test_a_family_takes_no_parameter_of_another(
    client: httpx2.AsyncClient, body: dict[str, Any], place: list[str]
) -> None:
    response = await client.put(f"{PATH}/MARKET_STRUCTURE", json=body)
    problem(response, 422, "validation_failed", extra=frozenset({"errors"}))
    assert [one["loc"][1:] for one in response.json()["errors"]] == [place]
    response = await client.put(f"{PATH}/RISK", json={"impact_notional": 10})
    problem(response, 422, "validation_failed", extra=frozenset({"errors"}))


async def test_family_weights_are_those_of_the_configuration(
    bench: Bench, client: httpx2.AsyncClient
) -> None:
    wanted = {"technical": 0.1, "fundamental": 0.2, "market_structure": 0.3, "risk": 0.4}
    assert (await client.put(OWN, json={"family_weights": wanted})).status_code == 200
    assert (await in_force(bench, client))["parameters"]["family_weights"] == wanted
    assert bench.settings.family_weights == wanted


@pytest.mark.parametrize(
    ("body", "code", "places"),
    [
        ({"factor_weights": {"tea": 1}}, "validation_failed", [["factor_weights", "tea"]]),
        ({"factor_weights": {"rsi_14": 1.5}}, "validation_failed", [["factor_weights", "?"]]),
        ({"impact_notional": 0}, "validation_failed", [["impact_notional"]]),
        ({"family_weights": {"risk": 0.5}}, "validation_failed", [["family_weights"]]),
        ({"family_weights": {"luck": 0.5}}, "validation_failed", [["family_weights", "luck"]]),
        (
            {"factor_weights": dict.fromkeys(
                ["spread", "depth_25", "impact"], 0
            )},
            "constraints_infeasible",
            [["factor_weights"]],
        ),
    ],
)  # fmt: skip
async def test_what_cannot_be_is_refused_and_changes_nothing(
    bench: Bench, client: httpx2.AsyncClient, body: dict[str, Any], code: str, places: list[Any]
) -> None:
    response = await client.put(OWN, json=body)
    problem(response, 422, code, extra=frozenset({"errors"}))
    assert [one["loc"][1:] for one in response.json()["errors"]] == places
    assert (await in_force(bench, client))["version"] == 1
    assert bench.settings.version == 1


async def test_names_nulls_and_stale_versions_are_refused(client: httpx2.AsyncClient) -> None:
    other = await client.put(f"{PATH}/astrology", json={"impact_notional": 10})
    problem(other, 404, "not_found")
    null = await client.put(OWN, json={"impact_notional": None})
    problem(null, 422, "validation_failed", extra=frozenset(null.json()))
    stale = await client.put(OWN, json={"impact_notional": 10}, headers={"If-Match": '"7"'})
    problem(stale, 412, "precondition_failed")


async def test_the_same_key_gives_the_same_answer(client: httpx2.AsyncClient) -> None:
    key = {"Idempotency-Key": "one"}
    first = await client.put(OWN, json={"impact_notional": 10}, headers=key)
    again = await client.put(OWN, json={"impact_notional": 10}, headers=key)
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")


async def test_a_run_is_made_again_over_http(bench: Bench, client: httpx2.AsyncClient) -> None:
    await stored(bench, INPUTS.daily, INPUTS.hourly)
    board = await bench.scoring.calculate()
    runs = f"{PREFIX}/scoring/runs"
    body = (await client.post(f"{runs}/{board.run_id}/replay")).json()
    assert (body["run_id"], body["is_identical"], body["differing"]) == (board.run_id, True, [])
    assert body["input_hash"] == body["replayed_input_hash"] == board.input_hash
    assert body["board_hash"] == body["replayed_board_hash"]
    unknown = await client.post(f"{runs}/00000000-0000-4000-8000-999999999999/replay")
    problem(unknown, 404, "not_found")


async def test_D06_a_score_keeps_its_input_hash_when_a_candle_is_revised(
    bench: Bench, client: httpx2.AsyncClient
) -> None:
    await stored(bench, INPUTS.daily, INPUTS.hourly)
    board = await bench.scoring.calculate()
    run = f"{PREFIX}/scoring/runs/{board.run_id}"
    before = (await client.get(run)).json()
    revised = changed(INPUTS.daily, high=(-1, 3, 1.2), close=(-1, 3, 1.1))
    await stored(bench, revised, INPUTS.hourly)
    body = (await client.post(f"{run}/replay")).json()
    assert (body["is_identical"], body["differing"]) == (True, [])
    assert body["input_hash"] == body["replayed_input_hash"] == board.input_hash
    assert (await client.get(run)).json() == before, "nothing of it has changed"
    symbol = INPUTS.daily.symbols[3]
    async with bench.database.read() as unit:
        (kept,) = await unit.get(CandleRevisionRepository).all(IDS[symbol], Interval.DAY)
        held = (await unit.get(CandleRepository).load([IDS[symbol]], Interval.DAY))[IDS[symbol]]
    assert kept.values["close"] == INPUTS.daily.close[-1, 3]
    assert held.close[-1] == revised.close[-1, 3]
    # A board of now is one of the revised candle.
    bench.market.inputs = replace(INPUTS, daily=revised)
    assert (await bench.scoring.calculate()).input_hash != board.input_hash


async def test_the_composite_is_neutralised_as_a_version_and_explains_it(
    bench: Bench, client: httpx2.AsyncClient
) -> None:
    await in_force(bench, client)
    before = bench.scoring.board()
    refused = await client.put(f"{PATH}/RISK", json={"neutralise": "volatility"})
    problem(refused, 422, "validation_failed", extra=frozenset({"errors"}))
    mode = "volatility_and_btc_beta"
    answer = await client.put(f"{PATH}/COMPOSITE", json={"neutralise": mode})
    assert answer.status_code == 200, answer.text
    assert answer.json()["parameters"]["neutralise"] == mode
    second = await in_force(bench, client)
    assert (second["version"], second["parameters"]["neutralise"]) == (2, mode)
    after = bench.scoring.board()
    assert [one.symbol for one in after.cards] != [one.symbol for one in before.cards]
    async with bench.database.read() as unit:
        kept = await unit.get(ScoringRepository).run(after.run_id)
    assert kept is not None
    assert kept.cards == after.cards
    path = f"{PREFIX}/scoring/symbol/{after.cards[0].symbol}/explain"
    shown = (await client.get(path)).json()
    parts = shown["composite"]["neutralisation"]
    assert set(parts) == {"volatility", "btc_beta", "ranking"}
    total = sum(one["contribution"] or 0.0 for one in shown["factors"]) + sum(parts.values())
    assert total == pytest.approx(shown["z"], abs=1e-9)
    await client.put(f"{PATH}/COMPOSITE", json={"neutralise": "none"})
    third = await in_force(bench, client)
    assert "neutralise" not in third["parameters"]
    assert bench.scoring.board().cards == before.cards


@pytest.mark.parametrize("mode", ["volatility", "volatility_and_btc_beta"])
async def test_a_neutralised_run_is_made_again_over_http(
    bench: Bench, client: httpx2.AsyncClient, mode: str
) -> None:
    await stored(bench, INPUTS.daily, INPUTS.hourly)
    await client.put(f"{PATH}/COMPOSITE", json={"neutralise": mode})
    await in_force(bench, client)
    board = bench.scoring.board()
    body = (await client.post(f"{PREFIX}/scoring/runs/{board.run_id}/replay")).json()
    assert (body["is_identical"], body["differing"]) == (True, [])
