"""Program of `my-symbols audit verify`: verifies both hash chains or reports their first breaks."""

import asyncio
from typing import Any

import typer

from app.cli.exit_codes import CommandError, ExitCode, exit_code_of_error
from app.cli.output import Output, create_table, report_errors
from app.cli.programs.settings import read_settings
from app.foundation.errors import ServiceError
from app.foundation.hash_chain import ChainFindings
from app.operations.domain.history_audit import HistoryFindings
from app.operations.storage import audit
from app.security.domain.chain_audit import SecurityFindings


def verify_history(database: str | None, as_json: bool) -> None:
    """Checks both chains of `database` and prints their breaks."""
    with report_errors(as_json) as output:
        options = {} if database is None else {"database": {"url": database}}
        url = read_settings(options).database.url
        try:
            history, security = asyncio.run(_verify(url))
        except ValueError as error:
            raise CommandError(ExitCode.CONFIGURATION, "settings_invalid", str(error)) from None
        except ServiceError as error:
            raise CommandError(exit_code_of_error(error), error.code, error.detail) from None
        if output.as_json:
            output.print_document(_create_document(history, security))
        else:
            _print_findings(history, security, output)
    is_intact = history.ok and security.ok
    raise typer.Exit(int(ExitCode.OK if is_intact else ExitCode.REFUSED))


async def _verify(url: str) -> tuple[HistoryFindings, SecurityFindings]:
    return await audit.verify_history(url), await audit.verify_security_events(url)


def _print_findings(history: HistoryFindings, security: SecurityFindings, output: Output) -> None:
    if history.ok:
        caveat = "" if history.caveat is None else f"; caveat: {history.caveat}"
        output.console.print(
            f"{history.events} events: no gap, every hash is valid, and they give the stored state"
            f"{caveat}"
        )
    else:
        _print_breaks("history", history, output)
    if security.ok:
        anchor = "" if security.anchor is None else f" after the anchor {security.anchor.seq}"
        output.console.print(
            f"{security.events} security events{anchor}: no gap, and every hash is valid"
        )
    else:
        _print_breaks("chain of security events", security, output)


def _print_breaks(chain: str, findings: ChainFindings, output: Output) -> None:
    rows = [(one.seq, one.detail) for one in findings.breaks]
    output.console.print(create_table(chain, ("seq>", "break"), rows))
    output.console.print(f"the {chain} breaks at event {findings.first_break}")


def _create_document(history: HistoryFindings, security: SecurityFindings) -> dict[str, Any]:
    return {
        **_document(history),
        "ok": history.ok and security.ok,
        "caveat": history.caveat,
        "security": {
            "ok": security.ok,
            **_document(security),
            "anchor": None if security.anchor is None else security.anchor.seq,
        },
    }


def _document(findings: ChainFindings) -> dict[str, Any]:
    return {
        "events": findings.events,
        "first_broken_seq": findings.first_break,
        "breaks": [{"sequence": one.seq, "detail": one.detail} for one in findings.breaks],
    }
