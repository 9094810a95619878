"""A day's signals judged again from what is stored: the same verdicts, byte for byte."""

from dataclasses import replace

import pytest

from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.sql.database import Database, UnitOfWork
from app.scoring.storage.runs import ScoringRepository
from app.signals.api.schemas import VerdictOut
from app.signals.domain.agents import SignalFeatures, UniverseContext
from app.signals.domain.consensus import SourceClaim, reach_consensus
from app.signals.domain.evaluated_signal import EvaluatedSignal
from app.signals.domain.models import Direction
from app.signals.domain.track_record import CalibrationBin, ForecastRecord
from app.signals.storage.statistics import SignalRecordRepository
from tests.support.outcome_fixtures import keep_board
from tests.support.signal_fixtures import claim, informed
from tests.support.trading_desk import SYMBOLS, WHO, Desk

HOURS = 24
PROVEN = ForecastRecord(
    (CalibrationBin(7, outcomes=80, forecast_sum=60.0, occurrences=64, squared_error_sum=11.0),)
)
LUCKY = ForecastRecord(
    (CalibrationBin(6, outcomes=80, forecast_sum=52.0, occurrences=48, squared_error_sum=18.3),)
)


@pytest.fixture
def backend() -> str:
    return "sqlite"


async def a_day(desk: Desk) -> None:
    """A board each hour and two signals on each; at noon the skill of two agents is known."""
    for hour in range(HOURS):
        figures = {"funding_rate": 0.1 * (hour % 7) - 0.6, "rsi_14": 40.0 + hour, "spread": 1.1}
        informed(desk, SYMBOLS[hour], None, **figures)
        board = desk.boards.board
        assert board is not None
        desk.boards.board = replace(board, run_id=f"board-{hour}")
        await keep_board(desk, f"board-{hour}")
        if hour == HOURS // 2:
            async with desk.database.write() as unit:
                known = {"technical": PROVEN, "risk": LUCKY}
                await unit.get(SignalRecordRepository).add(known)
        for symbol, direction in ((SYMBOLS[hour], Direction.BUY), (SYMBOLS[-1], Direction.SELL)):
            await desk.signals.submit(claim(symbol, direction=direction), WHO)
        desk.later(hours=1)


async def again(unit: UnitOfWork, judged: EvaluatedSignal) -> str:
    """The verdict as it comes out of what is stored alone."""
    verdict, signal = judged.verdict, judged.signal
    assert verdict is not None
    assert judged.board_id is not None
    assert signal.claim.symbol is not None
    board = await unit.get(ScoringRepository).run(judged.board_id)
    assert board is not None
    card = board.card(signal.claim.symbol)
    assert card is not None
    rules = (await unit.get(ConfigurationRepository).current()).signals
    weights = {vote.agent: vote.weight for vote in verdict.votes if not vote.is_source}
    found = reach_consensus(
        signal.claim.direction,
        SignalFeatures.of(card, UniverseContext.of(board)),
        rules,
        weights if verdict.is_skill_weighted else None,
        source=SourceClaim(signal.claim.strength, signal.claim.confidence),
    )
    return VerdictOut.of(found, judged).model_dump_json()


async def test_a_day_of_signals_judged_again_gives_the_same_bytes(database: Database) -> None:
    desk = await Desk(database).open()
    await a_day(desk)
    stored = await desk.signals.processed(HOURS + 1, 100)
    assert len(stored) == 2 * HOURS
    by_skill = []
    async with database.read() as unit:
        for one in stored:
            assert one.verdict is not None
            assert await again(unit, one) == VerdictOut.of(one.verdict, one).model_dump_json()
            by_skill.append(one.verdict.is_skill_weighted)
    assert set(by_skill) == {True, False}
    said = {one.verdict.evaluation for one in stored if one.verdict is not None}
    assert len(said) > 1, "a day of one verdict proves little"
