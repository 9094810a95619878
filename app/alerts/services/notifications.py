"""Manages notification channels, the delivery log and manual retries; port to the receivers."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, Protocol

from app.alerts.domain.notifications import (
    Channel,
    ChannelKind,
    Delivery,
    DeliveryState,
    Notification,
    NotificationKind,
)
from app.alerts.storage.notifications import NotificationRepository
from app.configuration.domain.sections import NotificationPriority
from app.foundation.errors import Code, ConflictError
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor, Render
from app.foundation.ports import Clock, NewId
from app.foundation.sql.database import BULK_STATEMENT_S, Database, UnitOfWork
from app.security.domain.audit import SecurityEventKind
from app.security.services.sealing import SecretSealer

Send = Callable[[Delivery], Awaitable[None]]
_CHANGED: Final = SecurityEventKind.CHANNEL_CHANGED


class Notifier(Protocol):
    """Sends notifications over one kind of channel."""

    @property
    def kind(self) -> ChannelKind: ...

    def check(self, channel: Channel) -> None:
        """Validates a channel. Raises RefusedError for one that can never work."""
        ...

    def line(self, channel: Channel) -> AbstractAsyncContextManager[Send]:
        """Opens a connection for several deliveries within half a minute.

        Opening and sending raise ServiceError if nothing was delivered; its text contains no
        address.
        """
        ...


Notifiers = Mapping[ChannelKind, Notifier]


def by_kind(notifiers: Iterable[Notifier]) -> Notifiers:
    """Returns the notifiers by kind of channel."""
    return {notifier.kind: notifier for notifier in notifiers}


@dataclass(frozen=True, slots=True)
class ChannelSecrets:
    """Encrypts and decrypts the secret fields of channels."""

    secrets: SecretSealer

    def seal(self, channel: Channel) -> Channel:
        secret = None if channel.secret is None else self.secrets.seal(channel.secret)
        return replace(channel, url=self.secrets.seal(channel.url), secret=secret)

    def unseal(self, channel: Channel) -> Channel:
        secret = None if channel.secret is None else self.secrets.open(channel.secret)
        return replace(channel, url=self.secrets.open(channel.url), secret=secret)

    def unseal_or_hide(self, channel: Channel) -> Channel:
        """Returns the decrypted channel for display; without its key the address is empty."""
        try:
            return self.unseal(channel)
        except ConflictError:
            return replace(channel, url="")

    def fingerprint(self, channel: Channel) -> str | None:
        """Returns twelve digits for a decrypted secret; None without it or without its key."""
        if channel.secret is None or not channel.url:
            return None
        return self.secrets.fingerprint(channel.secret)

    def is_sealed(self, channel: Channel) -> bool:
        return self.secrets.is_sealed(channel.url)


@dataclass(frozen=True, slots=True)
class DecryptingNotifier:
    """Notifier that decrypts stored channels before use."""

    notifier: Notifier
    secrets: ChannelSecrets

    @property
    def kind(self) -> ChannelKind:
        return self.notifier.kind

    def check(self, channel: Channel) -> None:
        self.notifier.check(channel)

    @asynccontextmanager
    async def line(self, channel: Channel) -> AsyncIterator[Send]:
        async with self.notifier.line(self.secrets.unseal(channel)) as send:
            yield send


@dataclass(frozen=True, slots=True)
class ChannelDraft:
    """Requested channel; None as URL or secret keeps the stored one."""

    name: str
    kind: ChannelKind
    url: str | None = field(repr=False)
    secret: str | None = field(repr=False)
    kinds: tuple[NotificationKind, ...]
    enabled: bool


@dataclass(frozen=True, slots=True)
class NotificationService:
    """Use cases of channels and notifications; the dispatcher delivers."""

    database: Database
    clock: Clock
    new_id: NewId
    idempotency: IdempotentExecutor
    notifiers: Notifiers
    secrets: ChannelSecrets

    async def channels(self) -> tuple[Channel, ...]:
        async with self.database.read() as unit:
            channels = await unit.get(NotificationRepository).channels()
        return tuple(map(self.secrets.unseal_or_hide, channels))

    async def seal_stored(self) -> int:
        """Encrypts channels stored without a key; returns their number. Raises ConflictError."""
        async with self.database.write() as unit:
            channels = await unit.get(NotificationRepository).channels()
            plain = [channel for channel in channels if not self.secrets.is_sealed(channel)]
            for channel in plain:
                await unit.get(NotificationRepository).save_channel(self.secrets.seal(channel))
        return len(plain)

    async def log(
        self,
        before: int | None,
        limit: int,
        channel_id: str | None = None,
        state: DeliveryState | None = None,
    ) -> tuple[Delivery, ...]:
        """Returns a page of the delivery log, newest first, before id `before`."""
        async with self.database.read() as unit:
            return await unit.get(NotificationRepository).page(before, limit, channel_id, state)

    async def create(
        self, draft: ChannelDraft, command: Command, render: Render[Channel]
    ) -> CommandResult[Channel]:
        """Creates a channel. Raises RefusedError (webhook_url_forbidden, validation_failed).

        Raises ConflictError(secrets_key_missing) without an encryption key.
        """
        channel = Channel(
            id=self.new_id(),
            name=draft.name,
            kind=draft.kind,
            url=draft.url or "",
            secret=draft.secret,
            kinds=draft.kinds,
            enabled=draft.enabled,
            created_at=self.clock(),
        )
        self.notifiers[channel.kind].check(channel)

        async def change(unit: UnitOfWork) -> Channel:
            await unit.get(NotificationRepository).save_channel(self.secrets.seal(channel))
            return channel

        audited = command.audited(_CHANGED, "created", channel.name, _channel_details)
        return await self.idempotency.run(audited, change, render)

    async def update_channel(
        self, channel_id: str, draft: ChannelDraft, command: Command, render: Render[Channel]
    ) -> CommandResult[Channel]:
        """Changes a channel. Raises as `create`, and NotFoundError."""

        async def change(unit: UnitOfWork) -> Channel:
            stored = await unit.get(NotificationRepository).channel(channel_id)
            keeps_secrets = draft.url is None or (
                draft.secret is None and stored.secret is not None
            )
            present = (
                self.secrets.unseal(stored)
                if keeps_secrets
                else self.secrets.unseal_or_hide(stored)
            )
            is_same_kind = present.kind is draft.kind  # an address is valid for one kind only
            channel = replace(
                present,
                name=draft.name,
                kind=draft.kind,
                url=draft.url or (present.url if is_same_kind else ""),
                secret=draft.secret or (present.secret if is_same_kind else None),
                kinds=draft.kinds,
                enabled=draft.enabled,
            )
            self.notifiers[channel.kind].check(channel)
            await unit.get(NotificationRepository).save_channel(self.secrets.seal(channel))
            return channel

        audited = command.audited(_CHANGED, "changed", channel_id, _channel_details)
        return await self.idempotency.run(audited, change, render)

    async def remove(
        self, channel_id: str, command: Command, render: Render[Channel]
    ) -> CommandResult[Channel]:
        """Removes a channel with its deliveries. Raises NotFoundError."""

        async def change(unit: UnitOfWork) -> Channel:
            channel = self.secrets.unseal_or_hide(
                await unit.get(NotificationRepository).channel(channel_id)
            )
            await unit.get(NotificationRepository).drop_channel(channel_id)
            return channel

        audited = command.audited(_CHANGED, "removed", channel_id, _channel_details)
        return await self.idempotency.run(audited, change, render)

    async def test(
        self, channel_id: str, command: Command, render: Render[Delivery]
    ) -> CommandResult[Delivery]:
        """Queues a test notification, without rate limits. Raises NotFoundError."""
        notification = Notification(
            NotificationKind.STATUS,
            NotificationPriority.NORMAL,
            "test",
            "My Symbols: a test",
            "This channel works.",
        )

        async def change(unit: UnitOfWork) -> Delivery:
            channel = await unit.get(NotificationRepository).channel(channel_id)
            at = await self.idempotency.now(unit)
            await unit.get(NotificationRepository).add(
                channel.id, notification, at, DeliveryState.PENDING
            )
            return await unit.get(NotificationRepository).newest(channel.id)

        audited = command.audited(_CHANGED, "tested", channel_id)
        return await self.idempotency.run(audited, change, render)

    async def redrive(
        self, delivery_id: int, command: Command, render: Render[Delivery]
    ) -> CommandResult[Delivery]:
        """Queues a dead delivery again. Raises NotFoundError; ConflictError if it is not dead."""

        async def change(unit: UnitOfWork) -> Delivery:
            delivery = await unit.get(NotificationRepository).get(delivery_id)
            if delivery.state is not DeliveryState.DEAD:
                raise ConflictError(
                    Code.INVALID_STATE_TRANSITION,
                    f"Only dead deliveries can be retried; this one is {delivery.state.value}.",
                )
            await unit.get(NotificationRepository).redrive(
                delivery_id, await self.idempotency.now(unit)
            )
            return await unit.get(NotificationRepository).get(delivery_id)

        audited = command.audited(_CHANGED, "redriven", str(delivery_id))
        return await self.idempotency.run(audited, change, render)

    async def delete_old(self, max_age: timedelta) -> int:
        """Deletes completed deliveries older than `max_age`; returns their number."""
        async with self.database.write(BULK_STATEMENT_S) as unit:
            return await unit.get(NotificationRepository).delete_old(
                await self.idempotency.now(unit) - max_age
            )


def _channel_details(channel: Channel) -> Mapping[str, Any]:
    """Entry of the audit log, without address and secret."""
    return {
        "channel_id": channel.id,
        "name": channel.name,
        "kind": channel.kind.value,
        "kinds": [kind.value for kind in channel.kinds],
        "enabled": channel.enabled,
    }
