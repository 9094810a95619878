"""Messages to people through apprise: Telegram, Discord, Slack and mail."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import apprise

from app.domain.errors import Code, RefusedError, UnavailableError
from app.domain.notification import Channel, ChannelKind, Delivery

SCHEMES: Final = frozenset({"tgram", "discord", "slack", "mailto", "mailtos"})
LOCAL_SCHEMES: Final = frozenset({"json"})  # a receiver of one's own network
TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class People:
    """`allow_private` also lets receivers of one's own network be named."""

    allow_private: bool = False
    timeout_s: float = TIMEOUT_S

    @property
    def kind(self) -> ChannelKind:
        return ChannelKind.APPRISE

    def check(self, channel: Channel) -> None:
        """Raises RefusedError (validation_failed) for a URL that apprise does not understand."""
        scheme = channel.url.partition("://")[0].lower()
        allowed = SCHEMES | (LOCAL_SCHEMES if self.allow_private else frozenset())
        if scheme not in allowed:
            names = ", ".join(f"{one}://" for one in sorted(SCHEMES))
            raise _refused(f"A channel to people begins with one of {names}.")
        if not _opened(channel.url):
            raise _refused(f"This is no complete {scheme}:// URL as apprise documents it.")

    @asynccontextmanager
    async def line(self, channel: Channel) -> AsyncIterator[Callable[[Delivery], Awaitable[None]]]:
        """Each delivery is a call of its own."""
        yield lambda delivery: self.send(channel, delivery)

    async def send(self, channel: Channel, delivery: Delivery) -> None:
        """Raises UnavailableError; the receiver's words stay here, they may hold the address."""
        notice = delivery.notice
        try:
            async with asyncio.timeout(self.timeout_s):
                told = await asyncio.to_thread(
                    _tell, channel.url, notice.title, notice.body or notice.title
                )
        except TimeoutError:
            raise UnavailableError(Code.RECEIVER_UNAVAILABLE, "no answer in time") from None
        if not told:
            raise UnavailableError(Code.RECEIVER_UNAVAILABLE, "refused or not reached")


def _opened(url: str) -> apprise.Apprise | None:
    sender = apprise.Apprise()
    return sender if sender.add(url) else None


def _tell(url: str, title: str, body: str) -> bool:
    sender = _opened(url)
    return sender is not None and bool(sender.notify(body=body, title=title))


def _refused(why: str) -> RefusedError:
    return RefusedError(Code.VALIDATION_FAILED, why)
