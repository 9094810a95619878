"""External agents, each in its own thread; one without an answer in time abstains."""

import asyncio
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from math import isfinite

import structlog

from app.configuration.domain.sections import SignalSettings
from app.signals.domain.agents import Abstention, Agent, AgentVote, SignalFeatures
from app.signals.domain.opinion_pool import clip_probability

Answer = AgentVote | Abstention
_log = structlog.get_logger("signals")


@dataclass(frozen=True, slots=True)
class ExternalVotes:
    """Answers by symbol and agent, on one board."""

    board_id: str | None = None
    answers: Mapping[str, Mapping[str, Answer]] = field(default_factory=dict)


@dataclass(slots=True)
class ExternalAgents:
    """One question at a time for each agent; a hanging one gets no other meanwhile."""

    agents: tuple[Agent, ...]
    _asked: dict[str, "Future[Answer]"] = field(default_factory=dict)

    @classmethod
    def from_agents(cls, agents: Iterable[Agent]) -> "ExternalAgents":
        return cls(tuple(agent for agent in agents if agent.is_outside))

    async def answers(self, evidence: SignalFeatures, rules: SignalSettings) -> dict[str, Answer]:
        """Answers by name within `rules.agent_timeout` seconds; an error is an abstention."""
        said = await asyncio.gather(*(self._answer(one, evidence, rules) for one in self.agents))
        return {agent.name: one for agent, one in zip(self.agents, said, strict=True)}

    async def _answer(
        self, agent: Agent, evidence: SignalFeatures, rules: SignalSettings
    ) -> Answer:
        before = self._asked.get(agent.name)
        if before is not None and not before.done():
            return Abstention("it is still busy with an earlier question")
        asked = self._asked[agent.name] = _ask_in_thread(agent, evidence, rules)
        try:
            async with asyncio.timeout(rules.agent_timeout_s):
                return await asyncio.shield(asyncio.wrap_future(asked))
        except TimeoutError:
            return Abstention(f"it did not answer within {rules.agent_timeout_s:g} s")


def _ask_in_thread(
    agent: Agent, evidence: SignalFeatures, rules: SignalSettings
) -> "Future[Answer]":
    """A daemon thread: one that never ends must not keep the process from ending."""
    future: Future[Answer] = Future()

    def ask() -> None:
        try:
            future.set_result(_valid_vote(agent(evidence, rules)))
        except Exception as error:  # noqa: BLE001  # a plug-in may raise any error
            _log.warning("agent_failed", agent=agent.name, cause=type(error).__name__)
            future.set_result(Abstention(f"it failed: {type(error).__name__}"))

    threading.Thread(target=ask, name=f"agent-{agent.name}", daemon=True).start()
    return future


def _valid_vote(said: object) -> Answer:
    """Answer of an agent, as an abstention if it is no valid vote."""
    if isinstance(said, Abstention):
        return said
    if not isinstance(said, AgentVote):
        return Abstention("it gave no opinion")
    numbers = (said.probability, said.confidence, *said.figures.values())
    if not all(isfinite(one) for one in numbers) or not 0.0 <= said.probability <= 1.0:
        return Abstention("it gave a number that cannot be")
    sure = min(max(said.confidence, 0.0), 1.0)
    return replace(said, probability=clip_probability(said.probability), confidence=sure)
