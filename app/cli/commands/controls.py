"""`my-symbols locks`, `trading` and `watchlist`: controls that people set over the portfolio."""

from typing import Annotated, Final

import typer

from app.cli.calls import Call, changes, reads
from app.cli.choices import LockKindName
from app.cli.client import quote_segment
from app.cli.output import Symbol, User

locks = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Pinned, banned and watched symbols: list, set, delete.",
)
trading = typer.Typer(
    add_completion=False, no_args_is_help=True, help="The trading switch: on, off, show."
)
watchlist = typer.Typer(add_completion=False)
RequiredReason = Annotated[str, typer.Option("--reason", help="Recorded in the history.")]
_LOCK_COLUMNS: Final = {
    "symbol": "symbol",
    "kind": "kind",
    "reason": "reason",
    "expires": "expires_at",
    "set": "set_at",
    "by": "set_by",
}
_WATCH_COLUMNS: Final = {
    "symbol": "symbol",
    "rank>": "rank",
    "score>": "current_score",
    "entry>": "entry_score",
    "distance>": "distance_to_entry",
    "member": "is_member",
    "refused because": "refused_because",
    "conflicts with": "conflicting_symbol",
    "reason": "reason",
}


@reads(locks, "list")
def list_locks() -> Call:
    """List the pinned, banned and watched symbols."""
    return Call(
        "/portfolio/locks",
        "locks",
        items="locks",
        columns=_LOCK_COLUMNS,
        empty="no symbol is locked",
    )


@reads(locks, "show")
def show_lock(symbol: Symbol) -> Call:
    """Show the lock of a symbol."""
    return Call(f"/portfolio/locks/{quote_segment(symbol)}", "lock")


@changes(locks, "set")
def set_lock(
    symbol: Symbol,
    kind: Annotated[
        LockKindName, typer.Argument(help="pin: never sold; ban: never bought; watch: observed.")
    ],
    reason: RequiredReason,
    expires: Annotated[
        str | None, typer.Option(help="End, such as 2026-01-31T00:00:00Z; none by default.")
    ] = None,
    user: User = None,
) -> Call:
    """Pin, ban or watch a symbol; replaces its earlier lock."""
    body = {"kind": kind, "reason": reason, "expires_at": expires, "user": user}
    return Call(f"/portfolio/locks/{quote_segment(symbol)}", "lock", "PUT", body=body)


@changes(locks, "delete")
def delete_lock(symbol: Symbol) -> Call:
    """Remove the lock of a symbol."""
    return Call(f"/portfolio/locks/{quote_segment(symbol)}", "removed lock", "DELETE")


@reads(trading, "show")
def show_switch() -> Call:
    """Show whether trading is on, since when, and why."""
    return Call("/portfolio/trading-switch", "trading switch")


@changes(trading, "on")
def switch_on(reason: RequiredReason, user: User = None) -> Call:
    """Allow changes of the portfolio again."""
    return _switch(True, reason, user)


@changes(trading, "off")
def switch_off(reason: RequiredReason, user: User = None) -> Call:
    """Stop every rebalance and replacement at once (kill switch)."""
    return _switch(False, reason, user)


@reads(watchlist)
def show_watchlist() -> Call:
    """Show the watched symbols with their distance to entry."""
    return Call(
        "/portfolio/watch-list",
        "watched symbols",
        items="symbols",
        columns=_WATCH_COLUMNS,
        empty="no symbol is watched; `locks set SYMBOL watch` adds one",
    )


def _switch(is_on: bool, reason: str, user: str | None) -> Call:
    body = {"enabled": is_on, "reason": reason, "user": user}
    return Call("/portfolio/trading-switch", "trading switch", "PUT", body=body)
