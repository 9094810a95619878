"""Public interface for programs that run the service inside their own process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.container.assembly import assemble
from app.foundation.metrics import Metrics
from app.market.domain.symbols import to_kucoin, to_standard
from app.my_symbols import MySymbolsServiceV2
from app.settings import Settings

__all__ = ["MySymbolsServiceV2", "Settings", "get_my_symbols_service", "to_kucoin", "to_standard"]


@asynccontextmanager
async def get_my_symbols_service(
    settings: Settings | None = None,
) -> AsyncIterator[MySymbolsServiceV2]:
    """Opens the whole service without an HTTP server, and closes it at the end of the block.

    Without `settings` they come from the environment. One process at a time has an SQLite file.
    Raises DatabaseInUseError, DataSourceMismatchError and UnavailableError.
    """
    async with assemble(settings or Settings(), Metrics()) as services:
        yield services.my_symbols
