"""What a scoring asks of the market, and when it knows too little of it to score."""

from collections.abc import Mapping
from typing import Final, Protocol

import numpy as np

from app.configuration.domain.sections import Source
from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import Code, UnavailableError
from app.market.domain.panel import NO_QUOTE, ScoringInputs, has_fresh_data
from app.market.domain.symbols import SymbolEntry
from app.market.services.exchange_clock import MAX_UNCERTAINTY_S

RETRY_S: Final = 5.0
_LIVE: Final = (Source.CONTRACTS, Source.TICKERS, Source.DAILY_CANDLES)
_FRESH_SHARE: Final = 0.5  # of the symbols; below it the market as a whole is not known
_APART_SHARE: Final = 0.1  # so many may lag: a few are their own fault and turn stale alone


class ScoringMoment(Protocol):
    """The market frozen at one instant."""

    @property
    def clock_uncertainty_s(self) -> float:
        """By so much the exchange's time may be wrong, in seconds."""
        ...

    @property
    def quote_span_s(self) -> float:
        """The quotes of one run may be so far apart, in seconds."""
        ...

    def unknown(self) -> tuple[Source, ...]:
        """Sources that as a whole never answered or are beyond their age limits."""
        ...

    def scoring_inputs(self) -> ScoringInputs:
        """Takes processor time: called in a thread."""
        ...


class ScoringMarket(Protocol):
    """Where the inputs come from."""

    @property
    def source(self) -> DataSource: ...

    def moment(self) -> ScoringMoment: ...

    def status(self) -> DataStatus:
        """Of the market as a whole."""
        ...

    def is_filled(self) -> bool:
        """Whether everything that a scoring reads has been asked for since the start."""
        ...

    def resolve(self, text: str) -> SymbolEntry:
        """Raises RefusedError (symbol_unknown, symbol_ambiguous)."""
        ...


def refuse_unknown(moment: ScoringMoment, inputs: ScoringInputs) -> None:
    """No board is better than one of a market that is not known: single gaps are not meant.

    Who has no fresh quote is left out before the scoring: they count here nevertheless, or an
    outage would look like a market in which nobody is eligible.
    """
    if not inputs.symbols and not inputs.excluded:
        raise _stale("No contract is known yet.", {})
    if moment.clock_uncertainty_s > MAX_UNCERTAINTY_S:
        raise UnavailableError(
            Code.CLOCK_UNSAFE,
            f"The time of the exchange is known to {moment.clock_uncertainty_s:.1f} s only.",
            retry_after_s=RETRY_S,
        )
    for source in moment.unknown():
        raise _stale(f"The {_words(source)} as a whole are not fresh.", {"source": source})
    silent = sum(rule == NO_QUOTE for rule in inputs.excluded.values())
    if not inputs.symbols and not silent:
        return  # a board that says why nobody is eligible
    for source in _LIVE:
        known = int(np.sum(has_fresh_data(inputs, source)))
        of = len(inputs.symbols) + (silent if source is Source.TICKERS else 0)
        if known < _FRESH_SHARE * of:
            raise _stale(
                f"Only {known} of {of} symbols have fresh {_words(source)}.",
                {"source": source, "fresh_share": f"{known / of:.4f}"},
            )
    _refuse_apart(inputs, moment.quote_span_s)


def _refuse_apart(inputs: ScoringInputs, span_s: float) -> None:
    """No board of a market that was half looked at now and half a while ago."""
    ages = inputs.ages_s[Source.TICKERS]
    if not len(ages):
        return
    late = int(np.sum(ages > np.nanmin(ages) + span_s))
    if late > _APART_SHARE * len(ages):
        raise UnavailableError(
            Code.ABORTED_INCONSISTENT,
            f"The quotes of {late} of {len(ages)} symbols are more than {span_s:g} s older than"
            " the newest one.",
            retry_after_s=RETRY_S,
            facts={"span_s": f"{span_s:g}", "late": str(late)},
        )


def _words(source: Source) -> str:
    return source.replace("_", " ")


def _stale(detail: str, facts: Mapping[str, str]) -> UnavailableError:
    return UnavailableError(Code.MARKET_DATA_STALE, detail, retry_after_s=RETRY_S, facts=facts)
