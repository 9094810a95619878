"""`my-symbols backtest` and `trials` on a file and a database of their own."""

import csv
import gzip
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from app.cli.exit_codes import ExitCode
from app.research.services.history_files import read_history
from tests.cli.command import here
from tests.research.histories import random_history

COLUMNS = ("symbol", "venue", "ts", "open", "high", "low", "close", "volume", "quote_volume")
OPTIONS = ("--from", "2022-04-20", "--to", "2022-07-31", "--json")


def _write(path: Path, *, venue: str = "spot", missing: str | None = None) -> Path:
    panel = random_history(rows=230, names=16, seed=3).panel
    columns = tuple(name for name in COLUMNS if name != missing)
    with gzip.open(path, "wt", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, columns, extrasaction="ignore")
        rows.writeheader()
        for row, opened in enumerate(panel.opened_ms.tolist()):
            for column, symbol in enumerate(panel.symbols):
                names = ("open", "high", "low", "close", "volume")
                prices = {name: repr(float(getattr(panel, name)[row, column])) for name in names}
                turnover = repr(float(panel.turnover[row, column]))
                rows.writerow(
                    {"symbol": symbol, "venue": venue, "ts": opened, "quote_volume": turnover}
                    | prices
                )
    return path


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_gives_the_history_that_was_written(room: Path) -> None:
    found = read_history(_write(room / "candles.csv.gz"))
    written = random_history(rows=230, names=16, seed=3)
    assert found.symbols == written.symbols
    assert np.array_equal(found.panel.close, written.panel.close)
    assert np.array_equal(found.panel.opened_ms, written.panel.opened_ms)
    assert np.isnan(found.funding).all()


def test_trials_are_counted_shown_and_never_deleted(room: Path) -> None:
    file = _write(room / "candles.csv.gz")
    first = here("backtest", str(file), *OPTIONS, "--steps", "steps.csv")
    assert first.code == 0, first.err
    document = first.document
    assert document["trials"] == 1
    assert document["headline"][0] == (
        "2022-04-21 to 2022-08-01: 16 listings, 0 died; 1 trials so far."
    )
    assert document["random"]["draws"] == 200
    assert {"composite", "low_volatility", "market", "baselines"} <= document.keys()
    assert document["funding_coverage"] == 0.0
    with (room / "steps.csv").open(encoding="utf-8") as lines:
        steps = list(csv.DictReader(lines))
    assert list(steps[0]) == ["date", "portfolio_value", "daily_return", "portfolio_changes"]
    assert (steps[0]["portfolio_value"], steps[0]["daily_return"]) == ("100000.000000", "")
    second = here("backtest", str(file), *OPTIONS, "--set", "replacement.confirmations=1")
    assert second.document["trials"] == 2
    again = here("backtest", str(file), *OPTIONS)
    assert again.document["product"] == document["product"]  # the same input, the same result
    listed = here("trials", "list", "--json").document["items"]
    assert [one["id"] for one in listed] == [
        one.document["trial_id"] for one in (again, second, first)
    ]
    assert listed[0]["data_hash"] == listed[1]["data_hash"]
    assert listed[1]["parameters"]["configuration"]["replacement"]["confirmations"] == 1
    shown = here("trials", "show", listed[0]["id"][:8], listed[1]["id"][:8])
    assert shown.code == 0
    assert "product.sharpe" in shown.out
    assert listed[0]["id"][:8] in here("trials", "list").out
    unknown = here("trials", "show", "nothing")
    assert (unknown.code, "no trial" in unknown.err) == (ExitCode.REFUSED, True)
    database = next((room / "var").glob("*.sqlite3"))
    with sqlite3.connect(database) as stored:
        for statement in ("DELETE FROM trials", "UPDATE trials SET sharpe = 9"):
            with pytest.raises(sqlite3.IntegrityError, match="trials_append_only"):
                stored.execute(statement)


def test_tables_for_people_begin_with_the_headline(room: Path) -> None:
    file = _write(room / "candles.csv.gz")
    shown = here("backtest", str(file), *OPTIONS[:-1])
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    assert lines[0].startswith("2022-04-21 to 2022-08-01: ")
    assert lines[1].startswith("Sharpe ")
    assert "BTC" in lines[1]
    assert lines[2].endswith(".")
    for name in ("BTC held", "ten lowest volatilities", "random tens", "composite"):
        assert name in shown.out
    assert "logged as trial" in shown.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--from", "yesterday"), "no day such as 2024-01-31"),
        (("--from", "2022-07-01", "--to", "2022-05-01"), "the period is empty"),
        (("--venue", "perp"), "has no venue perp; it has spot"),
        (("--set", "replacement.confirmations"), "--set takes KEY=VALUE"),
        (("--set", "replacement.confirmations=0"), "confirmations"),
        (("--set", "replacement.nothing=1"), "nothing"),
        (("--every", "3", "--offset", "3"), "--offset must be below --every"),
    ],
)
def test_wrong_use_is_said_and_logs_nothing(
    room: Path, options: tuple[str, ...], message: str
) -> None:
    file = _write(room / "candles.csv.gz")
    refused = here("backtest", str(file), *options)
    assert refused.code == ExitCode.USAGE
    assert message in refused.err
    assert here("trials", "list", "--json").document["items"] == []


def test_file_with_a_fault_names_it(room: Path) -> None:
    lacking = here("backtest", str(_write(room / "a.csv.gz", missing="close")))
    assert (lacking.code, "lacks the columns close" in lacking.err) == (ExitCode.USAGE, True)
    (room / "words.csv").write_text(
        ",".join(COLUMNS) + "\nBTCUSDT,spot,1640995200000,1,1,1,high,1,1\n", encoding="utf-8"
    )
    words = here("backtest", "words.csv")
    assert (words.code, "line 2: close must be a number" in words.err) == (ExitCode.USAGE, True)
    (room / "notes.txt").write_text("", encoding="utf-8")
    other = here("backtest", "notes.txt")
    assert (other.code, ".parquet, .csv or .csv.gz" in other.err) == (ExitCode.USAGE, True)


def test_cards_and_disasters_of_a_file(room: Path) -> None:
    file = str(_write(room / "candles.csv.gz"))
    options = ("--from", "2022-04-20", "--to", "2022-08-15")
    shown = here("validate", file, *options, "--periods", "1")
    assert shown.code == 0, shown.err
    assert "low volatility alone" in shown.out
    items = here("validate", file, *options, "--periods", "1", "--json").document["items"]
    assert items[0]["name"] == "composite"
    assert {one["label"] for one in items} <= {"proven", "weak", "unproven", "harmful"}
    short = here("validate", file, *options)
    assert (short.code, "too few for 3 periods" in short.err) == (ExitCode.USAGE, True)
    audited = here("backtest", file, *OPTIONS, "--disaster", "C03USDT=2022-06-15").document
    (disaster,) = audited["disasters"]
    assert (disaster["listing"], disaster["day"]) == ("C03USDT", "2022-06-15")
    assert set(disaster["ranks"]) == {"30", "7", "1"}
    wrong = here("backtest", file, *OPTIONS, "--disaster", "C99USDT=2022-06-15")
    assert (wrong.code, "has no listing C99USDT" in wrong.err) == (ExitCode.USAGE, True)
