"""Commands of `my-symbols portfolio` that only read, and `my-symbols history`."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, get_args

import typer

from app.cli.calls import Call, Plan, reads
from app.cli.choices import EventKind, LockKindName, WeightMethod
from app.cli.client import Client, quote_segment
from app.cli.commands.configuration import nest_settings, parse_assignments
from app.cli.output import (
    Limit,
    Output,
    Symbol,
    create_rows_table,
    create_table,
    format_number,
)

command = typer.Typer(add_completion=False)
history = typer.Typer(add_completion=False)
_EVENT_COLUMNS: Final = {
    "sequence>": "sequence",
    "at": "occurred_at",
    "action": "action",
    "symbol": "symbol",
    "other": "other_symbol",
    "score>": "score",
    "reason": "reason",
    "actor": "actor",
    "version>": "portfolio_version",
}
_WEIGHT_COLUMNS: Final = {
    "symbol": "symbol",
    "weight %>": "weight_percentage",
    "now %>": "current_weight_percentage",
    "target %>": "target_weight_percentage",
    "drift>": "drift",
    "bound": "binding_bound",
    "reason": "reason",
}
_CANDIDATE_COLUMNS: Final = {
    "priority>": "replacement_priority",
    "symbol": "symbol",
    "score>": "current_score",
    "confidence>": "confidence",
    "weight %>": "weight_percentage",
}
_REPLACEMENT_COLUMNS: Final = {
    "replace": "replace_symbol",
    "score>": "replace_score",
    "candidate": "candidate_symbol",
    "its score>": "candidate_score",
    "strength>": "recommendation_strength",
    "confirmations>": "confirmations",
    "blocked by": "blocked_by",
}
_PROPOSED_COLUMNS: Final = {
    "symbol": "symbol",
    "weight %>": "weight_percentage",
    "proposed %>": "proposed_percentage",
    "reason": "reason",
}
NO_LOCK: Final = "none"
LOCK_KINDS: Final = (*get_args(LockKindName), NO_LOCK)
_PLAN_FIGURES: Final = (
    "triggers", "total_changes", "turnover", "estimated_cost", "cash_percentage", "waits_until",
    "scores_as_of",
)  # fmt: skip
_CHECK_COLUMNS: Final = {
    "check": "name",
    "passed": "passed",
    "value>": "value",
    "limit>": "limit",
    "detail": "detail",
}


@reads(history, begins_group=True)
def list_events(
    symbol: Annotated[str | None, typer.Option(help="Only of this symbol.")] = None,
    action: Annotated[EventKind | None, typer.Option(help="Only of this kind.")] = None,
    limit: Limit = 50,
) -> Call:
    """List the changes of the portfolio, newest first."""
    return Call(
        "/portfolio/history",
        "history",
        query={"limit": limit, "symbol": symbol, "action": action},
        items="items",
        columns=_EVENT_COLUMNS,
        empty="no change yet",
    )


@reads(command, "statistics")
def show_statistics() -> Call:
    """Show size, scores, sectors and performance in short."""
    return Call("/portfolio/statistics", "statistics")


@reads(command, "weights")
def show_weights() -> Call:
    """Show the stored, current and target weight of each member, and the bounds."""
    return Call("/portfolio/weights", "weights", items="weights", columns=_WEIGHT_COLUMNS)


@reads(command, "correlation")
def show_correlation(
    days: Annotated[int, typer.Option(min=2, max=365, help="Number of daily returns.")] = 30,
) -> Call:
    """Show the correlations of the members."""
    return Call("/portfolio/correlation", "correlation", query={"days": days})


@reads(command, "preview")
def preview_changes(
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Changed setting as for `config set`, such as score_tilt=0.7; repeatable.",
        ),
    ] = None,
    locks: Annotated[
        list[str] | None,
        typer.Option(
            "--lock",
            metavar="SYMBOL=KIND",
            help=f"Changed lock: {', '.join(LOCK_KINDS)} (no lock); repeatable.",
        ),
    ] = None,
    evict_lowest: Annotated[
        bool,
        typer.Option("--evict-lowest", help="Let the lowest-scored members leave if too many."),
    ] = False,
    balance: Annotated[
        str | None, typer.Option(help="Equity in the quote currency; adds lots.")
    ] = None,
    top: Annotated[
        int, typer.Option(min=0, max=1000, help="Number of best symbols whose scores are shown.")
    ] = 20,
) -> Plan:
    """Show scores, members, turnover and cost before and after a change; writes nothing."""
    values, wanted = parse_assignments(assignments or ()), _parse_locks(locks or ())

    async def plan(client: Client) -> Call:
        present = (await client.get("/configuration")).document if values else {}
        return Call(
            "/portfolio/preview",
            "preview",
            "POST",
            body={
                "settings": nest_settings(values, present),
                "locks": wanted,
                "evict_lowest": evict_lowest,
                "account_balance": balance,
                "top": top,
            },
            items="weights",
            show=_print_preview,
        )

    return plan


def _parse_locks(texts: Sequence[str]) -> dict[str, Mapping[str, str | None]]:
    locks: dict[str, Mapping[str, str | None]] = {}
    for text in texts:
        symbol, _, kind = text.partition("=")
        if not symbol or kind not in LOCK_KINDS:
            raise typer.BadParameter(
                f"{text!r} is not of the form SYMBOL=KIND, with a kind of {', '.join(LOCK_KINDS)}."
            )
        locks[symbol] = {"kind": None if kind == NO_LOCK else kind}
    return locks


def _print_preview(output: Output, document: Mapping[str, Any]) -> None:
    if document["changes"]:
        output.console.print(create_rows_table("settings", document["changes"]))
    before, after = document["before"], document["after"] or {}
    rows = [
        (name.replace("_", " "), _plain(before[name]), _plain(after.get(name)))
        for name in _PLAN_FIGURES
    ]
    output.console.print(create_table("plan", ("", "before>", "after>"), rows))
    weights = [_weight_row(one) for one in document["weights"]]
    columns = ("symbol", "now %>", "before %>", "after %>", "reason after")
    output.console.print(create_table("members", columns, weights))
    scores = [_score_row(one) for one in document["scores"]]
    columns = ("symbol", "rank before>", "rank after>", "score before>", "score after>")
    output.console.print(create_table("scores", columns, scores))
    for warning in document["warnings"]:
        output.notes.print(f"warning: {warning}", markup=False)
    for one in document["refusals"]:
        said = f"{one['step']} would be refused: {one['code']}: {one['detail']}"
        output.console.print(said, markup=False)


def _plain(value: Any) -> Any:
    return ", ".join(value) or None if isinstance(value, list) else value


def _weight_row(one: Mapping[str, Any]) -> tuple[object, ...]:
    before, after = one["before"] or {}, one["after"] or {}
    return (
        one["symbol"],
        format_number(before.get("current"), 6),
        format_number(before.get("planned"), 6),
        format_number(after.get("planned"), 6),
        after.get("reason"),
    )


def _score_row(one: Mapping[str, Any]) -> tuple[object, ...]:
    before, after = one["before"] or {}, one["after"] or {}
    return (
        one["symbol"],
        before.get("rank"),
        after.get("rank"),
        format_number(before.get("score"), 4),
        format_number(after.get("score"), 4),
    )


@reads(command, "candidates")
def list_candidates() -> Call:
    """List the members that would be replaced first."""
    return Call(
        "/portfolio/replacement-candidates",
        "candidates for a replacement",
        items="candidates",
        columns=_CANDIDATE_COLUMNS,
        empty="no member is a candidate for a replacement",
    )


@reads(command, "replacements")
def list_replacements() -> Call:
    """List the recommended replacements, and what blocks each."""
    return Call(
        "/portfolio/replacements",
        "recommended replacements",
        items="replacements",
        columns=_REPLACEMENT_COLUMNS,
        empty="no replacement is recommended",
    )


@reads(command, "optimize")
def optimize(
    method: Annotated[WeightMethod, typer.Argument(help="Weighting method.")],
) -> Call:
    """Show the weights of a method, and the risk before and after; writes nothing."""
    body = {"method": method}
    return Call(
        "/portfolio/optimize-weights",
        f"weights by {method}",
        "POST",
        body=body,
        items="weights",
        columns=_PROPOSED_COLUMNS,
    )


@reads(command, "tradeable")
def list_tradeable() -> Call:
    """List the members that may be traded now."""
    return Call(
        "/portfolio/tradeable", "tradeable", items="symbols", empty="no member may be traded now"
    )


@reads(command, "should-trade")
def show_checks(
    symbol: Symbol,
    specification: Annotated[
        str | None, typer.Option(help="Of the lots to order; checks that it is unchanged.")
    ] = None,
) -> Call:
    """Show whether a symbol may be traded now, check by check."""
    return Call(
        f"/portfolio/symbols/{quote_segment(symbol)}/should-trade",
        f"checks of {symbol}",
        query={"specification": specification},
        items="checks",
        columns=_CHECK_COLUMNS,
    )


@reads(command, "safety")
def show_safety() -> Call:
    """Show issues and warnings that speak against trading."""
    return Call("/portfolio/safety", "safety")


@reads(command, "integrity")
def show_integrity() -> Call:
    """Check the invariants of the portfolio and its history."""
    return Call("/portfolio/integrity", "integrity")
