"""Commands of `my-symbols portfolio` that only read, and `my-symbols history`."""

from typing import Annotated, Final

import typer

from app.cli.calls import Call, reads
from app.cli.choices import EventKind, WeightMethod
from app.cli.client import quote_segment
from app.cli.output import Limit, Symbol

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
_CHECK_COLUMNS: Final = {
    "check": "name",
    "passed": "passed",
    "value>": "value",
    "limit>": "limit",
    "detail": "detail",
}


@reads(history)
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
