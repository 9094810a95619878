"""Choices of options: named in `--help` and in the error for another value.

The enumerations of the service load numpy, which a command must not wait for;
tests/cli/test_operations.py compares these with the OpenAPI document.
"""

from enum import StrEnum
from typing import Literal


class NotificationSubject(StrEnum):
    """Kind of notifications that a channel receives; an option that repeats needs a class."""

    ERROR = "error"
    TRADE = "trade"
    STATUS = "status"


AlertRuleName = Literal[
    "not_tradeable", "low_score", "high_correlation", "high_raw_correlation", "poor_performance",
    "contract_delisted", "quarantined", "delisting_announced", "score_dropped", "drawdown",
    "weight_out_of_bounds", "portfolio_below_size", "sector_concentration", "var_above_limit",
    "funding_extreme", "price_anomaly", "replacement_recommended", "large_loss",
    "profitable_exit", "rebalance_done",
    "exchange_banned", "exchange_disconnected", "redirect_refused", "universe_anomaly",
    "schema_drift", "unknown_contract_status", "data_stale", "clock_offset", "job_late",
    "job_failing", "config_drift", "authentication_burst", "recovered",
]  # fmt: skip
AlertSeverity = Literal["info", "warning", "critical"]
AlertStateName = Literal["pending", "open", "acknowledged", "snoozed", "resolved"]
AuditAction = Literal[
    "add", "remove", "replace", "rebalance", "weights", "config", "performance", "lock", "switch",
    "service_started", "key_created", "key_rotated", "key_revoked", "authentication_failed",
    "authentication_burst", "refused", "logged_in", "logged_out", "session_ended", "user_changed",
    "secrets_changed", "channel_changed", "alert_changed", "job_changed", "manual_run",
    "signals_changed", "proposal_declined", "quarantine_released", "sectors_changed",
    "events_deleted",
]  # fmt: skip
ScoreKind = Literal["COMPOSITE", "TECHNICAL", "FUNDAMENTAL", "MARKET_STRUCTURE", "RISK"]
IntervalName = Literal["1m", "5m", "15m", "30m", "1h", "2h", "4h", "8h", "12h", "1d", "1w"]
ChannelKindName = Literal["apprise", "webhook"]
ContractState = Literal[
    "Init", "Open", "BeingSettled", "Settled", "Paused", "Closed", "CancelOnly", "Vanished",
    "Unknown",
]  # fmt: skip
DeliveryStateName = Literal["pending", "delivered", "held", "digested", "dead"]
SignalDirection = Literal["BUY", "SELL", "NEUTRAL"]
EventKind = Literal[
    "ADD", "REMOVE", "REPLACE", "REBALANCE", "WEIGHTS", "CONFIG", "PERFORMANCE", "LOCK", "SWITCH"
]
OrderSideName = Literal["buy", "sell"]
LockKindName = Literal["pin", "ban", "watch"]
ProposalKindName = Literal["rebalance", "replacement", "signal"]
RunStateName = Literal[
    "planned", "running", "done", "unchanged", "observed", "proposed", "failed", "aborted_stale",
    "aborted_killed", "aborted_expired",
]  # fmt: skip
WeightMethod = Literal["score_tilted", "inverse_volatility", "risk_parity", "hrp", "equal", "fixed"]
