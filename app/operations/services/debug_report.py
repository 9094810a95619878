"""Report for debugging on the machine of the service: portfolio, memory and database."""

from collections.abc import Callable
from dataclasses import dataclass

from app.foundation.errors import Code, NotFoundError
from app.foundation.health import PoolFacts
from app.foundation.sql.database import Database
from app.market.services.symbol_registry import Registry
from app.operations.services.process_metrics import resident_bytes
from app.portfolio.services.membership import PortfolioService
from app.portfolio.services.views import PortfolioView


@dataclass(frozen=True, slots=True)
class DebugReport:
    """Portfolio with figures of the process; memory is None where the system does not say it."""

    portfolio: PortfolioView
    total_symbols: int
    memory_bytes: int | None
    database_bytes: int
    pool: PoolFacts
    slow_statements: int


@dataclass(frozen=True, slots=True)
class DebugReporter:
    """Read-only use case of the debug route; it exists only while `is_enabled`."""

    is_enabled: bool
    database: Database
    registry: Registry
    portfolio: PortfolioService
    count_slow_statements: Callable[[], int]

    async def report(self) -> DebugReport:
        """Returns the report. Raises NotFoundError if debugging is off, and UnavailableError."""
        if not self.is_enabled:
            raise NotFoundError(
                Code.NOT_FOUND, "Debugging is off: start the service with MYSYMBOLS_DEBUG=1."
            )
        return DebugReport(
            portfolio=await self.portfolio.view(),
            total_symbols=len(self.registry.index.entries),
            memory_bytes=resident_bytes(),
            database_bytes=await self.database.size_bytes(),
            pool=self.database.pool,
            slow_statements=self.count_slow_statements(),
        )
