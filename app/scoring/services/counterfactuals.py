"""What it takes to enter the first places, worked out beside the event loop and remembered."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from app.scoring.domain.board import Board
from app.scoring.domain.counterfactual import Entry, entry
from app.scoring.domain.factors import Factor

_MOST: Final = 1_000  # answers kept of one board


@dataclass(slots=True)
class Entries:
    """Answers of one board; another board forgets them."""

    factors: tuple[Factor, ...]
    _run_id: str = field(default="", init=False)
    _known: dict[tuple[str, int], Entry | None] = field(default_factory=dict, init=False)

    async def of(self, board: Board, symbol: str, top: int) -> Entry | None:
        """As `counterfactual.entry`; the first time it takes up to a quarter of a second."""
        if board.run_id != self._run_id or len(self._known) >= _MOST:
            self._run_id, self._known = board.run_id, {}
        known, key = self._known, (symbol, top)
        if key not in known:
            known[key] = await asyncio.to_thread(entry, board, self.factors, symbol, top)
        return known[key]
