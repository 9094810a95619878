"""Sends the daily digest, once a day over all processes and restarts."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Final

from app.alerts.domain.daily_digest import (
    DIGEST_PERIOD,
    BoardQuality,
    DayResult,
    DigestFacts,
    MarketQuality,
    daily_digest,
    day_before_first,
    is_digest_day,
)
from app.alerts.domain.notifications import DeliveryState, NotificationKind
from app.alerts.services.service import AlertFilter, AlertService
from app.alerts.storage.notifications import NotificationRepository
from app.configuration.domain.model import Configuration
from app.foundation.clock import SharedClock, current_time
from app.foundation.errors import ServiceError
from app.foundation.ports import Clock
from app.foundation.sql.database import Database, UnitOfWork
from app.foundation.sql.key_value import KeyValueRepository
from app.market.services.health_facts import MarketFacts
from app.performance.services.service import Performance
from app.portfolio.services.decision_context import DecisionContext
from app.portfolio.storage.history import HistoryRepository

_LAST_DAY: Final = "alerts.daily_digest"  # stored day of the last digest
_MAX_CHANGES: Final = 200


@dataclass(frozen=True, slots=True)
class DailyDigest:
    """Use case of the daily digest."""

    database: Database
    clock: Clock
    in_force: Callable[[], Configuration]
    performance: Performance
    alerts: AlertService
    market_facts: Callable[[], MarketFacts]
    shared: SharedClock | None = None  # None: this process is the only one

    async def send(self) -> int | None:
        """Queues the digest of today for every channel of the kind `status`.

        Returns the number of channels; None if the digest is not due. The day is claimed in the
        transaction that queues it, so a day has one digest, whichever processes try.
        Raises UnavailableError.
        """
        async with self.database.write() as unit:
            if await self._claimed_day(unit) is None:
                return None
        facts = await self._collect()
        async with self.database.write() as unit:
            day = await self._claimed_day(unit)
            if day is None:
                return None
            notification = daily_digest(facts, self.in_force().notification_priorities)
            at = await current_time(unit, self.shared, self.clock)
            receivers = [
                channel
                for channel in await unit.get(NotificationRepository).channels()
                if channel.enabled and NotificationKind.STATUS in channel.kinds
            ]
            for channel in receivers:
                await unit.get(NotificationRepository).add(
                    channel.id, notification, at, DeliveryState.PENDING
                )
            await unit.get(KeyValueRepository).put(_LAST_DAY, day.isoformat())
        return len(receivers)

    async def _claimed_day(self, unit: UnitOfWork) -> date | None:
        """Locks the stored day; returns today if its digest is due."""
        settings = self.in_force().notifications.daily_digest
        at = await current_time(unit, self.shared, self.clock)
        first = day_before_first(at, settings).isoformat()
        last = await unit.get(KeyValueRepository).get_locked(_LAST_DAY, first)
        return at.date() if is_digest_day(date.fromisoformat(last), at, settings) else None

    async def _collect(self) -> DigestFacts:
        """Collects the content; a failing part is unknown with its reason."""
        contexts = self.performance.contexts
        state, context = await contexts.present(self.database)
        opened, _ = await self.alerts.list(AlertFilter())
        async with self.database.read() as unit:
            changes = await unit.get(HistoryRepository).page_by_time(
                None, _MAX_CHANGES, since=context.at - DIGEST_PERIOD
            )
        doubts = {one.symbol: context.doubt(one.symbol) for one in state.portfolio.members}
        return DigestFacts(
            at=context.at,
            portfolio=context.at_current_prices(state.portfolio),
            max_size=context.configuration.max_portfolio_symbols,
            result=await self._day_result(),
            changes=changes,
            alerts=opened,
            market=_market_quality(self.market_facts()),
            board=_board_quality(context),
            doubts={symbol: doubt for symbol, doubt in doubts.items() if doubt is not None},
        )

    async def _day_result(self) -> DayResult:
        try:
            ledgers, _, _ = await self.performance.attribution(DIGEST_PERIOD.days)
        except ServiceError as error:
            return DayResult(None, None, None, {}, f"{error.code}: {error.detail}")
        index = ledgers[0]
        start, end, change = index.start, index.end, index.change
        if start is None or end is None or change is None or start <= 0:
            return DayResult(None, end, None, {}, index.reason)
        return DayResult(
            index.start_at,
            end,
            float(change / start),
            {one.name: float(one.contribution / start) for one in index.symbols},
            index.reason,
        )


def _market_quality(facts: MarketFacts) -> MarketQuality:
    return MarketQuality(
        facts.data_source,
        facts.data_status,
        facts.as_of,
        facts.contracts,
        facts.eligible,
        facts.stale_symbols,
    )


def _board_quality(context: DecisionContext) -> BoardQuality | None:
    board = context.complete_board
    if board is None:
        return None
    return BoardQuality(
        age_s=max(0.0, (context.at - board.calculated_at).total_seconds()),
        scored=board.universe_size,
        unavailable=len(board.cards) - board.universe_size,
    )
