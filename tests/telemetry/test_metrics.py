"""Metrics: declared once, base units, a registry of their own."""

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge, Histogram

from app.foundation.metrics import (
    Metrics,
    ResponseQuantiles,
    ResponseTimes,
    describe_metrics,
)
from app.market.domain.stream import NO_STREAM
from app.market.services.stream_consumer import count_stream_metrics


def test_two_services_in_one_process_do_not_clash() -> None:
    one, other = Metrics(), Metrics()
    one.scoring_runs.inc()
    assert b"mysymbols_scoring_runs_total 1.0" in one.render()
    assert b"mysymbols_scoring_runs_total 0.0" in other.render()


def test_every_declared_metric_exists_under_its_name() -> None:
    metrics = Metrics()
    parts = {"registry", "response_times"}
    names = [field.name for field in fields(metrics) if field.name not in parts]
    assert len(names) > 20
    for name in names:
        metric = getattr(metrics, name)
        assert isinstance(metric, Counter | Gauge | Histogram)
        (described,) = metric.describe()
        assert described.name == f"mysymbols_{name}"
        assert described.documentation.endswith(".")


def test_response_times_are_quantiles_by_nearest_rank_of_a_bounded_window() -> None:
    now = 0.0
    times = ResponseTimes(lambda: now)
    assert times.quantiles() == ResponseQuantiles(300.0, 0, None, None)
    for number in range(1, 201):
        now = float(number)
        times.add(number / 1000)
    assert times.quantiles() == ResponseQuantiles(300.0, 200, 0.1, 0.198)
    now = 400.5  # the first hundred are older than five minutes
    assert times.quantiles() == ResponseQuantiles(300.0, 100, 0.15, 0.199)
    for number in range(5_000):
        times.add(float(number))
    assert times.quantiles().responses == 4_096
    now = 701.0
    assert times.quantiles() == ResponseQuantiles(300.0, 0, None, None)


def test_every_metric_stands_in_the_documents() -> None:
    wanted = [
        f"| `{name}` | {kind} | {labels} | {text} |"
        for name, kind, labels, text in describe_metrics()
    ]
    lines = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text("utf-8").splitlines()
    assert [line for line in lines if line.startswith("| `mysymbols_")] == wanted


def test_an_unmeasured_gauge_is_nan() -> None:
    metrics, heard = Metrics(), replace(NO_STREAM, seconds_since_last_message=2.0)
    text = metrics.render().decode()
    assert "mysymbols_exchange_clock_offset_seconds NaN" in text
    assert "mysymbols_feed_last_message_age_seconds NaN" in text
    count_stream_metrics(metrics, NO_STREAM, heard, is_streaming=True)
    assert "mysymbols_feed_last_message_age_seconds 2.0" in metrics.render().decode()
    count_stream_metrics(metrics, heard, NO_STREAM, is_streaming=False)
    assert "mysymbols_feed_last_message_age_seconds NaN" in metrics.render().decode()


@pytest.mark.parametrize("unit", ["_ms", "_millis", "_minutes", "_hours", "_kb", "_mb", "_percent"])
def test_units_are_base_units(unit: str) -> None:
    text = Metrics().render().decode()
    assert not re.search(rf"^# TYPE \w+{unit}(_total)? ", text, re.MULTILINE)
