"""What a demo found out, as tables for people and as one document for machines."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from app.cli.commands.portfolio import exact, sum_line
from app.cli.output import Output, number, shown, table

_FAMILIES: Final = ("technical_score", "fundamental_score", "market_structure_score", "risk_score")
_TEN: Final = (
    "rank>", "symbol", "contract", "weight %>", "score>", "confidence>", "technical>",
    "fundamental>", "structure>", "risk>",
)  # fmt: skip
_MOST_REFUSED: Final = 15


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Answers of the service, as they came; `choice` is None when there were members already."""

    url: str
    portfolio: Mapping[str, Any]
    choice: Mapping[str, Any] | None
    rankings: Mapping[str, Any]
    run: Mapping[str, Any]
    funnel: Mapping[str, Any]
    usable_s: float | None  # from the start to the first complete board; None without one

    @property
    def cards(self) -> Sequence[Mapping[str, Any]]:
        """The scored lines of the board."""
        return [card for card in self.rankings["items"] if card["status"] == "scored"]

    def refused(self) -> Sequence[Mapping[str, Any]]:
        return list(self.choice["refused"]) if self.choice else []

    def total(self) -> Decimal:
        """Weights and cash, exactly."""
        members = self.portfolio["members"]
        weights = sum((exact(one["weight_percentage"]) for one in members), Decimal(0))
        return weights + exact(self.portfolio["cash_percentage"])


def print_findings(findings: DemoResult, output: Output, seconds: float) -> None:
    """One JSON document, or the tables."""
    if output.as_json:
        output.machine(_document(findings, seconds))
        return
    say = output.people.print
    say(_ten(findings))
    say(sum_line(findings.portfolio))
    say(_coverage(findings))
    say(_spread(findings.run))
    say(_funnel(findings))
    say(_refusals(findings))
    source, moment = findings.run["data_source"], findings.run["as_of"]
    say(f"data of {source}, as of {moment}; from start to table: {seconds:.1f} s")
    usable = findings.usable_s
    usable_text = "none yet" if usable is None else f"after {usable:.1f} s"
    say(f"first usable board: {usable_text}")


def _ten(findings: DemoResult) -> Any:
    cards = {card["symbol"]: card for card in findings.cards}
    rows = []
    for member in findings.portfolio["members"]:
        card = cards.get(member["symbol"], {})
        rows.append(
            (
                member["position_rank"],
                member["symbol"],
                member["contract"],
                number(member["weight_percentage"], 6),
                number(card.get("composite_score"), 4),
                number(card.get("confidence_level"), 2),
                *(number(card.get(family)) for family in _FAMILIES),
            )
        )
    return table("portfolio", _TEN, rows)


def _coverage(findings: DemoResult) -> Any:
    coverage = findings.run["coverage"]
    rows = [(name, f"{float(share):.1%}") for name, share in coverage.items()]
    return table("coverage of the eligible symbols, per factor", ("factor", "covered>"), rows)


def _spread(run: Mapping[str, Any]) -> str:
    spread = run["score_spread"] or {}
    parts = (f"{name.replace('_', ' ')} {number(value)}" for name, value in spread.items())
    confidence = number(run["median_confidence"], 2)
    return f"{run['scores_calculated']} scores: {', '.join(parts)}; median confidence {confidence}"


def _funnel(findings: DemoResult) -> Any:
    rows = [
        (stage["name"], stage["title"], shown(stage["limit"]), stage["entered"], stage["failed"])
        for stage in findings.funnel["stages"]
    ]
    title = (
        f"funnel: {findings.funnel['universe']} contracts, {findings.funnel['eligible']} eligible"
    )
    return table(title, ("rule", "", "limit", "entered>", "failed>"), rows)


def _refusals(findings: DemoResult) -> Any:
    refused = findings.refused()
    if not refused:
        below = len(findings.cards) - len(findings.portfolio["members"])
        return f"candidates refused on the way: none; {below} scored ones rank below the members"
    counts = Counter(str(one["reason"]) for one in refused)
    summary = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
    rows = [
        (
            one["symbol"],
            number(one["score"], 4),
            one["reason"],
            one["against"],
            number(one["correlation"]),
        )
        for one in refused[:_MOST_REFUSED]
    ]
    title = f"candidates refused: {summary} (the first {len(rows)} of {len(refused)})"
    return table(title, ("symbol", "score>", "reason", "against", "correlation>"), rows)


def _document(findings: DemoResult, seconds: float) -> dict[str, Any]:
    return {
        "url": findings.url,
        "seconds": round(seconds, 3),
        "first_usable_board_seconds": findings.usable_s,
        "portfolio": findings.portfolio,
        "weights_and_cash": findings.total(),
        "run": findings.run,
        "funnel": findings.funnel,
        "refused": findings.refused(),
        "board": findings.cards,
    }
