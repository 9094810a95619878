"""Evaluates signals: collects the features of the symbol and the agents' consensus on them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from app.configuration.domain.sections import SignalSettings
from app.foundation.errors import UnavailableError
from app.foundation.sql.unit_of_work import UnitOfWork
from app.portfolio.services.decision_context import DecisionContext
from app.scoring.domain.board import Board, Card
from app.signals.domain.agents import AGENTS, Agent, SignalFeatures, UniverseContext
from app.signals.domain.consensus import SourceClaim, reach_consensus
from app.signals.domain.evaluated_signal import EvaluatedSignal, with_consensus, without_consensus
from app.signals.domain.models import Signal, SignalClaim
from app.signals.domain.outcomes import OutcomeWindow
from app.signals.domain.track_record import ForecastRecord, SourceKey, agent_weights
from app.signals.services.external_agents import ExternalAgents, ExternalVotes
from app.signals.storage.statistics import SignalRecordRepository

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
