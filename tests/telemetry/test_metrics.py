"""Metrics: declared once, base units, a registry of their own."""

import re
from dataclasses import fields, replace

import pytest
from prometheus_client import Counter, Gauge, Histogram

from app.foundation.metrics import Metrics
from app.market.domain.stream import NO_STREAM
from app.market.services.stream_consumer import count_stream_metrics


def test_two_services_in_one_process_do_not_clash() -> None:
    one, other = Metrics(), Metrics()
    one.scoring_runs.inc()
    assert b"mysymbols_scoring_runs_total 1.0" in one.render()
    assert b"mysymbols_scoring_runs_total 0.0" in other.render()


def test_every_declared_metric_exists_under_its_name() -> None:
    metrics = Metrics()
    names = [field.name for field in fields(metrics) if field.name != "registry"]
    assert len(names) > 20
    for name in names:
        metric = getattr(metrics, name)
        assert isinstance(metric, Counter | Gauge | Histogram)
        (described,) = metric.describe()
        assert described.name == f"mysymbols_{name}"
        assert described.documentation.endswith(".")


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
