"""Events move the metrics that stand for them."""

from datetime import UTC, datetime

import pytest

from app.foundation.errors import Code, ConflictError, UnavailableError
from app.foundation.metrics import Metrics
from app.portfolio.domain.events import PlanCreated, PortfolioChanged
from app.portfolio.services.decision_context import CountedDecision, Refusals
from app.scoring.domain.events import ScoresUpdated
from app.signals.domain.events import SignalChanged, SignalOutcomesBooked
from app.telemetry.observers import Meter, decision

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("event", "lines"),
    [
        (
            ScoresUpdated("run", NOW, 250, 306, 0.2, NOW),
            (
                "mysymbols_scoring_runs_total 1.0",
                "mysymbols_scoring_scores_total 250.0",
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


def own_lines(metrics: Metrics) -> list[str]:
    """Lines of the service; those of the process move by themselves."""
    lines = metrics.render().decode().splitlines()
    return [line for line in lines if line.startswith("mysymbols_") and "_created" not in line]


def test_other_events_move_nothing() -> None:
    metrics = Metrics()
    before = own_lines(metrics)

    Meter(metrics).on_event(PlanCreated("run", 1, 0, NOW))

    assert own_lines(metrics) == before


def test_decisions_are_counted_by_kind_and_outcome() -> None:
    metrics, codes = Metrics(), list[Code]()
    refusals = Refusals(codes.append, decision(metrics))
    for _ in range(2):
        with refusals.counted(CountedDecision.REBALANCE):
            pass
    for error in (
        UnavailableError(Code.MARKET_DATA_STALE, "old"),
        ConflictError(Code.PORTFOLIO_FULL, "full"),
    ):
        with pytest.raises(type(error)), refusals.counted(CountedDecision.ADD):
            raise error
    assert {line for line in own_lines(metrics) if "decisions_total" in line} == {
        'mysymbols_decisions_total{kind="rebalance",outcome="decided"} 2.0',
        'mysymbols_decisions_total{kind="add",outcome="market_data_stale"} 1.0',
        'mysymbols_decisions_total{kind="add",outcome="portfolio_full"} 1.0',
    }
    assert codes == [Code.MARKET_DATA_STALE], "a conflict is no lack of data"
