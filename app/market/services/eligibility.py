"""Eligibility funnel of the whole universe, with cached verdicts of unchanged symbols."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from app.configuration.domain.model import Configuration
from app.foundation.memoize import ViewCache
from app.market.domain.eligibility import (
    EligibilityCandidate,
    EligibilityLimits,
    Funnel,
    build_funnel,
    first_failure,
)
from app.market.domain.models import Contract
from app.market.domain.sectors import SectorTable
from app.market.domain.symbols import SymbolEntry
from app.market.services.state import DailyFacts, Market, Received
from app.market.services.symbol_quality import find_quarantine_reason
from app.market.services.symbol_registry import KnownContracts

_NO_HISTORY: Final = DailyFacts(0, None)


def fresh_until(received: Mapping[str, Received[Any]], limit_s: float, mono: float) -> float:
    """Returns the last monotonic second at which every value that is fresh now is still fresh."""
    fresh = (one.mono for one in received.values() if mono - one.mono <= limit_s)
    return min(fresh, default=np.inf) + limit_s


@dataclass(frozen=True, slots=True)
class FunnelInputs:
    """Inputs of the funnel at one moment."""

    market: Market
    known: KnownContracts
    configuration: Configuration
    sectors: SectorTable
    mono: float  # seconds
    limits: EligibilityLimits
    memory: ViewCache

    def candidate(self, contract: Contract, symbol: str) -> EligibilityCandidate:
        """Returns the inputs of the eligibility rules for one contract."""
        market, code = self.market, contract.code
        stats, ticker = market.stats.get(code), market.tickers.get(code)
        history = market.daily_facts.get(code, _NO_HISTORY)
        is_known = ticker is not None and code not in market.diverged
        return EligibilityCandidate(
            symbol=symbol,
            contract=contract,
            asset_class=self.sectors.classify(contract.base).asset_class,
            turnover_24h=None if stats is None else stats.value.turnover_24h,
            daily_bars=history.bars,
            median_turnover=history.median_turnover,
            ticker_age_s=max(0.0, self.mono - ticker.mono) if ticker and is_known else None,
            quarantine_reason=find_quarantine_reason(market, code, self.configuration.quality),
        )

    def funnel(self) -> Funnel:
        market = self.market

        def compute() -> tuple[Funnel, float]:
            failures = {one.symbol: self._failure(one) for one in self.known.index.entries}
            end = fresh_until(market.tickers, self.limits.ticker_age_s, self.mono)
            return build_funnel(failures, self.limits), end

        depends_on = (
            market.stats,
            market.tickers,
            market.quality,
            market.daily_facts,
            market.diverged,
            self.known,
            self.configuration,
            self.sectors,
        )
        return self.memory.get_until("funnel", depends_on, self.mono, compute)

    def _failure(self, entry: SymbolEntry) -> str | None:
        """Returns the first failed rule, cached: few symbols change between two calls."""
        market, code = self.market, entry.contract.code
        ticker = market.tickers.get(code)

        def compute() -> tuple[str | None, float]:
            end = np.inf if ticker is None else ticker.mono + self.limits.ticker_age_s
            verdict = first_failure(self.candidate(entry.contract, entry.symbol), self.limits)
            return verdict, end if self.mono <= end else np.inf

        depends_on = (
            entry,
            market.stats.get(code),
            ticker,
            market.quality.get(code),
            market.daily_facts.get(code),
            code in market.diverged,
            self.configuration,
            self.sectors,
        )
        return self.memory.get_until(f"failure of {code}", depends_on, self.mono, compute)
