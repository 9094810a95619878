"""Metrics of the service, declared once: base units in the names, bounded labels only."""

import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from app.foundation.errors import Code
from app.foundation.ports import Monotonic

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_REQUEST_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_CYCLE_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_LAG_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


_MAX_TIMES: Final = 4_096
_TIMES_WINDOW_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class ResponseQuantiles:
    """Quantiles of response times in seconds; None without a response in the window."""

    window_s: float
    responses: int
    p50_s: float | None
    p99_s: float | None


@dataclass(frozen=True, slots=True)
class ResponseTimes:
    """Times of the last responses: at most 4,096, and none older than five minutes."""

    monotonic: Monotonic = time.monotonic
    _times: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_MAX_TIMES))

    def add(self, seconds: float) -> None:
        """Adds the time of a response that started now."""
        self._times.append((self.monotonic(), seconds))

    def quantiles(self) -> ResponseQuantiles:
        """Returns the quantiles by nearest rank."""
        times, now_s = self._times, self.monotonic()
        while times and now_s - times[0][0] > _TIMES_WINDOW_S:
            times.popleft()
        ranked = sorted(seconds for _, seconds in times)
        p50_s, p99_s = (
            ranked[math.ceil(share * len(ranked)) - 1] if ranked else None for share in (0.5, 0.99)
        )
        return ResponseQuantiles(_TIMES_WINDOW_S, len(ranked), p50_s, p99_s)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Metrics on a registry of their own, so that two services in one process do not clash."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    response_times: ResponseTimes = field(default_factory=ResponseTimes)

    http_requests: Counter = field(init=False)
    http_request_seconds: Histogram = field(init=False)
    http_requests_in_flight: Gauge = field(init=False)
    http_response_seconds: Gauge = field(init=False)
    idempotent_replays: Counter = field(init=False)

    exchange_requests: Counter = field(init=False)
    exchange_request_seconds: Histogram = field(init=False)
    exchange_link_up: Gauge = field(init=False)
    exchange_rejected_records: Counter = field(init=False)
    exchange_clock_offset_seconds: Gauge = field(init=False)

    market_data_age_seconds: Gauge = field(init=False)
    market_symbols: Gauge = field(init=False)
    market_candles_stored: Counter = field(init=False)

    leader_epoch: Gauge = field(init=False)
    feed_streaming: Gauge = field(init=False)
    feed_connections: Gauge = field(init=False)
    feed_topics: Gauge = field(init=False)
    feed_last_message_age_seconds: Gauge = field(init=False)
    feed_messages: Counter = field(init=False)
    feed_dropped_messages: Counter = field(init=False)
    feed_reconnects: Counter = field(init=False)
    feed_planned_reconnects: Counter = field(init=False)

    scoring_runs: Counter = field(init=False)
    scoring_scores: Counter = field(init=False)
    scoring_board_age_seconds: Gauge = field(init=False)
    scoring_seconds: Histogram = field(init=False)
    scoring_symbols: Gauge = field(init=False)
    scoring_features: Counter = field(init=False)

    portfolio_members: Gauge = field(init=False)
    portfolio_version: Gauge = field(init=False)
    portfolio_changes: Counter = field(init=False)
    portfolio_equity_index: Gauge = field(init=False)
    portfolio_drawdown_ratio: Gauge = field(init=False)
    portfolio_max_drawdown_ratio: Gauge = field(init=False)
    portfolio_weight_ratio: Gauge = field(init=False)
    portfolio_drift_ratio: Gauge = field(init=False)
    portfolio_score: Gauge = field(init=False)
    signals: Counter = field(init=False)
    signals_waiting: Gauge = field(init=False)
    signal_outcomes_open: Gauge = field(init=False)
    signal_outcomes: Counter = field(init=False)
    alerts_open: Gauge = field(init=False)
    custom_figure: Gauge = field(init=False)
    decisions: Counter = field(init=False)
    decisions_refused: Counter = field(init=False)

    rate_limited_requests: Counter = field(init=False)

    stream_clients: Gauge = field(init=False)
    stream_frames: Counter = field(init=False)
    stream_conflated_events: Counter = field(init=False)
    stream_evictions: Counter = field(init=False)

    notifications: Counter = field(init=False)
    alerting_silence_seconds: Gauge = field(init=False)

    database_slow_statements: Counter = field(init=False)
    database_connections_in_use: Gauge = field(init=False)
    database_size_bytes: Gauge = field(init=False)
    disk_free_bytes: Gauge = field(init=False)
    buffer_fill_ratio: Gauge = field(init=False)
    decision_input_bytes_per_day: Gauge = field(init=False)

    jobs_ended: Counter = field(init=False)
    job_executor_takeovers: Counter = field(init=False)
    task_restarts: Counter = field(init=False)
    task_last_success_timestamp_seconds: Gauge = field(init=False)
    event_loop_lag_seconds: Histogram = field(init=False)
    event_loop_stalls: Counter = field(init=False)
    event_loop_tasks: Gauge = field(init=False)
    bus_dropped_events: Gauge = field(init=False)
    service_info: Gauge = field(init=False)
    service_mode: Gauge = field(init=False)

    def __post_init__(self) -> None:
        for name, kind, text, labels, buckets in _TABLE:
            if kind is Histogram:
                metric: object = Histogram(
                    _PREFIX + name, text, labels, buckets=buckets, registry=self.registry
                )
            else:
                metric = kind(_PREFIX + name, text, labels, registry=self.registry)
            object.__setattr__(self, name, metric)
        ProcessCollector(registry=self.registry)  # CPU, memory and descriptors, as process_*
        for gauge in (
            self.exchange_clock_offset_seconds,
            self.leader_epoch,
            self.feed_last_message_age_seconds,
            self.portfolio_members,
            self.portfolio_version,
            self.signals_waiting,
            self.signal_outcomes_open,
            self.scoring_board_age_seconds,
            self.portfolio_equity_index,
            self.portfolio_drawdown_ratio,
            self.portfolio_max_drawdown_ratio,
            self.database_size_bytes,
            self.disk_free_bytes,
        ):
            gauge.set(math.nan)  # NaN until measured; 0 would be a value

        for code in (Code.MARKET_DATA_STALE, Code.NO_BOARD_YET, Code.CLOCK_UNSAFE):
            self.decisions_refused.labels(code.value)  # 0 until the first refusal

    def render(self) -> bytes:
        """Returns the exposition text for Prometheus."""
        return generate_latest(self.registry)


_PREFIX: Final = "mysymbols_"
_NONE: Final[tuple[float, ...]] = ()
_Kind = type[Counter] | type[Gauge] | type[Histogram]
# attribute, kind, help, labels, buckets
_TABLE: Final[tuple[tuple[str, _Kind, str, tuple[str, ...], tuple[float, ...]], ...]] = (
    ("http_requests", Counter, "Requests answered.", ("method", "route", "status"), _NONE),
    ("http_request_seconds", Histogram, "Time to answer.", ("method", "route"), _REQUEST_SECONDS),
    ("http_requests_in_flight", Gauge, "Requests being answered now.", (), _NONE),
    (
        "http_response_seconds",
        Gauge,
        "Time to the start of a response over the last five minutes, by quantile.",
        ("quantile",),
        _NONE,
    ),
    ("idempotent_replays", Counter, "Stored answers replayed.", ("route",), _NONE),
    ("exchange_requests", Counter, "Requests to the exchange.", ("endpoint", "outcome"), _NONE),
    (
        "exchange_request_seconds",
        Histogram,
        "Time of one request to the exchange.",
        ("endpoint",),
        _REQUEST_SECONDS,
    ),
    ("exchange_link_up", Gauge, "1 while the exchange answers, else 0.", (), _NONE),
    (
        "exchange_rejected_records",
        Counter,
        "Records of the exchange that failed validation.",
        ("endpoint", "field"),
        _NONE,
    ),
    ("exchange_clock_offset_seconds", Gauge, "Exchange clock minus local clock.", (), _NONE),
    ("market_data_age_seconds", Gauge, "Age of the oldest value in use.", ("source",), _NONE),
    ("market_symbols", Gauge, "Symbols by state.", ("state",), _NONE),
    ("market_candles_stored", Counter, "Candles written.", ("interval",), _NONE),
    ("leader_epoch", Gauge, "Epoch of the feed lease of this process; NaN without.", (), _NONE),
    ("feed_streaming", Gauge, "1 while the exchange stream delivers updates.", (), _NONE),
    ("feed_connections", Gauge, "Connections of the exchange's stream.", ("phase",), _NONE),
    ("feed_topics", Gauge, "Topics of the exchange's stream.", ("state",), _NONE),
    ("feed_last_message_age_seconds", Gauge, "Time since the last message.", (), _NONE),
    ("feed_messages", Counter, "Messages of the stream accepted.", (), _NONE),
    ("feed_dropped_messages", Counter, "Messages of the stream dropped.", ("reason",), _NONE),
    ("feed_reconnects", Counter, "Connections of the stream that failed.", ("reason",), _NONE),
    (
        "feed_planned_reconnects",
        Counter,
        "Connections replaced before their 24 h limit.",
        (),
        _NONE,
    ),
    ("scoring_runs", Counter, "Scoring runs saved.", (), _NONE),
    ("scoring_scores", Counter, "Scores of symbols saved.", (), _NONE),
    ("scoring_board_age_seconds", Gauge, "Age of the newest complete board.", (), _NONE),
    ("scoring_seconds", Histogram, "Time of one scoring run.", (), _CYCLE_SECONDS),
    ("scoring_symbols", Gauge, "Symbols on the newest board.", ("status",), _NONE),
    ("scoring_features", Counter, "Factor values computed, or reused.", ("result",), _NONE),
    ("portfolio_members", Gauge, "Members of the portfolio.", (), _NONE),
    ("portfolio_version", Gauge, "Version of the portfolio.", (), _NONE),
    ("portfolio_changes", Counter, "Committed changes.", ("action",), _NONE),
    ("portfolio_equity_index", Gauge, "Equity index, 1 at the first member.", (), _NONE),
    ("portfolio_drawdown_ratio", Gauge, "Fall of the index from its highest value.", (), _NONE),
    ("portfolio_max_drawdown_ratio", Gauge, "Largest such fall so far.", (), _NONE),
    ("portfolio_weight_ratio", Gauge, "Weight of a member now.", ("symbol",), _NONE),
    (
        "portfolio_drift_ratio",
        Gauge,
        "Weight of a member minus the target that was set last.",
        ("symbol",),
        _NONE,
    ),
    ("portfolio_score", Gauge, "Score of a member, 0 to 1.", ("symbol",), _NONE),
    ("signals", Counter, "Signals that reached a state.", ("state",), _NONE),
    ("signals_waiting", Gauge, "Signals that wait for their evaluation.", (), _NONE),
    (
        "signal_outcomes",
        Counter,
        "Recorded signal outcomes by comparison with the median.",
        ("result",),
        _NONE,
    ),
    ("signal_outcomes_open", Gauge, "Verdicts without an outcome.", (), _NONE),
    ("alerts_open", Gauge, "Open alerts.", ("severity",), _NONE),
    ("custom_figure", Gauge, "Figures of custom analytics.", ("figure",), _NONE),
    ("decisions", Counter, "Decisions by outcome.", ("kind", "outcome"), _NONE),
    ("decisions_refused", Counter, "Decisions that were refused.", ("code",), _NONE),
    ("rate_limited_requests", Counter, "Requests beyond a rate limit.", ("limit",), _NONE),
    ("stream_clients", Gauge, "Clients of the event stream.", ("transport",), _NONE),
    ("stream_frames", Counter, "Messages sent to clients.", ("transport",), _NONE),
    ("stream_conflated_events", Counter, "Scores replaced by newer ones.", (), _NONE),
    ("stream_evictions", Counter, "Slow connections closed.", ("transport",), _NONE),
    ("notifications", Counter, "Delivery attempts.", ("channel_kind", "outcome"), _NONE),
    (
        "alerting_silence_seconds",
        Gauge,
        "Time since the last alert evaluation and the last delivery, by any process.",
        ("component",),
        _NONE,
    ),
    ("database_slow_statements", Counter, "Statements over the time limit.", (), _NONE),
    ("database_connections_in_use", Gauge, "Connections of the pools in use.", (), _NONE),
    ("database_size_bytes", Gauge, "Size of the database, at most a minute old.", (), _NONE),
    ("disk_free_bytes", Gauge, "Free space of the disk of the service.", (), _NONE),
    ("buffer_fill_ratio", Gauge, "Used part of a buffer.", ("buffer",), _NONE),
    (
        "decision_input_bytes_per_day",
        Gauge,
        "Stored inputs of the decisions of the last 24 hours.",
        ("kind",),
        _NONE,
    ),
    ("jobs_ended", Counter, "Durable runs that ended in this process.", ("kind", "outcome"), _NONE),
    (
        "job_executor_takeovers",
        Counter,
        "Dead processes whose runs this one took over.",
        (),
        _NONE,
    ),
    ("task_restarts", Counter, "Restarts of background tasks.", ("task",), _NONE),
    (
        "task_last_success_timestamp_seconds",
        Gauge,
        "Time of the last success of a background task, as Unix time.",
        ("task",),
        _NONE,
    ),
    ("event_loop_tasks", Gauge, "Unfinished tasks of the event loop.", (), _NONE),
    ("event_loop_stalls", Counter, "Stalls of at least two seconds.", (), _NONE),
    ("event_loop_lag_seconds", Histogram, "Delay of event-loop wake-ups.", (), _LAG_SECONDS),
    ("bus_dropped_events", Gauge, "Events lost by slow subscribers.", (), _NONE),
    ("service_info", Gauge, "Always 1.", ("version", "data_source"), _NONE),
    ("service_mode", Gauge, "1 for the current mode, else 0.", ("mode",), _NONE),
)


def describe_metrics() -> tuple[tuple[str, str, str, str], ...]:
    """Returns name as Prometheus shows it, kind, labels and text of each metric of the service."""
    return tuple(
        (
            f"{_PREFIX}{name}{'_total' if kind is Counter else ''}",
            kind.__name__.lower(),
            ", ".join(labels),
            text,
        )
        for name, kind, text, labels, _ in _TABLE
    )


def total(counter: Counter) -> float:
    """Returns the count over all labels."""
    samples = (sample for metric in counter.collect() for sample in metric.samples)
    return sum(sample.value for sample in samples if sample.name.endswith("_total"))
