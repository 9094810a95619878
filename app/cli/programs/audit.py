"""Program of `my-symbols audit verify`: verifies the history or reports its first break."""

import asyncio
from typing import Any

import typer

from app.cli.exit_codes import CommandError, ExitCode, exit_code_of_error
from app.cli.output import Output, create_table, report_errors
from app.cli.programs.settings import read_settings
from app.foundation.errors import ServiceError
from app.operations.domain.history_audit import HistoryFindings
from app.operations.storage import audit


def verify_history(database: str | None, as_json: bool) -> None:
    """Checks the history of `database` and prints its breaks."""
    with report_errors(as_json) as output:
        options = {} if database is None else {"database": {"url": database}}
        url = read_settings(options).database.url
        try:
            findings = asyncio.run(audit.verify_history(url))
        except ValueError as error:
            raise CommandError(ExitCode.CONFIGURATION, "settings_invalid", str(error)) from None
        except ServiceError as error:
            raise CommandError(exit_code_of_error(error), error.code, error.detail) from None
        _print_findings(findings, output)
    raise typer.Exit(int(ExitCode.OK if findings.ok else ExitCode.REFUSED))


def _print_findings(findings: HistoryFindings, output: Output) -> None:
    if output.as_json:
        output.print_document(_create_document(findings))
    elif findings.ok:
        caveat = "" if findings.caveat is None else f"; caveat: {findings.caveat}"
        output.console.print(
            f"{findings.events} events: no gap, every hash is valid, and they give the stored state"
            f"{caveat}"
        )
    else:
        rows = [(one.seq, one.detail) for one in findings.breaks]
        output.console.print(create_table("history", ("seq>", "break"), rows))
        output.console.print(f"the history breaks at event {findings.first_break}")


def _create_document(findings: HistoryFindings) -> dict[str, Any]:
    return {
        "ok": findings.ok,
        "events": findings.events,
        "first_broken_seq": findings.first_break,
        "breaks": [{"sequence": one.seq, "detail": one.detail} for one in findings.breaks],
        "caveat": findings.caveat,
    }
