"""The golden recording decides as it did; what it holds, and what a difference looks like."""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.golden.recording import MOST_BYTES, Fixture, digest_of, replayed
from tests.golden.rows import (
    Names,
    Row,
    UnknownNameError,
    as_text,
    decimal,
    first_difference,
    from_text,
    hashes_of,
)

FIXTURE = Fixture()
# Kind with verdict, rule or reason: each must be on the recording at least once.
REQUIRED = {
    ("alert_raised", "not_tradeable"),
    ("alert_raised", "quarantined"),
    ("alert_resolved", "cleared"),
    ("change", "ADD"),
    ("change", "CONFIG"),
    ("change", "LOCK"),
    ("change", "REBALANCE"),
    ("change", "REMOVE"),
    ("change", "REPLACE"),
    ("change", "SWITCH"),
    ("change", "WEIGHTS"),
    ("effect", "auto"),
    ("effect", "propose"),
    ("proposal", "approved"),
    ("proposal", "declined"),
    ("proposal", "rebalance"),
    ("proposal", "signal"),
    ("proposal", "superseded"),
    ("rebalance", "done"),
    ("rebalance", "observed"),
    ("rebalance", "proposed"),
    ("rebalance", "unchanged"),
    ("refused", "market_data_stale"),
    ("refused", "trading_disabled"),
    ("score", "not_eligible"),
    ("shift", "decrease"),
    ("shift", "enter"),
    ("shift", "exit"),
    ("shift", "increase"),
    ("signal", "APPROVE"),
    ("signal", "REJECT"),
    ("swap", "blocked"),
    ("swap", "due"),
    ("swap", "forced"),
    ("trade", "no_trade"),
    ("trade", "trade"),
    ("trigger", "drift"),
    ("trigger", "interval"),
}
FILLED = {"lots", "member", "optimised", "size"}


async def test_every_decision_on_the_recording_is_made_again() -> None:
    names = Names.read(FIXTURE.names)
    decisions = await replayed(FIXTURE.recording.read_bytes(), names)
    difference = first_difference(FIXTURE.expected_rows(), decisions.rows)
    assert difference is None, difference
    known = FIXTURE.expected_hashes()
    assert hashes_of(decisions.rows).items() <= known.items()
    # Each stored decision gives the same bytes again from its stored inputs.
    assert [key for key, is_identical in decisions.replays.items() if not is_identical] == []
    replays = Counter(kind for kind, _ in decisions.replays)
    assert replays.keys() == {"rebalance", "replacement", "signal", "alert"}, replays
    assert min(replays.values()) > 3, replays


def test_the_fixture_belongs_together() -> None:
    recording, known = FIXTURE.recording.read_bytes(), FIXTURE.expected_hashes()
    assert len(recording) <= MOST_BYTES
    assert known["recording"] == digest_of(recording)
    rows = FIXTURE.expected_rows()
    assert {"recording": digest_of(recording), **hashes_of(rows)} == known
    assert {f"hour {one}" for one in range(12)} <= known.keys()


def test_every_kind_of_decision_occurs() -> None:
    numbered = Names.read(FIXTURE.names).numbers
    names = {(table, str(number)): name for (table, name), number in numbered.items()}
    found: set[tuple[str, str]] = set()
    filled: set[str] = set()
    for row in FIXTURE.expected_rows():
        kind = names["kind", row.kind]
        for table in ("verdict", "rule", "reason"):
            number = getattr(row, table)
            if number:
                found.add((kind, names[table, number]))
        if row.weight_u and (row.lots or kind not in {"lots", "size"}):
            filled.add(kind)
    assert found >= REQUIRED, sorted(REQUIRED - found)
    assert filled >= FILLED


def test_rows_hold_numbers_and_symbols_only() -> None:
    for row in FIXTURE.expected_rows():
        for text in (row.at_ms, row.kind, row.verdict, row.rule, row.reason):
            assert not text or text.isdigit(), row
        assert "-" not in row.symbol.removesuffix("-261225"), row


ROWS = [Row("1000", "1", "ETHUSDT", z="0.100000"), Row("2000", "2", "BTCUSDT", lots="4")]


def test_the_first_differing_row_is_shown() -> None:
    assert first_difference(ROWS, list(ROWS)) is None
    said = first_difference(ROWS, [ROWS[0], replace(ROWS[1], lots="5")])
    assert said is not None
    assert "row 2 of 2 differs in lots" in said
    assert "2000,2,BTCUSDT,,,,,4,,," in said
    assert "2000,2,BTCUSDT,,,,,5,,," in said
    shorter = first_difference(ROWS, ROWS[:1])
    assert shorter is not None
    assert "(no row)" in shorter
    longer = first_difference(ROWS[:1], ROWS)
    assert longer is not None
    assert "row 2 of 1 differs in its presence" in longer


def test_rows_and_hashes_keep_what_was_decided() -> None:
    assert from_text(as_text(ROWS)) == ROWS
    assert hashes_of(ROWS)["all"] != hashes_of(ROWS[:1])["all"]
    assert set(hashes_of([*ROWS, Row("3600000", "1")])) == {"all", "hour 0", "hour 1"}
    assert (decimal(-1e-9), decimal(0.12345649), decimal(None)) == ("0.000000", "0.123456", "")


def test_a_renamed_name_keeps_its_number_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    names = Names(is_open=True)
    assert [names.number("kind", one) for one in ("board", "score", "board")] == ["1", "2", "1"]
    names.write(path)
    path.write_text(path.read_text().replace("score", "grade"), encoding="utf-8")
    renamed = Names.read(path)
    assert renamed.number("kind", "grade") == "2"
    with pytest.raises(UnknownNameError, match="'score' has no number in table 'kind'"):
        renamed.number("kind", "score")
    again = Names.read(path, is_open=True)
    assert again.number("kind", "score") == "3"


@pytest.mark.long
def test_recording_and_replay_are_the_same_for_every_hash_seed() -> None:
    """Two processes, each with another order of sets, record and decide the same two hours."""
    said = []
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "tests.golden", "--hours", "2.2", "--print"]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        made = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        said.append(made.stdout)
    assert "recording" in said[0]
    assert said[0] == said[1]
