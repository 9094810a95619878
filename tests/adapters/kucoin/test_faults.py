"""Rows R01 to R09, R16, R17 and R20: the exchange misbehaves, the adapter does not."""

import asyncio
import gzip
import ipaddress
import math
import socket
import ssl
import struct
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.adapters.kucoin.limiter import KucoinLimits
from app.foundation.errors import BadResponseError, Code, ExchangeTimeoutError, UnavailableError
from app.market.domain.models import ExchangeStatus, LinkState
from tests.adapters.kucoin.harness import (
    Counting,
    Heard,
    RealTime,
    VirtualTime,
    answering,
    asking,
    envelope,
    local_exchange,
    refused,
    serving,
)

PATIENCE_S = 240.0
TIMESTAMP = "/api/v1/timestamp"
ONE_TRY = KucoinLimits(tries=1)


async def test_R01_nothing_is_asked_until_the_stated_reset() -> None:
    time = VirtualTime()
    async with local_exchange(time) as local, asking(local.url, time) as exchange:
        hasty = exchange.patient(0.5)
        local.sandbox.pool.close(12.0, "present")
        error = await refused(hasty.server_time_ms())
        assert isinstance(error, UnavailableError)
        assert error.code is Code.EXCHANGE_RATE_LIMITED
        assert error.retry_after_s == 12.0
        closed_at = time.passed
        for _ in range(20):
            assert (await refused(hasty.status())).code is Code.EXCHANGE_RATE_LIMITED
            time.advance(0.5)
        assert local.total == 1
        error = await refused(hasty.tickers())
        assert error.retry_after_s is not None
        assert error.retry_after_s >= math.ceil(closed_at + 12 - time.passed)
        link = exchange.link()
        assert (link.state, link.cause) == (LinkState.DOWN, "exchange_rate_limited")
        await exchange.server_time_ms()  # patient enough: waits for the reset
        assert closed_at + 12 <= time.passed <= closed_at + 12 * 1.1 + 0.1
        assert exchange.link().state is LinkState.UP
        assert local.in_closed_window == 0


@pytest.mark.parametrize(
    ("reset", "assumed"),
    [
        ("absent", 30),
        ("-5", 30),
        ("soon", 30),
        ("9" * 11, 60),
        ("9" * 40, 30),
        ("", 30),
        ("0", 30),
        ("99", 30),
    ],
)
async def test_R02_a_senseless_reset_counts_as_30_s_and_a_long_one_as_60(
    reset: str, assumed: int
) -> None:
    time = VirtualTime()
    async with local_exchange(time) as local, asking(local.url, time) as exchange:
        local.sandbox.pool.close(5.0, reset)
        error = await refused(exchange.patient(1.0).status())
        assert error.code is Code.EXCHANGE_RATE_LIMITED
        assert error.retry_after_s == assumed
        began = time.passed
        await exchange.patient(100.0).status()
        assert assumed <= time.passed - began <= assumed * 1.1 + 0.1
        assert local.in_closed_window == 0
        assert local.total == 2


async def test_R03_a_busy_system_is_asked_twice_more_after_a_short_pause() -> None:
    time = VirtualTime()
    server = answering(
        b'{"code":"429000","msg":"Too many requests. System-level rate limit exceeded."}',
        429,
        gw_ratelimit_limit="2000",
        gw_ratelimit_remaining="1990",
        gw_ratelimit_reset="20000",
    )
    async with server.up() as url, asking(url, time) as exchange:
        error = await refused(exchange.status())
        assert error.code is Code.EXCHANGE_RATE_LIMITED
        assert len(server.paths) == 3
        assert len(time.naps) == 2
        assert all(0.1 <= nap <= 1.0 for nap in time.naps)
        time.naps.clear()
        await refused(exchange.status())  # the pool was not closed: it went out again
        assert len(server.paths) == 6


BUSY = answering(b'{"code":"429000","msg":"busy"}', 429, gw_ratelimit_remaining="1990")


@pytest.mark.parametrize("server", [answering(b"{}", 503), BUSY], ids=["failing", "busy"])
async def test_R03_and_R08_retries_come_out_of_a_budget(server: Counting) -> None:
    limits = KucoinLimits(retry_reserve=2.0, breaker_consecutive=10**6, breaker_calls=10**6)
    async with server.up() as url, asking(url, limits=limits) as exchange:
        for _ in range(50):
            await refused(exchange.status())
    assert 50 + 2 <= len(server.paths) <= 50 + 2 + 50 * 0.1


async def test_R04_a_1015_page_closes_everything_ever_longer() -> None:
    time = VirtualTime()
    async with local_exchange(time) as local, asking(local.url, time) as exchange:
        hasty = exchange.patient(1.0)
        local.fault("cloudflare")
        for tries, ban in enumerate((30, 60, 120, 240, 480, 900, 900), start=1):
            error = await refused(hasty.status())
            assert (error.code, error.retry_after_s) == (Code.EXCHANGE_BANNED, ban)
            link = exchange.link()
            assert (link.state, link.cause) == (LinkState.DOWN, "exchange_banned")
            assert link.retry_in_s == ban
            for work in (hasty.tickers, hasty.contracts, hasty.server_time_ms):
                time.advance(ban / 4)
                assert (await refused(work())).code is Code.EXCHANGE_BANNED
            assert local.total == tries
            time.advance(ban / 4 + 1)  # not on the edge of the pool's window, where it waits
        local.sandbox.faults.disarm()
        assert await hasty.status() is ExchangeStatus.OPEN
        assert exchange.link().state is LinkState.UP
        local.fault("cloudflare", times=1)
        assert (await refused(hasty.status())).retry_after_s == 30  # the row begins anew


async def test_R04_pages_of_requests_already_in_flight_do_not_lengthen_the_ban() -> None:
    time = VirtualTime()
    async with local_exchange(time) as local, asking(local.url, time) as exchange:
        hasty = exchange.patient(1.0)
        local.fault("cloudflare", status=403)
        errors = await asyncio.gather(*(refused(hasty.status()) for _ in range(8)))
        assert {error.code for error in errors} == {Code.EXCHANGE_BANNED}
        assert exchange.link().retry_in_s == 30


async def test_R04_who_waits_in_the_queue_when_the_ban_falls_does_not_leave() -> None:
    time = RealTime()
    limits = KucoinLimits(quota=2, window_s=2.0)

    async def slow_page(_: web.Request) -> web.Response:
        await asyncio.sleep(0.1)
        return web.Response(status=429, text="error code: 1015", content_type="text/plain")

    server = Counting(slow_page)
    async with server.up() as url, asking(url, time, limits) as exchange:
        hasty = exchange.patient(20.0)  # shorter than the ban
        errors = await asyncio.gather(*(refused(hasty.server_time_ms()) for _ in range(3)))
        assert {error.code for error in errors} == {Code.EXCHANGE_BANNED}
        assert len(server.paths) == 1


async def test_R05_only_that_endpoint_rests_for_ten_seconds() -> None:
    time = VirtualTime()
    async with local_exchange(time) as local, asking(local.url, time) as exchange:
        hasty = exchange.patient(5.0)
        local.fault("too_many", path="/api/v1/status", times=1)
        error = await refused(hasty.status())
        assert (error.code, error.retry_after_s) == (Code.EXCHANGE_RATE_LIMITED, 10.0)
        time.advance(4.0)
        assert (await refused(hasty.status())).retry_after_s == 6.0
        assert local.count("/api/v1/status") == 1
        await hasty.server_time_ms()
        assert exchange.link().state is LinkState.UP
        began = time.passed
        assert await exchange.status() is ExchangeStatus.OPEN
        assert time.passed == pytest.approx(began + 6.0)


async def test_R05_the_other_meaning_of_200002_is_a_plain_refusal() -> None:
    async with local_exchange() as local, asking(local.url) as exchange:
        local.fault(
            "error", code="200002", message="The query scope for Level 3 cannot exceed 1", times=1
        )
        assert (await refused(exchange.status())).code is Code.EXCHANGE_REFUSED
        assert await exchange.status() is ExchangeStatus.OPEN


@pytest.mark.parametrize("code", ["100001", "999999", "400100", "200001"])
async def test_R06_a_success_status_with_another_code_is_an_error(code: str) -> None:
    body = envelope({"status": "open", "msg": ""}, code)
    async with answering(body).up() as url, asking(url) as exchange:
        error = await refused(exchange.status())
        assert error.code is Code.EXCHANGE_REFUSED
        assert error.facts["exchange_code"] == code
        assert exchange.link().state is LinkState.UP  # it did answer


async def test_R06_a_success_without_data_is_an_error_in_disguise() -> None:
    async with local_exchange() as local, asking(local.url) as exchange:
        local.fault("no_data")
        error = await refused(exchange.server_time_ms())
        assert isinstance(error, BadResponseError)
        assert error.facts["field"] == "data"


BAD_BODIES = {
    "html": answering(b"<html><body>hello</body></html>", content_type="text/html"),
    "empty": answering(b""),
    "truncated": answering(b'{"code":"200000","data":17600000'),
    "not utf-8": answering(b'{"code":"200000","data":"\xff\xfe"}'),
    "not an envelope": answering(b"[1, 2]"),
    "no code": answering(b'{"data":1760000000000}'),
    "code is a number": answering(b'{"code":200000,"data":1760000000000}'),
    "deep": answering(b"[" * 100_000),
    "gzip bomb": answering(gzip.compress(b"0" * (64 << 20)), content_encoding="gzip"),
    "gzip without its check sum": answering(
        gzip.compress(b'{"code":"200000","data":1760000000000}')[:-8], content_encoding="gzip"
    ),
    "not gzip": answering(b"plain", content_encoding="gzip"),
    "strange encoding": answering(b"{}", content_encoding="zstd"),
    "too big": answering(b'{"code":"200000","data":' + b" " * (9 << 20) + b"1}"),
    "odd status": answering(b'{"code":"200000","data":1760000000000}', 201),
}


@pytest.mark.parametrize("name", BAD_BODIES)
async def test_R07_what_is_no_answer_is_a_bad_response_and_the_breaker_counts_it(
    name: str,
) -> None:
    time = VirtualTime()
    server = BAD_BODIES[name]
    server.paths.clear()
    async with server.up() as url, asking(url, time, ONE_TRY) as exchange:
        for _ in range(5):
            error = await refused(exchange.server_time_ms())
            assert isinstance(error, BadResponseError)
            assert error.code is Code.EXCHANGE_BAD_RESPONSE
        assert exchange.link().cause == "exchange_bad_response"
        assert (await refused(exchange.server_time_ms())).code is Code.EXCHANGE_UNAVAILABLE
        assert len(server.paths) == 5  # the sixth was not sent: the breaker is open


async def test_R07_a_gzip_bomb_is_never_unpacked_whole() -> None:
    bomb = gzip.compress(b"0" * (64 << 20))
    server = answering(bomb, content_encoding="gzip")
    async with server.up() as url, asking(url, limits=ONE_TRY) as exchange:
        tracemalloc.start()
        try:
            assert isinstance(await refused(exchange.server_time_ms()), BadResponseError)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 40 << 20


async def test_R07_an_endless_body_is_left_at_the_cap() -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        stream = web.StreamResponse()
        await stream.prepare(request)
        for _ in range(4096):
            await stream.write(b" " * 65536)
            sent += 65536
        return stream

    async with Counting(endless).up() as url, asking(url, limits=ONE_TRY) as exchange:
        error = await refused(exchange.server_time_ms())
        assert isinstance(error, BadResponseError)
        assert sent < 64 << 20, "read on far beyond the cap of 8 MiB"


async def test_R07_the_content_type_does_not_matter_when_the_body_is_right() -> None:
    async with local_exchange() as local, asking(local.url) as exchange:
        local.fault("content_type", value="text/html")
        assert await exchange.status() is ExchangeStatus.OPEN


async def test_R08_a_silent_exchange_is_left_after_the_read_timeout() -> None:
    limits = KucoinLimits(read_timeout_s=0.05, total_timeout_s=1000.0, backoff_first_s=0.01)
    async with (
        local_exchange(RealTime()) as local,
        asking(local.url, RealTime(), limits) as exchange,
    ):
        local.fault("hang")
        async with asyncio.timeout(PATIENCE_S):
            error = await refused(exchange.server_time_ms())
        assert isinstance(error, ExchangeTimeoutError)
        assert error.code is Code.EXCHANGE_TIMEOUT
        assert local.total == 3
        assert exchange.link().cause == "exchange_timeout"


async def test_R08_one_byte_at_a_time_does_not_hold_a_call_beyond_the_total() -> None:
    limits = KucoinLimits(read_timeout_s=0.3, total_timeout_s=0.5, tries=1)
    async with (
        local_exchange(RealTime()) as local,
        asking(local.url, RealTime(), limits) as exchange,
    ):
        local.fault("drip", pieces=20_000, seconds=0.05)
        async with asyncio.timeout(PATIENCE_S):
            assert (await refused(exchange.status())).code is Code.EXCHANGE_TIMEOUT


async def test_R08_a_port_that_never_accepts_is_left_after_the_connect_timeout() -> None:
    limits = KucoinLimits(
        connect_timeout_s=0.2, read_timeout_s=1000.0, total_timeout_s=1000.0, tries=1
    )
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(4):  # a full backlog: the kernel drops further SYNs
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        await asyncio.sleep(0.05)
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        async with asking(url, RealTime(), limits) as exchange:
            async with asyncio.timeout(PATIENCE_S):
                error = await refused(exchange.status())
        for filler in fillers:
            filler.close()
    assert error.code is Code.EXCHANGE_TIMEOUT


async def test_R08_the_pause_between_tries_grows_with_full_jitter() -> None:
    time = VirtualTime()
    limits = KucoinLimits(tries=8, breaker_consecutive=99, retry_reserve=99)
    async with answering(b"{}", 500).up() as url, asking(url, time, limits) as exchange:
        assert (await refused(exchange.status())).code is Code.EXCHANGE_UNAVAILABLE
    assert len(time.naps) == 7
    caps = [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert all(0 <= nap <= cap for nap, cap in zip(time.naps, caps, strict=True))
    assert len({round(nap / cap, 6) for nap, cap in zip(time.naps, caps, strict=True)}) == 7


async def test_R08_no_try_begins_after_the_deadline() -> None:
    time = VirtualTime()

    async def slow_failure(_: web.Request) -> web.Response:
        time.advance(3.0)
        return web.Response(status=500)

    server = Counting(slow_failure)
    async with server.up() as url, asking(url, time) as exchange:
        await refused(exchange.patient(5.0).status())
    assert len(server.paths) == 2


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_R09_five_minutes_of_failures_cost_25_calls_at_most(status: int) -> None:
    time = VirtualTime()
    heard = Heard()
    async with local_exchange(time) as local, asking(local.url, time, heard=heard) as exchange:
        local.fault("status", status=status)
        end = time.passed + 300
        while time.passed < end:
            assert (await refused(exchange.server_time_ms())).code is Code.EXCHANGE_UNAVAILABLE
            time.advance(0.5)
        assert 20 <= local.total <= 25
        assert exchange.link().cause == "exchange_unavailable"
        assert set(heard.outcomes) == {"exchange_unavailable"}
        local.sandbox.faults.disarm()
        time.advance(15.0)
        await exchange.server_time_ms()
        assert exchange.link().state is LinkState.UP


async def test_R09_code_500000_counts_whatever_the_status() -> None:
    async with local_exchange() as local, asking(local.url, limits=ONE_TRY) as exchange:
        local.fault("error", code="500000")
        for _ in range(5):
            assert (await refused(exchange.status())).code is Code.EXCHANGE_UNAVAILABLE
        error = await refused(exchange.status())
        assert error.retry_after_s == 15.0
        assert local.total == 5


async def test_R09_one_probe_at_a_time() -> None:
    time = VirtualTime()
    released = asyncio.Event()
    arrived = asyncio.Event()

    async def respond(_: web.Request) -> web.Response:
        if len(server.paths) <= 5:
            return web.Response(status=500)
        arrived.set()
        await released.wait()
        return web.Response(body=envelope(1_760_000_000_000))

    server = Counting(respond)
    async with server.up() as url, asking(url, time, ONE_TRY) as exchange:
        for _ in range(5):
            await refused(exchange.server_time_ms())
        time.advance(15.0)
        probe = asyncio.ensure_future(exchange.server_time_ms())
        await arrived.wait()
        errors = await asyncio.gather(*(refused(exchange.server_time_ms()) for _ in range(10)))
        assert {error.code for error in errors} == {Code.EXCHANGE_UNAVAILABLE}
        assert len(server.paths) == 6
        released.set()
        await probe
        await exchange.server_time_ms()
        assert len(server.paths) == 7


async def test_R09_a_cancelled_probe_leaves_room_for_another() -> None:
    time = VirtualTime()
    arrived = asyncio.Event()

    async def respond(_: web.Request) -> web.Response:
        if len(server.paths) <= 5:
            return web.Response(status=500)
        if len(server.paths) == 6:
            arrived.set()
            await asyncio.sleep(60)
        return web.Response(body=envelope(1_760_000_000_000))

    server = Counting(respond)
    async with server.up() as url, asking(url, time, ONE_TRY) as exchange:
        for _ in range(5):
            await refused(exchange.server_time_ms())
        time.advance(15.0)
        probe = asyncio.ensure_future(exchange.server_time_ms())
        await arrived.wait()
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        assert await exchange.server_time_ms() == 1_760_000_000_000


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_R16_a_redirect_is_not_followed(status: int) -> None:
    elsewhere = answering(envelope(1_760_000_000_000))
    async with elsewhere.up() as other, local_exchange() as local, asking(local.url) as exchange:
        local.fault("redirect", location=other + TIMESTAMP, status=status)
        error = await refused(exchange.server_time_ms())
        assert isinstance(error, BadResponseError)
        assert elsewhere.paths == []
        assert local.total == 1


@pytest.mark.parametrize(
    "code", ["@evil.example/", "../../other", "XBT USDTM", "xbtusdtm", "X" * 33, "ХBTUSDTM"]
)
async def test_R16_a_symbol_cannot_change_where_a_request_goes(code: str) -> None:
    server = answering(envelope(1))
    async with server.up() as url, asking(url) as exchange:
        for work in (exchange.mark_price, exchange.contract, exchange.ticker, exchange.book):
            assert (await refused(work(code))).code is Code.SYMBOL_UNKNOWN
        assert server.paths == []


def certificate_in(folder: Path) -> ssl.SSLContext:
    """A server context with a certificate that nobody has signed but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    begin = datetime.now(UTC) - timedelta(days=1)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=30))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


async def test_R17_an_untrusted_certificate_is_refused(tmp_path: Path) -> None:
    server = answering(envelope(1_760_000_000_000))
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener, ssl_context=certificate_in(tmp_path)).start()
    try:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        async with asking(url, limits=ONE_TRY) as exchange:
            error = await refused(exchange.server_time_ms())
            link = exchange.link()
    finally:
        await runner.cleanup()
        listener.close()
    assert error.code is Code.EXCHANGE_UNAVAILABLE
    assert "certificate" in error.detail
    assert (link.state, link.cause) == (LinkState.DOWN, "exchange_unavailable")
    assert server.paths == []


async def test_R17_no_plain_text_where_security_was_asked_for() -> None:
    received = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.extend(await reader.read(4096))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with asking(url, limits=ONE_TRY) as exchange:
            error = await refused(exchange.server_time_ms())
    assert error.code is Code.EXCHANGE_UNAVAILABLE
    assert received[:1] == b"\x16"  # a TLS hello, not a GET


async def test_R17_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    async with asking("https://exchange.invalid", limits=ONE_TRY) as exchange:
        error = await refused(exchange.server_time_ms())
    assert error.code is Code.EXCHANGE_UNAVAILABLE
    assert "name" in error.detail


@pytest.mark.parametrize("code", ["404000", "404"])
async def test_R20_a_route_that_is_gone_is_named_and_the_others_go_on(code: str) -> None:
    async with local_exchange() as local, asking(local.url) as exchange:
        local.fault("status", path="/api/v1/status", status=404, code=code)
        for _ in range(8):
            error = await refused(exchange.status())
            assert isinstance(error, BadResponseError)
            assert "/api/v1/status" in error.detail
        assert local.count("/api/v1/status") == 8  # asked once each: a retry would not help
        assert await exchange.server_time_ms() > 0
        assert exchange.link().state is LinkState.UP


async def test_a_region_refusal_is_told_and_not_hammered() -> None:
    server = answering(b'{"code":"400302","msg":"unavailable in your country"}', 403)
    async with server.up() as url, asking(url) as exchange:
        error = await refused(exchange.status())
        assert error.code is Code.EXCHANGE_UNAVAILABLE
        assert "region" in error.detail
        assert len(server.paths) == 1


@asynccontextmanager
async def _raw(reply: bytes, *, reset: bool = False) -> AsyncIterator[str]:
    """A server that sends these bytes to whoever speaks, and hangs up."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(reply)
        if reset:
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (b"", Code.EXCHANGE_UNAVAILABLE),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Code.EXCHANGE_BAD_RESPONSE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", Code.EXCHANGE_BAD_RESPONSE),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            Code.EXCHANGE_BAD_RESPONSE,
        ),
    ],
)
async def test_R07_broken_http_is_an_error_of_the_domain(reply: bytes, code: Code) -> None:
    async with _raw(reply) as url, asking(url, limits=ONE_TRY) as exchange:
        assert (await refused(exchange.status())).code is code


async def test_R08_a_connection_reset_is_tried_again() -> None:
    time = VirtualTime()
    async with local_exchange(time) as local, asking(local.url, time) as exchange:
        local.fault("reset", times=2)
        assert await exchange.status() is ExchangeStatus.OPEN
        assert local.total == 3


async def test_the_session_keeps_no_cookies_and_asks_for_gzip() -> None:
    seen: list[dict[str, str]] = []

    async def respond(request: web.Request) -> web.Response:
        seen.append(dict(request.headers))
        response = web.Response(body=envelope(1_760_000_000_000))
        response.set_cookie("tracking", "1")
        return response

    async with Counting(respond).up() as url, asking(url) as exchange:
        await exchange.server_time_ms()
        await exchange.server_time_ms()
    assert all("Cookie" not in headers for headers in seen)
    assert all(headers["Accept-Encoding"] == "gzip" for headers in seen)


async def test_serving_works_for_the_harness() -> None:
    async with serving(web.Application()) as url, asking(url, limits=ONE_TRY) as exchange:
        assert (await refused(exchange.status())).code is Code.EXCHANGE_BAD_RESPONSE
