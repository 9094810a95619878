"""Derives the health of each component from its facts."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from app.alerts.services.monitor import AlertingHeartbeat
from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import Code
from app.foundation.health import Mode, PoolFacts, ProcessFacts, TaskFacts
from app.market.domain.models import ExchangeLink, LinkState
from app.market.services.health_facts import MarketFacts, ReferenceReport, StreamReport
from app.operations.services.process_metrics import ProcessMetrics, ServiceLevel
from app.signals.domain.track_record import SignalQueue


class ComponentState(StrEnum):
    """State of one component."""

    UP = "up"
    STARTING = "starting"
    DEGRADED = "degraded"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class ComponentHealth:
    """Component with its state, the start and cause of the state, and the next step."""

    name: str
    state: ComponentState
    since: datetime | None
    cause: str | None
    detail: str | None
    last_success_at: datetime | None
    next_step: str | None


@dataclass(frozen=True, slots=True)
class Health:
    """Health of the service and its components."""

    status: ComponentState
    mode: Mode
    components: tuple[ComponentHealth, ...]
    levels: tuple[ServiceLevel, ...]
    process: ProcessMetrics
    data_source: DataSource
    data_status: DataStatus
    as_of: datetime | None


@dataclass(frozen=True, slots=True)
class ScoringFacts:
    """Figures of the newest board."""

    run_id: str
    as_of: datetime
    calculated_at: datetime
    scored: int
    unavailable: int
    data_status: DataStatus


@dataclass(frozen=True, slots=True)
class PortfolioStatus:
    """Figures of the committed portfolio."""

    version: int
    size: int
    max_size: int
    cash_u: int


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """Figures of the whole service."""

    started_at: datetime
    version: str
    mode: Mode
    market: MarketFacts
    stream: StreamReport | None
    scoring: ScoringFacts | None
    portfolio: PortfolioStatus
    signals: SignalQueue | None  # None while the service starts
    tasks: tuple[TaskFacts, ...]
    processes: tuple[ProcessFacts, ...]
    pool: PoolFacts | None = None  # None while the service starts


_NO_SYMBOL_SCORED: Final = "no_symbol_scored"
STREAM_AWAY: Final = "stream_away"
TOPICS_SILENT: Final = "topics_silent"
_MIN_ACTIVE_SHARE: Final = 0.9  # of the topics of a healthy stream
TASK_SILENT: Final = "task_silent"
TASK_FAILED: Final = "task_failed"
CERTIFICATE_UNUSABLE: Final = "certificate_unusable"
EVENTS_TRIMMED: Final = "security_events_trimmed"
TRIM_SHOWN: Final = timedelta(days=7)
ALERTING_SILENT: Final = "alerting_silent"


def exchange(link: ExchangeLink) -> ComponentHealth:
    """Health of the REST link to the exchange."""
    retry = None if link.retry_in_s is None else f"retries in {link.retry_in_s:.0f} s"
    return ComponentHealth(
        "exchange",
        _LINK_STATES[link.state],
        link.since,
        link.cause,
        link.detail,
        link.last_success_at,
        retry if link.state is LinkState.DOWN else None,
    )


def market_data(market: MarketFacts) -> ComponentHealth:
    """Health of the market data."""
    filling = market.stage != "complete"
    state = ComponentState.STARTING if filling else _DATA_STATES[market.data_status]
    detail = (
        f"first fill: {market.stage} {market.done}/{market.total}"
        if filling
        else f"{market.stale_symbols} of {market.contracts} symbols stale"
    )
    cause = None
    if state is ComponentState.UP and not market.is_clock_safe:
        state, cause = ComponentState.DEGRADED, str(Code.CLOCK_UNSAFE)
    next_step = {
        ComponentState.STARTING: "decides once the market data is complete",
        ComponentState.DEGRADED: "polls again at the next interval; stale symbols decide nothing",
        ComponentState.DOWN: "polls again at the next interval; no decisions until then",
    }.get(state)
    return ComponentHealth("market_data", state, None, cause, detail, market.as_of, next_step)


def stream(report: StreamReport | None) -> tuple[ComponentHealth, ...]:
    """Health of the market stream, only in the process that owns it."""
    if report is None or not report.is_owner:
        return ()
    facts = report.facts
    message = "no message yet"
    if facts.seconds_since_last_message is not None:
        message = f"last message {facts.seconds_since_last_message:.0f} s ago"
    connections = f"{len(facts.connections)} connections"
    detail = f"{facts.active_topics} of {facts.topics} topics live on {connections}, {message}"
    cause = next_step = None
    state = ComponentState.UP
    if not report.is_streaming:
        state = ComponentState.DEGRADED if report.was_streaming else ComponentState.STARTING
        cause = STREAM_AWAY if report.was_streaming else None
        next_step = "polls the market instead; reconnects automatically"
    elif facts.active_topics < _MIN_ACTIVE_SHARE * facts.topics:
        state, cause = ComponentState.DEGRADED, TOPICS_SILENT
        next_step = "subscribes again automatically; silent symbols become stale"
    return (ComponentHealth("stream", state, None, cause, detail, None, next_step),)


def reference(report: ReferenceReport | None) -> tuple[ComponentHealth, ...]:
    """Health of the reference prices, only in the process that polls them."""
    if report is None or not report.is_owner:
        return ()
    polled = f"polled every {report.poll_interval_s:g} s"
    how = f"streamed and {polled}" if report.is_streaming else f"{polled}; no stream now"
    state, next_step = ComponentState.UP, None
    if not report.is_streaming and report.failed is not None:
        state = ComponentState.DEGRADED
        next_step = "polls again automatically; prices without an index stay unconfirmed until then"
    elif not report.is_streaming and not report.has_answered:
        state, next_step = ComponentState.STARTING, "first poll"
    cause = report.failed if state is ComponentState.DEGRADED else None
    detail = f"{report.name} is {how}"
    return (ComponentHealth("reference", state, None, cause, detail, None, next_step),)


def scoring(board: ScoringFacts | None) -> ComponentHealth:
    """Health of the scoring."""
    if board is None:
        return ComponentHealth(
            "scoring", ComponentState.STARTING, None, "no_board_yet", None, None,
            "scores as soon as market data has arrived",
        )  # fmt: skip
    cause = None
    if board.data_status is not DataStatus.FRESH:
        cause = str(Code.MARKET_DATA_STALE)
    elif not board.scored:
        cause = _NO_SYMBOL_SCORED
    return ComponentHealth(
        "scoring",
        ComponentState.UP if cause is None else ComponentState.DEGRADED,
        None,
        cause,
        f"run {board.run_id}",
        board.calculated_at,
        None if cause is None else "scores again automatically",
    )


def certificate(fault: str | None) -> ComponentHealth:
    """Health of the TLS certificate; `fault` says why its newest files are not in use."""
    is_broken = fault is not None
    return ComponentHealth(
        "certificate",
        ComponentState.DEGRADED if is_broken else ComponentState.UP,
        None,
        CERTIFICATE_UNUSABLE if is_broken else None,
        fault,
        None,
        "serves the former certificate; write a usable pair of files" if is_broken else None,
    )


def security_events(trimmed_at: datetime | None, now: datetime) -> ComponentHealth:
    """Health of the security events: degraded for TRIM_SHOWN after a deletion by number."""
    if trimmed_at is None or now - trimmed_at >= TRIM_SHOWN:
        return ComponentHealth("security_events", ComponentState.UP, *[None] * 5)
    return ComponentHealth(
        "security_events",
        ComponentState.DEGRADED,
        None,
        EVENTS_TRIMMED,
        f"events younger than their retention were deleted for their number at {trimmed_at:%F %T}"
        " UTC",
        None,
        "find the cause with `my-symbols audit list`; a shorter retention, if meant, ends it",
    )


def background_task(task: TaskFacts) -> ComponentHealth:
    """Health of one supervised task."""
    state = ComponentState.DEGRADED if task.last_error else ComponentState.UP
    cause, detail = task.last_error, None
    next_step = "restarts automatically" if task.last_error else None
    if task.is_silent and task.limit_s is not None:
        left = task.limit_s - task.silent_s
        state, cause = ComponentState.DEGRADED, task.last_error or TASK_SILENT
        detail = f"no heartbeat for {task.silent_s:.0f} s"
        next_step = f"is restarted in {left:.0f} s"
        if left < 0:
            state = ComponentState.DOWN
            next_step = "is cancelled; if it does not end, restart the process"
    if task.failed_until is not None:
        state, cause = ComponentState.DOWN, TASK_FAILED
        detail = f"{task.last_error or 'ran again'}, after {task.crashes} crashes"
        next_step = (
            f"restarts at {task.failed_until:%H:%M:%S} UTC; the log has its traceback, "
            "and a fixed version is needed"
        )
    return ComponentHealth(
        f"task:{task.name}",
        state if task.running else ComponentState.DOWN,
        None,
        cause,
        detail,
        task.last_success_at,
        next_step,
    )


def alerting(pulse: AlertingHeartbeat, started_at: datetime) -> ComponentHealth:
    """Health of alerting: evaluations and deliveries of any process."""
    seen = pulse.seen()
    late = [part for part, limit_s in pulse.limits_s().items() if pulse.age_s(part) > limit_s]
    unseen = [part for part in pulse.limits_s() if part not in seen]
    state = ComponentState.UP
    if unseen:
        state = ComponentState.STARTING
    if late:
        state = ComponentState.DOWN
    ages = ", ".join(
        f"{part.value} {pulse.age_s(part):.0f} s ago" if part in seen
        else f"no {part.value} seen"
        for part in pulse.limits_s()
    )  # fmt: skip
    return ComponentHealth(
        "alerting",
        state,
        min((seen.get(part, started_at) for part in late), default=None),
        ALERTING_SILENT if late else None,
        ages,
        min(seen.values(), default=None),
        "its tasks restart by themselves; no notifications until then" if late else None,
    )


_LINK_STATES = {
    LinkState.UNTRIED: ComponentState.STARTING,
    LinkState.UP: ComponentState.UP,
    LinkState.DOWN: ComponentState.DOWN,
}
_DATA_STATES = {
    DataStatus.FRESH: ComponentState.UP,
    DataStatus.STALE: ComponentState.DEGRADED,
    DataStatus.UNAVAILABLE: ComponentState.DOWN,
}
_SEVERITY = (
    ComponentState.UP,
    ComponentState.STARTING,
    ComponentState.DEGRADED,
    ComponentState.DOWN,
)


def worst(components: tuple[ComponentHealth, ...]) -> ComponentState:
    return max((component.state for component in components), key=_SEVERITY.index)
