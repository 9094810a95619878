"""Program of `my-symbols doctor`: checks the set-up and the running service."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path
from secrets import SystemRandom
from typing import Any, Final
from urllib.parse import urlsplit

import typer

from app.adapters.kucoin.exchange import open_exchange
from app.adapters.kucoin.limiter import KucoinLimits
from app.cli.client import Client
from app.cli.credentials import is_this_machine
from app.cli.exit_codes import CommandError, ExitCode, exit_code_of_error
from app.cli.output import Output, create_table, report_errors
from app.cli.programs.settings import read_settings
from app.container.runtime_values import code_version, utc_now
from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import ServiceError
from app.foundation.sql import migrations
from app.market.domain.models import ExchangeStatus
from app.settings import Settings

# KuCoin refuses signed requests that are more than five seconds off.
CLOCK_WARNING: Final = timedelta(seconds=1)
CLOCK_FAILURE: Final = timedelta(seconds=5)
_HEALTH_TIMEOUT_S: Final = 5.0
_SERVICE: Final = "service"
_HTTP_DATE_RESOLUTION: Final = timedelta(seconds=1)
# A component that is down is a warning: the service runs and recovers by itself.
_HEALTHY_STATES: Final = frozenset({"up", "starting"})
_LIMITS: Final = KucoinLimits(
    connect_timeout_s=3.0, read_timeout_s=5.0, total_timeout_s=6.0, patience_s=8.0, tries=1
)


class CheckResult(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class DoctorCheck:
    """Result of one check with advice and, for a failed one, the exit code."""

    name: str
    verdict: CheckResult
    detail: str
    advice: str = ""
    exit_code: ExitCode = ExitCode.OK


def run_checks(as_json: bool, url: str, is_elsewhere: bool) -> None:
    """Prints all checks; exits with the code of the worst failed one.

    A service elsewhere is examined without the set-up of this machine.
    """
    with report_errors(as_json) as output:
        if is_elsewhere:
            checks = asyncio.run(examine_service(url))
        else:
            checks = [*asyncio.run(_check_setup()), *asyncio.run(check_service(url))]
        _print_checks(checks, output)
    failed = [check.exit_code for check in checks if check.verdict is CheckResult.FAILED]
    raise typer.Exit(int(max(failed, default=ExitCode.OK)))


async def _check_setup() -> list[DoctorCheck]:
    try:
        settings = read_settings()
    except CommandError as error:
        failed = DoctorCheck(
            "configuration",
            CheckResult.FAILED,
            error.detail,
            "correct or unset these variables; docs/configuration.md lists all of them",
            ExitCode.CONFIGURATION,
        )
        dependent = ("database", "schema", "exchange", "clock")
        return [
            failed,
            *(
                DoctorCheck(name, CheckResult.SKIPPED, "needs a configuration")
                for name in dependent
            ),
        ]
    source = settings.kucoin.data_source
    passed = DoctorCheck("configuration", CheckResult.OK, f"{settings.kucoin.base_url} as {source}")
    return [
        passed,
        *[check async for check in _check_database(settings)],
        *[check async for check in _check_exchange(settings)],
    ]


async def _check_database(settings: Settings) -> AsyncIterator[DoctorCheck]:
    url = settings.database.url
    address = _without_secrets(url)
    try:
        _require_writable(url)
        present, needed = await migrations.current(url), migrations.head()
    except ValueError as error:
        advice = "set MYSYMBOLS_DATABASE__URL to an sqlite or postgresql address"
        yield DoctorCheck(
            "database", CheckResult.FAILED, str(error), advice, ExitCode.CONFIGURATION
        )
        yield DoctorCheck("schema", CheckResult.SKIPPED, "needs a database")
        return
    except (ServiceError, OSError) as error:
        advice = "start it, or correct MYSYMBOLS_DATABASE__URL and the permissions of its directory"
        exit_code = (
            exit_code_of_error(error) if isinstance(error, ServiceError) else ExitCode.CONFIGURATION
        )
        yield DoctorCheck("database", CheckResult.FAILED, f"{address}: {error}", advice, exit_code)
        yield DoctorCheck("schema", CheckResult.SKIPPED, "needs a database")
        return
    yield DoctorCheck("database", CheckResult.OK, address)
    if present == needed:
        yield DoctorCheck("schema", CheckResult.OK, f"revision {needed}")
    elif present is None:
        advice = "nothing to do: `my-symbols serve` creates it"
        yield DoctorCheck("schema", CheckResult.WARNING, f"none yet, {needed} is needed", advice)
    elif migrations.is_known(present):
        advice = "nothing to do: `my-symbols serve` upgrades it"
        yield DoctorCheck(
            "schema", CheckResult.WARNING, f"revision {present}, {needed} is needed", advice
        )
    else:
        yield DoctorCheck(
            "schema",
            CheckResult.FAILED,
            f"revision {present} is unknown to this version, which needs {needed}",
            "run the version that created it, or choose another database",
            ExitCode.CONFIGURATION,
        )


async def _check_exchange(settings: Settings) -> AsyncIterator[DoctorCheck]:
    kucoin = settings.kucoin
    try:
        async with open_exchange(
            base_url=kucoin.base_url,
            source=kucoin.data_source,
            now=utc_now,
            monotonic=time.monotonic,
            sleep=asyncio.sleep,
            dice=SystemRandom(),
            limits=_LIMITS,
        ) as exchange:
            status = await exchange.status()
            sent_s = time.monotonic()
            stamp_ms = await exchange.server_time_ms()
            took_s = time.monotonic() - sent_s
    except ServiceError as error:
        advice = (
            "check the network and MYSYMBOLS_KUCOIN__BASE_URL; the service stays up, "
            "shows no score and keeps retrying"
        )
        detail = f"{kucoin.base_url}: {error.code}: {error.detail}"
        yield DoctorCheck("exchange", CheckResult.FAILED, detail, advice, ExitCode.UNAVAILABLE)
        yield DoctorCheck("clock", CheckResult.SKIPPED, "needs the exchange's time")
        return
    open_now = status is ExchangeStatus.OPEN
    yield DoctorCheck(
        "exchange",
        CheckResult.OK if open_now else CheckResult.WARNING,
        f"{status}, answered in {took_s * 1000:.0f} ms",
        "" if open_now else "wait for the end of its maintenance: no new decisions until then",
    )
    offset = timedelta(milliseconds=stamp_ms) - _since_epoch() + timedelta(seconds=took_s / 2)
    yield _check_clock(offset, kucoin.data_source)


def _since_epoch() -> timedelta:
    return timedelta(seconds=utc_now().timestamp())


def _check_clock(offset: timedelta, source: DataSource) -> DoctorCheck:
    seconds = offset.total_seconds()
    detail = f"the exchange is {abs(seconds):.3f} s {'ahead' if seconds > 0 else 'behind'}"
    if source is DataSource.SANDBOX:
        return DoctorCheck(
            "clock", CheckResult.OK, f"{detail}; a local exchange may keep its own time"
        )
    if abs(offset) <= CLOCK_WARNING:
        return DoctorCheck("clock", CheckResult.OK, detail)
    advice = "synchronise this machine's clock (NTP)"
    if abs(offset) <= CLOCK_FAILURE:
        return DoctorCheck("clock", CheckResult.WARNING, detail, advice)
    return DoctorCheck("clock", CheckResult.FAILED, detail, advice, ExitCode.CONFIGURATION)


def _print_checks(checks: list[DoctorCheck], output: Output) -> None:
    if output.as_json:
        healthy = all(check.verdict is not CheckResult.FAILED for check in checks)
        rows = [{**asdict(check), "exit_code": int(check.exit_code)} for check in checks]
        output.print_document({"healthy": healthy, "checks": rows})
        return
    lines = [(check.name, check.verdict.value, check.detail, check.advice) for check in checks]
    output.console.print(create_table("doctor", ("check", "verdict", "", "what to do"), lines))


def _require_writable(url: str) -> None:
    """Raises OSError if no SQLite file can be created at the address."""
    parts = urlsplit(url)
    if not parts.scheme.startswith("sqlite"):
        return
    path = Path(parts.path.removeprefix("/"))
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if nearest != path and not nearest.is_dir():
        raise NotADirectoryError(f"{nearest} is not a directory")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory")
    if not os.access(nearest, os.W_OK):
        raise PermissionError(f"{nearest} may not be written")


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


async def examine_service(url: str) -> list[DoctorCheck]:
    """Returns the checks of a service from outside; those that need an answer are skipped without.

    The clock of the service is known to the second, so smaller differences are not reported.
    """
    client = replace(Client(url), timeout_s=_HEALTH_TIMEOUT_S)
    asked_at = time.monotonic()
    try:
        health = await client.get("/health")
    except CommandError as error:
        return _refused(url, error)
    seconds = time.monotonic() - asked_at
    answered = f"{url} answered within {seconds * 1000:.0f} ms"
    checks = [DoctorCheck("connection", CheckResult.OK, answered), _check_transport(url)]
    checks.append(_check_remote_clock(health.date, timedelta(seconds=seconds)))
    checks.append(await _check_key(client))
    checks.append(await _check_version(client))
    status = health.document["data_status"]
    is_fresh = status == DataStatus.FRESH.value
    checks.append(
        DoctorCheck(
            "market data",
            CheckResult.OK if is_fresh else CheckResult.WARNING,
            f"{status}, as of {health.document['as_of'] or 'never'}",
            "" if is_fresh else "no decision is made on it; `my-symbols health` shows the cause",
        )
    )
    return [*checks, *_check_health(url, health.document)]


def _refused(url: str, error: CommandError) -> list[DoctorCheck]:
    dependent = ("transport", "clock", "key", "version", "market data", _SERVICE)
    advice = "check the address, the network and the log of the service"
    if error.exit_code is ExitCode.NOT_PERMITTED:
        name, advice = "key", "name a valid key with MYSYMBOLS_KEY or --key-file"
        reached = [DoctorCheck("connection", CheckResult.OK, f"{url} answered")]
    else:
        name, reached = "connection", []
    failed = DoctorCheck(
        name, CheckResult.FAILED, f"{error.code}: {error.detail}", advice, error.exit_code
    )
    skipped = [
        DoctorCheck(one, CheckResult.SKIPPED, "needs an answer") for one in dependent if one != name
    ]
    return [*reached, failed, *skipped]


def _check_transport(url: str) -> DoctorCheck:
    if url.lower().startswith("https:"):
        return DoctorCheck("transport", CheckResult.OK, "TLS, with a trusted certificate")
    if is_this_machine(url):
        return DoctorCheck("transport", CheckResult.OK, "this machine, without TLS")
    advice = "serve with MYSYMBOLS_HTTP__TLS_CERTIFICATE, or behind a proxy that speaks TLS"
    return DoctorCheck(
        "transport", CheckResult.WARNING, "keys and answers cross the network unencrypted", advice
    )


def _check_remote_clock(date: str | None, took: timedelta) -> DoctorCheck:
    """Compares this clock with the HTTP date of an answer that took so long."""
    try:
        stamp = parsedate_to_datetime(date or "")
    except ValueError:
        return DoctorCheck("clock", CheckResult.SKIPPED, "the answer has no date")
    offset = _since_epoch() - timedelta(seconds=stamp.timestamp())
    # The date was cut to a second, at any moment of the request.
    excess = max(offset - _HTTP_DATE_RESOLUTION - took, -offset, timedelta(0))
    seconds = offset.total_seconds()
    side = "behind" if seconds > 0 else "ahead of"
    if excess <= CLOCK_WARNING:
        return DoctorCheck("clock", CheckResult.OK, "equal to this one within two seconds")
    detail = f"the service is about {abs(seconds):.0f} s {side} this machine"
    advice = "synchronise both clocks (NTP)"
    if excess <= CLOCK_FAILURE:
        return DoctorCheck("clock", CheckResult.WARNING, detail, advice)
    return DoctorCheck("clock", CheckResult.FAILED, detail, advice, ExitCode.CONFIGURATION)


async def _check_key(client: Client) -> DoctorCheck:
    try:
        caller = (await client.get("/users/me")).document
    except CommandError as error:
        advice = "name a valid key with MYSYMBOLS_KEY or --key-file"
        detail = f"{error.code}: {error.detail}"
        return DoctorCheck("key", CheckResult.FAILED, detail, advice, error.exit_code)
    ends = "" if caller["expires_at"] is None else f", until {caller['expires_at']}"
    permitted = ", ".join(caller["scopes"]) or f"role {caller['role']}"
    detail = f"known as {caller['actor']}, {permitted}{ends}"
    return DoctorCheck("key", CheckResult.OK, detail)


async def _check_version(client: Client) -> DoctorCheck:
    try:
        version = (await client.get("/status")).document["version"]
    except CommandError as error:
        return DoctorCheck("version", CheckResult.SKIPPED, f"{error.code}: {error.detail}")
    if version == code_version():
        return DoctorCheck("version", CheckResult.OK, str(version))
    detail = f"the service is {version}, this command {code_version()}"
    return DoctorCheck("version", CheckResult.WARNING, detail, "use the command of that version")


async def check_service(url: str) -> list[DoctorCheck]:
    """Returns a check of the service, and one for each of its unhealthy components."""
    try:
        response = await replace(Client(url), timeout_s=_HEALTH_TIMEOUT_S).get("/health")
    except CommandError as error:
        if error.exit_code is ExitCode.UNAVAILABLE:
            return [DoctorCheck(_SERVICE, CheckResult.SKIPPED, f"no service runs at {url}")]
        return [
            DoctorCheck(_SERVICE, CheckResult.WARNING, error.detail, "name the service with --url")
        ]
    return _check_health(url, response.document)


def _check_health(url: str, health: Mapping[str, Any]) -> list[DoctorCheck]:
    unhealthy = [part for part in health["components"] if part["state"] not in _HEALTHY_STATES]
    detail = f"{health['status']} at {url}, mode {health['mode']}; {_format_levels(health)}"
    verdict = CheckResult.WARNING if unhealthy else CheckResult.OK
    return [DoctorCheck(_SERVICE, verdict, detail), *map(_check_component, unhealthy)]


def _check_component(component: Mapping[str, Any]) -> DoctorCheck:
    causes = (component["cause"], component["detail"])
    cause = ": ".join(str(text) for text in causes if text is not None)
    last = component["last_success_at"] or "never"
    detail = (
        f"{component['state']} since {component['since']}, last success {last}; "
        f"{cause or 'cause unknown'}"
    )
    name = f"{_SERVICE}:{component['name']}"
    return DoctorCheck(name, CheckResult.WARNING, detail, component["next_step"] or "see its log")


def _format_levels(health: Mapping[str, Any]) -> str:
    """Formats the service levels that have samples."""
    known = [level for level in health["service_levels"] if level["share"] is not None]
    texts = [
        f"{level['name']} {100 * level['share']:.2f} % of {level['samples']} samples within"
        f" {level['window_s']} s"
        for level in known
    ]
    return ", ".join(texts) or "no service levels yet"
