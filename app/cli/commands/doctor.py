"""`my-symbols doctor`: checks the set-up and gives advice."""

import typer

from app.cli.client import DEFAULT_URL
from app.cli.lazy import load_program
from app.cli.output import AsJson, Url

command = typer.Typer(add_completion=False)


@command.command()
def doctor(as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Check configuration, database, schema, exchange, clock and the running service."""
    load_program("doctor")(as_json=as_json, url=url)
