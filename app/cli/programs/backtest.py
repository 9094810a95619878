"""Program of `my-symbols backtest`: runs, prints and logs one trial."""

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.table import Table

from app.cli.exit_codes import CommandError, ExitCode
from app.cli.output import Output, create_table, format_number, report_errors
from app.cli.programs.settings import read_settings
from app.cli.programs.trials import run_on_database
from app.configuration.domain.document import ConfigurationRefusedError, as_document, validate
from app.configuration.domain.model import Configuration
from app.configuration.storage.configuration import ConfigurationRepository
from app.container.runtime_values import code_version, new_id, utc_now
from app.foundation.sql.database import Database
from app.market.services.symbol_registry import shipped_sectors
from app.research.domain.baselines import PortfolioFigures
from app.research.domain.factor_cards import FactorCard
from app.research.domain.history import CandleHistory
from app.research.domain.luck import ReturnMoments
from app.research.domain.report import BacktestReport
from app.research.domain.trials import Trial
from app.research.domain.validation import ScoreEvidence
from app.research.services.backtest import BacktestOptions, BacktestRun, BoardSeries
from app.research.services.evidence import (
    DisasterAudit,
    Evidence,
    EvidenceOptions,
    audit_disaster,
    gather_evidence,
    validate_factors,
)
from app.research.services.historical_market import TradingCosts
from app.research.services.history_files import read_history
from app.research.storage.trials import TrialRepository


def run(options: Mapping[str, Any]) -> None:
    """Runs one backtest, logs it as a trial and prints its report.

    `options` are those of the command by name.
    """
    every, offset = options["every"], options["offset"]
    with report_errors(options["as_json"]) as output:
        if offset >= every:
            raise _usage(f"--offset must be below --every, which is {every}.")
        settings = read_settings()
        stored, sharpes = run_on_database(settings, _read)
        used = _configured(stored, options["configuration"], options["changes"])
        try:
            history = read_history(options["file"], options["venue"])
            costs = TradingCosts(options["fee_bp"], options["spread_bp"])
            boards = BoardSeries.of(history, used, shipped_sectors(), costs)
            rows = _rows(boards, options["begin"], options["end"], every, offset)
            disasters = [_disaster(one, history) for one in options["disasters"]]
            wanted = EvidenceOptions(
                rows, options["all_offsets"], options["draws"], options["seed"]
            )
            evidence = gather_evidence(
                boards,
                wanted,
                sharpes,
                lambda step: output.notes.print(f"{step} ...", markup=False),
            )
        except ValueError as error:
            raise _usage(f"{error}.") from None
        audits = [audit_disaster(boards, evidence.run, *one) for one in disasters]
        trial = _create_trial(history, used, costs, wanted, evidence)
        run_on_database(settings, lambda database: _log(database, trial))
        if options["steps"] is not None:
            write_steps(options["steps"], evidence.run)
        if output.as_json:
            found = [_audit_document(one) for one in audits]
            output.print_document({"trial_id": trial.id, **trial.result, "disasters": found})
            return
        print_report(evidence.report, output)
        if audits:
            shown = [_audit_row(one) for one in audits]
            output.console.print(create_table("disasters", _AUDIT_COLUMNS, shown))
        output.notes.print(f"logged as trial {trial.id}", markup=False)


def validate_scores(options: Mapping[str, Any]) -> None:
    """Prints the cards of composite and factors."""
    with report_errors(options["as_json"]) as output:
        stored, sharpes = run_on_database(read_settings(), _read)
        used = _configured(stored, options["configuration"], options["changes"])
        try:
            history = read_history(options["file"], options["venue"])
            boards = BoardSeries.of(history, used, shipped_sectors(), TradingCosts())
            rows = _rows(boards, options["begin"], options["end"], 1, 0)
            cards = validate_factors(
                boards,
                rows.first_row,
                rows.last_row,
                options["periods"],
                len(sharpes),
                options["horizon"],
            )
        except ValueError as error:
            raise _usage(f"{error}.") from None
        if output.as_json:
            output.print_document({"history": history.name, "items": [*map(_card_document, cards)]})
            return
        first, last = (history.closed_at(row) for row in (rows.first_row, rows.last_row))
        columns = ("score", "label", "IC>", *(f"t {n}>" for n in range(1, options["periods"] + 1)),
                   "spread bp a day>", "turnover>")  # fmt: skip
        title = f"{first:%Y-%m-%d} to {last:%Y-%m-%d}, {len(sharpes)} trials so far"
        output.console.print(create_table(title, columns, [_card_row(one) for one in cards]))


def _card_document(card: FactorCard) -> dict[str, Any]:
    return {
        "name": card.name,
        "label": card.label.value,
        "ic": card.mean_ic,
        "trials": card.trials,
        "periods": [evidence_document(one) for one in card.periods],
    }


def _card_row(card: FactorCard) -> tuple[object, ...]:
    spreads = [one.spread.mean for one in card.periods]
    turnovers = [one.turnover for one in card.periods]
    spread, turnover = _mean(spreads), _mean(turnovers)
    return (
        card.name,
        card.label.value,
        format_number(card.mean_ic),
        *(format_number(one.ic.t, 1) for one in card.periods),
        format_number(None if spread is None else spread * 10_000.0, 1),
        _percent(turnover),
    )


def _mean(values: list[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


async def _read(database: Database) -> tuple[Configuration, list[float]]:
    async with database.read() as unit:
        trials = await unit.get(TrialRepository).all()
        stored = await unit.get(ConfigurationRepository).current()
    return stored, [one.sharpe for one in trials if one.sharpe is not None]


async def _log(database: Database, trial: Trial) -> None:
    async with database.write() as unit:
        await unit.get(TrialRepository).add(trial)


def _configured(stored: Configuration, file: Path | None, changes: list[str]) -> Configuration:
    """Stored settings with those of a JSON file and single changes. Raises CommandError."""
    wanted: dict[str, Any] = {}
    if file is not None:
        try:
            wanted = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            raise _usage(f"{file.name} is not a JSON document.") from None
        if not isinstance(wanted, dict):
            raise _usage(f"{file.name} must be a JSON object of settings.")
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise _usage(f"--set takes KEY=VALUE, such as replacement.confirmations=2: {change!r}.")
        _put(wanted, key.split("."), _parse(text))
    wanted.pop("version", None)
    try:
        return validate(wanted, stored) if wanted else stored
    except ConfigurationRefusedError as error:
        raise CommandError(ExitCode.USAGE, error.code, error.detail) from None


def _put(document: dict[str, Any], path: list[str], value: object) -> None:
    for name in path[:-1]:
        inner = document.setdefault(name, {})
        if not isinstance(inner, dict):
            raise _usage(f"{name} is a value, not a section.")
        document = inner
    document[path[-1]] = value


def _parse(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _rows(
    boards: BoardSeries, begin: str | None, end: str | None, every: int, offset: int
) -> BacktestOptions:
    """Rows of the days; by default from the first day with ten eligible listings."""
    history = boards.history
    able = boards.first_row
    if able is None:
        raise ValueError("no day of this history has ten eligible listings")
    first = able if begin is None else history.row_from(_day(begin))
    last = history.rows - 1 if end is None else history.row_from(_day(end) + timedelta(days=1)) - 1
    if first >= last:
        raise ValueError("the period is empty: --from must lie before --to, within the history")
    return BacktestOptions(max(first, able), last, every, offset)


def _day(text: str) -> datetime:
    try:
        return datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
    except ValueError:
        raise ValueError(f"{text!r} is no day such as 2024-01-31") from None


_AUDIT_COLUMNS = (
    "listing", "day", "rank 30 days before>", "7>", "1>", "weight>", "fall in 7 days>",
    "cost of equity>",
)  # fmt: skip


def _disaster(text: str, history: CandleHistory) -> tuple[str, date]:
    listing, equals, day = text.partition("=")
    if not equals or listing not in history.symbols:
        raise ValueError(f"--disaster takes LISTING=DAY of a listing of the file: {text!r}")
    return listing, _day(day).date()


def _audit_document(one: DisasterAudit) -> dict[str, Any]:
    ranks = {
        str(days): None if rank is None else {"rank": rank[0], "of": rank[1]}
        for days, rank in one.ranks.items()
    }
    return {
        "listing": one.listing,
        "day": str(one.day),
        "ranks": ranks,
        "held_weight": one.held_weight,
        "fall": one.fall,
        "cost": one.cost,
    }


def _audit_row(one: DisasterAudit) -> tuple[object, ...]:
    ranks = [None if rank is None else f"{rank[0]} of {rank[1]}" for rank in one.ranks.values()]
    weight = None if one.held_weight is None else f"{one.held_weight:.1f} %"
    return (one.listing, str(one.day), *ranks, weight, _percent(one.fall), _percent(one.cost))


def _create_trial(
    history: CandleHistory,
    used: Configuration,
    costs: TradingCosts,
    options: EvidenceOptions,
    evidence: Evidence,
) -> Trial:
    moments = ReturnMoments.of(evidence.run.returns)
    document = as_document(used)
    return Trial(
        id=new_id(),
        ran_at=utc_now(),
        kind="backtest",
        history=history.name,
        data_hash=history.data_hash,
        code_version=code_version(),
        parameters={
            "first_day": str(evidence.report.first_day),
            "last_day": str(evidence.report.last_day),
            "every": options.run.every,
            "offset": options.run.offset,
            "all_offsets": options.all_offsets,
            "draws": options.draws,
            "seed": options.seed,
            "horizon": options.horizon,
            "costs": asdict(costs),
            "configuration": document,
        },
        sharpe=None if moments is None else moments.sharpe,
        result=report_document(evidence.report),
    )


def report_document(report: BacktestReport) -> dict[str, Any]:
    """JSON form of a report."""
    band = report.random
    return {
        "headline": list(report.headline()),
        "judgement": report.judgement(),
        "suspicions": list(report.suspicions()),
        "first_day": str(report.first_day),
        "last_day": str(report.last_day),
        "listings": report.listings,
        "died": report.died,
        "trials": report.trials,
        "sharpe": report.sharpe,
        "deflated_sharpe": report.deflated_sharpe,
        "swaps": report.swaps,
        "funding_coverage": report.funding_coverage,
        "product": _figures_document(report.product),
        "offsets": [_figures_document(one) for one in report.offsets],
        "market": _figures_document(report.market),
        "baselines": [_figures_document(one) for one in report.baselines],
        "random": None if band is None else asdict(band),
        "composite": evidence_document(report.evidence),
        "low_volatility": evidence_document(report.low_volatility),
        "factors": {name: evidence_document(one) for name, one in report.factors.items()},
        "monthly": {f"{y}-{m:02d}": value for (y, m), value in sorted(report.monthly.items())},
    }


def _figures_document(one: PortfolioFigures) -> dict[str, Any]:
    figures = one.figures
    return {
        "name": one.name,
        "sharpe": figures.sharpe,
        "growth_a_year": one.growth_a_year,
        "growth": figures.growth,
        "max_drawdown": figures.max_drawdown,
        "turnover": one.turnover,
    }


def evidence_document(one: ScoreEvidence) -> dict[str, Any]:
    """JSON form of the evidence of a score."""
    return {
        "ic": one.ic.mean,
        "ic_t": one.ic.t,
        "days": one.ic.count,
        "icir": one.icir,
        "hit_rate": one.hit_rate,
        "spread": one.spread.mean,
        "spread_t": one.spread.t,
        "top_excess": one.top_excess.mean,
        "top_excess_t": one.top_excess.t,
        "monotonicity": one.monotonicity,
        "quantile_means": list(one.quantile_means),
        "decay": {str(start): value for start, value in one.decay},
        "autocorrelation": {str(lag): value for lag, value in one.autocorrelation},
        "turnover": one.turnover,
        "coverage": one.coverage,
    }


def print_report(report: BacktestReport, output: Output) -> None:
    """Prints the headline and the tables of a report."""
    for line in report.headline():
        output.console.print(line, markup=False)
    output.console.print(_portfolios(report))
    scores: Mapping[str, ScoreEvidence] = {
        "composite": report.evidence,
        "low volatility alone": report.low_volatility,
        **report.factors,
    }
    columns = ("score", "IC>", "t>", "spread bp a day>", "t>", "turnover>", "coverage>")
    output.console.print(
        create_table(
            f"foretold returns of {report.evidence.horizon} days",
            columns,
            [_evidence_row(name, one) for name, one in scores.items()],
        )
    )
    known = report.funding_coverage
    funding = "unknown" if known is None else f"known for {known:.0%} of the position days"
    output.console.print(
        f"{report.swaps} swaps; deflated Sharpe {format_number(report.deflated_sharpe, 2)}; "
        f"funding {funding}.",
        markup=False,
    )


def _portfolios(report: BacktestReport) -> Table:
    rows = [
        (
            one.name,
            format_number(one.figures.sharpe, 2),
            _percent(one.growth_a_year),
            _percent(None if one.figures.max_drawdown is None else -one.figures.max_drawdown),
            f"{one.turnover:.1f}",
        )
        for one in (*report.offsets, report.market, *report.baselines)
    ]
    band = report.random
    if band is not None:
        text = f"{band.mean:.2f} [{band.low:.2f}, {band.high:.2f}]"
        rows.append((f"random tens, {band.draws} draws: mean [5 %, 95 %]", text, "", "", ""))
    columns = ("portfolio", "Sharpe>", "growth a year>", "drawdown>", "turnover a year>")
    return create_table("after costs", columns, rows)


def _evidence_row(name: str, one: ScoreEvidence) -> tuple[object, ...]:
    spread = None if one.spread.mean is None else one.spread.mean * 10_000.0
    return (
        name,
        format_number(one.ic.mean),
        format_number(one.ic.t, 1),
        format_number(spread, 1),
        format_number(one.spread.t, 1),
        _percent(one.turnover),
        _percent(one.coverage),
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value * 100.0:.1f} %"


def write_steps(path: Path, run: BacktestRun) -> None:
    """Writes date, value, return and changes of each day as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("date", "portfolio_value", "daily_return", "portfolio_changes"))
        for one in run.steps:
            changes = {name: list(weights) for name, weights in one.portfolio_changes.items()}
            rows.writerow(
                (
                    one.date.isoformat().replace("+00:00", "Z"),
                    f"{one.portfolio_value:.6f}",
                    "" if one.daily_return is None else f"{one.daily_return:.10f}",
                    json.dumps(changes, sort_keys=True) if changes else "",
                )
            )


def _usage(detail: str) -> CommandError:
    return CommandError(ExitCode.USAGE, "invalid_argument", detail)
