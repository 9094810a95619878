"""How each component is judged by what it says of itself."""

from datetime import datetime
from typing import Final

from app.alerts.services.monitor import AlertingHeartbeat
from app.foundation.data_status import DataStatus
from app.foundation.errors import Code
from app.foundation.health_facts import TaskFacts
from app.market.domain.models import ExchangeLink, LinkState
from app.market.services.health_facts import MarketFacts, ReferenceReport, StreamReport
from app.operations.services.health_models import ComponentHealth, ComponentState, ScoringFacts

_NOBODY_SCORED: Final = "nobody_scored"
STREAM_AWAY: Final = "stream_away"
TOPICS_SILENT: Final = "topics_silent"
_MOST: Final = 0.9  # of the topics are live while it is well
TASK_SILENT: Final = "task_silent"
TASK_FAILED: Final = "task_failed"
ALERTING_SILENT: Final = "alerting_silent"


def exchange(link: ExchangeLink) -> ComponentHealth:
    again = None if link.retry_in_s is None else f"tries again in {link.retry_in_s:.0f} s"
    return ComponentHealth(
        "exchange",
        _LINK_STATES[link.state],
        link.since,
        link.cause,
        link.detail,
        link.last_success_at,
        again if link.state is LinkState.DOWN else None,
    )


def market_data(market: MarketFacts) -> ComponentHealth:
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
        ComponentState.STARTING: "decides as soon as the market is there",
        ComponentState.DEGRADED: "asks again with the next tick; stale symbols decide nothing",
        ComponentState.DOWN: "asks again with the next tick; nothing is decided until then",
    }.get(state)
    return ComponentHealth("market_data", state, None, cause, detail, market.as_of, next_step)


def stream(report: StreamReport | None) -> tuple[ComponentHealth, ...]:
    """Of the process that hears it; of no other."""
    if report is None or not report.is_owner:
        return ()
    facts = report.facts
    heard = "nothing heard yet"
    if facts.seconds_since_last_message is not None:
        heard = f"last message {facts.seconds_since_last_message:.0f} s ago"
    lines = f"{len(facts.lines)} connections"
    detail = f"{facts.active_topics} of {facts.topics} topics live on {lines}, {heard}"
    cause = next_step = None
    state = ComponentState.UP
    if not report.is_streaming:
        state = ComponentState.DEGRADED if report.was_streaming else ComponentState.STARTING
        cause = STREAM_AWAY if report.was_streaming else None
        next_step = "asks for the market instead; connects again by itself"
    elif facts.active_topics < _MOST * facts.topics:
        state, cause = ComponentState.DEGRADED, TOPICS_SILENT
        next_step = "subscribes again by itself; what is not heard turns stale"
    return (ComponentHealth("stream", state, None, cause, detail, None, next_step),)


def reference(report: ReferenceReport | None) -> tuple[ComponentHealth, ...]:
    """Of the process that asks another exchange; of no other."""
    if report is None or not report.is_owner:
        return ()
    asked = f"asked every {report.every_s:g} s"
    how = f"told, and {asked}" if report.is_told else f"{asked}; it tells nothing by itself now"
    state, next_step = ComponentState.UP, None
    if not report.is_told and report.failed is not None:
        state = ComponentState.DEGRADED
        next_step = "asks again by itself; prices without an index are not confirmed until then"
    elif not report.is_told and not report.has_answered:
        state, next_step = ComponentState.STARTING, "asks for the first time"
    cause = report.failed if state is ComponentState.DEGRADED else None
    detail = f"{report.name} is {how}"
    return (ComponentHealth("reference", state, None, cause, detail, None, next_step),)


def scoring(board: ScoringFacts | None) -> ComponentHealth:
    if board is None:
        return ComponentHealth(
            "scoring", ComponentState.STARTING, None, "no_board_yet", None, None,
            "scores as soon as market data has arrived",
        )  # fmt: skip
    cause = None
    if board.data_status is not DataStatus.FRESH:
        cause = str(Code.MARKET_DATA_STALE)
    elif not board.scored:
        cause = _NOBODY_SCORED
    return ComponentHealth(
        "scoring",
        ComponentState.UP if cause is None else ComponentState.DEGRADED,
        None,
        cause,
        f"run {board.run_id}",
        board.calculated_at,
        None if cause is None else "scores again by itself",
    )


def background_task(task: TaskFacts) -> ComponentHealth:
    state = ComponentState.DEGRADED if task.last_error else ComponentState.UP
    cause, detail = task.last_error, None
    next_step = "restarts by itself" if task.last_error else None
    if task.is_silent and task.limit_s is not None:
        left = task.limit_s - task.silent_s
        state, cause = ComponentState.DEGRADED, task.last_error or TASK_SILENT
        detail = f"no sign of life for {task.silent_s:.0f} s"
        next_step = f"is ended and begins again in {left:.0f} s"
        if left < 0:
            state = ComponentState.DOWN
            next_step = "is told to end; where it does not, restart the process"
    if task.failed_until is not None:
        state, cause = ComponentState.DOWN, TASK_FAILED
        detail = f"{task.last_error or 'ran again'}, after {task.crashes} crashes"
        next_step = (
            f"begins again at {task.failed_until:%H:%M:%S} UTC; the log has its traceback, "
            "and a new version has to put it right"
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


def alerting(pulse: AlertingHeartbeat, started_at: datetime, now: datetime) -> ComponentHealth:
    """Whether alerts are looked at and notices handed on, by whichever process."""
    seen = pulse.seen()
    late = [part for part, limit_s in pulse.limits_s().items() if pulse.age_s(part) > limit_s]
    unseen = [part for part in pulse.limits_s() if part not in seen]
    state = ComponentState.UP
    if unseen:
        state = ComponentState.STARTING
    if late:
        state = ComponentState.DOWN
    ages = ", ".join(
        f"{part.value} {(now - seen[part]).total_seconds():.0f} s ago" if part in seen
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
        "its tasks begin again by themselves; until then nobody is told anything" if late else None,
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
