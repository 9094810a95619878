"""The bench: shows the agents what is known of a signal's symbol, and takes their verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.domain.agents import AGENTS, Agent, Evidence, Surroundings
from app.domain.board import Board
from app.domain.errors import UnavailableError
from app.domain.judging import Judged, settled, unjudged
from app.domain.outcome import Window
from app.domain.signal import Signal
from app.domain.verdict import judge
from app.services.grounds import Grounds

_STALE = "the market data of {} is too old to judge it"
_ABSENT = "{} is not on the board"


@dataclass(slots=True)
class Bench:
    """What a board says of all symbols is looked up once for each board."""

    agents: tuple[Agent, ...] = AGENTS
    _around: dict[str, Surroundings] = field(default_factory=dict)

    def judged(
        self, signal: Signal, grounds: Grounds, board: Board, weights: Mapping[str, float] | None
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
        evidence = Evidence.of(card, self._surroundings(board), obstacle(symbol, grounds))
        rules = grounds.configuration.signals
        verdict = judge(signal.claim.direction, evidence, rules, weights, self.agents)
        version = grounds.configuration.version
        window = Window.after(grounds.market.as_of() or grounds.at, rules.horizon_days)
        return settled(signal, verdict, board.run_id, version, window, grounds.at)

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
