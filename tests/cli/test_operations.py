"""Every operation of the API has a command, and each command sends a well-formed request."""

import json
from typing import Any, Final, get_args
from urllib.parse import parse_qs, urlsplit

import pytest

from app.cli import choices
from app.cli.lazy import PROGRAMS
from tests.cli.command import here
from tests.cli.service_commands import CHANGES, ID, READS, SECRETS, STREAMS, name_of
from tests.cli.test_client import answering
from tests.cli.test_lazy import subcommands
from tests.support.harness import PREFIX, openapi_document

pytestmark = pytest.mark.xdist_group("openapi")
Operation = dict[str, Any]

# Operations that a command covers on the database of the service, so that a lost key or a service
# that is closed locks nobody out.
BY_DATABASE: Final = {
    "GET /keys": "keys list",
    "POST /keys": "keys create",
    "POST /keys/{key_id}/rotate": "keys rotate",
    "DELETE /keys/{key_id}": "keys revoke",
    "GET /users": "users list",
    "POST /users": "users add",
    "PATCH /users/{user_id}": "users disable",
    "PUT /users/{user_id}/password": "users password",
}
EXCEPTIONS: Final = {
    "GET /livez": "a probe for the supervisor of the process",
    "GET /readyz": "a probe for the load balancer",
    "GET /metrics": "text for Prometheus; `status` and `health` show the figures to people",
    "PUT /configuration": "`config set` changes some settings with PATCH",
    "GET /debug/portfolio": "for development: MYSYMBOLS_DEBUG=1 and curl",
    "POST /research/backtests": "`backtest` runs the same trial locally",
    "GET /research/backtests/{job_id}": "`trials show` reads the logged trial",
    "POST /stream/tickets": "for clients without headers; the command line sends its key",
    "POST /sessions": "a browser logs in; the command line sends a key",
    "DELETE /sessions/current": "a browser logs out; the command line has no session",
    "PUT /users/me/password": "needs the session of a browser; `users password` is for operators",
}
# Choices of the command line -> the enumeration in the document.
ENUMERATIONS: Final[dict[Any, str]] = {
    choices.AlertRuleName: "AlertRule",
    choices.AlertSeverity: "Severity",
    choices.AlertStateName: "AlertState",
    choices.ScoreKind: "AlgorithmType",
    choices.IntervalName: "CandleInterval",
    choices.ChannelKindName: "ChannelKind",
    choices.ContractState: "ContractStatus",
    choices.DeliveryStateName: "DeliveryState",
    choices.SignalDirection: "Direction",
    choices.EventKind: "EventType",
    choices.LockKindName: "LockKind",
    choices.OrderSideName: "OrderSide",
    choices.NotificationSubject: "NotificationKind",
    choices.ProposalKindName: "ProposalKind",
    choices.RunStateName: "RunState",
    choices.WeightMethod: "WeightingMethod",
}
# An answer with all that a command reads of one before it sends the next request.
ANSWER: Final = {
    "id": f"scoring:{ID}",
    "state": "done",
    "progress": 1,
    "result": {},
    "error": None,
    "run_id": ID,
    "version": 1,
    "next_cursor": None,
    "changes": [],
    "csv": "",
    "items": [{"id": ID, "name": "a", "kind": "webhook", "kinds": ["error"], "enabled": True}],
}
EVENT: Final = b'data: {"type": "event", "sequence": 1, "topic": "mode", "data": {}}\n\n'


@pytest.fixture(scope="module")
def document() -> Operation:
    return openapi_document()


@pytest.fixture(scope="module")
def operations(document: Operation) -> dict[str, Operation]:
    """`GET /jobs/{job_id}` -> operation."""
    return {
        f"{method.upper()} {path.removeprefix(PREFIX)}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def find_operation(operations: dict[str, Operation], method: str, path: str) -> str:
    """The operation of a request; a literal segment precedes a parameter."""
    asked = path.removeprefix(PREFIX).split("/")
    found = []
    for name in operations:
        own_method, _, template = name.partition(" ")
        parts = template.split("/")
        if own_method == method and len(parts) == len(asked):
            pairs = zip(parts, asked, strict=True)
            if all(ours == theirs or ours.startswith("{") for ours, theirs in pairs):
                found.append((template.count("{"), name))
    assert found, f"{method} {path} is no operation of the document"
    return min(found)[1]


Requests = list[tuple[str, str, Any]]  # method, target, body


def requests_of(asked: list[tuple[str, str, dict[str, str], bytes]]) -> Requests:
    return [(one[0], one[1], json.loads(one[3]) if one[3] else None) for one in asked]


@pytest.fixture(scope="module")
def sent() -> dict[tuple[str, ...], Requests]:
    """Requests of each command."""
    made = {}
    with answering(200, json.dumps(ANSWER).encode()) as (url, asked):
        for command in (*READS, *CHANGES):
            ended = here(*command, "--json", "--url", url, given=SECRETS)
            assert ended.code == 0, (command, ended.err)
            made[command] = requests_of(asked)
            asked.clear()
    for command in STREAMS:
        with answering(200, EVENT, "text/event-stream") as (url, asked):
            assert here(*command, "--count", "1", "--url", url).code == 0
            made[command] = requests_of(asked)
    return made


def test_every_operation_has_a_command_or_a_reason(
    operations: dict[str, Operation], sent: dict[tuple[str, ...], Requests]
) -> None:
    reached = {
        find_operation(operations, method, urlsplit(target).path)
        for requests in sent.values()
        for method, target, _ in requests
    }
    without = {name for name in operations if name not in {*reached, *BY_DATABASE, *EXCEPTIONS}}
    assert not without, "\n".join(
        f"{operations[name]['operationId']} ({name}) has no command: add one to app/cli/commands"
        " and to tests/cli/service_commands.py, or a reason to EXCEPTIONS here"
        for name in sorted(without)
    )
    assert not (reached & {*BY_DATABASE, *EXCEPTIONS}), "these have a command: remove the entry"
    assert {*BY_DATABASE, *EXCEPTIONS} <= operations.keys(), "these are no operations any more"
    assert set(BY_DATABASE.values()) <= set(PROGRAMS)
    assert len({operation["operationId"] for operation in operations.values()}) == len(operations)


def test_every_command_is_listed_or_works_without_the_service() -> None:
    listed = {name_of(command) for command in (*READS, *CHANGES, *STREAMS)}
    words = {" ".join(one) for one in subcommands()}
    groups = {name.partition(" ")[0] for name in words if " " in name}
    unlisted = words - groups - listed - set(PROGRAMS)
    assert not unlisted, f"add {sorted(unlisted)} to tests/cli/service_commands.py"


def test_every_request_of_a_command_fits_the_document(
    document: Operation,
    operations: dict[str, Operation],
    sent: dict[tuple[str, ...], Requests],
) -> None:
    for command, requests in sent.items():
        for method, target, body in requests:
            parts = urlsplit(target)
            operation = operations[find_operation(operations, method, parts.path)]
            known = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"}
            assert set(parse_qs(parts.query, keep_blank_values=True)) <= known, command
            if "requestBody" not in operation:
                assert not body, (command, body)
                continue
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            (reference,) = [one["$ref"] for one in schema.get("anyOf", [schema]) if "$ref" in one]
            model = document["components"]["schemas"][reference.rpartition("/")[2]]
            assert set(model.get("required", ())) <= set(body or {}), command
            assert set(body or {}) <= model["properties"].keys(), command


def test_choices_are_those_of_the_document(document: Operation) -> None:
    schemas = document["components"]["schemas"]
    for choice, name in ENUMERATIONS.items():
        assert [str(one) for one in get_args(choice) or choice] == schemas[name]["enum"], name
    audit = document["paths"][f"{PREFIX}/audit"]["get"]["parameters"]
    (actions,) = [one["schema"]["enum"] for one in audit if one["name"] == "action"]
    assert list(get_args(choices.AuditAction)) == actions


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (("locks", "set", "BTCUSDT", "sell", "--reason", "x"), ("pin", "ban", "watch")),
        (("alerts", "list", "--severity", "loud"), ("info", "warning", "critical")),
        (("portfolio", "rebalance", "--method", "best"), get_args(choices.WeightMethod)),
        (("history", "--action", "BUY"), get_args(choices.EventKind)),
    ],
)
def test_an_unknown_choice_is_refused_with_the_list(
    command: tuple[str, ...], named: tuple[str, ...]
) -> None:
    refused = here(*command)
    assert refused.code == 2
    assert all(one in refused.err for one in named), refused.err
    shown = here(*command[:2] if command[0] != "history" else command[:1], "--help").out
    assert all(one in "".join(shown.split()) for one in named), shown


def test_symbols_and_ids_are_one_segment_of_the_path() -> None:
    with answering(200, b'{"items": []}') as (url, asked):
        here("locks", "show", "BTC/USDT:USDT", "--json", "--url", url)
        here("alerts", "show", "../x?y", "--json", "--url", url)
    assert asked[0][1] == f"{PREFIX}/portfolio/locks/BTC%2FUSDT:USDT"
    assert asked[-1][1] == f"{PREFIX}/alerts/..%2Fx%3Fy"
