"""One self-contained HTML page: figures, tables, and plots as inline SVG; every text escaped."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Final

_WIDTH, _HEIGHT, _EDGE = 720.0, 220.0, 56.0
_COLOURS: Final = ("#2563eb", "#c2410c", "#15803d")
_STYLE: Final = """\
body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:2rem auto;padding:0 1rem;color:#111}
h1,h2{line-height:1.2}h2{margin-top:2.2rem}table{border-collapse:collapse;width:100%}
th,td{padding:.3rem .6rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}.wide{overflow-x:auto}svg{max-width:100%;height:auto}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1.2rem}dd{margin:0}.note{color:#555}
@media(prefers-color-scheme:dark){body{background:#111;color:#eee}th,td{border-color:#444}
.note{color:#aaa}}"""


@dataclass(frozen=True, slots=True)
class Series:
    """Values in time order; None is a gap and is drawn as one."""

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Plot:
    title: str
    first: str  # what the left and the right end stand for
    last: str
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str


@dataclass(frozen=True, slots=True)
class Page:
    title: str
    facts: tuple[tuple[str, str], ...]
    parts: tuple[Plot | Table, ...]


def render(page: Page) -> str:
    """The page as HTML text that asks for nothing from anywhere."""
    title = escape(page.title)
    facts = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in page.facts
    )
    parts = "".join(_plot(part) if isinstance(part, Plot) else _table(part) for part in page.parts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{title}</h1><dl>{facts}</dl>{parts}</body></html>\n"
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in table.head)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    body = (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        if table.rows
        else "<p>Nothing yet.</p>"
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return f"<h2>{escape(table.title)}</h2>{note}{body}"


def _plot(plot: Plot) -> str:
    heading = f"<h2>{escape(plot.title)}</h2>"
    known = [
        value
        for one in plot.series
        for value in one.values
        if value is not None and _is_known(value)
    ]
    if not known:
        return f"{heading}<p>Nothing is known yet.</p>"
    low, high = min(known), max(known)
    span = high - low or abs(high) or 1.0
    drawn = "".join(
        _series(one, _COLOURS[number % len(_COLOURS)], number, low, span)
        for number, one in enumerate(plot.series)
    )
    marks = "".join(
        f'<text x="4" y="{_y(value, low, span):.1f}" font-size="12" fill="currentColor">'
        f"{value:.4g}</text>"
        for value in dict.fromkeys((low, high))
    )
    foot = _HEIGHT - 6.0
    return (
        f'{heading}<svg role="img" aria-label="{escape(plot.title)}"'
        f' viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" width="{_WIDTH:.0f}">{drawn}{marks}'
        f'<text x="{_EDGE:.0f}" y="{foot:.0f}" font-size="12" fill="currentColor">'
        f"{escape(plot.first)}</text>"
        f'<text x="{_WIDTH - 8.0:.0f}" y="{foot:.0f}" font-size="12" text-anchor="end"'
        f' fill="currentColor">{escape(plot.last)}</text></svg>'
    )


def _series(series: Series, colour: str, number: int, low: float, span: float) -> str:
    lines = "".join(
        f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>'
        if " " in points
        else f'<circle fill="{colour}" r="3" cx="{points.split(",")[0]}"'
        f' cy="{points.split(",")[1]}"/>'
        for points in _runs(series.values, low, span)
    )
    across = _EDGE + 8.0 + 200.0 * number
    return (
        f'{lines}<text x="{across:.0f}" y="14" font-size="12" fill="{colour}">'
        f"{escape(series.name)}</text>"
    )


def _runs(values: Sequence[float | None], low: float, span: float) -> Iterator[str]:
    """The points of each unbroken stretch."""
    step = (_WIDTH - _EDGE - 16.0) / max(1, len(values) - 1)
    placed: Iterable[tuple[float, float | None]] = (
        (_EDGE + 8.0 + step * at, value) for at, value in enumerate(values)
    )
    for is_known, run in groupby(placed, lambda one: _is_known(one[1])):
        if is_known:
            yield " ".join(
                f"{x:.1f},{_y(value, low, span):.1f}" for x, value in run if value is not None
            )


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _y(value: float, low: float, span: float) -> float:
    return _HEIGHT - 32.0 - (value - low) / span * (_HEIGHT - 64.0)
