"""TLS certificate of the server: loaded at start, replaced while it runs if its files change."""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

POLL_S: Final = 1.0  # between two looks at the files
_CIPHERS_OF_TLS_1_2: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_log = structlog.get_logger("server")


class CertificateError(Exception):
    """Certificate and key cannot be used; the text names the file and never its content."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Files in PEM: certificate with its chain, private key, and the password of the key."""

    certificate: Path
    key: Path
    key_password: Path | None = None

    def signature(self) -> tuple[object, ...]:
        """Value that changes when a file, or the target of a link, is replaced or written."""
        return tuple(
            _state(path) for path in (self.certificate, self.key, self.key_password) if path
        )

    def load(self) -> ssl.SSLContext:
        """Context for new connections. Raises CertificateError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS_OF_TLS_1_2)
        context.set_alpn_protocols(["http/1.1"])
        # Without any password OpenSSL would ask for one on the terminal.
        password = "" if self.key_password is None else _read(self.key_password)
        for path in (self.certificate, self.key):
            _read(path)
        try:
            context.load_cert_chain(self.certificate, self.key, password)
        except (ssl.SSLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            raise CertificateError(
                f"{self.certificate} and {self.key} are no usable pair of certificate and key"
                f" ({reason})"
            ) from None
        return context


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise CertificateError(f"{path} cannot be read ({reason})") from None


@dataclass(slots=True)
class ServerCertificate:
    """Certificate of a server. A broken new pair leaves the old one in use.

    Raises CertificateError if the files cannot be used at first.
    """

    files: CertificateFiles
    fault: str | None = field(default=None, init=False)  # of the newest files
    context: ssl.SSLContext = field(init=False)  # for the server
    _current: ssl.SSLContext = field(init=False)
    _signature: tuple[object, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._signature = self.files.signature()
        self.context = self._current = self.files.load()
        # Called in each handshake. A new context is complete before any connection sees it, while
        # loading a broken pair into the old one could leave that without a key.
        self.context.sni_callback = self._use_current

    def _use_current(self, connection: Any, name: str | None, initial: ssl.SSLContext) -> None:
        del name, initial
        connection.context = self._current

    def reload(self) -> None:
        """Loads the files again if they have changed."""
        signature = self.files.signature()
        if signature == self._signature:
            return
        self._signature = signature
        try:
            self._current = self.files.load()
        except CertificateError as error:
            self.fault = str(error)
            _log.error("certificate_not_reloaded", detail=self.fault)
            return
        self.fault = None
        _log.info("certificate_reloaded")

    async def follow(self, beat: Callable[[], None]) -> None:
        """Follows the files until cancelled."""
        while True:
            await asyncio.to_thread(self.reload)
            beat()
            await asyncio.sleep(POLL_S)
