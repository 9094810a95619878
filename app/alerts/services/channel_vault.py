"""Channels as they are stored, their address and secret sealed, and as they are used."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from app.alerts.domain.notifications import Channel, ChannelKind
from app.alerts.services.notifier import Notifier, Send
from app.foundation.errors import ConflictError


class SecretCipher(Protocol):
    """Seals texts; both raise ConflictError(secrets_key_missing)."""

    def seal(self, text: str) -> str: ...

    def open(self, sealed: str) -> str: ...

    def is_sealed(self, text: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class ChannelSecrets:
    """What leaves it towards the database is sealed, what leaves it towards a receiver is not."""

    vault: SecretCipher

    def sealed(self, channel: Channel) -> Channel:
        secret = None if channel.secret is None else self.vault.seal(channel.secret)
        return replace(channel, url=self.vault.seal(channel.url), secret=secret)

    def opened(self, channel: Channel) -> Channel:
        secret = None if channel.secret is None else self.vault.open(channel.secret)
        return replace(channel, url=self.vault.open(channel.url), secret=secret)

    def shown(self, channel: Channel) -> Channel:
        """For a list: one whose key is not at hand has an empty address."""
        try:
            return self.opened(channel)
        except ConflictError:
            return replace(channel, url="")

    def is_sealed(self, channel: Channel) -> bool:
        return self.vault.is_sealed(channel.url)


@dataclass(frozen=True, slots=True)
class DecryptingNotifier:
    """A way to receivers whose channels come as they are stored."""

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
