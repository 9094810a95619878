"""The stream over TLS: certificates nobody vouches for, and connections that are torn."""

import asyncio
import json
import random
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import picows
import pytest
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest

from app.adapters.kucoin.stream import socket as stream_socket
from app.adapters.kucoin.stream.market_stream import KucoinStream
from app.adapters.kucoin.stream.protocol import StreamLimits, StreamTicket
from app.market.domain.stream import QuoteUpdate, StreamTopic, TopicKind
from tests.adapters.kucoin.listening import PATIENCE_S, QUICK, Ear
from tests.adapters.kucoin.test_faults import certificate_in

NOW_MS = 1_729_843_266_123
# On a busy machine nobody is late.
PATIENT = replace(QUICK, welcome_s=60.0, open_s=60.0, ack_s=60.0, silence_s=60.0, check_s=60.0)
TOPICS = [StreamTopic(TopicKind.QUOTE, code) for code in ("XBTUSDTM", "ETHUSDTM")]


def quote(name: str, at_ms: int) -> bytes:
    data = {"sequence": at_ms, "bestBidPrice": "1.5", "bestBidSize": 1, "ts": at_ms * 1_000_000}
    return json.dumps({"topic": name, "type": "message", "data": data}).encode()


@dataclass
class Host(WSListener):
    """An exchange of quotes that welcomes, acknowledges and says one quote of each topic."""

    now_ms: int
    asked: list[str] = field(default_factory=list)
    transport: WSTransport | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        transport.send(WSMsgType.TEXT, b'{"id":"x","type":"welcome"}')

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is not WSMsgType.TEXT:
            return
        said = json.loads(frame.get_payload_as_bytes())
        is_ping = said["type"] == "ping"
        answer = {"id": said["id"], "type": "pong" if is_ping else "ack"}
        transport.send(WSMsgType.TEXT, json.dumps(answer).encode())
        if said["type"] != "subscribe":
            return
        channel, _, names = said["topic"].partition(":")
        for name in names.split(","):
            self.asked.append(name)
            transport.send(WSMsgType.TEXT, quote(f"{channel}:{name}", self.now_ms))

    def tear(self) -> None:
        """In the middle of a frame, without a goodbye of TLS or of TCP."""
        assert self.transport is not None
        under = self.transport.underlying_transport
        under.write(b"\x81\x7e\x01\x00" + quote("half of it", self.now_ms)[:40])
        linger = struct.pack("ii", 1, 0)
        under.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        under.abort()


@asynccontextmanager
async def hosting(room: Path) -> AsyncIterator[tuple[str, list[Host]]]:
    hosts: list[Host] = []

    def hosted(request: WSUpgradeRequest) -> WSListener:
        del request
        hosts.append(Host(NOW_MS + len(hosts)))
        return hosts[-1]

    server = await picows.ws_create_server(
        hosted, "127.0.0.1", 0, ssl=certificate_in(room), use_aiofastnet=False
    )
    async with server:
        yield f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}/", hosts


@asynccontextmanager
async def hearing(url: str) -> AsyncIterator[tuple[KucoinStream, Ear]]:
    async def ticket() -> StreamTicket:
        return StreamTicket("t", url, 18.0, 10.0)

    ear = Ear(lambda: NOW_MS)
    stream = KucoinStream(ticket, terms=PATIENT, monotonic=time.monotonic, dice=random.Random(1))
    stream.want(TOPICS)
    running = asyncio.ensure_future(stream.run(ear, lambda: None))
    try:
        yield stream, ear
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.01)


async def test_W14_after_a_tls_connection_was_torn_in_a_frame_all_is_subscribed_and_caught_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosting(tmp_path) as (url, hosts):
        trusting = ssl.create_default_context(cafile=tmp_path / "server.pem")
        monkeypatch.setattr(stream_socket, "_default_tls", lambda: trusting)
        async with hearing(url) as (stream, ear):
            await until(lambda: len(ear.said(QuoteUpdate)) == len(TOPICS))
            ear.is_unavailable = True
            hosts[0].tear()
            await until(
                lambda: any(one.phase == "catching_up" for one in stream.facts().connections)
            )
            assert len(hosts) == 2
            assert set(hosts[1].asked) == {topic.code for topic in TOPICS}
            assert not stream.live(), "nothing is fresh before what was missed has been asked for"
            assert {one.stamped_ms for one in ear.heard} == {NOW_MS}
            ear.is_unavailable = False
            await until(lambda: stream.live().keys() == set(TOPICS))
            await until(lambda: len(ear.heard) == 2 * len(TOPICS))
            assert ear.backfills == 2
            assert stream.facts().failures == {"closed_1006": 1}
            assert not stream.facts().dropped, "half of a frame is no message"


async def test_W14_what_nobody_vouches_for_is_no_connection_and_is_tried_again(
    tmp_path: Path,
) -> None:
    async with hosting(tmp_path) as (url, hosts), hearing(url) as (stream, ear):
        await until(lambda: stream.facts().failures.get("unreachable", 0) >= 2)
        assert hosts == []
        assert ear.heard == []
        assert not stream.live()


async def test_W14_who_hangs_up_within_the_handshake_of_tls_is_unreachable() -> None:
    def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        writer.transport.abort()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        url = f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(stream_socket.UnreachableError):
            async with stream_socket.open_socket(url, StreamLimits(), time.monotonic):
                pass
