"""`my-symbols portfolio`: members, changes, rebalances, proposals and sizes."""

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from app.cli.calls import Call, IdKind, changes, reads
from app.cli.choices import ProposalKindName, RunStateName, WeightMethod
from app.cli.client import DEFAULT_URL, Client, quote_segment
from app.cli.commands import portfolio_reads
from app.cli.output import (
    AsJson,
    IdempotencyKey,
    Limit,
    Output,
    Reason,
    Symbol,
    Url,
    User,
    create_rows_table,
    create_table,
    drop_missing,
    format_number,
    format_value,
    report_errors,
)

command = typer.Typer(
    add_completion=False, help="The portfolio: show it and change it.", no_args_is_help=True
)
command.add_typer(portfolio_reads.command)
_MEMBER_COLUMNS: Final = (
    "rank>", "symbol", "contract", "weight %>", "now %>", "target %>", "score>", "confidence>",
    "tradeable", "reason",
)  # fmt: skip
_SIZE_FACTS: Final = {
    "lots": "lots",
    "quantity": "quantity",
    "notional": "notional",
    "wanted": "wanted_notional",
    "rounding error": "rounding_error",
    "price": "price",
    "weight %": "weight_percentage",
    "leverage": "leverage",
    "margin": "margin",
    "liquidation price": "liquidation_price",
    "binding cap": "binding_cap",
}
_SIZE_FIELDS: Final = ("symbol", "weight_percentage", "lots", "notional", "binding_cap", "reason")
_SIZE_COLUMNS: Final = ("symbol", "weight %>", "lots>", "notional>", "cap", "reason")
_CAP_FIELDS: Final = ("name", "value", "limit", "unit", "source")
_CAP_COLUMNS: Final = ("cap", "value>", "limit>", "unit", "source")


def _parse_decimal(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise typer.BadParameter(f"{text!r} is not a number.") from None
    if not value.is_finite():
        raise typer.BadParameter(f"{text!r} is not a finite number.")
    return value


def _exact_option(help_text: str, *names: str) -> Any:
    """Declares an option whose number is sent exactly as it was entered."""
    return typer.Option(*names, parser=_parse_decimal, metavar="NUMBER", help=help_text)


Balance = Annotated[Decimal, _exact_option("Equity in the quote currency.", "--balance")]
Leverage = Annotated[Decimal | None, _exact_option("1 by default.", "--leverage")]
ProposalId = Annotated[str, typer.Argument(help="Id of a proposal, or the beginning of it.")]
PROPOSAL: Final = IdKind("proposal", "proposal_id", ("/portfolio/proposals",))
RUN: Final = IdKind("run", "run_id", ("/portfolio/rebalances",))
_RUN_COLUMNS: Final = {
    "requested": "requested_at",
    "run#": "run_id",
    "state": "state",
    "triggers": "triggers",
    "changes>": "total_changes",
    "turnover>": "turnover",
    "version>": "version_after",
    "actor": "actor",
    "error": "error.code",
}


@reads(command)
def show() -> Call:
    """Show the members with rank, weight and score, and the cash."""
    return Call("/portfolio", "portfolio", items="members", show=_print_portfolio)


@command.command()
def initialize(
    size: Annotated[
        int | None, typer.Option(min=1, help="Number of members; the maximum by default.")
    ] = None,
    key: IdempotencyKey = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Fill an empty portfolio from the board."""
    _change("/portfolio/initialize", {"size": size}, key, as_json, url)


@command.command()
def add(
    symbol: Symbol,
    reason: Reason = None,
    key: IdempotencyKey = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Add a symbol."""
    _change("/portfolio/add-symbol", {"symbol": symbol, "reason": reason}, key, as_json, url)


@command.command()
def remove(
    symbol: Symbol,
    reason: Reason = None,
    key: IdempotencyKey = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Remove a symbol."""
    _change("/portfolio/remove-symbol", {"symbol": symbol, "reason": reason}, key, as_json, url)


@command.command()
def replace(
    old: Annotated[str, typer.Argument(help="The outgoing member.")],
    new: Annotated[str, typer.Argument(help="The symbol that takes its rank.")],
    reason: Reason = None,
    key: IdempotencyKey = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Replace a member by another symbol in one transaction."""
    body = {"old_symbol": old, "new_symbol": new, "reason": reason}
    _change("/portfolio/replace-symbol", body, key, as_json, url)


@command.command()
def rebalance(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, write nothing.")
    ] = False,
    balance: Annotated[
        Decimal | None, _exact_option("Equity in the quote currency; adds lots.", "--balance")
    ] = None,
    method: Annotated[
        WeightMethod | None, typer.Option(help="Weighting method; the configured one by default.")
    ] = None,
    reason: Reason = None,
    key: IdempotencyKey = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Bring the weights to their targets."""
    with report_errors(as_json) as output:
        body = drop_missing({"dry_run": dry_run, "reason": reason, "method": method})
        if balance is not None:
            body["account_balance"] = f"{balance:f}"
        response = asyncio.run(Client(url).post("/portfolio/rebalance", body, key))
        if not output.print_if_json(response):
            _print_plan(output, response.document)


@reads(command, "rebalances")
def rebalances(
    run: Annotated[
        str | None, typer.Argument(help="Id of one run, or its beginning; shown with its steps.")
    ] = None,
    state: Annotated[RunStateName | None, typer.Option(help="Only in this state.")] = None,
    limit: Limit = 20,
) -> Call:
    """List the rebalance runs, or show one with its changes."""
    if run is not None:
        if state is not None:
            raise typer.BadParameter("--state narrows the list; a single run needs none.")
        return Call("/portfolio/rebalances/{}", "run", reference=(RUN, run), show=_print_run)
    return Call(
        "/portfolio/rebalances",
        "rebalances",
        query={"limit": limit, "state": state},
        items="items",
        columns=_RUN_COLUMNS,
        empty="no rebalance yet",
    )


@reads(command, "proposals")
def proposals(
    kind: Annotated[ProposalKindName | None, typer.Option(help="Only of this kind.")] = None,
    limit: Limit = 20,
) -> Call:
    """List the proposals of the schedule and their decisions."""
    return Call(
        "/portfolio/proposals",
        "proposals",
        query={"limit": limit, "kind": kind},
        items="items",
        show=_print_proposals,
    )


@changes(command, "approve")
def approve(proposal: ProposalId, reason: Reason = None, user: User = None) -> Call:
    """Execute a proposal."""
    return _decide(proposal, "approve", reason, user)


@changes(command, "decline")
def decline(proposal: ProposalId, reason: Reason = None, user: User = None) -> Call:
    """Close a proposal without executing it."""
    return _decide(proposal, "decline", reason, user)


def _decide(proposal: str, step: str, reason: str | None, user: str | None) -> Call:
    return Call(
        f"/portfolio/proposals/{{}}/{step}",
        "proposal",
        "POST",
        body={"reason": reason, "user": user},
        reference=(PROPOSAL, proposal),
        show=_print_decision,
    )


@command.command("position-size")
def position_size(
    symbol: Symbol,
    balance: Balance,
    leverage: Leverage = None,
    price: Annotated[Decimal | None, _exact_option("The mark price by default.", "--price")] = None,
    confidence: Annotated[
        Decimal | None, _exact_option("0 to 1; scales the size.", "--confidence")
    ] = None,
    wins: Annotated[int | None, typer.Option(min=0, help="For Kelly; needs all three.")] = None,
    losses: Annotated[int | None, typer.Option(min=0, help="For Kelly; needs all three.")] = None,
    payoff_ratio: Annotated[
        Decimal | None,
        _exact_option("Mean gain over mean loss; needs all three.", "--payoff-ratio"),
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show the lots of a symbol for a balance, and the caps that limit them."""
    kelly = (wins, losses, payoff_ratio)
    if any(value is None for value in kelly) and any(value is not None for value in kelly):
        raise typer.BadParameter("--wins, --losses and --payoff-ratio need each other.")
    query = drop_missing(
        {
            "account_balance": balance,
            "leverage": leverage,
            "price": price,
            "confidence": confidence,
            "wins": wins,
            "losses": losses,
            "payoff_ratio": payoff_ratio,
        }
    )
    path = f"/portfolio/symbols/{quote_segment(symbol)}/position-size"
    with report_errors(as_json) as output:
        response = asyncio.run(
            Client(url).get(path, **{name: format_value(value) for name, value in query.items()})
        )
        if not output.print_if_json(response):
            _print_size(output, response.document)


@command.command("position-sizes")
def position_sizes(
    balance: Balance, leverage: Leverage = None, as_json: AsJson = False, url: Url = DEFAULT_URL
) -> None:
    """Show the lots of every member for a balance, allocated together."""
    query = drop_missing({"account_balance": balance, "leverage": leverage})
    with report_errors(as_json) as output:
        response = asyncio.run(
            Client(url).get(
                "/portfolio/sizes", **{name: format_value(value) for name, value in query.items()}
            )
        )
        if not output.print_if_json(response):
            sizes = response.document
            rows = [tuple(size[name] for name in _SIZE_FIELDS) for size in sizes["sizes"]]
            title = f"lots for {sizes['account_balance']}"
            output.console.print(create_table(title, _SIZE_COLUMNS, rows))


def create_members_table(portfolio: Mapping[str, Any]) -> Table:
    """Returns the members of GET /portfolio: stored, current and target weights."""
    rows = [
        (
            member["position_rank"],
            member["symbol"],
            member["contract"],
            format_number(member["weight_percentage"], 6),
            format_number(member["current_weight_percentage"], 6),
            format_number(member["target_weight_percentage"], 6),
            format_number(member["current_score"], 4),
            format_number(member["confidence"], 2),
            member["is_tradeable"],
            member["not_tradeable_reason"] or "",
        )
        for member in portfolio["members"]
    ]
    size, max_size = portfolio["size"], portfolio["max_size"]
    title = f"portfolio: {size} of {max_size}, version {portfolio['version']}"
    return create_table(title, _MEMBER_COLUMNS, rows)


def format_sum(portfolio: Mapping[str, Any]) -> str:
    """Formats weights, cash and their exact sum from the decimals that the service sent."""
    cash = exact_decimal(portfolio["cash_percentage"])
    weights = sum_weights(portfolio)
    return f"weights {weights:f} % + cash {cash:f} % = {(weights + cash).normalize():f} %"


def sum_weights(portfolio: Mapping[str, Any]) -> Decimal:
    """Returns the exact sum of the members' weights in percent."""
    members = portfolio["members"]
    return sum((exact_decimal(member["weight_percentage"]) for member in members), Decimal(0))


def exact_decimal(value: object) -> Decimal:
    """Returns a number of an answer as the decimal that was sent."""
    return value if isinstance(value, Decimal) else Decimal(str(value))


def _change(
    path: str, body: Mapping[str, object], key: str | None, as_json: bool, url: str
) -> None:
    with report_errors(as_json) as output:
        client = Client(url)
        response = asyncio.run(client.post(path, drop_missing(body), key))
        if not output.print_if_json(response):
            _print_portfolio(output, asyncio.run(client.get("/portfolio")).document)


def _print_portfolio(output: Output, portfolio: Mapping[str, Any]) -> None:
    output.console.print(create_members_table(portfolio))
    output.console.print(format_sum(portfolio))


def _print_plan(output: Output, plan: Mapping[str, Any]) -> None:
    output.console.print(_create_changes_table("plan", plan["changes"]))
    if plan.get("lots") is not None:
        lots = plan["lots"]["lots"].items()
        text = ", ".join(f"{symbol} {format_value(count)}" for symbol, count in lots)
        output.console.print(f"lots: {text}")
    facts = ("turnover", "estimated_cost", "total_changes", "run_id")
    output.console.print(", ".join(f"{name} {format_value(plan.get(name))}" for name in facts))
    refusal = plan.get("would_be_refused")
    if refusal is not None:
        said = f"it would be refused now: {refusal['code']}: {refusal['detail']}"
        output.console.print(said, markup=False)


def _create_changes_table(title: str, changes: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            change["symbol"],
            format_number(change["old"], 6),
            format_number(change["new"], 6),
            format_number(change["change"], 6),
            change["action"],
            change["reason"],
        )
        for change in changes
    ]
    return create_table(title, ("symbol", "old %>", "new %>", "change>", "action", "reason"), rows)


def _print_run(output: Output, run: Mapping[str, Any]) -> None:
    output.console.print(create_rows_table("run", [run], _RUN_COLUMNS))
    output.console.print(_create_changes_table("changes", run["changes"] or ()))
    steps = [(step["name"], step["state"], step["finished_at"]) for step in run["steps"]]
    output.console.print(create_table("steps", ("step", "state", "finished"), steps))
    if run["error"] is not None:
        output.console.print(run["error"]["detail"], markup=False)


def _print_proposals(output: Output, page: Mapping[str, Any]) -> None:
    if page["items"]:
        output.console.print(_create_proposals_table(page["items"]))
    else:
        output.console.print("no proposal yet")


def _print_decision(output: Output, proposal: Mapping[str, Any]) -> None:
    decided = {"is_outdated": False, **proposal}
    output.console.print(_create_proposals_table([decided]))


def _create_proposals_table(proposals: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            proposal["proposal_id"],
            proposal["kind"],
            "outdated" if proposal["is_outdated"] else proposal["state"],
            _describe_proposal(proposal),
            proposal["reason"],
            proposal["expires_at"],
            (proposal["decision"] or {}).get("by"),
        )
        for proposal in proposals
    ]
    columns = ("proposal#", "kind", "state", "change", "reason", "expires", "decided by")
    return create_table("proposals", columns, rows)


def _describe_proposal(proposal: Mapping[str, Any]) -> str:
    replacement, signal = proposal["replacement"], proposal["signal"]
    if replacement is not None:
        return f"{replacement['replace_symbol']} by {replacement['candidate_symbol']}"
    if signal is not None:
        action = f"{signal['move']} {signal['symbol']}"
        return action if signal["old_symbol"] is None else f"{action} for {signal['old_symbol']}"
    plan = proposal["rebalance"]
    return f"{len(plan['changes'])} changes, turnover {format_number(plan['turnover'], 3)}"


def _print_size(output: Output, size: Mapping[str, Any]) -> None:
    facts = [(title, size[name]) for title, name in _SIZE_FACTS.items()]
    title = f"{size['symbol']} ({size['contract']})"
    output.console.print(create_table(title, ("", ">"), facts))
    caps = [tuple(cap[name] for name in _CAP_FIELDS) for cap in size["limits"]]
    if caps:
        output.console.print(create_table("caps", _CAP_COLUMNS, caps))
    if size["reason"] is not None:
        text = size["reason"] if size["lots"] else f"no lots: {size['reason']}"
        output.console.print(text, markup=False)
