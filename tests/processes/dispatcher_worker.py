"""A process that does nothing but deliver notifications, until it is killed."""

import asyncio
import os
import random
import time
from datetime import UTC, datetime, timedelta

from app.adapters.notifications.egress import Egress
from app.adapters.notifications.senders import WebhookNotifier
from app.alerts.services.delivery import NotificationDispatcher
from app.alerts.services.notifications import ChannelSecrets, DecryptingNotifier, by_kind
from app.foundation.metrics import Metrics
from app.foundation.sql.database import Database
from app.foundation.sql.engines import DatabaseOptions
from app.operations.domain.event_codec import encode_event
from app.security.services.sealing import SecretSealer


def deliver(url: str, key: str, ahead_s: float) -> None:
    """With a clock that is `ahead_s` seconds ahead: what a dead process claimed is free then."""
    print(os.getpid(), flush=True)  # noqa: T201 - how its starter knows it
    asyncio.run(_deliver(url, key, timedelta(seconds=ahead_s)))


async def _deliver(url: str, key: str, ahead: timedelta) -> None:
    def now() -> datetime:
        return datetime.now(UTC) + ahead

    dice = random.Random(1).random
    database = Database(
        DatabaseOptions(url=url), time.monotonic, dice, encode_event, lambda _: None, lambda _: None
    )
    await database.open()
    way = WebhookNotifier(lambda: int(now().timestamp()), Egress(allow_private=True))
    notifiers = by_kind([DecryptingNotifier(way, ChannelSecrets(SecretSealer((key,))))])
    dispatcher = NotificationDispatcher(
        database, now, dice, notifiers, Metrics(), sleep=lambda _: asyncio.sleep(0.02)
    )
    await dispatcher.run(lambda: None)
