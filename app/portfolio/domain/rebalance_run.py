"""Rebalance run: states and transitions, steps and outcome."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from app.foundation.errors import Code
from app.portfolio.domain.rebalance_plan import Trigger, WeightChange

LEASE: Final = timedelta(seconds=30)  # silence after which another run may take over


class RunState(StrEnum):
    PLANNED = "planned"  # it has claimed the portfolio, nothing is written yet
    RUNNING = "running"
    DONE = "done"  # weights were set
    UNCHANGED = "unchanged"  # no trigger fired
    OBSERVED = "observed"  # the plan was only recorded
    PROPOSED = "proposed"  # the plan waits for an approval
    FAILED = "failed"
    ABORTED_STALE = "aborted_stale"  # data was too old to decide on
    ABORTED_KILLED = "aborted_killed"  # trading was switched off
    ABORTED_EXPIRED = "aborted_expired"  # its process died


_ENDS_WITHOUT: Final = frozenset(
    {
        RunState.FAILED,
        RunState.ABORTED_STALE,
        RunState.ABORTED_KILLED,
        RunState.ABORTED_EXPIRED,
    }
)
_ENDS_WITH: Final = frozenset(
    {RunState.DONE, RunState.UNCHANGED, RunState.OBSERVED, RunState.PROPOSED}
)
# Allowed transitions; a state that is not named is final.
NEXT: Final[Mapping[RunState, frozenset[RunState]]] = MappingProxyType(
    {
        RunState.PLANNED: _ENDS_WITHOUT | {RunState.RUNNING},
        RunState.RUNNING: _ENDS_WITHOUT | _ENDS_WITH,
    }
)
ACTIVE: Final = frozenset(NEXT)


class RebalanceStepName(StrEnum):
    """The steps of a run, in their order."""

    LOAD = "load"  # portfolio, board and market, and their freshness
    PLAN = "plan"
    COMMIT = "commit"  # weights, version and history in one transaction
    ANNOUNCE = "announce"  # messages written in that transaction


class RebalanceStepState(StrEnum):
    DONE = "done"
    SKIPPED = "skipped"  # there was nothing to do
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RebalanceStep:
    name: RebalanceStepName
    state: RebalanceStepState
    started_at: datetime
    finished_at: datetime
    detail: Mapping[str, Any]  # JSON-able


@dataclass(frozen=True, slots=True)
class RunFailure:
    """Reason that a run ended without effect; `code` is a problem code or "interrupted"."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class RebalanceOutcome:
    """Outcome of a run; `details` holds the rest of the response, JSON-able."""

    version_before: int
    version_after: int
    triggers: tuple[Trigger, ...]
    changes: tuple[WeightChange, ...]
    turnover_u: int
    cost: float | None  # fraction of equity
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RebalanceRun:
    """One run and its current state."""

    run_id: str
    state: RunState
    reason: str
    method: str | None  # None: the configured one
    scheduled_at: datetime | None  # its tick of the schedule
    actor: str
    request_id: str
    key: str | None  # the caller's Idempotency-Key
    owner: str  # the process that carries it out
    requested_at: datetime
    lease_until: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    outcome: RebalanceOutcome | None = None
    failure: RunFailure | None = None

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE

    def has_lapsed(self, now: datetime) -> bool:
        """True if the run is active and its lease has expired."""
        return self.is_active and self.lease_until <= now

    def to(self, state: RunState, at: datetime) -> "RebalanceRun":
        """Move the run to `state`; raises ValueError for a transition that is not allowed."""
        if state not in NEXT.get(self.state, frozenset()):
            raise ValueError(f"a run that is {self.state} cannot become {state}")
        if state in ACTIVE:
            return replace(self, state=state, started_at=at, lease_until=at + LEASE)
        return replace(self, state=state, finished_at=at)

    def ended(self, outcome: RebalanceOutcome, state: RunState, at: datetime) -> "RebalanceRun":
        return replace(self.to(state, at), outcome=outcome)

    def failed(self, failure: RunFailure, at: datetime) -> "RebalanceRun":
        return replace(self.to(state_of(failure.code), at), failure=failure)

    def expired(self, at: datetime) -> "RebalanceRun":
        """The run closed as expired: its transaction was never committed."""
        failure = RunFailure(INTERRUPTED, "Its process ended before it did; nothing was changed.")
        return replace(self.to(RunState.ABORTED_EXPIRED, at), failure=failure)


INTERRUPTED: Final = "interrupted"
_ABORTED: Final = {
    Code.MARKET_DATA_STALE.value: RunState.ABORTED_STALE,
    Code.NO_BOARD_YET.value: RunState.ABORTED_STALE,
    Code.CLOCK_UNSAFE.value: RunState.ABORTED_STALE,
    Code.TRADING_DISABLED.value: RunState.ABORTED_KILLED,
}


def state_of(code: str) -> RunState:
    """Final state of a run that was refused with `code`."""
    return _ABORTED.get(code, RunState.FAILED)


def workflow_id(portfolio: str, scheduled_at: datetime) -> str:
    """One name per tick: "rebalance:main:2026-03-01T12:00:00Z"."""
    moment = scheduled_at.astimezone(UTC)
    text = moment.isoformat(timespec="microseconds" if moment.microsecond else "seconds")
    return f"rebalance:{portfolio}:{text.removesuffix('+00:00')}Z"


def slot(now: datetime, every_s: int) -> datetime:
    """Latest multiple of `every_s` seconds up to `now`."""
    seconds = int(now.timestamp()) // every_s * every_s
    return datetime.fromtimestamp(seconds, UTC)
