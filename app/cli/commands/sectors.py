"""`my-symbols sectors`: classification of coins, with export and import as CSV."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from app.cli.client import DEFAULT_URL, Client, CliResponse, quote_segment
from app.cli.exit_codes import CommandError, ExitCode
from app.cli.output import (
    AsCsv,
    AsJson,
    Output,
    Reason,
    Url,
    create_table,
    drop_missing,
    refuse_two_forms,
    report_errors,
)

command = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Sectors of coins; each sector has a limit."
)
Base = Annotated[str, typer.Argument(help="Base coin, such as BTC.")]
_COLUMNS: Final = ("coin", "class", "sector", "capitalisation", "edited", "contracts")
_CHANGES: Final = ("coin", "class", "sector", "capitalisation")


@command.command("list")
def list_sectors(
    sector: Annotated[
        str | None, typer.Option(help="Only this sector, such as unclassified.")
    ] = None,
    search: Annotated[str | None, typer.Option(help="Part of the name of the coin.")] = None,
    edited: Annotated[bool, typer.Option("--edited", help="Only edited coins.")] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List all coins with their sectors, unclassified ones of known contracts among them."""
    refuse_two_forms(as_json, as_csv)
    with report_errors(as_json) as output:
        chosen = drop_missing({"sector": sector, "search": search})
        if edited:
            chosen["edited"] = "true"
        document = asyncio.run(_read_all(Client(url), chosen))
        if output.as_json:
            output.print_document(document)
            return
        if as_csv:
            output.print_csv(document["items"])
            return
        rows = [
            (
                one["base"],
                one["asset_class"],
                one["sector"],
                one["cap_category"],
                one["is_edited"],
                " ".join(one["symbols"]),
            )
            for one in document["items"]
        ]
        output.console.print(
            create_table(f"sectors, version {document['version']}", _COLUMNS, rows)
        )


@command.command("set")
def set_sector(
    base: Base,
    sector: Annotated[str, typer.Argument(help="Sector, such as layer1 or unclassified.")],
    asset_class: Annotated[
        Literal["coin", "stable", "fiat", "wrapped", "index", "commodity"] | None,
        typer.Option(help="Kind of asset; only coins are scored."),
    ] = None,
    cap_category: Annotated[
        Literal["large", "mid", "small", "micro", "unclassified"] | None,
        typer.Option(help="Order of magnitude of the market capitalisation."),
    ] = None,
    reason: Reason = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Classify a coin; the next decision reads it."""
    with report_errors(as_json) as output:
        body = {"sector": sector, "asset_class": asset_class, "cap_category": cap_category}
        path = f"/sectors/{quote_segment(base)}"
        _print_changes(output, _send(url, "PUT", path, {**body, "reason": reason}))


@command.command()
def reset(base: Base, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Return an edited coin to its default."""
    with report_errors(as_json) as output:
        _print_changes(output, _send(url, "DELETE", f"/sectors/{quote_segment(base)}", None))


@command.command("export")
def export_sectors(
    file: Annotated[
        Path | None, typer.Argument(dir_okay=False, help="File to write; else standard output.")
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Write the table in force as CSV."""
    with report_errors(as_json) as output:
        response = asyncio.run(Client(url).get("/sectors/export"))
        if output.print_if_json(response):
            return
        text: str = response.document["csv"]
        if file is None:
            typer.echo(text, nl=False)
            return
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise _file_error(file, error) from None
        output.notes.print(f"{text.count(chr(10)) - 1} coins written to {file}", markup=False)


@command.command("import")
def import_sectors(
    file: Annotated[
        Path, typer.Argument(dir_okay=False, help="CSV as exported; - is standard input.")
    ],
    resets_missing: Annotated[
        bool,
        typer.Option("--reset-missing", help="Edited coins that the file lacks are reset."),
    ] = False,
    reason: Reason = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Apply a CSV table; a wrong line is named, and nothing is applied."""
    with report_errors(as_json) as output:
        try:
            text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise _file_error(file, error) from None
        body = {"csv": text, "resets_missing": resets_missing, "reason": reason}
        _print_changes(output, _send(url, "POST", "/sectors/import", body))


def _send(url: str, method: str, path: str, body: Mapping[str, Any] | None) -> CliResponse:
    given = None if body is None else drop_missing(body)
    return asyncio.run(Client(url).call(method, path, body=given))


async def _read_all(client: Client, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all pages as one."""
    page = (await client.get("/sectors", limit=500, **chosen)).document
    items = [*page["items"]]
    while page["next_cursor"] is not None:
        query = {**chosen, "cursor": page["next_cursor"]}
        page = (await client.get("/sectors", limit=500, **query)).document
        items += page["items"]
    return {**page, "items": items}


def _print_changes(output: Output, response: CliResponse) -> None:
    if output.print_if_json(response):
        return
    rows = [
        (one["base"], *(_change(one, name) for name in ("asset_class", "sector", "cap_category")))
        for one in response.document["changes"]
    ]
    title = f"version {response.document['version']}, {len(rows)} changed"
    output.console.print(create_table(title, _CHANGES, rows))


def _change(one: Mapping[str, Any], name: str) -> str:
    before = str(one["before"][name])
    after = "default" if one["after"] is None else str(one["after"][name])
    return before if after == before else f"{before} -> {after}"


def _file_error(file: Path, error: Exception) -> CommandError:
    return CommandError(ExitCode.USAGE, "file_error", f"{file}: {error}")
