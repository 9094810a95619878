"""Health of market data: figures for health answers, and the last error per endpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from app.configuration.domain.sections import Source
from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import Code
from app.market.domain.models import Rejection
from app.market.domain.stream import StreamFacts
from app.market.services.snapshot import MarketMoment, count
from app.market.services.state import FillProgress


@dataclass(frozen=True, slots=True)
class MarketFacts:
    """What the market data service says of itself."""

    data_source: DataSource
    data_status: DataStatus
    as_of: datetime | None
    contracts: int
    eligible: int
    stale_symbols: int
    stage: str  # the step of the first fill that runs, or "complete"
    done: int
    total: int
    ages_s: Mapping[str, float | None]  # source -> age of its oldest fresh-kept value
    is_clock_safe: bool = True  # the exchange's time is known well enough to decide by


@dataclass(frozen=True, slots=True)
class ReferenceReport:
    """How the prices of another exchange come in; `failed` is the code of the last asking."""

    name: str
    is_owner: bool  # else another process asks it
    is_told: bool  # its stream tells them
    has_answered: bool
    failed: str | None
    every_s: float


@dataclass(frozen=True, slots=True)
class StreamReport:
    """How the market comes in, and what the stream does in this process."""

    is_owner: bool  # of the feed; who is not hears nothing itself
    is_streaming: bool  # else it is asked for
    was_streaming: bool  # at some time since this process owns it
    facts: StreamFacts


def market_facts(
    moment: MarketMoment,
    source: DataSource,
    fill: FillProgress,
    *,
    is_clock_safe: bool,
) -> MarketFacts:
    """Of one moment; an age is that of the last answer of a source, None before the first."""
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
class ExchangeWatch:
    """The newest answer of an endpoint, about a symbol where it has one, replaces the former.

    So what was wrong is over as soon as the same question is answered rightly.
    """

    _outcomes: dict[str, str] = field(default_factory=dict)  # path -> "ok" or an error code
    _refused: dict[tuple[str, str], tuple[Rejection, ...]] = field(default_factory=dict)

    def requested(self, path: str, outcome: str, seconds: float) -> None:
        """One request to the path template has ended."""
        del seconds
        self._outcomes[path] = outcome

    def answered(self, path: str, symbol: str, refused: Sequence[Rejection]) -> None:
        """An answer was read; `refused` are those of its records that made no sense."""
        if refused:
            self._refused[path, symbol] = tuple(refused)
        else:
            self._refused.pop((path, symbol), None)

    def redirected(self) -> tuple[str, ...]:
        """Endpoints whose last answer pointed to another address."""
        return tuple(
            sorted(
                path
                for path, outcome in self._outcomes.items()
                if outcome == Code.EXCHANGE_REDIRECTED
            )
        )

    def refused(self) -> tuple[tuple[str, str, Rejection], ...]:
        """Path, contract code and record of everything that is refused at present."""
        return tuple(
            (path, symbol or record.key, record)
            for (path, symbol), records in sorted(self._refused.items())
            for record in records
        )
