"""A desk on which signals are approved, and agents whose skill is known."""

from collections.abc import Mapping
from typing import Any

from app.foundation.idempotency import Command
from app.foundation.sql.database import Database
from app.signals.domain.evaluated_signal import EvaluatedSignal
from app.signals.domain.models import Direction, SignalState
from app.signals.domain.track_record import CalibrationBin, ForecastRecord
from app.signals.storage.statistics import SignalRecordRepository
from tests.support.signal_fixtures import claim, informed
from tests.support.trading_desk import WHO, Desk

SKILLED = ("technical", "fundamental")
BAD = {"nearness_to_high": -1.5, "funding_rate": 3.0, "volatility": 2.0, "impact": 99.0}


async def eight_members(database: Database) -> Desk:
    """A desk with eight members, and a word of every symbol."""
    opened = await Desk(database).filled(8)
    informed(opened)
    return opened


async def told(
    desk: Desk,
    symbol: str,
    direction: Direction = Direction.BUY,
    scores: Mapping[str, float | None] | None = None,
    who: Command = WHO,
) -> str:
    """An approved signal; its id."""
    good = {"volatility": 0.5, "impact": 0.5}
    informed(desk, symbol, scores, **(BAD if direction is Direction.SELL else good))
    done = await desk.signals.submit(claim(symbol, direction=direction), who)
    assert done.result is not None
    signal = done.result.evaluated.signal
    assert signal.state is SignalState.APPROVED, signal.reason
    return signal.signal_id


async def judged(desk: Desk, signal_id: str) -> EvaluatedSignal:
    return await desk.signals.get(signal_id)


async def version(desk: Desk) -> int:
    return (await desk.portfolio.view()).portfolio.version


async def put(desk: Desk, **settings: Any) -> None:
    await desk.configuration.put({"signals": settings}, "a test", WHO)


async def by_skill(desk: Desk) -> None:
    """Two agents that were right each time."""
    proven = ForecastRecord(
        (CalibrationBin(7, outcomes=60, forecast_sum=45.0, occurrences=60, squared_error_sum=4.0),)
    )
    async with desk.database.write() as unit:
        await unit.get(SignalRecordRepository).add(dict.fromkeys(SKILLED, proven))
