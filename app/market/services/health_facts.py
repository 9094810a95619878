"""What health and status say of the market."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from app.configuration.domain.sections import Source
from app.foundation.data_status import DataSource, DataStatus
from app.market.domain.stream import StreamFacts
from app.market.services.eligible_symbols import count
from app.market.services.snapshot import MarketMoment
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
