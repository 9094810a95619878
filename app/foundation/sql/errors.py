"""Maps driver failures to domain errors."""

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
from app.foundation.sql.schema import metadata


@dataclass(frozen=True, slots=True)
class ConstraintMapping:
    """Domain error for a violation of one named constraint."""

    kind: type[ServiceError]
    code: Code
    detail: str

    def error(self) -> ServiceError:
        return self.kind(self.code, self.detail)


_RACE: Final = ConstraintMapping(
    ConflictError, Code.VERSION_CONFLICT, "another change came first; read again"
)
_MEMBER: Final = ConstraintMapping(
    ConflictError, Code.SYMBOL_ALREADY_IN_PORTFOLIO, "the symbol is a member already"
)
_AMBIGUOUS: Final = ConstraintMapping(
    RefusedError, Code.SYMBOL_AMBIGUOUS, "two contracts would have one code or one name"
)
_WEIGHTS: Final = ConstraintMapping(
    RefusedError, Code.CONSTRAINTS_INFEASIBLE, "weights and cash must lie between 0 and 100 %"
)
_RUNNING: Final = ConstraintMapping(
    ConflictError, Code.REBALANCE_IN_PROGRESS, "a rebalance is still running"
)
_INTERNAL: Final = ConstraintMapping(
    ServiceError, Code.INTERNAL_ERROR, "the database rejected a value of the service"
)

# Constraints that a caller can violate; every other violation is INTERNAL_ERROR.
CONSTRAINTS: Final[dict[str, ConstraintMapping]] = {
    "uq_notification_channels_name": ConstraintMapping(
        ConflictError, Code.CHANNEL_NAME_TAKEN, "another channel has this name"
    ),
    "uq_portfolio_members_symbol_id_active": _MEMBER,
    "pk_portfolio_members": _MEMBER,
    "uq_portfolio_members_rank_active": _RACE,
    "pk_portfolio_history": _RACE,
    "pk_configuration_versions": _RACE,
    "pk_scoring_algorithms": _RACE,
    "pk_contract_specs": _RACE,
    "uq_contract_specs_symbol_id_open": _RACE,
    "uq_proposals_open": _RACE,
    "uq_rebalance_runs_active": _RUNNING,
    "uq_alerts_rule_subject_live": _RACE,
    "uq_rebalance_runs_tick": _RUNNING,
    "pk_idempotency_keys": ConstraintMapping(
        ConflictError, Code.IDEMPOTENCY_IN_PROGRESS, "the same request is still running"
    ),
    "fk_portfolio_members_symbol_id": ConstraintMapping(
        RefusedError, Code.SYMBOL_UNKNOWN, "the symbol is not in the registry"
    ),
    "fk_trades_symbol_id": ConstraintMapping(
        RefusedError, Code.SYMBOL_UNKNOWN, "the symbol is not in the registry"
    ),
    "pk_trades": ConstraintMapping(
        ConflictError, Code.TRADE_ID_REUSED, "the trade is booked already"
    ),
    "uq_trades_event_seq": _RACE,
    "uq_contracts_code_current": _AMBIGUOUS,
    "uq_contracts_symbol_current": _AMBIGUOUS,
    "ck_portfolio_cash_u_range": _WEIGHTS,
    "ck_portfolio_members_weight_u_range": _WEIGHTS,
    "ck_portfolio_members_target_weight_u_range": _WEIGHTS,
}


@cache  # every table is declared before the first violation: the container imports them all
def _unique_columns() -> dict[frozenset[str], str]:
    """Returns unique constraints by columns: SQLite names the columns, not the constraint."""
    names: dict[frozenset[str], str] = {}
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
            names[frozenset(f"{table.name}.{column}" for column in columns)] = str(name)
    return names


_UNIQUE: Final = re.compile(r"UNIQUE constraint failed: (.+)$")
_CHECK: Final = re.compile(r"CHECK constraint failed: (\w+)")
_TRIGGER: Final = re.compile(r"(\w+_append_only)")


def constraint_name(error: IntegrityError) -> str | None:
    """Returns the name of the violated constraint; None if the database does not name it."""
    driver = getattr(error.orig, "__cause__", None)
    name = getattr(driver, "constraint_name", None)
    if name:
        return str(name)
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
    """Returns the foreign key that a caller can violate: SQLite does not name the violated one."""
    written = [table for table in metadata.tables.values() if _names(statement, table)]
    names = [
        str(rule.name)
        for table in written
        for rule in table.constraints
        if isinstance(rule, ForeignKeyConstraint)
    ]
    return next((name for name in names if name in CONSTRAINTS), next(iter(names), None))


def _names(statement: str, table: Table) -> bool:
    return re.search(rf"\b(INTO|UPDATE|FROM) {table.name}\b", statement) is not None


def constraint_error(error: IntegrityError) -> ServiceError:
    """Returns the domain error of a violation; INTERNAL_ERROR unless CONSTRAINTS names it."""
    name = constraint_name(error)
    return CONSTRAINTS.get(name or "", _INTERNAL).error()


ErrorFactory = Callable[[], ServiceError]


def unavailable_error() -> UnavailableError:
    return UnavailableError(
        Code.DATABASE_UNAVAILABLE, "the database cannot be reached", retry_after_s=5
    )


def corrupt_database_error() -> CorruptDatabaseError:
    return CorruptDatabaseError(
        Code.DATABASE_UNAVAILABLE,
        "the database file is corrupt or not an SQLite database: restore a backup,"
        " or move the file away to start with an empty one",
    )


def contention_error() -> UnavailableError:
    return UnavailableError(
        Code.DATABASE_CONTENTION, "the database is busy with other changes", retry_after_s=1
    )


def overload_error() -> UnavailableError:
    return UnavailableError(Code.OVERLOADED, "all database connections are in use", retry_after_s=2)


class WritesRefusedError(UnavailableError):
    """The database is readable but accepts no writes, from any caller."""


def disk_full_error() -> WritesRefusedError:
    return WritesRefusedError(
        Code.STORAGE_FULL, "the disk of the database is full", retry_after_s=60
    )


def file_locked_error() -> WritesRefusedError:
    return WritesRefusedError(
        Code.DATABASE_CONTENTION,
        "another program holds the lock of the database file",
        retry_after_s=5,
    )


def out_of_memory_error() -> WritesRefusedError:
    return WritesRefusedError(
        Code.DATABASE_UNAVAILABLE, "the database is out of memory", retry_after_s=5
    )


def read_only_error() -> WritesRefusedError:
    return WritesRefusedError(
        Code.DATABASE_UNAVAILABLE, "the database is read-only at present", retry_after_s=5
    )


def schema_mismatch_error() -> UnavailableError:
    return UnavailableError(
        Code.DATABASE_UNAVAILABLE, "the database schema has another version", retry_after_s=30
    )


class SchemaTooNewError(OperatorActionError):
    """A later version of the service has migrated the database; this one must not use it."""


def schema_too_new_error() -> SchemaTooNewError:
    return SchemaTooNewError(
        Code.DATABASE_UNAVAILABLE,
        "the database schema belongs to a later version of the service: run that version",
        retry_after_s=30,
    )


class SchemaTooOldError(OperatorActionError):
    """The database dates from before version 0.2.0, which no migration upgrades."""


def schema_too_old_error() -> SchemaTooOldError:
    return SchemaTooOldError(
        Code.DATABASE_UNAVAILABLE,
        "the database dates from before version 0.2.0 and cannot be upgraded: set"
        " MYSYMBOLS_DATABASE__URL to a new, empty database, or move the old file away",
        retry_after_s=30,
    )


def value_range_error() -> ServiceError:
    return ServiceError(Code.INTERNAL_ERROR, "a value of the service does not fit its column")


READ_ONLY: Final = "25006"
# Exact SQLSTATE first, then its class (first two characters).
_BY_STATE: Final[Mapping[str, ErrorFactory]] = {
    "40001": contention_error,  # serialisation failure
    "40P01": contention_error,  # deadlock
    "55P03": contention_error,  # lock time-out
    "57014": contention_error,  # statement time-out
    "53100": disk_full_error,
    "53300": overload_error,  # too many connections
    READ_ONLY: read_only_error,  # a failover
    "25P03": unavailable_error,  # idle in transaction too long
    "42P01": schema_mismatch_error,
    "42703": schema_mismatch_error,
    "3D000": unavailable_error,
    "08": unavailable_error,
    "22": value_range_error,
    "28": unavailable_error,
    "53": unavailable_error,
    "57": unavailable_error,
    "58": unavailable_error,
    "XX": unavailable_error,
}
_BY_SQLITE: Final[Mapping[int, ErrorFactory]] = {
    sqlite3.SQLITE_BUSY: file_locked_error,
    sqlite3.SQLITE_NOMEM: out_of_memory_error,
    sqlite3.SQLITE_LOCKED: contention_error,
    sqlite3.SQLITE_FULL: disk_full_error,
    sqlite3.SQLITE_IOERR: unavailable_error,
    sqlite3.SQLITE_CANTOPEN: unavailable_error,
    sqlite3.SQLITE_CORRUPT: corrupt_database_error,
    sqlite3.SQLITE_NOTADB: corrupt_database_error,
    sqlite3.SQLITE_READONLY: read_only_error,
}
RETRYABLE: Final = frozenset({"40001", "40P01"})
CONNECT_ERRORS: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)


def sqlstate(error: BaseException | None) -> str | None:
    """Returns the SQLSTATE of an SQLAlchemy or asyncpg exception."""
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return str(state) if state else None


def translate(
    error: Exception, on_pool_timeout: ErrorFactory = overload_error
) -> ServiceError | None:
    """Returns the domain error of a database failure; None for a mistake in the service's SQL.

    `on_pool_timeout` makes the error for a wait for a connection that timed out.
    """
    if isinstance(error, PoolTimeoutError):
        return on_pool_timeout()
    if isinstance(error, IntegrityError):
        return constraint_error(error)
    if isinstance(error, DBAPIError):
        return _translate_driver_error(error)
    if isinstance(error, CONNECT_ERRORS):
        return (_factory_for_state(sqlstate(error)) or unavailable_error)()
    return None


def _translate_driver_error(error: DBAPIError) -> ServiceError | None:
    factory = _factory_for_state(sqlstate(error.orig))
    if factory is None and isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", None)
        # The low byte is the kind, the rest detail.
        factory = None if code is None else _BY_SQLITE.get(code & 0xFF)
        if factory is None and "no such " in str(error.orig):
            factory = schema_mismatch_error
    if factory is None and error.connection_invalidated:
        factory = unavailable_error
    return None if factory is None else factory()


def _factory_for_state(state: str | None) -> ErrorFactory | None:
    if state is None:
        return None
    return _BY_STATE.get(state) or _BY_STATE.get(state[:2])
