"""Commands about the portfolio: look at it, change it, its rebalance runs and proposals."""

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli.client import Client, segment
from app.cli.commands.position_size import exact_option
from app.cli.commands.scoring import Symbol
from app.cli.output import HERE, AsJson, Output, Url, number, reporting, shown, table

portfolio = typer.Typer(help="The portfolio: look at it and change it.", no_args_is_help=True)
Reason = Annotated[str | None, typer.Option(help="Kept in the history.")]
Key = Annotated[
    str | None, typer.Option("--key", help="Idempotency-Key: the same key has one effect.")
]
_COLUMNS = (
    "rank>", "symbol", "contract", "weight %>", "now %>", "target %>", "score>", "confidence>",
    "tradeable", "why not",
)  # fmt: skip


@portfolio.command()
def show(as_json: AsJson = False, url: Url = HERE) -> None:
    """The members with rank, weight and score, and the cash."""
    with reporting(as_json) as output:
        answer = asyncio.run(Client(url).get("/portfolio"))
        if not output.answer(answer):
            output.people.print(members_table(answer.document))
            output.people.print(sum_line(answer.document))


@portfolio.command()
def initialize(
    size: Annotated[int | None, typer.Option(min=1, help="How many; the maximum without.")] = None,
    key: Key = None,
    as_json: AsJson = False,
    url: Url = HERE,
) -> None:
    """Fill an empty portfolio from the board."""
    _change("/portfolio/initialize", {"size": size}, key, as_json, url)


@portfolio.command()
def add(
    symbol: Symbol, reason: Reason = None, key: Key = None, as_json: AsJson = False, url: Url = HERE
) -> None:
    """Add a symbol."""
    _change("/portfolio/add-symbol", {"symbol": symbol, "reason": reason}, key, as_json, url)


@portfolio.command()
def remove(
    symbol: Symbol, reason: Reason = None, key: Key = None, as_json: AsJson = False, url: Url = HERE
) -> None:
    """Remove a symbol."""
    _change("/portfolio/remove-symbol", {"symbol": symbol, "reason": reason}, key, as_json, url)


@portfolio.command()
def replace(
    old: Annotated[str, typer.Argument(help="The member that leaves.")],
    new: Annotated[str, typer.Argument(help="The symbol that takes its rank.")],
    reason: Reason = None,
    key: Key = None,
    as_json: AsJson = False,
    url: Url = HERE,
) -> None:
    """Replace a member by another symbol in one transaction."""
    body = {"old_symbol": old, "new_symbol": new, "reason": reason}
    _change("/portfolio/replace-symbol", body, key, as_json, url)


@portfolio.command()
def rebalance(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, write nothing.")
    ] = False,
    balance: Annotated[
        Decimal | None, exact_option("Equity in the quote currency: names lots.", "--balance")
    ] = None,
    method: Annotated[str | None, typer.Option(help="In place of the configured one.")] = None,
    reason: Reason = None,
    key: Key = None,
    as_json: AsJson = False,
    url: Url = HERE,
) -> None:
    """Bring the weights to their targets."""
    with reporting(as_json) as output:
        body = _given({"dry_run": dry_run, "reason": reason, "method": method})
        if balance is not None:
            body["account_balance"] = f"{balance:f}"
        answer = asyncio.run(Client(url).post("/portfolio/rebalance", body, key))
        if not output.answer(answer):
            _plan(output, answer.document)


@portfolio.command()
def rebalances(
    run: Annotated[str | None, typer.Argument(help="One run, with its steps.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
    url: Url = HERE,
) -> None:
    """The rebalance runs, or one of them with what it changed."""
    path = f"?limit={limit}" if run is None else f"/{segment(run)}"
    with reporting(as_json) as output:
        answer = asyncio.run(Client(url).get(f"/portfolio/rebalances{path}"))
        if output.answer(answer):
            return
        found = answer.document["items"] if run is None else [answer.document]
        output.people.print(_runs_table(found))
        if run is not None:
            _run(output, answer.document)


@portfolio.command()
def proposals(
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
    url: Url = HERE,
) -> None:
    """What the schedule proposes, and what became of it."""
    with reporting(as_json) as output:
        answer = asyncio.run(Client(url).get(f"/portfolio/proposals?limit={limit}"))
        if not output.answer(answer):
            output.people.print(_proposals_table(answer.document["items"]))


Waiting = Annotated[str, typer.Argument(help="The id of a proposal.")]


@portfolio.command()
def approve(
    proposal: Waiting, reason: Reason = None, key: Key = None, as_json: AsJson = False,
    url: Url = HERE,
) -> None:  # fmt: skip
    """Carry a proposal out."""
    _change(
        f"/portfolio/proposals/{segment(proposal)}/approve", {"reason": reason}, key, as_json, url
    )


@portfolio.command()
def decline(
    proposal: Waiting, reason: Reason = None, key: Key = None, as_json: AsJson = False,
    url: Url = HERE,
) -> None:  # fmt: skip
    """End a proposal without carrying it out."""
    _change(
        f"/portfolio/proposals/{segment(proposal)}/decline", {"reason": reason}, key, as_json, url
    )


def members_table(document: Mapping[str, Any]) -> Table:
    """The members of GET /portfolio: weights as set, as prices have carried them, and targets."""
    rows = [
        (
            member["position_rank"],
            member["symbol"],
            member["contract"],
            number(member["weight_percentage"], 6),
            number(member["current_weight_percentage"], 6),
            number(member["target_weight_percentage"], 6),
            number(member["current_score"], 4),
            number(member["confidence"], 2),
            member["is_tradeable"],
            member["not_tradeable_reason"] or "",
        )
        for member in document["members"]
    ]
    size, most = document["size"], document["max_size"]
    return table(f"portfolio: {size} of {most}, version {document['version']}", _COLUMNS, rows)


def sum_line(document: Mapping[str, Any]) -> str:
    """Weights, cash and their exact sum, from the decimal text that the service sent."""
    cash = exact(document["cash_percentage"])
    weights = sum((exact(one["weight_percentage"]) for one in document["members"]), Decimal(0))
    return f"weights {weights:f} % + cash {cash:f} % = {(weights + cash).normalize():f} %"


def exact(value: object) -> Decimal:
    """A number of an answer as the decimal that was sent."""
    return value if isinstance(value, Decimal) else Decimal(str(value))


def _change(
    path: str, body: Mapping[str, object], key: str | None, as_json: bool, url: str
) -> None:
    with reporting(as_json) as output:
        client = Client(url)
        answer = asyncio.run(client.post(path, _given(body), key))
        if not output.answer(answer):
            now = asyncio.run(client.get("/portfolio")).document
            output.people.print(members_table(now))
            output.people.print(sum_line(now))


def _given(body: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in body.items() if value is not None}


def _plan(output: Output, plan: Mapping[str, Any]) -> None:
    output.people.print(_changes_table("plan", plan["changes"]))
    if plan.get("lots") is not None:
        lots = ", ".join(f"{name} {shown(count)}" for name, count in plan["lots"]["lots"].items())
        output.people.print(f"lots: {lots}")
    facts = ("turnover", "estimated_cost", "total_changes", "run_id")
    output.people.print(", ".join(f"{name} {shown(plan.get(name))}" for name in facts))


def _changes_table(title: str, changes: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            change["symbol"],
            number(change["old"], 6),
            number(change["new"], 6),
            number(change["change"], 6),
            change["action"],
            change["reason"],
        )
        for change in changes
    ]
    return table(title, ("symbol", "old %>", "new %>", "change>", "action", "reason"), rows)


def _runs_table(runs: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            run["requested_at"],
            run["run_id"],
            run["state"],
            ", ".join(run["triggers"] or ()),
            run["total_changes"],
            number(run["turnover"], 6),
            run["version_after"],
            run["actor"],
            (run["error"] or {}).get("code"),
        )
        for run in runs
    ]
    columns = (
        "requested", "run", "state", "triggers", "changes>", "turnover>", "version>", "actor",
        "error",
    )  # fmt: skip
    return table("rebalances", columns, rows)


def _run(output: Output, run: Mapping[str, Any]) -> None:
    output.people.print(_changes_table("changes", run["changes"] or ()))
    steps = [(step["name"], step["state"], step["finished_at"]) for step in run["steps"]]
    output.people.print(table("steps", ("step", "state", "finished"), steps))
    if run["error"] is not None:
        output.people.print(run["error"]["detail"], markup=False)


def _proposals_table(proposals: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            one["proposal_id"],
            one["kind"],
            "outdated" if one["is_outdated"] else one["state"],
            _proposed(one),
            one["reason"],
            one["expires_at"],
            (one["decision"] or {}).get("by"),
        )
        for one in proposals
    ]
    columns = ("proposal", "kind", "state", "what", "reason", "expires", "decided by")
    return table("proposals", columns, rows)


def _proposed(one: Mapping[str, Any]) -> str:
    if one["replacement"] is not None:
        return f"{one['replacement']['replace_symbol']} by {one['replacement']['candidate_symbol']}"
    if one["signal"] is not None:
        said = f"{one['signal']['move']} {one['signal']['symbol']}"
        old = one["signal"]["old_symbol"]
        return said if old is None else f"{said} for {old}"
    changes, turnover = one["rebalance"]["changes"], one["rebalance"]["turnover"]
    return f"{len(changes)} changes, turnover {number(turnover, 3)}"
