"""Programs of `my-symbols keys`: API keys in the database, without the service."""

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, TypeVar

from app.cli.exit_codes import CommandError, ExitCode, exit_code_of_error
from app.cli.output import Output, create_table, report_errors
from app.cli.programs.settings import read_settings
from app.container.composition import key_service
from app.container.runtime_values import new_id, utc_now
from app.foundation.errors import ConflictError, NotFoundError, RefusedError, ServiceError
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor
from app.foundation.principals import LOCAL, Role, Scope
from app.foundation.sql import migrations
from app.foundation.sql.database import Database
from app.operations.domain.event_codec import encode_event
from app.security.domain.addresses import parse_networks
from app.security.domain.keys import NAME_PATTERN, ApiKey, order_scopes
from app.security.services.keys import ApiKeyService, IssuedKey, KeyDraft
from app.settings import Settings

T = TypeVar("T")
_UNITS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_MAX_DAYS: Final = 3_650
_COLUMNS: Final = (
    "name", "role", "scopes", "sources", "allow", "state", "expires", "last used", "prefix",
)  # fmt: skip
_REFUSALS: Final = (ConflictError, NotFoundError, RefusedError)


def create_key(
    name: str,
    role: str | None,
    scopes: list[str],
    sources: list[str],
    expires: str,
    allow: list[str],
    as_json: bool,
) -> None:
    """Creates a key and prints it once."""
    with report_errors(as_json) as output:
        if re.fullmatch(NAME_PATTERN, name) is None:
            raise wrong_usage(
                f"{name!r} is no name: use up to 40 of a-z, 0-9, dot, dash, underscore."
            )
        lifetime = _parse_duration(expires)
        if not timedelta(0) < lifetime <= timedelta(days=_MAX_DAYS):
            raise wrong_usage(f"A key expires within {_MAX_DAYS} days.")
        draft = KeyDraft(
            name,
            None if role is None else Role(role),
            frozenset(map(parse_scope, scopes)),
            frozenset(sources),
            _parse_networks(allow),
            lifetime,
        )
        settings = read_settings()

        async def create(keys: ApiKeyService) -> IssuedKey:
            return _result(await keys.create(draft, create_command()))

        issued = run_on_keys(settings, create)
        _print_issued(issued, output)
        if issued.has_local_key:
            place = run_on_keys(settings, _local_place)
            output.notes.print(
                f"The command line of this machine uses the admin key in {place}.", markup=False
            )


def list_keys(as_json: bool, as_csv: bool) -> None:
    """Prints all keys without their texts."""
    with report_errors(as_json) as output:
        keys = run_on_keys(read_settings(), lambda service: service.list())
        if output.print_if_listed([_document(key) for key in keys], as_csv=as_csv):
            return
        output.console.print(create_table("API keys", _COLUMNS, [_row(key) for key in keys]))


def rotate_key(key: str, grace: str, as_json: bool) -> None:
    """Replaces the newest active key of that name and prints the new one once."""
    with report_errors(as_json) as output:
        duration = _parse_duration(grace)

        async def rotate(keys: ApiKeyService) -> IssuedKey:
            found = await _find(keys, key)
            return _result(await keys.rotate(found[-1].id, duration, create_command()))

        _print_issued(run_on_keys(read_settings(), rotate), output)


def revoke_key(key: str, as_json: bool) -> None:
    """Revokes every active key of that name."""
    with report_errors(as_json) as output:

        async def revoke(keys: ApiKeyService) -> list[ApiKey]:
            found = await _find(keys, key)
            return [_result(await keys.revoke(one.id, create_command())) for one in found]

        revoked = run_on_keys(read_settings(), revoke)
        if as_json:
            output.print_document({"items": [_document(one) for one in revoked]})
            return
        for one in revoked:
            output.console.print(f"revoked: {one.name} ({one.prefix})", markup=False)


async def _find(keys: ApiKeyService, name: str) -> tuple[ApiKey, ...]:
    found = await keys.find(name)
    if not found:
        raise CommandError(ExitCode.REFUSED, "not_found", f"No active key is called {name}.")
    return found


async def _local_place(keys: ApiKeyService) -> str:
    return str(keys.local_file)


def run_on_keys(settings: Settings, work: Callable[[ApiKeyService], Awaitable[T]]) -> T:
    """Result of `work` on the database of the settings. Raises CommandError."""

    async def run() -> T:
        async with _opened(settings) as keys:
            return await work(keys)

    try:
        return asyncio.run(run())
    except _REFUSALS as error:
        raise CommandError(ExitCode.REFUSED, error.code, error.detail) from None
    except ServiceError as error:
        raise CommandError(exit_code_of_error(error), error.code, error.detail) from None


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[ApiKeyService]:
    """The use cases on a migrated database, which a running service may use as well."""
    await migrations.upgrade(settings.database.url)
    database = Database(
        settings.database.options, time.monotonic, secrets.SystemRandom().random, encode_event
    )
    await database.open(is_exclusive=False)
    try:
        yield key_service(settings, database, IdempotentExecutor(database, utc_now))
    finally:
        await database.close()


def _result(outcome: CommandResult[T]) -> T:
    """Result of a command without an idempotency key, which is never a replay."""
    if outcome.result is None:
        raise LookupError("a command without a key has a result")
    return outcome.result


def create_command() -> Command:
    """Command of the caller on this machine."""
    return Command(LOCAL.actor, new_id())


def _print_issued(issued: IssuedKey, output: Output) -> None:
    """Prints the key: alone on stdout, so that a script can take it."""
    if output.as_json:
        output.print_document({**_document(issued.key), "secret": issued.token})
        return
    output.print_document(issued.token)
    output.notes.print(
        f"This is the key of {issued.key.name}; it is shown only now. Send it as"
        " `Authorization: Bearer KEY`, or set MYSYMBOLS_KEY for the command line.",
        markup=False,
    )


def _document(key: ApiKey) -> dict[str, Any]:
    times = {
        name: None if at is None else at.isoformat().replace("+00:00", "Z")
        for name, at in (
            ("created_at", key.created_at),
            ("expires_at", key.expires_at),
            ("last_used_at", key.last_used_at),
            ("revoked_at", key.revoked_at),
        )
    }
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "role": None if key.role is None else key.role.value,
        "scopes": order_scopes(key.scopes),
        "sources": sorted(key.sources),
        "allow": list(key.allow),
        "state": key.state(utc_now()).value,
        "created_by": key.created_by,
        **times,
    }


def _row(key: ApiKey) -> Sequence[object]:
    shown = _document(key)
    return (
        key.name,
        shown["role"],
        ", ".join(shown["scopes"]) or None,
        ", ".join(shown["sources"]) or None,
        ", ".join(key.allow) or None,
        shown["state"],
        shown["expires_at"],
        shown["last_used_at"],
        key.prefix,
    )


def _parse_duration(text: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,6})([dhms])", text)
    if found is None:
        raise wrong_usage(f"{text!r} is no duration such as 90d, 12h or 30m.")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def parse_scope(text: str) -> Scope:
    """The scope of that name. Raises CommandError."""
    if text not in set(Scope):
        raise wrong_usage(f"{text!r} is no scope: use {', '.join(Scope)}.")
    return Scope(text)


def _parse_networks(texts: list[str]) -> tuple[str, ...]:
    try:
        return parse_networks(texts)
    except ValueError as error:
        raise wrong_usage(f"{error}: name a network such as 10.0.0.0/8.") from None


def wrong_usage(detail: str) -> CommandError:
    """Error of an invalid argument."""
    return CommandError(ExitCode.USAGE, "invalid_argument", detail)
