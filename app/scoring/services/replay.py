"""A stored run once more: its inputs as they were, the same algorithm, and whether all agrees."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from app.foundation.errors import Code, NotFoundError
from app.foundation.sql.database import Database
from app.foundation.sql.unit_of_work import UnitOfWork
from app.market.domain.models import Interval
from app.scoring.domain.board import Board
from app.scoring.domain.engine import score
from app.scoring.domain.factors import FACTORS, Factor
from app.scoring.domain.input_hash import board_hash
from app.scoring.services.algorithm_versions import spec_of
from app.scoring.services.run_inputs import unpack
from app.scoring.services.run_rebuilding import Candles, Former, rebuilt
from app.scoring.services.steadiness import Steadiness

_FROM_MS: Final = {"daily": Interval.DAY, "hourly": Interval.HOUR}


@dataclass(frozen=True, slots=True)
class Replayed:
    """The stored board and the one that came of its inputs now; equal where the hashes are."""

    board: Board
    again: Board
    board_hash: str
    again_hash: str

    @property
    def is_identical(self) -> bool:
        return self.board_hash == self.again_hash

    @property
    def differing(self) -> tuple[str, ...]:
        """Symbols whose cards are not the same, by name."""
        names = {card.symbol for one in (self.board, self.again) for card in one.cards}
        return tuple(sorted(n for n in names if self.board.card(n) != self.again.card(n)))


@dataclass(frozen=True, slots=True)
class Replaying:
    """Reads everything, then recomputes it beside the event loop; nothing is written."""

    database: Database
    factors: tuple[Factor, ...] = FACTORS

    async def replay(self, run_id: str) -> Replayed:
        """Raises NotFoundError without such a run or its inputs, which are kept for a day.

        So it does where its algorithm has a factor that this service has not.
        """
        async with self.database.read() as unit:
            board = await unit.scoring.run(run_id)
            if board is None:
                raise NotFoundError(Code.NOT_FOUND, "There is no scoring run of that id.")
            packed = await unit.scoring.inputs(run_id)
            if packed is None:
                raise NotFoundError(
                    Code.NOT_FOUND, "The inputs of that run are not kept any more: for a day only."
                )
            stored = await unit.scoring.algorithm(board.algorithm, board.algorithm_version)
            document = await asyncio.to_thread(unpack, packed)
            candles = await _candles(unit, document, board.calculated_at)
        spec = None if stored is None else spec_of(stored.name, stored.body, self.factors)
        if spec is None:
            raise NotFoundError(
                Code.NOT_FOUND, "That run was made by an algorithm that is not here any more."
            )

        def work() -> Replayed:
            inputs = rebuilt(document, *candles)
            steadiness = Steadiness()
            reliability, noise = steadiness.of(inputs, spec), steadiness.noise(inputs, spec)
            draft = score(inputs, spec, reliability, board.moments, noise)
            again = draft.issued(
                run_id=board.run_id,
                algorithm=board.algorithm,
                algorithm_version=board.algorithm_version,
                configuration_version=board.configuration_version,
                calculated_at=board.calculated_at,
                duration_ms=board.duration_ms,
                data_source=board.data_source,
                is_provisional=board.is_provisional,
            )
            return Replayed(board, again, board_hash(board), board_hash(again))

        return await asyncio.to_thread(work)


async def _candles(
    unit: UnitOfWork, document: Mapping[str, Any], at: datetime
) -> tuple[Candles, Former]:
    """Candles by window and symbol as they stand now, and what was said of them before."""
    # Of a name the listing that was there then: what came later goes first, then what had gone.
    records = sorted(
        await unit.symbols.all(),
        key=lambda one: (one.first_seen <= at, one.vanished_at is None or one.vanished_at > at),
    )
    known = {one.symbol: one.id for one in records}
    names = {known[symbol]: symbol for symbol in document["symbols"] if symbol in known}
    candles: Candles = {}
    former: Former = {}
    for window, interval in _FROM_MS.items():
        first = document[window]["first_ms"]
        found = await unit.candles.load(tuple(names), interval, first)
        candles[window] = {names[one]: series for one, series in found.items()}
        said = await unit.candle_revisions.since(tuple(names), interval, first)
        former[window] = {names[one]: revisions for one, revisions in said.items()}
    return candles, former
