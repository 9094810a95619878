"""Commands that send one request: their shared options, output forms, ids and repetition."""

import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Annotated, Any, Final

import typer

from app.cli.client import DEFAULT_URL, Client, CliResponse, quote_segment
from app.cli.exit_codes import CommandError, ExitCode
from app.cli.output import (
    AsCsv,
    AsJson,
    IdempotencyKey,
    Output,
    Url,
    create_rows_table,
    drop_missing,
    format_value,
    print_sections,
    refuse_two_forms,
    report_errors,
)

WATCH_INTERVAL_S: Final = 2.0
_PAGE: Final = 500
_MAX_PAGES: Final = 20
_MAX_NAMED: Final = 5  # matches that an error lists
_COMPLETE_ID: Final = re.compile(r"(.*:)?([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})")

Watch = Annotated[
    bool,
    typer.Option("--watch", help=f"Repeat every {WATCH_INTERVAL_S:g} seconds until Ctrl-C."),
]
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class IdKind:
    """Ids of one kind: the field that has them, and the lists in which a prefix is looked up."""

    noun: str
    field: str
    lists: tuple[str, ...]
    items: str = "items"
    is_paged: bool = True


@dataclass(frozen=True, slots=True)
class Call:
    """Request of a command, and the table of its answer.

    `reference` fills `{}` of the path with the id that its text begins. `items` names the list of
    rows in the answer; `columns` maps the columns of its table to fields, such as `decision.by`.
    """

    path: str
    title: str
    method: str = "GET"
    query: Mapping[str, object] = field(default_factory=dict)
    body: Mapping[str, object] | None = None
    reference: tuple[IdKind, str] | None = None
    items: str | None = None
    columns: Mapping[str, str] | None = None
    empty: str = "nothing"
    show: Callable[[Output, Mapping[str, Any]], None] | None = None


# A call, or how to make it with the help of earlier requests.
Plan = Call | Callable[[Client], Awaitable[Call]]
Command = Callable[..., Plan]


def reads(
    group: typer.Typer, name: str | None = None, *, begins_group: bool = False
) -> Callable[[Command], Command]:
    """Registers a command that reads; adds --json, --csv, --watch and --url to its options.

    With `begins_group` it is what the group does without a subcommand.
    """

    def register(function: Command) -> Command:
        def run(
            *,
            ctx: typer.Context,
            as_json: AsJson = False,
            as_csv: AsCsv = False,
            watch: Watch = False,
            url: Url = DEFAULT_URL,
            **own: Any,
        ) -> None:
            if ctx.invoked_subcommand is not None:
                return
            refuse_two_forms(as_json, as_csv)
            with report_errors(as_json) as output:
                asyncio.run(_read(output, Client(url), function(**own), as_csv, watch))

        _register(group, name, function, run, begins_group=begins_group)
        return function

    return register


def changes(group: typer.Typer, name: str | None = None) -> Callable[[Command], Command]:
    """Registers a command that changes something; adds --key, --json and --url to its options."""

    def register(function: Command) -> Command:
        def run(
            *,
            key: IdempotencyKey = None,
            as_json: AsJson = False,
            url: Url = DEFAULT_URL,
            **own: Any,
        ) -> None:
            with report_errors(as_json) as output:
                asyncio.run(_change(output, Client(url), function(**own), key))

        _register(group, name, function, run)
        return function

    return register


def _register(
    group: typer.Typer,
    name: str | None,
    function: Command,
    run: Callable[..., None],
    *,
    begins_group: bool = False,
) -> None:
    """Adds a command with the parameters of `function` and the shared ones of `run`."""
    shared = inspect.signature(run).parameters.values()
    own = list(inspect.signature(function).parameters.values())
    parameters = [*own, *(one for one in shared if one.kind is one.KEYWORD_ONLY)]
    named = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
    run.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]  # read by inspect
    run.__annotations__ = {one.name: one.annotation for one in named}
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    (group.callback(invoke_without_command=True) if begins_group else group.command(name))(run)


async def _read(output: Output, client: Client, plan: Plan, as_csv: bool, watch: bool) -> None:
    call = await _resolve(client, plan)
    response = await _send(client, call)
    if watch:
        await _repeat(output, client, call, response, as_csv)
    else:
        _print(output, call, response, as_csv)


async def _change(output: Output, client: Client, plan: Plan, key: str | None) -> None:
    call = await _resolve(client, plan)
    _print(output, call, await _send(client, call, key), as_csv=False)


async def _resolve(client: Client, plan: Plan) -> Call:
    call = plan if isinstance(plan, Call) else await plan(client)
    if call.reference is None:
        return call
    path = call.path.format(quote_segment(await find_id(client, *call.reference)))
    return replace(call, path=path, reference=None)


async def _send(client: Client, call: Call, key: str | None = None) -> CliResponse:
    query = {name: _query_text(value) for name, value in drop_missing(call.query).items()}
    body = None if call.body is None else drop_missing(call.body)
    return await client.call(call.method, call.path, query=query, body=body, idempotency_key=key)


async def find_id(client: Client, kind: IdKind, text: str) -> str:
    """Returns the one id that begins with `text`.

    A complete id is returned without a look-up, and an unknown one as it is: the service refuses
    it. Raises CommandError for a prefix of several ids, which it names.
    """
    wanted = text.strip().lower()
    if _COMPLETE_ID.fullmatch(wanted):
        return wanted
    found: list[str] = []
    for path in kind.lists:
        async for one in _ids(client, kind, path):
            if one == wanted:
                return one
            if wanted and _begins(one, wanted):
                found.append(one)
    matches = list(dict.fromkeys(found))
    if len(matches) == 1:
        return matches[0]
    if not matches:
        return text.strip()
    named = ", ".join(matches[:_MAX_NAMED])
    more = "" if len(matches) <= _MAX_NAMED else f" and {len(matches) - _MAX_NAMED} more"
    detail = f"{text!r} begins the ids of {len(matches)} {kind.noun}s: {named}{more}."
    raise CommandError(ExitCode.USAGE, "ambiguous_id", detail)


def _begins(one: str, wanted: str) -> bool:
    return one.startswith(wanted) or one.rpartition(":")[2].startswith(wanted)


async def _ids(client: Client, kind: IdKind, path: str) -> AsyncIterator[str]:
    query: dict[str, str | int] = {"limit": _PAGE} if kind.is_paged else {}
    for _ in range(_MAX_PAGES):
        page = (await client.get(path, **query)).document
        for item in page[kind.items]:
            yield str(item[kind.field]).lower()
        cursor = page.get("next_cursor") if kind.is_paged else None
        if cursor is None:
            return
        query["cursor"] = cursor


async def _repeat(
    output: Output, client: Client, call: Call, response: CliResponse, as_csv: bool
) -> None:
    """Prints the answer every two seconds; an unreachable service is noted and asked again."""
    while True:
        if output.console.is_terminal and not (output.as_json or as_csv):
            output.console.clear()
        _print(output, call, response, as_csv)
        response = await _send_later(output, client, call)


async def _send_later(output: Output, client: Client, call: Call) -> CliResponse:
    while True:
        await asyncio.sleep(WATCH_INTERVAL_S)
        try:
            return await _send(client, call)
        except CommandError as error:
            if error.exit_code is not ExitCode.UNAVAILABLE:
                raise
            output.notes.print(f"{error.code}: {error.detail}", markup=False)


def _print(output: Output, call: Call, response: CliResponse, as_csv: bool) -> None:
    if output.print_if_json(response):
        return
    document = response.document
    rows: Rows | None = None if call.items is None else document[call.items]
    if as_csv:
        output.print_csv([document] if rows is None else rows)
    elif call.show is not None:
        call.show(output, document)
    elif rows is None:
        print_sections(output, call.title, document)
    elif rows:
        output.console.print(create_rows_table(call.title, rows, call.columns))
    else:
        output.console.print(call.empty)
    if document.get("next_cursor") is not None and rows is not None:
        output.notes.print(f"There are more than {len(rows)}; --limit shows up to {_PAGE}.")


def _query_text(value: object) -> str | int:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return value
    return format_value(value) if isinstance(value, Decimal) else str(value)
