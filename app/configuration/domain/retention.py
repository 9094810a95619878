"""Settings of how long is kept what nothing rests on any more, once it has ended."""

from dataclasses import dataclass

from app.configuration.domain.fields import setting


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """Days since the end. History, its proofs and booked trades are kept for ever.

    A rebalance that set weights is an event of the history; its run tells how it came to that.
    """

    # The longest cooldown of a rule is counted from the end of its last alert: a week.
    alerts_days: int = setting(90, 8, 3_650)
    jobs_days: int = setting(14, 1, 365)
    notifications_days: int = setting(30, 1, 365)  # delivered ones; dead ones stay
    rebalance_runs_days: int = setting(365, 8, 3_650)
    signals_days: int = setting(30, 1, 3_650)  # rejected, expired and failed ones
