"""Whether a swap paid, by hand; and a page that holds its text, whatever the text is."""

import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from html.parser import HTMLParser

import pytest

from app.market.domain.models import Funding
from app.performance.api.report_page import Plot, ReportPage, Series, Table, render
from app.performance.domain.equity_curve import EquityStep, RecordedReplacement, Valuation
from app.performance.domain.replacement_outcomes import compute_outcomes, create_ledger
from tests.support.portfolios import HOUR, NAMES, T0

A, B, C = NAMES[:3]


def prices(**known: int) -> dict[str, Decimal]:
    names = {"a": A, "b": B, "c": C}
    return {names[name]: Decimal(price) for name, price in known.items()}


def step(
    hours: int, members: tuple[str, ...], marks: Mapping[str, Decimal], *swaps: RecordedReplacement
) -> EquityStep:
    return EquityStep(T0 + hours * HOUR, hours + 1, dict.fromkeys(members, 1), True, marks, swaps)


def test_the_path_of_the_old_symbol_against_the_new_one() -> None:
    changes = (
        step(0, (A,), prices(a=10)),
        step(5, (B,), prices(a=10, b=20), RecordedReplacement(A, B)),
    )
    values = (
        Valuation(T0 + HOUR, prices(a=99, b=99)),
        Valuation(T0 + 6 * HOUR, prices(a=11)),
        Valuation(T0 + 9 * HOUR, prices(a=9, b=22)),
    )
    (made,) = compute_outcomes(changes, values)
    assert [one.old for one in made.path] == pytest.approx([0.1, -0.1])
    assert made.path[0].new is None
    assert made.path[1].new == pytest.approx(0.1)
    assert made.difference == pytest.approx(0.2)
    assert (made.net, made.outperformed, made.reason, made.ended_at) == (None, None, None, None)
    assert made.net_reason == "the fees at the replacement are unknown"


def test_it_ends_when_the_new_member_leaves() -> None:
    swap = step(0, (B,), prices(a=10, b=10), RecordedReplacement(A, B))
    values = (Valuation(T0 + HOUR, prices(a=11, b=10)), Valuation(T0 + 9 * HOUR, prices(a=1, b=1)))
    (made,) = compute_outcomes((swap, step(5, (C,), prices(b=12))), values)
    assert made.ended_at == T0 + 5 * HOUR
    assert made.difference == pytest.approx(-0.1)  # the old one has no mark at the leaving
    (back, undone) = compute_outcomes(
        (swap, step(5, (A,), prices(a=10, b=12), RecordedReplacement(B, A))), values
    )
    assert back.new_return == pytest.approx(0.2)
    assert undone.old_return == pytest.approx(-11 / 12)


def test_what_is_not_known_of_a_swap() -> None:
    (unknown,) = compute_outcomes((step(0, (B,), prices(a=10), RecordedReplacement(A, B)),), ())
    assert (unknown.difference, unknown.outperformed) == (None, None)
    assert unknown.reason == f"the mark of {B} at the replacement is unknown"
    swap = step(0, (B,), prices(a=10, b=10), RecordedReplacement(A, B))
    (fresh,) = compute_outcomes((swap,), ())
    assert fresh.reason == "no price is known since"
    for known, missing in ((prices(b=9), A), (prices(a=9), B)):
        (half,) = compute_outcomes((swap,), (Valuation(T0 + HOUR, known),))
        assert half.reason == f"no price of {missing} is known"
        assert half.difference is None


def test_what_is_delisted_has_realised_its_last_price() -> None:
    swap = step(0, (B,), prices(a=10, b=10), RecordedReplacement(A, B))
    values = (
        Valuation(T0 + HOUR, prices(a=4, b=10)),
        Valuation(T0 + 2 * HOUR, prices(b=11)),
        Valuation(T0 + 3 * HOUR, prices(b=12)),
    )
    (made,) = compute_outcomes((swap,), values, {A, C})
    assert [one.old for one in made.path] == pytest.approx([-0.6, -0.6, -0.6])
    assert made.difference == pytest.approx(0.8)
    assert (made.delisted, made.reason) == ((A,), None)
    (at_once,) = compute_outcomes((swap,), values[1:], {A})
    assert at_once.old_return == 0.0, "the mark at which it left was its last"
    (listed,) = compute_outcomes((swap,), values)
    assert (listed.old_return, listed.delisted) == (None, ())
    (never,) = compute_outcomes(
        (step(0, (B,), prices(b=10), RecordedReplacement(A, B)),), values[1:], {A}
    )
    assert never.reason == f"the mark of {A} at the replacement is unknown"
    assert never.old_return is None


COSTED = RecordedReplacement(A, B, "id-a", "id-b", fees=Decimal("0.0012"), spread=Decimal("0.0008"))
EIGHT = 8 * 3_600_000


def settled(rate: str, *hours: int, interval: int = EIGHT) -> tuple[Funding, ...]:
    start = round(T0.timestamp() * 1000)
    return tuple(Funding(start + hour * 3_600_000, Decimal(rate), interval) for hour in hours)


def net_of(
    old: tuple[Funding, ...], new: tuple[Funding, ...], swap: RecordedReplacement = COSTED
) -> tuple[float | None, bool | None, str | None]:
    changes = (step(0, (B,), prices(a=10, b=10), swap),)
    values = (
        Valuation(T0 + 7 * HOUR, prices(a=10, b=20)),
        Valuation(T0 + 20 * HOUR, prices(a=10, b=11)),
    )
    (made,) = compute_outcomes(changes, values, (), {"id-a": old, "id-b": new})
    assert made.difference == pytest.approx(0.1)
    return made.net, made.outperformed, made.net_reason


def test_the_net_figure_is_what_fees_spread_and_funding_leave() -> None:
    old, new = settled("0.001", -2, 6, 14), settled("0.01", -2, 6, 14)
    net, paid, why = net_of(old, new)
    # The new one pays at 6 h on what it cost, at 14 h on twice that.
    assert net == pytest.approx(0.1 - 0.0012 - 0.0008 - (0.01 + 0.02 - 0.002))
    assert (paid, why) == (True, None)
    dear = settled("0.04", -2, 6, 14)
    net, paid, _ = net_of(old, dear)
    assert net == pytest.approx(0.1 - 0.002 - (0.04 + 0.08 - 0.002))
    assert paid is False, "though the prices say it has"


@pytest.mark.parametrize(
    ("new", "swap", "why"),
    [
        (settled("0.001", -2, 6, 14), replace(COSTED, fees=None), "the fees at the replacement"),
        (
            settled("0.001", -2, 6, 14),
            replace(COSTED, spread=None),
            "the spread at the replacement",
        ),
        ((), COSTED, f"the funding of {B}"),
        (settled("0.001", 6, 14), COSTED, f"the funding of {B}"),
        (settled("0.001", -2, 14), COSTED, f"the funding of {B}"),
        (settled("0.001", -2, 6), COSTED, f"the funding of {B}"),
    ],
)
def test_a_cost_that_is_not_known_leaves_no_net_figure(
    new: tuple[Funding, ...], swap: RecordedReplacement, why: str
) -> None:
    net, paid, reason = net_of(settled("0.001", -2, 6, 14), new, swap)
    assert (net, paid) == (None, None)
    assert reason is not None
    assert why in reason
    assert "unknown" in reason


def test_the_ledger_adds_up_what_is_known_and_says_what_is_not() -> None:
    changes = (step(0, (B,), prices(a=10, b=10), COSTED),)
    value = Valuation(T0 + HOUR, prices(a=10, b=11))
    rates = {"id-a": settled("0", -2), "id-b": settled("0", -2)}
    (good,) = compute_outcomes(changes, (value,), (), rates)
    (bad,) = compute_outcomes(changes, (replace(value, prices=prices(a=11, b=10)),), (), rates)
    (unknown,) = compute_outcomes(changes, (value,), (), {})
    made = create_ledger((good, bad, unknown))
    assert made.total == pytest.approx(-0.004)
    assert (made.counted, made.unknown) == (2, 1)
    assert made.reason == "1 of 3 have no net figure and are left out"
    half = 12.706204736 * 0.1 * 2  # t of one degree; sd 0.1414 times the root of two
    assert made.low == pytest.approx(-0.004 - half)
    assert made.high == pytest.approx(-0.004 + half)
    one = create_ledger((good,))
    assert one.total == pytest.approx(0.098)
    assert (one.low, one.high, one.reason) == (None, None, None)
    nothing = create_ledger((unknown,))
    assert (nothing.total, nothing.counted, nothing.unknown) == (None, 0, 1)
    assert create_ledger(()).reason == "there are no replacements"


HOSTILE = '<script>alert("x")</script>&\'"'
PAGE = ReportPage(
    HOSTILE,
    ((HOSTILE, HOSTILE),),
    (
        Plot(HOSTILE, HOSTILE, HOSTILE, (Series(HOSTILE, (1.0, 2.0, None, 3.0, float("nan"))),)),
        Plot("flat", "a", "b", (Series("one", (2.0, 2.0)), Series("two", ()))),
        Plot("nil", "a", "b", (Series("one", (0.0, 0.0)),)),
        Plot("empty", "a", "b", (Series("none", (None,)),)),
        Table(HOSTILE, (HOSTILE,), ((HOSTILE,),), HOSTILE),
        Table("bare", ("x",), (), ""),
    ),
)


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_the_page_is_self_contained_and_escapes_every_text() -> None:
    html = render(PAGE)
    reader = _Elements()
    reader.feed(html)
    tags = {tag for tag, _ in reader.seen}
    assert not tags & {"script", "link", "img", "iframe", "object", "form", "a"}
    for _, attributes in reader.seen:
        assert not {"src", "href", "onload", "style"} & attributes.keys()
    assert "url(" not in html
    assert "nan" not in re.sub(r"<[^>]*>", "", html).lower()
    assert html.count("&lt;script&gt;") == 13
    assert (html.count("No value is known."), html.count("None in the period.")) == (1, 1)
    for points in re.findall(r'points="([^"]*)"', html):
        assert re.fullmatch(r"\d+\.\d,\d+\.\d(?: \d+\.\d,\d+\.\d)+", points)


def test_a_gap_is_drawn_as_a_gap() -> None:
    html = render(PAGE)
    first = re.findall(r"<svg.*?</svg>", html, re.DOTALL)[0]
    assert first.count("<polyline") == 1  # 1, 2; then a gap
    assert first.count("<circle") == 1  # 3 alone
