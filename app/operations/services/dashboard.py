"""Dashboard: health, members, recent trades and recent verdicts in one document."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from app.foundation.ports import Clock
from app.foundation.sql.database import CommitMark, Database
from app.operations.services.event_messages import Details, exact_text, instant_text, rounded
from app.operations.services.health_checks import Health
from app.portfolio.domain.returns import Trade
from app.portfolio.services.state_cache import PortfolioState
from app.signals.domain.evaluated_signal import EvaluatedSignal

RECENT: Final = 10  # trades, and predictions
PREDICTION_HOURS: Final = 24
NO_ACCOUNT: Final = "no account is connected"


@dataclass(frozen=True, slots=True)
class RecentActivity:
    """Stored part of the dashboard."""

    active_positions: int  # members with a weight above zero
    trades: tuple[Trade, ...]  # last booked first
    signals: tuple[EvaluatedSignal, ...]  # last processed first


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Dashboard of one moment; money needs an account, and there is none yet."""

    at: datetime
    health: Health
    activity: RecentActivity


@dataclass(slots=True)
class DashboardService:
    """Reads the dashboard; the database is read again only after a commit."""

    database: Database
    clock: Clock
    health: Callable[[], Awaitable[Health]]
    portfolio: Callable[[], Awaitable[PortfolioState]]
    trades: Callable[[int], Awaitable[tuple[Trade, ...]]]
    signals: Callable[[int], Awaitable[tuple[EvaluatedSignal, ...]]]
    _activity: RecentActivity | None = field(default=None, init=False)
    _mark: CommitMark = field(default_factory=CommitMark, init=False)

    async def read(self) -> Dashboard:
        """Returns the current dashboard. Raises UnavailableError without the database."""
        activity = self._activity
        if activity is None or not self._mark.is_newest(self.database):
            commits = self.database.commits
            members = (await self.portfolio()).portfolio.members
            activity = RecentActivity(
                active_positions=sum(member.weight_u > 0 for member in members),
                trades=await self.trades(RECENT),
                signals=await self.signals(RECENT),
            )
            self._activity = activity
            self._mark.move(commits)
        return Dashboard(self.clock(), await self.health(), activity)


def dashboard_details(dashboard: Dashboard) -> Details:
    """Returns the JSON document of a dashboard, the same for the stream and for GET."""
    health, activity = dashboard.health, dashboard.activity
    return {
        "timestamp": instant_text(dashboard.at),
        "portfolio_value": None,
        "portfolio_value_reason": NO_ACCOUNT,
        "active_positions": activity.active_positions,
        "daily_pnl": None,
        "daily_pnl_reason": NO_ACCOUNT,
        "system_health": {
            "status": health.status.value,
            "mode": health.mode.value,
            "data_source": health.data_source.value,
            "data_status": health.data_status.value,
            "components": [
                {"name": one.name, "state": one.state.value, "cause": one.cause}
                for one in health.components
            ],
        },
        "recent_trades": [_trade(one) for one in activity.trades],
        "recent_predictions": [_prediction(one) for one in activity.signals],
    }


def _trade(trade: Trade) -> Details:
    booked = trade.result
    return {
        "trade_id": booked.trade_id,
        "symbol": booked.symbol,
        "contract": booked.contract,
        "currency": booked.currency,
        "pnl": exact_text(booked.pnl),
        "fees": exact_text(booked.fees),
        "funding": exact_text(booked.funding),
        "net": exact_text(booked.net),
        "occurred_at": instant_text(booked.occurred_at),
        "booked_at": instant_text(trade.booked_at),
        "event_sequence": trade.event_seq,
    }


def _prediction(evaluated: EvaluatedSignal) -> Details:
    signal, verdict = evaluated.signal, evaluated.verdict
    evaluation = None if verdict is None else verdict.evaluation
    completed_at = signal.completed_at
    return {
        "signal_id": signal.signal_id,
        "source_name": signal.claim.source,
        "signal_type": signal.claim.type,
        "symbol": signal.claim.symbol,
        "signal_direction": signal.claim.direction.value,
        "state": signal.state.value,
        "evaluation": None if evaluation is None else evaluation.value,
        "consensus_score": None if verdict is None else rounded(verdict.score),
        "reason": signal.reason if verdict is None else verdict.reason,
        "completed_at": None if completed_at is None else instant_text(completed_at),
    }
