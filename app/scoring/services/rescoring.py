"""Triggers a scoring when the price of a portfolio member moves, in addition to the schedule."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Final

import structlog

from app.foundation.errors import ServiceError
from app.market.services.service import MarketData
from app.scoring.domain.board import Board
from app.scoring.domain.score_stability import has_moved, hourly_volatility

CHECK_INTERVAL_S: Final = 5.0  # each check reads the members from the database
_log = structlog.get_logger("rescoring")


@dataclass(slots=True)
class Rescoring:
    """Compares the members' mid prices with those at the newest board.

    Triggered scorings are at least `feed.rescore_min_interval_s` apart.
    """

    data: MarketData
    members: Callable[[], Awaitable[Collection[str]]]  # standard symbols
    latest: Callable[[], Board | None]
    score: Callable[[], Awaitable[object]]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _run_id: str | None = field(default=None, init=False)
    _mids: dict[str, float] = field(default_factory=dict, init=False)  # at the newest board
    _triggered_at: float = field(default=float("-inf"), init=False)

    async def run(self, beat: Callable[[], None]) -> None:
        while True:
            await self.check()
            beat()
            await self.sleep(CHECK_INTERVAL_S)

    async def check(self) -> None:
        """Triggers a scoring if a member has moved and the minimum interval has passed."""
        board, now = self.latest(), self.data.monotonic()
        if board is None:
            return
        mids = self._mids_of(await self._load_members())
        if board.run_id != self._run_id:
            self._run_id, self._mids = board.run_id, mids
            return
        self._mids = mids | self._mids  # adds members that joined since the board
        if now - self._triggered_at < self.data.configuration().feed.rescore_min_interval_s:
            return
        moved = [symbol for symbol in mids if self._has_moved(symbol, mids[symbol])]
        if moved:
            self._triggered_at = now
            _log.info("members_moved", symbols=moved)
            await self.score()

    async def _load_members(self) -> Collection[str]:
        try:
            return await self.members()
        except ServiceError:
            return self._mids.keys()

    def _mids_of(self, symbols: Collection[str]) -> dict[str, float]:
        """Mid prices of symbols with a fresh quote of both sides."""
        mids = {}
        for symbol in symbols:
            quote = self.data.quote(symbol)
            if quote is not None and quote.is_fresh and quote.bid and quote.ask:
                mids[symbol] = float(quote.bid + quote.ask) / 2.0
        return mids

    def _has_moved(self, symbol: str, mid: float) -> bool:
        entry = self.data.registry.index.find(symbol)
        if entry is None:
            return False
        candles = self.data.live.market.hourly.get(entry.contract.code)
        volatility = None if candles is None else hourly_volatility(candles.value)
        return has_moved(self._mids[symbol], mid, volatility, self.data.configuration().feed)
