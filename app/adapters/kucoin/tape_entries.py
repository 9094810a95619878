"""What stands on a tape: each entry with the monotonic second at which it came to us."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from app.foundation.errors import (
    BadResponseError,
    Code,
    ExchangeTimeoutError,
    RefusedError,
    ServiceError,
    UnavailableError,
)
from app.market.domain.stream import Topic
from app.research.domain.recording import BoardLine, Step

_KINDS: Final[tuple[type[ServiceError], ...]] = (
    BadResponseError,
    ExchangeTimeoutError,
    UnavailableError,
    RefusedError,
)
_BY_NAME: Final = {kind.__name__: kind for kind in _KINDS}


class Header(msgspec.Struct, frozen=True, array_like=True):
    """The first entry: all that a player needs to know besides the payloads."""

    source: str
    code_version: str
    started_ms: int  # of the wall clock, at the monotonic second `zero`
    zero: float
    configuration: dict[str, Any]  # the business settings, as they are stored
    configuration_version: int
    is_streaming: bool = False  # the configured feed mode, which age limits follow


class Began(msgspec.Struct, frozen=True, array_like=True, tag="began"):
    """A step is done now."""

    at: float
    step: Step


class Configured(msgspec.Struct, frozen=True, array_like=True, tag="configured"):
    """From here on other business settings are in force."""

    at: float
    configuration: dict[str, Any]  # as they are stored
    version: int


class Asked(msgspec.Struct, frozen=True, array_like=True, tag="asked"):
    """A request is about to leave."""

    at: float
    method: str
    path: str
    query: dict[str, str]


class Attempt(msgspec.Struct, frozen=True, array_like=True):
    """One answer as it came, unpacked; or why none came."""

    status: int | None
    body: bytes
    fault: str | None = None


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """What the request came to, where that was no data."""

    kind: str
    code: str
    detail: str
    retry_after_s: float | None
    facts: dict[str, str]

    @classmethod
    def of(cls, error: ServiceError) -> "Refusal":
        kind = next((one for one in _KINDS if isinstance(error, one)), UnavailableError)
        return cls(
            kind.__name__, error.code.value, error.detail, error.retry_after_s, dict(error.facts)
        )

    def error(self) -> ServiceError:
        """Raises ValueError for a code that this version does not know."""
        kind = _BY_NAME.get(self.kind, UnavailableError)
        return kind(
            Code(self.code), self.detail, retry_after_s=self.retry_after_s, facts=self.facts
        )


class Answered(msgspec.Struct, frozen=True, array_like=True, tag="answered"):
    """The request has come to its end, after so many attempts; none where it could not leave."""

    at: float
    attempts: tuple[Attempt, ...]
    refusal: Refusal | None = None


class Heard(msgspec.Struct, frozen=True, array_like=True, tag="heard"):
    """One frame of market data as it came over a connection, by the number of that."""

    at: float
    line: int
    text: bytes


class Live(msgspec.Struct, frozen=True, array_like=True, tag="live"):
    """What is heard without having missed anything, as far as it is not as before."""

    at: float
    gained: tuple[tuple[Topic, float], ...]  # and since which monotonic second
    lost: tuple[Topic, ...]


class Flushed(msgspec.Struct, frozen=True, array_like=True, tag="flushed"):
    """What was heard until now was used now."""

    at: float


class Scored(msgspec.Struct, frozen=True, array_like=True, tag="scored"):
    """The board that was made where the tape was recorded."""

    at: float
    board: BoardLine


class Ended(msgspec.Struct, frozen=True, array_like=True, tag="ended"):
    """Nothing follows: the recording was ended, not cut off."""

    at: float


Entry = Began | Configured | Asked | Answered | Heard | Live | Flushed | Scored | Ended


def query_of(params: Mapping[str, str]) -> dict[str, str]:
    """The parameters in one order, whoever named them."""
    return dict(sorted(params.items()))
