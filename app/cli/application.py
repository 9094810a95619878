"""The command line put together: one typer application, documented exit codes."""

from typing import Annotated

import typer

from app.cli.alerts import alerts
from app.cli.audit import audit
from app.cli.demo import demo
from app.cli.doctor import doctor
from app.cli.exits import Exit
from app.cli.jobs import jobs
from app.cli.portfolio import portfolio
from app.cli.portfolio_report import report
from app.cli.position_size import size, sizes
from app.cli.reference import configuration
from app.cli.sandbox import sandbox
from app.cli.scoring import convert, explain, score, sync
from app.cli.service import serve
from app.cli.tape import tape
from app.cli.watch import watch
from app.container.runtime_values import code_version

_EPILOG = (
    "Exit codes: 0 done, 1 refused by the service (its problem code is printed), 2 wrong usage, "
    "69 service, exchange or database unavailable, 70 internal error, 74 damaged database, "
    "78 configuration, 130 interrupted."
)

application = typer.Typer(
    name="my-symbols",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
    epilog=_EPILOG,
    help="Decides which KuCoin futures symbols to hold, with what weight and size.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(code_version())
        raise typer.Exit(int(Exit.OK))


@application.callback()
def _options(
    asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print and leave.")
    ] = False,
) -> None:
    del asked


for _command in (serve, demo, sandbox, doctor, sync, score, explain, convert, watch):
    application.command()(_command)
portfolio.command()(report)
portfolio.command()(size)
portfolio.command()(sizes)
application.add_typer(portfolio, name="portfolio")
application.add_typer(configuration, name="configuration")
application.add_typer(audit, name="audit")
application.add_typer(tape, name="tape")
application.add_typer(jobs, name="jobs")
application.add_typer(alerts, name="alerts")


def main() -> None:
    """Entry point of the installed script."""
    application()
