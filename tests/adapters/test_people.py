"""Telegram, Discord, Slack and mail, each spoken to by its own protocol with a receiver here."""

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from apprise.plugins.discord import NotifyDiscord
from apprise.plugins.slack import NotifySlack
from apprise.plugins.telegram import NotifyTelegram

from app.adapters.notify import People
from app.domain.errors import Code, UnavailableError
from app.domain.notification import ChannelKind
from tests.adapters.test_webhook import DELIVERY, channel

BOT = "123456789:abcdefghijklmnopqrstuvwxyzabcdefghi"
SERVICES = {
    "telegram": (NotifyTelegram, "notify_url", f"tgram://{BOT}/12345", f"/{BOT}/sendMessage"),
    "discord": (
        NotifyDiscord,
        "notify_url",
        f"discord://{'1' * 18}/{'t' * 68}",
        f"/{'1' * 18}/{'t' * 68}",
    ),
    "slack": (
        NotifySlack,
        "webhook_url",
        "slack://TAAAAAAAA/BAAAAAAAA/abcdefghijklmnopqrstuvwx",
        "/TAAAAAAAA/BAAAAAAAA/abcdefghijklmnopqrstuvwx",
    ),
}


@pytest.mark.parametrize("name", SERVICES)
async def test_a_message_arrives_at_the_service(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin, address, url, path = SERVICES[name]
    got: list[tuple[str, Any]] = []
    status = 200

    async def take(request: web.Request) -> web.Response:
        got.append((request.path, await request.json()))
        return web.Response(status=status, text="ok" if name == "slack" else '{"ok":true}')

    app = web.Application()
    app.router.add_post("/{anything:.*}", take)
    async with TestServer(app) as server:
        # Telegram's address goes on without a slash of its own.
        at = f"http://127.0.0.1:{server.port}{'/' if name == 'telegram' else ''}"
        monkeypatch.setattr(plugin, address, at)
        people = People()
        people.check(channel(url, ChannelKind.APPRISE))
        await people.send(channel(url, ChannelKind.APPRISE), DELIVERY)
        ((asked, said),) = got
        assert asked == path
        assert "Title" in str(said)
        assert "Body" in str(said)
        status = 500
        with pytest.raises(UnavailableError) as caught:
            await people.send(channel(url, ChannelKind.APPRISE), DELIVERY)
    assert caught.value.code is Code.RECEIVER_UNAVAILABLE
    assert url.rpartition("/")[2] not in caught.value.detail


@asynccontextmanager
async def post_office(answer: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A mail server that takes every letter, or says `answer` to it: its port and the letters."""
    letters: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 here\r\n")
        while line := await reader.readline():
            word = line.strip().upper()
            if word == b"DATA":
                writer.write(b"354 go on\r\n")
                letters.append(await reader.readuntil(b"\r\n.\r\n"))
                writer.write(answer + b"\r\n")
            elif word == b"QUIT":
                writer.write(b"221 bye\r\n")
                break
            else:
                writer.write(b"250 well\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], letters
    finally:
        server.close()


def _mail(port: int) -> str:
    return f"mailto://127.0.0.1:{port}?from=us@example.com&to=you@example.com&mode=insecure"


async def test_a_message_arrives_as_mail() -> None:
    async with post_office(b"250 taken") as (port, letters):
        await People().send(channel(_mail(port), ChannelKind.APPRISE), DELIVERY)
    (letter,) = letters
    read = email.message_from_bytes(letter, policy=email.policy.default)
    assert read["Subject"] == "Title"
    assert "us@example.com" in read["From"]
    assert read["To"] == "you@example.com"
    body = read.get_body()
    assert body is not None
    assert "Body" in body.get_content()


async def test_mail_that_is_refused_is_a_failure_to_be_tried_again() -> None:
    async with post_office(b"452 full") as (port, letters):
        with pytest.raises(UnavailableError) as caught:
            await People().send(channel(_mail(port), ChannelKind.APPRISE), DELIVERY)
    assert caught.value.code is Code.RECEIVER_UNAVAILABLE
    assert len(letters) == 1
