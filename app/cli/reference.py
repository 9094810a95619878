"""Lists the settings: `my-symbols configuration list`, and docs/configuration.md from them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final, get_args, get_origin

import typer

from app.configuration.domain.fields import (
    SettingEntry,
    entries,
    info_of,
    is_section,
    setting_fields,
)
from app.configuration.domain.model import Configuration
from app.settings import Variable, variables

configuration = typer.Typer(help="Settings: what there is to configure.", no_args_is_help=True)
_HEAD: Final = """\
# Configuration

Made by `make docs` from the declarations; a test compares. Do not edit.

Business settings are one versioned document in the database: `GET /configuration` reads it,
`PUT /configuration` changes it at once for every process. Environment variables are read at start;
an unknown `MYSYMBOLS_*` variable is an error.

Names that end in `_s` are seconds, in `_bp` basis points.
"""


@configuration.command("list")
def list_settings(
    section: Annotated[str, typer.Argument(help="Only settings that begin so.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Every business setting and environment variable with default and allowed values."""
    settings = [_row(one) for one in entries(Configuration()) if one.path.startswith(section)]
    environment = [asdict(one) for one in variables() if one.name.startswith(section)]
    if as_json:
        typer.echo(json.dumps({"settings": settings, "environment": environment}, indent=2))
        return
    for row in settings:
        typer.echo(f"{row['path']} = {row['default']}  ({row['allowed']})\n  {row['description']}")
    for one in environment:
        typer.echo(f"{one['name']} = {one['default']}  ({one['allowed']})\n  {one['description']}")


@configuration.command("document")
def document() -> None:
    """The settings as Markdown: the content of docs/configuration.md."""
    typer.echo(markdown(), nl=False)


def markdown() -> str:
    """The content of docs/configuration.md."""
    parts = [_HEAD, "## Business settings\n", *_sections(Configuration(), "", "Portfolio")]
    parts.append("## Environment variables\n")
    groups: dict[str, list[Variable]] = {}
    for one in variables():
        groups.setdefault(one.group, []).append(one)
    for group, found in groups.items():
        rows = (
            (f"`{one.name}`", _code(one.default), one.allowed, one.description) for one in found
        )
        parts.append(f"### {group}\n\n{_table('variable', rows)}")
    return "\n".join(parts)


def _sections(section: Any, prefix: str, title: str) -> list[str]:
    """A table of the settings of a section, then those of its groups."""
    own = [one for one in entries(section, prefix) if "." not in one.path.removeprefix(prefix)]
    rows = (
        (f"`{row['path']}`", _code(row["default"]), row["allowed"], row["description"])
        for row in map(_row, own)
    )
    parts = [f"### {title}\n\n{_table('setting', rows)}"] if own else []
    for one in setting_fields(section):
        if is_section(one.type):
            group = getattr(section, one.name)
            name = f"{prefix}{one.name}"
            parts += _sections(group, f"{name}.", f"`{name}`: {info_of(one).description}")
    return parts


def _row(entry: SettingEntry) -> Mapping[str, str]:
    return {
        "path": entry.path,
        "default": _shown(entry.default),
        "allowed": _allowed(entry),
        "unit": entry.info.unit,
        "description": entry.info.description,
    }


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = {str(key): _plain(one) for key, one in value.items()}
        return json.dumps(inner)
    return value if isinstance(value, str) else json.dumps(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value) if value % 1 else int(value)
    return list(value) if isinstance(value, tuple) else value


def _allowed(entry: SettingEntry) -> str:
    kind, info = entry.type, entry.info
    if get_origin(kind) is Mapping:
        kind = get_args(kind)[1]
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return ", ".join(one.value for one in kind)
    if kind is bool:
        return "true or false"
    if info.minimum is None or info.maximum is None:
        return "a list" if get_origin(kind) is tuple else "text"
    return f"{info.minimum:,} to {info.maximum:,} {info.unit}".strip()


def _table(first: str, rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {first} | default | allowed | meaning |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(one.replace("|", "\\|") for one in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""
