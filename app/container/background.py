"""Background tasks of an open service: feed, reactions, notifications, events and gauges."""

import time
from dataclasses import dataclass
from random import Random  # noqa: TID251  # chance enters the program here

from app.adapters.kucoin.exchange import KucoinExchange
from app.alerts.services.delivery import NotificationDispatcher
from app.configuration.services.current import CurrentSettings
from app.container.feed import FeedTasks, hinted, streamed_market
from app.container.runtime_values import elapsed_s, utc_now
from app.foundation.event_bus import Bus
from app.foundation.metrics import Metrics
from app.foundation.sql.database import Database
from app.market.services.follower import FeedView
from app.market.services.stream_consumer import StreamedMarket
from app.my_symbols import MySymbolsServiceV2
from app.operations.services.gauges import GaugeReader
from app.settings import Settings
from app.workers.engine import Engine
from app.workers.gauges import Gauges
from app.workers.reactions import ALERT_REACTIONS, DRIFT_REACTIONS, alert_reactions, drift_reactions
from app.workers.schedule import Tasks, table
from app.workers.streaming import SILENT_S, stream_events
from app.workers.supervisor import Supervisor
from app.workers.watchdog import Watchdog


@dataclass(frozen=True, slots=True)
class Background:
    """Starts the tasks of this process; the supervisor ends them."""

    settings: Settings
    metrics: Metrics
    dice: Random
    bus: Bus
    in_force: CurrentSettings
    database: Database
    exchange: KucoinExchange
    supervisor: Supervisor
    engine: Engine
    feed: FeedView
    service: MySymbolsServiceV2

    def start(self, work: Tasks) -> None:
        """Each as a supervised task."""
        status, supervisor, metrics = self.service.status, self.supervisor, self.metrics
        gauges = Gauges(
            metrics, time.monotonic, self.database, self.feed, self.bus, supervisor, status.mode,
            status.observe,
        )  # fmt: skip
        gauges.watch_mode()
        supervisor.start("gauges", gauges.run, lambda: SILENT_S)
        service, server_clock = self.service, self.service.market.server_clock
        status.read_gauges = GaugeReader(
            metrics, status, service.alerts, server_clock, gauges.set_levels
        ).read
        supervisor.start_watchdog(lambda: self.database.is_away)
        duty = self._feed_tasks(work).start()
        stream_events(supervisor, self.service, self._courier(), hinted(self.database.listen, duty))
        if self.feed.replicas is not None:
            watchdog = Watchdog(self.feed.replicas, metrics)
            supervisor.start("watchdog", watchdog.run, lambda: SILENT_S)

    def _feed_tasks(self, work: Tasks) -> FeedTasks:
        has_drifted = self.service.rebalancing.has_drifted
        return FeedTasks(
            self.settings.role,
            self.database,
            self.service,
            self.feed,
            self.supervisor,
            table(lambda: self.in_force().intervals, work, self.engine, utc_now, elapsed_s),
            work,
            {
                ALERT_REACTIONS: alert_reactions(self.bus, utc_now, work.alerts),
                DRIFT_REACTIONS: drift_reactions(self.bus, has_drifted, self.engine),
            },
            self._streamed(),
        )

    def _streamed(self) -> StreamedMarket | None:
        """None where the market is only ever asked for."""
        if self.settings.feed.mode == "poll":
            return None
        return streamed_market(self.service, self.exchange.stream(), self.in_force)

    def _courier(self) -> NotificationDispatcher:
        return NotificationDispatcher(
            self.database,
            utc_now,
            self.dice.random,
            self.service.notifications.notifiers,
            self.metrics,
            lambda: self.in_force().notifications,
            self.service.status.notifications_delivered,
            shared=self.service.portfolio.idempotency.shared,
        )
