"""Health figures of market data, and the last error of each exchange endpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from app.configuration.domain.sections import Source
from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import Code
from app.market.domain.models import Rejection
from app.market.domain.stream import StreamStatus
from app.market.services.snapshot import MarketMoment, count
from app.market.services.state import FillProgress


@dataclass(frozen=True, slots=True)
class MarketFacts:
    """Health figures of the market data service."""

    data_source: DataSource
    data_status: DataStatus
    as_of: datetime | None
    contracts: int
    eligible: int
    stale_symbols: int
    stage: str  # current stage of the first fill, or "complete"
    done: int
    total: int
    ages_s: Mapping[str, float | None]  # source -> age of its last answer
    is_clock_safe: bool = True  # the exchange's time is certain enough for decisions


@dataclass(frozen=True, slots=True)
class ReferenceReport:
    """State of the reference prices; `failed` is the error code of the last poll."""

    name: str
    is_owner: bool  # this process polls; else another one does
    is_streaming: bool  # prices arrive through its stream
    has_answered: bool
    failed: str | None
    poll_interval_s: float


@dataclass(frozen=True, slots=True)
class StreamReport:
    """Feed mode and state of the stream in this process."""

    is_owner: bool  # of the feed; other processes have no stream
    is_streaming: bool  # else the market is polled
    was_streaming: bool  # at any time since this process owns the feed
    facts: StreamStatus


def market_facts(
    moment: MarketMoment,
    source: DataSource,
    fill: FillProgress,
    *,
    is_clock_safe: bool,
) -> MarketFacts:
    """Returns figures of one moment; ages are those of the last answers, None before the first."""
    stale = moment.stale_symbols()
    eligible = count(moment)
    ages = {one.value: moment.age_s(one) for one in Source}
    return MarketFacts(
        data_source=source,
        data_status=moment.status(),
        as_of=moment.as_of(),
        contracts=len(moment.known.index.entries),
        eligible=eligible,
        stale_symbols=stale,
        stage=fill.stage,
        done=fill.done,
        total=fill.total,
        ages_s=ages,
        is_clock_safe=is_clock_safe,
    )


@dataclass(slots=True)
class EndpointErrors:
    """Last outcome of each endpoint, per symbol where it has one.

    An error disappears as soon as the same request succeeds.
    """

    _outcomes: dict[str, str] = field(default_factory=dict)  # path -> "ok" or error code
    _refused: dict[tuple[str, str], tuple[Rejection, ...]] = field(default_factory=dict)

    def on_request(self, path: str, outcome: str, seconds: float) -> None:
        """Records the outcome of a request to a path template."""
        del seconds
        self._outcomes[path] = outcome

    def on_answer(self, path: str, symbol: str, refused: Sequence[Rejection]) -> None:
        """Records the rejected records of an answer."""
        if refused:
            self._refused[path, symbol] = tuple(refused)
        else:
            self._refused.pop((path, symbol), None)

    def redirected(self) -> tuple[str, ...]:
        """Returns the endpoints whose last answer was a redirect."""
        return tuple(
            sorted(
                path
                for path, outcome in self._outcomes.items()
                if outcome == Code.EXCHANGE_REDIRECTED
            )
        )

    def refused(self) -> tuple[tuple[str, str, Rejection], ...]:
        """Returns path, contract code and record of all current rejections."""
        return tuple(
            (path, symbol or record.key, record)
            for (path, symbol), records in sorted(self._refused.items())
            for record in records
        )
