"""The judges of signals: show the agents what is known of the symbol, and take their verdict."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from app.domain.agents import AGENTS, Agent, Evidence, Surroundings
from app.domain.board import Board, Card
from app.domain.errors import UnavailableError
from app.domain.judging import Judged, settled, unjudged
from app.domain.outcome import Window
from app.domain.signal import Signal
from app.domain.signal_rules import SignalRules
from app.domain.track_record import Kind, weights_of
from app.domain.verdict import judge
from app.services.grounds import Grounds
from app.services.outside_agents import Asked, OutsideAgents
from app.storage.unit_of_work import UnitOfWork

_STALE = "the market data of {} is too old to judge it"
_ABSENT = "{} is not on the board"
_NOBODY = Asked()


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
        weights: Mapping[str, float] | None,
        asked: Asked = _NOBODY,
    ) -> Judged:
        """The signal after its verdict; failed, to be tried again, where data is missing.

        `weights` follow the skill of the agents; None while that is not known.
        """
        symbol = signal.claim.symbol
        card = None if symbol is None else board.card(symbol)
        if symbol is None or card is None:
            return unjudged(signal, _ABSENT.format(symbol), grounds.at)
        if not grounds.is_fresh(symbol):
            return unjudged(signal, _STALE.format(symbol), grounds.at)
        evidence = self._evidence(card, grounds, board)
        rules = grounds.configuration.signals
        answers = asked.answers.get(symbol, {})
        verdict = judge(signal.claim.direction, evidence, rules, weights, self.agents, answers)
        version = grounds.configuration.version
        window = Window.after(grounds.market.as_of() or grounds.at, rules.horizon_days)
        return settled(signal, verdict, board.run_id, version, window, grounds.at)

    async def weights(self, unit: UnitOfWork, rules: SignalRules) -> dict[str, float] | None:
        """As the skill of the agents stands in this transaction; None while they weigh alike."""
        records = await unit.signal_records.all(Kind.AGENT)
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
        (not grounds.is_tradable(symbol), "it is not open for new positions"),
    )
    return next((said for holds, said in told if holds), None)
