"""`my-symbols keys` on the database, and commands that send a key to a running service."""

import json
import re
import stat
from contextlib import closing
from pathlib import Path
from socket import create_server
from typing import Any

import pytest
import requests

from app.cli.credentials import find_credential, local_key_file
from app.cli.exit_codes import ExitCode
from app.foundation.sql.job_store import key_file
from app.settings import DatabaseVariables
from tests.cli.command import Ended, alone, ended, here, started
from tests.support.harness import PREFIX

KEY = re.compile(r"mysym_[0-9A-Za-z]{57}")
NOBODY = "http://127.0.0.1:9"
TIMEOUT_S = 60


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a database of its own, which the commands of this process use."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_key_from_its_creation_to_its_revocation(room: Path) -> None:
    created = here(
        "keys", "create", "engine", "--role", "trader", "--scope", "signals", "--source", "tv",
        "--allow", "10.0.0.0/8", "--expires", "90d",
    )  # fmt: skip
    assert (created.code, KEY.fullmatch(created.out.strip()) is not None) == (0, True)
    assert "shown only now" in created.err
    for name in ("my-symbols-local.key", "my-symbols-pepper.key"):
        path = room / "var" / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "my-symbols-local.key" in created.err
    rotated = here("keys", "rotate", "engine", "--grace", "1h", "--json")
    assert rotated.document["secret"] != created.out.strip()
    again = here("keys", "create", "engine", "--role", "viewer")
    assert (again.code, "key_name_taken" in again.err) == (ExitCode.REFUSED, True)
    listed = here("keys", "list", "--json").document["items"]
    assert [(one["name"], one["role"], one["state"]) for one in listed] == [
        ("engine", "trader", "active"), ("engine", "trader", "active"),
        ("local-cli", "admin", "active"),
    ]  # fmt: skip
    assert listed[1]["allow"] == ["10.0.0.0/8"]
    assert (listed[1]["scopes"], listed[1]["sources"]) == (["signals"], ["tv"])
    assert not KEY.search(json.dumps(listed))
    assert listed[1]["prefix"] in here("keys", "list").out
    revoked = here("keys", "revoke", "engine", "--json").document["items"]
    assert [one["state"] for one in revoked] == ["revoked", "revoked"]
    gone = here("keys", "revoke", "engine")
    assert (gone.code, "not_found" in gone.err) == (ExitCode.REFUSED, True)


@pytest.mark.parametrize(
    "options",
    [
        ("Engine", "--role", "viewer"),
        ("engine", "--role", "root"),
        ("engine", "--role", "viewer", "--scope", "all"),
        ("engine", "--role", "viewer", "--expires", "soon"),
        ("engine", "--role", "viewer", "--expires", "0d"),
        ("engine", "--role", "viewer", "--expires", "9999d"),
        ("engine", "--role", "viewer", "--allow", "everywhere"),
    ],
)
def test_a_wrong_option_is_wrong_usage(room: Path, options: tuple[str, ...]) -> None:
    refused = here("keys", "create", *options)
    assert refused.code == ExitCode.USAGE
    assert not (room / "var").exists(), "nothing was created"


def test_a_key_needs_a_role_or_a_scope(room: Path) -> None:
    del room
    refused = here("keys", "create", "engine")
    assert (refused.code, "validation_failed" in refused.err) == (ExitCode.REFUSED, True)


def _serve(room: Path, *options: str, **variables: str) -> Any:
    return started(
        "serve", *options, cwd=room, MYSYMBOLS_KUCOIN__BASE_URL=NOBODY,
        MYSYMBOLS_KUCOIN__SOURCE="sandbox", **variables,
    )  # fmt: skip


def _answers(url: str, key: str | None = None) -> int | None:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        return requests.get(f"{url}{PREFIX}/keys", headers=headers, timeout=TIMEOUT_S).status_code
    except requests.ConnectionError:
        return None


def _until(url: str, status: int, key: str | None = None) -> None:
    from time import monotonic, sleep

    end = monotonic() + TIMEOUT_S
    while _answers(url, key) != status:
        assert monotonic() < end, f"no {status}"
        sleep(0.05)


def test_the_command_line_uses_the_local_key_of_a_running_service(room: Path) -> None:
    with closing(create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    service = _serve(room, "--port", str(port))
    try:
        _until(url, 200)
        assert here("portfolio", "show", "--url", url).code == 0, "open mode"
        viewer = here("keys", "create", "eye", "--role", "viewer").out.strip()
        _until(url, 401)  # the running service has noticed the first key
        assert _answers(url, viewer) == 403
        assert here("portfolio", "show", "--url", url).code == 0, "by the local key"
        cancelled = here("jobs", "cancel", "nothing", "--url", url)
        assert (cancelled.code, "not_found" in cancelled.err) == (ExitCode.REFUSED, True)
        by_key = here("portfolio", "show", "--url", url, MYSYMBOLS_KEY=viewer)
        assert by_key.code == 0
        path = room / "viewer.key"
        path.write_text(viewer + "\n")
        by_file = here("--key-file", str(path), "jobs", "cancel", "nothing", "--url", url)
        assert (by_file.code, "forbidden" in by_file.err) == (ExitCode.NOT_PERMITTED, True)
        assert "--key-file" in by_file.err
        wrong = here("portfolio", "show", "--url", url, MYSYMBOLS_KEY="mysym_wrong")
        assert (wrong.code, "my-symbols keys create" in wrong.err) == (
            ExitCode.NOT_PERMITTED, True,
        )  # fmt: skip
        (room / "var" / "my-symbols-local.key").unlink()
        without = here("portfolio", "show", "--url", url)
        assert without.code == ExitCode.NOT_PERMITTED
        assert here("keys", "revoke", "eye").code == 0
        _until(url, 401, viewer)
    finally:
        service.terminate()
        result: Ended = ended(service)
    assert result.code == 0
    assert "open_mode" in result.out + result.err
    assert viewer not in result.out + result.err


def test_a_service_that_does_not_know_the_local_key_is_asked_without_it(room: Path) -> None:
    assert here("keys", "create", "engine", "--role", "admin").code == 0
    with closing(create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    other = f"sqlite+aiosqlite:///{room}/other.sqlite3"
    service = _serve(room, "--port", str(port), MYSYMBOLS_DATABASE__URL=other)
    try:
        _until(url, 200)
        assert here("portfolio", "show", "--url", url).code == 0
    finally:
        service.terminate()
        ended(service)


def test_another_address_needs_a_key(room: Path) -> None:
    # It is loopback, but in a spelling that only the socket understands: as unsafe as any other.
    refused = ended(_serve(room, "--host", "127.1", "--port", "0"))
    assert refused.code == ExitCode.CONFIGURATION
    for command in ("my-symbols keys create admin --role admin", "my-symbols serve --host 127.1"):
        assert command in refused.err
    assert "Traceback" not in refused.err
    assert here("keys", "create", "admin", "--role", "admin").code == 0
    with closing(create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    service = _serve(room, "--host", "127.1", "--port", str(port))
    try:
        _until(f"http://127.0.0.1:{port}", 401)
    finally:
        service.terminate()
        ended(service)


def test_a_weak_pepper_is_refused_with_the_command_that_makes_a_good_one(room: Path) -> None:
    for pepper in ("short", "a" * 64, "0123456789abcdef" * 2 + ",short"):
        refused = alone("serve", cwd=room, variables={"MYSYMBOLS_SECURITY__PEPPER": pepper})
        assert refused.code == ExitCode.CONFIGURATION, pepper
        assert "pepper" in refused.err
        assert "a" * 64 not in refused.err
    assert (
        "secrets.token_hex"
        in alone("serve", cwd=room, variables={"MYSYMBOLS_SECURITY__PEPPER": "short"}).err
    )


def test_keys_without_their_pepper_stop_the_start(room: Path) -> None:
    assert here("keys", "create", "engine", "--role", "admin").code == 0
    (room / "var" / "my-symbols-pepper.key").unlink()
    refused = ended(_serve(room, "--port", "0"))
    assert refused.code == ExitCode.CONFIGURATION
    assert "secrets_key_missing" in refused.err
    assert not (room / "var" / "my-symbols-pepper.key").exists(), "nothing was drawn anew"


def test_the_local_key_goes_to_this_machine_only(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert local_key_file() == key_file(DatabaseVariables().url, "local")
    assert find_credential("http://127.0.0.1:8000") is None
    path = room / "var" / "my-symbols-local.key"
    path.parent.mkdir()
    path.write_text("secret\n")
    for url in ("http://127.0.0.1:1", "http://localhost:8000/x", "https://[::1]"):
        found = find_credential(url)
        assert found is not None
        assert (found.key, found.is_automatic) == ("secret", True)
    for url in ("http://10.0.0.1", "http://localhost.evil.example", "http://evil@10.0.0.1", ""):
        assert find_credential(url) is None, url
    monkeypatch.setenv("MYSYMBOLS_SECURITY__DIRECTORY", str(room / "keys"))
    assert local_key_file() == room / "keys" / "local-admin.key"
    monkeypatch.delenv("MYSYMBOLS_SECURITY__DIRECTORY")
    monkeypatch.setenv("MYSYMBOLS_DATABASE__URL", "postgresql+asyncpg://u:p@host/name")
    assert local_key_file() is None
    monkeypatch.setenv("MYSYMBOLS_KEY", "given")
    named = find_credential("http://10.0.0.1")
    assert named is not None
    assert (named.key, named.is_automatic) == ("given", False)


def test_an_unreadable_key_file_is_a_sentence(room: Path) -> None:
    refused = here("--key-file", str(room / "nothing.key"), "portfolio", "show")
    assert refused.code == ExitCode.CONFIGURATION
    assert "key_file_unreadable" in refused.err
