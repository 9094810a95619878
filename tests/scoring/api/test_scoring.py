"""Scores over HTTP, on the real scoring service."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from math import fsum

import httpx2
import numpy as np
import pytest
from scipy.special import ndtr

from app.configuration.domain.sections import Source
from app.foundation.http.schemas import SIGNIFICANT_DIGITS, significant
from app.foundation.sql.database import Database
from app.market.domain.panel import COVERING
from app.scoring.api import routes
from app.scoring.domain.counterfactual import FactorChange
from app.scoring.domain.explanation import DIGITS
from app.scoring.domain.factors import FACTORS
from app.scoring.services.service import Scoring
from app.scoring.storage.runs import ScoringRepository
from tests.scoring.domain.test_counterfactual import SPEC, board_of, rank_of, supposing
from tests.scoring.services.test_scoring import INPUTS, NOW, Bench, Market, older
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.scoring_inputs import make_inputs

SCORING = f"{PREFIX}/scoring"
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@dataclass(frozen=True, slots=True)
class Face:
    """The part of the service that these routes use."""

    registry: Market
    scoring: Scoring


@pytest.fixture
def bench(database: Database) -> Bench:
    return Bench(database)


@asynccontextmanager
async def opened(bench: Bench) -> AsyncIterator[httpx2.AsyncClient]:
    face = Face(bench.market, bench.scoring)
    async with serve([routes.router], {"my_symbols": face}) as client:
        yield client


@pytest.fixture
async def client(bench: Bench) -> AsyncIterator[httpx2.AsyncClient]:
    async with opened(bench) as client:
        yield client


async def test_before_the_first_board(client: httpx2.AsyncClient) -> None:
    for path in ("/rankings", "/symbol/BTCUSDT/explain", "/symbol/BTCUSDT/scores"):
        response = await client.get(SCORING + path)
        problem(response, 503, "no_board_yet")
        assert int(response.headers["retry-after"]) >= 1


async def test_calculate_says_what_it_did(client: httpx2.AsyncClient, bench: Bench) -> None:
    response = await client.post(f"{SCORING}/calculate")
    assert response.status_code == 200
    body = response.json()
    board = bench.scoring.board()
    assert body == {
        "as_of": board.as_of.isoformat().replace("+00:00", "Z"),
        "data_source": "sandbox",
        "data_status": "fresh",
        "run_id": board.run_id,
        "symbols_processed": 17,
        "scores_calculated": 16,
        "unavailable": [{"symbol": "ZUSDT", "reason": "not_eligible", "detail": "status_open"}],
        "is_provisional": False,
        "source_coverage": dict.fromkeys(COVERING, 1.0),
        "duration_ms": 250.0,
        "score": None,
    }


@pytest.mark.parametrize("field", ["symbol", "symbol_id"])
async def test_calculate_for_one_symbol(client: httpx2.AsyncClient, field: str) -> None:
    text = {"symbol": "btc-usdt", "symbol_id": "00000000-0000-4000-8000-000000000000"}[field]
    body = (await client.post(f"{SCORING}/calculate", json={field: text})).json()
    assert (body["symbols_processed"], body["scores_calculated"]) == (1, 1)
    assert body["unavailable"] == []
    assert body["score"]["symbol"] == "BTCUSDT"
    assert 0.0 < body["score"]["composite_score"] < 1.0
    newcomer = await client.post(f"{SCORING}/calculate", json={"symbol": "NEWUSDT"})
    assert (newcomer.json()["symbols_processed"], newcomer.json()["score"]) == (0, None)
    unknown = await client.post(f"{SCORING}/calculate", json={"symbol": "NOSUCHUSDT"})
    problem(unknown, 422, "symbol_unknown", extra=frozenset(unknown.json()))


async def test_stale_data_is_refused(client: httpx2.AsyncClient, bench: Bench) -> None:
    bench.market.inputs = replace(INPUTS, ages_s=older(Source.TICKERS, 16))
    response = await client.post(f"{SCORING}/calculate")
    problem(response, 503, "market_data_stale", extra=frozenset(response.json()))
    problem(await client.get(f"{SCORING}/rankings"), 503, "no_board_yet")


async def test_D19_quotes_of_different_moments_are_not_scored_and_the_last_board_stays(
    client: httpx2.AsyncClient, bench: Bench
) -> None:
    board = await bench.scoring.calculate()
    inputs = bench.market.inputs
    ages = np.linspace(0.0, 12.0, len(inputs.symbols))
    bench.market.inputs = replace(inputs, ages_s={**inputs.ages_s, Source.TICKERS: ages})
    bench.market.quote_span_s = 5.0
    response = await client.post(f"{SCORING}/calculate")
    problem(response, 503, "aborted_inconsistent", extra=frozenset(response.json()))
    assert response.headers["retry-after"] == "5"
    shown = (await client.get(f"{SCORING}/rankings")).json()
    assert shown["run_id"] == board.run_id


async def test_calculate_says_when_its_board_is_stale_already(
    client: httpx2.AsyncClient, bench: Bench
) -> None:
    def much_later(event: object) -> None:
        bench.now += timedelta(hours=1)

    bench.database.publish = much_later
    body = (await client.post(f"{SCORING}/calculate")).json()
    assert body["data_status"] == "stale"


async def test_calculate_with_a_key_answers_the_same_bytes(client: httpx2.AsyncClient) -> None:
    headers = {"Idempotency-Key": "one"}
    first = await client.post(f"{SCORING}/calculate", headers=headers)
    again = await client.post(f"{SCORING}/calculate", headers=headers)
    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    other = await client.post(f"{SCORING}/calculate", headers=headers, json={"symbol": "BTCUSDT"})
    problem(other, 422, "idempotency_key_reused")


async def test_rankings_are_best_first(client: httpx2.AsyncClient, bench: Bench) -> None:
    board = await bench.scoring.calculate()
    response = await client.get(f"{SCORING}/rankings")
    assert response.headers["etag"] == f'"{board.run_id}"'
    body = response.json()
    assert (body["run_id"], body["algorithm_type"]) == (board.run_id, "COMPOSITE")
    assert (body["universe_size"], body["total"], len(body["items"])) == (16, 17, 17)
    first, last = body["items"][0], body["items"][-1]
    assert set(first) == {
        "symbol", "symbol_id", "technical_score", "fundamental_score", "market_structure_score",
        "risk_score", "composite_score", "rank_percentile", "confidence_level", "rank",
        "calculation_timestamp",
        "supporting_data", "data_source", "status", "reason",
    }  # fmt: skip
    assert (first["rank"], first["status"], first["reason"]) == (1, "scored", None)
    for line in body["items"]:
        assert line["symbol_id"] == bench.market.resolve(line["symbol"]).symbol_id
    percentiles = [line["rank_percentile"] for line in body["items"]]
    assert percentiles == [*((16 - place) / 16 for place in range(16)), None]
    assert first["calculation_timestamp"] == "2026-03-01T12:00:00Z"
    supporting = first["supporting_data"]
    assert sum(supporting["contributions"].values()) == pytest.approx(supporting["z"], abs=1e-9)
    assert len(supporting["contributions"]) == len(FACTORS)
    assert supporting["missing"] == {}
    assert (last["symbol"], last["status"], last["reason"]) == (
        "ZUSDT", "unavailable", "not_eligible",
    )  # fmt: skip
    assert (last["rank"], last["composite_score"], last["confidence_level"]) == (None, None, None)


async def test_rankings_by_family_limited_and_eligible(
    client: httpx2.AsyncClient, bench: Bench
) -> None:
    await bench.scoring.calculate()
    for family in ("TECHNICAL", "FUNDAMENTAL", "MARKET_STRUCTURE", "RISK"):
        query = {"algorithm_type": family, "limit": "5"}
        body = (await client.get(f"{SCORING}/rankings", params=query)).json()
        scores = [item[f"{family.lower()}_score"] for item in body["items"]]
        assert scores == sorted(scores, reverse=True)
        assert [item["rank"] for item in body["items"]] == [1, 2, 3, 4, 5]
    eligible = await client.get(f"{SCORING}/rankings", params={"eligible_only": "true"})
    assert eligible.json()["total"] == 16
    for query in ({"limit": "0"}, {"limit": "1001"}, {"algorithm_type": "BEST"}, {"sort": "x"}):
        problem(await client.get(f"{SCORING}/rankings", params=query), 422, "validation_failed")


async def test_a_board_that_the_caller_holds_is_not_sent_again(
    client: httpx2.AsyncClient, bench: Bench
) -> None:
    await bench.scoring.calculate()
    tag = (await client.get(f"{SCORING}/rankings")).headers["etag"]
    held = await client.get(f"{SCORING}/rankings", headers={"If-None-Match": tag})
    assert (held.status_code, held.content, held.headers["etag"]) == (304, b"", tag)
    bench.now = NOW + timedelta(hours=1)
    grown = await client.get(f"{SCORING}/rankings", headers={"If-None-Match": tag})
    assert (grown.status_code, grown.json()["data_status"]) == (200, "stale")
    await bench.scoring.calculate()
    newer = await client.get(f"{SCORING}/rankings", headers={"If-None-Match": tag})
    assert newer.status_code == 200
    assert newer.headers["etag"] != tag


async def test_rankings_need_no_sql(bench: Bench) -> None:
    await bench.scoring.calculate()
    async with opened(bench) as client:
        await bench.database.close()
        assert (await client.get(f"{SCORING}/rankings")).status_code == 200
        assert (await client.get(f"{SCORING}/symbol/BTCUSDT/explain")).status_code == 200
        await bench.database.open()


async def test_explain_adds_up(client: httpx2.AsyncClient, bench: Bench) -> None:
    board = await bench.scoring.calculate()
    body = (await client.get(f"{SCORING}/symbol/BTC%2FUSDT:USDT/explain")).json()
    assert body["score"]["symbol"] == "BTCUSDT"
    total = sum(factor["contribution"] or 0.0 for factor in body["factors"])
    assert total == pytest.approx(body["z"], abs=1e-9)
    assert body["sum_of_contributions"] == pytest.approx(body["z"], abs=1e-9)
    card = board.cards[body["score"]["rank"] - 1]
    assert body["score"]["composite_score"] == significant(card.composite or 0)
    assert body["score"]["rank_percentile"] == significant((17 - body["score"]["rank"]) / 16)
    assert body["confidence"]["level"] == body["score"]["confidence_level"]
    assert (body["input_hash"], body["universe_size"]) == (board.input_hash, 16)
    assert {factor["family"] for factor in body["factors"]} == {
        "technical", "fundamental", "market_structure", "risk",
    }  # fmt: skip
    absent = (await client.get(f"{SCORING}/symbol/ZUSDT/explain")).json()
    assert (absent["z"], absent["sum_of_contributions"], absent["confidence"]) == (None,) * 3
    assert (absent["detail"], absent["factors"]) == ("status_open", [])
    problem(await client.get(f"{SCORING}/symbol/NEWUSDT/explain"), 404, "not_found")
    assert body["fixed_moments"] == []
    bench.market.inputs = make_inputs(8, daily=120, hourly=260)
    await bench.scoring.calculate()
    few = (await client.get(f"{SCORING}/symbol/BTCUSDT/explain")).json()
    measured = {one.pop("name"): one for one in few["fixed_moments"]}
    assert {"rsi_14", "risk", "composite"} < measured.keys()
    day = board.as_of.date().isoformat()
    told = {name: measured["composite"][name] for name in ("symbols", "days", "first", "last")}
    assert told == {"symbols": 16, "days": 1, "first": day, "last": day}
    assert measured["composite"]["age_days"] == 0


async def test_explain_shows_every_step_in_numbers_that_a_reader_can_add(
    client: httpx2.AsyncClient, bench: Bench
) -> None:
    board = await bench.scoring.calculate()
    assert DIGITS == SIGNIFICANT_DIGITS
    mapped = 0
    for card in board.cards[: board.universe_size]:
        body = (await client.get(f"{SCORING}/symbol/{card.symbol}/explain")).json()
        level = body["confidence"]["level"]
        families = {one["family"]: one for one in body["families"]}
        for factor in body["factors"]:
            family = families[factor["family"]]
            assert factor["weight_of_family"] == family["weight"]
            assert factor["confidence"] == level
            if factor["z"] is None:
                assert factor["weight_in_family"] == 0.0
                assert (factor["direct"], factor["ranking"], factor["contribution"]) == (None,) * 3
                continue
            product = level * family["weight"] * factor["weight_in_family"] * factor["z"]
            assert factor["direct"] == significant(product), "as it stands, to the last digit"
            both = factor["direct"] + factor["ranking"]
            assert both == pytest.approx(factor["contribution"], abs=1e-12)
            mapped += abs(factor["ranking"]) > 1e-6
        for name, family in families.items():
            own = [one for one in body["factors"] if one["family"] == name]
            counted = [one for one in own if one["z"] is not None]
            products = [one["weight_in_family"] * one["z"] for one in counted]
            assert family["weighted_sum"] == significant(fsum(products)), "likewise"
            assert fsum(one["weight_in_family"] ** 2 for one in own) == pytest.approx(1.0)
            total = fsum(one["contribution"] for one in counted)
            assert family["contribution"] == significant(total)
            assert family["score"] == body["score"][f"{name}_score"]
            assert family["score"] == pytest.approx(ndtr(family["z"]), abs=1e-11)
        composite = body["composite"]
        assert composite["weighted_sum"] == significant(
            fsum(one["weight"] * one["z"] for one in families.values())
        )
        assert fsum(one["weight"] ** 2 for one in families.values()) == pytest.approx(1.0)
        assert fsum(one["nominal_weight"] for one in families.values()) == pytest.approx(1.0)
        assert level * composite["composite_z"] == pytest.approx(composite["z"], abs=1e-11)
        assert composite["z"] == body["z"]
        total = fsum(one["contribution"] or 0.0 for one in body["factors"])
        assert body["sum_of_contributions"] == significant(total)
        assert total == pytest.approx(body["z"], abs=1e-10)
        assert body["score"]["composite_score"] == pytest.approx(ndtr(body["z"]), abs=1e-11)
        for name in ("confidence", "weight_of_family", "weight_in_family", "ranking"):
            assert name in body["formula"]
        assert "percentile" in body["why_percentiles_differ"]
    assert mapped > 0, "ranking moves what plain products would give"

    # Sums are those that were ranked: the order of the symbols by them is the order of the scores.
    shown = [
        (await client.get(f"{SCORING}/symbol/{card.symbol}/explain")).json()
        for card in board.cards[: board.universe_size]
    ]
    for place in range(4):
        pairs = [(one["families"][place]["weighted_sum"], one["families"][place]["score"])
                 for one in shown]  # fmt: skip
        assert [score for _, score in sorted(pairs)] == sorted(score for _, score in pairs)
    pairs = [(one["composite"]["weighted_sum"], one["composite"]["composite_z"]) for one in shown]
    assert [z for _, z in sorted(pairs)] == pytest.approx(sorted(z for _, z in pairs))
    absent = (await client.get(f"{SCORING}/symbol/ZUSDT/explain")).json()
    unknown = dict.fromkeys(("weighted_sum", "composite_z", "confidence", "z"))
    assert absent["composite"] == {**unknown, "neutralisation": {}}
    assert {one["weighted_sum"] for one in absent["families"]} == {None}


async def test_explain_says_what_it_takes_to_enter_the_first_places(
    client: httpx2.AsyncClient, bench: Bench
) -> None:
    """The change applied to what was measured and scored anew brings it there; half does not."""
    board = await bench.scoring.calculate()
    symbol = board.cards[9].symbol
    path = f"{SCORING}/symbol/{symbol}/explain"
    entry = (await client.get(path, params={"top": "4"})).json()["counterfactual"]
    assert (entry["top"], entry["rank"], entry["is_reachable"]) == (4, 10, True)
    changes = [FactorChange(**one) for one in entry["changes"]]
    steady = bench.scoring.score_reliability.reliability(INPUTS, SPEC)
    for share, there in ((1.0, True), (0.5, False)):
        supposed = board_of(INPUTS, supposing(symbol, changes, share), steady)
        assert (rank_of(supposed, symbol) <= 4) is there
    again = (await client.get(path, params={"top": "4"})).json()["counterfactual"]
    assert again == entry
    already = (await client.get(path)).json()["counterfactual"]
    assert already == {"top": 10, "rank": 10, "is_reachable": True, "changes": []}
    assert (await client.get(f"{SCORING}/symbol/ZUSDT/explain")).json()["counterfactual"] is None
    problem(await client.get(path, params={"top": "0"}), 422, "validation_failed")


async def test_history_pages_back(client: httpx2.AsyncClient, bench: Bench) -> None:
    for _ in range(5):
        await bench.scoring.calculate()
        bench.now += timedelta(minutes=5)
    path, seen, cursor = f"{SCORING}/symbol/BTCUSDT/scores", [], None
    for size in (2, 2, 1):
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get(path, params=query)).json()
        assert len(page["items"]) == size
        seen += [item["calculation_timestamp"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert seen == sorted(set(seen), reverse=True)
    assert len(seen) == 5
    query = {"limit": "2"}
    mine = (await client.get(path, params=query)).json()["next_cursor"]
    other = f"{SCORING}/symbol/C001USDT/scores"
    problem(await client.get(other, params={"cursor": mine}), 422, "validation_failed")


async def test_algorithms_and_runs(client: httpx2.AsyncClient, bench: Bench) -> None:
    board = await bench.scoring.calculate()
    algorithm, *_ = (await client.get(f"{SCORING}/algorithms")).json()["items"]
    assert (algorithm["algorithm"], algorithm["version"]) == (board.algorithm, 1)
    assert algorithm["parameters"]["family_weights"]["risk"] == 0.4
    body = (await client.get(f"{SCORING}/runs/{board.run_id}")).json()
    assert (body["symbols_processed"], body["scores_calculated"]) == (17, 16)
    assert body["coverage"] == dict(board.coverage)
    assert body["unavailable_by_reason"] == {"not_eligible": 1}
    assert 0.7 <= body["median_confidence"] <= 1.0
    spread = list(body["score_spread"].values())
    assert spread == sorted(spread)
    missing = await client.get(f"{SCORING}/runs/00000000-0000-4000-8000-999999999999")
    problem(missing, 404, "not_found")
    problem(await client.get(f"{SCORING}/runs/nonsense"), 404, "not_found")


async def test_a_run_without_scores_has_no_spread(client: httpx2.AsyncClient, bench: Bench) -> None:
    board = await bench.scoring.calculate()
    empty = replace(board, run_id="00000000-0000-4000-8000-0000000000aa", cards=board.cards[-1:])
    async with bench.database.write() as unit:
        await unit.get(ScoringRepository).save(empty, None)
    body = (await client.get(f"{SCORING}/runs/{empty.run_id}")).json()
    assert (body["score_spread"], body["median_confidence"]) == (None, None)


async def test_E03_rankings_are_encoded_in_another_thread(
    client: httpx2.AsyncClient, bench: Bench, encoding_threads: list[int]
) -> None:
    await bench.scoring.calculate()
    assert (await client.get(f"{SCORING}/rankings")).status_code == 200
    assert encoding_threads
    assert threading.get_ident() not in encoding_threads
