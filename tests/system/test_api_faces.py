"""Answers of the product over a socket: CSV of lists, and wrong calls that their errors correct."""

import csv
import io
import json
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import requests

from app.cli.exit_codes import ExitCode
from app.foundation.http.representations import CSV_TYPE
from tests.cli.command import here
from tests.support.harness import PREFIX, openapi_document
from tests.support.problem_assertions import well_formed
from tests.support.service_over_socket import PATIENCE_S, Caller, serving

SEED = 20
CALLS = 50
ROUNDS = 6
pytestmark = pytest.mark.xdist_group("api_faces")
# Their answers never end, or they change who may call.
LEFT_OUT = {"stream_events", "log_in", "log_out", "issue_stream_ticket"}
Operation = tuple[str, str, dict[str, Any]]


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    room = tmp_path_factory.mktemp("faces")
    with serving(room, contracts=40) as url, requests.Session() as session:
        service = Caller(url, session)
        end = time.monotonic() + PATIENCE_S
        while service.get(f"{PREFIX}/status")["feed"]["stage"] != "complete":
            assert time.monotonic() < end, "the first fill takes too long"
            time.sleep(0.2)
        service.done("POST", f"{PREFIX}/scoring/calculate", json={})
        service.done("POST", f"{PREFIX}/portfolio/initialize", json={})
        # The first user or key ends the open mode: a corrected call may make one.
        issued = service.done("POST", f"{PREFIX}/keys", json={"name": "tester", "role": "admin"})
        session.headers["Authorization"] = f"Bearer {issued['secret']}"
        yield service


def rows_of(answer: requests.Response) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.content.endswith(b"\r\n")
    return list(csv.DictReader(io.StringIO(answer.content.decode(), newline="")))


def csv_operations() -> dict[str, list[str]]:
    """Path of each operation with CSV, with its documented columns."""
    found = {}
    for path, methods in openapi_document()["paths"].items():
        content = methods.get("get", {}).get("responses", {}).get("200", {}).get("content", {})
        if CSV_TYPE in content:
            found[path] = content[CSV_TYPE]["example"].strip().split(",")
    return found


@pytest.mark.parametrize("path", sorted(csv_operations()))
def test_a_list_is_sent_as_csv_with_the_columns_of_the_document(caller: Caller, path: str) -> None:
    parameters = openapi_document()["paths"][path]["get"].get("parameters", ())
    query = {one["name"]: one["example"] for one in parameters if one.get("required")}
    query.pop("symbol", None)
    address = path.replace("{symbol}", "BTCUSDT")
    answer = caller.ask("GET", address, params=query, headers={"Accept": "text/csv"})
    rows = rows_of(answer)
    header = answer.content.split(b"\r\n")[0].decode()
    assert header.split(",") == csv_operations()[path]
    assert "Accept" in answer.headers["vary"]
    plain = caller.ask("GET", address, params=query).json()
    member = next(name for name in ("items", "members", "weights", "positions") if name in plain)
    if path.endswith(("/rankings", "/history", "/candles", "/portfolio", "/weights")):
        assert rows
        assert len(rows) == len(plain[member])
    if plain.get("data_source"):
        assert answer.headers["x-data-source"] == plain["data_source"] == "sandbox"
        assert answer.headers["x-data-status"]


def test_both_representations_of_the_cached_rankings_stay_apart(caller: Caller) -> None:
    path = f"{PREFIX}/scoring/rankings"
    for _ in range(2):  # the second time from the cache
        plain = caller.ask("GET", path)
        assert plain.headers["content-type"] == "application/json"
        sheet = caller.ask("GET", path, headers={"Accept": "text/csv"})
        rows, items = rows_of(sheet), plain.json()["items"]
        assert [row["symbol_id"] for row in rows] == [item["symbol_id"] for item in items]
        for row, item in zip(rows, items, strict=True):
            assert row["composite_score"] == (
                "" if item["composite_score"] is None else json.dumps(item["composite_score"])
            )
            assert json.loads(row["supporting_data"])["run_id"] == plain.json()["run_id"]
        assert sheet.headers["etag"] != plain.headers["etag"]
    for tag, accept, status in (
        (sheet.headers["etag"], "text/csv", 304),
        (plain.headers["etag"], "text/csv", 200),
        (plain.headers["etag"], "application/json", 304),
        (sheet.headers["etag"], "application/json", 200),
    ):
        headers = {"Accept": accept, "If-None-Match": tag}
        assert caller.ask("GET", path, headers=headers).status_code == status, (tag, accept)


def test_the_pages_of_a_csv_are_linked(caller: Caller) -> None:
    path = f"{PREFIX}/portfolio/history"
    all_rows = caller.ask("GET", path, params={"limit": 500}).json()["items"]
    assert len(all_rows) > 4
    found: list[str] = []
    address = f"{path}?limit=3"
    while address:
        answer = caller.ask("GET", address, headers={"Accept": "text/csv"})
        found += [row["sequence"] for row in rows_of(answer)]
        link = requests.utils.parse_header_links(answer.headers.get("link", ""))
        address = f"{path}{link[0]['url']}" if link and link[0]["rel"] == "next" else ""
    assert found == [str(row["sequence"]) for row in all_rows]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("application/*", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("text/csv;q=0.4, application/json;q=0.5", "application/json"),
        ("text/csv, */*;q=0.1", "text/csv; charset=utf-8"),
        ("text/*", "text/csv; charset=utf-8"),
        ("application/json;q=0, text/csv", "text/csv; charset=utf-8"),
        ("garbage", "application/json"),
        ("text/html", None),
        ("application/xml;q=0.9, image/*", None),
        ("application/json;q=0", None),
    ],
)
def test_the_accept_header_chooses(caller: Caller, accept: str, kind: str | None) -> None:
    answer = caller.ask("GET", f"{PREFIX}/portfolio", headers={"Accept": accept})
    if kind is not None:
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        return
    assert answer.status_code == 406
    body = well_formed(answer, extra=frozenset({"allowed"}))
    assert (body["code"], body["allowed"]) == ("not_acceptable", ["application/json", "text/csv"])
    assert "application/json, text/csv" in body["detail"]


def test_an_address_without_rows_refuses_csv_before_it_does_anything(caller: Caller) -> None:
    before = caller.get(f"{PREFIX}/portfolio/trading-switch")
    body = {"enabled": False, "reason": "test"}
    address = f"{PREFIX}/portfolio/trading-switch"
    answer = caller.ask("PUT", address, json=body, headers={"Accept": "text/csv"})
    assert answer.status_code == 406
    assert well_formed(answer, extra=frozenset({"allowed"}))["allowed"] == ["application/json"]
    assert caller.get(address) == before
    page = caller.ask("GET", f"{PREFIX}/portfolio/report", headers={"Accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")


def test_the_command_line_says_what_the_errors_say(caller: Caller) -> None:
    key = str(caller.session.headers["Authorization"]).removeprefix("Bearer ")
    known = {"MYSYMBOLS_KEY": key}
    ended = here("config", "set", "entry_score=2", "--url", caller.url, **known)
    assert ended.code == ExitCode.REFUSED
    assert "body.entry_score must be a number from 0 to 1; received integer" in ended.err
    spoken = here("config", "set", "entry_score=2", "--json", "--url", caller.url, **known)
    # The service of this process logs to the same output.
    (fault,) = json.loads(spoken.out.splitlines()[-1])["errors"]
    assert (fault["loc"], fault["expected"]) == (["body", "entry_score"], "a number from 0 to 1")


# --- 50 wrong calls


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema itself, without reference and null."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return resolved(openapi_document()["components"]["schemas"][name])
    kinds = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    return resolved(kinds[0]) if kinds else schema


def wrong_values(schema: dict[str, Any]) -> list[Any]:
    """Values that break a schema, each in another way."""
    shape = resolved(schema)
    found: list[Any] = [{"odd": 1}]
    if "enum" in shape or "const" in shape:
        found.append("nonsense")
    if shape.get("type") in {"integer", "number"}:
        found += ["ten", True]
        found += [shape["maximum"] + 1] if "maximum" in shape else []
        found += [shape["minimum"] - 1] if "minimum" in shape else []
    if shape.get("type") == "string":
        found.append(5)
        found += ["x" * (shape["maxLength"] + 1)] if "maxLength" in shape else []
        found += ["???"] if "pattern" in shape or shape.get("format") == "date-time" else []
    return found


Call = dict[str, Any]  # query and body of a call


def mistakes(operation: dict[str, Any]) -> Iterator[tuple[str, Call]]:
    """Every single mistake that the document forbids, with the call that makes it."""
    parameters = operation.get("parameters", ())
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    query = {
        one["name"]: one["example"]
        for one in parameters
        if one["in"] == "query" and one.get("required")
    }
    body: Any = None if content is None else content["example"]
    yield "unknown parameter", {"query": {**query, "nonsense": "1"}, "body": body}
    for one in parameters:
        if one["in"] != "query":
            continue
        name = one["name"]
        if one.get("required"):
            left = {key: value for key, value in query.items() if key != name}
            yield f"{name} missing", {"query": left, "body": body}
        for value in wrong_values(one["schema"]):
            if isinstance(value, str | int) and not isinstance(value, bool) and value != 5:
                yield f"{name} wrong", {"query": {**query, name: str(value)}, "body": body}
    if content is None:
        return
    shape = resolved(content["schema"])
    yield "unknown field", {"query": query, "body": {**body, "nonsense": 1}}
    yield "no object", {"query": query, "body": [1]}
    for name, schema in shape["properties"].items():
        if name in shape.get("required", ()):
            left = {key: value for key, value in body.items() if key != name}
            yield f"{name} missing", {"query": query, "body": left}
        for value in wrong_values(schema):
            yield f"{name} wrong", {"query": query, "body": {**body, name: value}}


def every_mistake() -> list[tuple[str, str, str, Call]]:
    found = []
    for path, methods in openapi_document()["paths"].items():
        for method, operation in methods.items():
            if operation["operationId"] in LEFT_OUT or not path.startswith(PREFIX):
                continue
            address = path
            for one in operation.get("parameters", ()):
                if one["in"] == "path":
                    address = address.replace(f"{{{one['name']}}}", str(one["example"]))
            for what, call in mistakes(operation):
                found.append((method.upper(), address, what, call))
    return found


def corrected(call: Call, faults: Sequence[dict[str, Any]]) -> Call:
    """The call as the entries of `errors` alone say that it must be."""
    made: Call = json.loads(json.dumps(call))
    for fault in faults:
        part, *steps = fault["loc"]
        if not steps:
            made[part] = fault["example"]
            continue
        place: Any = made[part]
        for step in steps[:-1]:
            place = place[step]
        if fault["remedy"] == "remove":
            del place[steps[-1]]
            continue
        if "allowed" in fault:
            value = fault["allowed"][0]
        elif "example" in fault:
            value = fault["example"]
        else:
            value = "s" * max(12, fault["constraints"].get("minLength", 0))  # a secret
        if isinstance(place, list):
            place[steps[-1]] = value
        else:
            place |= {steps[-1]: str(value) if part == "query" else value}
    return made


def is_invalid(answer: requests.Response) -> bool:
    """Whether the call itself is refused: not the state, and no rule of a use case.

    A rule between several values, such as two scores in their order, has its own sentence.
    """
    if answer.status_code != 422:
        return False
    body = well_formed(answer, extra=frozenset(answer.json()))
    faults = body.get("errors", [])
    rules = [
        fault
        for fault in faults
        if fault["message"].startswith("is refused:")
        and fault["loc"] != ["body"]
        and fault["remedy"] != "remove"
    ]
    is_of_the_call = body["code"] in {"validation_failed", "timezone_required"}
    return is_of_the_call and len(rules) < len(faults)


def send(caller: Caller, method: str, path: str, call: Call) -> requests.Response:
    more = {} if call["body"] is None else {"json": call["body"]}
    return caller.ask(method, path, params=call["query"], **more)


def test_fifty_wrong_calls_are_corrected_from_their_errors_alone(caller: Caller) -> None:
    candidates = every_mistake()
    assert len(candidates) > 500
    chosen = random.Random(SEED).sample(candidates, len(candidates))
    wrong = 0
    for method, path, what, call in chosen:
        answer, sent = send(caller, method, path, call), call
        assert answer.status_code != 500, (method, path, what, answer.text)
        if not is_invalid(answer):
            continue  # state or a rule comes first, such as a missing object
        wrong += 1
        for _ in range(ROUNDS):
            faults = answer.json()["errors"]
            assert faults, (method, path, what, answer.text)
            sent = corrected(sent, faults)
            answer = send(caller, method, path, sent)
            if not is_invalid(answer):
                break
        assert not is_invalid(answer), (method, path, what, sent, answer.text)
        assert answer.status_code < 500 or answer.status_code == 503, (method, path, answer.text)
        if wrong == CALLS:
            return
    raise AssertionError(f"only {wrong} calls were refused as invalid")
