"""What a driver says when it fails, in the language of the domain."""

import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

import asyncpg
from sqlalchemy import ForeignKeyConstraint, Table, UniqueConstraint
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.foundation.errors import (
    Code,
    ConflictError,
    CorruptDatabaseError,
    OperatorActionError,
    RefusedError,
    ServiceError,
    UnavailableError,
)
from app.foundation.sql.metadata import metadata


@dataclass(frozen=True, slots=True)
class Rule:
    """What a caller is told when a constraint of this name is broken."""

    kind: type[ServiceError]
    code: Code
    detail: str

    def error(self) -> ServiceError:
        return self.kind(self.code, self.detail)


_RACE: Final = Rule(ConflictError, Code.VERSION_CONFLICT, "another change came first; read again")
_MEMBER: Final = Rule(
    ConflictError, Code.SYMBOL_ALREADY_IN_PORTFOLIO, "the symbol is a member already"
)
_AMBIGUOUS: Final = Rule(
    RefusedError, Code.SYMBOL_AMBIGUOUS, "two contracts would have one code or one name"
)
_WEIGHTS: Final = Rule(
    RefusedError, Code.CONSTRAINTS_INFEASIBLE, "weights and cash must lie between 0 and 100 %"
)
_RUNNING: Final = Rule(
    ConflictError, Code.REBALANCE_IN_PROGRESS, "a rebalance is being carried out"
)
_OURS: Final = Rule(
    ServiceError, Code.INTERNAL_ERROR, "a value of ours was refused by the database"
)

RULES: Final[dict[str, Rule]] = {
    "uq_notification_channels_name": Rule(
        ConflictError, Code.CHANNEL_NAME_TAKEN, "another channel has this name"
    ),
    "uq_portfolio_members_symbol_id_active": _MEMBER,
    "pk_portfolio_members": _MEMBER,
    "uq_portfolio_members_rank_active": _RACE,
    "pk_portfolio_history": _RACE,
    "pk_system_configuration": _RACE,
    "pk_scoring_algorithms": _RACE,
    "pk_contract_specs": _RACE,
    "uq_contract_specs_symbol_id_open": _RACE,
    "uq_proposals_open": _RACE,
    "uq_rebalance_runs_active": _RUNNING,
    "uq_alerts_rule_subject_live": _RACE,
    "uq_rebalance_runs_tick": _RUNNING,
    "pk_idempotency_keys": Rule(
        ConflictError, Code.IDEMPOTENCY_IN_PROGRESS, "the same request is being carried out"
    ),
    "fk_portfolio_members_symbol_id": Rule(
        RefusedError, Code.SYMBOL_UNKNOWN, "the symbol is not in the registry"
    ),
    "fk_trades_symbol_id": Rule(
        RefusedError, Code.SYMBOL_UNKNOWN, "the symbol is not in the registry"
    ),
    "pk_trades": Rule(ConflictError, Code.TRADE_ID_REUSED, "the trade is booked already"),
    "uq_trades_event_seq": _RACE,
    "uq_symbols_code_current": _AMBIGUOUS,
    "uq_symbols_symbol_current": _AMBIGUOUS,
    "ck_portfolio_cash_u_range": _WEIGHTS,
    "ck_portfolio_members_weight_u_range": _WEIGHTS,
    "ck_portfolio_members_target_weight_u_range": _WEIGHTS,
}

# Only a mistake of ours can break these; the caller learns no more than that.
OURS: Final = frozenset(
    {
        "ck_alerts_limit_value_range",
        "ck_alerts_opened_at_known",
        "ck_alerts_resolved_at_known",
        "ck_alerts_severity_known",
        "ck_alerts_state_known",
        "ck_alerts_value_range",
        "ck_booked_totals_fees_exact",
        "ck_booked_totals_funding_exact",
        "ck_booked_totals_pnl_exact",
        "ck_booked_totals_results_positive",
        "ck_candles_prices",
        "ck_candles_turnover_range",
        "ck_candles_volume_range",
        "ck_contract_specs_initial_margin_exact",
        "ck_contract_specs_lot_size_positive",
        "ck_contract_specs_maintenance_margin_exact",
        "ck_contract_specs_maker_fee_exact",
        "ck_contract_specs_multiplier_positive",
        "ck_contract_specs_taker_fee_exact",
        "ck_contract_specs_tick_size_positive",
        "ck_contract_specs_validity",
        "ck_event_head_seq_range",
        "ck_events_seq_positive",
        "ck_funding_rates_rate_exact",
        "ck_idempotency_keys_answer_known",
        "ck_idempotency_keys_state_known",
        "ck_job_executors_seen_ms_positive",
        "ck_leases_epoch_not_negative",
        "ck_market_snapshots_mark_price_range",
        "ck_market_snapshots_open_interest_range",
        "ck_market_snapshots_turnover_24h_range",
        "ck_notification_channels_kind_known",
        "ck_notifications_delivered_at_known",
        "ck_notifications_kind_known",
        "ck_notifications_next_try_at_known",
        "ck_notifications_state_known",
        "ck_notifications_tries_range",
        "ck_performance_marks_version_positive",
        "ck_portfolio_history_seq_positive",
        "ck_portfolio_members_inclusion_price_exact",
        "ck_portfolio_members_inclusion_score_range",
        "ck_portfolio_members_left_at_known",
        "ck_portfolio_members_rank_positive",
        "ck_portfolio_members_status_known",
        "ck_portfolio_version_range",
        "ck_proposals_decided_at_known",
        "ck_proposals_kind_known",
        "ck_proposals_state_known",
        "ck_quality_verdicts_score_range",
        "ck_rebalance_run_steps_position_positive",
        "ck_rebalance_run_steps_state_known",
        "ck_rebalance_runs_finished_at_known",
        "ck_rebalance_runs_state_known",
        "ck_rebalance_runs_turnover_u_range",
        "ck_replacement_confirmations_confirmations_positive",
        "ck_scoring_runs_universe_size_range",
        "ck_signal_effects_move_known",
        "ck_signal_effects_policy_known",
        "ck_signal_outcomes_beat_booked",
        "ck_signal_outcomes_window",
        "ck_signal_records_bin_range",
        "ck_signal_records_came_counted",
        "ck_signal_records_kind_known",
        "ck_signal_votes_probability_range",
        "ck_signal_votes_weight_range",
        "ck_signals_confidence_range",
        "ck_signals_direction_known",
        "ck_signals_score_range",
        "ck_signals_settled_at_known",
        "ck_signals_state_known",
        "ck_signals_strength_range",
        "ck_symbol_scores_composite_range",
        "ck_symbol_scores_confidence_range",
        "ck_symbol_scores_fundamental_range",
        "ck_symbol_scores_market_structure_range",
        "ck_symbol_scores_rank_positive",
        "ck_symbol_scores_risk_range",
        "ck_symbol_scores_technical_range",
        "ck_symbol_scores_volatility_range",
        "ck_symbol_scores_z_range",
        "ck_system_configuration_version_range",
        "ck_trades_event_seq_positive",
        "ck_trades_fees_exact",
        "ck_trades_funding_exact",
        "ck_trades_pnl_exact",
        "fk_booked_totals_symbol_id",
        "fk_contract_specs_symbol_id",
        "fk_portfolio_members_portfolio_id",
        "fk_rebalance_run_steps_run_id",
        "fk_replacement_confirmations_portfolio_id",
        "fk_scoring_run_coverage_run_id",
        "fk_scoring_run_moments_run_id",
        "fk_signal_effects_signal_id",
        "fk_signal_outcomes_signal_id",
        "fk_signal_votes_signal_id",
        "fk_symbol_scores_run_id",
        "fk_vacancies_portfolio_id",
        "pk_alerts",
        "pk_booked_totals",
        "pk_candle_revisions",
        "pk_candles",
        "pk_event_head",
        "pk_events",
        "pk_feed_wishes",
        "pk_funding_rates",
        "pk_job_executors",
        "pk_leases",
        "pk_market_snapshots",
        "pk_notification_channels",
        "pk_notifications",
        "pk_performance_marks",
        "pk_portfolio",
        "pk_proposals",
        "pk_quality_verdicts",
        "pk_rebalance_run_steps",
        "pk_rebalance_runs",
        "pk_replacement_confirmations",
        "pk_scoring_moments",
        "pk_scoring_run_coverage",
        "pk_scoring_run_moments",
        "pk_scoring_runs",
        "pk_service_facts",
        "pk_shared_markets",
        "pk_signal_effects",
        "pk_signal_outcomes",
        "pk_signal_records",
        "pk_signal_votes",
        "pk_signals",
        "pk_symbol_scores",
        "pk_symbols",
        "pk_vacancies",
        "portfolio_history_append_only",
        "system_configuration_append_only",
        "trades_append_only",
        "uq_notifications_channel_id_event_seq",
        "uq_scoring_runs_seq",
        "uq_signals_source_source_id",
    }
)


@cache  # every table is declared by the first broken rule: the container imports them all
def _unique_columns() -> dict[frozenset[str], str]:
    """SQLite names the columns of a broken unique rule, not the rule."""
    found: dict[frozenset[str], str] = {}
    for table in metadata.tables.values():
        rules: list[tuple[object, list[str]]] = [
            (index.name, [column.name for column in index.columns])
            for index in table.indexes
            if index.unique
        ]
        rules += [
            (rule.name, [column.name for column in rule.columns])
            for rule in (*table.constraints,)
            if isinstance(rule, UniqueConstraint)
        ]
        rules.append((table.primary_key.name, [column.name for column in table.primary_key]))
        for name, columns in rules:
            found[frozenset(f"{table.name}.{column}" for column in columns)] = str(name)
    return found


_UNIQUE: Final = re.compile(r"UNIQUE constraint failed: (.+)$")
_CHECK: Final = re.compile(r"CHECK constraint failed: (\w+)")
_TRIGGER: Final = re.compile(r"(\w+_append_only)")


def constraint_name(error: IntegrityError) -> str | None:
    """The name of the broken constraint; None where the database gives no way to tell."""
    driver = getattr(error.orig, "__cause__", None)
    named = getattr(driver, "constraint_name", None)
    if named:
        return str(named)
    message = str(error.orig)
    if unique := _UNIQUE.search(message):
        return _unique_columns().get(frozenset(unique.group(1).split(", ")))
    for pattern in (_CHECK, _TRIGGER):
        if match := pattern.search(message):
            return match.group(1)
    if "FOREIGN KEY constraint failed" in message:
        return _foreign_key(error.statement or "")
    return None


def _foreign_key(statement: str) -> str | None:
    """SQLite does not say which; of the table written to, the one that a caller can break."""
    written = [table for table in metadata.tables.values() if _names(statement, table)]
    names = [
        str(rule.name)
        for table in written
        for rule in table.constraints
        if isinstance(rule, ForeignKeyConstraint)
    ]
    return next((name for name in names if name in RULES), next(iter(names), None))


def _names(statement: str, table: Table) -> bool:
    return re.search(rf"\b(INTO|UPDATE|FROM) {table.name}\b", statement) is not None


def broken(error: IntegrityError) -> ServiceError:
    """The domain's word for a broken constraint; INTERNAL_ERROR if only we can break it."""
    name = constraint_name(error)
    return RULES.get(name or "", _OURS).error()


Say = Callable[[], ServiceError]


def unavailable() -> UnavailableError:
    return UnavailableError(
        Code.DATABASE_UNAVAILABLE, "the database cannot be reached", retry_after_s=5
    )


def corrupt() -> CorruptDatabaseError:
    return CorruptDatabaseError(
        Code.DATABASE_UNAVAILABLE,
        "the database file is corrupt, or no SQLite database: put a backup in its place,"
        " or move it away to begin with an empty one",
    )


def contention() -> UnavailableError:
    return UnavailableError(
        Code.DATABASE_CONTENTION, "the database is busy with other changes", retry_after_s=1
    )


def overloaded() -> UnavailableError:
    return UnavailableError(Code.OVERLOADED, "all database connections are in use", retry_after_s=2)


class WritesRefusedError(UnavailableError):
    """The database can be read and takes no changes, whoever asks."""


def full() -> WritesRefusedError:
    return WritesRefusedError(
        Code.STORAGE_FULL, "the disk of the database is full", retry_after_s=60
    )


def locked() -> WritesRefusedError:
    return WritesRefusedError(
        Code.DATABASE_CONTENTION,
        "another program holds the lock of the database file",
        retry_after_s=5,
    )


def no_memory() -> WritesRefusedError:
    return WritesRefusedError(
        Code.DATABASE_UNAVAILABLE, "the database got no memory", retry_after_s=5
    )


def read_only() -> WritesRefusedError:
    return WritesRefusedError(
        Code.DATABASE_UNAVAILABLE, "the database can only be read at present", retry_after_s=5
    )


def unmigrated() -> UnavailableError:
    return UnavailableError(
        Code.DATABASE_UNAVAILABLE, "the database schema is not the one expected", retry_after_s=30
    )


class SchemaTooNewError(OperatorActionError):
    """A later version of the service has migrated the database: this one must not touch it."""


def too_new() -> SchemaTooNewError:
    return SchemaTooNewError(
        Code.DATABASE_UNAVAILABLE,
        "the database schema belongs to a later version of the service: run that one",
        retry_after_s=30,
    )


def unfit() -> ServiceError:
    return ServiceError(Code.INTERNAL_ERROR, "a value of ours does not fit its column")


READ_ONLY: Final = "25006"
# Exact SQLSTATE first, then its class (first two characters).
_BY_STATE: Final[Mapping[str, Say]] = {
    "40001": contention,  # serialisation failure
    "40P01": contention,  # deadlock
    "55P03": contention,  # lock time-out
    "57014": contention,  # statement time-out
    "53100": full,
    "53300": overloaded,  # too many connections
    READ_ONLY: read_only,  # a failover
    "25P03": unavailable,  # idle in transaction too long
    "42P01": unmigrated,
    "42703": unmigrated,
    "3D000": unavailable,
    "08": unavailable,
    "22": unfit,
    "28": unavailable,
    "53": unavailable,
    "57": unavailable,
    "58": unavailable,
    "XX": unavailable,
}
_BY_SQLITE: Final[Mapping[int, Say]] = {
    sqlite3.SQLITE_BUSY: locked,
    sqlite3.SQLITE_NOMEM: no_memory,
    sqlite3.SQLITE_LOCKED: contention,
    sqlite3.SQLITE_FULL: full,
    sqlite3.SQLITE_IOERR: unavailable,
    sqlite3.SQLITE_CANTOPEN: unavailable,
    sqlite3.SQLITE_CORRUPT: corrupt,
    sqlite3.SQLITE_NOTADB: corrupt,
    sqlite3.SQLITE_READONLY: read_only,
}
RETRYABLE: Final = frozenset({"40001", "40P01"})
CONNECT_ERRORS: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)


def sqlstate(error: BaseException | None) -> str | None:
    """PostgreSQL's five letters, from SQLAlchemy's or asyncpg's exception."""
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return str(state) if state else None


def translated(error: Exception, pool_wait: Say = overloaded) -> ServiceError | None:
    """The domain's error for a failure below; None when it is a mistake in our own SQL.

    `pool_wait` says what waiting in vain for a connection means.
    """
    if isinstance(error, PoolTimeoutError):
        return pool_wait()
    if isinstance(error, IntegrityError):
        return broken(error)
    if isinstance(error, DBAPIError):
        return _driver(error)
    if isinstance(error, CONNECT_ERRORS):
        return (_of_state(sqlstate(error)) or unavailable)()
    return None


def _driver(error: DBAPIError) -> ServiceError | None:
    say = _of_state(sqlstate(error.orig))
    if say is None and isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", None)
        # The low byte is the kind, the rest detail.
        say = None if code is None else _BY_SQLITE.get(code & 0xFF)
        if say is None and "no such " in str(error.orig):
            say = unmigrated
    if say is None and error.connection_invalidated:
        say = unavailable
    return None if say is None else say()


def _of_state(state: str | None) -> Say | None:
    if state is None:
        return None
    return _BY_STATE.get(state) or _BY_STATE.get(state[:2])
