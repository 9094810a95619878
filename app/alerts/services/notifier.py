"""Port to the receivers of notifications, and the encryption of their addresses."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from app.alerts.domain.notifications import Channel, ChannelKind, Delivery
from app.foundation.errors import ConflictError

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
