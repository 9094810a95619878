"""`my-symbols serve` under TLS, and the commands that ask it."""

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from socket import create_connection, create_server
from typing import Any

import pytest
import trustme

from app.cli.exit_codes import ExitCode
from tests.cli.command import alone, ended, here, started

NOBODY = "http://127.0.0.1:9"
TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def issuer() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def variables(issuer: trustme.CA, tmp_path: Path) -> dict[str, str]:
    issued = issuer.issue_cert("127.0.0.1")
    (tmp_path / "key.pem").write_bytes(issued.private_key_pem.bytes())
    (tmp_path / "chain.pem").write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    (tmp_path / "ca.pem").write_bytes(issuer.cert_pem.bytes())
    return {
        "MYSYMBOLS_HTTP__TLS_CERTIFICATE": str(tmp_path / "chain.pem"),
        "MYSYMBOLS_HTTP__TLS_KEY": str(tmp_path / "key.pem"),
        "MYSYMBOLS_KUCOIN__BASE_URL": NOBODY,
        "MYSYMBOLS_KUCOIN__SOURCE": "sandbox",
    }


@contextmanager
def running(room: Path, variables: dict[str, str]) -> Iterator[tuple[str, Any]]:
    with closing(create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    service = started("serve", "--port", str(port), cwd=room, **variables)
    try:
        yield f"https://127.0.0.1:{port}", service
    finally:
        service.terminate()
        ended(service)


def until_healthy(url: str, ca_file: str) -> dict[str, Any]:
    return until(url, ca_file, lambda parts: True)


def until(url: str, ca_file: str, holds: Any) -> dict[str, Any]:
    """States and causes of the components, once they are as wanted."""
    end = time.monotonic() + TIMEOUT_S
    while True:
        asked = here("doctor", "--json", MYSYMBOLS_CA_FILE=ca_file, MYSYMBOLS_URL=url)
        parts = {check["name"]: check for check in json.loads(asked.out)["checks"]}
        if parts["service"]["verdict"] in {"ok", "warning"} and holds(parts):
            return parts
        assert time.monotonic() < end, parts
        time.sleep(0.2)


def test_commands_talk_to_a_service_under_tls(
    tmp_path: Path, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trusted = str(tmp_path / "ca.pem")
    with running(tmp_path, variables) as (url, _):
        assert "service:certificate" not in until_healthy(url, trusted)
        ask = ("portfolio", "show", "--json", "--url", url)
        assert here("--ca-file", trusted, *ask).code == 0
        assert here(*ask, MYSYMBOLS_CA_FILE=trusted).code == 0
        unknown = here(*ask)
        assert (unknown.code, unknown.document["code"]) == (
            ExitCode.UNAVAILABLE, "certificate_not_trusted",
        )  # fmt: skip
        assert "--ca-file" in unknown.document["detail"]
        watched = here("watch", "--json", "--url", url)
        assert watched.document["code"] == "certificate_not_trusted"
        for wrong in (str(tmp_path / "nothing.pem"), variables["MYSYMBOLS_HTTP__TLS_KEY"]):
            refused = here("--ca-file", wrong, *ask)
            assert (refused.code, refused.document["code"]) == (
                ExitCode.CONFIGURATION, "ca_file_unusable",
            )  # fmt: skip
            watching = here("--ca-file", wrong, "watch", "--json", "--url", url)
            assert watching.document["code"] == "ca_file_unusable"
        plain = here("portfolio", "show", "--json", "--url", url.replace("https", "http"))
        assert plain.document["code"] == "service_unreachable"

        (tmp_path / "key.pem").write_text("broken")
        parts = until(url, trusted, lambda parts: "service:certificate" in parts)
        assert "degraded" in parts["service:certificate"]["detail"]
        assert "certificate_unusable" in parts["service:certificate"]["detail"]
        assert str(tmp_path / "key.pem") in parts["service:certificate"]["detail"]


def test_a_handshake_has_a_time_limit(tmp_path: Path, variables: dict[str, str]) -> None:
    limited = {**variables, "MYSYMBOLS_HTTP__READ_TIMEOUT_S": "0.5"}
    with running(tmp_path, limited) as (url, _):
        until_healthy(url, str(tmp_path / "ca.pem"))
        began = time.monotonic()
        with create_connection(("127.0.0.1", int(url.rpartition(":")[2])), TIMEOUT_S) as silent:
            assert silent.recv(1) == b"", "closed by the server"
        assert 0.4 < time.monotonic() - began < 30.0, "asyncio alone would wait 60 s"


def test_a_certificate_that_cannot_be_used_stops_the_start(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    (tmp_path / "key.pem").write_text("broken")
    refused = alone("serve", "--port", "0", cwd=tmp_path, variables=variables)
    assert (refused.code, refused.out) == (ExitCode.CONFIGURATION, "")
    assert "certificate_unusable" in refused.err
    assert str(tmp_path / "key.pem") in refused.err
    assert "Traceback" not in refused.err
    assert not (tmp_path / "var").exists(), "nothing was opened"
    (tmp_path / "key.pem").unlink()
    refused = alone("serve", "--port", "0", cwd=tmp_path, variables=variables)
    assert (refused.code, "cannot be read (No such file" in refused.err) == (78, True)


@pytest.mark.parametrize("missing", ["CERTIFICATE", "KEY"])
def test_certificate_and_key_belong_together(
    tmp_path: Path, variables: dict[str, str], missing: str
) -> None:
    del variables[f"MYSYMBOLS_HTTP__TLS_{missing}"]
    refused = alone("serve", "--port", "0", cwd=tmp_path, variables=variables)
    assert refused.code == ExitCode.CONFIGURATION
    assert "TLS needs both tls_certificate and tls_key" in refused.err
