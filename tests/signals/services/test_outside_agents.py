"""Agents from outside: asked beside any transaction, and late, broken or senseless is no vote."""

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from app.configuration.domain.sections import SignalSettings
from app.foundation.sql.database import Database
from app.signals.domain.agents import AGENTS, Abstention, Agent, AgentVote, SignalFeatures
from app.signals.domain.consensus import Vote
from app.signals.domain.models import SignalState
from app.signals.services.evaluation import ExternalAgents, SignalEvaluator
from tests.support.signal_features import evidence
from tests.support.signal_fixtures import claim, informed
from tests.support.trading_desk import SYMBOLS, WHO, Desk

RULES = SignalSettings(agent_timeout_s=30.0)
SURE = AgentVote(0.9, 0.8, {"news": 3.0})
Judge = Callable[[SignalFeatures, SignalSettings], AgentVote | Abstention]


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
async def desk(database: Database) -> Desk:
    opened = await Desk(database).open()
    informed(opened)
    return opened


def agent(judge: Judge, name: str = "news") -> Agent:
    return Agent(name, (), judge, is_external=True)


async def answer(judge: Judge, rules: SignalSettings = RULES) -> AgentVote | Abstention:
    return (await ExternalAgents.from_agents([*AGENTS, agent(judge)]).answers(evidence(), rules))[
        "news"
    ]


def raising(*_: object) -> AgentVote:
    raise RuntimeError("its own matter")


async def test_an_answer_that_makes_sense_is_a_vote() -> None:
    assert await answer(lambda *_: SURE) == SURE
    certain = await answer(lambda *_: replace(SURE, probability=1.0, confidence=7.0))
    assert certain == replace(SURE, probability=0.98, confidence=1.0)
    assert await answer(lambda *_: Abstention("no news")) == Abstention("no news")


@pytest.mark.parametrize(
    ("judge", "reason"),
    [
        (raising, "it failed: RuntimeError"),
        (lambda *_: "yes", "it gave no vote"),
        (lambda *_: replace(SURE, probability=float("nan")), "it gave an invalid number"),
        (lambda *_: replace(SURE, probability=1.5), "it gave an invalid number"),
        (lambda *_: replace(SURE, figures={"x": float("inf")}), "it gave an invalid number"),
    ],
)
async def test_what_makes_no_sense_is_an_abstention(judge: Judge, reason: str) -> None:
    assert await answer(judge) == Abstention(reason)


async def test_who_does_not_answer_in_time_abstains_and_is_not_asked_again_meanwhile() -> None:
    gate, asked = threading.Event(), []

    def hung(seen: SignalFeatures, _: SignalSettings) -> AgentVote:
        asked.append(seen.symbol)
        gate.wait(60.0)
        return SURE

    outside = ExternalAgents.from_agents([agent(hung), agent(lambda *_: SURE, "quick")])
    hasty = replace(RULES, agent_timeout_s=0.2)
    late = await outside.answers(evidence(), hasty)
    assert late["news"] == Abstention("it did not answer within 0.2 s")
    again = await outside.answers(evidence(), RULES)
    assert again == {"news": Abstention("it is still busy with an earlier request"), "quick": SURE}
    gate.set()
    while (back := await outside.answers(evidence(), RULES))["news"] != SURE:
        assert "busy" in str(back["news"])
    assert len(asked) == 2


def with_agent(desk: Desk, *judges: Agent) -> None:
    desk.signals = replace(desk.signals, evaluator=SignalEvaluator((*AGENTS, *judges)))


async def votes(desk: Desk, signal_id: str) -> dict[str, Vote]:
    verdict = (await desk.signals.get(signal_id)).verdict
    assert verdict is not None
    return {one.agent: one for one in verdict.votes}


async def test_a_signal_waits_until_agents_from_outside_were_asked_about_its_symbol(
    desk: Desk,
) -> None:
    asked: list[str] = []

    def judge(seen: SignalFeatures, _: SignalSettings) -> AgentVote:
        asked.append(seen.symbol)
        return SURE

    with_agent(desk, agent(judge))
    sent = [await desk.signals.submit(claim(), WHO) for _ in range(2)]
    assert all(one.result is not None and one.result.evaluated.signal.is_pending for one in sent)
    assert await desk.signals.process_queue() == 2
    assert asked == [SYMBOLS[0]], "an opinion is about a symbol"
    assert sent[0].result is not None
    cast = await votes(desk, sent[0].result.evaluated.signal.signal_id)
    assert (cast["news"].probability, cast["news"].figures) == (0.9, {"news": 3.0})
    assert len(cast) == len(AGENTS) + 1 + 1, "and the source"


async def test_what_was_said_of_another_board_is_not_counted(desk: Desk) -> None:
    board = desk.boards.board
    assert board is not None

    def moving(*_: object) -> AgentVote:
        desk.boards.board = replace(board, run_id="board-2")
        return SURE

    with_agent(desk, agent(moving))
    sent = await desk.signals.submit(claim(), WHO)
    assert sent.result is not None
    signal_id = sent.result.evaluated.signal.signal_id
    assert await desk.signals.evaluate_pending() == 0
    assert (await desk.signals.get(signal_id)).signal.state is SignalState.VALIDATED
    assert await desk.signals.evaluate_pending() == 1
    assert (await votes(desk, signal_id))["news"].probability == 0.9


async def test_a_late_agent_leaves_the_verdict_to_the_others(desk: Desk) -> None:
    gate = threading.Event()

    def hung(*_: object) -> AgentVote:
        gate.wait(60.0)
        return SURE

    with_agent(desk, agent(hung))
    await desk.configuration.put({"signals": {"agent_timeout_s": 0.05}}, "hasty", WHO)
    sent = await desk.signals.submit(claim(), WHO)
    assert sent.result is not None
    assert await desk.signals.process_queue() == 1
    gate.set()
    found = await desk.signals.get(sent.result.evaluated.signal.signal_id)
    assert found.signal.state is SignalState.APPROVED
    assert found.verdict is not None
    assert found.verdict.voted == pytest.approx(0.8)
    news = next(one for one in found.verdict.votes if one.agent == "news")
    assert (news.probability, news.reason) == (None, "it did not answer within 0.05 s")


async def test_a_symbol_that_left_the_board_fails_without_anybody_being_asked(desk: Desk) -> None:
    asked: list[str] = []

    def judge(seen: SignalFeatures, _: SignalSettings) -> AgentVote:
        asked.append(seen.symbol)
        return SURE

    with_agent(desk, agent(judge))
    sent = await desk.signals.submit(claim(), WHO)
    board = desk.boards.board
    assert board is not None
    left = tuple(one for one in board.cards if one.symbol != SYMBOLS[0])
    desk.boards.board = replace(board, cards=left)
    assert await desk.signals.process_queue() == 1
    assert asked == []
    assert sent.result is not None
    found = await desk.signals.get(sent.result.evaluated.signal.signal_id)
    assert found.signal.state is SignalState.FAILED


async def test_without_a_board_agents_from_outside_wait_as_well(desk: Desk) -> None:
    with_agent(desk, agent(lambda *_: SURE))
    desk.boards.board = None
    await desk.signals.submit(claim(), WHO)
    assert await desk.signals.process_queue() == 0
