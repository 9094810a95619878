"""The second source of prices, where one is wanted: its package is loaded only then."""

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from app.container.runtime_values import utc_now
from app.market.services.reference_prices import References
from app.my_symbols import MySymbolsServiceV2
from app.settings import Settings
from app.workers.schedule import ASKING_S
from app.workers.supervisor import Supervisor

REFERENCE, REFERENCE_STREAM = "reference", "reference_stream"


@asynccontextmanager
async def referring(
    settings: Settings,
    supervisor: Supervisor,
    service: MySymbolsServiceV2,
    is_owner: Callable[[], bool],
) -> AsyncIterator[None]:
    """Asks and hears the second source while this is open; without one there is nothing to do.

    The tasks must be stopped before it closes.
    """
    wanted = settings.reference
    if wanted.exchange == "none" or not settings.run_background_tasks:
        yield
        return
    # It takes seconds to load and knows a hundred exchanges.
    extra = await asyncio.to_thread(importlib.import_module, "app.adapters.ccxt_extra")
    async with extra.open_reference(
        wanted.exchange, wanted.base_url, wanted.timeout_s, _now_ms, _bases(service)
    ) as source:
        asked = References(
            source, service.market.quality, is_owner, wanted.interval_s, wanted.exchange
        )
        supervisor.start(REFERENCE, asked.run, lambda: wanted.interval_s + ASKING_S)
        if source.streams and settings.feed.mode == "stream":
            supervisor.start(REFERENCE_STREAM, asked.hear, lambda: wanted.interval_s + ASKING_S)
        service.status.reference_report = asked.report
        yield


def _bases(service: MySymbolsServiceV2) -> Callable[[], frozenset[str]]:
    """Coins of the contracts that are known at present."""
    registry = service.market.registry
    return lambda: frozenset(entry.contract.base for entry in registry.index.entries)


def _now_ms() -> int:
    return round(utc_now().timestamp() * 1000)
