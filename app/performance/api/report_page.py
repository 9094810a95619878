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

from app.performance.domain.attribution import (
    ActiveReturn,
    Attribution,
    AttributionLine,
    AttributionMethod,
)
from app.performance.domain.equity_curve import Day
from app.performance.domain.replacement_outcomes import ReplacementOutcome
from app.performance.domain.tear_sheet import MonthReturn, year_return
from app.performance.services.report import Report
from app.performance.services.service import PositionPerformance
from app.portfolio.domain.models import FULL
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
    """Table of text cells with an optional note above it; `empty` replaces it without rows."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str
    empty: str = "None in the period."


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
    """Content of the page; an unknown figure reads `unknown` or `undefined`, with its reason."""
    last = report.days[-1] if report.days else None
    measured = report.figures
    facts = (
        ("Created at", _time(report.created_at)),
        ("Portfolio version", str(report.version)),
        ("Data", f"{report.facts.data_source.value}, {report.facts.data_status.value}"),
        ("Period", _period(report)),
        (
            "Equity (index, 1 at the start)",
            _money(last.equity) if last and last.equity is not None else _unknown(_no_equity(last)),
        ),
        ("Cumulative return", _percent(measured.growth, _NO_CURVE)),
        ("Maximum drawdown", _max_drawdown(report)),
        *_ratios(measured),
        ("Best day", _extreme_day(report.days, largest=True)),
        ("Worst day", _extreme_day(report.days, largest=False)),
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
        _monthly(report.months),
        _drawdowns(report),
        _positions(report),
        *(table for ledger in report.ledgers for table in _attribution(ledger)),
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


_NO_CURVE: Final = "fewer than two known values of the equity"
_NO_DAYS: Final = "fewer than two days on which all members have a return"
_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
_MAX_DRAWDOWNS: Final = 5


def _period(report: Report) -> str:
    if not report.days:
        return _unknown("there has been no member")
    return f"{_time(report.days[0].at)} to {_time(report.days[-1].at)}"


def _no_equity(last: Day | None) -> str | None:
    return "there has been no member" if last is None else last.reason


def _max_drawdown(report: Report) -> str:
    """Largest drawdown with the dates of its peak, valley and recovery."""
    text = _percent(report.figures.max_drawdown, _NO_CURVE)
    if not report.drawdowns:
        return text
    worst = report.drawdowns[0]
    recovery = "not recovered" if worst.recovered_at is None else f"to {_day(worst.recovered_at)}"
    return f"{text} ({_day(worst.peak_at)}, valley {_day(worst.valley_at)}, {recovery})"


def _ratios(figures: Figures) -> tuple[tuple[str, str], ...]:
    """Ratios of daily returns; with enough of them an undefined one has no divisor."""
    sharpe = _ratio(figures, figures.sharpe, "returns do not vary")
    if figures.sharpe is not None and figures.sharpe_standard_error is not None:
        sharpe = f"{sharpe} (standard error {figures.sharpe_standard_error:.2f})"
    return (
        ("Sharpe", sharpe),
        ("Sortino", _ratio(figures, figures.sortino, "no return below zero")),
        ("Calmar", _ratio(figures, figures.calmar, "no drawdown")),
        ("Profit factor", _ratio(figures, figures.profit_factor, "no return below zero")),
        ("Days with a gain", _percent(figures.win_rate, figures.reason)),
    )


def _ratio(figures: Figures, value: float | None, undefined: str) -> str:
    if value is not None:
        return f"{value:.2f}"
    return f"undefined ({undefined})" if figures.reason is None else _unknown(figures.reason)


def _extreme_day(days: Sequence[Day], *, largest: bool) -> str:
    """Largest or smallest return between two valuations, and its end; ties: the earliest."""
    known = [(day.change, day.at) for day in days if day.change is not None]
    if not known:
        return _unknown(_NO_CURVE)
    change, at = min(known, key=lambda one: (-one[0] if largest else one[0], one[1]))
    return f"{_percent(change)} (to {_time(at)})"


def _monthly(months: Sequence[MonthReturn]) -> Table:
    by_month = {(one.year, one.month): one for one in months}
    years = sorted({one.year for one in months})

    def cell(year: int, month: int) -> str:
        known = by_month.get((year, month))
        return "" if known is None else _percent(known.value)

    return Table(
        "Monthly returns",
        ("Year", *_MONTHS, "Year to date"),
        tuple(
            (
                str(year),
                *(cell(year, month) for month in range(1, 13)),
                _percent(year_return(months, year)),
            )
            for year in years
        ),
        "Calendar months in UTC; the first and the last one may be partial. A month without a known"
        " value is unknown, and the next one holds its return, too.",
        f"Unknown: {_NO_CURVE}.",
    )


def _drawdowns(report: Report) -> Table:
    end = report.days[-1].at if report.days else None
    return Table(
        "Largest drawdowns",
        ("Depth", "Peak", "Valley", "Recovery", "Days"),
        tuple(
            (
                _percent(one.depth),
                _day(one.peak_at),
                _day(one.valley_at),
                "not yet" if one.recovered_at is None else _day(one.recovered_at),
                _days(one.peak_at, one.recovered_at or end),
            )
            for one in report.drawdowns[:_MAX_DRAWDOWNS]
        ),
        "From the peak to the time at which it was reached again, or to the end of the period.",
        "None: the equity never fell below a former value."
        if report.figures.max_drawdown is not None
        else f"Unknown: {_NO_CURVE}.",
    )


def _days(since: datetime, until: datetime | None) -> str:
    return UNKNOWN if until is None else f"{(until - since).total_seconds() / 86_400:.1f}"


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
        ("Symbol", "Weight", "By price", "Booked", "Maximum drawdown", "Volatility", "Note"),
        tuple(
            (
                position.member.symbol,
                _percent(position.member.weight_u / FULL),
                _percent(position.figures.performance),
                "none"
                if position.booked is None
                else f"{position.booked.net:f} {position.booked.currency}",
                _percent(position.figures.max_drawdown),
                _percent(position.figures.volatility),
                "; ".join(_position_notes(position)),
            )
            for position in report.positions
        ),
        "Recorded weights; price figures and booked results since the inclusion of each member.",
        "The portfolio has no member.",
    )


def _position_notes(position: PositionPerformance) -> Iterable[str]:
    """Reasons for unknown figures of a position."""
    figures, member = position.figures, position.member
    if position.reason is not None:
        yield position.reason
    if figures.performance is None:
        no_start = member.inclusion_price is None
        yield "its price at inclusion is unknown" if no_start else "its price is not comparable"
    if figures.max_drawdown is None or figures.volatility is None:
        yield "too few closes since inclusion"


def _attribution(ledger: Attribution) -> tuple[Table, Table]:
    """One table by symbol and one by sector; both add up to the change of the equity."""
    period = (
        f"{_time(ledger.start_at)} to {_time(ledger.end_at)}; "
        if ledger.start_at and ledger.end_at
        else ""
    )
    why = f" Note: {ledger.reason}." if ledger.reason else ""
    note = (
        f"{period}change of equity {_money(ledger.change, ledger.reason)}, to which the lines add"
        f" up.{why}"
    )
    empty = "No line" + ("." if ledger.reason is None else f": {ledger.reason}.")
    head = ("Weight", "Price P&L", "Funding", "Fees", "Contribution", "Of equity")
    kind = f"{ledger.basis.value}, {ledger.unit}"
    return (
        Table(
            f"Attribution by symbol: {kind}",
            ("Symbol", "Sector", *head),
            tuple((one.name, one.sector, *_line(one, ledger)) for one in ledger.symbols),
            note,
            empty,
        ),
        Table(
            f"Attribution by sector: {kind}",
            ("Sector", *head),
            tuple((one.name, *_line(one, ledger)) for one in ledger.sectors),
            note,
            empty,
        ),
    )


def _line(line: AttributionLine, ledger: Attribution) -> tuple[str, ...]:
    """Cells of one line; booked amounts are no part of the equity, so they have no share of it."""
    start = ledger.start
    is_share = ledger.basis is AttributionMethod.INDEX and start is not None and start > 0
    return (
        "left" if line.weight_u is None else _percent(line.weight_u / FULL),
        _money(line.price_pnl),
        "not in it" if line.funding is None else _money(line.funding),
        "not in it" if line.fees is None else _money(line.fees),
        _money(line.contribution),
        _percent(line.contribution / start) if is_share and start else "not in it",
    )


def _active_return(active: ActiveReturn) -> Table:
    period = (
        f"{_time(active.start_at)} to {_time(active.end_at)}; "
        if active.start_at and active.end_at
        else ""
    )
    returns = (
        f"portfolio {_percent(active.portfolio)}, universe {_percent(active.universe)}, difference"
        f" {_percent(active.active)}, to which all effects add up before rounding."
        if active.reason is None
        else f"Unknown: {active.reason}."
    )
    return Table(
        "Active return by sector",
        ("Sector", "Weight", "In the universe", "Allocation", "Selection", "Interaction"),
        tuple(
            (
                row.sector,
                _percent(row.weight),
                _percent(row.universe_weight),
                _percent(row.allocation),
                _percent(row.selection),
                _percent(row.interaction),
            )
            for row in active.sectors
        ),
        f"{period}{returns} The universe is all symbols, weighing the same.",
        "No sector.",
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
                "not compared" if outcome.threshold_z is None else f"{outcome.threshold_z:.2f}",
                _percent(outcome.old_return),
                _percent(outcome.new_return),
                _percent(outcome.difference),
                _percent(outcome.net),
                paid[outcome.outperformed],
                "; ".join(dict.fromkeys(_notes(outcome))),
            )
            for outcome in report.replacements
        ),
        "Prices since the replacement; net of fees, spread and funding. A requested replacement was"
        " not compared with a threshold D.",
        "No replacement in the period.",
    )


def _notes(outcome: ReplacementOutcome) -> Iterable[str]:
    if outcome.reason is not None:
        yield outcome.reason
    if outcome.net_reason is not None:
        yield outcome.net_reason
    if outcome.ended_at is not None:
        yield f"left {_time(outcome.ended_at)}"
    for name in outcome.delisted:
        yield f"{name} is delisted; its last price is used"


def _correlation(known: CorrelationReport) -> Table:
    no_average = "no pair with enough history" if known.average is None else ""
    average = ("Average", _rho(known.average), _rho(known.raw_average), no_average)
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
        "Unknown: there are fewer than two members.",
    )


def _hypothetical(figures: Figures) -> Table:
    return Table(
        "Hypothetical: not earned",
        ("Figure", "Value"),
        (
            ("Days", str(figures.observations)),
            ("Cumulative return", _percent(figures.growth, _NO_DAYS)),
            ("Maximum drawdown", _percent(figures.max_drawdown, _NO_DAYS)),
            *_ratios(figures)[:3],
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
        "No result was booked in the period.",
    )


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")


def _day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d")


def _money(amount: Decimal | None, reason: str | None = None) -> str:
    return _unknown(reason) if amount is None else f"{amount:.6f}"


def _rho(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"


def _percent(share: float | Decimal | None, reason: str | None = None) -> str:
    """A fraction as per cent with two decimals, the one style of the page; no negative zero."""
    return _unknown(reason) if share is None else f"{share:z.2%}"


def _unknown(reason: str | None) -> str:
    return UNKNOWN if reason is None else f"{UNKNOWN} ({reason})"
