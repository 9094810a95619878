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
from app.signals.domain.consensus import (
    SourceClaim,
    VerdictSnapshot,
    consensus_from_snapshot,
)
from app.signals.domain.evaluated_signal import EvaluatedSignal, with_consensus, without_consensus
from app.signals.domain.events import SignalChanged
from app.signals.domain.models import Signal, SignalClaim
from app.signals.domain.opinion_pool import clip_probability
from app.signals.domain.outcomes import OutcomeWindow
from app.signals.domain.track_record import ForecastRecord, SourceKey, agent_weights
from app.signals.storage.statistics import SignalRecordRepository

AgentAnswer = AgentVote | Abstention
_log = structlog.get_logger("signals")


@dataclass(frozen=True, slots=True)
class ExternalVotes:
    """Answers of external agents by symbol and agent, on one board."""

    board_id: str | None = None
    answers: Mapping[str, Mapping[str, AgentAnswer]] = field(default_factory=dict)


@dataclass(slots=True)
class ExternalAgents:
    """Asks external agents, one request at a time for each agent, also if it hangs."""

    agents: tuple[Agent, ...]
    _pending: dict[str, "Future[AgentAnswer]"] = field(default_factory=dict)

    @classmethod
    def from_agents(cls, agents: Iterable[Agent]) -> "ExternalAgents":
        return cls(tuple(agent for agent in agents if agent.is_external))

    async def answers(
        self, features: SignalFeatures, rules: SignalSettings
    ) -> dict[str, AgentAnswer]:
        """Requests answers within `rules.agent_timeout_s`; an error is an abstention."""
        answers = await asyncio.gather(
            *(self._answer(agent, features, rules) for agent in self.agents)
        )
        return {agent.name: answer for agent, answer in zip(self.agents, answers, strict=True)}

    async def _answer(
        self, agent: Agent, features: SignalFeatures, rules: SignalSettings
    ) -> AgentAnswer:
        earlier = self._pending.get(agent.name)
        if earlier is not None and not earlier.done():
            return Abstention("it is still busy with an earlier request")
        pending = self._pending[agent.name] = _request_in_thread(agent, features, rules)
        try:
            async with asyncio.timeout(rules.agent_timeout_s):
                return await asyncio.shield(asyncio.wrap_future(pending))
        except TimeoutError:
            return Abstention(f"it did not answer within {rules.agent_timeout_s:g} s")


def _request_in_thread(
    agent: Agent, features: SignalFeatures, rules: SignalSettings
) -> "Future[AgentAnswer]":
    """Calls the agent in a daemon thread, so that a hanging agent cannot block the shutdown."""
    future: Future[AgentAnswer] = Future()

    def call() -> None:
        try:
            future.set_result(_valid_vote(agent(features, rules)))
        except Exception as error:  # noqa: BLE001  # a plug-in may raise any error
            _log.warning("agent_failed", agent=agent.name, cause=type(error).__name__)
            future.set_result(Abstention(f"it failed: {type(error).__name__}"))

    threading.Thread(target=call, name=f"agent-{agent.name}", daemon=True).start()
    return future


def _valid_vote(answer: object) -> AgentAnswer:
    """Returns the answer of an agent, or an abstention if it is no valid vote."""
    if isinstance(answer, Abstention):
        return answer
    if not isinstance(answer, AgentVote):
        return Abstention("it gave no vote")
    numbers = (answer.probability, answer.confidence, *answer.figures.values())
    if not all(isfinite(number) for number in numbers) or not 0.0 <= answer.probability <= 1.0:
        return Abstention("it gave an invalid number")
    confidence = min(max(answer.confidence, 0.0), 1.0)
    return replace(answer, probability=clip_probability(answer.probability), confidence=confidence)


def publish_signals(unit: UnitOfWork, changed: Iterable[EvaluatedSignal], at: datetime) -> None:
    """Publishes the current state of each signal after the commit."""
    for evaluated in changed:
        signal, verdict = evaluated.signal, evaluated.verdict
        evaluation = None if verdict is None else verdict.evaluation
        unit.publish_after_commit(
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


_STALE = "the market data of {} is too old to evaluate it"
_ABSENT = "{} is not on the board"
_NO_VOTES = ExternalVotes()
_NO_RECORD = ForecastRecord()  # record of an unknown source


@dataclass(frozen=True, slots=True)
class ForecastSkills:
    """Skill of agents and sources in one transaction."""

    weights: Mapping[str, float] | None = None  # by skill; None for equal weights
    sources: Mapping[SourceKey, ForecastRecord] = field(default_factory=dict)


@dataclass(slots=True)
class SignalEvaluator:
    """Evaluates signals; the context of all symbols is cached per board."""

    agents: tuple[Agent, ...] = AGENTS
    external: ExternalAgents = field(init=False)
    _universe_by_board: dict[str, UniverseContext] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.external = ExternalAgents.from_agents(self.agents)

    @property
    def needs_external_votes(self) -> bool:
        """True if external agents must vote first, outside of a transaction."""
        return bool(self.external.agents)

    async def request_votes(
        self, signals: Iterable[Signal], context: DecisionContext, board: Board
    ) -> ExternalVotes:
        """Requests votes of external agents on the symbols of `signals`, one request each."""
        symbols = {signal.claim.symbol for signal in signals if signal.claim.symbol is not None}
        answers = {}
        for symbol in sorted(symbols):
            card = board.card(symbol)
            if card is not None:
                features = self._features(card, context, board)
                answers[symbol] = await self.external.answers(
                    features, context.configuration.signals
                )
        return ExternalVotes(board.run_id, answers)

    def has_all_votes(self, signal: Signal, board: Board, external: ExternalVotes) -> bool:
        """True if the answers of external agents are complete and of this board."""
        symbol = signal.claim.symbol
        if not self.needs_external_votes or symbol is None or board.card(symbol) is None:
            return True
        return external.board_id == board.run_id and symbol in external.answers

    def evaluate(
        self,
        signal: Signal,
        context: DecisionContext,
        board: Board,
        skills: ForecastSkills,
        external: ExternalVotes = _NO_VOTES,
    ) -> EvaluatedSignal:
        """Evaluates a signal; without data it fails and may be retried."""
        claim, symbol = signal.claim, signal.claim.symbol
        card = None if symbol is None else board.card(symbol)
        if symbol is None or card is None:
            return without_consensus(signal, _ABSENT.format(symbol), context.at)
        if not context.is_fresh(symbol):
            return without_consensus(signal, _STALE.format(symbol), context.at)
        features = self._features(card, context, board)
        rules = context.configuration.signals
        answers = external.answers.get(symbol, {})
        record = skills.sources.get((claim.source, claim.type), _NO_RECORD)
        source = SourceClaim(claim.strength, claim.confidence, record)
        version = context.configuration.version
        snapshot = VerdictSnapshot(
            configuration_version=version,
            board_id=board.run_id,
            symbol=symbol,
            direction=claim.direction,
            figures=features.figures,
            confidence=features.confidence,
            blocking_reason=features.blocking_reason,
            universe=features.universe,
            source=source,
            weights=skills.weights,
            votes={name: one for name, one in answers.items() if isinstance(one, AgentVote)},
            abstentions={name: one for name, one in answers.items() if isinstance(one, Abstention)},
        )
        verdict = consensus_from_snapshot(snapshot, rules, self.agents)
        horizon = claim.timeframe or timedelta(days=rules.horizon_days)
        window = OutcomeWindow.after(context.market.as_of() or context.at, horizon)
        evaluated = with_consensus(signal, verdict, board.run_id, version, window, context.at)
        return replace(evaluated, snapshot=snapshot)

    async def skills(
        self, unit: UnitOfWork, rules: SignalSettings, claims: Iterable[SignalClaim] | None
    ) -> ForecastSkills:
        """Loads the skills of agents and of the sources of `claims`; None for all sources."""
        keys = None if claims is None else {(claim.source, claim.type) for claim in claims}
        agents, sources = await unit.get(SignalRecordRepository).load(keys)
        return ForecastSkills(self.weights(agents, rules), sources)

    def weights(
        self, records: Mapping[str, ForecastRecord], rules: SignalSettings
    ) -> dict[str, float] | None:
        """Returns the weights of the agents by skill; None while all are equal."""
        return agent_weights(records, [agent.name for agent in self.agents], rules.min_outcomes)

    def _features(self, card: Card, context: DecisionContext, board: Board) -> SignalFeatures:
        return SignalFeatures.of(card, self._universe(board), blocking_reason(card.symbol, context))

    def _universe(self, board: Board) -> UniverseContext:
        universe = self._universe_by_board.get(board.run_id)
        if universe is None:
            universe = UniverseContext.of(board)
            self._universe_by_board = {board.run_id: universe}
        return universe


def usable_board(context: DecisionContext) -> Board | None:
    """Returns the current board if it permits decisions."""
    try:
        return context.require_board()
    except UnavailableError:
        return None


def blocking_reason(symbol: str, context: DecisionContext) -> str | None:
    """Returns the reason against a purchase now; None without one."""
    doubt = context.doubt(symbol)
    reasons = (
        (context.market.is_halted(), "the exchange is not trading"),
        (doubt is not None, f"its prices are quarantined: {doubt}"),
        (context.is_frozen(symbol), "it has no trades"),
        (not context.is_tradeable(symbol), "it is not open for new positions"),
    )
    return next((reason for applies, reason in reasons if applies), None)
