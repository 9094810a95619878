"""Deletes what is older than its retention; history, intents and booked trades are kept."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from app.configuration.domain.sections import RetentionSettings
from app.my_symbols import MySymbolsServiceV2

Sweep = Callable[[MySymbolsServiceV2, RetentionSettings], Awaitable[int]]


async def _keys(service: MySymbolsServiceV2, _: RetentionSettings) -> int:
    return await service.once.forget_old()


async def _events(service: MySymbolsServiceV2, _: RetentionSettings) -> int:
    return await service.stream.forget_old()


async def _notifications(service: MySymbolsServiceV2, rules: RetentionSettings) -> int:
    return await service.notifications.forget_old(timedelta(days=rules.notifications_days))


async def _alerts(service: MySymbolsServiceV2, rules: RetentionSettings) -> int:
    return await service.alerts.forget_old(timedelta(days=rules.alerts_days))


async def _jobs(service: MySymbolsServiceV2, rules: RetentionSettings) -> int:
    return await service.jobs.forget_old(timedelta(days=rules.jobs_days))


async def _rebalance_runs(service: MySymbolsServiceV2, rules: RetentionSettings) -> int:
    return await service.rebalancing.runs.forget_old(timedelta(days=rules.rebalance_runs_days))


async def _signals(service: MySymbolsServiceV2, rules: RetentionSettings) -> int:
    return await service.signals.forget_old(timedelta(days=rules.signals_days))


# Each gives the number of what it dropped; done again it finds nothing more.
SWEEPS: Final[Mapping[str, Sweep]] = MappingProxyType(
    {
        "idempotency_keys": _keys,
        "events": _events,
        "notifications": _notifications,
        "alerts": _alerts,
        "jobs": _jobs,
        "rebalance_runs": _rebalance_runs,
        "signals": _signals,
    }
)


async def swept(service: MySymbolsServiceV2, name: str) -> int:
    """How many were dropped of what `name` stands for, by the settings of now."""
    settings = await service.configuration.current()
    return await SWEEPS[name](service, settings.retention)
