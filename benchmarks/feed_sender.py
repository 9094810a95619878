"""Process that sends market messages at full speed or at a rate: the far end of `feed`.

It speaks KuCoin's protocol as far as a client needs it (welcome, ack, pong). Frames are built
before they are due, because the reader is measured. A client without subscriptions gets every
message. Of a hundred messages 93 are quotes, 4 marks and 3 books.
"""

import asyncio
import json
import time
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any, Final

import aiohttp
import numpy as np
from aiohttp import WSMsgType, web

from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange

CLOSE: Final = 40  # contracts of which marks and books are told
SLICE_S: Final = 0.002
_FULL: Final = 4 << 20  # bytes that wait in a socket before the next ones are made
_PIECE: Final = 1 << 16
_FIRST: Final = 1_000_000_000_000  # sequences are all of one length, and so are the frames
_MIX: Final = ("quote",) * 31 + ("mark",) + ("quote",) * 31 + ("book",) + ("quote",) * 31 + (
    "mark", "mark", "mark", "book", "book",
)  # fmt: skip
_QUOTE: Final = (
    '{"topic":"/contractMarket/tickerV2:%s","type":"message","subject":"tickerV2","sn":%%d,'
    '"data":{"symbol":"%s","sequence":%%d,"bestBidSize":2905,"bestBidPrice":"%s",'
    '"bestAskPrice":"%s","bestAskSize":1318,"ts":%%d}}'
)
_MARK: Final = (
    '{"topic":"/contract/instrument:%s","type":"message","subject":"mark.index.price","data":'
    '{"symbol":"%s","granularity":1000,"indexPrice":%s,"markPrice":%s,"timestamp":%%d}}'
)
_BOOK: Final = (
    '{"topic":"/contractMarket/level2Depth50:%s","type":"message","subject":"level2","sn":%%d,'
    '"data":{"bids":[%s],"sequence":%%d,"timestamp":%%d,"ts":%%d,"asks":[%s]}}'
)


Message = tuple[tuple[str, str], bytes]  # kind and contract, frame


def framed(text: bytes) -> bytes:
    """An unmasked text frame."""
    if len(text) < 126:
        return b"\x81" + bytes([len(text)]) + text
    return b"\x81\x7e" + len(text).to_bytes(2) + text


@dataclass(frozen=True, slots=True)
class Price:
    """Content of the messages of one contract."""

    code: str
    bid: str
    ask: str

    def pattern(self, kind: str) -> bytes:
        """A frame with room for the numbers that change."""
        code, bid, ask = self.code, self.bid, self.ask
        if kind == "quote":
            return (_QUOTE % (code, code, bid, ask)).encode()
        if kind == "mark":
            return (_MARK % (code, code, bid, bid)).encode()
        bids, asks = (",".join(f'["{price}",{n + 1}]' for n in range(50)) for price in (bid, ask))
        return (_BOOK % (code, bids, asks)).encode()


class Script:
    """Order of messages: quotes of all contracts in turn, marks and books of the first ones."""

    def __init__(self, prices: list[Price], close: int = CLOSE) -> None:
        turns = {
            "quote": cycle(prices),
            "mark": cycle(prices[:close]),
            "book": cycle(prices[:close]),
        }
        made: dict[tuple[str, str], bytes] = {}
        self._round: list[tuple[str, str, bytes]] = []
        for kind in islice(cycle(_MIX), len(_MIX) * len(prices)):
            one = next(turns[kind])
            pattern = made.setdefault((kind, one.code), one.pattern(kind))
            self._round.append((kind, one.code, pattern))

    def frame(self, number: int, now_ns: int) -> Message:
        """A frame with this stamp."""
        kind, code, pattern = self._round[number % len(self._round)]
        sequence = _FIRST + number
        if kind == "quote":
            return (kind, code), framed(pattern % (sequence, sequence, now_ns))
        if kind == "mark":
            return (kind, code), framed(pattern % (now_ns // 1_000_000))
        stamp_ms = now_ns // 1_000_000
        return (kind, code), framed(pattern % (sequence, sequence, stamp_ms, stamp_ms))

    def quoted(self, number: int) -> str | None:
        """Contract of the quote of a message."""
        kind, code, _ = self._round[number % len(self._round)]
        return code if kind == "quote" else None


_TOPICS: Final = {
    "/contractMarket/tickerV2": "quote",
    "/contract/instrument": "mark",
    "/contractMarket/level2Depth50": "book",
}


@dataclass(eq=False)
class Client:
    ws: web.WebSocketResponse
    transport: asyncio.Transport
    wants: set[tuple[str, str]] = field(default_factory=set)

    async def obey(self) -> None:
        async for message in self.ws:
            if message.type is not WSMsgType.TEXT:
                return
            said = json.loads(message.data)
            if said["type"] == "ping":
                await self.ws.send_json({"id": said["id"], "type": "pong"})
                continue
            channel, _, names = said["topic"].partition(":")
            kind = _TOPICS.get(channel, channel)
            topics = {(kind, name) for name in names.split(",")}
            if said["type"] == "subscribe":
                self.wants |= topics
            else:
                self.wants -= topics
            await self.ws.send_json({"id": said["id"], "type": "ack"})

    def chosen(self, made: list[Message]) -> list[bytes]:
        return [frame for topic, frame in made if not self.wants or topic in self.wants]

    async def give(self, blob: bytes) -> None:
        self.transport.write(blob)
        while self._is_full():  # noqa: ASYNC110  # nobody tells when it is not
            await asyncio.sleep(SLICE_S)

    def _is_full(self) -> bool:
        waiting = self.transport.get_write_buffer_size()
        return waiting > _FULL and not self.transport.is_closing()


@dataclass
class Sender:
    script: Script
    clients: list[Client] = field(default_factory=list)

    async def connect(self, request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(autoping=True, compress=False)
        await ws.prepare(request)
        if not isinstance(request.transport, asyncio.Transport):
            raise TypeError("a socket without a transport")
        one = Client(ws, request.transport)
        await ws.send_json({"id": request.query.get("connectId", "x"), "type": "welcome"})
        self.clients.append(one)
        try:
            await one.obey()
        finally:
            self.clients.remove(one)
        return ws

    async def go(self, request: web.Request) -> web.Response:
        """{per_second, seconds} for a rate, or {count} at once; `stamps` collects the stamps."""
        asked: dict[str, Any] = await request.json()
        count = int(asked.get("count") or asked["per_second"] * asked["seconds"])
        per_second = asked.get("per_second")
        stamps = np.zeros(count, dtype=np.int64)
        sent, given, began = 0, 0, time.perf_counter()
        if per_second is None:
            given = await self._at_once(count)
        while per_second is not None and sent < count:
            due = min(count, int((time.perf_counter() - began) * per_second))
            now_ns = time.time_ns()
            stamps[sent:due] = now_ns
            given += await self._tell([self.script.frame(n, now_ns) for n in range(sent, due)])
            sent = due
            await asyncio.sleep(SLICE_S)
        if "stamps" in asked:
            np.save(asked["stamps"], stamps)
        return web.json_response({"given": given, "seconds": time.perf_counter() - began})

    async def _tell(self, made: list[Message]) -> int:
        """Number of messages that match the subscriptions."""
        count = 0
        for one in list(self.clients):
            frames = one.chosen(made)
            count += len(frames)
            await one.give(b"".join(frames))
        return count

    async def _at_once(self, count: int) -> int:
        """All frames are built first, so that the reader never waits for the sender."""
        now_ns = time.time_ns()
        made = [self.script.frame(n, now_ns + n) for n in range(count)]
        chosen = [(one, one.chosen(made)) for one in self.clients]
        blobs = [(one, b"".join(frames)) for one, frames in chosen]
        del made

        async def send(one: Client, blob: bytes) -> None:
            for at in range(0, len(blob), _PIECE):
                await one.give(blob[at : at + _PIECE])

        async with asyncio.TaskGroup() as group:
            for one, blob in blobs:
                group.create_task(send(one, blob))
        return sum(len(frames) for _, frames in chosen)


async def prices_of(exchange_url: str) -> list[Price]:
    """Prices as the exchange answers them now; a market without a side has no messages here."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{exchange_url}/api/v1/allTickers") as answer,
    ):
        rows = (await answer.json())["data"]
    named = [(row["symbol"], row.get("bestBidPrice"), row.get("bestAskPrice")) for row in rows]
    return [Price(code, str(bid), str(ask)) for code, bid, ask in named if bid and ask]


async def serve() -> None:
    def wall() -> float:
        return time.time_ns() / 1e9

    async with serve_exchange(SandboxOptions(quota=1_000_000), wall) as exchange_url:
        sender = Sender(Script(await prices_of(exchange_url)))
        app = web.Application()
        app.router.add_get("/", sender.connect)
        app.router.add_post("/go", sender.go)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(exchange_url, runner.addresses[0][1], flush=True)  # noqa: T201  # its parent reads it
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
