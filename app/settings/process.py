"""Variables of a process: database, job queue, log and role."""

from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import Field

from app.foundation.sql.engines import DatabaseOptions
from app.settings.declarations import SettingsPart


class DatabaseVariables(SettingsPart):
    """Database: SQLite file or PostgreSQL; age and test of connections apply to PostgreSQL."""

    url: str = Field(
        "sqlite+aiosqlite:///var/my-symbols.sqlite3",
        repr=False,  # it may hold a password
        description="Address of the database, such as postgresql+asyncpg://user:password@host/name.",
    )
    pool_size: int = Field(
        20,
        ge=1,
        le=200,
        description="Number of pooled connections of each process; SQLite reads with at most 10.",
    )
    pool_recycle_s: int = Field(
        3600, ge=30, le=86_400, description="Age at which a connection is replaced."
    )
    pool_pre_ping: bool = Field(True, description="Test a pooled connection before its use.")
    pool_wait_s: float = Field(
        2.0, gt=0, le=60, description="Time limit to obtain a pooled connection."
    )
    slow_statement_s: float = Field(
        0.1, gt=0, le=60, description="Duration from which a statement is logged as slow."
    )
    log_statements: bool = Field(
        False, description="Log every SQL statement with its duration, without its parameters."
    )

    @property
    def options(self) -> DatabaseOptions:
        return DatabaseOptions(
            url=self.url,
            pool_size=self.pool_size,
            pool_recycle_s=self.pool_recycle_s,
            pool_pre_ping=self.pool_pre_ping,
            pool_wait_s=self.pool_wait_s,
            slow_statement_s=self.slow_statement_s,
            log_statements=self.log_statements,
        )


class JobVariables(SettingsPart):
    """Durable jobs, stored beside the database."""

    poll_s: float = Field(
        1.0, ge=0.02, le=60, description="Interval at which the job queue is polled."
    )


class ProcessRole(StrEnum):
    """Part of the service that a process runs."""

    ALL = "all"
    API = "api"
    WORKER = "worker"


class LogVariables(SettingsPart):
    """Log output."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level: `debug`, `info`, `warning` or `error`."
    )
    format: Literal["json", "console"] = Field(
        "json", description="`json` (one object a line) or `console` (for a terminal)."
    )
    file: Path | None = Field(
        None,
        description="File of the log in place of standard error; each process needs its own.",
    )
    file_bytes: int = Field(
        50_000_000,
        ge=1_000,
        le=10_000_000_000,
        description="Size at which the file is renamed and a new one begun.",
    )
    file_count: int = Field(
        5, ge=1, le=1_000, description="Number of earlier files that stay: `.1` is the newest."
    )
