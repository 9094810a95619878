"""What health and status say of the market."""

from app.market.domain.models import DataSource
from app.market.domain.panel import Source
from app.market.services.eligible_symbols import count
from app.market.services.snapshot import MarketMoment
from app.market.services.state import FillProgress
from app.operations.services.health_models import MarketFacts


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
