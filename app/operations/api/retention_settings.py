"""The settings of retention, as they are read and written over HTTP."""

from pydantic import Field

from app.foundation.http.request_body import Body
from app.foundation.http.schemas import Out


class RetentionOut(Out):
    """Days since the end; history and trades are kept for ever."""

    alerts_days: int = Field(description="Alerts that are resolved.")
    jobs_days: int = Field(description="Jobs that have ended.")
    notifications_days: int = Field(description="Notifications that were delivered.")
    rebalance_runs_days: int = Field(description="Runs of rebalances, with their steps.")
    signals_days: int = Field(description="Signals that were rejected, expired or have failed.")


class RetentionIn(Body):
    alerts_days: int | None = None
    jobs_days: int | None = None
    notifications_days: int | None = None
    rebalance_runs_days: int | None = None
    signals_days: int | None = None
