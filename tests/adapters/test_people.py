"""Telegram, Discord, Slack and mail, each spoken to by its own protocol with a receiver here."""

import asyncio
import base64
import email
import email.policy
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from structlog.testing import capture_logs

from app.adapters.notifications.egress import ALLOW_PRIVATE, Egress
from app.adapters.notifications.senders import SERVICES, PeopleNotifier
from app.alerts.domain.notifications import ChannelKind
from app.foundation.errors import Code, RefusedError, UnavailableError
from tests.adapters.kucoin.test_faults import certificate_in
from tests.adapters.test_webhook import DELIVERY, channel

BOT = "123456789:abcdefghijklmnopqrstuvwxyzabcdefghi"
DISCORD = f"discord://{'1' * 18}/{'t' * 68}"
SLACK = "slack://TAAAAAAAA/BAAAAAAAA/abcdefghijklmnopqrstuvwx"
TEXT = "Title\nBody"
MESSAGES: dict[str, tuple[str, str, list[dict[str, Any]]]] = {
    "telegram": (
        f"tgram://{BOT}/12345/-100777:9/@desk",
        f"/bot{BOT}/sendMessage",
        [
            {"chat_id": "12345", "text": TEXT},
            {"chat_id": "-100777", "text": TEXT, "message_thread_id": 9},
            {"chat_id": "@desk", "text": TEXT},
        ],
    ),
    "discord": (
        DISCORD,
        f"/api/webhooks/{'1' * 18}/{'t' * 68}",
        [{"content": "**Title**\nBody", "allowed_mentions": {"parse": []}}],
    ),
    "slack": (
        SLACK,
        "/services/TAAAAAAAA/BAAAAAAAA/abcdefghijklmnopqrstuvwx",
        [{"text": TEXT}],
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
async def test_a_message_arrives_at_the_service(name: str) -> None:
    url, path, documents = MESSAGES[name]
    got: list[tuple[str, Any]] = []
    status = 200

    async def take(request: web.Request) -> web.Response:
        got.append((request.path, await request.json()))
        return web.Response(status=status, text="ok" if name == "slack" else '{"ok":true}')

    app = web.Application()
    app.router.add_post("/{anything:.*}", take)
    async with TestServer(app) as server:
        services = dict.fromkeys(SERVICES, f"http://127.0.0.1:{server.port}")
        people = PeopleNotifier(Egress(allow_private=True), services=services)
        people.check(channel(url, ChannelKind.APPRISE))
        await people.send(channel(url, ChannelKind.APPRISE), DELIVERY)
        assert got == [(path, document) for document in documents]
        status = 500
        with pytest.raises(UnavailableError) as caught:
            await people.send(channel(url, ChannelKind.APPRISE), DELIVERY)
    assert caught.value.code is Code.RECEIVER_UNAVAILABLE
    assert url.rpartition("/")[2] not in caught.value.detail


def test_the_services_are_asked_at_their_own_addresses() -> None:
    assert SERVICES == {
        "tgram": "https://api.telegram.org",
        "discord": "https://discord.com",
        "slack": "https://hooks.slack.com",
    }


@dataclass
class PostOffice:
    """A mail server that takes every letter, or says `answer` to it."""

    answer: bytes = b"250 taken"
    to_recipient: bytes = b"250 well"
    offers: tuple[bytes, ...] = (b"AUTH PLAIN",)
    tls: ssl.SSLContext | None = None
    port: int = 0
    letters: list[bytes] = field(default_factory=list)
    said: list[tuple[bool, str]] = field(default_factory=list)  # whether encrypted, and the line

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 here\r\n")
        try:
            while line := await reader.readline():
                word, is_sealed = line.strip(), writer.get_extra_info("sslcontext") is not None
                self.said.append((is_sealed, word.decode()))
                match word.upper().split(b" ")[0].split(b":")[0]:
                    case b"EHLO":
                        offers = [
                            one for one in self.offers if not (is_sealed and one == b"STARTTLS")
                        ]
                        lines = [b"250-here", *(b"250-" + one for one in offers), b"250 8BITMIME"]
                        writer.write(b"\r\n".join(lines) + b"\r\n")
                    case b"STARTTLS" if self.tls is not None:
                        writer.write(b"220 go on\r\n")
                        await writer.start_tls(self.tls)
                    case b"AUTH":
                        writer.write(b"235 welcome\r\n")
                    case b"RCPT":
                        writer.write(self.to_recipient + b"\r\n")
                    case b"DATA":
                        writer.write(b"354 go on\r\n")
                        letter = await reader.readuntil(b"\r\n.\r\n")
                        self.letters.append(letter.removesuffix(b".\r\n"))
                        writer.write(self.answer + b"\r\n")
                    case b"QUIT":
                        writer.write(b"221 bye\r\n")
                        break
                    case _:
                        writer.write(b"250 well\r\n")
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def post_office(
    *, wrapped: ssl.SSLContext | None = None, **given: Any
) -> AsyncIterator[PostOffice]:
    """On a port of its own; `wrapped` encrypts from the first byte."""
    office = PostOffice(**given)
    server = await asyncio.start_server(office.serve, "127.0.0.1", 0, ssl=wrapped)
    office.port = server.sockets[0].getsockname()[1]
    try:
        yield office
    finally:
        server.close()


def local(tls: ssl.SSLContext | None = None) -> PeopleNotifier:
    return PeopleNotifier(Egress(allow_private=True, tls=tls))


async def mailed(url: str, people: PeopleNotifier | None = None) -> None:
    await (people or local()).send(channel(url, ChannelKind.APPRISE), DELIVERY)


async def test_a_message_arrives_as_mail() -> None:
    async with post_office() as office:
        await mailed(
            f"mailto://127.0.0.1:{office.port}/me@example.com?from=us@example.com"
            "&to=you@example.com,him@example.com&cc=her@example.com&bcc=them@example.com"
            "&mode=insecure&name=The%20Desk"
        )
    (letter,) = office.letters
    read = email.message_from_bytes(letter, policy=email.policy.default)
    assert read["Subject"] == "Title"
    assert read["From"] == "The Desk <us@example.com>"
    assert read["To"] == "me@example.com, you@example.com, him@example.com"
    assert read["Cc"] == "her@example.com"
    assert b"them@example.com" not in letter
    body = read.get_body()
    assert body is not None
    assert body.get_content().strip() == "Body"
    named = [line for _, line in office.said if line.upper().startswith(("MAIL", "RCPT"))]
    assert "us@example.com" in named[0]
    names = ("me", "you", "him", "her", "them")
    assert [one in line for one, line in zip(names, named[1:], strict=True)] == [True] * 5


async def test_mail_that_is_refused_is_a_failure_to_be_tried_again() -> None:
    async with post_office(answer=b"452 full") as office:
        with pytest.raises(UnavailableError, match="answered 452") as caught:
            await mailed(f"mailto://127.0.0.1:{office.port}?to=you@example.com&mode=insecure")
    assert caught.value.code is Code.RECEIVER_UNAVAILABLE
    assert len(office.letters) == 1


async def test_S11_recipients_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    with capture_logs() as lines:
        for refusal in (b"250 well", b"550 no you@example.com here"):
            async with post_office(to_recipient=refusal) as office:
                url = f"mailto://127.0.0.1:{office.port}?to=you@example.com&mode=insecure"
                try:
                    await mailed(url)
                except UnavailableError as error:
                    said.append(error.detail)
    assert said == ["answered 550"]
    assert "you@" not in caplog.text
    assert "you@" not in str(lines)


@pytest.fixture
def server_tls(tmp_path: Path) -> ssl.SSLContext:
    return certificate_in(tmp_path)


@pytest.fixture
def trusting(server_tls: ssl.SSLContext, tmp_path: Path) -> ssl.SSLContext:
    """Trusts the certificate of the server, which is that of 127.0.0.1."""
    del server_tls  # its certificate is there
    return ssl.create_default_context(cafile=tmp_path / "server.pem")


LOGIN = base64.b64encode(b"\0us@example.com\0secret").decode()
CREDENTIALS = "us%40example.com:secret@127.0.0.1"


@pytest.mark.parametrize("mode", ["", "?mode=starttls"])
async def test_a_password_is_sent_after_starttls(
    mode: str, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with post_office(tls=server_tls, offers=(b"STARTTLS", b"AUTH PLAIN")) as office:
        await mailed(f"mailto://{CREDENTIALS}:{office.port}{mode}", local(trusting))
    assert len(office.letters) == 1
    sealed = [line for is_sealed, line in office.said if is_sealed]
    assert any(LOGIN in line for line in sealed)
    assert [line.split()[0].upper() for is_sealed, line in office.said if not is_sealed] == [
        "EHLO",
        "STARTTLS",
    ]


async def test_mail_over_tls_from_the_first_byte(
    server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with post_office(wrapped=server_tls) as office:
        url = f"mailtos://{CREDENTIALS}:{office.port}?mode=ssl"
        await mailed(url, local(trusting))
    assert len(office.letters) == 1


async def test_a_password_is_kept_from_a_server_without_tls() -> None:
    async with post_office() as office:
        with pytest.raises(UnavailableError):
            await mailed(f"mailto://{CREDENTIALS}:{office.port}")
    assert not any("AUTH" in line.upper() for _, line in office.said)
    assert office.letters == []


async def test_a_mail_server_is_known_by_its_certificate(
    server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with post_office(tls=server_tls, offers=(b"STARTTLS", b"AUTH PLAIN")) as office:
        for host, tls in (("mail.example.com", trusting), ("127.0.0.1", None)):
            people = PeopleNotifier(Egress(allow_private=True, resolve=resolve, tls=tls))
            url = f"mailto://us:secret@{host}:{office.port}?from=us@example.com"
            with pytest.raises(UnavailableError):
                await mailed(url, people)
    assert office.letters == []


@pytest.mark.parametrize(
    "url",
    ["json://127.0.0.1/x", "file:///etc/passwd", "syslog://", "tgram://", "", "no address",
     "tgram://12345", f"tgram://{BOT}", f"tgram://{BOT}/a b", "discord://1/2", "slack://a/b/c",
     "mailto://", "mailto://user:password@", "mailto://:password@example.com",
     "mailto://user:password@example.com:99999", "mailto://user:password@example.com#x",
     "mailto://user:password@example.com?mode=insecure", "mailtos://example.com?mode=insecure",
     "mailto://user:password@example.com?mode=auto",
     "mailto://user:password@example.com?to=nobody", "mailto://example.com?name=a%0Ab",
     "mailto://example.com?to=a%0Ab@example.com", "mailto://example.com?from=a@b.c,d@e.f",
     "mailto://example.com?to=" + ",".join(f"a{n}@example.com" for n in range(21))],
)  # fmt: skip
def test_S11_people_are_reached_by_a_few_services_only(url: str) -> None:
    with pytest.raises(RefusedError) as caught:
        PeopleNotifier().check(channel(url, ChannelKind.APPRISE))
    assert caught.value.code is Code.VALIDATION_FAILED
    assert "password" not in caught.value.detail.replace("A password is", "")
    assert (ALLOW_PRIVATE in caught.value.detail) is url.startswith("json:")


def test_services_for_people_are_understood() -> None:
    for url in (
        f"tgram://{BOT}/12345",
        f"tgram://bot{BOT}/-10012345/",
        DISCORD,
        f"discord://bot@{DISCORD.removeprefix('discord://')}/",
        SLACK,
        "mailto://user:password@example.com",
        "mailtos://user:password@gmail.com?to=you@example.com",
        "mailto://user%40example.com:pass@smtp.example.com:465/you@example.com",
    ):
        PeopleNotifier().check(channel(url, ChannelKind.APPRISE))


async def test_a_person_who_cannot_be_reached_is_a_failure() -> None:
    with pytest.raises(UnavailableError) as caught:
        await mailed("json://127.0.0.1:1/x")
    assert "127.0.0.1" not in caught.value.detail
    with pytest.raises(UnavailableError) as caught:
        await mailed("mailto://127.0.0.1:1?to=you@example.com&mode=insecure")
    assert "127.0.0.1" not in caught.value.detail
    never = asyncio.Event()

    async def take(_: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    app = web.Application()
    app.router.add_post("/x", take)
    async with TestServer(app) as server:
        slow = PeopleNotifier(Egress(allow_private=True, timeout_s=0.2))
        with pytest.raises(UnavailableError, match="in time"):
            await mailed(f"json://127.0.0.1:{server.port}/x", slow)
        never.set()
