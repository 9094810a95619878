"""HTTP/1.1 by llhttp, and the refusals that it leaves to us.

What has two readings is refused, since somebody in front of us may read it the other way: then
part of one request could pass as another.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Protocol
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 256 * 1024  # above our own limits (middleware.py), which say more
_MOST_WAITING: Final = 16  # requests behind the one that is answered; they are read ahead
_LARGE: Final = 64 * 1024
_VERSIONS: Final = frozenset({"1.0", "1.1"})
BAD_REQUEST, TOO_LARGE = 400, 431


class OneAnswer:
    """The transport of one answer: its head goes out with what comes right behind it.

    Sent by itself it costs as much as everything else about a short answer. It waits for no more
    than the next turn of the loop, for the body may be long in coming.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head: bytes | None = None
        self._has_begun = False

    def write(self, data: bytes) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._head = data
            self._loop.call_soon(self._flush)
            return
        if self._head is None or len(data) > _LARGE:  # copying it would cost more than it saves
            self._flush()
            self._transport.write(data)
            return
        head, self._head = self._head, None
        self._transport.write(head + data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        head, self._head = self._head, None
        if head is not None:
            self._transport.write(head)


class Desk(Protocol):
    """Answers requests that it knows by their bytes, before they are read."""

    def learn(self, data: bytes, scope: Any) -> None:
        """`data` was one sound request and nothing else, and `scope` is what was read in it."""
        ...

    def answer(
        self, data: bytes, state: Mapping[str, Any], common: Sequence[tuple[bytes, bytes]]
    ) -> list[bytes] | None:
        """The pieces of the answer; None where it has to go the whole way."""
        ...


class _Answered:
    """Stands for an exchange that is over, where uvicorn asks how far the last one has come."""

    keep_alive = response_started = response_complete = True

    def __init__(self) -> None:
        self.message_event = asyncio.Event()  # nobody waits for it any more


class UnsoundRequestError(ValueError):
    """Well formed for the parser, but not for us."""


class StrictHttp(HttpToolsProtocol, ABC):
    """uvicorn's protocol, but nothing is read into what is not sound.

    The refusal comes behind the answers to all that was sound before it, and ends the connection.
    """

    desk: ClassVar[Desk | None] = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._is_between = True  # requests: the next byte is the first of another one
        self._heads = 0  # that began with the bytes that are being read
        self._is_in_head = False
        self._began = False  # with the bytes that are being read
        self._head_bytes = 0
        self._is_deaf = False  # whatever comes on this connection is not for us any more
        self._owed: int | None = None  # a refusal that comes behind the answers before it

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._is_deaf:
            return
        if self.desk is not None and self._is_at_rest() and self._said_at_once(self.desk, data):
            return
        was_between, self._heads = self._is_between, 0
        self._began = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._upgrade()
        except httptools.HttpParserError:
            self._refuse(BAD_REQUEST)
        else:
            if self._is_in_head and not self._began:
                self._head_bytes += len(data)
                if self._head_bytes > MAX_HEAD_BYTES:
                    self._refuse(TOO_LARGE)
            if self.desk is not None and was_between and self._is_between and self._heads == 1:
                self.desk.learn(data, self.scope)

    def on_message_begin(self) -> None:
        self._is_in_head = self._began = True
        self._head_bytes = 0
        self._heads += 1
        self._is_between = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._is_between = True
        super().on_message_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:  # what follows a body is no header of the request
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._is_sound():
            raise UnsoundRequestError
        self._is_in_head = False
        # The other parser, that of addresses, knows no long ones; ours is not in need of it.
        asked, self.url, before = self.url, b"/", self.cycle
        super().on_headers_complete()
        self.url = asked
        if self.cycle is not before:
            joined: Any = OneAnswer(self.transport, self.loop)
            self.cycle.transport = joined
        raw, _, query = asked.partition(b"?")
        path = unquote(raw.decode("ascii"))
        self.scope.update({"path": path, "raw_path": raw, "query_string": query})

    def on_response_complete(self) -> None:
        is_last = not self.pipeline
        super().on_response_complete()
        if is_last and self._owed is not None and not self.transport.is_closing():
            self.refuse(self._owed)

    @abstractmethod
    def refuse(self, status: int) -> None:
        """Says what was wrong, and ends the connection."""

    def _is_sound(self) -> bool:
        version, hosts = self.parser.get_http_version(), 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding" and (value != b"chunked" or version != "1.1"):
                return False
        is_named = hosts == 1 or (hosts == 0 and version == "1.0")
        is_ours = self.url.startswith(b"/") and b"#" not in self.url
        return is_named and is_ours and version in _VERSIONS and len(self.pipeline) < _MOST_WAITING

    def _upgrade(self) -> None:
        if not self._should_upgrade():
            # We stay with HTTP, but the parser does not: this is its last request.
            self._is_deaf = True
            self.cycle.keep_alive = False
        elif self._is_answering():
            self._refuse(BAD_REQUEST)
        else:
            self.handle_websocket_upgrade()

    def _is_at_rest(self) -> bool:
        """Nothing is half read, half answered or waiting to be taken."""
        return (
            self._is_between
            and not self._is_answering()
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def _said_at_once(self, desk: Desk, data: bytes) -> bool:
        pieces = desk.answer(data, self.app_state, self.server_state.default_headers)
        if pieces is None:
            return False
        last: Any = self.cycle  # None before the first request, whatever its type says
        done: Any = _Answered() if last is None else last
        self.cycle = done
        self.transport.writelines(pieces)
        self.on_response_complete()
        return True

    def _refuse(self, status: int) -> None:
        self._is_deaf = True
        if self._is_in_head:
            has_to_wait = self._is_answering()
        elif self.pipeline:
            self.pipeline.popleft()  # its body is what is wrong, and nobody has begun with it
            has_to_wait = True
        elif self.cycle.response_started:
            self.transport.close()  # who is told something already cannot be told otherwise
            return
        else:
            has_to_wait = False
        if has_to_wait:
            self._owed = status
        else:
            self.refuse(status)

    def _is_answering(self) -> bool:
        cycle: Any = self.cycle  # None before the first request, whatever its type says
        return cycle is not None and (bool(self.pipeline) or not cycle.response_complete)
