"""`my-symbols doctor`: checks the set-up, or a service elsewhere, and gives advice."""

import typer

from app.cli.client import DEFAULT_URL
from app.cli.lazy import load_program
from app.cli.output import AsJson, Url

command = typer.Typer(add_completion=False)


@command.command()
def doctor(context: typer.Context, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Check configuration, database, schema, exchange, clock and the running service.

    With --url only the service at that address is examined, from here: connection, certificate,
    key, version, clock, market data and components.
    """
    source = context.get_parameter_source("url")
    is_elsewhere = source is not None and source.name == "COMMANDLINE"
    load_program("doctor")(as_json=as_json, url=url, is_elsewhere=is_elsewhere)
