"""`my-symbols config`: reads, changes, compares and restores the business settings."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, get_args, get_origin

import typer

from app.cli.calls import Call, reads
from app.cli.client import DEFAULT_URL, Client, CliResponse
from app.cli.exit_codes import CommandError, ExitCode
from app.cli.lazy import load_program
from app.cli.output import (
    AsJson,
    IdempotencyKey,
    Limit,
    Output,
    Reason,
    Url,
    create_table,
    drop_missing,
    format_value,
    report_errors,
)
from app.configuration.domain.document import differences
from app.configuration.domain.fields import SettingEntry, entries
from app.configuration.domain.model import Configuration

command = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Business settings and environment variables."
)
_PATH: Final = "/configuration"
SCHEMA_FILE: Final = "configuration.schema.json"  # named by an exported file
_CHANGE_COLUMNS: Final = ("setting", "old", "new")
_MAX_NAMED: Final = 12  # settings that an error lists
_FREE_MAPS: Final = frozenset(
    one.path
    for one in entries(Configuration())
    if get_origin(one.type) is Mapping and not issubclass(get_args(one.type)[0], StrEnum)
)

Version = Annotated[int, typer.Argument(min=1, help="Version, as in `config history`.")]
EvictLowest = Annotated[
    bool,
    typer.Option(
        "--evict-lowest",
        help="If fewer members are allowed than exist: remove those with the lowest scores.",
    ),
]


@command.command("get")
def get_settings(
    key: Annotated[
        str, typer.Argument(help="Setting or group, such as sizing.var_limit; all by default.")
    ] = "",
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show the settings in force beside their defaults; of one setting the value alone."""
    known = _select(key)
    with report_errors(as_json) as output:
        response = asyncio.run(Client(url).get(_PATH))
        if not key and output.print_if_json(response):
            return
        values = {one.path: _lookup(response.document, one.path) for one in known}
        version = response.document["version"]
        if as_json:
            output.print_document({"version": version, "settings": values})
        elif list(values) == [key]:
            output.console.print(_text(values[key]), markup=False)
        else:
            defaults = {one.path: _json_value(one.default) for one in known}
            rows = [(path, _text(value), _text(defaults[path])) for path, value in values.items()]
            title = f"settings of version {version}"
            output.console.print(create_table(title, ("setting", "value", "default"), rows))


@command.command("set")
def set_settings(
    assignments: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUE...",
            help="Such as score_tilt=0.7 or family_weights.risk=0.3; lists by comma, maps as JSON."
            " `config list` has every key with its choices and bounds.",
        ),
    ],
    reason: Reason = None,
    evict_lowest: EvictLowest = False,
    key: IdempotencyKey = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Change settings together; they take effect at once as the next version."""
    values = parse_assignments(assignments)
    with report_errors(as_json) as output:
        client = Client(url)
        before = asyncio.run(client.get(_PATH))
        body = {
            **nest_settings(values, before.document),
            **drop_missing({"reason": reason, "evict_lowest": evict_lowest or None}),
        }
        _change(output, client, before, "PATCH", _PATH, body, key)


@reads(command, "diff")
def diff_versions(old: Version, new: Version) -> Call:
    """Show the settings that differ between two versions."""

    def show(output: Output, found: Mapping[str, Any]) -> None:
        _print_changes(output, f"versions {old} and {new}", found["changes"])

    query = {"from": old, "to": new}
    return Call(f"{_PATH}/diff", "changes", query=query, items="changes", show=show)


@reads(command, "history")
def list_versions(limit: Limit = 20) -> Call:
    """List the versions of the settings with author, reason and changes."""
    return Call(
        f"{_PATH}/history", "versions", query={"limit": limit}, items="items", show=_print_versions
    )


@command.command("rollback")
def roll_back(
    version: Version,
    reason: Reason = None,
    evict_lowest: EvictLowest = False,
    key: IdempotencyKey = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Make a new version with the settings of an older one."""
    with report_errors(as_json) as output:
        client = Client(url)
        before = asyncio.run(client.get(_PATH))
        body = {"version": version, "reason": reason, "evict_lowest": evict_lowest or None}
        _change(output, client, before, "POST", f"{_PATH}/rollback", drop_missing(body), key)


@command.command("export")
def export_settings(
    file: Annotated[
        Path | None, typer.Argument(dir_okay=False, help="File to write; stdout by default.")
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Write the settings in force as JSON, the form that `config apply` reads."""
    with report_errors(as_json) as output:
        response = asyncio.run(Client(url).get(_PATH))
        document = {"$schema": f"./{SCHEMA_FILE}", **_settings(json.loads(response.text))}
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        if file is None:
            typer.echo(text, nl=False)
            return
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise _unusable(file, f"cannot be written ({type(error).__name__})") from None
        version = response.document["version"]
        if as_json:
            output.print_document({"file": str(file), "version": version})
        else:
            output.notes.print(f"{file}: settings of version {version}", markup=False)


@command.command("apply")
def apply_file(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="JSON as of `config export`, or a part of it: settings that it lacks stay.",
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Apply without asking.")] = False,
    reason: Reason = None,
    evict_lowest: EvictLowest = False,
    key: IdempotencyKey = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show how the settings of a file differ from those in force, ask, and apply them."""
    if as_json and not yes:
        raise typer.BadParameter("--json needs --yes: it asks no question.")
    with report_errors(as_json) as output:
        changes, client = read_settings_file(file), Client(url)
        before = asyncio.run(client.get(_PATH))
        present = _settings(json.loads(before.text))
        if not as_json:
            found = differences(present, _overlay(present, changes))
            version = before.document["version"]
            if not found:
                output.console.print(f"nothing changes: version {version}")
                return
            rows = [{"key": one.key, "old": one.old, "new": one.new} for one in found]
            _print_changes(output, f"{file.name} beside version {version}", rows)
            if not yes:
                typer.confirm("Apply these changes?", abort=True, err=True)
        body = {
            **changes,
            **drop_missing({"reason": reason, "evict_lowest": evict_lowest or None}),
        }
        _change(output, client, before, "PATCH", _PATH, body, key)


@command.command("schema")
def write_schema(
    file: Annotated[
        Path | None,
        typer.Argument(dir_okay=False, help=f"Such as {SCHEMA_FILE}; stdout by default."),
    ] = None,
) -> None:
    """Write the JSON schema of the settings file, with which editors complete and check it."""
    load_program("config schema")(file=file)


@command.command("list")
def list_settings(
    section: Annotated[str, typer.Argument(help="Prefix of the names; all by default.")] = "",
    as_json: AsJson = False,
) -> None:
    """List every setting and environment variable with default, bounds and meaning."""
    load_program("config list")(section=section, as_json=as_json)


@command.command()
def document() -> None:
    """Print the settings as Markdown, the content of docs/configuration.md."""
    load_program("config document")()


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Returns the values of KEY=VALUE by dotted path, as JSON values.

    Raises BadParameter for another form, an unknown key, a repeated key, or a value that is none
    of the choices.
    """
    values: dict[str, Any] = {}
    for text in assignments:
        key, is_assigned, value = text.partition("=")
        if not is_assigned:
            raise typer.BadParameter(f"{text!r} is not of the form KEY=VALUE.")
        if key in values:
            raise typer.BadParameter(f"{key} is given twice.")
        values[key] = _parse_value(key, value)
    return values


def nest_settings(values: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values by dotted path as a JSON object of changes to the settings `present`.

    A service replaces a map with free keys as a whole, so its other keys are added here; null
    removes a key.
    """
    body: dict[str, Any] = {}
    for key, value in values.items():
        entry, name = _find(key)
        *groups, last = entry.path.split(".")
        section = body
        for group in groups:
            section = section.setdefault(group, {})
        if not name:
            section[last] = value
            continue
        first = {**_lookup(present, entry.path)} if entry.path in _FREE_MAPS else {}
        found = section.setdefault(last, {key: _json_value(one) for key, one in first.items()})
        if value is None:
            found.pop(name, None)
        else:
            found[name] = value
    return body


def read_settings_file(file: Path) -> dict[str, Any]:
    """Returns the settings of a JSON file without its `$schema`. Raises CommandError."""

    def without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        repeated = {key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1}
        if repeated:
            raise _unusable(file, f"names {', '.join(sorted(repeated))} twice")
        return dict(pairs)

    try:
        document = json.loads(
            file.read_text(encoding="utf-8"), object_pairs_hook=without_repetition
        )
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise _unusable(file, f"is not JSON: {place}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(file, f"cannot be read ({type(error).__name__})") from None
    if not isinstance(document, dict):
        raise _unusable(file, "is no JSON object of settings")
    return {name: value for name, value in document.items() if name != "$schema"}


def _unusable(file: Path, cause: str) -> CommandError:
    return CommandError(ExitCode.CONFIGURATION, "settings_file_unusable", f"{file} {cause}.")


def _overlay(present: Mapping[str, Any], changes: Mapping[str, Any], path: str = "") -> Any:
    """Returns the settings after the changes; a map with free keys is replaced as a whole."""
    after = dict(present)
    for name, value in changes.items():
        old = present.get(name)
        is_merged = isinstance(value, Mapping) and path + name not in _FREE_MAPS
        if is_merged and isinstance(old, Mapping):
            after[name] = _overlay(old, value, f"{path}{name}.")
        else:
            after[name] = value
    return after


def _parse_value(key: str, text: str) -> Any:
    entry, name = _find(key)
    kind = get_args(entry.type)[1] if name else entry.type
    if name and text == "null":
        return None
    if get_origin(kind) is tuple and not text.startswith("["):
        return [one.strip() for one in text.split(",")]
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        choices = [one.value for one in kind]
        if text not in choices:
            raise typer.BadParameter(f"{key} must be one of {', '.join(choices)}, not {text!r}.")
        return text
    if kind is bool and text not in {"true", "false"}:
        raise typer.BadParameter(f"{key} must be true or false, not {text!r}.")
    if kind is Decimal:
        return text  # exact; the service reads the number
    try:
        return json.loads(text)
    except ValueError:
        raise typer.BadParameter(f"{key} must be {_form(kind)}, not {text!r}.") from None


def _form(kind: Any) -> str:
    return "a number" if kind in {int, float} else "a JSON value"


def _find(key: str) -> tuple[SettingEntry, str]:
    """Returns the setting of a dotted key, and the key inside a map. Raises BadParameter."""
    for one in entries(Configuration()):
        if one.path == key:
            return one, ""
        name = key.removeprefix(f"{one.path}.")
        if get_origin(one.type) is Mapping and name not in {key, ""}:
            names = get_args(one.type)[0]
            if issubclass(names, StrEnum) and name not in set(names):
                raise typer.BadParameter(f"{key}: the keys of {one.path} are {', '.join(names)}.")
            return one, name
    raise _unknown(key)


def _select(key: str) -> list[SettingEntry]:
    """Returns the settings of a key or group; all for an empty one. Raises BadParameter."""
    known = list(entries(Configuration()))
    found = [one for one in known if key in {"", one.path} or one.path.startswith(f"{key}.")]
    if not found:
        raise _unknown(key)
    return found


def _unknown(key: str) -> typer.BadParameter:
    paths = [one.path for one in entries(Configuration())]
    inner = [path for path in paths if path.startswith(f"{key}.")]
    if inner:
        more = ", ..." if len(inner) > _MAX_NAMED else ""
        named = ", ".join(inner[:_MAX_NAMED])
        return typer.BadParameter(f"{key} is a group; its settings are {named}{more}.")
    similar = get_close_matches(key, paths, n=3, cutoff=0.6) or [
        path for path in paths if path.rpartition(".")[2] == key
    ]
    hint = f" Did you mean {' or '.join(similar)}?" if similar else " See `config list`."
    return typer.BadParameter(f"{key!r} is not a setting.{hint}")


def _change(
    output: Output,
    client: Client,
    before: CliResponse,
    method: str,
    path: str,
    body: Mapping[str, Any],
    key: str | None,
) -> None:
    """Sends a change that was decided on the settings `before`, and prints its effect."""
    version = before.document["version"]
    response = asyncio.run(
        client.call(method, path, body=body, idempotency_key=key, if_match=version)
    )
    if output.print_if_json(response):
        return
    after = response.document["configuration"]
    if after["version"] == version:
        output.console.print(f"nothing changes: version {version}")
        return
    changes = [
        {"key": one.key, "old": one.old, "new": one.new}
        for one in differences(_settings(before.document), _settings(after))
    ]
    _print_changes(output, f"version {after['version']}", changes)
    for warning in response.document["warnings"]:
        output.notes.print(f"warning: {warning}", markup=False)


def _settings(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "version"}


def _print_changes(output: Output, title: str, changes: Sequence[Mapping[str, Any]]) -> None:
    if not changes:
        output.console.print(f"{title}: no setting differs")
        return
    rows = [(one["key"], _text(one["old"]), _text(one["new"])) for one in changes]
    output.console.print(create_table(title, _CHANGE_COLUMNS, rows))


def _print_versions(output: Output, page: Mapping[str, Any]) -> None:
    rows = [
        (
            one["version"],
            one["created_at"],
            one["created_by"],
            one["reason"],
            "\n".join(_change_text(change) for change in one["changes"]),
        )
        for one in page["items"]
    ]
    columns = ("version>", "created", "by", "reason", "changes")
    output.console.print(create_table("versions of the settings", columns, rows))


def _change_text(change: Mapping[str, Any]) -> str:
    return f"{change['key']}: {_text(change['old'])} -> {_text(change['new'])}"


def _lookup(document: Mapping[str, Any], path: str) -> Any:
    value: Any = document
    for part in path.split("."):
        value = value[part]
    return value


def _text(value: Any) -> str:
    """Returns a value as people read it: lists and maps as JSON."""
    if isinstance(value, list | dict):
        return json.dumps(value, default=_json_value)
    return "true" if value is True else "false" if value is False else format_value(value)


def _json_value(value: Any) -> Any:
    """Returns a declared or received value as a JSON value."""
    if isinstance(value, Mapping):
        return {str(key): _json_value(inner) for key, inner in value.items()}
    if isinstance(value, Decimal):
        return int(value) if value == int(value) else float(value)
    return list(value) if isinstance(value, tuple) else value
