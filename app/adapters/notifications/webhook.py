"""Sends signed notifications to webhooks."""

import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from app.adapters.notifications.egress import HTTPS_PORTS, Egress, forbidden, split_url
from app.alerts.domain.notifications import Channel, ChannelKind, Delivery


@dataclass(frozen=True, slots=True)
class WebhookNotifier:
    """Posts notifications as JSON; `now_s` gives Unix seconds for the signature."""

    now_s: Callable[[], int]
    egress: Egress = field(default_factory=Egress)

    @property
    def kind(self) -> ChannelKind:
        return ChannelKind.WEBHOOK

    def check(self, channel: Channel) -> None:
        """Raises RefusedError (webhook_url_forbidden) for a forbidden address."""
        parts = split_url(channel.url)
        if parts.username is not None or parts.password is not None:
            raise forbidden("it must hold no user and no password")
        if not self.egress.allow_private and (
            parts.scheme != "https" or (parts.port or 443) not in HTTPS_PORTS
        ):
            raise forbidden("it must be https, on port 443 or 8443")
        self.egress.require_host(str(parts.hostname))

    async def send(self, channel: Channel, delivery: Delivery) -> None:
        """Send one notification over its own connection; raises as `line` does."""
        async with self.line(channel) as tell:
            await tell(delivery)

    @asynccontextmanager
    async def line(self, channel: Channel) -> AsyncIterator[Callable[[Delivery], Awaitable[None]]]:
        """Open one connection for several deliveries to the addresses checked now.

        Raises UnavailableError or RefusedError, whose text holds no part of the address.
        """
        self.check(channel)
        async with self.egress.http(channel.url) as http:

            async def tell(delivery: Delivery) -> None:
                body = content(delivery)
                headers = {
                    "X-Event-Id": event_id(delivery),
                    "X-Signature": signature(channel.secret or "", self.now_s(), body),
                }
                await http.post(body, headers)

            yield tell


def event_id(delivery: Delivery) -> str:
    """Event id, equal for every attempt, so that a receiver can drop duplicates."""
    seq = delivery.notice.event_seq
    return f"notice-{delivery.id}" if seq is None else f"event-{seq}"


def content(delivery: Delivery) -> bytes:
    """Request body, with the same bytes at every attempt."""
    notice = delivery.notice
    document: dict[str, Any] = {
        "id": event_id(delivery),
        "kind": notice.kind.value,
        "critical": notice.is_critical,
        "title": notice.title,
        "body": notice.body,
        "created_at": delivery.created_at.isoformat().replace("+00:00", "Z"),
        "event": dict(notice.event),
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def signature(secret: str, stamp: int, body: bytes) -> str:
    """Signature `t=<Unix seconds>,v1=<HMAC-SHA256 of "t.body" in hex>`.

    Receivers should refuse one older than 5 minutes.
    """
    message = f"{stamp}.".encode() + body
    return f"t={stamp},v1={hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()}"
