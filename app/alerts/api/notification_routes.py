"""Routes of notification channels, the delivery log and retries."""

from collections.abc import Callable
from typing import Annotated, Any, Final, Self

from fastapi import Path, Query, Response
from pydantic import Field, SecretStr

from app.alerts.domain.notifications import (
    Channel,
    ChannelKind,
    Delivery,
    DeliveryState,
    NotificationKind,
)
from app.alerts.services.notifications import ChannelDraft, ChannelSecrets, NotificationService
from app.configuration.domain.sections import NotificationPriority
from app.foundation.errors import Code
from app.foundation.http.dependencies import (
    CursorsDep,
    Provided,
    UnversionedDep,
    by,
)
from app.foundation.http.errors import problems
from app.foundation.http.pagination import cut
from app.foundation.http.permissions import requires
from app.foundation.http.request_body import Body, NameText
from app.foundation.http.responses import keep, sent
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import CursorText, Limit, Out, UtcTime, example
from app.foundation.idempotency import StoredResponse
from app.foundation.principals import Role

router = api_router("notifications", "/notifications")
_KEYS: Final = (Code.IDEMPOTENCY_IN_PROGRESS, Code.IDEMPOTENCY_KEY_REUSED)
_CHANNEL: Final = (
    *_KEYS,
    Code.CHANNEL_NAME_TAKEN,
    Code.SECRETS_KEY_MISSING,
    Code.WEBHOOK_URL_FORBIDDEN,
)
ChannelId = Annotated[
    str, Path(min_length=1, max_length=36, pattern=r"^[0-9a-f\-]+$", description="Channel id.")
]
NotificationId = Annotated[
    int, Path(ge=1, le=2**53, description="Id of a notification in the delivery log.")
]


class ChannelIn(Body):
    """Channel to create or change; null keeps the stored URL or secret, which are never shown."""

    model_config = example(
        {"name": "desk", "kind": "webhook", "url": "https://desk.example/hooks/my-symbols"}
    )

    name: NameText = Field(description="Name of the channel; each channel has its own.")
    kind: ChannelKind = Field(
        strict=False, examples=["webhook"], description="Kind of the channel."
    )
    url: SecretStr | None = Field(
        None,
        min_length=1,
        max_length=2_000,
        description="https of a webhook; for people tgram://bot:token/chat, discord://id/token, "
        "slack://T/B/token, mailto://user:password@domain?to=mailbox.",
        examples=["https://desk.example/hooks/my-symbols"],
    )
    secret: SecretStr | None = Field(
        None, min_length=16, max_length=200, description="Key that signs the requests of a webhook."
    )
    kinds: list[Annotated[NotificationKind, Field(strict=False)]] = Field(
        default_factory=lambda: list(NotificationKind),
        min_length=1,
        max_length=len(NotificationKind),
        description="Kinds of notifications that the channel receives; all by default.",
    )
    enabled: bool = Field(True, description="False: nothing is sent over the channel.")
    user: NameText | None = Field(None, description="Recorded as the actor.")

    def draft(self) -> ChannelDraft:
        return ChannelDraft(
            name=self.name,
            kind=self.kind,
            url=None if self.url is None else self.url.get_secret_value(),
            secret=None if self.secret is None else self.secret.get_secret_value(),
            kinds=tuple(dict.fromkeys(self.kinds)),
            enabled=self.enabled,
        )


class TestIn(Body):
    """Channel to test."""

    channel_id: Annotated[str, Field(min_length=1, max_length=36)] = Field(
        description="Identifier of the channel to test."
    )


class ChannelOut(Out):
    """Channel without its address."""

    id: str = Field(description="Identifier of the channel.")
    name: str = Field(description="Name of the channel.")
    kind: ChannelKind = Field(description="Kind of the channel.")
    service: str | None = Field(
        description="Scheme of its URL; null without the encryption key.",
        examples=["https"],
    )
    has_secret: bool = Field(description="True if a secret is stored; its text is never shown.")
    secret_fingerprint: str | None = Field(
        description="Keyed hash of the secret under the newest sealing key; null without either.",
        examples=["9f86d081884c"],
    )
    kinds: list[NotificationKind] = Field(
        description="Kinds of notifications that the channel receives."
    )
    enabled: bool = Field(description="False: nothing is sent over the channel.")
    created_at: UtcTime

    @classmethod
    def of(cls, channel: Channel, secrets: ChannelSecrets) -> Self:
        return cls(
            id=channel.id,
            name=channel.name,
            kind=channel.kind,
            service=channel.url.partition("://")[0].lower() or None,
            has_secret=channel.secret is not None,
            secret_fingerprint=secrets.fingerprint(channel),
            kinds=list(channel.kinds),
            enabled=channel.enabled,
            created_at=channel.created_at,
        )


class ChannelsOut(Out):
    items: list[ChannelOut]


class NotificationOut(Out):
    """Delivery of one notification over one channel."""

    id: int = Field(description="Identifier of the delivery.")
    channel_id: str = Field(description="Identifier of the channel.")
    event_sequence: int | None = Field(
        description="Sequence number in the event stream; null for tests and digests."
    )
    kind: NotificationKind = Field(description="Kind of the notification.")
    priority: NotificationPriority = Field(
        description="Priority of its category: immediate, high, normal or low."
    )
    critical: bool = Field(
        description="True if the priority is immediate, so that no limit holds it back."
    )
    title: str = Field(description="Title as sent.")
    body: str = Field(description="Text as sent.")
    state: DeliveryState = Field(description="State of the delivery.")
    attempts: int = Field(description="Number of attempts so far.")
    created_at: UtcTime
    next_attempt_at: UtcTime | None = Field(
        description="UTC time of the next attempt; null after the last one."
    )
    delivered_at: UtcTime | None = Field(description="UTC time of the delivery; null before it.")
    error: str | None = Field(description="Reason of the last failure.")

    @classmethod
    def of(cls, delivery: Delivery) -> Self:
        notification = delivery.notification
        return cls(
            id=delivery.id,
            channel_id=delivery.channel_id,
            event_sequence=notification.event_seq,
            kind=notification.kind,
            priority=notification.priority,
            critical=notification.is_critical,
            title=notification.title,
            body=notification.body,
            state=delivery.state,
            attempts=delivery.attempts,
            created_at=delivery.created_at,
            next_attempt_at=delivery.next_attempt_at,
            delivered_at=delivery.delivered_at,
            error=delivery.error,
        )


class NotificationsOut(Out):
    items: list[NotificationOut]
    next_cursor: str | None


def _channel_response(
    notifications: NotificationService, status: int = 200
) -> Callable[[Channel], StoredResponse]:
    return lambda channel: keep(ChannelOut.of(channel, notifications.secrets), status)


def _delivery_response(delivery: Delivery) -> StoredResponse:
    return keep(NotificationOut.of(delivery))


@router.get("", summary="Delivery log", responses=problems())
@requires(Role.VIEWER)
async def list_notifications(
    notifications: Provided[NotificationService],
    cursors: CursorsDep,
    channel_id: Annotated[str | None, Query(max_length=36, description="One channel.")] = None,
    state: Annotated[DeliveryState | None, Query(description="One state.")] = None,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> NotificationsOut:
    """Lists deliveries, newest first; completed ones stay for `retention.notifications_days`."""
    chosen = {"channel_id": channel_id, "state": None if state is None else state.value}
    start: Any = cursors.decode("notifications", chosen, cursor)
    before = None if start is None else int(start[0])
    rows = await notifications.log(before, limit + 1, channel_id, state)
    page, last = cut(rows, limit, lambda delivery: (delivery.id,))
    return NotificationsOut(
        items=[NotificationOut.of(delivery) for delivery in page],
        next_cursor=None if last is None else cursors.encode("notifications", chosen, last),
    )


@router.get("/channels", summary="Channels", responses=problems())
@requires(Role.VIEWER)
async def list_notification_channels(notifications: Provided[NotificationService]) -> ChannelsOut:
    """Lists channels by name, without addresses and secrets."""
    stored = await notifications.channels()
    return ChannelsOut(items=[ChannelOut.of(channel, notifications.secrets) for channel in stored])


@router.post(
    "/channels",
    summary="Add a channel",
    status_code=201,
    response_model=ChannelOut,
    responses=problems(*_CHANNEL),
)
@requires(Role.ADMIN)
async def create_notification_channel(
    notifications: Provided[NotificationService], command: UnversionedDep, body: ChannelIn
) -> Response:
    """Adds a channel, which receives events from now on.

    A webhook gets each event once per `X-Event-Id`, in order, signed with
    `X-Signature: t=<Unix seconds>,v1=<HMAC-SHA256 of "t.body">`; receivers should refuse times
    older than five minutes. For people the settings `notifications` limit each kind per hour and
    all per minute; others are combined into a digest. `notification_priorities` decides the order;
    immediate ones are exempt from the limits per hour.
    """
    actor = by(command, body.user)
    render = _channel_response(notifications, 201)
    return sent(await notifications.create(body.draft(), actor, render))


@router.put(
    "/channels/{channel_id}",
    summary="Change a channel",
    response_model=ChannelOut,
    responses=problems(*_CHANNEL),
)
@requires(Role.ADMIN)
async def update_notification_channel(
    notifications: Provided[NotificationService],
    command: UnversionedDep,
    channel_id: ChannelId,
    body: ChannelIn,
) -> Response:
    """Changes a channel; pending deliveries go to the new address."""
    actor = by(command, body.user)
    render = _channel_response(notifications)
    return sent(await notifications.update_channel(channel_id, body.draft(), actor, render))


@router.delete(
    "/channels/{channel_id}",
    summary="Remove a channel",
    response_model=ChannelOut,
    responses=problems(*_KEYS),
)
@requires(Role.ADMIN)
async def delete_notification_channel(
    notifications: Provided[NotificationService], command: UnversionedDep, channel_id: ChannelId
) -> Response:
    """Removes a channel with its log and its pending deliveries."""
    render = _channel_response(notifications)
    return sent(await notifications.remove(channel_id, command, render))


@router.post(
    "/test",
    summary="Test a channel",
    response_model=NotificationOut,
    responses=problems(Code.NOT_FOUND, *_KEYS),
)
@requires(Role.ADMIN)
async def test_notification_channel(
    notifications: Provided[NotificationService], command: UnversionedDep, body: TestIn
) -> Response:
    """Sends a test notification; the delivery log shows its result."""
    return sent(await notifications.test(body.channel_id, command, _delivery_response))


@router.post(
    "/{notification_id}/redrive",
    summary="Retry a dead delivery",
    response_model=NotificationOut,
    responses=problems(Code.INVALID_STATE_TRANSITION, *_KEYS),
)
@requires(Role.OPERATOR)
async def redrive_notification(
    notifications: Provided[NotificationService],
    command: UnversionedDep,
    notification_id: NotificationId,
) -> Response:
    """Retries a delivery that is dead after twenty attempts, with the same event id."""
    return sent(await notifications.redrive(notification_id, command, _delivery_response))
