"""Programs of `my-symbols secrets`: sealed secrets in the database, without the service."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from secrets import SystemRandom
from typing import Any, Final, TypeVar

import app.container.tables  # noqa: F401 - declares every table
from app.cli.exit_codes import CommandError, ExitCode, exit_code_of_error
from app.cli.output import create_table, report_errors
from app.cli.programs.keys import create_command
from app.cli.programs.settings import read_settings
from app.container.composition import sealed_store
from app.foundation.errors import ConflictError, ServiceError
from app.foundation.sql import migrations
from app.foundation.sql.database import Database
from app.operations.domain.event_codec import encode_event
from app.security.services.sealed_store import NOT_SEALED, UNKNOWN_KEY, SealedCount, SealedStore
from app.security.services.sealing import new_sealing_key
from app.settings import Settings

T = TypeVar("T")
_COLUMNS: Final = ("kind", "key", "state", "secrets>")


def print_new_key() -> None:
    """Prints a new sealing key alone on stdout, so that a script can take it."""
    with report_errors(as_json=False) as output:
        output.print_document(new_sealing_key())


def list_secrets(as_json: bool, as_csv: bool) -> None:
    """Prints the number of secrets by kind and key."""
    with report_errors(as_json) as output:

        async def read(store: SealedStore) -> list[dict[str, Any]]:
            keys = [key.id for key in store.sealer.known()]
            return [_document(one, keys) for one in await store.list()]

        items = _run(read_settings(), read)
        if output.print_if_listed(items, as_csv=as_csv):
            return
        rows = [tuple(item.values()) for item in items]
        output.console.print(create_table("Sealed secrets", _COLUMNS, rows))


def rotate_secrets(as_json: bool) -> None:
    """Seals every secret under the newest key and prints the number of changed ones."""
    with report_errors(as_json) as output:
        changed = _run(read_settings(), lambda store: store.rotate(create_command()))
        if as_json:
            output.print_document({"sealed_anew": changed})
            return
        output.console.print(f"sealed anew under the newest key: {changed}")


def discard_secrets(yes: bool, as_json: bool) -> None:
    """Empties secrets that no configured key opens and prints their number."""
    with report_errors(as_json) as output:
        if not yes:
            raise CommandError(ExitCode.USAGE, "not_confirmed", "Nothing was discarded.")
        changed = _run(read_settings(), lambda store: store.discard_unreadable(create_command()))
        if as_json:
            output.print_document({"discarded": changed})
            return
        output.console.print(f"discarded: {changed}")


def _document(count: SealedCount, keys: list[str]) -> dict[str, Any]:
    state = "newest" if keys[:1] == [count.key] else "older"
    if count.key in {NOT_SEALED, UNKNOWN_KEY}:
        state = "not sealed" if count.key == NOT_SEALED else "key missing"
    shown = asdict(count)
    return {"kind": shown["kind"], "key": shown["key"], "state": state, "secrets": count.secrets}


def _run(settings: Settings, work: Callable[[SealedStore], Awaitable[T]]) -> T:
    """Result of `work` on the database of the settings. Raises CommandError."""

    async def run() -> T:
        async with _opened(settings) as store:
            return await work(store)

    try:
        return asyncio.run(run())
    except ConflictError as error:  # without a key
        raise CommandError(ExitCode.CONFIGURATION, error.code, error.detail) from None
    except ServiceError as error:
        raise CommandError(exit_code_of_error(error), error.code, error.detail) from None


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[SealedStore]:
    """The store on a migrated database, which a running service may use as well."""
    await migrations.upgrade(settings.database.url)
    database = Database(
        settings.database.options, time.monotonic, SystemRandom().random, encode_event
    )
    await database.open(is_exclusive=False)
    try:
        yield sealed_store(settings, database)
    finally:
        await database.close()
