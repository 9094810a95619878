"""`my-symbols portfolio`: members, changes, rebalances, proposals, sizes and the report."""

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import typer
from rich.table import Table

from app.cli.client import DEFAULT_URL, Client, quote_segment
from app.cli.commands.jobs import run_job
from app.cli.output import (
    AsJson,
    IdempotencyKey,
    Limit,
    Output,
    Reason,
    Symbol,
    Url,
    create_table,
    drop_missing,
    format_number,
    format_value,
    report_errors,
)

command = typer.Typer(help="The portfolio: show it and change it.", no_args_is_help=True)
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
_REPORT_FIGURES: Final = (
    "growth", "max_drawdown", "sharpe", "sharpe_standard_error", "sortino", "calmar", "win_rate",
    "profit_factor",
)  # fmt: skip
_HYPOTHETICAL_FIGURES: Final = ("growth", "max_drawdown", "sharpe", "sortino", "calmar")
# table -> column -> field of the report
_REPORT_TABLES: Final = {
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
ProposalId = Annotated[str, typer.Argument(help="Id of a proposal.")]
Since = Annotated[str | None, typer.Option("--from", help="ISO 8601 time with its zone.")]
Until = Annotated[str | None, typer.Option("--to", help="ISO 8601 time with its zone.")]


@command.command()
def show(as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Show the members with rank, weight and score, and the cash."""
    with report_errors(as_json) as output:
        response = asyncio.run(Client(url).get("/portfolio"))
        if not output.print_if_json(response):
            _print_portfolio(output, response.document)


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
        str | None, typer.Option(help="Weighting method; the configured one by default.")
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


@command.command()
def rebalances(
    run: Annotated[str | None, typer.Argument(help="Id of one run, shown with its steps.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List the rebalance runs, or show one with its changes."""
    path = f"?limit={limit}" if run is None else f"/{quote_segment(run)}"
    with report_errors(as_json) as output:
        response = asyncio.run(Client(url).get(f"/portfolio/rebalances{path}"))
        if output.print_if_json(response):
            return
        if run is None:
            output.console.print(_create_runs_table(response.document["items"]))
        else:
            _print_run(output, response.document)


@command.command()
def proposals(limit: Limit = 20, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """List the proposals of the schedule and their decisions."""
    with report_errors(as_json) as output:
        response = asyncio.run(Client(url).get(f"/portfolio/proposals?limit={limit}"))
        if not output.print_if_json(response):
            output.console.print(_create_proposals_table(response.document["items"]))


@command.command()
def approve(
    proposal: ProposalId,
    reason: Reason = None,
    key: IdempotencyKey = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Execute a proposal."""
    path = f"/portfolio/proposals/{quote_segment(proposal)}/approve"
    _change(path, {"reason": reason}, key, as_json, url)


@command.command()
def decline(
    proposal: ProposalId,
    reason: Reason = None,
    key: IdempotencyKey = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Close a proposal without executing it."""
    path = f"/portfolio/proposals/{quote_segment(proposal)}/decline"
    _change(path, {"reason": reason}, key, as_json, url)


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


@command.command()
def report(
    since: Since = None, until: Until = None, as_json: AsJson = False, url: Url = DEFAULT_URL
) -> None:
    """Show equity, figures and positions of a period."""
    with report_errors(as_json) as output:
        query = urlencode(drop_missing({"from": since, "to": until}))
        path = "/portfolio/report" + (f"?{query}" if query else "")
        response = run_job(output, Client(url), "report", path, "GET")
        if not output.print_if_json(response):
            _print_report(output, response.document["result"])


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


def _create_runs_table(runs: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            run["requested_at"],
            run["run_id"],
            run["state"],
            ", ".join(run["triggers"] or ()),
            run["total_changes"],
            format_number(run["turnover"], 6),
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
    return create_table("rebalances", columns, rows)


def _print_run(output: Output, run: Mapping[str, Any]) -> None:
    output.console.print(_create_runs_table([run]))
    output.console.print(_create_changes_table("changes", run["changes"] or ()))
    steps = [(step["name"], step["state"], step["finished_at"]) for step in run["steps"]]
    output.console.print(create_table("steps", ("step", "state", "finished"), steps))
    if run["error"] is not None:
        output.console.print(run["error"]["detail"], markup=False)


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
    columns = ("proposal", "kind", "state", "change", "reason", "expires", "decided by")
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


def _print_report(output: Output, report: Mapping[str, Any]) -> None:
    figures = report["figures"]
    rows = [(name, format_number(figures[name], 4)) for name in _REPORT_FIGURES]
    output.console.print(create_table("figures", ("", ""), rows))
    if figures["ratios_reason"] is not None:
        output.console.print(f"no ratios: {figures['ratios_reason']}")
    hypothetical = report["hypothetical"]
    rows = [
        (name, format_number(hypothetical[f"hypothetical_{name}"], 4))
        for name in _HYPOTHETICAL_FIGURES
    ]
    title = "hypothetical: today's weights over the past, not earned"
    output.console.print(create_table(title, ("", ""), rows))
    for name, columns in _REPORT_TABLES.items():
        lines = [tuple(line[field] for field in columns.values()) for line in report[name]]
        output.console.print(create_table(name, tuple(columns), lines))
    output.console.print(
        f"version {report['version']}, created at {report['created_at']}; "
        "as a page: GET /portfolio/report"
    )
