"""Stored operator controls: switch and locks, each one key-value entry."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.facts import FactRepository
from app.portfolio.domain.controls import Controls, Lock, Switch, lock_payload, read_lock
from app.portfolio.domain.event_log import instant, instant_text

SWITCH: Final = "trading_switch"
LOCKS: Final = "symbol_locks"


@dataclass(frozen=True, slots=True)
class ControlRepository:
    """Written only under the portfolio's lock, in the transaction of their event."""

    connection: AsyncConnection

    async def load(self) -> Controls:
        """As stored, with locks that have expired."""
        facts = await FactRepository(self.connection).several(SWITCH, LOCKS)
        switch, locks = facts.get(SWITCH), facts.get(LOCKS)
        held = {symbol: read_lock(one) for symbol, one in (locks or {}).items()}
        if switch is None:
            return Controls(locks=held)
        changed = instant(switch["changed_at"])
        return Controls(
            Switch(switch["enabled"], switch["reason"], changed, switch["changed_by"]), held
        )

    async def store_switch(self, switch: Switch) -> None:
        """Store a changed switch."""
        moved = switch.changed_at
        fact = {
            "enabled": switch.enabled,
            "reason": switch.reason,
            "changed_at": None if moved is None else instant_text(moved),
            "changed_by": switch.changed_by,
        }
        await FactRepository(self.connection).put(SWITCH, fact)

    async def store_locks(self, locks: Mapping[str, Lock]) -> None:
        fact = {symbol: lock_payload(lock) for symbol, lock in sorted(locks.items())}
        await FactRepository(self.connection).put(LOCKS, fact)
