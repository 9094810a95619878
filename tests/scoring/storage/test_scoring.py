"""Boards come back whole, and a symbol's scores page by page."""

from dataclasses import replace
from datetime import date, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.exc import StatementError

from app.configuration.domain.sections import Family
from app.foundation.data_status import DataSource
from app.foundation.sql.database import Database
from app.market.storage.symbols import SymbolRepository
from app.scoring.domain.board import Board, Card, CardStatus, Confidence, FactorReading
from app.scoring.domain.historical_moments import MAX_DAYS, DayMoments, HistoricMoments
from app.scoring.storage.moments import MomentRepository
from app.scoring.storage.runs import ScoringRepository, StoredAlgorithm
from app.scoring.storage.tables import scoring_moments, symbol_scores
from tests.support.stored_values import LATER, T0, listed, record, symbol_id

_READING = FactorReading("momentum", Family.TECHNICAL, 0.1 + 0.2, "log", -1.5, 0.25, 1e-17, None)
_SCORED = Card(
    symbol="BTCUSDT",
    status=CardStatus.SCORED,
    reason=None,
    families={Family.TECHNICAL: 0.5, Family.RISK: None},
    composite=0.7000000000000001,
    z=0.5244005127080407,
    confidence=Confidence(1.0, 0.9, 0.8, None),
    rank=1,
    volatility=0.65,
    factors=(_READING, _READING._replace(name="spread", raw=None, z=None, reason="no book")),
)
_SECOND = replace(_SCORED, symbol="AAVEUSDT", rank=2, confidence=Confidence(1, 1, 1, 0.5))
_MISSING = Card(
    symbol="ZECUSDT",
    status=CardStatus.UNAVAILABLE,
    reason="not_eligible",
    families=dict.fromkeys(Family),
    composite=None,
    z=None,
    confidence=None,
    rank=None,
    volatility=None,
    factors=(),
    detail="turnover_24h",
)


def _board(number: int, *cards: Card) -> Board:
    return Board(
        run_id=f"run-{number}",
        algorithm="composite",
        algorithm_version=1,
        configuration_version=2,
        as_of=T0,
        calculated_at=T0 + timedelta(minutes=5 * number),
        duration_ms=12.5,
        data_source=DataSource.SANDBOX,
        input_hash="abc",
        universe_size=2,
        coverage={"momentum": 0.95},
        cards=cards or (_SCORED, _SECOND, _MISSING),
    )


async def test_a_board_comes_back_as_it_was(database: Database) -> None:
    async with database.write() as unit:
        assert await unit.get(ScoringRepository).latest() is None
        await unit.get(ScoringRepository).save(_board(2), b"\0two")
        await unit.get(ScoringRepository).save(_board(1), b"one")
        await unit.get(ScoringRepository).save(_board(3), None)
    async with database.read() as unit:
        assert await unit.get(ScoringRepository).latest() == _board(3)
        assert await unit.get(ScoringRepository).run("run-1") == _board(1)
        assert await unit.get(ScoringRepository).run("none") is None
        assert await unit.get(ScoringRepository).inputs("run-1") == b"one"
        assert await unit.get(ScoringRepository).inputs("none") is None


async def test_what_universes_looked_like_is_kept_by_day_for_thirty_days(
    database: Database,
) -> None:
    one, other = DayMoments(1.5, 0.25, 16), DayMoments(-2.0, 3.0, 12)
    days = [date(2026, 1, 1) + timedelta(days=number) for number in range(MAX_DAYS + 1)]
    used = {"risk": HistoricMoments(0.1, 0.2, 160, 10, days[0], days[9])}
    async with database.write() as unit:
        await unit.get(MomentRepository).save_day("a", 1, days[0], {"spread": one, "risk": one})
        await unit.get(MomentRepository).save_day("a", 1, days[0], {"risk": other})
        await unit.get(MomentRepository).save_day("b", 1, days[0], {"risk": one})
        assert await unit.get(MomentRepository).days("a", 1) == {
            days[0]: {"spread": one, "risk": other}
        }
        for day in days[1:]:
            await unit.get(MomentRepository).save_day("a", 1, day, {"risk": one})
        assert [*await unit.get(MomentRepository).days("a", 1)] == [*reversed(days[1:])]
        await unit.get(MomentRepository).save_day("a", 2, days[-1], {"risk": one})
        left = await unit.get(MomentRepository).connection.execute(
            select(scoring_moments.c.algorithm, scoring_moments.c.algorithm_version)
        )
        assert sorted(map(tuple, left)) == [("a", 2), ("b", 1)], "other sums have other moments"
        await unit.get(ScoringRepository).save(replace(_board(1), moments=used), None)
        await unit.get(ScoringRepository).save(_board(2), None)
    async with database.read() as unit:
        boards = await unit.get(ScoringRepository).history("ZECUSDT", None, 2)
        assert [one.moments for one in boards] == [{}, used]
        assert await unit.get(ScoringRepository).run("run-1") == replace(_board(1), moments=used)


async def test_the_excluded_have_no_line_of_their_own_but_a_past(database: Database) -> None:
    other = replace(_MISSING, symbol="ZECAUSDT", detail="ticker")
    partly = replace(_MISSING, symbol="XUSDT", factors=(_READING,))  # more than a reason
    board = _board(1, _SCORED, _SECOND, partly, other, _MISSING)
    async with database.write() as unit:
        await unit.get(ScoringRepository).save(board, None)
        await unit.get(ScoringRepository).save(
            _board(2, _SCORED, replace(_SECOND, symbol="ZECUSDT")), None
        )
        await unit.get(ScoringRepository).save(_board(3, _SCORED), None)
        await unit.get(ScoringRepository).save(_board(4, replace(_MISSING, detail=None)), None)
        rows = await unit.get(ScoringRepository).connection.execute(
            select(symbol_scores.c.symbol).where(symbol_scores.c.run_id == "run-1")
        )
        assert {row.symbol for row in rows} == {"BTCUSDT", "AAVEUSDT", "XUSDT"}
    async with database.read() as unit:
        stored = await unit.get(ScoringRepository).run("run-1")
        past = await unit.get(ScoringRepository).history("ZECUSDT", None, 2)
        rest = await unit.get(ScoringRepository).history(
            "ZECUSDT", (past[-1].calculated_at, "run-2"), 2
        )
    assert stored == replace(board, cards=(_SCORED, _SECOND, partly, other, _MISSING))
    assert [(one.run_id, one.cards[0].detail) for one in past] == [("run-4", None), ("run-2", None)]
    assert [(one.run_id, one.cards) for one in rest] == [("run-1", (_MISSING,))]


async def test_D16_scores_of_a_former_listing_are_not_those_of_the_one_after_it(
    database: Database,
) -> None:
    await listed(database, "BTC")
    at = _board(2).calculated_at
    heir = replace(record("BTC"), id=symbol_id("BTC again"), first_seen=at, last_seen=at)
    async with database.write() as unit:
        for number in (1, 2, 3):
            board = replace(_board(number, _SCORED, _SECOND), input_hash=f"inputs-{number}")
            await unit.get(ScoringRepository).save(board, None)
        gone = replace(record("BTC"), vanished_at=at)
        await unit.get(SymbolRepository).save([heir, gone], at)
    async with database.read() as unit:
        past = await unit.get(ScoringRepository).history("BTCUSDT", None, 9)
        assert {one.id for one in await unit.get(SymbolRepository).all()} == {gone.id, heir.id}
    assert [one.run_id for one in past] == ["run-3", "run-2"]


async def test_the_past_of_a_symbol_in_pages(database: Database) -> None:
    async with database.write() as unit:
        for number in range(5):
            await unit.get(ScoringRepository).save(_board(number), None)
        await unit.get(ScoringRepository).save(replace(_board(4), run_id="twin"), None)
        await unit.get(ScoringRepository).save(_board(6, _MISSING), None)
    seen: list[str] = []
    before = None
    async with database.read() as unit:
        while page := await unit.get(ScoringRepository).history("BTCUSDT", before, 2):
            assert all(one.cards == (_SCORED,) for one in page)
            seen += [one.run_id for one in page]
            before = (page[-1].calculated_at, page[-1].run_id)
    assert seen == ["twin", "run-4", "run-3", "run-2", "run-1", "run-0"]


async def test_old_runs_can_be_forgotten(database: Database) -> None:
    async with database.write() as unit:
        for number in range(4):
            await unit.get(ScoringRepository).save(_board(number), b"inputs")
        moment = T0 + timedelta(minutes=10)
        old = [run.run_id for run in await unit.get(ScoringRepository).stored_runs(moment)]
        assert len(old) == 2
        await unit.get(ScoringRepository).drop_inputs(old)
        assert await unit.get(ScoringRepository).inputs("run-1") is None
        await unit.get(ScoringRepository).delete_runs(old)
        assert await unit.get(ScoringRepository).run("run-1") is None
        assert [
            one.run_id for one in await unit.get(ScoringRepository).history("BTCUSDT", None, 9)
        ] == [
            "run-3",
            "run-2",
        ]


async def test_a_number_that_is_none_does_not_get_in(database: Database) -> None:
    with pytest.raises(StatementError):
        async with database.write() as unit:
            await unit.get(ScoringRepository).save(
                _board(1, replace(_SCORED, z=float("nan"))), None
            )
    async with database.read() as unit:
        assert await unit.get(ScoringRepository).latest() is None


async def test_algorithms_keep_their_versions(database: Database) -> None:
    first = StoredAlgorithm("composite", 1, {"weights": {"risk": 0.4}}, T0, "operator")
    second = replace(first, version=2, created_at=LATER)
    other = replace(first, name="basic")
    async with database.write() as unit:
        assert await unit.get(ScoringRepository).algorithms() == ()
        for one in (first, second, other, replace(first, body={})):
            await unit.get(ScoringRepository).insert_algorithm(one)
        assert await unit.get(ScoringRepository).algorithms() == (other, second)


async def test_a_board_with_a_number_that_is_none_is_not_stored(database: Database) -> None:
    wrong = replace(_SCORED, factors=(_SCORED.factors[0]._replace(contribution=float("nan")),))
    with pytest.raises(ValueError, match="not JSON compliant"):
        async with database.write() as unit:
            await unit.get(ScoringRepository).save(_board(1, wrong), None)
    async with database.read() as unit:
        assert await unit.get(ScoringRepository).latest() is None
