"""S11: channels of every kind connect to checked public addresses and to nothing else."""

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest
import trustme
from aiohttp import web
from hypothesis import given, settings, strategies
from yarl import URL

from app.adapters.notifications.egress import ALLOW_PRIVATE, Egress, is_public, split_url
from app.adapters.notifications.senders import SERVICES, PeopleNotifier, WebhookNotifier
from app.alerts.domain.notifications import ChannelKind
from app.alerts.services.notifications import Notifier
from app.foundation.errors import Code, RefusedError, UnavailableError
from tests.adapters.test_people import BOT, DISCORD, SLACK, post_office
from tests.adapters.test_webhook import DELIVERY, channel

# Public URLs of every kind of channel that there is.
URLS = {
    "webhook": "https://hooks.example.com/hook",
    "telegram": f"tgram://{BOT}/12345",
    "discord": DISCORD,
    "slack": SLACK,
    "mail": "mailto://user:password@example.com",
    "mail by name": "mailto://user:password@example.com?smtp=mail.example.net",
}


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.1", "0.1.2.3", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1",
        "127.255.255.254", "168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255",
        "192.0.0.1", "192.0.0.9", "192.0.0.192", "192.0.2.1", "192.31.196.1", "192.52.193.1",
        "192.88.99.1", "192.168.0.1", "192.175.48.1", "198.18.0.1", "198.19.255.255",
        "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1",
        "255.255.255.255",
        "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::a00:1",
        "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::a83f:8110", "64:ff9b:1::808:808",
        "100::1", "100:0:0:1::1", "2001::1", "2001:1::1", "2001:10::1", "2001:20::1",
        "2001:1ff::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::1", "2620:4f:8000::1",
        "3fff::1", "3fff:fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1",
        "fe80::1%1", "fec0::1", "feff::1", "ff02::1",
    ],
)  # fmt: skip
def test_S11_an_address_of_a_special_range_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "168.63.129.17", "172.32.0.1",
     "192.0.1.1", "192.88.98.1", "198.20.0.1", "223.255.255.255", "2001:200::1",
     "2606:4700:4700::1111", "2a00:1450:4001::1", "64:ff9b::808:808"],
)  # fmt: skip
def test_S11_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(ip_address(address))


def ways(egress: Egress, services: dict[str, str] | None = None) -> dict[str, Notifier]:
    people = PeopleNotifier(egress, services=services or SERVICES)
    return {
        name: WebhookNotifier(lambda: 0, egress) if name == "webhook" else people for name in URLS
    }


CONNECTS: list[object] = []
_is_heard = False


def _hear(event: str, given: tuple[object, ...]) -> None:
    if _is_heard and event in {"socket.connect", "socket.sendto"}:
        CONNECTS.append(given[1])


sys.addaudithook(_hear)  # there is no way to take one away again


@contextmanager
def connections() -> Iterator[list[object]]:
    """Every address that this process tries to reach meanwhile."""
    global _is_heard  # noqa: PLW0603  # the hook stays for ever
    CONNECTS.clear()
    _is_heard = True
    try:
        yield CONNECTS
    finally:
        _is_heard = False


@pytest.mark.parametrize("name", URLS)
@pytest.mark.parametrize(
    "found", [["127.0.0.1"], ["1.1.1.1", "10.0.0.1"], ["fec0::1"], ["168.63.129.16"]], ids=str
)
async def test_S11_a_resolver_that_changes_its_answer_leads_no_channel_inside(
    name: str, found: list[str]
) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return found

    way = ways(Egress(resolve=resolve))[name]
    asked = channel(URLS[name], way.kind)
    way.check(asked)  # at creation it looked well
    with connections() as tried, pytest.raises(RefusedError) as caught:
        async with way.line(asked) as tell:
            await tell(DELIVERY)
    assert caught.value.code is Code.WEBHOOK_URL_FORBIDDEN
    assert tried == []


@dataclass
class Host:
    """A program on two loopback addresses that answers every request in the same way."""

    status: int = 200
    location: str = ""
    port: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)  # address and path

    async def take(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        address = request.transport.get_extra_info("sockname")[0]
        self.asked.append((address, request.path))
        return web.Response(status=self.status, headers={"Location": self.location})

    @asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.take)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        await web.TCPSite(runner, "127.0.0.2", self.port).start()
        try:
            yield
        finally:
            await runner.cleanup()


def local(name: str, port: int) -> tuple[str, dict[str, str]]:
    """URL of a channel whose name is looked up, and the services that it goes to."""
    at = f"http://hooks.example.com:{port}"
    if name == "mail":
        return f"mailto://hooks.example.com:{port}?to=you@example.com&mode=insecure", {}
    return f"{at}/hook" if name == "webhook" else URLS[name], dict.fromkeys(SERVICES, at)


@pytest.mark.parametrize("name", ["webhook", "telegram", "discord", "slack"])
async def test_S11_a_line_stays_with_the_address_that_was_checked(name: str) -> None:
    answers = [["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2"]]

    async def resolve(host: str, port: int) -> list[str]:
        return answers.pop(0)

    host = Host()
    async with host.up():
        url, services = local(name, host.port)
        way = ways(Egress(allow_private=True, resolve=resolve), services)[name]
        async with way.line(channel(url, way.kind)) as tell:
            await tell(DELIVERY)
            await tell(DELIVERY)
    assert [address for address, _ in host.asked] == ["127.0.0.1"] * 2
    assert len(answers) == 2, "the name was asked for once"


async def test_S11_mail_goes_to_the_address_that_was_checked() -> None:
    asked: list[tuple[str, int]] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.1"]

    async with post_office() as office:
        url, _ = local("mail", office.port)
        people = PeopleNotifier(Egress(allow_private=True, resolve=resolve))
        with connections() as tried:
            await people.send(channel(url, ChannelKind.APPRISE), DELIVERY)
    assert len(office.letters) == 1
    assert asked == [("hooks.example.com", office.port)]
    assert tried == [("127.0.0.1", office.port)]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("name", ["webhook", "telegram", "discord", "slack"])
async def test_S11_a_redirect_is_a_failure_and_is_not_followed(name: str, status: int) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    host = Host(status=status)
    async with host.up():
        host.location = f"http://127.0.0.2:{host.port}/elsewhere"
        url, services = local(name, host.port)
        way = ways(Egress(allow_private=True, resolve=resolve), services)[name]
        for location in (host.location, "/elsewhere"):
            host.location = location
            with pytest.raises(UnavailableError, match=f"answered {status}"):
                async with way.line(channel(url, way.kind)) as tell:
                    await tell(DELIVERY)
    assert len(host.asked) == 2
    assert all(address == "127.0.0.1" for address, _ in host.asked)
    assert not any("elsewhere" in path for _, path in host.asked)


@pytest.mark.parametrize("name", ["webhook", "slack"])
async def test_S11_an_endless_answer_is_cut_off(name: str) -> None:
    """The receiver would go on for ever; it is a delivery all the same."""
    sent = 0
    is_cut = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
                await writer.drain()
                sent += 0x4000
        except ConnectionError:
            is_cut.set()
        finally:
            writer.close()

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        url, services = local(name, server.sockets[0].getsockname()[1])
        egress = Egress(allow_private=True, resolve=resolve, timeout_s=60.0)
        way = ways(egress, services)[name]
        async with way.line(channel(url, way.kind)) as tell:
            await tell(DELIVERY)
        async with asyncio.timeout(60):
            await is_cut.wait()
    finally:
        server.close()
    assert sent < 32 * 1024 * 1024, "what the buffers of both sides hold"


_HOSTILE = (
    "hooks.example.com", "127.0.0.1", "[::1]", "@", ":", "/", "\\", "?", "#", "\t", "\n", " ",
    "%2e", "%40", "%5b", "8443", "443", "\u3002", "\u2460", "\u017f", "..", ".", "x", "[", "]",
    "%00", "\u00df", "xn--", "\u0130", "%6c", "localho\u017ft", "0x7f", "\u212a",
)  # fmt: skip


@settings(max_examples=3_000)
@given(strategies.lists(strategies.sampled_from(_HOSTILE), min_size=1, max_size=6))
def test_S11_the_client_reads_the_host_that_was_checked(parts: list[str]) -> None:
    """Two readers of one URL must not differ: the second would skip the check of the first."""
    url = f"https://{''.join(parts)}"
    try:
        WebhookNotifier(lambda: 0).check(channel(url))
    except RefusedError:
        return
    try:
        read = URL(url)
    except ValueError:
        return  # it cannot be sent
    checked = split_url(url)
    assert ((read.raw_host or "").lower(), read.port) == (checked.hostname, checked.port or 443)
    assert (read.user, read.password) == (None, None)


async def test_S11_a_name_of_the_certificate_is_that_of_the_url_and_not_of_the_address() -> None:
    """SNI and Host carry the name, the connection goes to the pinned address."""
    authority, heard = trustme.CA(), list[str | None]()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("hooks.example.com").configure_cert(server)
    server.sni_callback = lambda _, name, __: heard.append(name)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    hosts: list[str] = []

    async def take(request: web.Request) -> web.Response:
        hosts.append(request.headers["Host"])
        return web.Response()

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server).start()
        port = runner.addresses[0][1]

        async def send(name: str, tls: ssl.SSLContext | None) -> None:
            hook = WebhookNotifier(lambda: 0, Egress(allow_private=True, resolve=resolve, tls=tls))
            await hook.send(channel(f"https://{name}:{port}/hook"), DELIVERY)

        await send("hooks.example.com", client)
        for name, tls in (("other.example.com", client), ("hooks.example.com", None)):
            with pytest.raises(UnavailableError):
                await send(name, tls)
    finally:
        await runner.cleanup()
    assert hosts == [f"hooks.example.com:{port}"]
    assert heard == ["hooks.example.com", "other.example.com", "hooks.example.com"]


async def test_S11_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    proxy, host = Host(), Host()
    async with proxy.up(), host.up():
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{proxy.port}")
        hook = WebhookNotifier(lambda: 0, Egress(allow_private=True, resolve=resolve))
        await hook.send(channel(f"http://hooks.example.com:{host.port}/hook"), DELIVERY)
    assert (proxy.asked, host.asked) == ([], [("127.0.0.1", "/hook")])


@pytest.mark.parametrize(
    ("start", "drip"), [(b"", b""), (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x")], ids=["silent", "slow"]
)
async def test_S11_a_receiver_without_a_whole_head_is_a_failure_in_time(
    start: bytes, drip: bytes
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(start)
        try:
            while True:
                await asyncio.sleep(0.02)
                writer.write(drip)
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        url, _ = local("webhook", server.sockets[0].getsockname()[1])

        async def resolve(host: str, port: int) -> list[str]:
            return ["127.0.0.1"]

        hook = WebhookNotifier(
            lambda: 0, Egress(allow_private=True, resolve=resolve, timeout_s=0.3)
        )
        async with asyncio.timeout(30):
            with pytest.raises(UnavailableError, match="no answer in time"):
                await hook.send(channel(url), DELIVERY)
    finally:
        server.close()


@pytest.mark.parametrize(
    "url",
    [
        "mailto://user:password@127.0.0.1",
        "mailto://127.0.0.1:25",
        "mailtos://[::1]",
        "mailto://localhost?from=us@example.com",
        "mailto://mail.internal?from=us@example.com",
        "mailto://169.254.169.254?from=us@example.com",
        "mailto://user:password@example.com?smtp=127.0.0.1",
        "mailto://user:password@example.com?smtp=localhost",
        "mailto://user:password@example.com?smtp=0x7f000001",
        "mailto://user:password@example.com?smtp=2130706433",
        "mailto://user:password@example.com?smtp=::1",
        "mailto://user:password@example.com?smtp=fec0::1",
        "mailto://user:password@example.com?smtp=",
        "mailto://user:password@gmail.com?smtp=192.0.0.192",
        "mailto://user:password@example.com:8165",
        "mailto://user:password@example.com:22",
        "mailto://user:password@example.com:443",
        "mailtos://user:password@example.com:8443",
    ],
)
async def test_S11_mail_to_a_private_server_or_another_port_is_refused(url: str) -> None:
    if url.endswith("smtp="):  # nothing is named: the server of the domain is meant
        PeopleNotifier().check(channel(url, ChannelKind.APPRISE))
        return
    asked = channel(url, ChannelKind.APPRISE)
    with connections() as tried:
        for _ in range(2):
            with pytest.raises(RefusedError) as caught:
                PeopleNotifier().check(asked)
            with pytest.raises(RefusedError):
                await PeopleNotifier().send(asked, DELIVERY)
    assert caught.value.code is Code.WEBHOOK_URL_FORBIDDEN
    assert f"{ALLOW_PRIVATE}=true" in caught.value.detail
    assert "password" not in caught.value.detail
    assert tried == []


def test_S11_mail_goes_to_the_ports_of_mail_and_to_no_other() -> None:
    def is_allowed(port: int) -> bool:
        url = f"mailto://user:password@example.com:{port}"
        try:
            PeopleNotifier().check(channel(url, ChannelKind.APPRISE))
        except RefusedError:
            return False
        return True

    others = (2_525, 4_650, 5_870, 8_025, 8_443, 8_465, 8_587, 10_025, 65_535)
    assert {port for port in (*range(1, 1_025), *others) if is_allowed(port)} == {25, 465, 587}


@pytest.mark.parametrize(
    "url",
    [
        "mailto://user:password@example.com?verify=no",
        "mailto://user:password@example.com?smtp=mail.example.com&smtp=127.0.0.1",
        "mailto://user:password@example.com?SMTP=127.0.0.1",
        "mailto://user:password@example.com?proxy=http://127.0.0.1",
        "mailto://user:password@example.com?to",
        f"tgram://{BOT}/12345?image=yes",
        f"{DISCORD}?avatar_url=http://127.0.0.1/",
        f"{SLACK}?footer=no",
        f"{SLACK}?x",
    ],
)
def test_S11_an_unknown_key_in_a_query_is_refused(url: str) -> None:
    with pytest.raises(RefusedError) as caught:
        PeopleNotifier().check(channel(url, ChannelKind.APPRISE))
    assert caught.value.code is Code.VALIDATION_FAILED
    assert "127.0.0.1" not in caught.value.detail
