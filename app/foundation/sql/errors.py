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
from app.foundation.sql.schema import metadata


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
_INTERNAL: Final = Rule(
    ServiceError, Code.INTERNAL_ERROR, "a value of ours was refused by the database"
)

# Constraints that a caller can break; every other one is INTERNAL_ERROR.
RULES: Final[dict[str, Rule]] = {
    "uq_notification_channels_name": Rule(
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
    "uq_contracts_code_current": _AMBIGUOUS,
    "uq_contracts_symbol_current": _AMBIGUOUS,
    "ck_portfolio_cash_u_range": _WEIGHTS,
    "ck_portfolio_members_weight_u_range": _WEIGHTS,
    "ck_portfolio_members_target_weight_u_range": _WEIGHTS,
}


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
    """The domain error for a broken constraint; INTERNAL_ERROR unless RULES names it."""
    name = constraint_name(error)
    return RULES.get(name or "", _INTERNAL).error()


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


class SchemaTooOldError(OperatorActionError):
    """The database was made before version 0.2.0, whose schema cannot be reached from there."""


def too_old() -> SchemaTooOldError:
    return SchemaTooOldError(
        Code.DATABASE_UNAVAILABLE,
        "the database was made by a version before 0.2.0 and cannot be upgraded: set"
        " MYSYMBOLS_DATABASE__URL to a new, empty database, or move the old file away",
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
