"""A source improves the verdict of the agents only after enough outcomes of its own."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from app.configuration.domain.sections import SignalSettings
from app.foundation.sql.database import Database
from app.signals.domain.agents import Agent, AgentVote, SignalFeatures
from app.signals.domain.consensus import SignalEvaluation
from app.signals.domain.models import SignalState
from app.signals.domain.track_record import ForecastRecord
from app.signals.services.evaluation import SignalEvaluator
from app.signals.storage.statistics import SignalRecordRepository
from tests.support.signal_fixtures import claim, informed
from tests.support.trading_desk import WHO, Desk


def saying(probability: float) -> Callable[[SignalFeatures, SignalSettings], AgentVote]:
    return lambda _evidence, _rules: AgentVote(probability, 0.9, {})


# One of three approves: with the source two of four do.
AGENTS = tuple(Agent(f"agent-{p}", (), saying(p)) for p in (0.97, 0.5, 0.51))


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize(
    ("outcomes", "evaluation", "state"),
    [
        (1, SignalEvaluation.CONDITIONAL, SignalState.REJECTED),
        (49, SignalEvaluation.CONDITIONAL, SignalState.REJECTED),
        (50, SignalEvaluation.APPROVE, SignalState.APPROVED),
    ],
)
async def test_a_source_with_few_right_outcomes_cannot_approve_itself(
    database: Database, outcomes: int, evaluation: SignalEvaluation, state: SignalState
) -> None:
    desk = await Desk(database).open()
    informed(desk)
    sure = claim(strength=1.0, confidence=1.0)
    right = ForecastRecord()
    for _ in range(outcomes):
        right = right.add_forecast(1.0, True)
    async with desk.database.write() as unit:
        await unit.get(SignalRecordRepository).add({}, {(sure.source, sure.type): right})
    taken = await replace(desk.signals, evaluator=SignalEvaluator(AGENTS)).submit(sure, WHO)
    assert taken.result is not None
    judged = taken.result.evaluated
    assert judged.verdict is not None
    assert (judged.verdict.evaluation, judged.signal.state) == (evaluation, state)
    is_waiting = judged.verdict.reason.startswith("without its source, whose skill is not proven")
    assert is_waiting is (evaluation is SignalEvaluation.CONDITIONAL)
