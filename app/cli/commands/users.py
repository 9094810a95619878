"""`my-symbols users`: adds, lists, disables and enables people in the database."""

from typing import Annotated, Literal

import typer

from app.cli.lazy import load_program
from app.cli.output import AsCsv, AsJson, refuse_two_forms

command = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="People with a password; works on the database of the settings, also while the service is"
    " closed. A password is asked for, or read from the first line of standard input.",
)
User = Annotated[str, typer.Argument(help="Name or id of a user, or the beginning of the id.")]


@command.command()
def add(
    name: Annotated[str, typer.Argument(help="Name in history and audit, such as ana.")],
    role: Annotated[
        Literal["viewer", "trader", "operator", "admin"],
        typer.Option(help="Role; each includes the ones before it."),
    ],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="live allows to move real money; may be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a user; without any key before, the local key file is written, too."""
    load_program("users add")(name=name, role=role, scopes=scope or [], as_json=as_json)


@command.command("list")
def list_users(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List all users, also disabled ones."""
    refuse_two_forms(as_json, as_csv)
    load_program("users list")(as_json=as_json, as_csv=as_csv)


@command.command()
def disable(user: User, as_json: AsJson = False) -> None:
    """Disable a user; all sessions end within a second, also in a running service."""
    load_program("users disable")(user=user, as_json=as_json)


@command.command()
def enable(user: User, as_json: AsJson = False) -> None:
    """Enable a disabled user again."""
    load_program("users enable")(user=user, as_json=as_json)


@command.command()
def password(user: User, as_json: AsJson = False) -> None:
    """Set the password of a user; all sessions end within a second."""
    load_program("users password")(user=user, as_json=as_json)
