"""A client of the local exchange's stream for the tests: a real socket, and waiting with an end."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import websockets
from aiohttp.test_utils import TestClient

Client = TestClient[Any, Any]
Json = dict[str, Any]
PATIENCE_S = 30.0


class Line:
    """One connection; frames that were passed over while waiting for another are kept."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.socket = socket
        self.passed: list[Json] = []
        self._number = 0

    async def frame(self) -> Json:
        """The next frame."""
        async with asyncio.timeout(PATIENCE_S):
            frame: Json = json.loads(await self.socket.recv())
        return frame

    async def until(self, wanted: Callable[[Json], bool]) -> Json:
        """The next frame that is wanted."""
        while True:
            frame = await self.frame()
            if wanted(frame):
                return frame
            self.passed.append(frame)

    async def send(self, **command: Any) -> str:
        """Send a command with the next id; the id as text."""
        self._number += 1
        await self.socket.send(json.dumps({"id": self._number, **command}))
        return str(self._number)

    async def answer(self, **command: Any) -> Json:
        """Send a command and wait for the frame that carries its id."""
        number = await self.send(**command)
        return await self.until(lambda frame: frame.get("id") == number)

    async def subscribe(self, topic: str) -> None:
        """Subscribe, and see it acknowledged."""
        answer = await self.answer(type="subscribe", topic=topic, response=True)
        assert answer["type"] == "ack", answer

    async def message(self, topic: str, subject: str | None = None) -> Json:
        """The next message of a topic."""
        return await self.until(
            lambda frame: frame.get("topic") == topic and subject in (None, frame.get("subject"))
        )


async def control(client: Client, where: str, /, **body: Any) -> Json:
    """POST to the control endpoint; its answer."""
    async with client.post(f"/_control/{where}", json=body) as response:
        assert response.status == 200, await response.text()
        answer: Json = await response.json()
        return answer


async def look(client: Client) -> Json:
    """The state of the stream."""
    async with client.get("/_control/stream") as response:
        answer: Json = await response.json()
        return answer


async def bullet(client: Client) -> Json:
    """What bullet-public answers."""
    async with client.post("/api/v1/bullet-public") as response:
        body = await response.json()
        assert body["code"] == "200000"
        data: Json = body["data"]
        return data


@asynccontextmanager
async def socket(
    client: Client, token: str | None = None, connect_id: str = "c1", **options: Any
) -> AsyncIterator[Line]:
    """A connection whose welcome has not been read yet."""
    ticket = await bullet(client)
    endpoint = ticket["instanceServers"][0]["endpoint"]
    address = f"{endpoint}?token={token or ticket['token']}&connectId={connect_id}"
    settings = {"max_queue": None, "max_size": None, "close_timeout": 1, **options}
    async with websockets.connect(address, ping_interval=None, compression=None, **settings) as one:
        yield Line(one)


@asynccontextmanager
async def line(client: Client, **options: Any) -> AsyncIterator[Line]:
    """A connection that has been welcomed."""
    async with socket(client, **options) as one:
        assert (await one.frame())["type"] == "welcome"
        yield one
