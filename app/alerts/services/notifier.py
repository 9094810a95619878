"""The ways to reach receivers, as the use cases see them."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from app.alerts.domain.notifications import Channel, ChannelKind, Delivery

Send = Callable[[Delivery], Awaitable[None]]


class Notifier(Protocol):
    """One way to reach a receiver."""

    @property
    def kind(self) -> ChannelKind: ...

    def check(self, channel: Channel) -> None:
        """Raises RefusedError for a channel that can never be told anything."""
        ...

    def line(self, channel: Channel) -> AbstractAsyncContextManager[Send]:
        """For several deliveries in a row, within half a minute.

        Opening it and telling raise ServiceError where nothing was delivered; its text names no
        address.
        """
        ...


Notifiers = Mapping[ChannelKind, Notifier]


def by_kind(notifiers: Iterable[Notifier]) -> Notifiers:
    """Each way under the kind of channel that it serves."""
    return {one.kind: one for one in notifiers}
