"""The words of the report's page, and hostile names in every place that takes a name."""

import re
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from app.foundation.data_status import DataSource, DataStatus
from app.performance.api.report_page import Table, render, report_page
from app.performance.domain.attribution import (
    ActiveReturn,
    Attribution,
    AttributionLine,
    AttributionMethod,
    SectorEffects,
)
from app.performance.domain.backfilled_marks import BackfilledMark
from app.performance.domain.equity_curve import Day
from app.performance.domain.replacement_outcomes import ReplacementOutcome, ReturnPair
from app.performance.domain.tear_sheet import DrawdownPeriod, MonthReturn
from app.performance.services.report import Report
from app.performance.services.service import PositionPerformance
from app.portfolio.domain.membership import add_members
from app.portfolio.domain.models import EMPTY
from app.portfolio.domain.returns import (
    BookedResult,
    BookedTotal,
    Figures,
    SinceInclusion,
    Trade,
)
from app.portfolio.services.queries import CorrelationReport
from app.portfolio.services.tradeability import DataFacts
from tests.support.portfolios import HOUR, T0, newcomer

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = "</td><script src=//evil.example>alert('1')</script>\"&x"
ONE = Decimal(1)
FIGURES = Figures(
    observations=42,
    sharpe=1.254,
    sortino=2.0,
    calmar=None,
    max_drawdown=0.125,
    win_rate=0.5,
    profit_factor=1.505,
    sharpe_standard_error=0.398,
)

CORRELATION = CorrelationReport(
    days=30,
    basis="residual",
    correlations={"BTCUSDT-AAAUSDT": None, "AAAUSDT-BBBUSDT": 0.126},
    not_applicable={"BTCUSDT-AAAUSDT": "is_the_market"},
    raw={"BTCUSDT-AAAUSDT": 0.814, "AAAUSDT-BBBUSDT": 0.744},
    raw_average=0.779,
    raw_highest=0.814,
    raw_matrix=(),
    warnings=(),
    unknown=("BTCUSDT-BBBUSDT",),
    average=0.126,
    highest=0.126,
    symbols=("BTCUSDT", "AAAUSDT", "BBBUSDT"),
    matrix=(),
    facts=DataFacts(None, DataSource.SANDBOX, DataStatus.FRESH),
)


def made(
    name: str = "AAAUSDT",
    why: str | None = None,
    delisted: tuple[str, ...] = (),
    **changed: Any,
) -> Report:
    member = add_members(EMPTY, [newcomer(name)], 10, T0, "start").portfolio.members[0]
    line = AttributionLine(name, name, 20_000_000, ONE, None, None, ONE)
    booked = BookedResult(name, "id", name, name, ONE, name, ONE, ONE, T0)
    report = Report(
        created_at=T0 + 48 * HOUR,
        version=7,
        since=None,
        until=None,
        days=(
            Day(T0, ONE, None, None, None),
            Day(T0 + 24 * HOUR, Decimal("1.5"), Decimal("0.5"), 0.5, None),
            Day(T0 + 48 * HOUR, None, None, None, why),
        ),
        figures=FIGURES,
        hypothetical=FIGURES,
        correlation=CORRELATION,
        positions=(
            PositionPerformance(
                member, None, None, None, None, SinceInclusion(0.1, None, 0.8), ONE, None, name, why
            ),
        ),
        ledgers=(
            Attribution(
                AttributionMethod.INDEX, name, T0, T0, ONE, ONE, ONE, (line,), (line,), why
            ),
        ),
        active=ActiveReturn(
            T0,
            T0 + 24 * HOUR,
            1,
            Decimal("0.5"),
            Decimal("0.1"),
            Decimal("0.4"),
            (SectorEffects(name, ONE, ONE, ONE / 8, ONE / 4, ONE / 40),),
            why,
        ),
        trades=(Trade(booked, 1, T0),),
        replacements=(
            ReplacementOutcome(
                at=T0,
                old=name,
                new=name,
                path=(ReturnPair(T0, 0.0, 0.1), ReturnPair(T0, 0.1, 0.2)),
                ended_at=None,
                delisted=delisted,
                old_return=0.1,
                new_return=0.2,
                reason=why,
            ),
        ),
        facts=DataFacts(None, DataSource.SANDBOX, DataStatus.FRESH),
    )
    return replace(report, **changed)


def facts(report: Report) -> dict[str, str]:
    return dict(report_page(report).facts)


def table_of(title: str, report: Report) -> Table:
    (table,) = (part for part in report_page(report).parts if part.title == title)
    assert isinstance(table, Table)
    return table


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "1.25 (standard error 0.40)"),
        ({"sharpe_standard_error": None}, "1.25"),
        ({"sharpe": None, "sharpe_standard_error": None}, "undefined (returns do not vary)"),
        ({"sharpe": -0.5, "sharpe_standard_error": 12.0}, "-0.50 (standard error 12.00)"),
    ],
)
def test_the_sharpe_ratio_is_told_with_its_standard_error(
    changed: dict[str, float | None], said: str
) -> None:
    assert facts(made(figures=replace(FIGURES, **changed)))["Sharpe"] == said  # type: ignore[arg-type]  # as named


def test_correlations_stand_beside_the_raw_ones_and_say_why_there_is_none() -> None:
    assert table_of("Correlation of the members", made()).rows == (
        ("BTCUSDT-AAAUSDT", "not applicable", "0.81", "is_the_market"),
        ("BTCUSDT-BBBUSDT", "unknown", "unknown", "not_enough_history"),
        ("AAAUSDT-BBBUSDT", "0.13", "0.74", ""),
        ("Average", "0.13", "0.78", ""),
    )
    alone = replace(CORRELATION, symbols=("AAAUSDT",))
    assert table_of("Correlation of the members", made(correlation=alone)).rows == ()


def test_the_other_figures_in_words() -> None:
    told = facts(made(why="no price of AAAUSDT is known"))
    assert told["Equity (index, 1 at the start)"] == "unknown (no price of AAAUSDT is known)"
    assert (told["Sortino"], told["Profit factor"]) == ("2.00", "1.50")
    assert told["Calmar"] == "undefined (no drawdown)"
    assert told["Period"] == "2026-01-01 00:00 UTC to 2026-01-03 00:00 UTC"
    assert told["Best day"] == told["Worst day"] == "50.00% (to 2026-01-02 00:00 UTC)"
    assert (told["Maximum drawdown"], told["Days with a gain"]) == ("12.50%", "50.00%")
    assert told["Daily returns behind these"] == "42"
    few = facts(made(figures=Figures(29, None, None, None, 0.125, None, None, growth=-0.1)))
    why = "unknown (29 observations, 30 are needed)"
    assert {few[name] for name in ("Sharpe", "Sortino", "Calmar", "Days with a gain")} == {why}
    assert (few["Cumulative return"], few["Maximum drawdown"]) == ("-10.00%", "12.50%")
    assert told["Created at"] == "2026-01-03 00:00 UTC"
    assert told["Data"] == "sandbox, fresh"
    late = (BackfilledMark(2, T0, "AAAUSDT", Decimal("12.5"), T0 - HOUR),)
    assert facts(made(late_marks=late))["Mark of AAAUSDT at 2026-01-01 00:00 UTC"] == (
        "unknown then; 12.5 is the close of the hour 2025-12-31 23:00 UTC"
    )
    nothing = facts(made(days=(), figures=Figures(0, None, None, None, None, None, None)))
    curve = "unknown (fewer than two known values of the equity)"
    assert nothing["Equity (index, 1 at the start)"] == "unknown (there has been no member)"
    assert nothing["Period"] == "unknown (there has been no member)"
    for name in ("Cumulative return", "Maximum drawdown", "Best day", "Worst day"):
        assert nothing[name] == curve


def test_the_maximum_drawdown_has_its_dates() -> None:
    deep = DrawdownPeriod(T0, T0 + 48 * HOUR, T0 + 96 * HOUR, 0.125)
    last = DrawdownPeriod(T0 + 24 * HOUR, T0 + 36 * HOUR, None, 0.04)
    report = made(drawdowns=(deep, last))
    assert facts(report)["Maximum drawdown"] == (
        "12.50% (2026-01-01, valley 2026-01-03, to 2026-01-05)"
    )
    table = table_of("Largest drawdowns", report)
    assert table.rows == (
        ("12.50%", "2026-01-01", "2026-01-03", "2026-01-05", "4.0"),
        ("4.00%", "2026-01-02", "2026-01-02", "not yet", "1.0"),
    )
    assert facts(made(drawdowns=(last,)))["Maximum drawdown"].endswith("not recovered)")
    many = tuple(replace(deep, depth=0.1 / at) for at in range(1, 9))
    assert len(table_of("Largest drawdowns", made(drawdowns=many)).rows) == 5
    assert table_of("Largest drawdowns", made()).empty.startswith("None: ")
    few = Figures(0, None, None, None, None, None, None)
    assert table_of("Largest drawdowns", made(figures=few)).empty.startswith("Unknown: ")


def test_monthly_returns_are_a_table_of_years() -> None:
    months = (
        MonthReturn(2025, 12, 0.1),
        MonthReturn(2026, 1, None),
        MonthReturn(2026, 2, -0.05),
    )
    table = table_of("Monthly returns", made(months=months))
    assert table.head[0:3] == ("Year", "Jan", "Feb")
    assert table.head[-1] == "Year to date"
    assert table.rows == (
        ("2025", *[""] * 11, "10.00%", "10.00%"),
        ("2026", "unknown", "-5.00%", *[""] * 10, "-5.00%"),
    )
    assert table_of("Monthly returns", made()).empty == (
        "Unknown: fewer than two known values of the equity."
    )


def test_attribution_by_symbol_and_by_sector_stand_apart() -> None:
    report = made("AAAUSDT")
    (ledger,) = report.ledgers
    sector = replace(ledger.symbols[0], name="layer-1", sector="layer-1", weight_u=None)
    half = replace(ledger.symbols[0], contribution=ONE / 2, funding=ONE, fees=ONE)
    ledger = replace(ledger, unit="index", symbols=(half,), sectors=(sector,))
    report = replace(report, ledgers=(ledger,))
    by_symbol = table_of("Attribution by symbol: index, index", report)
    by_sector = table_of("Attribution by sector: index, index", report)
    assert by_symbol.rows == (
        ("AAAUSDT", "AAAUSDT", "20.00%", "1.000000", "1.000000", "1.000000", "0.500000", "50.00%"),
    )
    assert by_sector.rows == (
        ("layer-1", "left", "1.000000", "not in it", "not in it", "1.000000", "100.00%"),
    )
    assert by_symbol.note == by_sector.note
    booked = replace(ledger, basis=AttributionMethod.BOOKED, unit="USDT")
    rows = table_of("Attribution by symbol: booked, USDT", replace(report, ledgers=(booked,))).rows
    assert rows[0][-1] == "not in it", "an amount is no share of the index"
    gap = replace(ledger, change=None, symbols=(), sectors=(), reason="a gap")
    empty = table_of("Attribution by symbol: index, index", replace(report, ledgers=(gap,)))
    assert empty.empty == "No line: a gap."
    assert "change of equity unknown (a gap)" in empty.note


def test_an_unknown_figure_of_a_position_has_its_reason() -> None:
    report = made()
    (position,) = report.positions
    unknown = replace(
        position,
        figures=SinceInclusion(None, None, None),
        booked=BookedTotal("id", "USDT", 2, ONE, ONE / 2, ONE / 4),
        reason="its mark price is unknown",
    )
    (row,) = table_of("Positions", replace(report, positions=(unknown,))).rows
    assert row[2:] == (
        "unknown",
        "0.75 USDT",
        "unknown",
        "unknown",
        "its mark price is unknown; its price is not comparable; too few closes since inclusion",
    )
    (known,) = table_of("Positions", report).rows
    assert known[1:4] == ("0.00%", "10.00%", "none")
    without_start = replace(unknown.member, inclusion_price=None)
    (row,) = table_of(
        "Positions", replace(report, positions=(replace(unknown, member=without_start),))
    ).rows
    assert "its price at inclusion is unknown" in row[-1]
    assert table_of("Positions", replace(report, positions=())).empty == (
        "The portfolio has no member."
    )


def test_the_page_has_one_style_of_per_cent() -> None:
    months = (MonthReturn(2026, 1, 0.123456), MonthReturn(2026, 2, -0.00001))
    drawdown = DrawdownPeriod(T0, T0, None, 0.123456)
    page = report_page(made(months=months, drawdowns=(drawdown,)))
    cells = [
        cell
        for part in page.parts
        if isinstance(part, Table)
        for text in (*(one for row in part.rows for one in row), part.note)
        for cell in text.split()
    ]
    cells += [word for _, value in page.facts for word in value.split()]
    shown = [cell.strip("(),;.") for cell in cells if "%" in cell]
    assert len(shown) > 15
    assert "-0.00%" not in shown
    assert [one for one in shown if not re.fullmatch(r"-?\d+\.\d\d%", one)] == []


def test_a_swap_that_a_delisting_forced_says_so() -> None:
    def note(**changed: Any) -> str:
        (table,) = (
            one for one in report_page(made(**changed)).parts if one.title.startswith("Replacement")
        )
        assert isinstance(table, Table)
        return table.rows[0][-1]

    assert note() == ""
    assert note(delisted=("AAAUSDT",)) == "AAAUSDT is delisted; its last price is used"
    assert note(delisted=("AAAUSDT",), why="gap") == (
        "gap; AAAUSDT is delisted; its last price is used"
    )


def test_the_difference_to_the_market_in_words() -> None:
    table = table_of("Active return by sector", made())
    assert table.note == (
        "2026-01-01 00:00 UTC to 2026-01-02 00:00 UTC; portfolio 50.00%, universe 10.00%,"
        " difference 40.00%, to which all effects add up before rounding."
        " The universe is all symbols, weighing the same."
    )
    assert table.rows == (("AAAUSDT", "100.00%", "100.00%", "12.50%", "25.00%", "2.50%"),)
    (unknown,) = (
        one for one in report_page(made(why="gap")).parts if one.title.startswith("Active")
    )
    assert isinstance(unknown, Table)
    assert "Unknown: gap." in unknown.note


class _Reader(HTMLParser):
    """What a browser would see: elements with their attributes, and text."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(report: Report) -> tuple[_Reader, str]:
    html = render(report_page(report))
    reader = _Reader()
    reader.feed(html)
    return reader, html


def test_a_hostile_name_is_text_wherever_it_stands() -> None:
    reader, html = read(made(HOSTILE, HOSTILE))
    harmless, _ = read(made("name", "why"))
    names = [(tag, sorted(attributes)) for tag, attributes in reader.elements]
    assert names == [(tag, sorted(attributes)) for tag, attributes in harmless.elements]
    told = [text for text in reader.texts if HOSTILE in text]
    places = [text for text in harmless.texts if "name" in text or "why" in text]
    assert len(told) == len(places) > 12
    assert "<script" not in html.lower()


def test_the_page_asks_for_nothing_from_anywhere() -> None:
    reader, html = read(made(HOSTILE, HOSTILE))
    asking = {"script", "link", "img", "image", "use", "iframe", "object", "embed", "base", "form"}
    assert not asking & {tag for tag, _ in reader.elements}
    for _, attributes in reader.elements:
        assert not {"src", "href", "xlink:href", "srcset", "action", "style"} & attributes.keys()
        assert not [name for name in attributes if name.startswith("on")]
    (style,) = (text for text in reader.texts if "font:" in text)
    assert not [word for word in ("url(", "@import", "http", "//") if word in style]
    assert html.startswith("<!doctype html>")


def test_the_template_is_package_data_and_part_of_the_wheel(tmp_path: Path) -> None:
    template = files("app.performance.api") / "templates" / "report.html.jinja"
    assert template.is_file()
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        packed = archive.read("app/performance/api/templates/report.html.jinja")
    assert packed == template.read_bytes()
