"""Events move the metrics that stand for them."""

from datetime import UTC, datetime

import pytest

from app.foundation.metrics import Metrics
from app.portfolio.domain.events import PlanCreated, PortfolioChanged
from app.scoring.domain.events import ScoresUpdated
from app.signals.domain.events import SignalChanged, SignalOutcomesBooked
from app.telemetry.observers import Meter

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("event", "lines"),
    [
        (
            ScoresUpdated("run", NOW, 250, 306, 0.2, NOW),
            (
                "mysymbols_scoring_runs_total 1.0",
                "mysymbols_scoring_seconds_count 1.0",
            ),
        ),
        (
            PortfolioChanged(7, 12, "ADD", "BTCUSDT", NOW),
            ('mysymbols_portfolio_changes_total{action="ADD"} 1.0',),
        ),
        (
            SignalChanged(
                "id", "desk", "momentum", "BTCUSDT", "BUY", "approved", "APPROVE", 0.7, "said", NOW
            ),
            ('mysymbols_signals_total{state="approved"} 1.0',),
        ),
        (
            SignalOutcomesBooked(3, 2, 1, NOW),
            (
                'mysymbols_signal_outcomes_total{result="outperformed"} 3.0',
                'mysymbols_signal_outcomes_total{result="underperformed"} 2.0',
                'mysymbols_signal_outcomes_total{result="unknown"} 1.0',
            ),
        ),
    ],
)
def test_an_event_moves_its_metrics(event: object, lines: tuple[str, ...]) -> None:
    metrics = Metrics()

    Meter(metrics).on_event(event)

    told = metrics.render().decode().splitlines()
    assert set(lines) <= set(told)


def test_other_events_move_nothing() -> None:
    metrics = Metrics()
    before = [line for line in metrics.render().decode().splitlines() if "_created" not in line]

    Meter(metrics).on_event(PlanCreated("run", 1, 0, NOW))

    after = [line for line in metrics.render().decode().splitlines() if "_created" not in line]
    assert after == before
