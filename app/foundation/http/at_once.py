"""Answers without a task: the same request, byte for byte, while its answer can be said again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.types import Scope

from app.foundation.http.host_guard import HostGuard
from app.foundation.http.middleware import RequestBorder, dressed, route_of
from app.foundation.http.protocol import MODE
from app.foundation.http.response_cache import STANDING, Kept, KeptAnswers, Key, key_of
from app.foundation.http.startup_guard import OPENING

_MOST: Final = 512  # requests
_LONGEST: Final = 2048  # bytes of a request
_READS: Final = frozenset({"GET", "HEAD"})
# With these the connection is used otherwise, or the answer depends on more.
_BESIDE: Final = frozenset({b"upgrade", b"expect", b"te", b"trailer", b"x-request-id"})
_STATUS_LINES: Final = {200: b"HTTP/1.1 200 OK\r\n", 304: b"HTTP/1.1 304 Not Modified\r\n"}

Pairs = Sequence[tuple[bytes, bytes]]


@dataclass(slots=True)
class _Known:
    """What such a request means, and the head of the answer that was given to it last."""

    key: Key
    is_head: bool
    path: str
    of: Kept | None = None
    route: str = ""
    head: bytes = b""


class AtOnce:
    """Knows requests that were read, judged and answered before, by their very bytes.

    Those bytes mean the same each time, so that reading and judging them again can be left out;
    whether the answer still holds is asked each time. Counted and logged as every request.
    """

    def __init__(self, border: RequestBorder, hosts: HostGuard, answers: KeptAnswers) -> None:
        self._border = border
        self._hosts = hosts
        self._answers = answers
        self._known: dict[bytes, _Known] = {}
        self._common: tuple[Pairs, bytes] = ((), b"")

    def learn(self, data: bytes, scope: Scope) -> None:
        """`data` was one sound request and nothing else, and `scope` is what was read in it."""
        if data in self._known:
            return
        if len(data) > _LONGEST or scope["method"] not in _READS or not self._is_plain(scope):
            return
        read = {**scope, "method": "GET"}
        if not self._border.admits(read) or not self._hosts.is_meant(read):
            return
        key = key_of(read)
        if key is None or self._answers.kept(key) is None:
            return
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]  # the one that was learned first
        self._known[data] = _Known(key, scope["method"] == "HEAD", read["path"])

    def answer(self, data: bytes, state: Mapping[str, Any], common: Pairs) -> list[bytes] | None:
        """The pieces of the answer to `data`; None where it has to go the whole way.

        `state` is that of the lifespan, `common` the headers that the server puts first.
        """
        known = self._known.get(data)
        if known is None:
            return None
        started = self._border.monotonic()
        kept = self._answers.at_once(known.key, _standing(state))
        first = None if kept is None else _STATUS_LINES.get(kept.form.status)
        if kept is None or first is None:
            return None
        if known.of is not kept:
            known.of = kept
            known.route = route_of({"path": known.path, "route": kept.route})
            known.head = _lines(dressed(kept.form.headers))
        if self._common[0] is not common:
            self._common = (common, _lines(common))
        request_id = self._border.new_id()
        mode = state.get("mode")
        told = b"" if mode is None else b"%b: %b\r\n" % (MODE, mode().value.encode())
        head = b"%b%b%b%bx-request-id: %b\r\n\r\n" % (
            first, self._common[1], known.head, told, request_id.encode("ascii", "replace"),
        )  # fmt: skip
        self._border.noted(
            "HEAD" if known.is_head else "GET", known.route, kept.form.status, started, request_id
        )
        return [head] if known.is_head or not kept.form.body else [head, kept.form.body]

    def _is_plain(self, scope: Scope) -> bool:
        return scope["http_version"] == "1.1" and all(
            name not in _BESIDE and (name != b"connection" or value.lower() == b"keep-alive")
            for name, value in scope["headers"]
        )


def _standing(state: Mapping[str, Any]) -> Any:
    """What is kept by, of a service that stands; None of one that does not."""
    opening = state.get(OPENING)
    found = state if opening is None else opening.state()
    return found.get(STANDING)


def _lines(headers: Pairs) -> bytes:
    return b"".join(b"%b: %b\r\n" % (name.lower(), value) for name, value in headers)
