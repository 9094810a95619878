"""Manages notification channels, the delivery log and manual retries; port to the receivers."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

from app.alerts.domain.notifications import (
    Channel,
    ChannelKind,
    Delivery,
    DeliveryState,
    Notification,
    NotificationKind,
)
from app.alerts.storage.notifications import NotificationRepository
from app.foundation.errors import Code, ConflictError
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor, Render
from app.foundation.ports import Clock, NewId
from app.foundation.sql.database import BULK_STATEMENT_S, Database, UnitOfWork

Send = Callable[[Delivery], Awaitable[None]]


class Notifier(Protocol):
    """Sends notifications over one kind of channel."""

    @property
    def kind(self) -> ChannelKind: ...

    def check(self, channel: Channel) -> None:
        """Validate a channel. Raises RefusedError for one that can never work."""
        ...

    def line(self, channel: Channel) -> AbstractAsyncContextManager[Send]:
        """Connection for several deliveries within half a minute.

        Opening and sending raise ServiceError where nothing was delivered; its text names no
        address.
        """
        ...


Notifiers = Mapping[ChannelKind, Notifier]


def by_kind(notifiers: Iterable[Notifier]) -> Notifiers:
    """Notifiers by kind of channel."""
    return {notifier.kind: notifier for notifier in notifiers}


class SecretCipher(Protocol):
    """Encrypts texts; seal and open raise ConflictError(secrets_key_missing)."""

    def seal(self, text: str) -> str: ...

    def open(self, sealed: str) -> str: ...

    def is_sealed(self, text: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class ChannelSecrets:
    """Encrypts and decrypts the secret fields of channels."""

    vault: SecretCipher

    def sealed(self, channel: Channel) -> Channel:
        secret = None if channel.secret is None else self.vault.seal(channel.secret)
        return replace(channel, url=self.vault.seal(channel.url), secret=secret)

    def opened(self, channel: Channel) -> Channel:
        secret = None if channel.secret is None else self.vault.open(channel.secret)
        return replace(channel, url=self.vault.open(channel.url), secret=secret)

    def shown(self, channel: Channel) -> Channel:
        """Decrypted channel for a list; without its key the address is empty."""
        try:
            return self.opened(channel)
        except ConflictError:
            return replace(channel, url="")

    def is_sealed(self, channel: Channel) -> bool:
        return self.vault.is_sealed(channel.url)


@dataclass(frozen=True, slots=True)
class DecryptingNotifier:
    """Notifier that decrypts stored channels before use."""

    notifier: Notifier
    vault: ChannelSecrets

    @property
    def kind(self) -> ChannelKind:
        return self.notifier.kind

    def check(self, channel: Channel) -> None:
        self.notifier.check(channel)

    @asynccontextmanager
    async def line(self, channel: Channel) -> AsyncIterator[Send]:
        async with self.notifier.line(self.vault.opened(channel)) as tell:
            yield tell


@dataclass(frozen=True, slots=True)
class ChannelDraft:
    """Requested channel; None as URL or secret keeps the stored one."""

    name: str
    kind: ChannelKind
    url: str | None
    secret: str | None
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
    vault: ChannelSecrets

    async def channels(self) -> tuple[Channel, ...]:
        async with self.database.read() as unit:
            found = await unit.get(NotificationRepository).channels()
        return tuple(map(self.vault.shown, found))

    async def seal_stored(self) -> int:
        """Encrypt channels stored without a key; return their number. Raises ConflictError."""
        async with self.database.write() as unit:
            found = await unit.get(NotificationRepository).channels()
            bare = [channel for channel in found if not self.vault.is_sealed(channel)]
            for channel in bare:
                await unit.get(NotificationRepository).save_channel(self.vault.sealed(channel))
        return len(bare)

    async def log(
        self,
        before: int | None,
        limit: int,
        channel_id: str | None = None,
        state: DeliveryState | None = None,
    ) -> tuple[Delivery, ...]:
        """Page of the delivery log, newest first, before id `before`."""
        async with self.database.read() as unit:
            return await unit.get(NotificationRepository).page(before, limit, channel_id, state)

    async def create(
        self, draft: ChannelDraft, command: Command, render: Render[Channel]
    ) -> CommandResult[Channel]:
        """Create a channel. Raises RefusedError (webhook_url_forbidden, validation_failed).

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
            await unit.get(NotificationRepository).save_channel(self.vault.sealed(channel))
            return channel

        return await self.idempotency.run(command, change, render)

    async def alter(
        self, channel_id: str, draft: ChannelDraft, command: Command, render: Render[Channel]
    ) -> CommandResult[Channel]:
        """Change a channel. Raises as `create`, and NotFoundError."""

        async def change(unit: UnitOfWork) -> Channel:
            stored = await unit.get(NotificationRepository).channel(channel_id)
            keeps = draft.url is None or (draft.secret is None and stored.secret is not None)
            present = self.vault.opened(stored) if keeps else self.vault.shown(stored)
            is_same_kind = present.kind is draft.kind  # an address is valid for one kind
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
            await unit.get(NotificationRepository).save_channel(self.vault.sealed(channel))
            return channel

        return await self.idempotency.run(command, change, render)

    async def remove(
        self, channel_id: str, command: Command, render: Render[Channel]
    ) -> CommandResult[Channel]:
        """Remove a channel with its deliveries. Raises NotFoundError."""

        async def change(unit: UnitOfWork) -> Channel:
            channel = self.vault.shown(await unit.get(NotificationRepository).channel(channel_id))
            await unit.get(NotificationRepository).drop_channel(channel_id)
            return channel

        return await self.idempotency.run(command, change, render)

    async def test(
        self, channel_id: str, command: Command, render: Render[Delivery]
    ) -> CommandResult[Delivery]:
        """Queue a test notification past the rate limits. Raises NotFoundError."""
        notice = Notification(
            NotificationKind.STATUS, False, "test", "My Symbols: a test", "This channel works."
        )

        async def change(unit: UnitOfWork) -> Delivery:
            channel = await unit.get(NotificationRepository).channel(channel_id)
            at = await self.idempotency.now(unit)
            await unit.get(NotificationRepository).add(
                channel.id, notice, at, DeliveryState.PENDING
            )
            return await unit.get(NotificationRepository).newest(channel.id)

        return await self.idempotency.run(command, change, render)

    async def redrive(
        self, delivery_id: int, command: Command, render: Render[Delivery]
    ) -> CommandResult[Delivery]:
        """Queue a dead delivery again. Raises NotFoundError, or ConflictError if it is not dead."""

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

        return await self.idempotency.run(command, change, render)

    async def forget_old(self, keep: timedelta) -> int:
        """Delete settled deliveries older than `keep`; return their number."""
        async with self.database.write(BULK_STATEMENT_S) as unit:
            return await unit.get(NotificationRepository).forget(
                await self.idempotency.now(unit) - keep
            )
