"""Evaluates signals: features of the symbol, votes of built-in and external agents, events."""

import asyncio
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import isfinite

import structlog

from app.configuration.domain.sections import SignalSettings
from app.foundation.errors import UnavailableError
from app.foundation.sql.database import UnitOfWork
from app.portfolio.services.decision_context import DecisionContext
from app.scoring.domain.board import Board, Card
from app.signals.domain.agents import (
    AGENTS,
    Abstention,
    Agent,
    AgentVote,
    SignalFeatures,
    UniverseContext,
)
from app.signals.domain.consensus import SourceClaim, reach_consensus
from app.signals.domain.evaluated_signal import EvaluatedSignal, with_consensus, without_consensus
from app.signals.domain.events import SignalChanged
from app.signals.domain.models import Signal, SignalClaim
from app.signals.domain.opinion_pool import clip_probability
from app.signals.domain.outcomes import OutcomeWindow
from app.signals.domain.track_record import ForecastRecord, SourceKey, agent_weights
from app.signals.storage.statistics import SignalRecordRepository

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


def publish_signals(unit: UnitOfWork, changed: Iterable[EvaluatedSignal], at: datetime) -> None:
    """Publish the current state of each signal after the commit."""
    for one in changed:
        signal, verdict = one.signal, one.verdict
        evaluation = None if verdict is None else verdict.evaluation
        unit.announce(
            SignalChanged(
                signal_id=signal.signal_id,
                source=signal.claim.source,
                type=signal.claim.type,
                symbol=signal.claim.symbol,
                direction=signal.claim.direction.value,
                state=signal.state.value,
                evaluation=None if evaluation is None else evaluation.value,
                score=None if verdict is None else verdict.score,
                reason=signal.reason,
                occurred_at=at,
            )
        )


_STALE = "the market data of {} is too old to judge it"
_ABSENT = "{} is not on the board"
_NOBODY = ExternalVotes()
_NEW = ForecastRecord()  # record of an unknown source


@dataclass(frozen=True, slots=True)
class Skills:
    """Skill of agents and sources in one transaction."""

    weights: Mapping[str, float] | None = None  # by skill; None for equal weights
    sources: Mapping[SourceKey, ForecastRecord] = field(default_factory=dict)


@dataclass(slots=True)
class SignalEvaluator:
    """Evaluates signals; the context of all symbols is cached per board."""

    agents: tuple[Agent, ...] = AGENTS
    outside: ExternalAgents = field(init=False)
    _around: dict[str, UniverseContext] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.outside = ExternalAgents.from_agents(self.agents)

    @property
    def needs_external_votes(self) -> bool:
        """Whether external agents must be asked first, outside any transaction."""
        return bool(self.outside.agents)

    async def ask(
        self, signals: Iterable[Signal], context: DecisionContext, board: Board
    ) -> ExternalVotes:
        """Answers of external agents about the symbols of `signals`, one question each."""
        symbols = {one.claim.symbol for one in signals if one.claim.symbol is not None}
        answers = {}
        for symbol in sorted(symbols):
            card = board.card(symbol)
            if card is not None:
                seen = self._evidence(card, context, board)
                answers[symbol] = await self.outside.answers(seen, context.configuration.signals)
        return ExternalVotes(board.run_id, answers)

    def has_all_votes(self, signal: Signal, board: Board, asked: ExternalVotes) -> bool:
        """Whether the answers of external agents are complete and of this board."""
        symbol = signal.claim.symbol
        if not self.needs_external_votes or symbol is None or board.card(symbol) is None:
            return True
        return asked.board_id == board.run_id and symbol in asked.answers

    def evaluate(
        self,
        signal: Signal,
        context: DecisionContext,
        board: Board,
        skills: Skills,
        asked: ExternalVotes = _NOBODY,
    ) -> EvaluatedSignal:
        """Signal after its evaluation; failed, to be retried, without data."""
        claim, symbol = signal.claim, signal.claim.symbol
        card = None if symbol is None else board.card(symbol)
        if symbol is None or card is None:
            return without_consensus(signal, _ABSENT.format(symbol), context.at)
        if not context.is_fresh(symbol):
            return without_consensus(signal, _STALE.format(symbol), context.at)
        evidence = self._evidence(card, context, board)
        rules = context.configuration.signals
        answers = asked.answers.get(symbol, {})
        record = skills.sources.get((claim.source, claim.type), _NEW)
        source = SourceClaim(claim.strength, claim.confidence, record)
        verdict = reach_consensus(
            claim.direction, evidence, rules, skills.weights, self.agents, answers, source
        )
        version = context.configuration.version
        horizon = claim.timeframe or timedelta(days=rules.horizon_days)
        window = OutcomeWindow.after(context.market.as_of() or context.at, horizon)
        return with_consensus(signal, verdict, board.run_id, version, window, context.at)

    async def skills(
        self, unit: UnitOfWork, rules: SignalSettings, claims: Iterable[SignalClaim] | None
    ) -> Skills:
        """Skills in this transaction, of the sources of `claims`; None: of all sources."""
        keys = None if claims is None else {(one.source, one.type) for one in claims}
        agents, sources = await unit.get(SignalRecordRepository).of(keys)
        return Skills(self.weights(agents, rules), sources)

    def weights(
        self, records: Mapping[str, ForecastRecord], rules: SignalSettings
    ) -> dict[str, float] | None:
        """Weights of the agents by skill; None while they weigh the same."""
        return agent_weights(records, [one.name for one in self.agents], rules.min_outcomes)

    def _evidence(self, card: Card, context: DecisionContext, board: Board) -> SignalFeatures:
        return SignalFeatures.of(
            card, self._surroundings(board), blocking_reason(card.symbol, context)
        )

    def _surroundings(self, board: Board) -> UniverseContext:
        known = self._around.get(board.run_id)
        if known is None:
            known = UniverseContext.of(board)
            self._around = {board.run_id: known}
        return known


def usable_board(context: DecisionContext) -> Board | None:
    """Current board if it permits decisions."""
    try:
        return context.require_board()
    except UnavailableError:
        return None


def blocking_reason(symbol: str, context: DecisionContext) -> str | None:
    """Reason against a purchase now; None without one."""
    doubt = context.doubt(symbol)
    reasons = (
        (context.market.is_halted(), "the exchange is not trading"),
        (doubt is not None, f"its prices are not believed: {doubt}"),
        (context.is_frozen(symbol), "nobody trades it"),
        (not context.is_tradeable(symbol), "it is not open for new positions"),
    )
    return next((said for holds, said in reasons if holds), None)
