"""Loads sample data: the regular first fill and a first board from the sandbox."""

from dataclasses import dataclass
from typing import Final

from app.foundation.data_status import DataSource
from app.foundation.errors import Code, ConflictError, UnavailableError
from app.market.services.backfill import Progress, first_fill, ignore_progress
from app.market.services.service import MarketData
from app.scoring.services.service import Scoring

MIN_SYMBOLS: Final = 12  # with candles, for a demonstration
_RETRY_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class SampleDataResult:
    """Loaded sample data."""

    symbols: tuple[str, ...]
    daily_candles: int
    run_id: str


@dataclass(frozen=True, slots=True)
class SampleData:
    """Loads missing sample data; idempotent."""

    market: MarketData
    scoring: Scoring

    def require_sandbox(self) -> None:
        """Raises ConflictError (sandbox_only) against live KuCoin."""
        if self.market.source is not DataSource.SANDBOX:
            raise ConflictError(
                Code.SANDBOX_ONLY, "Sample data is only loaded from the local exchange."
            )

    async def fill(self, progress: Progress = ignore_progress) -> None:
        """Loads all market data. Raises as `load` does."""
        self.require_sandbox()
        await first_fill(self.market, progress)

    async def load(self) -> SampleDataResult:
        """Loads the data and scores. Raises ConflictError (sandbox_only), UnavailableError."""
        self.require_sandbox()
        if not self.market.scorable.is_set():
            await first_fill(self.market)
        board = self.scoring.latest()
        if board is None or (self.market.is_filled() and not self.scoring.has_complete_board()):
            board = await self.scoring.calculate()
        entries = self.market.eligible()
        daily = self.market.live.market.daily
        if len(entries) < MIN_SYMBOLS:
            raise UnavailableError(
                Code.MARKET_DATA_STALE,
                f"Only {len(entries)} symbols have candles, {MIN_SYMBOLS} are needed.",
                retry_after_s=_RETRY_S,
            )
        return SampleDataResult(
            symbols=tuple(entry.symbol for entry in entries),
            daily_candles=sum(len(daily[entry.contract.code].value) for entry in entries),
            run_id=board.run_id,
        )
