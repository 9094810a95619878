"""`my-symbols backtest`, `sweep` and `trials` on a file and a database of their own."""

import csv
import gzip
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from app.cli.exit_codes import ExitCode
from app.configuration.domain.model import Configuration
from app.container.runtime_values import utc_now
from app.research.domain.sweep import SweepPlan
from app.research.services.history_files import read_history
from app.research.services.sweeps import SweepOutcome, plan_tasks, run_tasks
from tests.cli.command import environment, here
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
    assert document["permutation"]["permutations"] == 1000
    assert 0.0 < document["permutation"]["p_value"] <= 1.0
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
    for name in (
        "BTC held",
        "ten lowest volatilities",
        "random tens",
        "composite",
        "permutation test: ",
    ):
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


def test_cards_become_the_evidence_of_the_version_in_force(room: Path) -> None:
    file = str(_write(room / "candles.csv.gz"))
    options = ("--from", "2022-04-20", "--to", "2022-08-15", "--periods", "1", "--json")
    other = here("validate", file, *options, "--store", "--set", "scoring.impact_notional=5000")
    assert (other.code, "leave out --store" in other.err) == (ExitCode.USAGE, True)
    assert here("validate", file, *options).document["stored"] == 0
    for _ in range(2):  # the second measurement replaces the first one
        stored = here("validate", file, *options, "--store")
        assert stored.code == 0, stored.err
        assert "stored as the evidence of version 1 of cross_sectional" in stored.err
    items = {one["name"]: one for one in stored.document["items"]}
    with sqlite3.connect(next((room / "var").glob("*.sqlite3"))) as database:
        database.row_factory = sqlite3.Row
        rows = {one["name"]: one for one in database.execute("SELECT * FROM factor_evidence")}
    assert rows.keys() == items.keys() - {"low volatility alone"}
    assert {one["level"] for one in rows.values()} == {"composite", "family", "factor"}
    assert stored.document["stored"] == len(rows)
    for name, row in rows.items():
        (period,) = items[name]["periods"]  # one period is the whole
        assert (row["source"], row["horizon"], row["trials"]) == ("backtest", 7, 0)
        assert (row["first_day"], row["last_day"]) == ("2022-04-20", "2022-08-15")
        assert (row["label"], row["ic"], row["ic_t"], row["days"]) == (
            items[name]["label"], period["ic"], period["ic_t"], period["days"],
        )  # fmt: skip
        assert (row["turnover"], row["coverage"]) == (period["turnover"], period["coverage"])
        assert dict(json.loads(row["decay"])) == {
            int(start): value for start, value in period["decay"].items()
        }
    assert rows["composite"]["ic_t"] == pytest.approx(
        rows["composite"]["ic"] / rows["composite"]["ic_error"]
    )


SWEEP = """
history = "candles.csv.gz"
venue = "spot"
from = 2022-04-20
to = 2022-07-31
every = [7]
offsets = [0, 3]

[grid]
"replacement.confirmations" = [1, 2]
"""


def _sweep_file(path: Path, text: str = SWEEP) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def _trials() -> list[Any]:
    items: list[Any] = here("trials", "list", "--json").document["items"]
    return items


def _without_counts(result: dict[str, Any]) -> dict[str, Any]:
    """The result but for the number of former trials, which differs."""
    counted = {"trials", "headline", "deflated_sharpe", "trial_id"}
    return {name: value for name, value in result.items() if name not in counted}


def test_any_number_of_workers_gives_the_results_of_single_backtests(room: Path) -> None:
    file = _write(room / "candles.csv.gz")
    sweep = _sweep_file(room / "sweep.toml")
    first = here("sweep", sweep, "--workers", "1", "--output", "one", "--json")
    assert first.code == 0, first.err
    one = {trial["parameters"]["run_hash"]: trial for trial in _trials()}
    assert len(one) == first.document["ran"] == first.document["trials"] == 4
    assert "4 of 4: " in first.err
    assert "about 0 s left" in first.err
    rows = first.document["rows"]
    sharpes = [row["sharpe"] for row in rows]
    assert sharpes == sorted(sharpes, reverse=True)
    assert {row["run_hash"] for row in rows} == one.keys()
    assert {row["label"] for row in rows} == {
        f"replacement.confirmations={count} every=7 offset={offset} seed=1"
        for count in (1, 2)
        for offset in (0, 3)
    }
    assert all(0.0 < row["deflated_sharpe"] < 1.0 for row in rows)
    assert 0.0 <= first.document["overfitting"] <= 1.0
    assert first.document["compared"] == 4

    second = here("sweep", sweep, "--workers", "2", "--output", "two", "--json",
                  MYSYMBOLS_DATABASE__URL="sqlite+aiosqlite:///second.sqlite3")  # fmt: skip
    assert second.code == 0, second.err

    # the second database has the same runs in it: only their ids differ
    def comparable(document: Any) -> list[Any]:
        return [{**row, "trial_id": ""} for row in document["rows"]]

    assert comparable(second.document) == comparable(first.document)
    assert second.document["overfitting"] == first.document["overfitting"]
    for name in one:
        runs = [pq.read_table(room / folder / f"{name}.parquet") for folder in ("one", "two")]
        assert runs[0].equals(runs[1])
        assert runs[0].column_names == [
            "date", "portfolio_value", "daily_return", "portfolio_changes",
        ]  # fmt: skip

    alone = here("backtest", str(file), *OPTIONS, "--offset", "3", "--steps", "steps.csv",
                 "--set", "replacement.confirmations=1")  # fmt: skip
    (same,) = [
        (name, trial)
        for name, trial in one.items()
        if trial["parameters"]["offset"] == 3
        and trial["parameters"]["configuration"]["replacement"]["confirmations"] == 1
    ]
    assert _without_counts(same[1]["result"]) == {
        **_without_counts(alone.document),
    }
    logged = _trials()[0]
    assert logged["parameters"] | {"run_hash": same[0]} == same[1]["parameters"]
    with (room / "steps.csv").open(encoding="utf-8") as lines:
        values = [row["portfolio_value"] for row in csv.DictReader(lines)]
    table = pq.read_table(room / "one" / f"{same[0]}.parquet")
    assert [f"{value:.6f}" for value in table["portfolio_value"].to_pylist()] == values


def test_a_second_sweep_runs_only_the_missing_trials(room: Path) -> None:
    _write(room / "candles.csv.gz")
    small = SWEEP.replace("[0, 3]", "[3]").replace("[1, 2]", "[2]")
    sweep = _sweep_file(room / "sweep.toml", small)
    first = here("sweep", sweep, "--workers", "1", "--json")
    assert first.code == 0, first.err
    assert [one.suffix for one in (room / "sweep").iterdir()] == [".parquet"]
    (done,) = _trials()

    _sweep_file(room / "sweep.toml", small.replace("[2]", "[2, 3]"))
    second = here("sweep", sweep, "--workers", "1", "--json")
    assert second.code == 0, second.err
    assert "2 trials, 1 of them logged before" in second.err
    assert (second.document["ran"], second.document["trials"]) == (1, 2)
    assert done["id"] in {row["trial_id"] for row in second.document["rows"]}
    assert len(_trials()) == 2

    (room / "sweep" / f"{done['parameters']['run_hash']}.parquet").unlink()
    third = here("sweep", sweep, "--workers", "1")
    assert third.code == 0, third.err
    assert "2 trials, 2 of them logged before" in third.err
    assert "1 logged runs have no file" in third.err
    assert "by falling Sharpe ratio; deflated by 2 trials so far" in third.out
    assert "over 1 runs: unknown" in third.out
    assert len(_trials()) == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("every = [7]", "every = 7", "every must be a list"),
        ("every = [7]", "every = [0]", "every takes whole numbers from 1 to 90, not 0"),
        ("offsets = [0, 3]", "offsets = [7]", "offsets takes whole numbers from 0 to 6, not 7"),
        ("offsets = [0, 3]", "offsets = [3, 3]", "offsets has 3 twice"),
        ("offsets", "offset", "offset is no key of a sweep"),
        ("from = 2022-04-20", 'from = "2022-04-20"', "from must be a day"),
        ("[grid]", "[costs]\nfee_bp = -1\n[grid]", "costs.fee_bp takes 0 to 1000"),
        ("[grid]", "[costs]\nfee = 1\n[grid]", "costs.fee is no key"),
        ("[1, 2]", "[1, 0]", "replacement.confirmations"),
        ("[1, 2]", "1", "grid.replacement.confirmations must be a list"),
        ("confirmations", "nothing", "replacement.nothing"),
        ("to = 2022-07-31", "to = 2022-04-01", "the period is empty"),
        ("candles.csv.gz", "absent.csv", "there is no file absent.csv"),
        ('history = "candles.csv.gz"', "", "history must be the path"),
        ('"spot"', '"perp"', "has no venue perp"),
        ("[grid]", "[grid", "sweep.toml is not a TOML document"),
    ],
)
def test_a_wrong_sweep_names_its_key_and_logs_nothing(
    room: Path, old: str, new: str, message: str
) -> None:
    _write(room / "candles.csv.gz")
    text = SWEEP.replace(old, new, 1)
    assert text != SWEEP
    refused = here("sweep", _sweep_file(room / "sweep.toml", text), "--workers", "1")
    assert (refused.code, message in refused.err) == (ExitCode.USAGE, True), refused.err
    assert _trials() == []
    assert not (room / "sweep").exists()


def test_a_worker_refuses_another_data_hash(room: Path) -> None:
    history = read_history(_write(room / "candles.csv.gz"))
    plan = SweepPlan.of({"history": "candles.csv.gz"})
    (task,) = plan_tasks(plan, room / "candles.csv.gz", history, lambda _: Configuration(), "1")
    other = replace(task, data_hash="0" * 64)
    outcomes: list[SweepOutcome] = []
    with ThreadPoolExecutor(1) as threads, pytest.raises(ValueError, match="has the data hash"):
        run_tasks(threads, [other], (), lambda: "one", utc_now, outcomes.append)
    assert outcomes == []


def test_ctrl_c_ends_a_sweep_and_a_second_start_goes_on(room: Path) -> None:
    _write(room / "candles.csv.gz")
    sweep = _sweep_file(room / "sweep.toml", SWEEP.replace("[0, 3]", '"all"'))
    # Not a child of the fork server: its daemons may have no workers.
    child = subprocess.Popen(
        [Path(sys.executable).with_name("my-symbols"), "sweep", sweep, "--workers", "1"],
        cwd=room,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120.0
        while not list(room.glob("sweep/*.parquet")) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to the workers too
        _, stderr = child.communicate(timeout=60.0)
    finally:
        child.kill()
    assert child.returncode == ExitCode.INTERRUPTED, stderr
    assert "the same command goes on" in stderr
    assert "Traceback" not in stderr
    before = len(_trials())
    assert before < 14
    rest = here("sweep", sweep, "--workers", "1", "--json")
    assert rest.code == 0, rest.err
    assert f"14 trials, {before} of them logged before" in rest.err
    assert (rest.document["ran"], rest.document["trials"]) == (14 - before, 14)
