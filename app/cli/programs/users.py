"""Programs of `my-symbols users`: people in the database, without the service."""

import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import typer

from app.cli.exit_codes import CommandError, ExitCode
from app.cli.output import Output, create_table, report_errors
from app.cli.programs.keys import create_command, parse_scope, run_on_keys, wrong_usage
from app.cli.programs.settings import read_settings
from app.container.composition import user_service
from app.foundation.principals import Role
from app.security.domain.keys import NAME_PATTERN, order_scopes
from app.security.domain.people import MAX_PASSWORD_CHARS, User
from app.security.services.keys import ApiKeyService
from app.security.services.users import UserDraft, UserEdit, UserService
from app.settings import Settings

T = TypeVar("T")
_COLUMNS: Final = ("name", "role", "scopes", "state", "created", "password changed", "id#")
_MAX_LINE_CHARS: Final = 4 * MAX_PASSWORD_CHARS


def add_user(name: str, role: str, scopes: list[str], as_json: bool) -> None:
    """Adds a user with a password that is asked for."""
    with report_errors(as_json) as output:
        if re.fullmatch(NAME_PATTERN, name) is None:
            raise wrong_usage(
                f"{name!r} is no name: use up to 40 of a-z, 0-9, dot, dash, underscore."
            )
        draft = UserDraft(name, Role(role), frozenset(map(parse_scope, scopes)))
        settings = read_settings()
        password = _read_password()

        async def add(users: UserService) -> tuple[User, str | None]:
            added = await users.add(draft, password, create_command())
            return added.user, str(users.keys.local_file) if added.has_local_key else None

        user, place = _run(settings, add)
        _print(output, user, "added")
        if place is not None:
            output.notes.print(
                f"The command line of this machine uses the admin key in {place}.", markup=False
            )


def list_users(as_json: bool, as_csv: bool) -> None:
    """Prints all users."""
    with report_errors(as_json) as output:
        users = _run(read_settings(), lambda service: service.list())
        if output.print_if_listed([_document(user) for user in users], as_csv=as_csv):
            return
        output.console.print(create_table("Users", _COLUMNS, [_row(user) for user in users]))


def disable_user(user: str, as_json: bool) -> None:
    """Disables a user and ends all sessions."""
    _edit(user, UserEdit(is_active=False), "disabled", as_json)


def enable_user(user: str, as_json: bool) -> None:
    """Enables a user again."""
    _edit(user, UserEdit(is_active=True), "enabled", as_json)


def set_password(user: str, as_json: bool) -> None:
    """Sets a password that is asked for and ends all sessions."""
    with report_errors(as_json) as output:
        settings = read_settings()
        password = _read_password()

        async def change(users: UserService) -> User:
            found = await _find(users, user)
            return await users.set_password(found.id, password, create_command())

        _print(output, _run(settings, change), "password changed")


def _edit(name: str, edit: UserEdit, outcome: str, as_json: bool) -> None:
    with report_errors(as_json) as output:

        async def change(users: UserService) -> User:
            found = await _find(users, name)
            edited = (await users.edit(found.id, edit, create_command())).result
            return found if edited is None else edited

        _print(output, _run(read_settings(), change), outcome)


async def _find(users: UserService, name: str) -> User:
    found = await users.find(name)
    if found is None and name:
        begun = [one for one in await users.list() if one.id.startswith(name.lower())]
        if len(begun) > 1:
            named = ", ".join(one.id for one in begun)
            raise CommandError(
                ExitCode.USAGE, "ambiguous_id", f"{name!r} begins several ids: {named}."
            )
        found = next(iter(begun), None)
    if found is None:
        raise CommandError(ExitCode.REFUSED, "not_found", f"No user is called {name}.")
    return found


def _run(settings: Settings, work: Callable[[UserService], Awaitable[T]]) -> T:
    async def run(keys: ApiKeyService) -> T:
        return await work(user_service(keys))

    return run_on_keys(settings, run)


def _read_password() -> str:
    """Password of the terminal, typed twice, or the first line of standard input."""
    if sys.stdin.isatty():
        typed: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return typed
    try:
        line = sys.stdin.readline(_MAX_LINE_CHARS).rstrip("\r\n")
    except UnicodeDecodeError:
        raise wrong_usage("Standard input is not UTF-8 text.") from None
    if not line:
        raise wrong_usage("The password is read from standard input, which is empty.")
    return line


def _print(output: Output, user: User, outcome: str) -> None:
    if output.as_json:
        output.print_document(_document(user))
        return
    output.console.print(f"{outcome}: {user.name} ({user.role.value})", markup=False)


def _document(user: User) -> dict[str, Any]:
    times = {
        name: None if at is None else at.isoformat().replace("+00:00", "Z")
        for name, at in (
            ("created_at", user.created_at),
            ("password_changed_at", user.password_changed_at),
            ("disabled_at", user.disabled_at),
        )
    }
    return {
        "id": user.id,
        "name": user.name,
        "role": user.role.value,
        "scopes": order_scopes(user.scopes),
        "state": "active" if user.is_active else "disabled",
        "created_by": user.created_by,
        **times,
    }


def _row(user: User) -> Sequence[object]:
    shown = _document(user)
    return (
        user.name,
        shown["role"],
        ", ".join(shown["scopes"]) or None,
        shown["state"],
        shown["created_at"],
        shown["password_changed_at"],
        user.id,
    )
