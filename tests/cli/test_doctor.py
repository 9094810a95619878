"""The doctor finds what is wrong, says what to do, and its exit code tells."""

import asyncio
import json
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from app.cli.exit_codes import ExitCode
from app.cli.programs.doctor import (
    CheckResult,
    _check_clock,
    _check_remote_clock,
    _check_transport,
)
from app.container.runtime_values import code_version, utc_now
from app.foundation.data_status import DataSource
from app.foundation.sql import migrations
from app.sandbox.options import SandboxOptions
from tests.cli.command import ended, here, started
from tests.cli.test_client import answering
from tests.support.service_over_socket import serving

NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens there


@pytest.fixture
def refusing() -> Iterator[str]:
    """An exchange address that refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def _asked(**variables: str) -> tuple[int, dict[str, Any]]:
    said = here("doctor", "--json", **{"MYSYMBOLS_URL": NOBODY, **variables})
    checks = {check["name"]: check for check in said.document["checks"]}
    names = ["configuration", "database", "schema", "exchange", "clock", "service"]
    assert list(checks)[: len(names)] == names
    assert said.document["healthy"] == (said.code == 0)
    return said.code, checks


def test_a_wrong_setting_is_named_without_its_value() -> None:
    code, checks = _asked(MYSYMBOLS_HTTP__PORT="sesame")
    assert code == ExitCode.CONFIGURATION
    assert checks["configuration"]["verdict"] == CheckResult.FAILED
    assert "MYSYMBOLS_HTTP__PORT" in checks["configuration"]["detail"]
    assert "sesame" not in str(checks)
    assert checks["exchange"]["verdict"] == CheckResult.SKIPPED


def test_an_unknown_variable_is_named() -> None:
    code, checks = _asked(MYSYMBOLS_KUCOIN__BASEURL="x")
    assert code == ExitCode.CONFIGURATION
    assert "MYSYMBOLS_KUCOIN__BASEURL" in checks["configuration"]["detail"]


def test_a_variable_that_is_no_json_is_named() -> None:
    code, checks = _asked(MYSYMBOLS_HTTP__CORS_ORIGINS="[")
    assert code == ExitCode.CONFIGURATION
    assert checks["configuration"]["verdict"] == CheckResult.FAILED
    assert checks["configuration"]["detail"] == "MYSYMBOLS_HTTP__CORS_ORIGINS: must be a JSON list"


def test_a_new_machine_without_network_lacks_only_the_exchange(
    tmp_path: Path, refusing: str
) -> None:
    code, checks = _asked(
        MYSYMBOLS_DATABASE__URL=f"sqlite+aiosqlite:///{tmp_path}/new.sqlite3",
        MYSYMBOLS_KUCOIN__BASE_URL=refusing,
    )
    assert code == ExitCode.UNAVAILABLE
    assert checks["database"]["verdict"] == CheckResult.OK
    assert checks["schema"]["verdict"] == CheckResult.WARNING
    assert checks["exchange"]["verdict"] == CheckResult.FAILED
    assert "exchange_unavailable" in checks["exchange"]["detail"]
    assert checks["exchange"]["advice"]
    assert checks["clock"]["verdict"] == CheckResult.SKIPPED
    assert not (tmp_path / "new.sqlite3").exists(), "looking must not make anything"


def test_a_database_of_a_later_version_is_a_matter_of_configuration(
    tmp_path: Path, refusing: str
) -> None:
    path = tmp_path / "later.sqlite3"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")
    code, checks = _asked(
        MYSYMBOLS_DATABASE__URL=f"sqlite+aiosqlite:///{path}", MYSYMBOLS_KUCOIN__BASE_URL=refusing
    )
    assert code == ExitCode.CONFIGURATION
    assert checks["schema"]["verdict"] == CheckResult.FAILED
    assert "9999" in checks["schema"]["detail"]


@pytest.mark.parametrize(
    "url",
    [
        *("nonsense", "", "mysql://u:secret@h/d", "postgresql://u:secret@h:port/d"),
        *("sqlite+aiosqlite:///:memory:", "sqlite://"),  # nobody else could look into it
    ],
)
def test_an_address_of_no_database_is_a_matter_of_configuration(url: str) -> None:
    code, checks = _asked(MYSYMBOLS_DATABASE__URL=url)
    assert code == ExitCode.CONFIGURATION
    assert "MYSYMBOLS_DATABASE__URL" in checks["configuration"]["detail"]
    assert "secret" not in str(checks)


def test_databases_that_cannot_be(tmp_path: Path, refusing: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "noise").write_bytes(b"this is not a database" * 100)
    for url, exit_code in (
        (f"sqlite+aiosqlite:///{tmp_path}/file/below.sqlite3", ExitCode.CONFIGURATION),
        (f"sqlite+aiosqlite:///{tmp_path}", ExitCode.CONFIGURATION),
        (f"sqlite+aiosqlite:///{tmp_path}/noise", ExitCode.CORRUPT),
        (f"{refusing.replace('http', 'postgresql')}/nothing", ExitCode.UNAVAILABLE),
    ):
        code, checks = _asked(MYSYMBOLS_DATABASE__URL=url, MYSYMBOLS_KUCOIN__BASE_URL=refusing)
        assert code == exit_code
        assert checks["database"]["verdict"] == CheckResult.FAILED
        assert checks["schema"]["verdict"] == CheckResult.SKIPPED
        assert "secret" not in str(checks)


def test_all_is_well_with_an_exchange_and_a_migrated_database(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/fine.sqlite3"
    asyncio.run(migrations.upgrade(url))
    exchange = started(
        "sandbox", "--port", "0", "--json", "--until-eof", "--contracts", "5", cwd=tmp_path
    )
    assert exchange.stdout is not None
    try:
        address = json.loads(exchange.stdout.readline())["url"]
        variables = {"MYSYMBOLS_DATABASE__URL": url, "MYSYMBOLS_KUCOIN__BASE_URL": address}
        code, checks = _asked(**variables)
        shown = here("doctor", **variables)
    finally:
        assert ended(exchange).code == 0
    assert code == shown.code == ExitCode.OK
    assert checks.pop("service")["verdict"] == CheckResult.SKIPPED
    assert {check["verdict"] for check in checks.values()} == {"ok"}
    assert "what to do" in shown.out


@pytest.mark.parametrize(
    ("seconds", "verdict", "exit_code"),
    [
        (0.9, CheckResult.OK, ExitCode.OK),
        (-0.9, CheckResult.OK, ExitCode.OK),
        (1.1, CheckResult.WARNING, ExitCode.OK),
        (-5.1, CheckResult.FAILED, ExitCode.CONFIGURATION),
    ],
)
def test_the_clock_offset_is_judged_by_kucoins_limits(
    seconds: float, verdict: CheckResult, exit_code: ExitCode
) -> None:
    check = _check_clock(timedelta(seconds=seconds), DataSource.KUCOIN)
    assert (check.verdict, check.exit_code) == (verdict, exit_code)
    assert bool(check.advice) == (verdict is not CheckResult.OK)
    assert _check_clock(timedelta(days=seconds), DataSource.SANDBOX).verdict is CheckResult.OK


def test_sandbox_options_that_cannot_be() -> None:
    missing = here("sandbox", "--replay", "none.parquet", "--json")
    assert (missing.code, missing.document["code"]) == (ExitCode.CONFIGURATION, "no_such_file")
    day = here("sandbox", "--replay-from", "yesterday", "--json")
    assert (day.code, day.document["code"]) == (ExitCode.USAGE, "not_a_day")
    for command in ("sandbox", "demo"):
        alone = here(command, "--replay-from", "2025-01-31", "--json")
        assert (alone.code, alone.document["code"]) == (ExitCode.USAGE, "option_without_partner")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        busy = here("sandbox", "--port", port, "--contracts", "5", "--json")
    assert (busy.code, busy.document["code"]) == (ExitCode.CONFIGURATION, "sandbox_not_started")
    assert SandboxOptions().host == "127.0.0.1"


def _examined(url: str) -> tuple[int, dict[str, Any]]:
    ended = here("doctor", "--url", url, "--json", MYSYMBOLS_HTTP__PORT="sesame")
    checks = {check["name"]: check for check in ended.document["checks"]}
    names = {"connection", "transport", "clock", "key", "version", "market data", "service"}
    assert set(checks) >= names, "and nothing of this machine's set-up"
    assert not {"configuration", "database", "exchange"} & set(checks)
    return ended.code, checks


def test_a_named_service_is_examined_from_outside(tmp_path: Path) -> None:
    with serving(tmp_path, contracts=16) as url:
        code, checks = _examined(url)
        for _ in range(100):
            if checks["market data"]["verdict"] == "ok":
                break
            time.sleep(0.2)
            code, checks = _examined(url)
        shown = here("doctor", "--url", url)
    assert code == 0
    for name in ("connection", "transport", "clock", "key", "version", "market data"):
        assert checks[name]["verdict"] == "ok", checks[name]
    assert "role admin" in checks["key"]["detail"]
    assert checks["version"]["detail"] == code_version()
    assert "what to do" in shown.out


def test_an_address_without_a_service_fails_the_connection() -> None:
    code, checks = _examined(NOBODY)
    assert code == ExitCode.UNAVAILABLE
    assert checks["connection"]["verdict"] == CheckResult.FAILED
    assert "service_unreachable" in checks["connection"]["detail"]
    others = {name: check["verdict"] for name, check in checks.items() if name != "connection"}
    assert set(others.values()) == {"skipped"}
    with answering(200, b"<html>", "text/html") as (url, _):
        code, checks = _examined(url)
    assert (code, checks["connection"]["verdict"]) == (ExitCode.INTERNAL, "failed")


def test_a_refused_key_is_told_from_a_refused_connection() -> None:
    problem = json.dumps({"code": "unauthenticated", "detail": "No valid key."}).encode()
    with answering(401, problem, "application/problem+json") as (url, _):
        code, checks = _examined(url)
    assert code == ExitCode.NOT_PERMITTED
    assert (checks["connection"]["verdict"], checks["key"]["verdict"]) == ("ok", "failed")
    assert "MYSYMBOLS_KEY" in checks["key"]["advice"]


@pytest.mark.parametrize(
    ("ahead_s", "verdict"), [(0, "ok"), (1, "ok"), (4, "warning"), (-4, "warning"), (60, "failed")]
)
def test_the_clock_of_a_service_is_compared_with_this_one(ahead_s: int, verdict: str) -> None:
    date = format_datetime(utc_now() + timedelta(seconds=ahead_s), usegmt=True)
    check = _check_remote_clock(date, timedelta(milliseconds=20))
    assert check.verdict.value == verdict, check
    assert _check_remote_clock(None, timedelta(0)).verdict is CheckResult.SKIPPED


def test_plain_http_to_another_machine_is_a_warning() -> None:
    assert _check_transport("http://10.0.0.7:8000").verdict is CheckResult.WARNING
    assert _check_transport("https://desk.example").verdict is CheckResult.OK
    assert _check_transport("http://localhost:8000").verdict is CheckResult.OK


def test_another_version_of_the_service_is_a_warning() -> None:
    answer = {"version": "0.0.1", "actor": "key:ana", "scopes": [], "role": "viewer"}
    health = {"data_status": "stale", "as_of": None, "status": "up", "mode": "FROZEN"}
    document = {**answer, **health, "expires_at": None, "components": [], "service_levels": []}
    with answering(200, json.dumps(document).encode()) as (url, _):
        code, checks = _examined(url)
    assert code == 0
    assert checks["version"]["verdict"] == checks["market data"]["verdict"] == "warning"
    assert "0.0.1" in checks["version"]["detail"]


def test_an_unhealthy_component_is_listed_with_start_and_next_step() -> None:
    well = {"name": "database", "state": "up", "since": "2026-01-01T00:00:00Z", "cause": None}
    ill = {
        "name": "exchange",
        "state": "down",
        "since": "2026-01-02T03:04:00Z",
        "cause": "exchange_timeout",
        "detail": "no answer",
        "last_success_at": None,
        "next_step": "retries in 3 s",
    }
    levels = [
        {"name": "feed_uptime", "window_s": 3600, "share": 0.9987, "samples": 9},
        {"name": "feed_uptime", "window_s": 86400, "share": None, "samples": 0},
    ]
    health = {"status": "down", "mode": "FROZEN", "service_levels": levels}
    with answering(200, json.dumps({**health, "components": [well, ill]}).encode()) as (url, asked):
        _, checks = _asked(MYSYMBOLS_URL=url, MYSYMBOLS_HTTP__PORT="sesame")
    assert [one[1] for one in asked] == ["/api/symbol-mgmt/health"]
    assert checks["service"]["verdict"] == CheckResult.WARNING
    assert "FROZEN; feed_uptime 99.87 % of 9 samples within 3600 s" in checks["service"]["detail"]
    part = checks["service:exchange"]
    assert part["advice"] == "retries in 3 s"
    since = "down since 2026-01-02T03:04:00Z"
    for said in (since, "last success never", "exchange_timeout: no answer"):
        assert said in part["detail"]
    assert "service:database" not in checks
    with answering(200, b"<html>") as (url, _):
        _, checks = _asked(MYSYMBOLS_URL=url, MYSYMBOLS_HTTP__PORT="sesame")
    assert checks["service"]["verdict"] == CheckResult.WARNING
    _, checks = _asked(MYSYMBOLS_HTTP__PORT="sesame")
    assert checks["service"]["verdict"] == CheckResult.SKIPPED
