"""Bounds the open event streams of one principal."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from app.foundation.errors import Code, RateLimitedError
from app.foundation.principals import Principal, PrincipalKind

STREAMS_PER_PRINCIPAL: Final = 20
_RETRY_S: Final = 5.0


@dataclass(slots=True)
class StreamSlots:
    """Open streams by principal; all keys of one name share their slots.

    Callers in open mode share the name `local`, so only the bound of all streams holds for them.
    """

    per_principal: int = STREAMS_PER_PRINCIPAL
    _open: Counter[str] = field(default_factory=Counter, init=False)

    @contextmanager
    def take(self, principal: Principal) -> Iterator[None]:
        """Holds one slot. Raises RateLimitedError if the principal has taken all of them."""
        if principal.kind is PrincipalKind.LOCAL:
            yield
            return
        name = principal.actor
        if self._open[name] >= self.per_principal:
            raise RateLimitedError(
                Code.RATE_LIMITED,
                f"At most {self.per_principal} streams of one caller may be open.",
                retry_after_s=_RETRY_S,
                facts={"limit": "streams"},
            )
        self._open[name] += 1
        try:
            yield
        finally:
            self._open[name] -= 1
            if not self._open[name]:
                del self._open[name]
