"""Commands against a whole service: every listing in each form, changes, ids by their beginning."""

import csv
import io
import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import PATIENCE_S, Ended, ended, here, started
from tests.cli.service_commands import READS
from tests.cli.test_client import answering
from tests.support import child_processes

# One service serves all tests of this file: with xdist, keep them together (--dist loadgroup).
pytestmark = pytest.mark.xdist_group("live_commands")


@dataclass(frozen=True, slots=True)
class Service:
    url: str
    member: str
    run_id: str

    def ask(self, *command: str, given: str | None = None, **variables: str) -> Ended:
        return here(*command, "--url", self.url, given=given, **variables)

    def text(self, *command: str, **variables: str) -> str:
        """What people see of a command that succeeds."""
        done = self.ask(*command, **variables)
        assert done.code == 0, (command, done.err)
        return done.out

    def document(self, *command: str, given: str | None = None) -> Any:
        done = self.ask(*command, "--json", given=given)
        assert done.code == 0, (command, done.err)
        return done.document


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a portfolio of ten over its own local exchange, in a process of its own."""
    directory = tmp_path_factory.mktemp("live")
    child = started("demo", "--port", "0", "--contracts", "80", "--json", cwd=directory)
    line = child.stdout.readline()
    if not line:
        raise AssertionError(child.stderr.read())
    demo = json.loads(line)
    yield Service(demo["url"], demo["portfolio"]["members"][0]["symbol"], demo["run"]["run_id"])
    child.send_signal(signal.SIGINT)
    ended(child)


def read_commands(service: Service) -> list[tuple[str, ...]]:
    """READS with what exists there, and without the filters that leave nothing."""
    commands = []
    for command in READS:
        words = [service.member if word == "BTCUSDT" else word for word in command]
        if any(":0000" in word or word.startswith("0000") for word in words):
            continue  # of one id: below
        plain = words[: next((i for i, word in enumerate(words) if word.startswith("--")), None)]
        plain += ["--balance", "1000"] if "--balance" in words else []
        commands.append(tuple(plain))
    return commands


def test_every_listing_is_shown_as_a_table_as_json_and_as_csv(service: Service) -> None:
    service.text("locks", "set", service.member, "pin", "--reason", "a test")
    service.text("config", "set", "score_tilt=0.7")  # a second version to compare
    commands = read_commands(service)
    assert len(commands) > 45
    own_forms = {"report", "portfolio show", "symbols convert", "scoring explain"} | {
        f"portfolio position-size{ending}" for ending in ("", "s")
    }
    own_forms |= {"config get", "config export", "sectors export", "portfolio preview"}
    for command in commands:
        shown = service.text(*command)
        assert shown.strip(), command
        assert service.document(*command) is not None
        if command[0] in own_forms or " ".join(command[:2]) in own_forms:
            continue
        rows = list(csv.reader(io.StringIO(service.text(*command, "--csv"))))
        assert all(len(row) == len(rows[0]) for row in rows), command
        both = service.ask(*command, "--csv", "--json")
        assert (both.code, both.out) == (2, ""), command
    service.text("locks", "delete", service.member)


def test_csv_has_every_field_with_every_digit(service: Service) -> None:
    page = json.loads(service.ask("scoring", "rankings", "--json").out, parse_float=Decimal)
    rows = list(csv.DictReader(io.StringIO(service.text("scoring", "rankings", "--csv"))))
    assert len(rows) == len(page["items"]) == 20
    for row, item in zip(rows, page["items"], strict=True):
        assert row["symbol"] == item["symbol"]
        assert Decimal(row["composite_score"]) == item["composite_score"]
        assert row["reason"] == (item["reason"] or "")
        assert json.loads(row["supporting_data.confidence.freshness"]) is not None


def test_locks_are_set_listed_shown_and_deleted(service: Service) -> None:
    assert "no symbol is locked" in service.text("locks", "list")
    service.text("locks", "set", "BTC/USDT:USDT", "watch", "--reason", "[soon]", "--user", "ana")
    (lock,) = service.document("locks", "list")["locks"]
    assert (lock["symbol"], lock["kind"], lock["reason"]) == ("BTCUSDT", "watch", "[soon]")
    assert "[soon]" in service.text("locks", "show", "XBTUSDTM")
    assert "BTCUSDT" in service.text("watchlist")
    assert service.document("locks", "delete", "BTCUSDT")["symbol"] == "BTCUSDT"
    assert service.ask("locks", "show", "BTCUSDT").code == 1
    assert "locks set SYMBOL watch" in service.text("watchlist")


def test_trading_is_switched_off_and_on(service: Service) -> None:
    assert service.document("trading", "off", "--reason", "maintenance")["enabled"] is False
    assert "maintenance" in service.text("trading", "show")
    refused = service.ask("portfolio", "rebalance", "--json")
    assert refused.document["code"] == "trading_disabled"
    assert service.document("trading", "on", "--reason", "over")["enabled"] is True
    listed = service.document("history", "--action", "SWITCH")["items"]
    assert [one["reason"] for one in listed[:2]] == ["over", "maintenance"]


def test_channels_are_changed_by_the_beginning_of_their_id(service: Service) -> None:
    address = "https://93.184.216.34/hook"
    secret = "0123456789abcdef"
    added = service.document(
        "channels", "add", "desk", "--kind", "webhook", "--signed", given=f"{address}\n{secret}\n"
    )
    assert added["kinds"] == ["error", "trade", "status"]
    listed = service.ask("channels", "list", COLUMNS="80")
    assert "desk" in listed.out
    assert "93.184" not in listed.out
    short = added["id"][:8]
    changed = service.document(
        "channels", "change", short, "--disabled", "--subject", "error", "--subject", "trade"
    )
    assert changed | {"enabled": True, "kinds": added["kinds"]} == added, "the rest stays"
    assert (changed["enabled"], changed["kinds"]) == (False, ["error", "trade"])
    items = service.document("notifications", "list", "--channel", short)["items"]
    assert {item["channel_id"] for item in items} <= {added["id"]}
    second = service.document(
        "channels", "add", "other", "--kind", "webhook", given="https://93.184.216.35/x\n"
    )
    ambiguous = service.ask("channels", "delete", "", "--json")
    assert ambiguous.code == 1, "an empty text is no beginning"
    deleted = service.document("channels", "delete", short.upper())
    assert deleted["id"] == added["id"]
    assert service.document("channels", "delete", second["id"])["name"] == "other"
    assert "channels add" in service.text("channels", "list")
    nothing = service.ask("channels", "add", "desk", given="")
    assert nothing.code == 2
    assert "standard input" in nothing.err


def test_a_signal_is_posted_and_followed_by_the_beginning_of_its_id(service: Service) -> None:
    post = ("signals", "post", "desk", "momentum", "--strength", "0.9", "--confidence", "0.9")
    posted = service.document(*post, "--symbol", service.member, "--direction", "SELL")
    until = time.monotonic() + PATIENCE_S
    short = posted["signal_id"][:8]
    while (shown := service.document("signals", "show", short))["verdict"] is None:
        assert time.monotonic() < until, shown
        time.sleep(0.2)
    assert shown["signal_id"] == posted["signal_id"]
    processed = service.text("signals", "processed", COLUMNS="80")
    assert short in processed
    assert "momentum" in processed
    statistics = service.document("signals", "statistics")
    # The built-in sources may have sent signals of their own by now.
    (desk,) = (one for one in statistics["sources"] if one["source"] == "desk")
    assert sum(desk["states"].values()) == 1
    assert statistics["total"] == sum(statistics["states"].values())
    assert service.document("signals", "cleanup") == {"expired": 0, "removed": 0}
    assert service.document("signals", "reprocess")["queued"] == 0


def test_alert_rules_are_listed_and_changed(service: Service) -> None:
    assert "low_score" in service.text("alerts", "rules")
    rule = service.document(
        "alerts", "set-rule", "low_score", "--severity", "critical", "--cooldown-s", "120"
    )
    assert (rule["severity"], rule["cooldown_s"], rule["enabled"]) == ("critical", 120, True)


def test_runs_and_jobs_are_found_by_the_beginning_of_their_ids(service: Service) -> None:
    assert service.document("portfolio", "rebalance")["run_id"]
    run = service.document("portfolio", "rebalances")["items"][0]["run_id"]
    assert service.document("portfolio", "rebalances", run[:8])["run_id"] == run
    assert "steps" in service.text("portfolio", "rebalances", run)
    service.text("symbols", "sync")
    job = service.document("jobs", "list", "--kind", "contract_sync")["items"][0]["id"]
    tail = job.rpartition(":")[2]
    for text in (job, job[: len("contract_sync:") + 8], tail[:8]):
        assert service.document("jobs", "show", text)["id"] == job
    several = service.ask("jobs", "show", "contract_sync:", "--json")
    unknown = service.ask("jobs", "show", "nonsense", "--json")
    assert unknown.document["code"] == "not_found"
    assert several.code in {0, 2}


def test_a_scoring_run_is_shown_and_repeated(service: Service) -> None:
    run = service.document("scoring", "run", service.run_id)
    assert run["run_id"] == service.run_id
    replayed = service.document("scoring", "replay", service.run_id)
    assert (replayed["run_id"], replayed["is_identical"]) == (service.run_id, True)
    assert service.document("scoring", "run")["scores_calculated"] > 0
    wrong = service.ask("scoring", "set-algorithm", "--factor-weight", "volatility")
    assert wrong.code == 2
    assert "NAME=SHARE" in " ".join(wrong.err.split())


def test_a_result_is_booked_once_and_listed(service: Service) -> None:
    members = service.document("portfolio", "show")["members"]
    at = members[0]["inclusion_date"]
    book = ("performance", "book", members[0]["symbol"], "fill-1", "--pnl", "-12.5", "--at", at)
    first, again = service.document(*book), service.document(*book)
    assert first == again
    (trade,) = service.document("performance", "trades")["items"]
    assert (trade["trade_id"], trade["net"]) == ("fill-1", "-12.5")
    assert "-12.5" in service.text("performance", "trades")


def test_the_report_is_written_as_text_json_and_page(service: Service, tmp_path: Path) -> None:
    assert "hypothetical" in service.text("report")
    page, document = tmp_path / "report.html", tmp_path / "report.json"
    assert service.text("report", "--format", "html", "--output", str(page)) == ""
    assert page.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")
    service.text("report", "--format", "json", "--output", str(document))
    written = json.loads(document.read_text(encoding="utf-8"))
    assert written["version"] == service.document("report")["version"]
    again = service.ask("report", "--format", "json", "--output", str(document), "--json")
    assert (again.code, again.document["code"]) == (78, "file_not_written")
    assert service.ask("report", "--output", str(document)).code == 2
    assert service.ask("report", "--format", "html", "--json").code == 2


def test_candles_are_drawn_to_the_width_of_the_terminal(service: Service) -> None:
    lines = service.text("market", "candles", "BTCUSDT", "--plot", COLUMNS="60").splitlines()
    assert max(map(len, lines)) <= 60
    assert any("█" in line for line in lines)
    assert lines[-1].startswith("BTCUSDT 1h, ")


def test_changes_after_an_absence_are_listed(service: Service) -> None:
    service.text("trading", "off", "--reason", "absent")
    service.text("trading", "on", "--reason", "returned")
    found = service.document("changes", "1", "--limit", "500")
    reasons = [one["data"].get("details", {}).get("reason") for one in found["items"]]
    assert reasons[-2:] == ["absent", "returned"]
    assert "returned" in service.text("changes", "1", "--limit", "500")
    last = found["sequence"]
    assert f"nothing has changed since event {last}" in service.text("changes", str(last))


def test_operators_see_status_health_and_who_they_are(service: Service) -> None:
    assert service.document("whoami")["role"] == "admin"
    assert "NORMAL" in service.text("health") or "DEGRADED" in service.text("health")
    assert "portfolio.size" in service.text("status")
    assert "no one is logged in" in service.text("sessions", "list")
    assert service.ask("sessions", "end", "nonsense").code == 1
    assert service.document("sample-data")["state"] == "done"
    released = service.document("market", "release", service.member, "--reason", "checked")
    assert released["was_quarantined"] is False
    assert f"{service.member}: eligible" in service.text("universe", "eligibility", service.member)


def until_lines(child: child_processes.Command, count: int) -> list[str]:
    """The next lines of a running command."""
    lines = [child.stdout.readline() for _ in range(count)]
    assert all(lines), child.stderr.read()
    return lines


def test_a_watched_listing_is_repeated_until_ctrl_c(service: Service, tmp_path: Path) -> None:
    child = started("trading", "show", "--watch", "--json", "--url", service.url, cwd=tmp_path)
    (first,) = until_lines(child, 1)
    assert json.loads(first)["enabled"] is True
    service.text("trading", "off", "--reason", "seen while watching")
    until = time.monotonic() + PATIENCE_S
    while json.loads(until_lines(child, 1)[0])["reason"] != "seen while watching":
        assert time.monotonic() < until
    service.text("trading", "on", "--reason", "over")
    child.send_signal(signal.SIGINT)
    over = ended(child)
    assert (over.code, over.err) == (130, "")


def test_watching_outlives_an_unreachable_service_but_begins_with_a_reachable_one(
    tmp_path: Path,
) -> None:
    with answering(200, b'{"enabled": true}') as (url, _):
        child = started("trading", "show", "--watch", "--csv", "--url", url, cwd=tmp_path)
        assert until_lines(child, 2) == ["enabled\n", "true\n"]
    until = time.monotonic() + PATIENCE_S
    while "service_unreachable" not in child.stderr.readline():
        assert time.monotonic() < until
    child.send_signal(signal.SIGINT)
    assert ended(child).code == 130
    refused = here("trading", "show", "--watch", "--url", url)
    assert (refused.code, refused.out) == (69, "")
