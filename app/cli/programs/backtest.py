"""Program of `my-symbols backtest`: runs, prints and logs one trial."""

import csv
import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from rich.table import Table

from app.cli.exit_codes import CommandError, ExitCode
from app.cli.output import Output, create_table, format_number, report_errors
from app.cli.programs.settings import read_settings
from app.cli.programs.trials import run_on_database
from app.configuration.domain.document import ConfigurationRefusedError, validate
from app.configuration.domain.model import Configuration
from app.configuration.storage.configuration import ConfigurationRepository
from app.container import plugins
from app.container.runtime_values import code_version, new_id, utc_now
from app.foundation.sql.database import Database
from app.market.services.symbol_registry import shipped_sectors
from app.research.domain.factor_cards import FactorCard
from app.research.domain.report import BacktestReport, DisasterAudit
from app.research.domain.report_document import card_document
from app.research.domain.trials import Trial
from app.research.domain.validation import MIN_NAMES, ScoreEvidence
from app.research.services.backtest import BacktestRun, BoardSeries
from app.research.services.evidence import (
    validate_factors,
)
from app.research.services.factor_evidence import require_version, store_cards
from app.research.services.historical_market import TradingCosts
from app.research.services.history_files import read_history
from app.research.services.trials import TrialRequest, run_trial, select_rows
from app.research.storage.trials import TrialRepository
from app.scoring.domain.algorithm import build_algorithm
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.factor_evidence import FactorEvidence


def run(options: Mapping[str, Any]) -> None:
    """Runs one backtest, logs it as a trial and prints its report.

    `options` are those of the command by name.
    """
    with report_errors(options["as_json"]) as output:
        settings = read_settings()
        stored, sharpes = run_on_database(settings, _read)
        used = _configured(stored, options["configuration"], options["changes"])
        try:
            request = _read_request(options)
            history = read_history(options["file"], options["venue"])
            boards = BoardSeries.of(history, used, shipped_sectors(), request.costs)
            found = run_trial(
                boards,
                used,
                request,
                new_id(),
                utc_now,
                code_version(),
                sharpes,
                lambda step: output.notes.print(f"{step} ...", markup=False),
            )
        except ValueError as error:
            raise _usage(f"{error}.") from None
        run_on_database(settings, lambda database: _log(database, found.trial))
        if options["steps"] is not None:
            write_steps(options["steps"], found.evidence.run)
        if output.as_json:
            output.print_document({"trial_id": found.trial.id, **found.trial.result})
            return
        print_report(found.evidence.report, output)
        if found.disasters:
            shown = [_disaster_row(one) for one in found.disasters]
            output.console.print(create_table("disasters", _AUDIT_COLUMNS, shown))
        output.notes.print(f"logged as trial {found.trial.id}", markup=False)


def _read_request(options: Mapping[str, Any]) -> TrialRequest:
    if options["offset"] >= options["every"]:
        raise ValueError(f"--offset must be below --every, which is {options['every']}")
    return TrialRequest(
        first_day=_day(options["begin"]),
        last_day=_day(options["end"]),
        every=options["every"],
        offset=options["offset"],
        all_offsets=options["all_offsets"],
        draws=options["draws"],
        seed=options["seed"],
        costs=TradingCosts(options["fee_bp"], options["spread_bp"]),
        disasters=tuple(_disaster(one) for one in options["disasters"]),
    )


def _day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no day such as 2024-01-31") from None


def validate_scores(options: Mapping[str, Any]) -> None:
    """Prints the cards of composite, families and factors, and stores them on request."""
    with report_errors(options["as_json"]) as output:
        settings = read_settings()
        stored, sharpes = run_on_database(settings, _read)
        used = _configured(stored, options["configuration"], options["changes"])
        spec, in_force = (build_algorithm(one, plugins.factors()) for one in (used, stored))
        try:
            if options["is_stored"]:
                run_on_database(settings, lambda one: _require_version(one, spec, in_force))
            history = read_history(options["file"], options["venue"])
            boards = BoardSeries.of(history, used, shipped_sectors(), TradingCosts())
            rows = select_rows(boards, _day(options["begin"]), _day(options["end"]), 1, 0)
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
        evidence: tuple[FactorEvidence, ...] = ()
        if options["is_stored"]:
            period = range(rows.first_row, rows.last_row + 1)

            async def store(database: Database) -> tuple[FactorEvidence, ...]:
                async with database.write() as unit:
                    return await store_cards(unit, spec, cards, history, period, utc_now())

            evidence = run_on_database(settings, store)
            version = evidence[0].measurement.algorithm_version
            output.notes.print(
                f"stored as the evidence of version {version} of {spec.name}", markup=False
            )
        if output.as_json:
            items = [*map(card_document, cards)]
            document = {"history": history.name, "stored": len(evidence), "items": items}
            output.print_document(document)
            return
        first, last = (history.closed_at(row) for row in (rows.first_row, rows.last_row))
        columns = ("score", "label", "IC>", *(f"t {n}>" for n in range(1, options["periods"] + 1)),
                   "spread bp a day>", "turnover>")  # fmt: skip
        title = f"{first:%Y-%m-%d} to {last:%Y-%m-%d}, {len(sharpes)} trials so far"
        output.console.print(create_table(title, columns, [_card_row(one) for one in cards]))


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


async def _require_version(
    database: Database, spec: AlgorithmSpec, in_force: AlgorithmSpec
) -> None:
    async with database.read() as unit:
        await require_version(unit, spec, in_force)


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


_TARGET_COLUMNS = ("claim", "target>", "measured>", "also reached by")
_AUDIT_COLUMNS = (
    "listing", "day", "rank 30 days before>", "7>", "1>", "weight>", "fall in 7 days>",
    "cost of equity>",
)  # fmt: skip


def _disaster(text: str) -> tuple[str, date]:
    listing, equals, day = text.partition("=")
    fallen = _day(day) if equals else None
    if fallen is None:
        raise ValueError(f"--disaster takes LISTING=DAY of a listing of the file: {text!r}")
    return listing, fallen


def _disaster_row(one: DisasterAudit) -> tuple[object, ...]:
    ranks = [None if rank is None else f"{rank[0]} of {rank[1]}" for rank in one.ranks.values()]
    weight = None if one.held_weight is None else f"{one.held_weight:.1f} %"
    return (one.listing, str(one.day), *ranks, weight, _percent(one.fall), _percent(one.cost))


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
    output.console.print(_describe_permutation(report), markup=False)
    output.console.print(_targets(report))
    for limit in report.var_limits:
        unknown = f", unknown for {limit.unknown}" if limit.unknown else ""
        output.console.print(
            f"value at risk a day above {limit.limit:.0%}: {limit.exceeded} of {limit.decisions} "
            f"decisions{unknown}.",
            markup=False,
        )
    known = report.funding_coverage
    funding = "unknown" if known is None else f"known for {known:.0%} of the position days"
    output.console.print(
        f"{report.swaps} swaps; deflated Sharpe {format_number(report.deflated_sharpe, 2)}; "
        f"funding {funding}.",
        markup=False,
    )


def _describe_permutation(report: BacktestReport) -> str:
    found, horizon = report.permutation, report.evidence.horizon
    if found is None:
        return f"permutation test: unknown, no day has {MIN_NAMES} scores with a later return."
    return (
        f"permutation test: mean IC {found.mean_ic:.3f} of {found.days} days, {horizon} apart; "
        f"p {found.p_value:.4f} by {found.permutations} permutations of the scores "
        f"(95 % of them below {found.high:.3f})."
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


def _targets(report: BacktestReport) -> Table:
    rows = [
        (
            one.name,
            format_number(one.target, 2),
            format_number(one.measured, 2),
            ", ".join(one.reached_by) or "no baseline",
        )
        for one in report.targets()
    ]
    return create_table("targets of the customer", _TARGET_COLUMNS, rows)


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
