"""Tables fit the terminal without cutting an id, CSV is exact, ids may be shortened."""

import csv
import io
import json
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console

from app.cli.commands.market import draw_candles
from app.cli.exit_codes import ExitCode
from app.cli.output import create_table, flatten, format_csv, shorten_ids
from tests.cli.command import here
from tests.cli.test_client import answering

IDS = ("6f1c2d3e-0000-4000-8000-000000000001", "6f1c2d3e-0000-4000-8000-000000000002")
OTHER = "0a1b2c3d-0000-4000-8000-000000000003"
TEXT = "The score of the member is below the limit of the rule since the last two boards"
COLUMNS = ("id#", "value>", "message")


def printed(columns: tuple[str, ...], rows: list[tuple[object, ...]], width: int) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(create_table("rows", columns, rows))
    assert max(len(line) for line in captured.get().splitlines()) <= width
    return captured.get()


def test_a_wide_terminal_shows_whole_ids_and_texts() -> None:
    shown = printed(COLUMNS, [(IDS[0], "1.50", TEXT)], 160)
    assert f"{IDS[0]} │  1.50 │ {TEXT}" in shown


@pytest.mark.parametrize("width", [70, 90, 120])
def test_texts_are_folded_before_an_id_or_a_number_is_cut(width: int) -> None:
    shown = printed(COLUMNS, [(IDS[0], "123456789.123456", TEXT)], width)
    assert IDS[0] in shown
    assert "123456789.123456" in shown
    assert all(word in shown for word in TEXT.split())


def test_ids_become_unique_prefixes_where_whole_ones_do_not_fit() -> None:
    shown = printed(COLUMNS, [(IDS[0], 1, TEXT), (OTHER, 2, TEXT)], 40)
    assert IDS[0] not in shown
    assert f"│ {IDS[0][:8]} │" in shown
    assert f"│ {OTHER[:8]} │" in shown


def test_rows_become_blocks_where_no_table_fits() -> None:
    columns = ("id#", *(f"a long column {number}>" for number in range(9)))
    shown = printed(columns, [(IDS[0], *range(9)), (OTHER, *range(9))], 56)
    assert "│" not in shown
    for whole in (f"{IDS[0]}\n", f"{OTHER}\n"):
        assert f"id               {whole}" in shown
    assert "a long column 8  8\n" in shown


def test_brackets_are_text_and_not_markup() -> None:
    assert "[bold]x[/bold]" in printed(("a",), [("[bold]x[/bold]",)], 80)


def test_prefixes_are_as_long_as_it_takes_to_tell_the_ids_apart() -> None:
    assert shorten_ids([OTHER, IDS[0], OTHER]) == [OTHER[:8], IDS[0][:8], OTHER[:8]]
    assert shorten_ids(IDS) == list(IDS), "they differ in the last character"
    assert shorten_ids([f"scoring:{OTHER}"]) == [f"scoring:{OTHER[:8]}"]
    assert shorten_ids([]) == []
    assert shorten_ids(["a", "b"]) == ["a", "b"]


def test_csv_is_exact_and_no_formula() -> None:
    rows: list[dict[str, Any]] = [
        {"a": Decimal("0.1000"), "b": None, "c": {"d": [1, {"e": 2}], "f": {}}, "g": True},
        {"a": "-5.5", "b": "=1+1", "c": None, "h": 'say "hi", ok\nyes'},
    ]
    parsed = list(csv.DictReader(io.StringIO(format_csv(rows))))
    assert list(parsed[0]) == ["a", "b", "c.d", "c.f", "g", "c", "h"]
    assert parsed[0] == {
        "a": "0.1000", "b": "", "c.d": '[1, {"e": 2}]', "c.f": "{}", "g": "true", "c": "", "h": "",
    }  # fmt: skip
    assert (parsed[1]["a"], parsed[1]["b"]) == ("-5.5", "'=1+1")
    assert parsed[1]["h"] == 'say "hi", ok\nyes'
    assert format_csv([]) == ""
    assert flatten({"a": {"b": {"c": 1}}, "d": []}) == {"a.b.c": 1, "d": []}


def listed(*ids: str, cursor: str | None = None) -> bytes:
    return json.dumps({"items": [{"id": one} for one in ids], "next_cursor": cursor}).encode()


def test_a_beginning_of_several_ids_names_them() -> None:
    with answering(200, listed(*IDS, OTHER)) as (url, asked):
        several = here("channels", "delete", IDS[0][:6], "--json", "--url", url)
        requests = [one[:2] for one in asked]
        one = here("channels", "delete", OTHER[:3], "--json", "--url", url)
        whole = here("channels", "delete", IDS[1].upper(), "--json", "--url", url)
    assert (several.code, several.document["code"]) == (ExitCode.USAGE, "ambiguous_id")
    assert all(one in several.err for one in IDS)
    assert OTHER not in several.err
    assert requests == [("GET", "/api/symbol-mgmt/notifications/channels")], "nothing was deleted"
    assert (one.code, whole.code) == (0, 0)
    deletions = [one[1].rpartition("/")[2] for one in asked if one[0] == "DELETE"]
    assert deletions == [OTHER, IDS[1]]


def test_an_id_is_looked_up_in_the_further_pages_too() -> None:
    page = {"items": [{"proposal_id": one} for one in IDS], "next_cursor": "more"}
    with answering(200, json.dumps(page).encode()) as (url, asked):
        here("portfolio", "approve", "ffff", "--json", "--url", url)
    pages = [one[1] for one in asked if one[0] == "GET"]
    assert pages[0].endswith("/portfolio/proposals?limit=500")
    assert set(pages[1:]) == {f"{pages[0]}&cursor=more"}
    assert len(pages) == 20
    assert asked[-1][1].endswith("/portfolio/proposals/ffff/approve"), "the service refuses it"


CANDLES = [
    {"open": "10", "high": "20", "low": "10", "close": "20"},
    {"open": "20", "high": "20", "low": "0", "close": "10"},
    {"open": "10", "high": "15", "low": "5", "close": "10"},
]


def test_candles_are_drawn_between_the_lowest_and_the_highest_price() -> None:
    assert draw_candles(CANDLES, 40, 5) == ["20 █░ ", "   █░│", "   █░█", "    ││", " 0  │ "]
    assert draw_candles(CANDLES, 5, 5)[0] == "20 ░ ", "the newest where not all fit"
    flat = {"open": "1", "high": "1", "low": "1", "close": "1"}
    assert draw_candles([flat], 40, 3) == ["1 █", "   ", "1  "]
