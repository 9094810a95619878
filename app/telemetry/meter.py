"""Moves the metrics that follow from events: what happened, said once, after its commit."""

from dataclasses import dataclass

from app.foundation.metrics import Metrics
from app.portfolio.domain.events import PortfolioChanged
from app.scoring.domain.events import ScoresUpdated
from app.signals.domain.events import SignalChanged, SignalOutcomesBooked


@dataclass(frozen=True, slots=True)
class Meter:
    metrics: Metrics

    def hear(self, event: object) -> None:
        """Other events move nothing."""
        match event:
            case ScoresUpdated():
                self.metrics.scoring_runs.inc()
                self.metrics.scoring_seconds.observe(event.duration_s)
            case PortfolioChanged():
                self.metrics.portfolio_changes.labels(event.type).inc()
            case SignalChanged():
                self.metrics.signals.labels(event.state).inc()
            case SignalOutcomesBooked():
                for result in ("beat", "missed", "unknown"):
                    self.metrics.signal_outcomes.labels(result).inc(getattr(event, result))
            case _:
                pass
