"""The report as a page: which figures, plots and tables an operator reads, in plain words."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from app.performance.api.report_page import Page, Plot, Series, Table
from app.performance.domain.attribution import Attribution
from app.performance.domain.brinson import ActiveReturn
from app.performance.domain.replacement_outcomes import SwapOutcome
from app.performance.services.report import Report
from app.portfolio.domain.returns import Figures

UNKNOWN = "unknown"


def page_of(report: Report) -> Page:
    """Every unknown figure says so, with its reason where there is one."""
    last = report.days[-1] if report.days else None
    why = "" if last is None or last.reason is None else f" ({last.reason})"
    made = report.figures
    sharpe = None if made.sharpe is None else f"{made.sharpe:.2f}"
    if sharpe is not None and made.sharpe_standard_error is not None:
        sharpe = f"{sharpe} (standard error {made.sharpe_standard_error:.2f})"
    ratio = UNKNOWN if made.reason is None else f"{UNKNOWN} ({made.reason})"
    figures = (
        ("Sortino", made.sortino),
        ("Calmar", made.calmar),
        ("Profit factor", made.profit_factor),
    )
    facts = (
        ("Made at", _time(report.made_at)),
        ("Portfolio version", str(report.version)),
        ("Data", f"{report.facts.data_source.value}, {report.facts.data_status.value}"),
        ("Equity (index, 1 at the start)", f"{_money(last.equity if last else None)}{why}"),
        ("Growth", _share(made.growth)),
        ("Deepest fall", _share(made.max_drawdown)),
        ("Sharpe", sharpe or ratio),
        *((name, ratio if value is None else f"{value:.2f}") for name, value in figures),
        ("Days with a gain", ratio if made.win_rate is None else _share(made.win_rate)),
        ("Daily returns behind these", str(made.observations)),
        *(
            (
                f"Mark of {one.symbol} at {_time(one.at)}",
                f"unknown then; {one.price:f} is the close of its hour from {_time(one.opened_at)}",
            )
            for one in report.late_marks
        ),
    )
    ledgers = (*map(_ledger, report.ledgers), _active(report.active))
    tables = (_positions(report), *ledgers, _swaps(report), _hypothetical(report.hypothetical))
    swaps = (plot for outcome in report.swaps for plot in _swap_plot(outcome))
    return Page(
        "Portfolio report",
        facts,
        (*_curves(report), *tables, *swaps, _trades(report)),
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
        ("Symbol", "Weight", "Since inclusion", "Deepest fall", "Volatility", "Booked", "Note"),
        tuple(
            (
                one.member.symbol,
                f"{one.member.weight_u / 1_000_000:.2f} %",
                _share(one.figures.performance),
                _share(one.figures.max_drawdown),
                _share(one.figures.volatility),
                "none" if one.realized is None else f"{one.realized:f} {one.currency}",
                one.reason or "",
            )
            for one in report.positions
        ),
        "Weights of record; figures of the price since each member came in.",
    )


def _ledger(ledger: Attribution) -> Table:
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
        f"Who earned what: {ledger.basis.value}, {ledger.unit}",
        ("Symbol or sector", "Sector", "Price P&L", "Funding", "Fees", "Contribution"),
        rows,
        f"{period}change of equity {_money(ledger.change)}, to which the symbols, and again the"
        f" sectors, add up.{why}",
    )


def _active(made: ActiveReturn) -> Table:
    period = (
        f"{_time(made.start_at)} to {_time(made.end_at)}; " if made.start_at and made.end_at else ""
    )
    returns = (
        f"portfolio {_exact(made.portfolio)}, universe {_exact(made.universe)}, difference"
        f" {_exact(made.active)}, to which all effects add up."
        if made.reason is None
        else f"Unknown: {made.reason}."
    )
    return Table(
        "Why it was not what the market earned",
        ("Sector", "Weight", "In the universe", "Allocation", "Selection", "Interaction"),
        tuple(
            (
                one.sector,
                _exact(one.weight),
                _exact(one.universe_weight),
                _exact(one.allocation),
                _exact(one.selection),
                _exact(one.interaction),
            )
            for one in made.sectors
        ),
        f"{period}{returns} The universe is all symbols, weighing the same.",
    )


def _swaps(report: Report) -> Table:
    verdict = {True: "yes", False: "no", None: UNKNOWN}
    return Table(
        "Did each replacement pay?",
        ("Swap", "At", "D (z)", "Old since", "New since", "Difference", "Net", "Paid", "Note"),
        tuple(
            (
                f"{one.old} to {one.new}",
                _time(one.at),
                UNKNOWN if one.threshold_z is None else f"{one.threshold_z:.2f}",
                _share(one.old_return),
                _share(one.new_return),
                _share(one.difference),
                _share(one.net),
                verdict[one.outperformed],
                one.net_reason or "; ".join(_notes(one)),
            )
            for one in report.swaps
        ),
        "Prices since the swap; net of fees, spread and funding.",
    )


def _notes(outcome: SwapOutcome) -> Iterable[str]:
    if outcome.ended_at is not None:
        yield f"left {_time(outcome.ended_at)}"
    for name in outcome.delisted:
        yield f"{name} is delisted, its last price stands"


def _hypothetical(made: Figures) -> Table:
    ratio = UNKNOWN if made.reason is None else f"{UNKNOWN} ({made.reason})"

    def told(value: float | None) -> str:
        return ratio if value is None else f"{value:.2f}"

    return Table(
        "Hypothetical: not earned",
        ("Figure", "Value"),
        (
            ("Days", str(made.observations)),
            ("Growth", _share(made.growth)),
            ("Deepest fall", _share(made.max_drawdown)),
            ("Sharpe", told(made.sharpe)),
            ("Sortino", told(made.sortino)),
            ("Calmar", told(made.calmar)),
        ),
        "Today's members at today's weights over the past. They were chosen knowing it, and nobody"
        " held them then: this is no performance.",
    )


def _swap_plot(outcome: SwapOutcome) -> Iterable[Plot]:
    if len(outcome.path) > 1:
        yield Plot(
            f"{outcome.old} against {outcome.new} since the swap",
            _time(outcome.at),
            _time(outcome.path[-1].at),
            (
                Series(outcome.old, (0.0, *(one.old for one in outcome.path))),
                Series(outcome.new, (0.0, *(one.new for one in outcome.path))),
            ),
        )


def _trades(report: Report) -> Table:
    return Table(
        "Recent trades",
        ("Trade", "Symbol", "Occurred", "P&L", "Fees", "Funding", "Net"),
        tuple(
            (
                one.result.trade_id,
                one.result.symbol,
                _time(one.result.occurred_at),
                f"{one.result.pnl:f} {one.result.currency}",
                f"{one.result.fees:f}",
                f"{one.result.funding:f}",
                f"{one.result.net:f}",
            )
            for one in report.trades
        ),
        "Last booked first.",
    )


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")


def _money(amount: Decimal | None) -> str:
    return UNKNOWN if amount is None else f"{amount:.6f}"


def _exact(share: Decimal | None) -> str:
    return UNKNOWN if share is None else f"{share:.4%}"


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2%}"
