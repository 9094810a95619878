"""The demo as a process, the commands against the service that it runs, and how it all ends."""

import csv
import json
import os
import shutil
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from app.cli.exit_codes import CommandError, ExitCode
from app.cli.output import Output
from app.cli.programs.demo import (
    DEMO_QUOTA,
    DemoResult,
    delete_database,
    describe_decision,
    print_result,
)
from app.foundation.sql.file_lock import FileLock
from app.settings import KucoinVariables
from tests.cli.command import PATIENCE_S, Ended, alone, ended, here, started
from tests.support import child_processes

# One demo serves all tests of this file: with xdist, keep them together (--dist loadgroup).
pytestmark = pytest.mark.xdist_group("demo")
CONTRACTS = "150"


@dataclass(frozen=True, slots=True)
class Demo:
    url: str
    document: dict[str, Any]
    child: child_processes.Command
    cwd: Path
    first_line_s: float

    def ask(self, *command: str) -> Ended:
        """The ending of a command; the schedule may rebalance just then, which says: once more."""
        until = time.monotonic() + PATIENCE_S
        said = here(*command, "--url", self.url)
        while "rebalance_in_progress" in said.err and time.monotonic() < until:
            time.sleep(0.2)
            said = here(*command, "--url", self.url)
        return said

    def told(self, *command: str) -> Any:
        said = self.ask(*command, "--json")
        assert said.code == ExitCode.OK, said.out + said.err
        return said.document


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    cwd = tmp_path_factory.mktemp("demo")
    child = started("demo", "--port", "0", "--contracts", CONTRACTS, "--json", cwd=cwd)
    began = time.monotonic()
    assert child.stderr.readline() == "demo: loading the service\n"
    first_line_s = time.monotonic() - began
    line = child.stdout.readline()
    if not line:
        raise AssertionError(child.stderr.read())
    document = json.loads(line, parse_float=Decimal)
    yield Demo(document["url"], document, child, cwd, first_line_s)
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        ended(child)


def test_a_demo_ends_with_a_portfolio_that_adds_up(demo: Demo) -> None:
    portfolio = demo.document["portfolio"]
    members = portfolio["members"]
    assert len(members) == 10
    weights = [Decimal(str(member["weight_percentage"])) for member in members]
    assert sum(weights) + Decimal(str(portfolio["cash_percentage"])) == 100
    assert Decimal(demo.document["weights_and_cash"]) == 100
    assert all(5 <= weight <= 20 for weight in weights)
    assert [member["position_rank"] for member in members] == list(range(1, 11))


def lines_until(child: child_processes.Command, text: str) -> list[str]:
    """Lines of standard error up to the one with the text."""
    lines: list[str] = []
    until = time.monotonic() + PATIENCE_S
    while not lines or text not in lines[-1]:
        assert time.monotonic() < until, lines
        lines.append(child.stderr.readline())
    return lines


def test_a_demo_shows_its_progress_from_the_first_second(demo: Demo) -> None:
    assert demo.first_line_s < 1.0
    lines = lines_until(demo.child, "Ctrl-C ends the demo")
    expected = (
        "starting the local exchange", "local exchange at", "service at", "first fill: ",
        "scoring the market", "choosing the members", f"serving {demo.url}",
    )  # fmt: skip
    places = [next(i for i, line in enumerate(lines) if text in line) for text in expected]
    assert places == sorted(places)
    seconds = [float(line[1:].partition(" s]")[0]) for line in lines]
    assert seconds == sorted(seconds)


def test_a_demo_prints_a_line_for_each_decision(demo: Demo) -> None:
    for state in ("off", "on"):
        demo.told("trading", state, "--reason", f"[switched] {state}")
        line = lines_until(demo.child, f"[switched] {state}")[-1]
        assert ": SWITCH; [switched]" in line


CHANGE: dict[str, Any] = {
    "version": 7,
    "reason": "worth the cost",
    "history": [{"type": "REPLACE", "symbol": "SOLUSDT", "other_symbol": "ADAUSDT"}],
    "members": [
        {"symbol": "SOLUSDT", "old_weight_percentage": None, "new_weight_percentage": 8.5},
        {"symbol": "BTCUSDT", "old_weight_percentage": 20.0, "new_weight_percentage": 20.0},
        {"symbol": "ADAUSDT", "old_weight_percentage": 8.5, "new_weight_percentage": None},
    ],
}


@pytest.mark.parametrize(
    ("topic", "data", "line"),
    [
        (
            "portfolio_change",
            {"type": "REPLACE", "details": CHANGE},
            "version 7: REPLACE SOLUSDT for ADAUSDT; 2 weights changed; worth the cost",
        ),
        (
            "rebalance",
            {
                "type": "proposal_opened",
                "proposal_id": "0a1b2c3d-0000",
                "kind": "replacement",
                "subject": "ADAUSDT",
                "reason": "better",
            },
            (
                "proposal: replacement of ADAUSDT; better; decide with `my-symbols portfolio"
                " approve 0a1b2c3d` or `decline`"
            ),
        ),
        (
            "rebalance",
            {
                "type": "proposal_decided",
                "state": "approved",
                "decided_by": "ana",
                "kind": "rebalance",
                "subject": "portfolio",
            },
            "proposal approved by ana: rebalance of portfolio",
        ),
        ("rebalance", {"type": "plan_created"}, None),
        (
            "signal",
            {
                "type": "momentum",
                "source": "desk",
                "symbol": None,
                "evaluation": "REJECT",
                "reason": "no quorum",
            },
            "signal REJECT: momentum of desk for the market; no quorum",
        ),
        ("signal", {"type": "momentum", "evaluation": None}, None),
    ],
)
def test_a_decision_is_one_line(topic: str, data: dict[str, Any], line: str | None) -> None:
    assert describe_decision({"type": "event", "topic": topic, "data": data}) == line
    assert describe_decision({"type": "gap"}) is None


def test_a_demo_reports_the_coverage_of_its_board(demo: Demo) -> None:
    run, funnel = demo.document["run"], demo.document["funnel"]
    assert run["median_confidence"] >= Decimal("0.7")
    thin = {factor: covered for factor, covered in run["coverage"].items() if covered < 0.95}
    assert thin.keys() <= {"open_interest_change", "signed_volume", "trade_intensity"}, thin
    entered = funnel["universe"]
    for stage in funnel["stages"]:
        assert stage["entered"] == entered
        entered -= stage["failed"]
    assert entered == funnel["eligible"]
    cards = {card["symbol"]: card for card in demo.document["board"]}
    assert len(cards) == run["scores_calculated"]
    for member in demo.document["portfolio"]["members"]:
        assert cards[member["symbol"]]["composite_score"] >= Decimal("0.6")


def test_people_get_the_same_as_tables(
    demo: Demo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    found = demo.document
    symbol = found["board"][20]["symbol"]
    refusal = {
        "symbol": symbol,
        "score": Decimal("0.9381"),
        "reason": "correlation_limit",
        "conflicting_symbol": found["board"][0]["symbol"],
        "correlation": Decimal("0.7912"),
    }
    for refused in ([], [refusal]):
        result = DemoResult(
            url=found["url"],
            portfolio=found["portfolio"],
            choice={"refused": refused},
            rankings={"items": found["board"]},
            run=found["run"],
            funnel=found["funnel"],
            usable_s=9.87,
        )
        print_result(result, Output(as_json=False), 12.34)
        said = capsys.readouterr().out
        for member in found["portfolio"]["members"]:
            assert f"{member['contract']} " in said
            assert f"{member['weight_percentage']:.6f}" in said
        assert "= 100 %" in said
        assert all(factor in said for factor in found["run"]["coverage"])
        assert all(stage["name"] in said for stage in found["funnel"]["stages"])
        assert "12.3 s" in said
        assert "first usable board: after 9.9 s" in said
        assert "median confidence" in said
        assert ("0.791" in said) == bool(refused)


def test_the_demo_raises_the_quota_of_its_own_exchange_only() -> None:
    assert DEMO_QUOTA == 100_000
    assert KucoinVariables().quota_per_window == 2000


def test_it_serves_the_docs(demo: Demo) -> None:
    page = HTTPConnection(demo.url.removeprefix("http://"), timeout=60)
    page.request("GET", "/docs")
    assert page.getresponse().status == 200
    page.close()


def test_a_symbol_in_every_spelling(demo: Demo) -> None:
    for spelling in ("BTCUSDT", "xbtusdtm", "BTC/USDT:USDT"):
        formats = demo.told("symbols", "convert", spelling)
        assert "XBTUSDTM" in formats.values()
    assert "XBTUSDTM" in demo.ask("symbols", "convert", "BTCUSDT").out
    unknown = demo.ask("symbols", "convert", "NOSUCHCOIN", "--json")
    assert (unknown.code, unknown.document["code"]) == (ExitCode.REFUSED, "symbol_unknown")


def test_contracts_are_read_and_scores_made_on_demand(demo: Demo) -> None:
    assert demo.told("symbols", "sync")
    assert demo.ask("symbols", "sync").code == ExitCode.OK
    run = demo.told("scoring", "calculate")
    assert run["scores_calculated"] == demo.document["run"]["scores_calculated"]
    board = demo.ask("scoring", "calculate", "--limit", "3")
    assert board.code == ExitCode.OK
    assert "board" in board.out
    assert demo.told("scoring", "calculate", "ETHUSDT")["score"]["symbol"] == "ETHUSDT"


def test_an_explanation_adds_up(demo: Demo) -> None:
    symbol = demo.document["portfolio"]["members"][0]["symbol"]
    said = demo.told("scoring", "explain", symbol)
    shares = [factor["contribution"] for factor in said["factors"] if factor["contribution"]]
    assert sum(shares) == pytest.approx(said["z"], abs=1e-9)
    shown = demo.ask("scoring", "explain", symbol)
    assert "volatility" in shown.out
    first = next(one for one in said["factors"] if one["contribution"])
    for name in ("z", "weight_in_family", "weight_of_family", "confidence", "contribution"):
        assert f"{first[name]:.6f}" in shown.out, name
    for family in said["families"]:
        assert f"{family['weighted_sum']:.6f}" in shown.out
    for name in ("formula", "why_percentiles_differ"):
        assert said[name].split()[0] in shown.out


def test_sectors_are_edited_exported_and_imported(demo: Demo, tmp_path: Path) -> None:
    changed = demo.ask("sectors", "set", "BTC", "store_of_value", "--reason", "a test")
    assert "layer1 -> store_of_value" in changed.out
    shown = demo.ask("sectors", "list", "--sector", "store_of_value")
    assert "BTCUSDT" in shown.out
    whole = demo.told("sectors", "list")
    assert (len(whole["items"]) > 500, whole["next_cursor"]) == (True, None), "all pages"
    assert [one["base"] for one in whole["items"] if one["is_edited"]] == ["BTC"]

    table = tmp_path / "sectors.csv"
    demo.ask("sectors", "export", str(table))
    text = table.read_text()
    assert "BTC,coin,store_of_value,large" in text
    assert demo.ask("sectors", "export").out == text
    table.write_text(text.replace("ETH,coin,layer1,large", "ETH,coin,platform,large"))
    done = demo.ask("sectors", "import", str(table))
    assert "layer1 -> platform" in done.out
    table.write_text("base,sector")
    wrong = demo.ask("sectors", "import", str(table))
    assert (wrong.code, "must begin with" in wrong.err) == (ExitCode.REFUSED, True)
    for base in ("BTC", "ETH"):
        assert "-> default" in demo.ask("sectors", "reset", base).out
    absent = demo.ask("sectors", "import", str(tmp_path / "absent.csv"))
    assert absent.code == ExitCode.USAGE


def test_the_portfolio_is_shown_and_changed(demo: Demo) -> None:
    before = demo.told("portfolio", "show")
    assert "= 100 %" in demo.ask("portfolio", "show").out
    full = demo.ask("portfolio", "initialize", "--json")
    assert (full.code, full.document["code"]) == (ExitCode.REFUSED, "portfolio_not_empty")

    last = before["members"][-1]["symbol"]
    removed = demo.ask("portfolio", "remove", last, "--reason", "a test")
    assert removed.code == ExitCode.OK
    assert "= 100 %" in removed.out
    again = demo.told("portfolio", "add", last)
    assert again["symbol"] == last
    twice = demo.ask("portfolio", "add", last, "--json")
    assert twice.code == ExitCode.REFUSED

    held = {member["symbol"] for member in before["members"]}
    for card in demo.document["board"]:
        if card["symbol"] in held:
            continue
        said = demo.ask("portfolio", "replace", last, card["symbol"], "--json")
        if said.code == ExitCode.OK:
            break
        # Which of the two limits comes first differs with the hour: the market goes on.
        assert said.document["code"] in {"correlation_limit", "sector_limit"}
    assert said.code == ExitCode.OK
    assert len(demo.told("portfolio", "show")["members"]) == 10
    rows = list(csv.DictReader(demo.ask("portfolio", "show", "--csv").out.splitlines()))
    assert [row["symbol"] for row in rows] == [
        one["symbol"] for one in demo.told("portfolio", "show")["members"]
    ]
    factors = demo.ask("scoring", "explain", rows[0]["symbol"], "--csv").out
    assert {"volatility", "spread"} < {row["name"] for row in csv.DictReader(factors.splitlines())}


def test_a_rebalance_is_shown_before_it_is_done(demo: Demo) -> None:
    plan = demo.told("portfolio", "rebalance", "--dry-run")
    by_size = demo.told("portfolio", "rebalance", "--dry-run", "--balance", "1000000")
    assert by_size["lots"]["lots"], "a balance names lots of all members"
    assert plan["dry_run"] is True
    done = demo.ask("portfolio", "rebalance", "--key", "a-test")
    assert done.code == ExitCode.OK
    assert "turnover" in done.out
    assert demo.told("portfolio", "rebalance")["total_changes"] == 0


def test_the_doctor_finds_a_running_demo_well(demo: Demo) -> None:
    said = here(
        "doctor",
        "--json",
        MYSYMBOLS_DATABASE__URL=f"sqlite+aiosqlite:///{demo.cwd}/var/demo.sqlite3",
        MYSYMBOLS_KUCOIN__BASE_URL="http://127.0.0.1:9",
    )
    checks = {check["name"]: check["verdict"] for check in said.document["checks"]}
    assert (checks["database"], checks["schema"]) == ("ok", "ok")


def test_one_process_owns_the_file(demo: Demo) -> None:
    url = f"sqlite+aiosqlite:///{demo.cwd}/var/demo.sqlite3"
    second = alone("serve", "--port", "0", cwd=demo.cwd, variables={"MYSYMBOLS_DATABASE__URL": url})
    assert second.code == ExitCode.CONFIGURATION
    assert f"process {demo.child.pid} has demo.sqlite3 open" in second.err
    assert "Traceback" not in second.err


def test_a_second_demo_leaves_the_data_of_the_running_one_alone(demo: Demo) -> None:
    file = demo.cwd / "var/demo.sqlite3"
    before = (file.stat().st_ino, demo.told("portfolio", "show")["version"])
    port = demo.url.rpartition(":")[2]
    for chosen, code, word in (
        ("0", ExitCode.CONFIGURATION, "database_in_use"),
        (port, ExitCode.UNAVAILABLE, "address_not_available"),
    ):
        arguments = ("demo", "--port", chosen, "--contracts", "5", "--once", "--json")
        second = alone(*arguments, cwd=demo.cwd)
        assert second.code == code, second.err
        assert second.document["code"] == word
        assert "Traceback" not in second.err
        if word == "database_in_use":
            assert f"process {demo.child.pid} has demo.sqlite3 open" in second.err
    assert (file.stat().st_ino, demo.told("portfolio", "show")["version"]) == before


def test_a_demo_begins_with_nothing_of_an_earlier_market(tmp_path: Path) -> None:
    file = tmp_path / "demo.sqlite3"
    names = (file.name, "demo-jobs.sqlite3")  # what it knew, and what it was doing
    left = [file.with_name(name + suffix) for name in names for suffix in ("", "-wal", "-shm")]
    for one in left:
        one.write_bytes(b"another market")
    held = FileLock.acquire(str(file))
    with pytest.raises(CommandError) as refused:
        delete_database(file)
    assert refused.value.exit_code == ExitCode.CONFIGURATION
    assert all(one.exists() for one in left)
    held.release()
    delete_database(file)
    assert not any(one.exists() for one in left)
    FileLock.acquire(str(file)).release()
    with pytest.raises(CommandError, match="is a directory") as nowhere:
        delete_database(tmp_path)
    assert nowhere.value.exit_code == ExitCode.CONFIGURATION
    kept = here("demo", "--keep")
    assert kept.code == ExitCode.USAGE


def test_live_data_is_never_mixed_into_a_demo(demo: Demo) -> None:
    copy = demo.cwd / "copy.sqlite3"
    with (
        closing(sqlite3.connect(demo.cwd / "var/demo.sqlite3")) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    variables = {
        "MYSYMBOLS_DATABASE__URL": f"sqlite+aiosqlite:///{copy}",
        "MYSYMBOLS_KUCOIN__SOURCE": "kucoin",
        "MYSYMBOLS_KUCOIN__BASE_URL": "http://127.0.0.1:9",
    }
    mixed = alone("serve", "--port", "0", cwd=demo.cwd, variables=variables)
    assert mixed.code == ExitCode.CONFIGURATION
    assert "sandbox" in mixed.err
    assert "kucoin" in mixed.err
    assert "Traceback" not in mixed.err


def test_a_taken_port_is_named(demo: Demo) -> None:
    port = demo.url.rpartition(":")[2]
    second = here("serve", "--port", port)
    assert second.code == ExitCode.UNAVAILABLE
    assert "address_not_available" in second.err
    assert port in second.err


def test_ctrl_c_ends_it_cleanly_and_takes_the_exchange_along(demo: Demo) -> None:
    """The last of this file: it stops the demo."""
    children = _children(demo.child.pid)
    assert len(children) == 1
    demo.child.send_signal(signal.SIGINT)
    began = time.monotonic()
    _until(lambda: demo.child.poll() is not None, within_s=10)
    assert time.monotonic() - began < 2
    said = ended(demo.child)
    assert said.code == ExitCode.OK
    assert said.out == ""
    assert "Traceback" not in said.err, said.err[said.err.index("Traceback") :][:4000]
    last_line = said.err.splitlines()[-1]
    assert last_line.endswith("; its database is var/demo.sqlite3")
    assert "demo ended after " in last_line
    _until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), within_s=10)
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    with closing(sqlite3.connect(demo.cwd / "var/demo.sqlite3")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_exchange_does_not_outlive_a_demo_that_was_killed(tmp_path: Path) -> None:
    child = started("demo", "--port", "0", "--contracts", "5", cwd=tmp_path)
    children = _until(lambda: _children(child.pid))
    child.kill()
    ended(child)
    _until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))


def test_serve_stays_up_without_an_exchange_and_ends_on_a_signal(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        refusing = f"http://127.0.0.1:{taken.getsockname()[1]}"
        port = _free_port()
        child = started(
            "serve", "--port", str(port), cwd=tmp_path, MYSYMBOLS_KUCOIN__BASE_URL=refusing
        )
        url = f"http://127.0.0.1:{port}"
        _until(lambda: here("portfolio", "show", "--url", url).code == ExitCode.OK)
        said = here("scoring", "calculate", "--json", "--url", url)
        assert said.code == ExitCode.UNAVAILABLE
        # As make and timeout pass one on: twice. It is one request, and ends in order.
        child.send_signal(signal.SIGTERM)
        child.send_signal(signal.SIGINT)
        said = ended(child)
        assert said.code == ExitCode.OK
        assert "Traceback" not in said.err


def test_a_replay_that_cannot_be_read_ends_the_demo_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.csv").write_text("symbol,ts\nBTCUSDT,yesterday\n")
    child = started("demo", "--port", "0", "--replay", "broken.csv", "--json", cwd=tmp_path)
    said = ended(child)
    assert said.code == ExitCode.UNAVAILABLE
    assert said.document["code"] == "sandbox_not_started"
    assert "broken.csv" in said.err
    assert "Traceback" not in said.err


def _noise(path: Path) -> str:
    path.write_bytes(b"this is not a database" * 100)
    return f"sqlite+aiosqlite:///{path}"


def _torn(path: Path) -> str:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.commit()
    sound = path.read_bytes()
    path.write_bytes(sound[:100] + b"\xff" * (len(sound) - 100))
    return f"sqlite+aiosqlite:///{path}"


@pytest.mark.parametrize(
    ("database", "code", "told"),
    [
        (_noise, ExitCode.CORRUPT, "corrupt"),
        (_torn, ExitCode.CORRUPT, "corrupt"),
    ],
)
def test_an_unusable_database_is_reported_in_one_line(
    tmp_path: Path, database: Callable[[Path], str], code: ExitCode, told: str
) -> None:
    variables = {
        "MYSYMBOLS_DATABASE__URL": database(tmp_path / "x.sqlite3"),
        "MYSYMBOLS_KUCOIN__BASE_URL": "http://127.0.0.1:9",
    }
    said = alone("serve", "--port", "0", cwd=tmp_path, variables=variables)
    assert said.code == code
    assert "Traceback" not in said.err
    last = said.err.splitlines()[-1]
    assert last.startswith("database_unavailable: ")
    assert told in last
    if told == "corrupt":
        assert "backup" in last


def test_B10_B11_a_file_in_use_or_of_a_later_version_ends_serve_and_is_left_alone(
    sqlite_template: Path, tmp_path: Path
) -> None:
    path = tmp_path / "held.sqlite3"
    shutil.copy(sqlite_template, path)
    variables = {
        "MYSYMBOLS_DATABASE__URL": f"sqlite+aiosqlite:///{path}",
        "MYSYMBOLS_KUCOIN__BASE_URL": "http://127.0.0.1:9",
    }
    held, before = FileLock.acquire(str(path)), path.read_bytes()
    said = alone("serve", "--port", "0", cwd=tmp_path, variables=variables)
    held.release()
    assert (said.code, int(ExitCode.CONFIGURATION)) == (
        ExitCode.CONFIGURATION,
        78,
    )  # as the row says
    assert f"database in use: process {os.getpid()}" in said.err.splitlines()[-1]
    assert path.read_bytes() == before

    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE alembic_version SET version_num = 'later'")
        database.commit()
    said = alone("serve", "--port", "0", cwd=tmp_path, variables=variables)
    assert said.code == ExitCode.CONFIGURATION
    assert "later version" in said.err.splitlines()[-1]
    assert "Traceback" not in said.err


def test_G01_serve_names_everything_that_is_wrong_with_its_settings() -> None:
    wrong = {"LOG__LEVEL": "loud", "DATABASE__POOL_SIZE": "-17", "HTTP__PORT": "99999999"}
    said = here("serve", **{f"MYSYMBOLS_{name}": value for name, value in wrong.items()})
    assert said.code == ExitCode.CONFIGURATION
    for name, value in wrong.items():
        assert f"MYSYMBOLS_{name}" in said.err
        assert value not in said.err


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(one) for one in path.read_text().split()] if path.exists() else []


def _until(true: Any, within_s: float = 240.0) -> Any:
    limit = time.monotonic() + within_s
    while not (found := true()):
        assert time.monotonic() < limit, "it did not come true in time"
        time.sleep(0.05)
    return found


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
