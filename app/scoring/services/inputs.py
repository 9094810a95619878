"""Market data that scoring needs, and the checks that refuse to score an unknown market."""

from collections.abc import Mapping
from typing import Final, Protocol

import numpy as np

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Source
from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import Code, UnavailableError
from app.market.domain.panel import NO_QUOTE, ScoringInputs, has_fresh_data
from app.market.domain.symbols import SymbolEntry
from app.market.services.exchange_clock import MAX_UNCERTAINTY_S

RETRY_S: Final = 5.0
_LIVE: Final = (Source.CONTRACTS, Source.TICKERS, Source.DAILY_CANDLES)
_MIN_FRESH_SHARE: Final = 0.5  # of the symbols; below it the whole market counts as unknown
_MAX_LATE_SHARE: Final = 0.1  # of the symbols; a few late quotes turn stale on their own


class ScoringMoment(Protocol):
    """Market data frozen at one instant."""

    @property
    def clock_uncertainty_s(self) -> float:
        """Uncertainty of the exchange's time, in seconds."""
        ...

    @property
    def quote_span_s(self) -> float:
        """Maximum time between the quotes of one run, in seconds."""
        ...

    def unknown(self) -> tuple[Source, ...]:
        """Sources without any answer, or beyond their age limits as a whole."""
        ...

    def under(self, configuration: Configuration) -> "ScoringMoment":
        """The same market as other settings judge it."""
        ...

    def scoring_inputs(self) -> ScoringInputs:
        """Inputs of a scoring; CPU-bound, so call it in a thread."""
        ...


class ScoringMarket(Protocol):
    """Source of the scoring inputs."""

    @property
    def source(self) -> DataSource: ...

    def moment(self) -> ScoringMoment: ...

    def status(self) -> DataStatus:
        """Status of the market as a whole."""
        ...

    def is_filled(self) -> bool:
        """True once all data that scoring reads has been requested since the start."""
        ...

    def resolve(self, text: str) -> SymbolEntry:
        """Finds a symbol in any spelling. Raises RefusedError (symbol_unknown or _ambiguous)."""
        ...


def require_known_market(moment: ScoringMoment, inputs: ScoringInputs) -> None:
    """Raises UnavailableError if the market as a whole is stale, unknown or inconsistent.

    Gaps of single symbols are allowed. Symbols without a fresh quote are excluded before scoring,
    but count here; otherwise an outage would look like a market without eligible symbols.
    """
    if not inputs.symbols and not inputs.excluded:
        raise _stale("No contract is known yet.", {})
    if moment.clock_uncertainty_s > MAX_UNCERTAINTY_S:
        raise UnavailableError(
            Code.CLOCK_UNSAFE,
            f"The exchange time is uncertain by {moment.clock_uncertainty_s:.1f} s.",
            retry_after_s=RETRY_S,
        )
    for source in moment.unknown():
        raise _stale(f"Source {_source_name(source)} is not fresh.", {"source": source})
    without_quote = sum(rule == NO_QUOTE for rule in inputs.excluded.values())
    if not inputs.symbols and not without_quote:
        return  # the board states why no symbol is eligible
    for source in _LIVE:
        known = int(np.sum(has_fresh_data(inputs, source)))
        total = len(inputs.symbols) + (without_quote if source is Source.TICKERS else 0)
        if known < _MIN_FRESH_SHARE * total:
            raise _stale(
                f"Only {known} of {total} symbols have fresh {_source_name(source)}.",
                {"source": source, "fresh_share": f"{known / total:.4f}"},
            )
    _require_consistent_quotes(inputs, moment.quote_span_s)


def _require_consistent_quotes(inputs: ScoringInputs, span_s: float) -> None:
    """Raises UnavailableError if too many quotes are more than `span_s` older than the newest."""
    ages = inputs.ages_s[Source.TICKERS]
    if not len(ages):
        return
    late = int(np.sum(ages > np.nanmin(ages) + span_s))
    if late > _MAX_LATE_SHARE * len(ages):
        raise UnavailableError(
            Code.ABORTED_INCONSISTENT,
            f"The quotes of {late} of {len(ages)} symbols are more than {span_s:g} s older than"
            " the newest one.",
            retry_after_s=RETRY_S,
            facts={"span_s": f"{span_s:g}", "late": str(late)},
        )


def _source_name(source: Source) -> str:
    return source.replace("_", " ")


def _stale(detail: str, facts: Mapping[str, str]) -> UnavailableError:
    return UnavailableError(Code.MARKET_DATA_STALE, detail, retry_after_s=RETRY_S, facts=facts)
