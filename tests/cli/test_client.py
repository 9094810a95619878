"""Commands that ask a service: what they say when it is not there, not ours, or refuses."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from app.cli.client import quote_segment
from app.cli.exit_codes import ExitCode
from tests.cli.command import here
from tests.cli.service_commands import CHANGES, ID, READS, SECRETS, STREAMS

COMMANDS = (*READS, *CHANGES, *STREAMS)


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address without a listener: bound, so that no other process takes it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def answering(
    status: int, body: bytes, kind: str = "application/json", mode: str | None = "NORMAL"
) -> Iterator[tuple[str, Any]]:
    """A server that answers every request alike, and remembers what it was asked.

    Without a mode it is somebody else's.
    """
    asked: list[tuple[str, str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            asked.append(
                (self.command, self.path, dict(self.headers.items()), self.rfile.read(length))
            )
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if mode is not None:
                self.send_header("X-Service-Mode", mode)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def do_PUT(self) -> None:
            self.do_GET()

        def do_PATCH(self) -> None:
            self.do_GET()

        def do_DELETE(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Silence."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_without_a_service_every_command_says_so_and_ends_with_69(
    command: tuple[str, ...], nobody: str
) -> None:
    spoken = here(*command, "--url", nobody, given=SECRETS)
    assert spoken.code == ExitCode.UNAVAILABLE
    assert spoken.out == ""
    assert "service_unreachable" in spoken.err
    assert nobody in spoken.err
    assert "my-symbols serve" in spoken.err

    machine = here(*command, "--json", "--url", nobody, given=SECRETS)
    assert machine.code == ExitCode.UNAVAILABLE
    assert machine.document["code"] == "service_unreachable"


def test_the_address_can_come_from_the_environment(nobody: str) -> None:
    assert nobody in here("portfolio", "show", MYSYMBOLS_URL=nobody).err


def test_a_misspelled_variable_of_the_command_line_is_noted(nobody: str) -> None:
    said = here("portfolio", "show", "--url", nobody, MYSYMBOLS_URI="x", MYSYMBOLS_KEYS="y")
    assert "note: MYSYMBOLS_URI has no effect; did you mean MYSYMBOLS_URL?" in said.err
    assert "note: MYSYMBOLS_KEYS has no effect; did you mean MYSYMBOLS_KEY?" in said.err
    well = here("portfolio", "show", "--url", nobody, MYSYMBOLS_ROLE="api", MYSYMBOLS_KEY="k")
    assert "note" not in well.err


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1", "http://"])
def test_an_address_that_is_none_is_wrong_usage(url: str) -> None:
    said = here("portfolio", "show", "--url", url, "--json")
    assert (said.code, said.document["code"]) == (ExitCode.USAGE, "invalid_url")


@pytest.mark.parametrize(
    ("status", "exit_code"),
    [(404, 1), (409, 1), (412, 1), (422, 1), (500, 70), (502, 69), (503, 69), (504, 69)],
)
def test_a_problem_keeps_its_code_and_decides_the_exit_code(status: int, exit_code: int) -> None:
    problem = {"code": "portfolio_full", "detail": "It is [full].", "status": status, "more": 1}
    body = json.dumps(problem).encode()
    with answering(status, body, "application/problem+json") as (url, _):
        people = here("portfolio", "add", "BTCUSDT", "--url", url)
        machine = here("portfolio", "add", "BTCUSDT", "--url", url, "--json")
    assert people.code == machine.code == exit_code
    assert people.out == ""
    assert "portfolio_full: It is [full]." in people.err
    assert machine.document == problem


@pytest.mark.parametrize(
    ("status", "body"),
    [
        *((200, b"<html>hello</html>"), (200, b""), (200, b"[]"), (404, b"[]"), (302, b"")),
        *((500, b'{"detail": 1}'), (404, b'{"code": "404000", "msg": "Url Not Found"}')),
    ],
)
def test_something_that_is_not_our_service_is_named_as_such(status: int, body: bytes) -> None:
    with answering(status, body, "text/html") as (url, _):
        said = here("portfolio", "show", "--url", url, "--json")
    assert (said.code, said.document["code"]) == (ExitCode.INTERNAL, "not_our_service")


@pytest.fixture(scope="module")
def stranger() -> Iterator[str]:
    """Another service, whose answers are JSON objects as ours are."""
    with answering(200, b'{"items": [{"id": 1}], "members": 3}', mode=None) as (url, _):
        yield url


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_another_service_is_reported_in_one_line_by_every_command(
    command: tuple[str, ...], stranger: str
) -> None:
    said = here(*command, "--url", stranger, given=SECRETS)
    assert (said.code, said.out) == (ExitCode.INTERNAL, "")
    (line,) = said.err.splitlines()
    assert line.startswith(f"not_our_service: {stranger} answered 200 with a response")


def test_another_service_is_reported_in_json_too(stranger: str) -> None:
    said = here("jobs", "list", "--json", "--url", stranger)
    assert (said.code, said.document["code"]) == (ExitCode.INTERNAL, "not_our_service")


@pytest.mark.parametrize(
    ("body", "lacks"), [({}, "members"), ({"members": [{"position_rank": 1}]}, "symbol")]
)
def test_an_answer_of_another_version_names_the_missing_field(
    body: dict[str, Any], lacks: str
) -> None:
    with answering(200, json.dumps(body).encode()) as (url, _):
        said = here("portfolio", "show", "--url", url)
    assert (said.code, said.out) == (ExitCode.INTERNAL, "")
    assert said.err.startswith(f"unknown_answer: The answer has no `{lacks}`")


@pytest.mark.parametrize(
    ("event", "code"), [(b"hello", "not_our_service"), (b'{"id": 1}', "unknown_answer")]
)
def test_a_stream_of_another_service_is_refused(event: bytes, code: str) -> None:
    with answering(200, b"data: " + event + b"\n\n", "text/event-stream") as (url, _):
        said = here("watch", "--url", url)
    assert (said.code, said.out) == (ExitCode.INTERNAL, "")
    assert said.err.startswith(code)


def test_numbers_of_a_stream_are_shown_as_they_came() -> None:
    event = b'data: {"type": "event", "sequence": 7, "topic": "mode", "data": {"score": 0.1}}\n\n'
    with answering(200, event, "text/event-stream") as (url, _):
        people = here("watch", "--count", "1", "--url", url)
        machine = here("watch", "--count", "1", "--json", "--url", url)
    assert people.out.endswith('mode               {"score": 0.1}\n')
    assert machine.document["data"] == {"score": 0.1}


def test_bytes_that_are_no_text_are_no_answer() -> None:
    with answering(200, b"\xff\xfe\xff", "application/json; charset=utf-8") as (url, _):
        assert here("portfolio", "show", "--url", url).code == ExitCode.UNAVAILABLE


def test_machine_output_is_the_service_text_to_the_last_digit() -> None:
    text = '{"cash_percentage":12.345678,"members":[]}'
    with answering(200, text.encode()) as (url, _):
        assert here("portfolio", "show", "--json", "--url", url).out == text + "\n"


RECORD = [
    "--price",
    "1e-7",
    "--confidence",
    "0.8",
    "--wins",
    "6",
    "--losses",
    "4",
    "--payoff-ratio",
    "1.2",
]
RECORD_QUERY = "price=0.0000001&confidence=0.8&wins=6&losses=4&payoff_ratio=1.2"
Sent = Callable[[Any], bool]


@pytest.mark.parametrize(
    ("command", "method", "path", "body"),
    [
        (["jobs", "list", "--kind", "scoring"], "GET", "/jobs?limit=20&kind=scoring", None),
        (["jobs", "show", f"scoring:{ID}"], "GET", f"/jobs/scoring:{ID}", None),
        (["jobs", "cancel", f"scoring:{ID}"], "POST", f"/jobs/scoring:{ID}/cancel", {}),
        (["scoring", "calculate"], "POST", "/scoring/calculate", {}),
        (
            ["scoring", "calculate", "BTC/USDT:USDT"],
            "POST",
            "/scoring/calculate",
            {"symbol": "BTC/USDT:USDT"},
        ),
        (["scoring", "explain", "BTCUSDT"], "GET", "/scoring/symbol/BTCUSDT/explain", None),
        (["symbols", "convert", "BTC/USDT:USDT"], "GET", "/symbols/BTC%2FUSDT:USDT/formats", None),
        (
            ["sectors", "set", "BTC", "ai", "--cap-category", "mid", "--reason", "why"],
            "PUT",
            "/sectors/BTC",
            {"sector": "ai", "cap_category": "mid", "reason": "why"},
        ),
        (["sectors", "reset", "BTC"], "DELETE", "/sectors/BTC", None),
        (["sectors", "export"], "GET", "/sectors/export", None),
        (["portfolio", "initialize", "--size", "3"], "POST", "/portfolio/initialize", {"size": 3}),
        (
            ["portfolio", "add", "BTCUSDT", "--reason", "why"],
            "POST",
            "/portfolio/add-symbol",
            {"symbol": "BTCUSDT", "reason": "why"},
        ),
        (["portfolio", "remove", "A"], "POST", "/portfolio/remove-symbol", {"symbol": "A"}),
        (
            ["portfolio", "replace", "A", "B"],
            "POST",
            "/portfolio/replace-symbol",
            {"old_symbol": "A", "new_symbol": "B"},
        ),
        (["portfolio", "rebalance"], "POST", "/portfolio/rebalance", {"dry_run": False}),
        (
            ["portfolio", "rebalance", "--dry-run", "--balance", "1e4", "--method", "hrp"],
            "POST",
            "/portfolio/rebalance",
            {"dry_run": True, "account_balance": "10000", "method": "hrp"},
        ),
        (["alerts", "list"], "GET", "/alerts?state=open&limit=100", None),
        (
            ["alerts", "list", "--state", "resolved", "--symbol", "A", "--limit", "2"],
            "GET",
            "/alerts?state=resolved&limit=2&symbol=A",
            None,
        ),
        (
            ["alerts", "acknowledge", ID, "--user", "me"],
            "POST",
            f"/alerts/{ID}/acknowledge",
            {"user": "me"},
        ),
        (
            ["alerts", "snooze", ID, "--minutes", "2"],
            "POST",
            f"/alerts/{ID}/snooze",
            {"seconds": 120},
        ),
        (["alerts", "resolve", ID], "POST", f"/alerts/{ID}/resolve", {}),
        (["portfolio", "rebalances"], "GET", "/portfolio/rebalances?limit=20", None),
        (["portfolio", "rebalances", ID], "GET", f"/portfolio/rebalances/{ID}", None),
        (["portfolio", "proposals"], "GET", "/portfolio/proposals?limit=20", None),
        (
            ["portfolio", "position-size", "BTC/USDT:USDT", "--balance", "1000.10"],
            "GET",
            "/portfolio/symbols/BTC%2FUSDT:USDT/position-size?account_balance=1000.10",
            None,
        ),
        (
            ["portfolio", "position-size", "A", "--balance", "5", *RECORD],
            "GET",
            f"/portfolio/symbols/A/position-size?account_balance=5&{RECORD_QUERY}",
            None,
        ),
        (
            ["portfolio", "position-sizes", "--balance", "1000.10"],
            "GET",
            "/portfolio/sizes?account_balance=1000.10",
            None,
        ),
        (["portfolio", "approve", ID], "POST", f"/portfolio/proposals/{ID}/approve", {}),
        (["portfolio", "decline", ID], "POST", f"/portfolio/proposals/{ID}/decline", {}),
    ],
)
def test_requests_of_the_commands(
    command: list[str], method: str, path: str, body: dict[str, Any] | None
) -> None:
    with answering(200, b"{}") as (url, asked):
        assert here(*command, "--json", "--url", url + "/").code == ExitCode.OK
    (sent,) = asked
    assert sent[0] == method
    assert sent[1] == f"/api/symbol-mgmt{path}"
    assert (json.loads(sent[3]) if sent[3] else None) == body


def test_an_idempotency_key_is_sent_as_its_header() -> None:
    with answering(200, b"{}") as (url, asked):
        here("portfolio", "rebalance", "--key", "monday-1", "--json", "--url", url)
        here("portfolio", "rebalance", "--json", "--url", url)
    headers = [{name.lower(): value for name, value in one[2].items()} for one in asked]
    assert headers[0]["idempotency-key"] == "monday-1"
    assert "idempotency-key" not in headers[1]


def test_a_symbol_is_one_segment_of_a_path() -> None:
    assert quote_segment("BTC/USDT:USDT") == "BTC%2FUSDT:USDT"
    assert quote_segment("../x?y#z") == "..%2Fx%3Fy%23z"


def test_usage_errors_end_with_2() -> None:
    assert here("portfolio", "add").code == ExitCode.USAGE
    assert here("no-such-command").code == ExitCode.USAGE
    assert here("scoring", "calculate", "--limit", "0").code == ExitCode.USAGE


def test_help_documents_the_exit_codes() -> None:
    said = " ".join(here("--help").out.split())
    for code in ExitCode:
        assert str(int(code)) in said
    assert here("--version").out.strip()


JOB: dict[str, Any] = {
    "id": "contract_sync:1",
    "kind": "contract_sync",
    "state": "done",
    "progress": 1.0,
    "created_at": "2026-01-01T00:00:00Z",
    "started_at": "2026-01-01T00:00:00Z",
    "finished_at": "2026-01-01T00:00:01Z",
    "result": {"listed": 16, "quarantined": None},
    "error": None,
    "steps": [
        {
            "name": "contracts",
            "state": "done",
            "started_at": "2026-01-01T00:00:00Z",
            "finished_at": "2026-01-01T00:00:01Z",
            "error": None,
        }
    ],
}


def test_a_sync_runs_as_a_job_and_reports_its_end() -> None:
    with answering(202, json.dumps(JOB).encode()) as (url, asked):
        said = here("symbols", "sync", "--url", url)
        told = here("symbols", "sync", "--json", "--url", url)
    assert [(one[0], one[1], one[2]["Prefer"]) for one in asked] == [
        ("POST", "/api/symbol-mgmt/symbols/sync", "respond-async")
    ] * 2
    assert (said.code, told.code) == (ExitCode.OK, ExitCode.OK)
    assert "listed" in said.out
    assert told.document == JOB


@pytest.mark.parametrize(
    ("code", "ends"),
    [
        ("exchange_unavailable", ExitCode.UNAVAILABLE),
        ("sandbox_only", ExitCode.REFUSED),
        ("internal_error", ExitCode.INTERNAL),
        ("of another version", ExitCode.INTERNAL),
    ],
)
def test_a_sync_that_fails_ends_with_the_code_of_its_job(code: str, ends: ExitCode) -> None:
    failed = {**JOB, "state": "failed", "result": None, "error": {"code": code, "detail": "why"}}
    with answering(202, json.dumps(failed).encode()) as (url, _):
        ended = here("symbols", "sync", "--json", "--url", url)
    assert (ended.code, ended.document) == (ends, failed)
    assert f"{code}: why" in ended.err


def test_a_report_is_made_by_a_job_and_shown_as_tables() -> None:
    names = ("growth", "max_drawdown", "sharpe_standard_error", "sortino", "calmar", "win_rate")
    figures = dict.fromkeys((*names, "profit_factor"))
    why = "12 observations, 30 are needed"
    made = {
        "version": 7,
        "created_at": "2026-03-04T00:00:00Z",
        "figures": {**figures, "sharpe": 1.25, "ratios_reason": why},
        "hypothetical": {
            "hypothetical_growth": 2.5,
            **dict.fromkeys(
                f"hypothetical_{name}" for name in ("max_drawdown", "sharpe", "sortino", "calmar")
            ),
        },
        "equity": [{"at": "2026-03-03T00:00:00Z", "equity": "1.01", "daily_pnl": None}],
        "positions": [
            {"symbol": "BTCUSDT", "weight_percentage": 20, "pnl_since_inclusion": "0.01"}
        ],
        "replacements": [],
    }
    with answering(200, json.dumps({**JOB, "result": made}).encode()) as (url, asked):
        period = ("--from", "2026-03-01T00:00:00+00:00")
        ended = here("report", *period, "--url", url)
        exact = here("report", "--json", "--url", url)
    assert ended.code == exact.code == 0, ended.err
    assert asked[0][:2] == (
        "GET",
        "/api/symbol-mgmt/portfolio/report?from=2026-03-01T00:00:00%2B00:00",
    )
    assert asked[0][2]["Prefer"] == "respond-async"
    for shown in ("1.25", "1.01", "BTCUSDT", "version 7", f"no ratios: {why}", "not earned"):
        assert shown in ended.out
    assert exact.document["result"] == made
    assert asked[1][1].endswith("/portfolio/report?format=json")


SIZED: dict[str, Any] = {
    "symbol": "BTCUSDT",
    "contract": "XBTUSDTM",
    "price": "107000.1",
    "weight_percentage": 12.5,
    "wanted_notional": "1250",
    "notional": "1177.0011",
    "lots": 11,
    "quantity": "0.011",
    "margin": "1177.0011",
    "leverage": "1",
    "rounding_error": "72.9989",
    "liquidation_price": None,
    "caps": ["gross_leverage"],
    "binding_cap": "gross_leverage",
    "limits": [
        {
            "name": "gross_leverage",
            "value": "1.5",
            "limit": "1",
            "unit": "times",
            "source": "portfolio",
        }
    ],
    "reason": None,
}


def test_a_size_is_printed_with_its_caps_and_every_digit() -> None:
    with answering(200, json.dumps(SIZED).encode()) as (url, _):
        people = here("portfolio", "position-size", "BTCUSDT", "--balance", "10000", "--url", url)
        machine = here(
            "portfolio", "position-size", "BTCUSDT", "--balance", "1", "--json", "--url", url
        )
    assert (people.code, machine.code, machine.document) == (ExitCode.OK, ExitCode.OK, SIZED)
    for told in ("BTCUSDT (XBTUSDTM)", "1177.0011", "72.9989", "gross_leverage", "times"):
        assert told in people.out
    assert "no lots" not in people.out
    (line,) = (one for one in people.out.splitlines() if "liquidation" in one)
    assert " - " in line, "what is not known is a dash"


def test_a_size_without_lots_says_why() -> None:
    none = {**SIZED, "lots": 0, "limits": [], "reason": "[market_data_stale] no fresh price"}
    with answering(200, json.dumps(none).encode()) as (url, _):
        said = here("portfolio", "position-size", "BTCUSDT", "--balance", "10000", "--url", url)
    assert said.code == ExitCode.OK
    assert "no lots: [market_data_stale] no fresh price" in said.out
    assert "source" not in said.out


def test_a_dry_run_that_would_be_refused_says_why() -> None:
    plan: dict[str, Any] = {
        "changes": [],
        "run_id": None,
        "total_changes": 0,
        "would_be_refused": None,
    }
    refusal = {"code": "market_data_stale", "detail": "[the market data] is too old."}
    shown = []
    for answer in (plan, {**plan, "would_be_refused": refusal}):
        with answering(200, json.dumps(answer).encode()) as (url, _):
            shown.append(here("portfolio", "rebalance", "--dry-run", "--url", url))
    assert [one.code for one in shown] == [ExitCode.OK, ExitCode.OK], "a look is no refusal"
    assert "refused" not in shown[0].out
    said = "it would be refused now: market_data_stale: [the market data] is too old."
    assert said in " ".join(shown[1].out.split())


@pytest.mark.parametrize(
    "wrong",
    [
        (),
        ("--balance", "much"),
        ("--balance", "NaN"),
        ("--balance", "1", "--wins", "3"),
        ("--balance", "1", "--wins", "-1", "--losses", "1", "--payoff-ratio", "1"),
    ],
    ids=" ".join,
)
def test_invalid_size_options_are_wrong_usage(wrong: tuple[str, ...]) -> None:
    assert here("portfolio", "position-size", "BTCUSDT", *wrong).code == ExitCode.USAGE


def test_a_sync_with_history_asks_for_it() -> None:
    job = {**JOB, "result": {"listed": 16}}
    with answering(200, json.dumps(job).encode()) as (url, asked):
        assert here("symbols", "sync", "--history", "--url", url).code == 0
    assert asked[0][:2] == ("POST", "/api/symbol-mgmt/symbols/sync?history=true")


def test_a_cancelled_sync_is_an_error() -> None:
    cancelled = {**JOB, "state": "cancelled", "result": None}
    with answering(202, json.dumps(cancelled).encode()) as (url, _):
        ended = here("symbols", "sync", "--url", url)
    assert ended.code == ExitCode.REFUSED
    assert "job_cancelled" in ended.err


def test_jobs_are_shown_as_tables() -> None:
    page = {"items": [{**JOB, "steps": []}], "next_cursor": None}
    with answering(200, json.dumps(page).encode()) as (url, _):
        listed = here("jobs", "list", "--state", "done", "--url", url)
    failed = {**JOB, "state": "failed", "error": {"code": "overloaded", "detail": "[too] many"}}
    with answering(200, json.dumps(failed).encode()) as (url, _):
        shown, stopped = (
            here("jobs", verb, f"scoring:{ID}", "--url", url) for verb in ("show", "cancel")
        )
    assert "contract_sync:1" in listed.out
    assert "100" in listed.out
    for said in (shown.out, stopped.out):
        assert "contracts" in said
        assert "overloaded" in said
        assert "[too] many" in said
