"""Reads the value of every gauge at each scrape."""

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from prometheus_client import Gauge

from app.alerts.services.service import AlertFilter, AlertService
from app.configuration.domain.sections import Severity
from app.foundation.decision_log import DecisionKind
from app.foundation.errors import ServiceError
from app.foundation.metrics import Metrics
from app.market.services.exchange_clock import ServerClock
from app.market.services.stream_consumer import set_stream_gauges
from app.operations.services.health import StatusService
from app.operations.services.service_figures import CachedFigure
from app.portfolio.domain.models import FULL


@dataclass(frozen=True, slots=True)
class GaugeReader:
    """Sets the gauges from the same sources as the API; an unavailable source gives NaN.

    `levels` sets the gauges of the process itself. `custom_figures` are those of plug-ins,
    `decision_bytes` the stored inputs of decisions of a day by kind; both are cached.
    """

    metrics: Metrics
    status: StatusService
    alerts: AlertService
    server_clock: ServerClock
    levels: Callable[[], None]
    custom_figures: CachedFigure[Mapping[str, float | None]]
    custom_names: tuple[str, ...]
    decision_bytes: CachedFigure[dict[str, int]]

    async def read(self) -> None:
        """Sets all gauges."""
        metrics = self.metrics
        self.levels()
        offset_s = self.server_clock.offset_s() if self.server_clock.synced else math.nan
        metrics.exchange_clock_offset_seconds.set(offset_s)
        stream = self.status.stream_report()
        if stream is not None:
            set_stream_gauges(metrics, stream.facts, is_streaming=stream.is_streaming)
        await self._market()
        board = self.status.scoring_facts()
        metrics.scoring_symbols.labels("scored").set(0 if board is None else board.scored)
        metrics.scoring_symbols.labels("unavailable").set(0 if board is None else board.unavailable)
        members, version = metrics.portfolio_members, metrics.portfolio_version
        await _or_unknown(self._portfolio, members, version)
        waiting, undecided = metrics.signals_waiting, metrics.signal_outcomes_open
        await _or_unknown(self._signals, waiting, undecided)
        await self._figures()
        severities = [metrics.alerts_open.labels(one.value) for one in Severity]
        await _or_unknown(self._alerts, *severities)
        await _or_unknown(self._custom, *map(metrics.custom_figure.labels, self.custom_names))
        kinds = (metrics.decision_input_bytes_per_day.labels(one.value) for one in DecisionKind)
        await _or_unknown(self._decisions, *kinds)

    async def _decisions(self) -> None:
        for kind, size in (await self.decision_bytes.get()).items():
            self.metrics.decision_input_bytes_per_day.labels(kind).set(size)

    async def _custom(self) -> None:
        for name, value in (await self.custom_figures.get()).items():
            self.metrics.custom_figure.labels(name).set(_known(value))

    async def _figures(self) -> None:
        metrics, process = self.metrics, self.status.process.read()
        for quantile, seconds in (
            ("0.5", process.response_time.p50_s),
            ("0.99", process.response_time.p99_s),
        ):
            metrics.http_response_seconds.labels(quantile).set(_known(seconds))
        for buffer in process.buffers:
            metrics.buffer_fill_ratio.labels(buffer.name).set(buffer.fill)
        metrics.disk_free_bytes.set(_known(process.disk_free_bytes))
        figures = await self.status.figures()
        size, board_age_s = (
            (None, None) if figures is None else (figures.database_bytes, figures.board_age_s)
        )
        equity = None if figures is None else figures.equity
        metrics.database_size_bytes.set(_known(size))
        metrics.scoring_board_age_seconds.set(_known(board_age_s))
        index, drawdown, largest = (
            (None, None, None)
            if equity is None
            else (equity.index, equity.drawdown, equity.max_drawdown)
        )
        metrics.portfolio_equity_index.set(_known(index))
        metrics.portfolio_drawdown_ratio.set(_known(drawdown))
        metrics.portfolio_max_drawdown_ratio.set(_known(largest))
        by_member = metrics.portfolio_weight_ratio, metrics.portfolio_drift_ratio
        for gauge in (*by_member, metrics.portfolio_score):
            gauge.clear()  # no series of former members: labels stay as many as members
        for member in () if figures is None else figures.members:
            metrics.portfolio_weight_ratio.labels(member.symbol).set(member.weight_u / FULL)
            metrics.portfolio_drift_ratio.labels(member.symbol).set(member.drift_u / FULL)
            metrics.portfolio_score.labels(member.symbol).set(_known(member.score))

    async def _market(self) -> None:
        await self.status.count_market()
        market = self.status.market_facts()
        for source, age_s in market.ages_s.items():
            known = math.nan if age_s is None else age_s
            self.metrics.market_data_age_seconds.labels(source).set(known)
        counts = {
            "known": market.contracts,
            "eligible": market.eligible,
            "stale": market.stale_symbols,
        }
        for state, number in counts.items():
            self.metrics.market_symbols.labels(state).set(number)

    async def _portfolio(self) -> None:
        facts = await self.status.portfolio_facts()
        self.metrics.portfolio_members.set(facts.size)
        self.metrics.portfolio_version.set(facts.version)

    async def _signals(self) -> None:
        if self.status.signal_queue is not None:
            queue = await self.status.signal_queue()
            self.metrics.signals_waiting.set(queue.waiting)
            self.metrics.signal_outcomes_open.set(queue.open_outcomes)

    async def _alerts(self) -> None:
        alerts, _ = await self.alerts.list(AlertFilter())
        counts = Counter(alert.severity for alert in alerts)
        for severity in Severity:
            self.metrics.alerts_open.labels(severity.value).set(counts[severity])


def _known(value: float | Decimal | None) -> float:
    """The value as a number; NaN for an unknown one."""
    return math.nan if value is None else float(value)


async def _or_unknown(read: Callable[[], Awaitable[None]], *gauges: Gauge) -> None:
    """Runs `read`; sets its gauges to NaN if it fails."""
    try:
        await read()
    except ServiceError:
        for gauge in gauges:
            gauge.set(math.nan)
