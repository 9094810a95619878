"""All tables by name; a test compares them with the migrations."""

from typing import Final

from app.alerts.storage.tables import alerts, notification_channels, notifications
from app.configuration.storage.configuration import configuration_versions
from app.foundation.sql.schema import make_append_only, metadata
from app.foundation.sql.tables import (
    STREAM_ID,
    decision_inputs,
    event_head,
    events,
    idempotency_keys,
    job_executors,
    leases,
    service_facts,
    shared_markets,
    sync_requests,
)
from app.market.storage.candles import candle_revisions
from app.market.storage.quality import quality_verdicts
from app.market.storage.tables import (
    candles,
    contract_specs,
    contracts,
    funding_rates,
    market_snapshots,
    sectors,
)
from app.performance.storage.snapshots import performance_marks
from app.portfolio.storage.tables import (
    PORTFOLIO_ID,
    booked_totals,
    portfolio,
    portfolio_history,
    portfolio_members,
    proposals,
    rebalance_run_steps,
    rebalance_runs,
    replacement_confirmations,
    trades,
    vacancies,
)
from app.research.storage.trials import trials
from app.scoring.storage.factor_evidence import factor_evidence
from app.scoring.storage.tables import (
    scoring_algorithms,
    scoring_moments,
    scoring_run_coverage,
    scoring_run_details,
    scoring_run_moments,
    scoring_runs,
    symbol_scores,
)
from app.security.storage.tables import (
    api_keys,
    rate_limit_windows,
    security_anchors,
    security_events,
    sessions,
    stream_tickets,
    users,
)
from app.signals.storage.tables import (
    signal_effects,
    signal_outcomes,
    signal_records,
    signal_votes,
    signals,
)

APPEND_ONLY: Final = (
    portfolio_history, configuration_versions, trades, security_anchors, security_events, trials,
)  # fmt: skip
for _table in APPEND_ONLY:
    make_append_only(_table, security_anchors if _table is security_events else None)

__all__ = [
    "APPEND_ONLY",
    "PORTFOLIO_ID",
    "STREAM_ID",
    "alerts",
    "api_keys",
    "booked_totals",
    "candle_revisions",
    "candles",
    "configuration_versions",
    "contract_specs",
    "contracts",
    "decision_inputs",
    "event_head",
    "events",
    "factor_evidence",
    "funding_rates",
    "idempotency_keys",
    "job_executors",
    "leases",
    "market_snapshots",
    "metadata",
    "notification_channels",
    "notifications",
    "performance_marks",
    "portfolio",
    "portfolio_history",
    "portfolio_members",
    "proposals",
    "quality_verdicts",
    "rate_limit_windows",
    "rebalance_run_steps",
    "rebalance_runs",
    "replacement_confirmations",
    "scoring_algorithms",
    "scoring_moments",
    "scoring_run_coverage",
    "scoring_run_details",
    "scoring_run_moments",
    "scoring_runs",
    "sectors",
    "security_anchors",
    "security_events",
    "service_facts",
    "sessions",
    "shared_markets",
    "signal_effects",
    "signal_outcomes",
    "signal_records",
    "signal_votes",
    "signals",
    "stream_tickets",
    "symbol_scores",
    "sync_requests",
    "trades",
    "trials",
    "users",
    "vacancies",
]
