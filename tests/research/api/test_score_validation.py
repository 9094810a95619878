"""Evidence of the live scores over HTTP, from boards and candles in a real database."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import numpy as np
import pytest
from scipy.stats import spearmanr

from app.configuration.domain.sections import Family
from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import Code, UnavailableError
from app.foundation.http.schemas import significant
from app.foundation.sql.database import Database
from app.market.domain.models import CandleSeries, Interval
from app.market.storage.candles import CandleRepository
from app.market.storage.symbols import SymbolRepository
from app.market.storage.tables import candles
from app.research.api import validation_routes
from app.research.domain.factor_cards import create_card
from app.research.domain.validation import ScoreEvidence, evaluate_scores
from app.research.services.live_validation import (
    DAYS,
    RETRY,
    LiveValidation,
    ScoreValidation,
    days_needed,
)
from app.scoring.domain.board import Board, Card, CardStatus, Confidence, FactorReading
from app.scoring.domain.factor_evidence import EvidenceSource
from app.scoring.storage.factor_evidence import FactorEvidenceRepository
from app.scoring.storage.runs import ScoringRepository
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.stored_values import record, symbol_id

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
PATH = f"{PREFIX}/scoring/validation"
DAY0 = datetime(2026, 3, 1, tzinfo=UTC)
ROWS, NAMES, HORIZON = 215, 20, 7
UNSTORED = DAYS - 1
BASES = [f"C{number:02d}" for number in range(NAMES)]


@dataclass(frozen=True, slots=True)
class Market:
    """Prices and scores of T days and N contracts; the scores foretell returns a little."""

    opened: np.ndarray
    close: np.ndarray
    composite: np.ndarray
    volatility: np.ndarray  # z of a factor; NaN where missing


def market() -> Market:
    generator = np.random.default_rng(5)
    returns = generator.normal(0.0, 0.03, (ROWS, NAMES))
    close = 100.0 * np.exp(np.cumsum(returns, axis=0))
    opened = np.vstack([np.full((1, NAMES), 100.0), close[:-1]])
    ahead = np.zeros((ROWS, NAMES))
    ahead[:-8] = opened[8:] / opened[1:-7] - 1.0
    noisy = ahead + generator.normal(0.0, 0.15, ahead.shape)
    composite = (noisy.argsort(axis=1).argsort(axis=1) + 0.5) / NAMES
    volatility = generator.normal(size=(ROWS, NAMES))
    volatility[::3, :2] = np.nan
    return Market(opened, close, composite, volatility)


M = market()


def known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def card(column: int, composite: float, volatility: float) -> Card:
    z = known(volatility)
    reading = FactorReading(
        "volatility", Family.RISK, z, "fraction", z, 1.0, z, "no_bars" if z is None else None
    )
    return Card(
        symbol=f"{BASES[column]}USDT",
        status=CardStatus.SCORED,
        reason=None,
        families={Family.RISK: 1.0 - float(composite)},
        composite=float(composite),
        z=0.0,
        confidence=Confidence(1.0, 1.0, 1.0, None),
        rank=column + 1,
        volatility=0.5,
        factors=(reading,),
    )


def board(row: int, hour: int = 20, composite: np.ndarray | None = None) -> Board:
    at = DAY0 + timedelta(days=row, hours=hour)
    values = M.composite[row] if composite is None else composite
    return Board(
        run_id=f"run-{row}-{hour}",
        algorithm="cross_sectional",
        algorithm_version=3,
        configuration_version=1,
        as_of=at,
        calculated_at=at,
        duration_ms=1.0,
        data_source=DataSource.SANDBOX,
        input_hash="abc",
        universe_size=NAMES,
        coverage={},
        cards=tuple(card(n, values[n], M.volatility[row, n]) for n in range(NAMES)),
    )


@dataclass(slots=True)
class Desk:
    """The database, the time of the service, and its route."""

    database: Database
    client: httpx2.AsyncClient
    now: datetime
    validation: ScoreValidation
    market_status: DataStatus = DataStatus.FRESH

    def create(self) -> ScoreValidation:
        """Returns the validation of a process that has just started."""
        return ScoreValidation(
            self.database, lambda: self.now, DataSource.SANDBOX, lambda: self.market_status
        )

    async def store(self, boards: Iterable[Board]) -> None:
        async with self.database.write() as unit:
            for one in boards:
                await unit.get(ScoringRepository).save(one, None)

    async def list_all(self, **changes: Any) -> None:
        at = DAY0 - timedelta(days=1)
        records = [replace(record(base), first_seen=at, last_seen=at, **changes) for base in BASES]
        async with self.database.write() as unit:
            await unit.get(SymbolRepository).save(records, at)

    async def trade(
        self, rows: int, columns: Iterable[int] = range(NAMES), unit_from: int = ROWS
    ) -> None:
        """Stores the candles of the first `rows` days, a thousandfold from row `unit_from` on."""
        unit = np.where(np.arange(rows) < unit_from, 1.0, 1_000.0)
        opened_ms = (int(DAY0.timestamp()) * 1000 + np.arange(rows) * Interval.DAY.ms).astype(
            np.int64
        )
        series = {}
        for column in columns:
            begin, end = M.opened[:rows, column] * unit, M.close[:rows, column] * unit
            series[symbol_id(BASES[column])] = CandleSeries(
                opened_ms, begin, np.maximum(begin, end), np.minimum(begin, end), end,
                np.ones(rows), np.ones(rows),
            )  # fmt: skip
        async with self.database.write() as own:
            await own.get(CandleRepository).save(series, Interval.DAY)

    async def fill(self, rows: int) -> None:
        """Boards and candles of `rows` complete days; the next day has begun."""
        await self.list_all()
        await self.trade(rows)
        await self.store(board(row) for row in range(rows))
        self.now = DAY0 + timedelta(days=rows, hours=1)

    async def get(self, **query: int) -> Any:
        """Measures anew, over a window that is not stored."""
        self.validation._kept.clear()
        return await self.get_kept(**{"days": UNSTORED, **query})

    async def get_kept(self, **query: int) -> Any:
        answer = await self.client.get(PATH, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    @dataclass(frozen=True, slots=True)
    class Face:
        score_validation: ScoreValidation

    made: list[Desk] = []
    validation = ScoreValidation(
        database, lambda: made[0].now, DataSource.SANDBOX, lambda: made[0].market_status
    )
    face = Face(validation)
    async with serve([validation_routes.router], {"my_symbols": face}) as client:
        made.append(Desk(database, client, DAY0, validation))
        yield made[0]


def item(found: Any, name: str = "composite") -> Any:
    (one,) = [one for one in found["items"] if one["name"] == name]
    return one


def evidence(values: np.ndarray, rows: slice) -> ScoreEvidence:
    return evaluate_scores(values[rows], M.opened[rows], M.close[rows], HORIZON)


def shown(value: float | None) -> float | None:
    return None if value is None else significant(value)


async def test_the_answer_equals_the_evidence_of_research_on_the_same_matrix(desk: Desk) -> None:
    await desk.fill(ROWS)
    found = await desk.get()
    assert {name: found[name] for name in found if name != "items"} == {
        "from": "2026-03-01T00:00:00Z",
        "to": "2026-10-02T00:00:00Z",
        "as_of": "2026-10-02T00:00:00Z",
        "measured_at": "2026-10-02T01:00:00Z",
        "data_source": "sandbox",
        "data_status": "fresh",
        "horizon": 7,
        "board_days": ROWS,
        "days_needed": 60,
        "days_for_label": 204,
        "algorithm_versions": [3],
    }
    assert [(one["level"], one["name"]) for one in found["items"]] == [
        ("composite", "composite"),
        *(("family", family.value) for family in Family),
        ("factor", "volatility"),
    ]
    edges = np.linspace(0, ROWS, 4).astype(int).tolist()
    parts = [slice(*edges[at : at + 2]) for at in range(3)]
    for name, values in (
        ("composite", M.composite), ("risk", 1.0 - M.composite), ("volatility", M.volatility),
    ):  # fmt: skip
        whole = evidence(values, slice(None))
        label = create_card(name, [evidence(values, part) for part in parts], 0).label
        assert item(found, name) == {
            "level": item(found, name)["level"],
            "name": name,
            "days": ROWS - HORIZON - 1,
            "ic": shown(whole.ic.mean),
            "ic_t": shown(whole.ic.t),
            "coverage": shown(whole.coverage),
            "quantile_spread": shown(whole.spread.mean),
            "quantile_spread_t": shown(whole.spread.t),
            "turnover": shown(whole.turnover),
            "label": label.value,
            "reason": None,
        }
    assert item(found)["label"] == "proven"
    assert item(found, "risk")["label"] == "harmful"
    assert item(found, "volatility")["label"] == "unproven"
    assert 0.9 < item(found, "volatility")["coverage"] < 1.0
    technical = item(found, "technical")  # no stored value
    assert (technical["days"], technical["ic"], technical["label"]) == (0, None, None)


async def test_the_status_is_the_worst_of_market_and_candles(desk: Desk) -> None:
    await desk.fill(20)
    assert (await desk.get())["data_status"] == "fresh"
    desk.market_status = DataStatus.STALE
    assert (await desk.get())["data_status"] == "stale"
    desk.market_status = DataStatus.FRESH
    desk.now += timedelta(days=1)  # a day without candles
    assert (await desk.get())["data_status"] == "stale"


async def test_one_day_by_hand(desk: Desk) -> None:
    """The mean IC of the shortest sample is the mean of scipy's correlations of its days."""
    rows = days_needed(HORIZON) + HORIZON + 1
    await desk.fill(rows)
    found = item(await desk.get())
    by_hand = [
        spearmanr(M.composite[row], M.opened[row + 8] / M.opened[row + 1] - 1.0)[0]
        for row in range(rows - 8)
    ]
    assert found["days"] == len(by_hand) == 60
    assert found["ic"] == pytest.approx(np.mean(by_hand), rel=1e-9)
    assert found["label"] is None
    assert found["reason"] == (
        "no label: the shortest of 3 periods has 14 days with complete returns, 60 are needed"
    )


async def test_a_young_service_says_that_its_evidence_is_missing(desk: Desk) -> None:
    empty = await desk.get()
    assert (empty["board_days"], empty["items"], empty["as_of"]) == (0, [], None)
    assert empty["data_status"] == "fresh", "no candle is in use"
    await desk.fill(20)
    found = await desk.get(days=400)
    assert (found["board_days"], found["days_needed"], found["days_for_label"]) == (20, 60, 204)
    for one in found["items"]:
        missing = ("ic", "ic_t", "coverage", "quantile_spread", "quantile_spread_t", "turnover")
        assert [one[name] for name in (*missing, "label")] == [None] * 7
    assert item(found)["days"] == 12
    reason = "12 days with complete returns of enough symbols, 60 are needed"
    assert item(found)["reason"] == reason
    longest = await desk.get(horizon=60)
    assert (longest["days_needed"], longest["days_for_label"]) == (62, 369)
    assert longest["days_for_label"] <= validation_routes.MAX_DAYS


async def test_an_incomplete_return_is_not_used(desk: Desk) -> None:
    """Later candles and boards change nothing of the days before."""
    rows = 70
    await desk.fill(rows)
    before = item(await desk.get())
    assert before["days"] == rows - HORIZON - 1
    # The running day has a candle already, and a board: neither is complete.
    await desk.trade(rows + 1)
    await desk.store([board(rows, hour=0)])
    assert item(await desk.get()) == before
    desk.now += timedelta(days=1)
    assert item(await desk.get())["days"] == before["days"] + 1
    # Without the newest candle of six coins 14 are left, too few for that day.
    last = int(DAY0.timestamp()) * 1000 + rows * Interval.DAY.ms
    async with desk.database.write() as unit:
        await unit.connection.execute(
            candles.delete().where(
                candles.c.opened_ms == last,
                candles.c.symbol_id.in_([symbol_id(base) for base in BASES[:6]]),
            )
        )
    later = item(await desk.get())
    assert later | {"turnover": None} == before | {"turnover": None}  # of boards alone
    # Contracts that have ended realise their last close.
    await desk.list_all(vanished_at=desk.now)
    assert item(await desk.get())["days"] > before["days"]


async def test_boards_stored_after_the_fact_of_later_data_or_provisional_are_not_used(
    desk: Desk,
) -> None:
    rows = 70
    await desk.list_all()
    await desk.trade(rows)
    wrong = 1.0 - M.composite[30]
    of_later_data = replace(board(30, 23, wrong), as_of=DAY0 + timedelta(days=31))
    provisional = replace(board(30, 22, wrong), is_provisional=True)
    boards = [board(row) for row in range(rows)]
    await desk.store([*boards[:31], provisional, of_later_data, *boards[31:]])
    desk.now = DAY0 + timedelta(days=rows, hours=1)
    found = await desk.get()
    whole = evaluate_scores(M.composite[:rows], M.opened[:rows], M.close[:rows], HORIZON)
    assert (item(found)["days"], item(found)["ic"]) == (62, shown(whole.ic.mean))
    # Stored last, with the time of a day that was over.
    await desk.store([board(30, 21, wrong)])
    assert await desk.get() == found


async def test_the_last_board_of_a_day_counts(desk: Desk) -> None:
    rows = 70
    await desk.list_all()
    await desk.trade(rows)
    for row in range(rows):
        await desk.store([board(row, 3, 1.0 - M.composite[row]), board(row, 20)])
    desk.now = DAY0 + timedelta(days=rows)
    whole = evaluate_scores(M.composite[:rows], M.opened[:rows], M.close[:rows], HORIZON)
    found = await desk.get()
    assert (found["board_days"], item(found)["ic"]) == (rows, shown(whole.ic.mean))
    # The window begins later.
    assert (await desk.get(days=65))["from"] == "2026-03-06T00:00:00Z"


@pytest.mark.parametrize(("name", "days"), [("first_seen", 22), ("vanished_at", 40)])
async def test_a_board_counts_for_the_listing_of_its_time(desk: Desk, name: str, days: int) -> None:
    await desk.fill(70)
    assert item(await desk.get())["days"] == 62
    at = DAY0 + timedelta(days=40)
    seen: dict[str, Any] = {"first_seen": DAY0 - timedelta(days=1), "last_seen": at}
    records = [replace(record(base), **{**seen, name: at}) for base in BASES[:6]]
    async with desk.database.write() as unit:
        await unit.get(SymbolRepository).save(records, at)
    assert item(await desk.get())["days"] == days  # 14 names are too few for a day


async def test_no_return_crosses_a_change_of_the_price_unit(desk: Desk) -> None:
    await desk.fill(70)
    await desk.trade(70, range(6), unit_from=40)
    assert item(await desk.get())["days"] == 62 - 39


@pytest.mark.parametrize("query", ["horizon=0", "horizon=61", "days=0", "days=401", "other=1"])
async def test_a_refused_query(desk: Desk, query: str) -> None:
    problem(await desk.client.get(f"{PATH}?{query}"), 422, "validation_failed")


def count_measurements(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list that grows by the horizon of each measurement."""
    made: list[int] = []
    measure = ScoreValidation._measure

    async def counted(self: ScoreValidation, horizon: int, days: int) -> LiveValidation:
        made.append(horizon)
        return await measure(self, horizon, days)

    monkeypatch.setattr(ScoreValidation, "_measure", counted)
    return made


async def test_the_daily_evidence_is_measured_once_and_shared_by_all_processes(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = count_measurements(monkeypatch)
    await desk.fill(ROWS)
    first = await desk.get_kept()
    assert first["measured_at"] == "2026-10-02T01:00:00Z"
    desk.now += timedelta(hours=20)
    assert await desk.get_kept() == first
    # Another process reads what is stored: every figure comes back from the table.
    own = await desk.validation.validate()
    assert await desk.create().validate() == own
    assert measured == [HORIZON]
    async with desk.database.read() as unit:
        stored = await unit.get(FactorEvidenceRepository).newest(EvidenceSource.LIVE, HORIZON)
    assert stored == own.scores
    composite = stored[0]
    assert composite.measurement.first_day == DAY0.date()
    assert composite.measurement.last_day == (DAY0 + timedelta(days=ROWS - 1)).date()
    assert (composite.measurement.algorithm_version, composite.measurement.trials) == (3, 0)
    assert composite.ic is not None
    assert composite.ic_error is not None
    assert composite.ic_t == pytest.approx(composite.ic / composite.ic_error)
    assert len(composite.measurement.data_hash) == 64
    # The next day has its own measurement; the former one remains.
    desk.now += timedelta(hours=4)
    later = await desk.get_kept()
    assert (measured, later["to"]) == ([HORIZON] * 2, "2026-10-03T00:00:00Z")
    async with desk.database.read() as unit:
        repository = unit.get(FactorEvidenceRepository)
        last = composite.measurement.last_day
        assert await repository.newest(EvidenceSource.LIVE, HORIZON, last) == stored
        assert await repository.newest(EvidenceSource.LIVE, HORIZON) != stored


async def test_each_window_is_kept_until_the_next_day(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = count_measurements(monkeypatch)
    await desk.fill(100)
    answers = [await desk.get_kept(horizon=h, days=d) for h in (3, 5) for d in (90, 95)]
    assert [await desk.get_kept(horizon=h, days=d) for h in (3, 5) for d in (90, 95)] == answers
    assert measured == [3, 3, 5, 5]
    desk.now += timedelta(days=1)
    await desk.get_kept(horizon=3, days=90)
    assert measured[4:] == [3]


async def test_simultaneous_requests_share_one_measurement(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = count_measurements(monkeypatch)
    await desk.fill(70)
    answers = await asyncio.gather(*(desk.get_kept() for _ in range(4)))
    assert measured == [HORIZON]
    assert answers == [answers[0]] * 4


async def test_a_measurement_without_the_last_candles_is_repeated_once_they_may_be_there(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = count_measurements(monkeypatch)
    await desk.fill(80)
    desk.now += timedelta(days=1)  # neither board nor candles of the last day
    early = await desk.get_kept()
    assert (early["data_status"], len(measured)) == ("stale", 1)
    await desk.trade(81)
    desk.now += RETRY - timedelta(seconds=1)
    assert await desk.get_kept() == early
    assert len(measured) == 1
    desk.now += timedelta(seconds=1)
    whole = await desk.get_kept()
    assert (whole["data_status"], len(measured)) == ("fresh", 2)
    assert item(whole)["days"] == item(early)["days"] + 1


async def test_a_service_without_boards_keeps_nothing(desk: Desk) -> None:
    desk.now = DAY0 + timedelta(hours=1)
    assert (await desk.get_kept())["items"] == []
    await desk.fill(20)
    assert (await desk.get_kept())["board_days"] == 20


async def test_evidence_that_cannot_be_stored_is_shown(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.fill(70)

    async def refuse(*_: object) -> None:
        raise UnavailableError(Code.DATABASE_UNAVAILABLE, "read-only")

    monkeypatch.setattr(FactorEvidenceRepository, "save", refuse)
    assert item(await desk.get_kept())["days"] == 62
