"""Agents from outside: asked in threads of their own, and who does not answer in time abstains."""

import asyncio
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from math import isfinite

import structlog

from app.configuration.domain.sections import SignalSettings
from app.signals.domain.agents import Abstention, Agent, Evidence, Opinion
from app.signals.domain.opinion_pool import clipped

Answer = Opinion | Abstention
_log = structlog.get_logger("signals")


@dataclass(frozen=True, slots=True)
class Asked:
    """What they said, by symbol and agent, on the ground of one board."""

    board_id: str | None = None
    answers: Mapping[str, Mapping[str, Answer]] = field(default_factory=dict)


@dataclass(slots=True)
class OutsideAgents:
    """One question at a time for each: one that hangs is not asked again before it is back."""

    agents: tuple[Agent, ...]
    _asked: dict[str, "Future[Answer]"] = field(default_factory=dict)

    @classmethod
    def among(cls, agents: Iterable[Agent]) -> "OutsideAgents":
        return cls(tuple(agent for agent in agents if agent.is_outside))

    async def answers(self, evidence: Evidence, rules: SignalSettings) -> dict[str, Answer]:
        """By name, within `rules.agent_timeout_s` seconds; an error is an abstention too."""
        said = await asyncio.gather(*(self._answer(one, evidence, rules) for one in self.agents))
        return {agent.name: one for agent, one in zip(self.agents, said, strict=True)}

    async def _answer(self, agent: Agent, evidence: Evidence, rules: SignalSettings) -> Answer:
        before = self._asked.get(agent.name)
        if before is not None and not before.done():
            return Abstention("it is still busy with an earlier question")
        asked = self._asked[agent.name] = _asked(agent, evidence, rules)
        try:
            async with asyncio.timeout(rules.agent_timeout_s):
                return await asyncio.shield(asyncio.wrap_future(asked))
        except TimeoutError:
            return Abstention(f"it did not answer within {rules.agent_timeout_s:g} s")


def _asked(agent: Agent, evidence: Evidence, rules: SignalSettings) -> "Future[Answer]":
    """A daemon thread: one that never ends must not keep the process from ending."""
    future: Future[Answer] = Future()

    def ask() -> None:
        try:
            future.set_result(_sound(agent(evidence, rules)))
        except Exception as error:  # noqa: BLE001  # somebody else's code may raise anything
            _log.warning("agent_failed", agent=agent.name, cause=type(error).__name__)
            future.set_result(Abstention(f"it failed: {type(error).__name__}"))

    threading.Thread(target=ask, name=f"agent-{agent.name}", daemon=True).start()
    return future


def _sound(said: object) -> Answer:
    """What it said, if that can be a vote."""
    if isinstance(said, Abstention):
        return said
    if not isinstance(said, Opinion):
        return Abstention("it gave no opinion")
    numbers = (said.probability, said.confidence, *said.figures.values())
    if not all(isfinite(one) for one in numbers) or not 0.0 <= said.probability <= 1.0:
        return Abstention("it gave a number that cannot be")
    sure = min(max(said.confidence, 0.0), 1.0)
    return replace(said, probability=clipped(said.probability), confidence=sure)
