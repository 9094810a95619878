"""Report of a demo: tables for people, or one document for machines."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.table import Table

from app.cli.commands.portfolio import exact_decimal, format_sum, sum_weights
from app.cli.output import Output, create_table, format_number

_FAMILIES: Final = ("technical_score", "fundamental_score", "market_structure_score", "risk_score")
_MEMBER_COLUMNS: Final = (
    "rank>", "symbol", "contract", "weight %>", "score>", "confidence>", "technical>",
    "fundamental>", "structure>", "risk>",
)  # fmt: skip
_FUNNEL_COLUMNS: Final = ("rule", "", "limit", "entered>", "failed>")
_REFUSAL_COLUMNS: Final = ("symbol", "score>", "reason", "against", "correlation>")
_MAX_REFUSALS: Final = 15


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Responses of the service; `choice` is None when the portfolio had members already."""

    url: str
    portfolio: Mapping[str, Any]
    choice: Mapping[str, Any] | None
    rankings: Mapping[str, Any]
    run: Mapping[str, Any]
    funnel: Mapping[str, Any]
    usable_s: float | None  # from the start to the first complete board; None without one

    @property
    def scores(self) -> Sequence[Mapping[str, Any]]:
        """The scored lines of the board."""
        return [score for score in self.rankings["items"] if score["status"] == "scored"]

    @property
    def refusals(self) -> Sequence[Mapping[str, Any]]:
        """The candidates that the choice of members refused."""
        return list(self.choice["refused"]) if self.choice else []


def print_result(result: DemoResult, output: Output, seconds: float) -> None:
    """Prints one JSON document, or the tables."""
    if output.as_json:
        output.print_document(_create_document(result, seconds))
        return
    output.console.print(_create_members_table(result))
    output.console.print(format_sum(result.portfolio))
    output.console.print(_create_coverage_table(result.run))
    output.console.print(_format_spread(result.run))
    output.console.print(_create_funnel_table(result.funnel))
    output.console.print(_create_refusals(result))
    source, as_of = result.run["data_source"], result.run["as_of"]
    output.console.print(f"data of {source}, as of {as_of}; from start to table: {seconds:.1f} s")
    usable = "none yet" if result.usable_s is None else f"after {result.usable_s:.1f} s"
    output.console.print(f"first usable board: {usable}")


def _create_members_table(result: DemoResult) -> Table:
    scores = {score["symbol"]: score for score in result.scores}
    rows = []
    for member in result.portfolio["members"]:
        score = scores.get(member["symbol"], {})
        rows.append(
            (
                member["position_rank"],
                member["symbol"],
                member["contract"],
                format_number(member["weight_percentage"], 6),
                format_number(score.get("composite_score"), 4),
                format_number(score.get("confidence_level"), 2),
                *(format_number(score.get(family)) for family in _FAMILIES),
            )
        )
    return create_table("portfolio", _MEMBER_COLUMNS, rows)


def _create_coverage_table(run: Mapping[str, Any]) -> Table:
    rows = [(factor, f"{float(share):.1%}") for factor, share in run["coverage"].items()]
    title = "coverage of the eligible symbols, per factor"
    return create_table(title, ("factor", "covered>"), rows)


def _format_spread(run: Mapping[str, Any]) -> str:
    spread = run["score_spread"] or {}
    figures = (f"{name.replace('_', ' ')} {format_number(value)}" for name, value in spread.items())
    confidence = format_number(run["median_confidence"], 2)
    return (
        f"{run['scores_calculated']} scores: {', '.join(figures)}; median confidence {confidence}"
    )


def _create_funnel_table(funnel: Mapping[str, Any]) -> Table:
    rows = [
        (stage["name"], stage["title"], stage["limit"], stage["entered"], stage["failed"])
        for stage in funnel["stages"]
    ]
    title = f"funnel: {funnel['universe']} contracts, {funnel['eligible']} eligible"
    return create_table(title, _FUNNEL_COLUMNS, rows)


def _create_refusals(result: DemoResult) -> Table | str:
    refusals = result.refusals
    if not refusals:
        below = len(result.scores) - len(result.portfolio["members"])
        return f"refused candidates: none; {below} scored symbols rank below the members"
    counts = Counter(str(refusal["reason"]) for refusal in refusals)
    summary = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
    rows = [
        (
            refusal["symbol"],
            format_number(refusal["score"], 4),
            refusal["reason"],
            refusal["conflicting_symbol"],
            format_number(refusal["correlation"]),
        )
        for refusal in refusals[:_MAX_REFUSALS]
    ]
    title = f"refused candidates: {summary} (the first {len(rows)} of {len(refusals)})"
    return create_table(title, _REFUSAL_COLUMNS, rows)


def _create_document(result: DemoResult, seconds: float) -> dict[str, Any]:
    cash = exact_decimal(result.portfolio["cash_percentage"])
    return {
        "url": result.url,
        "seconds": round(seconds, 3),
        "first_usable_board_seconds": result.usable_s,
        "portfolio": result.portfolio,
        "weights_and_cash": sum_weights(result.portfolio) + cash,
        "run": result.run,
        "funnel": result.funnel,
        "refused": result.refusals,
        "board": result.scores,
    }
