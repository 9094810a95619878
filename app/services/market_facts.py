"""What health and status say of the market; the gauges are set on the way."""

from typing import Final

from app.domain.market import DataSource
from app.domain.panel import Source
from app.services.market_state import FillProgress
from app.services.market_views import MarketMoment
from app.services.status_facts import MarketFacts
from app.telemetry.metrics import Metrics

# So much later may the number of eligible symbols be seen: it is for people and their screens,
# and counting at every look at the health took longer than all the rest of it. Each count holds
# the event loop for the time of ten answers.
COUNT_S: Final = 5.0


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
    eligible = moment.memory.of(
        "eligible",
        (moment.known, moment.configuration),
        moment.mono,
        lambda: (len(moment.funnel().eligible), moment.mono + COUNT_S),
    )
    ages = {one.value: moment.age_s(one) for one in Source}
    for name, age in ages.items():
        if age is not None:
            metrics.market_data_age_seconds.labels(name).set(age)
    counts = {"known": len(moment.known.index.entries), "eligible": eligible, "stale": stale}
    for state, count in counts.items():
        metrics.market_symbols.labels(state).set(count)
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
