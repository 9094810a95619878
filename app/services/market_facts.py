"""What health and status say of the market; the gauges are set on the way."""

from app.domain.market import DataSource
from app.domain.panel import Source
from app.services.market_eligible import count
from app.services.market_state import FillProgress
from app.services.market_views import MarketMoment
from app.services.status_facts import MarketFacts
from app.telemetry.metrics import Metrics


def market_facts(
    moment: MarketMoment,
    source: DataSource,
    fill: FillProgress,
    metrics: Metrics,
    *,
    is_clock_safe: bool,
) -> MarketFacts:
    """Of one moment; an age is that of the last answer of a source, None before the first."""
    stale = moment.stale_symbols()
    eligible = count(moment)
    ages = {one.value: moment.age_s(one) for one in Source}
    for name, age in ages.items():
        if age is not None:
            metrics.market_data_age_seconds.labels(name).set(age)
    counts = {"known": len(moment.known.index.entries), "eligible": eligible, "stale": stale}
    for state, number in counts.items():
        metrics.market_symbols.labels(state).set(number)
    return MarketFacts(
        data_source=source,
        data_status=moment.status(),
        as_of=moment.as_of(),
        contracts=counts["known"],
        eligible=eligible,
        stale_symbols=stale,
        stage=fill.stage,
        done=fill.done,
        total=fill.total,
        ages_s=ages,
        is_clock_safe=is_clock_safe,
    )
