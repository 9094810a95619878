"""Agents: one market input turns each verdict over, and what is missing is an abstention."""

from inspect import getsource

import pytest

from app.configuration.domain.sections import SignalSettings
from app.signals.domain.agents import (
    AGENTS,
    Abstention,
    Agent,
    AgentVote,
    SignalFeatures,
    UniverseContext,
)
from tests.support.signal_features import COSTS, evidence

RULES = SignalSettings()
BY_NAME = {agent.name: agent for agent in AGENTS}


def opinion(name: str, seen: SignalFeatures) -> AgentVote:
    said = BY_NAME[name](seen, RULES)
    assert isinstance(said, AgentVote), said
    return said


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("technical", {"nearness_to_high": -0.9}),
        ("fundamental", {"funding_rate": 4.0}),
        ("market_structure", {"impact": 39.0}),
        ("risk", {"drawdown": -0.85}),
    ],
)
def test_one_input_turns_the_agent_over(name: str, changed: dict[str, float]) -> None:
    good, bad = opinion(name, evidence()), opinion(name, evidence(None, **changed))
    if name == "risk":
        assert (good.veto, bad.veto) == (None, "its drawdown 85% is beyond the limit")
    else:
        assert good.probability >= RULES.min_consensus
        assert bad.probability <= 1.0 - RULES.min_consensus


def test_risk_prefers_the_calm_and_forbids_the_wild() -> None:
    assert opinion("risk", evidence(volatility=0.9)).probability == pytest.approx(0.5)
    calm, lively = evidence(volatility=0.3), evidence(volatility=2.0)
    assert opinion("risk", calm).probability > 0.8
    assert opinion("risk", lively).probability < 0.3
    assert opinion("risk", lively).veto is None
    assert (
        opinion("risk", evidence(volatility=3.1)).veto == "its volatility 3.10 is above the limit"
    )
    assert opinion("risk", evidence(obstacle="it has no trades")).veto == "it has no trades"


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.name)
def test_without_any_one_of_its_inputs_an_agent_abstains(agent: Agent) -> None:
    for name in agent.needs:
        without = (
            evidence(volatility=None) if name == "volatility" else evidence(None, **{name: None})
        )
        said = agent(without, RULES)
        assert isinstance(said, Abstention)
        assert name in said.reason
    assert isinstance(agent(evidence(), RULES), AgentVote)


def test_a_symbol_without_a_score_and_a_board_without_others_are_abstentions() -> None:
    seen = evidence()
    nobody = SignalFeatures(seen.symbol, seen.figures, None, seen.universe)
    alone = SignalFeatures(seen.symbol, seen.figures, 0.9, UniverseContext((), None))
    assert all(isinstance(agent(nobody, RULES), Abstention) for agent in AGENTS)
    for name in ("market_structure", "risk"):
        assert isinstance(BY_NAME[name](alone, RULES), Abstention)


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.name)
def test_an_opinion_shows_the_numbers_it_rests_on(agent: Agent) -> None:
    said = agent(evidence(), RULES)
    assert isinstance(said, AgentVote)
    assert set(agent.needs) <= said.figures.keys()
    assert said == agent(evidence(), RULES), "the same for the same evidence"


def test_no_two_agents_have_one_formula() -> None:
    bodies = [getsource(agent.estimate).split('"""', 2)[2] for agent in AGENTS]
    assert len(set(bodies)) == len(AGENTS)
    answers = {
        agent.name: [
            said.probability
            for volatility in (0.3, 0.9, 1.8)
            if isinstance(said := agent(evidence(volatility=volatility), RULES), AgentVote)
        ]
        for agent in AGENTS
    }
    assert len({tuple(one) for one in answers.values()}) == len(AGENTS)


def test_the_cheapest_and_the_dearest_symbol_stay_within_a_quarter_of_one_half() -> None:
    cheap, dear = evidence(spread=0.0, impact=0.1), evidence(spread=0.0, impact=100.0)
    assert opinion("market_structure", cheap).probability == 0.75
    assert opinion("market_structure", dear).probability == 0.25
    same = evidence(spread=0.0, impact=COSTS[0])
    assert opinion("market_structure", same).probability == pytest.approx(0.25 + 0.5 * 39.5 / 40)
