"""`my-symbols signals`: posts signals of outside models, and shows what became of them."""

from typing import Annotated, Final

import typer

from app.cli.calls import Call, IdKind, changes, reads
from app.cli.choices import SignalDirection
from app.cli.output import Limit, User

command = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Signals of other models: post, show, pending, processed, statistics, cleanup, reprocess.",
)
SIGNAL: Final = IdKind("signal", "signal_id", ("/signals/pending", "/signals/processed?hours=720"))
SignalId = Annotated[str, typer.Argument(help="Id of a signal, or the beginning of it.")]
_PENDING_COLUMNS: Final = {
    "received": "received_at",
    "source": "source_name",
    "type": "signal_type",
    "symbol": "symbol",
    "direction": "signal_direction",
    "strength>": "signal_strength",
    "confidence>": "confidence_level",
    "state": "state",
    "expires": "expires_at",
    "signal#": "signal_id",
}
_PROCESSED_COLUMNS: Final = {
    "received": "received_at",
    "source": "source_name",
    "type": "signal_type",
    "symbol": "symbol",
    "state": "state",
    "verdict": "verdict.evaluation",
    "consensus>": "verdict.consensus_score",
    "reason": "reason",
    "signal#": "signal_id",
}


@changes(command, "post")
def post_signal(
    source: Annotated[str, typer.Argument(help="Name of the source.")],
    kind: Annotated[str, typer.Argument(metavar="TYPE", help="Type of the signal.")],
    strength: Annotated[float, typer.Option(min=0, max=1, help="Strength, 0 to 1.")],
    confidence: Annotated[float, typer.Option(min=0, max=1, help="Confidence, 0 to 1.")],
    symbol: Annotated[str | None, typer.Option(help="In any spelling.")] = None,
    direction: Annotated[SignalDirection | None, typer.Option(help="NEUTRAL by default.")] = None,
    source_id: Annotated[
        str | None, typer.Option(help="Id at the source; the same id has one effect.")
    ] = None,
    timestamp: Annotated[
        str | None, typer.Option(help="Time of the signal, such as 2026-01-31T00:00:00Z.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="Time after which it is ignored.")] = None,
) -> Call:
    """Post a signal; it is judged by the agents."""
    body = {
        "source_name": source,
        "signal_type": kind,
        "signal_strength": strength,
        "confidence_level": confidence,
        "symbol": symbol,
        "signal_direction": direction,
        "source_signal_id": source_id,
        "signal_timestamp": timestamp,
        "expiry_timestamp": expires,
    }
    return Call("/signals", "signal", "POST", body=body)


@reads(command, "show")
def show_signal(signal: SignalId) -> Call:
    """Show a signal with its votes, verdict, effect and outcome."""
    return Call("/signals/{}", "signal", reference=(SIGNAL, signal))


@reads(command, "pending")
def list_pending(limit: Limit = 50) -> Call:
    """List the signals that wait for their verdict."""
    return Call(
        "/signals/pending",
        "pending signals",
        query={"limit": limit},
        items="items",
        columns=_PENDING_COLUMNS,
        empty="no signal waits",
    )


@reads(command, "processed")
def list_processed(
    hours: Annotated[int, typer.Option(min=1, max=8_760, help="Received within.")] = 24,
    limit: Limit = 50,
) -> Call:
    """List the signals with their verdicts, newest first."""
    return Call(
        "/signals/processed",
        "processed signals",
        query={"hours": hours, "limit": limit},
        items="items",
        columns=_PROCESSED_COLUMNS,
        empty=f"no signal within {hours} hours",
    )


@reads(command, "statistics")
def show_statistics(
    days: Annotated[int, typer.Option(min=1, max=3_650, help="Period.")] = 30,
) -> Call:
    """Show counts and track records of sources and agents."""
    return Call("/signals/statistics", "statistics", query={"days": days})


@changes(command, "cleanup")
def clean_up(
    older_than_days: Annotated[
        int | None, typer.Option(min=1, help="Age in days; that of the service by default.")
    ] = None,
    user: User = None,
) -> Call:
    """Expire overdue signals and delete old ones."""
    body = {"older_than_days": older_than_days, "user": user}
    return Call("/signals/cleanup", "signals", "POST", body=body)


@changes(command, "reprocess")
def reprocess(
    max_retries: Annotated[
        int | None, typer.Option(min=1, help="Attempts; those of the service by default.")
    ] = None,
    user: User = None,
) -> Call:
    """Judge failed signals again."""
    body = {"max_retries": max_retries, "user": user}
    return Call("/signals/reprocess-failed", "signals", "POST", body=body)
