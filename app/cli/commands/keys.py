"""`my-symbols keys`: creates, lists, rotates and revokes API keys in the database."""

from typing import Annotated, Literal

import typer

from app.cli.lazy import load_program
from app.cli.output import AsCsv, AsJson, refuse_two_forms

command = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="API keys; works on the database of the settings, also while the service is closed.",
)
Key = Annotated[str, typer.Argument(help="Name, prefix or id of an active key.")]


@command.command()
def create(
    name: Annotated[str, typer.Argument(help="Name in history and audit, such as engine.")],
    role: Annotated[
        Literal["viewer", "trader", "operator", "admin"] | None,
        typer.Option(help="Role; each includes the ones before it."),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="pairlist, metrics, signals or live; may be repeated."),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(help="Signal source that scope signals is bound to; may be repeated."),
    ] = None,
    expires: Annotated[str, typer.Option(help="Lifetime, such as 90d or 12h.")] = "365d",
    allow: Annotated[
        list[str] | None,
        typer.Option(help="Network that may use the key, such as 10.0.0.0/8; may be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it once; the first one also writes the local key file."""
    load_program("keys create")(
        name=name,
        role=role,
        scopes=scope or [],
        sources=source or [],
        expires=expires,
        allow=allow or [],
        as_json=as_json,
    )


@command.command("list")
def list_keys(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List all keys, also expired and revoked ones, without their texts."""
    refuse_two_forms(as_json, as_csv)
    load_program("keys list")(as_json=as_json, as_csv=as_csv)


@command.command()
def rotate(
    key: Key,
    grace: Annotated[str, typer.Option(help="How long the replaced key stays valid.")] = "24h",
    as_json: AsJson = False,
) -> None:
    """Replace a key by a new one with the same rights, and print that once."""
    load_program("keys rotate")(key=key, grace=grace, as_json=as_json)


@command.command()
def revoke(key: Key, as_json: AsJson = False) -> None:
    """Revoke every active key of that name at once; a running service notices within a second."""
    load_program("keys revoke")(key=key, as_json=as_json)
