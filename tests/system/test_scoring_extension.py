"""A package of somebody else's is built, installed and scored with; a broken one harms nobody."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.configuration.domain.sections import Family, Source
from app.container import plugins
from app.container.plugins import isolate_faults
from app.foundation.errors import NotFoundError
from app.foundation.sql.database import Database
from app.market.domain.panel import ScoringInputs
from app.scoring.api import routes
from app.scoring.domain.factors import FACTORS, Factor
from app.scoring.domain.plugins import AlgorithmScores, to_factor
from app.scoring.services.replay import RunReplayer
from tests.scoring.api.test_scoring import Face
from tests.scoring.services.test_replay import INPUTS, stored
from tests.scoring.services.test_scoring import Bench
from tests.support.harness import PREFIX, serve

EXAMPLE = Path(__file__).parents[1] / "examples" / "scoring_extension"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the example lies after its wheel was built and installed."""
    room = tmp_path_factory.mktemp("extension")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(room)]
    subprocess.run(build, cwd=EXAMPLE, check=True, capture_output=True)
    (wheel,) = room.glob("*.whl")
    target = room / "site"
    install = [sys.executable, "-m", "uv", "pip", "install", "--offline", "--no-deps", "--target"]
    subprocess.run([*install, str(target), str(wheel)], check=True, capture_output=True)
    return target


@pytest.fixture
def factors(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Factor, ...]]:
    monkeypatch.syspath_prepend(str(installed))
    yield plugins.factors()
    sys.modules.pop("my_scoring_extension", None)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_its_contributions_appear_in_explanation_and_rankings(
    database: Database, factors: tuple[Factor, ...]
) -> None:
    assert [one.name for one in factors[len(FACTORS) :]] == ["week_return", "calm_flow"]
    bench = Bench(database)
    bench.market.inputs = INPUTS
    bench.scoring.factors = factors
    await stored(bench, INPUTS.daily, INPUTS.hourly)
    board = await bench.scoring.calculate()
    async with serve([routes.router], {"my_symbols": Face(bench.market, bench.scoring)}) as client:
        symbol = board.cards[3].symbol
        body = (await client.get(f"{PREFIX}/scoring/symbol/{symbol}/explain")).json()
        rankings = (await client.get(f"{PREFIX}/scoring/rankings")).json()["items"]
        told, *_ = (await client.get(f"{PREFIX}/scoring/algorithms")).json()["items"]
    lines = {one["name"]: one for one in body["factors"]}
    column = INPUTS.symbols.index(symbol)
    close = INPUTS.daily.close[:, column]
    assert lines["week_return"]["raw"] == pytest.approx(np.log(close[-1] / close[-8]))
    assert lines["week_return"]["weight"] == pytest.approx(0.15 * 0.25 / 1.25)
    assert lines["week_return"]["supporting"] is None
    said = lines["calm_flow"]["supporting"]
    assert (said["days"], said["confidence"]) == (60, 1.0)
    assert said["score"] == pytest.approx(np.exp(-said["unrest"]))
    assert lines["calm_flow"]["raw"] == pytest.approx(said["score"])
    total = sum(one["contribution"] or 0.0 for one in body["factors"])
    assert total == pytest.approx(body["z"], abs=1e-9)
    assert {"week_return", "calm_flow"} <= rankings[3]["supporting_data"]["contributions"].keys()
    meanings = {one["name"]: one["meaning"] for one in told["parameters"]["factors"]}
    assert "1.2.0" in meanings["calm_flow"]
    assert (await bench.scoring.replayer.replay(board.run_id)).is_identical
    with pytest.raises(NotFoundError):
        await RunReplayer(database).replay(board.run_id)


def broken(measure: Callable[[ScoringInputs], Any]) -> Factor:
    sources = (Source.DAILY_CANDLES,)
    return Factor("broken", Family.RISK, 1, 0.1, "", sources, measure, "gap", "")


def raising(inputs: ScoringInputs) -> Any:
    raise RuntimeError("a fault of theirs")


@pytest.mark.parametrize("measure", [raising, lambda inputs: [1.0], lambda inputs: ["a"] * 16])
def test_a_factor_that_fails_has_no_values_and_no_support(measure: Any) -> None:
    factor = isolate_faults(replace(broken(measure), support=raising))
    assert np.isnan(factor.measure(INPUTS)).all()
    assert factor.support is not None
    assert list(factor.support(INPUTS)) == [None] * 16


class Silly:
    """An algorithm whose answers are not all of use."""

    name, version, family, weight = "silly", "1", Family.RISK, 0.1
    sources = (Source.DAILY_CANDLES,)
    asked = 0

    def score(self, inputs: ScoringInputs) -> AlgorithmScores:
        self.asked += 1
        count = len(inputs.symbols)
        scores, confidence = np.linspace(-0.1, 1.1, count), np.full(count, 0.5)
        confidence[5], scores[6] = 1.5, np.nan
        said = [{"list": [1], "nan": np.nan, "flag": True, "none": None, "text": "a"}] * count
        return AlgorithmScores(scores, confidence, said)  # type: ignore[arg-type]  # a list is none


def test_an_opinion_is_drawn_towards_neutral_and_what_is_none_is_missing() -> None:
    silly = Silly()
    factor = to_factor(silly)
    values = factor.measure(INPUTS)
    assert np.flatnonzero(np.isnan(values)).tolist() == [0, 1, 5, 6, 14, 15]
    assert values[4] == pytest.approx(0.5 + 0.5 * (np.linspace(-0.1, 1.1, 16)[4] - 0.5))
    assert factor.support is not None
    said = factor.support(INPUTS)[6]
    assert said == {
        "score": None, "confidence": 0.5, "list": "[1]", "nan": None, "flag": True, "none": None,
        "text": "a",
    }  # fmt: skip
    assert silly.asked == 1
    factor.measure(replace(INPUTS))
    assert silly.asked == 2


def test_what_is_no_factor_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    good = broken(raising)
    offered = {
        "my_symbols.factors": [
            good, good, "text", replace(good, name="rsi_14"), replace(good, weight=2.0),
            replace(good, name="x", orientation=0), replace(good, name="y", sources=()),
        ],
        "my_symbols.algorithms": [Silly(), object()],
    }  # fmt: skip

    def loaded(group: str) -> Any:
        return [(EntryPoint("one", "some:thing", group), one) for one in offered[group]]

    monkeypatch.setattr(plugins, "_load_entry_points", loaded)
    found = plugins.factors()[len(FACTORS) :]
    assert [one.name for one in found] == ["broken", "silly"]
