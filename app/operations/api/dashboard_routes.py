"""Route of the dashboard, whose document is also sent by the stream."""

from typing import Self

from pydantic import Field

from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import Code
from app.foundation.health import Mode
from app.foundation.http.dependencies import Provided
from app.foundation.http.errors import problems
from app.foundation.http.permissions import requires
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import Money, Out, Score, UtcTime
from app.foundation.principals import Role
from app.operations.services.dashboard import (
    PREDICTION_HOURS,
    RECENT,
    Dashboard,
    DashboardService,
    dashboard_details,
)
from app.operations.services.health_checks import ComponentState
from app.performance.api.schemas import TradeOut
from app.signals.domain.consensus import SignalEvaluation
from app.signals.domain.models import Direction, SignalState

router = api_router("system")


class ComponentStateOut(Out):
    name: str = Field(examples=["exchange"], description="Name of the component.")
    state: ComponentState = Field(description="State of the component.")
    cause: str | None = Field(description="A stable error code.", examples=["exchange_timeout"])


class SystemHealthOut(Out):
    """State of the service; `GET /health` has the details."""

    status: ComponentState = Field(description="Worst state of all components.")
    mode: Mode = Field(description="Mode of the service, which limits decisions.")
    data_source: DataSource
    data_status: DataStatus = Field(description="Freshness of the market data.")
    components: list[ComponentStateOut] = Field(description="Components in a fixed order.")


class RecentPredictionOut(Out):
    """Processed signal with its verdict."""

    signal_id: str
    source_name: str
    signal_type: str
    symbol: str | None
    signal_direction: Direction
    state: SignalState = Field(description="State of the signal.")
    evaluation: SignalEvaluation | None = Field(description="Null without a verdict.")
    consensus_score: Score | None = Field(description="Probability that the signal is right.")
    reason: str | None = Field(description="Of the verdict, or of its absence.")
    completed_at: UtcTime | None = Field(description="UTC time at which it left the queue.")


class DashboardOut(Out):
    """Figures of one moment, the same as in the stream topic `dashboard`."""

    timestamp: UtcTime = Field(description="UTC time of the figures.")
    portfolio_value: Money | None = Field(description="Value of the account; null without one.")
    portfolio_value_reason: str | None = Field(description="Reason for an unknown value.")
    active_positions: int = Field(description="Members with a weight above zero.")
    daily_pnl: Money | None = Field(description="Result since 00:00 UTC; null without an account.")
    daily_pnl_reason: str | None = Field(description="Reason for an unknown result.")
    system_health: SystemHealthOut = Field(description="State of the service.")
    recent_trades: list[TradeOut] = Field(
        max_length=RECENT, description="Booked results, last booked first."
    )
    recent_predictions: list[RecentPredictionOut] = Field(
        max_length=RECENT,
        description=f"Signals processed within {PREDICTION_HOURS} hours, newest first.",
    )

    @classmethod
    def from_dashboard(cls, dashboard: Dashboard) -> Self:
        return cls.model_validate(dashboard_details(dashboard))


@router.get(
    "/dashboard",
    summary="Dashboard",
    responses=problems(Code.DATABASE_UNAVAILABLE),
)
@requires(Role.VIEWER)
async def get_dashboard(dashboards: Provided[DashboardService]) -> DashboardOut:
    """Health, members, recent trades and recent verdicts in one document.

    `portfolio_value` and `daily_pnl` are null with a reason until an account is connected. The
    stream topic `dashboard` sends the same document when it changes, at most once a second.
    """
    return DashboardOut.from_dashboard(await dashboards.read())
