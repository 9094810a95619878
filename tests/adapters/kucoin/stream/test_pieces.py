"""Messages over a real WebSocket: in pieces, too long, not text, more than anybody reads."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import picows
import pytest
from picows import WSCloseCode, WSListener, WSMsgType, WSTransport, WSUpgradeRequest

from app.adapters.kucoin.stream.protocol import StreamLimits
from app.adapters.kucoin.stream.socket import MOST, SLICE, Message, UnreachableError, open_socket

TERMS = replace(StreamLimits(), message_bytes=1_000)
Talk = Callable[[WSTransport], None]


class Host(WSListener):
    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._talk(transport)


@asynccontextmanager
async def exchange(talk: Talk) -> AsyncIterator[str]:
    """Says something to everybody who connects."""

    def hosted(request: WSUpgradeRequest) -> WSListener:
        del request
        return Host(talk)

    server = await picows.ws_create_server(hosted, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def heard(url: str) -> tuple[list[Message], str]:
    """Everything until the end, and how it ended."""
    found: list[Message] = []
    async with asyncio.timeout(60.0), open_socket(url, TERMS, time.monotonic) as socket:
        part: list[Message] = [b""]
        while part:
            _, part = await socket.read()
            assert len(part) <= SLICE
            found += part
        return found, socket.end


async def test_a_message_in_pieces_is_one_and_what_is_no_text_is_told_apart() -> None:
    def talk(transport: WSTransport) -> None:
        transport.send(WSMsgType.TEXT, b"one ", fin=False)
        transport.send(WSMsgType.CONTINUATION, b"message", fin=True)
        transport.send(WSMsgType.BINARY, b"blob", fin=False)
        transport.send(WSMsgType.CONTINUATION, b"", fin=True)
        transport.send(WSMsgType.TEXT, b"another")
        transport.send_close(WSCloseCode.GOING_AWAY)

    async with exchange(talk) as url:
        assert await heard(url) == ([b"one message", None, b"another"], "closed_1001")


@pytest.mark.parametrize("pieces", [1, 2])
async def test_W13_a_message_that_is_too_long_ends_the_connection(pieces: int) -> None:
    def talk(transport: WSTransport) -> None:
        transport.send(WSMsgType.TEXT, b"fine")
        transport.send(WSMsgType.TEXT, b"x" * (1_200 // pieces), fin=pieces == 1)
        if pieces > 1:
            transport.send(WSMsgType.CONTINUATION, b"x" * 600)

    async with exchange(talk) as url:
        texts, end = await heard(url)
        assert b"fine" in texts or not texts
        assert all(text is None or len(text) <= TERMS.message_bytes for text in texts)
        assert end in {"closed_1009", "closed_1006"}


async def test_W12_more_than_can_wait_is_left_in_the_socket_and_comes_in_its_order() -> None:
    count = 3 * MOST

    def talk(transport: WSTransport) -> None:
        for number in range(count):
            transport.send(WSMsgType.TEXT, b"%d" % number)
        transport.send_close(WSCloseCode.OK)

    async with exchange(talk) as url:
        texts, end = await heard(url)
        assert texts == [b"%d" % number for number in range(count)]
        assert end == "closed_1000"


async def test_W12_of_what_nobody_reads_so_much_waits_here_and_the_rest_at_the_exchange() -> None:
    count = 3 * MOST

    def talk(transport: WSTransport) -> None:
        for _ in range(count):
            transport.send(WSMsgType.TEXT, b"x" * 900)
        transport.send_close(WSCloseCode.OK)

    async with exchange(talk) as url, open_socket(url, TERMS, time.monotonic) as socket:
        pile = socket._queue
        async with asyncio.timeout(60.0):
            while len(pile.messages) < MOST:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)  # all would be here by now
        # What one look into the socket brought is not thrown away: some megabytes.
        assert len(pile.messages) < 2 * MOST
        assert pile.ended is None, "the rest waits at the exchange"
        found, part = 0, [b""]
        while part:
            _, part = await socket.read()  # type: ignore[assignment]  # all of it is text
            found += len(part)
        assert (found, socket.end) == (count, "closed_1000")


async def test_what_came_while_nobody_looked_is_never_called_younger_than_it_is() -> None:
    hosts, now = list[WSTransport](), [50.0]

    def talk(transport: WSTransport) -> None:
        hosts.append(transport)
        transport.send(WSMsgType.TEXT, b"one")

    terms = replace(TERMS, rest_s=0.05)
    async with exchange(talk) as url, open_socket(url, terms, lambda: now[0]) as socket:
        assert (await socket.read())[1] == [b"one"]
        now[0] = 100.0
        reading = asyncio.ensure_future(socket.read())
        await asyncio.sleep(0)  # it looks away
        now[0] = 100.04
        hosts[0].send(WSMsgType.TEXT, b"two")
        assert await reading == (100.0, [b"two"])
        reading = asyncio.ensure_future(socket.read())
        await asyncio.sleep(2 * terms.rest_s)  # it looks again, and nothing came
        now[0] = 200.0
        hosts[0].send(WSMsgType.TEXT, b"three")
        at, texts = await reading
        assert texts == [b"three"]
        assert 200.0 - terms.rest_s <= at <= 200.0


async def test_who_does_not_speak_the_protocol_is_unreachable() -> None:
    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hangs_up, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(UnreachableError):
            await heard(f"ws://127.0.0.1:{port}/")
    for address in (f"ws://127.0.0.1:{port}/", "ws://127.0.0.1:99999/", "nowhere"):
        with pytest.raises(UnreachableError):
            await heard(address)
