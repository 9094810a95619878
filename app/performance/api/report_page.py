"""Builds the HTML page of the portfolio report from a report and one jinja2 template."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache
from itertools import groupby
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from app.performance.domain.attribution import ActiveReturn, Attribution
from app.performance.domain.replacement_outcomes import ReplacementOutcome
from app.performance.services.report import Report
from app.portfolio.domain.returns import Figures
from app.portfolio.services.queries import CorrelationReport

UNKNOWN = "unknown"
_WIDTH, _HEIGHT, _LEFT, _MARGIN = 720, 220, 56, 8
_COLOURS: Final = ("#2563eb", "#c2410c", "#15803d")


@dataclass(frozen=True, slots=True)
class Series:
    """Values of a chart in time order; None is a gap in the line."""

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Plot:
    """Line chart; `first` and `last` label the ends of its time axis."""

    title: str
    first: str
    last: str
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Table of text cells with an optional note above it."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str


@dataclass(frozen=True, slots=True)
class ReportPage:
    """Content of the report page in reading order."""

    title: str
    facts: tuple[tuple[str, str], ...]
    parts: tuple[Plot | Table, ...]


@dataclass(frozen=True, slots=True)
class DrawnLine:
    """Contiguous runs of points (x, y) of one series in SVG units."""

    name: str
    colour: str
    label_x: int
    runs: tuple[tuple[tuple[str, str], ...], ...]


@dataclass(frozen=True, slots=True)
class Drawing:
    """Geometry of a chart; `scale` has position and label of the lowest and the highest value."""

    lines: tuple[DrawnLine, ...]
    scale: tuple[tuple[str, str], ...]
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT


def render(page: ReportPage) -> str:
    """Render the page as self-contained HTML; the template escapes every text."""
    return _template().render(page=page)


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("app.performance.api"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["drawing"] = draw
    environment.tests["plot"] = lambda part: isinstance(part, Plot)
    return environment.get_template("report.html.jinja")


def draw(plot: Plot) -> Drawing | None:
    """Geometry of the chart; None where no series has a finite value."""
    known = [
        value
        for series in plot.series
        for value in series.values
        if value is not None and math.isfinite(value)
    ]
    if not known:
        return None
    low, high = min(known), max(known)
    span = high - low or abs(high) or 1.0

    def height_of(value: float) -> str:
        return f"{_HEIGHT - 32 - (value - low) / span * (_HEIGHT - 64):.1f}"

    def runs(values: Sequence[float | None]) -> Iterator[tuple[tuple[str, str], ...]]:
        step = (_WIDTH - _LEFT - 2 * _MARGIN) / max(1, len(values) - 1)
        for is_finite, run in groupby(enumerate(values), lambda point: _is_finite(point[1])):
            if is_finite:
                yield tuple(
                    (f"{_LEFT + _MARGIN + step * index:.1f}", height_of(value))
                    for index, value in run
                    if value is not None
                )

    lines = tuple(
        DrawnLine(
            series.name,
            _COLOURS[number % len(_COLOURS)],
            _LEFT + _MARGIN + 200 * number,
            tuple(runs(series.values)),
        )
        for number, series in enumerate(plot.series)
    )
    return Drawing(
        lines, tuple((height_of(value), f"{value:.4g}") for value in dict.fromkeys((low, high)))
    )


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def report_page(report: Report) -> ReportPage:
    """Content of the page; an unknown figure reads `unknown`, with its reason if there is one."""
    last = report.days[-1] if report.days else None
    why = "" if last is None or last.reason is None else f" ({last.reason})"
    measured = report.figures
    sharpe = None if measured.sharpe is None else f"{measured.sharpe:.2f}"
    if sharpe is not None and measured.sharpe_standard_error is not None:
        sharpe = f"{sharpe} (standard error {measured.sharpe_standard_error:.2f})"
    ratio = UNKNOWN if measured.reason is None else f"{UNKNOWN} ({measured.reason})"
    figures = (
        ("Sortino", measured.sortino),
        ("Calmar", measured.calmar),
        ("Profit factor", measured.profit_factor),
    )
    facts = (
        ("Created at", _time(report.created_at)),
        ("Portfolio version", str(report.version)),
        ("Data", f"{report.facts.data_source.value}, {report.facts.data_status.value}"),
        ("Equity (index, 1 at the start)", f"{_money(last.equity if last else None)}{why}"),
        ("Growth", _share(measured.growth)),
        ("Maximum drawdown", _share(measured.max_drawdown)),
        ("Sharpe", sharpe or ratio),
        *((name, ratio if value is None else f"{value:.2f}") for name, value in figures),
        ("Days with a gain", ratio if measured.win_rate is None else _share(measured.win_rate)),
        ("Daily returns behind these", str(measured.observations)),
        *(
            (
                f"Mark of {mark.symbol} at {_time(mark.at)}",
                f"unknown then; {mark.price:f} is the close of the hour {_time(mark.opened_at)}",
            )
            for mark in report.late_marks
        ),
    )
    tables = (
        _positions(report),
        *map(_attribution, report.ledgers),
        _active_return(report.active),
        _replacements(report),
        _correlation(report.correlation),
        _hypothetical(report.hypothetical),
        *_custom(report),
    )
    replacements = (plot for outcome in report.replacements for plot in _replacement_plots(outcome))
    return ReportPage(
        "Portfolio report",
        facts,
        (*_curves(report), *tables, *replacements, _trades(report)),
    )


def _curves(report: Report) -> tuple[Plot, ...]:
    days = report.days
    ends = (_time(days[0].at), _time(days[-1].at)) if days else ("", "")
    equity = tuple(None if day.equity is None else float(day.equity) for day in days)
    pnl = tuple(None if day.pnl is None else float(day.pnl) for day in days)
    return (
        Plot("Equity", *ends, (Series("index", equity),)),
        Plot("Daily P&L", *ends, (Series("index units", pnl),)),
    )


def _positions(report: Report) -> Table:
    return Table(
        "Positions",
        ("Symbol", "Weight", "Since inclusion", "Maximum drawdown", "Volatility", "Booked", "Note"),
        tuple(
            (
                position.member.symbol,
                f"{position.member.weight_u / 1_000_000:.2f} %",
                _share(position.figures.performance),
                _share(position.figures.max_drawdown),
                _share(position.figures.volatility),
                "none"
                if position.realized is None
                else f"{position.realized:f} {position.currency}",
                position.reason or "",
            )
            for position in report.positions
        ),
        "Recorded weights; price figures since the inclusion of each member.",
    )


def _attribution(ledger: Attribution) -> Table:
    lines = (*ledger.symbols, *ledger.sectors)
    rows = tuple(
        (
            line.name,
            line.sector,
            _money(line.price_pnl),
            "not in it" if line.funding is None else _money(line.funding),
            "not in it" if line.fees is None else _money(line.fees),
            _money(line.contribution),
        )
        for line in lines
    )
    period = (
        f"{_time(ledger.start_at)} to {_time(ledger.end_at)}; "
        if ledger.start_at and ledger.end_at
        else ""
    )
    why = f" Note: {ledger.reason}." if ledger.reason else ""
    return Table(
        f"Attribution: {ledger.basis.value}, {ledger.unit}",
        ("Symbol or sector", "Sector", "Price P&L", "Funding", "Fees", "Contribution"),
        rows,
        f"{period}change of equity {_money(ledger.change)}, to which the symbols, and again the"
        f" sectors, add up.{why}",
    )


def _active_return(active: ActiveReturn) -> Table:
    period = (
        f"{_time(active.start_at)} to {_time(active.end_at)}; "
        if active.start_at and active.end_at
        else ""
    )
    returns = (
        f"portfolio {_exact(active.portfolio)}, universe {_exact(active.universe)}, difference"
        f" {_exact(active.active)}, to which all effects add up."
        if active.reason is None
        else f"Unknown: {active.reason}."
    )
    return Table(
        "Active return by sector",
        ("Sector", "Weight", "In the universe", "Allocation", "Selection", "Interaction"),
        tuple(
            (
                row.sector,
                _exact(row.weight),
                _exact(row.universe_weight),
                _exact(row.allocation),
                _exact(row.selection),
                _exact(row.interaction),
            )
            for row in active.sectors
        ),
        f"{period}{returns} The universe is all symbols, weighing the same.",
    )


def _replacements(report: Report) -> Table:
    paid = {True: "yes", False: "no", None: UNKNOWN}
    return Table(
        "Replacement outcomes",
        (
            "Replacement",
            "At",
            "D (z)",
            "Old since",
            "New since",
            "Difference",
            "Net",
            "Paid",
            "Note",
        ),
        tuple(
            (
                f"{outcome.old} to {outcome.new}",
                _time(outcome.at),
                UNKNOWN if outcome.threshold_z is None else f"{outcome.threshold_z:.2f}",
                _share(outcome.old_return),
                _share(outcome.new_return),
                _share(outcome.difference),
                _share(outcome.net),
                paid[outcome.outperformed],
                outcome.net_reason or "; ".join(_notes(outcome)),
            )
            for outcome in report.replacements
        ),
        "Prices since the replacement; net of fees, spread and funding.",
    )


def _notes(outcome: ReplacementOutcome) -> Iterable[str]:
    if outcome.ended_at is not None:
        yield f"left {_time(outcome.ended_at)}"
    for name in outcome.delisted:
        yield f"{name} is delisted; its last price is used"


def _correlation(known: CorrelationReport) -> Table:
    average = ("Average", _rho(known.average), _rho(known.raw_average), "")
    pairs = tuple(
        (
            one.pair,
            "not applicable" if one.pair in known.not_applicable else _rho(one.correlation),
            _rho(one.raw_correlation),
            one.reason or "",
        )
        for one in known.pairs
    )
    return Table(
        "Correlation of the members",
        ("Pair", known.basis.capitalize(), "Raw", "Note"),
        (*pairs, average) if pairs else (),
        f"Daily returns of {known.days} days; raw returns include the market's part.",
    )


def _hypothetical(figures: Figures) -> Table:
    unknown = UNKNOWN if figures.reason is None else f"{UNKNOWN} ({figures.reason})"

    def ratio(value: float | None) -> str:
        return unknown if value is None else f"{value:.2f}"

    return Table(
        "Hypothetical: not earned",
        ("Figure", "Value"),
        (
            ("Days", str(figures.observations)),
            ("Growth", _share(figures.growth)),
            ("Maximum drawdown", _share(figures.max_drawdown)),
            ("Sharpe", ratio(figures.sharpe)),
            ("Sortino", ratio(figures.sortino)),
            ("Calmar", ratio(figures.calmar)),
        ),
        "Today's members at today's weights over the past. The members were chosen with"
        " knowledge of that past and were not held then: this is no performance.",
    )


def _custom(report: Report) -> Iterable[Table]:
    if report.custom:
        yield Table(
            "Custom figures",
            ("Figure", "Value"),
            tuple(
                (name, UNKNOWN if value is None else f"{value:.6g}")
                for name, value in report.custom.items()
            ),
            "Of installed packages, over the period of the report.",
        )


def _replacement_plots(outcome: ReplacementOutcome) -> Iterable[Plot]:
    if len(outcome.path) > 1:
        yield Plot(
            f"{outcome.old} against {outcome.new} since the replacement",
            _time(outcome.at),
            _time(outcome.path[-1].at),
            (
                Series(outcome.old, (0.0, *(moment.old for moment in outcome.path))),
                Series(outcome.new, (0.0, *(moment.new for moment in outcome.path))),
            ),
        )


def _trades(report: Report) -> Table:
    return Table(
        "Recent trades",
        ("Trade", "Symbol", "Occurred", "P&L", "Fees", "Funding", "Net"),
        tuple(
            (
                trade.result.trade_id,
                trade.result.symbol,
                _time(trade.result.occurred_at),
                f"{trade.result.pnl:f} {trade.result.currency}",
                f"{trade.result.fees:f}",
                f"{trade.result.funding:f}",
                f"{trade.result.net:f}",
            )
            for trade in report.trades
        ),
        "Last booked first.",
    )


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")


def _money(amount: Decimal | None) -> str:
    return UNKNOWN if amount is None else f"{amount:.6f}"


def _exact(share: Decimal | None) -> str:
    return UNKNOWN if share is None else f"{share:.4%}"


def _rho(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2%}"
