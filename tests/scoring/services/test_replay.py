"""A run is recomputed from what it kept, whatever became of its candles since."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from app.configuration.domain.model import Configuration
from app.foundation.errors import Code, NotFoundError
from app.foundation.sql.database import Database
from app.market.domain.models import CandleSeries, Interval
from app.market.domain.panel import FIELDS, Panel
from app.market.storage.candles import CandleRepository
from app.market.storage.symbols import SymbolRepository
from app.scoring.domain.algorithm import build_algorithm
from app.scoring.services.algorithm_versions import spec_from_json, spec_to_json
from app.scoring.services.replay import RunReplayer
from app.scoring.storage.runs import ScoringRepository
from tests.scoring.services.test_scoring import Bench
from tests.support.scoring_inputs import make_inputs
from tests.support.stored_values import record

INPUTS = make_inputs(16, daily=120, hourly=260, excluded={"ZUSDT": "status_open"})
IDS = {symbol: record(symbol.removesuffix("USDT")).id for symbol in INPUTS.symbols}


@pytest.fixture
def bench(database: Database) -> Bench:
    bench = Bench(database)
    bench.market.inputs = INPUTS
    return bench


def series(panel: Panel) -> dict[str, CandleSeries]:
    """By id, without what is missing."""
    found = {}
    for column, symbol in enumerate(panel.symbols):
        there = np.isfinite(panel.close[:, column])
        fields = {name: getattr(panel, name)[there, column] for name in FIELDS}
        found[IDS[symbol]] = CandleSeries(panel.opened_ms[there], **fields)
    return found


async def stored(bench: Bench, daily: Panel, hourly: Panel) -> None:
    async with bench.database.write() as unit:
        await unit.get(SymbolRepository).save(
            [record(s.removesuffix("USDT")) for s in IDS], bench.now
        )
        await unit.get(CandleRepository).save(series(daily), Interval.DAY)
        await unit.get(CandleRepository).save(series(hourly), Interval.HOUR)


def changed(panel: Panel, **cells: tuple[int, int, float]) -> Panel:
    fields: dict[str, Any] = {name: getattr(panel, name).copy() for name in FIELDS}
    for name, (row, column, factor) in cells.items():
        fields[name][row, column] *= factor
    return replace(panel, **fields)


def test_a_version_of_another_formula_is_not_repeated() -> None:
    spec = build_algorithm(Configuration())
    body = spec_to_json(spec)
    assert spec_from_json(spec.name, body) is not None
    assert spec_from_json(spec.name, {**body, "formula": 1}) is None


async def test_a_run_is_the_same_again_to_the_last_bit(bench: Bench) -> None:
    await stored(bench, INPUTS.daily, INPUTS.hourly)
    board = await bench.scoring.calculate()
    found = await RunReplayer(bench.database).replay(board.run_id)
    assert found.is_identical
    assert found.differing == ()
    assert (found.replayed, found.replayed.input_hash) == (board, board.input_hash)
    confidence = found.replayed.cards[0].confidence
    assert confidence is not None
    assert confidence.reliability is not None, "it is recomputed as well"


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_candles_that_were_revised_or_came_late_since_are_seen_as_they_were(
    bench: Bench,
) -> None:
    """Twice revised before and once after; one bar is there only now."""
    gone: dict[str, Any] = {name: getattr(INPUTS.daily, name).copy() for name in FIELDS}
    for array in gone.values():
        array[50, 7] = np.nan
    seen = replace(INPUTS.daily, **gone)
    first = changed(seen, volume=(-1, 3, 0.5), turnover=(-1, 3, 0.5))
    for panel in (first, changed(seen, volume=(-1, 3, 0.8)), seen):
        await stored(bench, panel, INPUTS.hourly)
    bench.market.inputs = replace(INPUTS, daily=seen)
    board = await bench.scoring.calculate()
    later = changed(INPUTS.daily, turnover=(-1, 3, 1.1))  # and the missing bar with it
    await stored(bench, changed(later, turnover=(-2, 3, 1.2)), INPUTS.hourly)
    assert (await RunReplayer(bench.database).replay(board.run_id)).is_identical


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_universe_that_became_small_is_measured_by_earlier_days_and_made_again(
    bench: Bench,
) -> None:
    """The replay takes the moments that were used, whatever days came since."""
    for _ in range(2):
        large = await bench.scoring.calculate()
        bench.market.inputs = replace(INPUTS, as_of_ms=INPUTS.as_of_ms + Interval.DAY.ms)
    small = bench.market.inputs = make_inputs(8, seed=3, daily=120, hourly=260)
    await stored(bench, small.daily, small.hourly)
    bench.now += timedelta(days=3)
    board = await bench.scoring.calculate()
    day = large.as_of.date()
    used = board.moments["composite"]
    assert (board.universe_size, used.symbols, used.days) == (8, 32, 2)
    assert (used.first, used.last) == (day - timedelta(days=1), day)
    bench.market.inputs = replace(INPUTS, as_of_ms=INPUTS.as_of_ms + 5 * Interval.DAY.ms)
    await bench.scoring.calculate()
    found = await RunReplayer(bench.database).replay(board.run_id)
    assert found.is_identical
    assert found.board == found.replayed == board
    bench.market.inputs = small
    bench.settings = replace(
        bench.settings, scoring=replace(bench.settings.scoring, impact_notional=50.0)
    )
    other = await bench.scoring.calculate()
    assert (other.algorithm_version, other.universe_size, other.moments) == (2, 0, {})


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_what_is_not_the_same_is_told(bench: Bench) -> None:
    """Somebody changed a candle behind the service's back."""
    await stored(bench, changed(INPUTS.daily, close=(-1, 3, 0.9999)), INPUTS.hourly)
    board = await bench.scoring.calculate()
    found = await RunReplayer(bench.database).replay(board.run_id)
    assert not found.is_identical
    assert found.replayed.input_hash != board.input_hash
    assert INPUTS.symbols[3] in found.differing
    assert found.board == board


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_other_settings_since_do_not_matter(bench: Bench) -> None:
    await stored(bench, INPUTS.daily, INPUTS.hourly)
    weighed = replace(bench.settings.scoring, impact_notional=50.0, factor_weights={"depth_25": 1})
    bench.settings = replace(bench.settings, scoring=weighed)
    board = await bench.scoring.calculate()
    bench.settings = replace(bench.settings, version=2, scoring=type(weighed)())
    await bench.scoring.calculate()
    found = await RunReplayer(bench.database).replay(board.run_id)
    assert found.is_identical
    assert found.replayed.algorithm_version == 1


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_without_its_inputs_or_its_algorithm_a_run_is_not_repeated(bench: Bench) -> None:
    await stored(bench, INPUTS.daily, INPUTS.hourly)
    replaying, board = RunReplayer(bench.database), await bench.scoring.calculate()
    async with bench.database.write() as unit:
        other = replace(board, run_id="00000000-0000-4000-8000-0000000000aa", algorithm="gone")
        await unit.get(ScoringRepository).save(
            other, await unit.get(ScoringRepository).inputs(board.run_id)
        )
        nothing = replace(board, run_id="00000000-0000-4000-8000-0000000000bb")
        await unit.get(ScoringRepository).save(nothing, None)
    unknown = "00000000-0000-4000-8000-0000000000cc"
    for run_id in (other.run_id, nothing.run_id, unknown):
        with pytest.raises(NotFoundError) as caught:
            await replaying.replay(run_id)
        assert caught.value.code is Code.NOT_FOUND
