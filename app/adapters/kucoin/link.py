"""Remembers how the exchange is reached: since when, and what is wrong if anything is."""

from collections.abc import Callable
from datetime import datetime

from app.foundation.errors import ServiceError
from app.market.domain.models import ExchangeLink, LinkState


class Link:
    """The last outcome of asking. An older request's success does not hide a newer failure."""

    def __init__(self, *, now: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self._now = now
        self._monotonic = monotonic
        self._state = LinkState.UNTRIED
        self._since = now()
        self._error: ServiceError | None = None
        self._failed_at: float | None = None
        self._last_success: datetime | None = None

    def success(self, sent_at: float) -> None:
        self._last_success = self._now()
        if self._failed_at is not None and sent_at < self._failed_at:
            return
        self._error = None
        self._enter(LinkState.UP)

    def failure(self, error: ServiceError) -> None:
        self._failed_at = self._monotonic()
        self._error = error
        self._enter(LinkState.DOWN)

    def _enter(self, state: LinkState) -> None:
        if state is not self._state:
            self._state = state
            self._since = self._now()

    def report(self, retry_in_s: float) -> ExchangeLink:
        """`retry_in_s` is how long no request may leave; told only while the link is down."""
        error = self._error
        return ExchangeLink(
            state=self._state,
            since=self._since,
            cause=None if error is None else error.code.value,
            detail=None if error is None else error.detail,
            last_success=self._last_success,
            retry_in_s=None if error is None else retry_in_s,
        )
