"""The judges of signals: show the agents what is known of the symbol, and take their verdict."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from app.configuration.domain.sections import SignalSettings
from app.foundation.errors import UnavailableError
from app.foundation.sql.unit_of_work import UnitOfWork
from app.portfolio.services.decision_context import Grounds
from app.scoring.domain.board import Board, Card
from app.signals.domain.agents import AGENTS, Agent, Evidence, Surroundings
from app.signals.domain.consensus import SourceClaim, judge
from app.signals.domain.evaluated_signal import Judged, settled, unjudged
from app.signals.domain.models import Claim, Signal
from app.signals.domain.outcomes import Window
from app.signals.domain.track_record import Record, SourceKey, weights_of
from app.signals.services.external_agents import Asked, OutsideAgents
from app.signals.storage.statistics import SignalRecordRepository

_STALE = "the market data of {} is too old to judge it"
_ABSENT = "{} is not on the board"
_NOBODY = Asked()
_NEW = Record()  # of a source that nothing is known of


@dataclass(frozen=True, slots=True)
class Skills:
    """Skill of agents and sources as it stands in one transaction."""

    weights: Mapping[str, float] | None = None  # of agents, by skill; None while they weigh alike
    sources: Mapping[SourceKey, Record] = field(default_factory=dict)


@dataclass(slots=True)
class Judges:
    """What a board says of all symbols is looked up once for each board."""

    agents: tuple[Agent, ...] = AGENTS
    outside: OutsideAgents = field(init=False)
    _around: dict[str, Surroundings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.outside = OutsideAgents.among(self.agents)

    @property
    def asks_outside(self) -> bool:
        """Whether some agents have to be asked before, outside of any transaction."""
        return bool(self.outside.agents)

    async def ask(self, signals: Iterable[Signal], grounds: Grounds, board: Board) -> Asked:
        """What agents from outside say of the symbols of `signals`; each is asked once."""
        symbols = {one.claim.symbol for one in signals if one.claim.symbol is not None}
        answers = {}
        for symbol in sorted(symbols):
            card = board.card(symbol)
            if card is not None:
                seen = self._evidence(card, grounds, board)
                answers[symbol] = await self.outside.answers(seen, grounds.configuration.signals)
        return Asked(board.run_id, answers)

    def may_judge(self, signal: Signal, board: Board, asked: Asked) -> bool:
        """Whether everybody who is to be asked before was, on the ground of this very board."""
        symbol = signal.claim.symbol
        if not self.asks_outside or symbol is None or board.card(symbol) is None:
            return True
        return asked.board_id == board.run_id and symbol in asked.answers

    def judged(
        self,
        signal: Signal,
        grounds: Grounds,
        board: Board,
        skills: Skills,
        asked: Asked = _NOBODY,
    ) -> Judged:
        """The signal after its verdict; failed, to be tried again, where data is missing."""
        claim, symbol = signal.claim, signal.claim.symbol
        card = None if symbol is None else board.card(symbol)
        if symbol is None or card is None:
            return unjudged(signal, _ABSENT.format(symbol), grounds.at)
        if not grounds.is_fresh(symbol):
            return unjudged(signal, _STALE.format(symbol), grounds.at)
        evidence = self._evidence(card, grounds, board)
        rules = grounds.configuration.signals
        answers = asked.answers.get(symbol, {})
        record = skills.sources.get((claim.source, claim.type), _NEW)
        source = SourceClaim(claim.strength, claim.confidence, record)
        verdict = judge(
            claim.direction, evidence, rules, skills.weights, self.agents, answers, source
        )
        version = grounds.configuration.version
        horizon = claim.timeframe or timedelta(days=rules.horizon_days)
        window = Window.after(grounds.market.as_of() or grounds.at, horizon)
        return settled(signal, verdict, board.run_id, version, window, grounds.at)

    async def skills(
        self, unit: UnitOfWork, rules: SignalSettings, claims: Iterable[Claim] | None
    ) -> Skills:
        """Skills in this transaction, of the sources of `claims`; None: of all sources."""
        keys = None if claims is None else {(one.source, one.type) for one in claims}
        agents, sources = await unit.get(SignalRecordRepository).of(keys)
        return Skills(self.weights(agents, rules), sources)

    def weights(
        self, records: Mapping[str, Record], rules: SignalSettings
    ) -> dict[str, float] | None:
        """Weights of the agents by their skill; None while they weigh alike."""
        return weights_of(records, [one.name for one in self.agents], rules.min_outcomes)

    def _evidence(self, card: Card, grounds: Grounds, board: Board) -> Evidence:
        return Evidence.of(card, self._surroundings(board), obstacle(card.symbol, grounds))

    def _surroundings(self, board: Board) -> Surroundings:
        known = self._around.get(board.run_id)
        if known is None:
            known = Surroundings.of(board)
            self._around = {board.run_id: known}
        return known


def board_of(grounds: Grounds) -> Board | None:
    """The board, if it is one to decide on."""
    try:
        return grounds.require_board()
    except UnavailableError:
        return None


def obstacle(symbol: str, grounds: Grounds) -> str | None:
    """Why nothing may be bought now; None if nothing stands in the way."""
    doubt = grounds.doubt(symbol)
    told = (
        (grounds.market.is_halted(), "the exchange is not trading"),
        (doubt is not None, f"its prices are not believed: {doubt}"),
        (grounds.is_frozen(symbol), "nobody trades it"),
        (not grounds.is_tradeable(symbol), "it is not open for new positions"),
    )
    return next((said for holds, said in told if holds), None)
