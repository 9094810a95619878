"""Keyset paging with signed cursors: a cursor is valid only for its own list and filter."""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from app.foundation.http.errors import RequestError, invalid
from app.foundation.http.schemas import QueryTime

_MAC_BYTES: Final = 16
_MAX_TEXT: Final = 1024

T = TypeVar("T")
Part = str | int | float
Key = tuple[Part, ...]
Filter = Mapping[str, str | int | float | bool | None]


class Page(BaseModel, Generic[T]):
    """One page; `next_cursor` is null on the last one."""

    model_config = ConfigDict(allow_inf_nan=False, ser_json_inf_nan="constants")

    items: list[T]
    next_cursor: str | None = Field(description="Pass as `cursor` to get the next page.")


@dataclass(frozen=True, slots=True, repr=False)
class Cursors:
    """Signs positions; `secret` comes from the settings or is random."""

    secret: bytes

    def encode(self, listing: str, chosen: Filter, position: Key) -> str:
        """Encodes a position in `listing` under the filter `chosen` as opaque URL-safe text."""
        payload = json.dumps(position, separators=(",", ":"), allow_nan=False).encode()
        return _to_text(self._mac(listing, chosen, payload) + payload)

    def decode(self, listing: str, chosen: Filter, cursor: str | None) -> Key | None:
        """Returns None without a cursor; 422 for a forged one or one of another list or filter."""
        if cursor is None:
            return None
        raw = _from_text(cursor)
        mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(listing, chosen, payload)):
            raise _forged()
        # Only signed payloads are parsed.
        return tuple(json.loads(payload))

    def _mac(self, listing: str, chosen: Filter, payload: bytes) -> bytes:
        scope = json.dumps([listing, dict(chosen)], sort_keys=True, separators=(",", ":"))
        message = len(scope).to_bytes(4) + scope.encode() + payload
        return hmac.digest(self.secret, message, hashlib.sha256)[:_MAC_BYTES]


def cut(
    rows: Sequence[T], limit: int, position: Callable[[T], Key]
) -> tuple[Sequence[T], Key | None]:
    """Returns the page of up to limit + 1 fetched rows, and the next position if rows are left."""
    page = rows[:limit]
    return page, position(page[-1]) if len(rows) > limit and page else None


def after(
    rows: Sequence[T], limit: int, position: Callable[[T], Key], start: Key | None
) -> tuple[Sequence[T], Key | None]:
    """As `cut`, for a list in memory that is sorted by `position` in ascending order."""
    left = rows if start is None else [row for row in rows if position(row) > start]
    return cut(left[: limit + 1], limit, position)


def moment(start: Key | None) -> datetime | None:
    """Returns the time of a position in a list sorted by time; None for the first page."""
    return None if start is None else datetime.fromisoformat(str(start[0]))


def moment_and_id(start: Key | None) -> tuple[datetime, str] | None:
    """Returns time and id of a position in a list sorted by both; None for the first page."""
    return None if start is None else (datetime.fromisoformat(str(start[0])), str(start[1]))


def _to_text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _from_text(text: str) -> bytes:
    if len(text) > _MAX_TEXT:
        raise _forged()
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _forged() from None
    if _to_text(raw) != text:  # only the canonical spelling
        raise _forged()
    return raw


def _forged() -> RequestError:
    return invalid("query", "cursor", "cursor", "The cursor does not belong to this list.")


From = Annotated[QueryTime | None, Query(alias="from", description="At or after this time.")]
To = Annotated[QueryTime | None, Query(description="Before this time.")]


def require_order(since: datetime | None, to: datetime | None) -> None:
    """Raises RequestError (422) for a period that ends before it begins."""
    if since is not None and to is not None and since >= to:
        raise invalid("query", "to", "reversed", "The period ends before it begins.")


def named_period(since: datetime | None, to: datetime | None) -> dict[str, str | None]:
    """Returns both ends under the names of the query, in ISO 8601; None for an omitted one."""
    return {
        "from": None if since is None else since.isoformat(),
        "to": None if to is None else to.isoformat(),
    }
