"""The command about the report: made by a job, shown as figures and tables."""

from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import typer

from app.cli.client import Client
from app.cli.commands.jobs import done
from app.cli.output import HERE, AsJson, Output, Url, number, reporting, table

_FIGURES: Final = (
    "growth", "max_drawdown", "sharpe", "sharpe_error", "sortino", "calmar", "win_rate",
    "profit_factor",
)  # fmt: skip
_HYPOTHETICAL: Final = ("growth", "max_drawdown", "sharpe", "sortino", "calmar")
# table -> column -> field of the report
_TABLES: Final = {
    "equity": {"at": "at", "equity>": "equity", "P&L of the day>": "daily_pnl"},
    "positions": {
        "symbol": "symbol",
        "weight %>": "weight_percentage",
        "P&L since inclusion>": "pnl_since_inclusion",
    },
    "replacements": {
        "at": "at",
        "old": "old_symbol",
        "new": "new_symbol",
        "difference>": "difference",
    },
}
_Since = Annotated[str | None, typer.Option("--from", help="ISO 8601 time with its zone.")]
_Until = Annotated[str | None, typer.Option("--to", help="ISO 8601 time with its zone.")]


def report(
    since: _Since = None, until: _Until = None, as_json: AsJson = False, url: Url = HERE
) -> None:
    """Equity, figures and positions of a period."""
    with reporting(as_json) as output:
        period = {"from": since, "to": until}
        query = urlencode({name: value for name, value in period.items() if value is not None})
        path = "/portfolio/report" + (f"?{query}" if query else "")
        answer = done(output, Client(url), "making the report", path, "GET")
        if not output.answer(answer):
            _print(output, answer.document["result"])


def _print(output: Output, made: Mapping[str, Any]) -> None:
    say = output.people.print
    figures = made["figures"]
    say(table("figures", ("", ""), [(name, number(figures[name], 4)) for name in _FIGURES]))
    if figures["ratios_reason"] is not None:
        say(f"no ratios: {figures['ratios_reason']}")
    would = made["hypothetical"]
    rows = [(name, number(would[f"hypothetical_{name}"], 4)) for name in _HYPOTHETICAL]
    say(table("hypothetical: today's weights over the past, not earned", ("", ""), rows))
    for title, columns in _TABLES.items():
        rows = [tuple(one[name] for name in columns.values()) for one in made[title]]
        say(table(title, tuple(columns), rows))
    say(f"version {made['version']}, made at {made['made_at']}; as a page: GET /portfolio/report")
