"""TLS over real sockets: versions, replaced and broken certificates, errors at start."""

import asyncio
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import pytest
import structlog
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect

from app.foundation.http.certificate import CertificateError, CertificateFiles, ServerCertificate
from app.foundation.http.permissions import public
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import Out
from tests.foundation.http.test_server import GET, Answer
from tests.support.harness import PREFIX, make_api
from tests.support.streaming import listening, port_of

HOST = "127.0.0.1"
# asyncio closes the connection before its alert is sent; a client that refuses by itself says why.
_BY_SERVER = r"(?i)alert|EOF"
PASSWORD = "a password of the tests"


class Answered(Out):
    scheme: str


@pytest.fixture(scope="module")
def issuer() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path) -> CertificateFiles:
    return CertificateFiles(tmp_path / "server.pem", tmp_path / "server.key")


def issue(issuer: trustme.CA, files: CertificateFiles) -> int:
    """Writes a new pair as a renewal does, by renaming; returns its serial number."""
    issued = issuer.issue_cert(HOST)
    replace(files.key, issued.private_key_pem.bytes())
    chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    replace(files.certificate, chain)
    return x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes()).serial_number


def replace(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)


def trusting(issuer: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    issuer.configure_trust(context)
    return context


def serial_at(port: int, context: ssl.SSLContext) -> tuple[int, str | None]:
    """Serial number of the server's certificate, and the version of TLS."""
    with (
        socket.create_connection((HOST, port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as secure,
    ):
        shown = secure.getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown).serial_number, secure.version()


def fault_of(certificate: ServerCertificate) -> str | None:
    return certificate.fault


async def handshake(port: int, context: ssl.SSLContext) -> tuple[int, str | None]:
    return await asyncio.to_thread(serial_at, port, context)


@asynccontextmanager
async def serving(certificate: ServerCertificate) -> AsyncIterator[int]:
    router = api_router("system")

    @router.get("/open")
    @public
    async def anyone() -> Answered:
        return Answered(scheme="https")

    @router.websocket("/echo")
    @public
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()

    api = make_api(routers=[router])
    async with listening(api, certificate=certificate) as server:
        yield port_of(server)


@contextmanager
def following(certificate: ServerCertificate) -> Iterator[None]:
    task = asyncio.create_task(certificate.follow(lambda: None))
    try:
        yield
    finally:
        task.cancel()


async def test_new_connections_get_the_new_certificate_and_open_ones_stay(
    issuer: trustme.CA, files: CertificateFiles
) -> None:
    first = issue(issuer, files)
    certificate = ServerCertificate(files)
    trust = trusting(issuer)
    url = f"https://{HOST}:{{}}{PREFIX}/open"
    async with serving(certificate) as port, aiohttp.ClientSession() as session:
        assert await handshake(port, trust) == (first, "TLSv1.3")
        with following(certificate):
            async with session.get(url.format(port), ssl=trust) as response:
                assert response.status == 200
                secured = response.headers["strict-transport-security"]
                assert secured == "max-age=31536000; includeSubDomains"
            second = issue(issuer, files)
            async with asyncio.timeout(60):
                while (await handshake(port, trust))[0] != second:
                    await asyncio.sleep(0.05)
            async with session.get(url.format(port), ssl=trust) as response:
                assert response.status == 200, "the connection of before the change"
            without_name = ssl.create_default_context()
            issuer.configure_trust(without_name)
            without_name.check_hostname = False
            assert (await handshake(port, without_name))[0] == second


async def test_a_broken_pair_leaves_the_old_certificate_in_use(
    issuer: trustme.CA, files: CertificateFiles
) -> None:
    first = issue(issuer, files)
    certificate = ServerCertificate(files)
    trust = trusting(issuer)
    async with serving(certificate) as port:
        other = issuer.issue_cert(HOST)
        key = files.key.read_bytes()
        for name, broken in {
            "another key": other.private_key_pem.bytes(),
            "garbage": b"no key at all",
            "half a file": key[: len(key) // 2],
            "nothing": b"",
        }.items():
            replace(files.key, broken)
            with structlog.testing.capture_logs() as lines:
                certificate.reload()
                certificate.reload()
            assert [line["event"] for line in lines] == ["certificate_not_reloaded"], name
            assert str(files.key) in str(certificate.fault)
            assert "PRIVATE" not in str(certificate.fault)
            assert (await handshake(port, trust))[0] == first, name
        files.key.unlink()
        certificate.reload()
        assert certificate.fault == f"{files.key} cannot be read (No such file or directory)"
        assert (await handshake(port, trust))[0] == first
        second = issue(issuer, files)
        with structlog.testing.capture_logs() as lines:
            certificate.reload()
        assert [line["event"] for line in lines] == ["certificate_reloaded"]
        assert fault_of(certificate) is None
        assert (await handshake(port, trust))[0] == second


async def test_a_change_behind_a_link_is_seen(issuer: trustme.CA, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("first", "second")]
    serials = []
    for folder in folders:
        folder.mkdir()
        serials.append(issue(issuer, CertificateFiles(folder / "c.pem", folder / "k.pem")))
    link = tmp_path / "current"
    link.symlink_to(folders[0])
    certificate = ServerCertificate(CertificateFiles(link / "c.pem", link / "k.pem"))
    async with serving(certificate) as port:
        (tmp_path / "next").symlink_to(folders[1])
        (tmp_path / "next").replace(link)
        certificate.reload()
        assert (await handshake(port, trusting(issuer)))[0] == serials[1]


async def test_versions_before_1_2_and_plain_http_are_refused(
    issuer: trustme.CA, files: CertificateFiles
) -> None:
    serial = issue(issuer, files)
    certificate = ServerCertificate(files)
    assert certificate.context.minimum_version is ssl.TLSVersion.TLSv1_2
    async with serving(certificate) as port:
        old = trusting(issuer)
        old.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old.minimum_version = ssl.TLSVersion.TLSv1
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError, match=_BY_SERVER):
            await handshake(port, old)
        allowed = trusting(issuer)
        allowed.maximum_version = ssl.TLSVersion.TLSv1_2
        assert await handshake(port, allowed) == (serial, "TLSv1.2")
        weak = trusting(issuer)
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers("ECDHE-ECDSA-AES128-SHA256")  # CBC
        with pytest.raises(ssl.SSLError, match=_BY_SERVER):
            await handshake(port, weak)
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(f"{GET}\r\n".encode())
        assert await reader.read() == b""
        writer.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            await handshake(port, ssl.create_default_context())


async def test_websockets_and_refusals_of_the_server_work_under_tls(
    issuer: trustme.CA, files: CertificateFiles
) -> None:
    issue(issuer, files)
    trust = trusting(issuer)
    async with serving(ServerCertificate(files)) as port:
        async with connect(f"wss://{HOST}:{port}{PREFIX}/echo", ssl=trust) as connection:
            assert connection.subprotocol is None
        reader, writer = await asyncio.open_connection(HOST, port, ssl=trust)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        refused = Answer(await reader.read())
        writer.close()
        refused.problem(400, "bad_request")
        assert refused.headers["strict-transport-security"].startswith("max-age=31536000")


def test_a_key_with_a_password_needs_its_file(issuer: trustme.CA, tmp_path: Path) -> None:
    plain = CertificateFiles(tmp_path / "c.pem", tmp_path / "k.pem")
    issue(issuer, plain)
    key = serialization.load_pem_private_key(plain.key.read_bytes(), None)
    plain.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(PASSWORD.encode()),
        )
    )
    password = tmp_path / "password"
    files = CertificateFiles(plain.certificate, plain.key, password)
    with pytest.raises(CertificateError, match="password cannot be read"):
        ServerCertificate(files)
    password.write_text(PASSWORD + "\n")
    ServerCertificate(files)
    for wrong in ("another", ""):
        password.write_text(wrong)
        with pytest.raises(CertificateError) as raised:
            ServerCertificate(files)
        assert PASSWORD not in str(raised.value)
    with pytest.raises(CertificateError, match="no usable pair"):
        ServerCertificate(plain)


def test_the_error_of_a_start_names_the_file(issuer: trustme.CA, tmp_path: Path) -> None:
    files = CertificateFiles(tmp_path / "c.pem", tmp_path / "k.pem")
    with pytest.raises(CertificateError, match=r"c\.pem cannot be read \(No such file"):
        ServerCertificate(files)
    issue(issuer, files)
    small = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    files.key.write_bytes(
        small.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    with pytest.raises(CertificateError, match=r"no usable pair .*NO_CERTIFICATE_ASSIGNED"):
        ServerCertificate(files)
    files.key.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CertificateError, match="it is no text"):
        ServerCertificate(files)
