"""Variables of the HTTP server: addresses, TLS, origins, proxies and connections."""

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    IPvAnyNetwork,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from app.foundation.http.certificate import CertificateFiles
from app.settings.declarations import SettingsPart

HostName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_]([A-Za-z0-9_.\-]*[A-Za-z0-9_])?$", to_lower=True)
]

# Neither `*` nor `null`: each would let pages of strangers in.
OriginText = Annotated[
    str,
    StringConstraints(
        pattern=r"^[Hh][Tt][Tt][Pp][Ss]?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.\-]+)(:[0-9]{1,5})?$",
        to_lower=True,
    ),
]


class HttpVariables(SettingsPart):
    """HTTP server."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65_535, description="Port to listen on; 0: any free port.")
    cors_origins: tuple[OriginText, ...] = Field(
        (), description="Browser origins that may call the API, as a JSON list."
    )
    allowed_hosts: tuple[HostName, ...] = Field(
        (),
        description="Host names of the service, as a JSON list; numeric addresses and localhost are"
        " always allowed.",
    )
    public_url: str | None = Field(
        None,
        description="Public address of the service, such as https://symbols.example: for links in"
        " notifications, which have none without it.",
    )
    docs: bool = Field(
        True, description="Serve `/docs` and `/openapi.json`; with keys, to viewers only."
    )
    cursor_secret: SecretStr | None = Field(
        None,
        min_length=12,
        description="Key that signs paging cursors; without it a random one is stored in the"
        " database.",
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file with the certificate and its chain; it switches TLS on."
    )
    tls_key: Path | None = Field(None, description="PEM file with the private key.")
    tls_key_password_file: Path | None = Field(
        None, description="File with the password of the private key, if it is encrypted."
    )
    read_timeout_s: float = Field(
        10.0, ge=0.1, le=300, description="For first byte and head of a request, and for its body."
    )
    max_connections: int = Field(
        4_096, ge=16, le=100_000, description="Fewer where the limit of descriptors demands it."
    )
    max_connections_per_address: int = Field(
        1_024, ge=4, le=100_000, description="At most half of all connections."
    )
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        (),
        description="Reverse proxies: their X-Forwarded-For and X-Forwarded-Proto count, and they"
        " have no bound of connections per address. A JSON list of addresses and networks.",
    )
    allowed_addresses: tuple[IPvAnyNetwork, ...] = Field(
        (),
        description="Addresses and networks of clients, as a JSON list; every other one is refused,"
        " except this machine. An empty list allows all.",
    )

    @field_validator("public_url")
    @classmethod
    def _is_plain_address(cls, public_url: str | None) -> str | None:
        if public_url is None:
            return None
        parts = urlsplit(public_url)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname)
        if not is_address or "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError(
                "public_url must be an http or https address without user, query and fragment"
            )
        return public_url.rstrip("/")

    @field_validator("trusted_proxies")
    @classmethod
    def _trusts_no_whole_internet(
        cls, networks: tuple[IPv4Network | IPv6Network, ...]
    ) -> tuple[IPv4Network | IPv6Network, ...]:
        # Every client could then name itself, past allow lists, limits and the security log.
        if any(network.prefixlen == 0 for network in networks):
            raise ValueError("trusted_proxies must name proxies, not every address")
        return networks

    @model_validator(mode="after")
    def _has_certificate_and_key(self) -> Self:
        has_key = self.tls_key is not None
        if has_key != (self.tls_certificate is not None):
            raise ValueError("TLS needs both tls_certificate and tls_key")
        if self.tls_key_password_file is not None and not has_key:
            raise ValueError("tls_key_password_file needs a tls_key")
        return self

    @property
    def certificate_files(self) -> CertificateFiles | None:
        """Files of the certificate; None without TLS."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return CertificateFiles(self.tls_certificate, self.tls_key, self.tls_key_password_file)
