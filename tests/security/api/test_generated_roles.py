"""Requests made from the OpenAPI document by callers of several roles, over a real socket.

Every operation takes part by itself, a new one too. MYTESTS_GENERATED_EXAMPLES makes it longer
(`make fuzz`).
"""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote, unquote, urlsplit

import pytest
import requests
from fastapi import FastAPI, HTTPException, Security
from fastapi.security import APIKeyHeader
from pydantic import BaseModel

from app.foundation.errors import Code
from app.foundation.http.permissions import AUTHENTICATOR, public, requires
from app.foundation.http.routing import api_router
from app.foundation.principals import Role
from app.foundation.sql.database import Database
from app.foundation.sql.engines import DatabaseOptions
from app.operations.domain.event_codec import encode_event
from app.portfolio.domain.proposals import Proposal, ProposalKind, ProposalState
from app.portfolio.storage.proposals import ProposalRepository
from tests.support.api_keys import PASSWORD, KeyDesk, bearer
from tests.support.harness import PREFIX, make_api
from tests.support.problem_assertions import well_formed
from tests.support.service_over_socket import FILE, PATIENCE_S, Caller, serving
from tests.support.streaming import listening, port_of

if TYPE_CHECKING:
    from tests.support.generated_requests import Case, Operation

pytestmark = [
    pytest.mark.xdist_group("generated_roles"),
    # The service runs in a thread beside: its jitter moves the state of `random` while requests
    # are being made up, which looks as if their makers had used it.
    pytest.mark.filterwarnings(
        "ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning"
    ),
]
RANKS: Final = ("viewer", "trader", "operator", "admin")
ENDLESS: Final = f"GET {PREFIX}/events"  # test_stream.py listens to it
HUGE: Final = b'{"reason": "' + b"x" * 100_000 + b'"}'  # more than any body may have
# Tables of background work, the log of refusals and the tickets that each viewer may get.
MOVING: Final = frozenset({
    "decision_inputs",
    "alerts", "candle_revisions", "candles", "event_head", "events", "funding_rates",
    "job_executors", "leases", "market_snapshots", "notifications", "performance_marks",
    "quality_verdicts", "rate_limit_windows", "rebalance_run_steps", "rebalance_runs",
    "scoring_moments", "scoring_run_coverage", "scoring_run_details", "scoring_run_moments",
    "scoring_runs", "security_anchors", "security_events", "service_facts", "shared_markets",
    "signal_effects", "signal_outcomes", "stream_tickets", "symbol_scores", "trials",
})  # fmt: skip
UNKNOWN: Final = "6f0b6c1e-0000-4a55-9f4b-6f8f0b4f2a10"
PROPOSAL: Final = "6f0b6c1e-6d8e-4a55-9f4b-6f8f0b4f2a10"
SIGNAL: Final = {
    "source_name": "desk",
    "signal_type": "momentum",
    "signal_strength": 1.0,
    "confidence_level": 1.0,
}
CHANNEL: Final = {"name": "desk", "kind": "webhook", "url": "https://hooks.example.com/a"}


# Schemathesis is imported at its first use: it takes a second in each process of the tests.
def operations() -> "list[Operation]":
    from tests.support import generated_requests

    return generated_requests.operations()


def cases_of(operation: "Operation") -> "list[Case]":
    from tests.support import generated_requests

    return generated_requests.cases_of(operation)


def call_checked(case: "Case", url: str, headers: Mapping[str, str]) -> int:
    from tests.support import generated_requests

    return generated_requests.call_checked(case, url, headers)


async def store_proposal(file: Path, symbol: str) -> None:
    """Stores an open proposal beside the running service."""
    now = datetime.now(UTC)
    proposal = Proposal(
        PROPOSAL, ProposalKind.SIGNAL, symbol, ProposalState.OPEN, 2, "known",
        {"signal_id": "00", "move": "remove", "symbol": symbol, "old_symbol": None,
         "new_symbol": None, "evaluation": None, "score": None},
        now, now + timedelta(days=1),
    )  # fmt: skip
    database = Database(
        DatabaseOptions(url=f"sqlite+aiosqlite:///{file}"), time.monotonic, lambda: 0.5,
        encode_event, lambda _: None, lambda _: None,
    )  # fmt: skip
    await database.open(is_exclusive=False)
    async with database.write() as unit:
        await unit.get(ProposalRepository).open(proposal)
    await database.close()


@dataclass
class World(Caller):
    """The running service, a key of each role, and an object of each kind."""

    file: Path = Path()
    tokens: dict[str, str] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)  # by the path before the name
    _addresses: Iterator[int] = field(default_factory=lambda: count(1))

    def begin(self) -> None:
        """Makes the keys, and the objects as an administrator."""
        for role in reversed(RANKS):  # the first key ends the open mode
            self.tokens[role] = self.post("/keys", {"name": role, "role": role})["secret"]
            self.session.headers["X-API-Key"] = self.tokens["admin"]

    def fill(self) -> None:
        """Makes an object of each kind, as an administrator."""
        sample = self.post("/initialize-sample-data", {})
        while self.get(f"{PREFIX}/status")["feed"]["stage"] != "complete":
            time.sleep(0.1)
        observe = {"automation": {"rebalance": "observe", "replacement": "observe"}}
        self.done("PATCH", f"{PREFIX}/configuration", json=observe)
        self.post("/portfolio/initialize", {"size": 6})
        symbol = self.get(f"{PREFIX}/portfolio")["members"][0]["symbol"]
        self.done(
            "PUT", f"{PREFIX}/portfolio/locks/{symbol}", json={"kind": "pin", "reason": "known"}
        )
        signal = self.post("/signals", SIGNAL | {"symbol": symbol})
        channel = self.post("/notifications/channels", CHANNEL)["id"]
        self.post("/notifications/test", {"channel_id": channel})
        job = self.ask("POST", f"{PREFIX}/symbols/sync", headers={"Prefer": "respond-async"})
        backtest = self.ask("POST", f"{PREFIX}/research/backtests", json={"draws": 1})
        asyncio.run(store_proposal(self.file, symbol))
        spare = self.post("/keys", {"name": "spare", "role": "viewer"})
        person = self.post("/users", {"name": "ana", "role": "viewer", "password": PASSWORD})
        logged_in = requests.post(
            f"{self.url}{PREFIX}/sessions",
            json={"name": "ana", "password": PASSWORD},
            timeout=PATIENCE_S,
        )
        burst = self.elsewhere()
        for _ in range(11):
            self.ask("GET", f"{PREFIX}/health", headers={"X-API-Key": "mysym_x", **burst})
        while not (alerts := self.get(f"{PREFIX}/alerts?rule=authentication_burst")["items"]):
            time.sleep(0.1)
        self.known = {
            **dict.fromkeys(("/symbols", "/market", "/scoring/symbol"), symbol),
            **dict.fromkeys(("/portfolio/symbols", "/portfolio/locks"), symbol),
            "/scoring/algorithms": self.get(f"{PREFIX}/scoring/algorithms")["items"][0]["name"],
            "/scoring/runs": sample["run_id"],
            "/portfolio/rebalances": self.post("/portfolio/rebalance", {})["run_id"],
            "/portfolio/proposals": PROPOSAL,
            "/portfolio/replacements": PROPOSAL,
            "/sectors": "BTC",
            "/alerts/rules": self.get(f"{PREFIX}/alerts/rules")["rules"][0]["name"],
            "/alerts": alerts[0]["id"],
            "/signals": signal["signal_id"],
            "/notifications/channels": channel,
            "/notifications": self.get(f"{PREFIX}/notifications")["items"][0]["id"],
            "/jobs": job.json()["id"],
            "/research/backtests": backtest.json()["id"],
            "/keys": spare["id"],
            "/users": person["id"],
            "/sessions": logged_in.json()["id"],
        }

    def place(self, operation: "Operation", name: str | None = None) -> str:
        """Path of an operation, about the known object or about `name`."""
        before, brace, rest = operation.path.partition("{")
        if not brace:
            return str(before)
        shown = quote(name or self.known_for(operation), safe="")
        return f"{before}{shown}{rest.partition('}')[2]}"

    def known_for(self, operation: "Operation") -> str:
        """Name of the known object that an operation is about."""
        before = operation.path.partition("/{")[0]
        return str(self.known[before.removeprefix(PREFIX)])

    def post(self, path: str, body: Mapping[str, Any], **headers: str) -> Any:
        return self.done("POST", PREFIX + path, json=body, headers=headers)

    def ask_as(self, role: str | None, method: str, path: str) -> requests.Response:
        """The answer to the key of a role, or to no key."""
        headers = {} if role is None else bearer(self.tokens[role])
        return requests.request(method, self.url + path, headers=headers, timeout=PATIENCE_S)

    def elsewhere(self) -> dict[str, str]:
        """Headers of a caller from a new address: each may fail ten times a minute."""
        number = next(self._addresses)
        return {"X-Forwarded-For": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"}

    def changes_of(self, role: str) -> list[str]:
        """Whatever the audit log has of the key of a role, but refusals."""
        entries = self.get(f"{PREFIX}/audit?actor=key:{role}&limit=500")["items"]
        return [one["action"] for one in entries if one["action"] != "refused"]

    def tables(self) -> dict[str, list[str]]:
        """Rows of each table that changes by a caller only, without the time of its last use."""
        with closing(sqlite3.connect(f"file:{self.file}?mode=ro", uri=True)) as reader:
            names = [
                name
                for (name,) in reader.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
                if name not in MOVING
            ]
            return {name: rows_of(reader, name) for name in names}


def rows_of(reader: sqlite3.Connection, table: str) -> list[str]:
    cursor = reader.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - a name from the schema
    names = [name for name, *_ in cursor.description]
    return sorted(
        repr([value for name, value in zip(names, row, strict=True) if name != "last_used_at"])
        for row in cursor
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    room = tmp_path_factory.mktemp("roles")
    with (
        serving(room, contracts=16, trusted_proxies=("127.0.0.1",)) as url,
        requests.Session() as session,
    ):
        made = World(url, session, room / FILE)
        made.begin()
        made.fill()
        yield made


def about_known(case: "Case", world: World) -> None:
    """Puts the name of a known object into the path."""
    if case.path_parameters:
        known = world.known_for(case.operation)
        case.path_parameters = dict.fromkeys(case.path_parameters, known)


def is_simple(operation: "Operation") -> bool:
    """True for a read that needs nothing but the name of a known object."""
    parameters = operation.definition.raw.get("parameters", ())
    needed = [one for one in parameters if one.get("required") and one["in"] != "path"]
    return operation.method.upper() == "GET" and not needed


def required(operation: "Operation") -> str | None:
    """Least role of an operation; None where any caller, or everyone, may use it."""
    role: str | None = operation.definition.raw.get("x-required-role")
    return role


def is_public(operation: "Operation") -> bool:
    return not operation.definition.raw["security"]


def above(role: str) -> "list[Operation]":
    """Operations that need a higher role."""
    return [
        one
        for one in operations()
        if (least := required(one)) is not None and RANKS.index(least) > RANKS.index(role)
    ]


def inputs(operation: "Operation", world: World) -> Iterator[dict[str, Any]]:
    """Generated requests, and fixed ones about a known object: plain, malformed and too large."""
    for case in cases_of(operation):
        yield case.as_transport_kwargs(world.url)
    known = {"method": operation.method.upper(), "url": world.url + world.place(operation)}
    yield known
    yield known | {"params": {"nonsense": "%ff"}}
    if operation.method.upper() != "GET":
        as_json = {"Content-Type": "application/json"}
        yield known | {"json": {}}
        yield known | {"data": b'{"reason": ', "headers": as_json}
        yield known | {"data": HUGE, "headers": as_json}
        yield known | {"data": b"\xff\xfe", "headers": {"Content-Type": "text/plain"}}


def send(
    session: requests.Session, given_input: Mapping[str, Any], headers: Mapping[str, str]
) -> requests.Response:
    merged = {**(given_input.get("headers") or {}), **headers}
    return session.request(**{**given_input, "headers": merged}, timeout=PATIENCE_S)


def other_answers(
    world: World, operation: "Operation", headers: Mapping[str, str], status: int, code: Code
) -> list[str]:
    """Answers to the inputs of an operation that are no refusal with this status and code.

    Each request comes from another address, whose invalid keys are below their limit.
    """
    found = []
    with requests.Session() as session:
        for given_input in inputs(operation, world):
            answer = send(session, given_input, {**headers, **world.elsewhere()})
            if is_before_routing(answer):
                continue
            problem = well_formed(answer) if answer.status_code >= 400 else {}
            if (answer.status_code, problem.get("code")) != (status, code):
                found.append(f"{operation.label}: {answer.status_code} {answer.request.url}")
    return found


def is_before_routing(answer: requests.Response) -> bool:
    """True for an address that is too long, or that no operation may have (control characters)."""
    if answer.status_code in {414, 431}:
        return True
    is_encoded = "%" in urlsplit(answer.url).path
    return (
        is_encoded
        and answer.status_code == 404
        and answer.json()["detail"] == "There is nothing at this address."
    )


def allowed(role: str) -> "list[Operation]":
    """Operations that a role may use, without the endless one."""
    refused = {one.label for one in above(role)}
    return [one for one in operations() if one.label not in {*refused, ENDLESS}]


@pytest.mark.parametrize("role", RANKS[:-1])
def test_no_input_gets_an_answer_above_the_role(world: World, role: str) -> None:
    before, done = world.tables(), world.changes_of(role)
    wrong = [
        answer
        for operation in above(role)
        for answer in other_answers(
            world, operation, bearer(world.tokens[role]), 403, Code.FORBIDDEN
        )
    ]
    assert wrong == []
    assert world.tables() == before
    assert world.changes_of(role) == done


@pytest.mark.parametrize(
    "credential",
    [
        {},
        {"Authorization": "Bearer mysym_nonsense"},
        {"X-API-Key": "mysym_nonsense"},
        {"Cookie": "mysym_session=nonsense; __Host-mysym_session=nonsense"},
    ],
    ids=["none", "bearer", "header", "cookie"],
)
def test_no_input_gets_an_answer_without_a_credential(
    world: World, credential: dict[str, str]
) -> None:
    before = world.tables()
    wrong = [
        answer
        for operation in operations()
        if not is_public(operation)
        for answer in other_answers(world, operation, credential, 401, Code.UNAUTHENTICATED)
    ]
    assert wrong == []
    assert world.tables() == before


ROUTER: Final = api_router("system")


@ROUTER.get("/guarded/{name}")
@requires(Role.VIEWER)
async def guarded(name: str) -> str:
    """A route that says what it needs, and does."""
    return name


@ROUTER.get("/forgotten/{name}")
@public
async def forgotten(name: str) -> str:
    """A route whose description alone asks for a credential."""
    return name


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_the_check_of_ignored_credentials_sees_an_open_route(database: Database) -> None:
    from schemathesis.core.failures import FailureGroup
    from schemathesis.openapi.checks import IgnoredAuth

    from tests.support.generated_requests import operations_of

    desk = KeyDesk(database)
    token = {"X-API-Key": await desk.issue("eye", Role.VIEWER)}
    api = make_api({AUTHENTICATOR: desk.ring}, routers=[ROUTER])
    document = deepcopy(api.openapi())
    paths = [f"{PREFIX}/{name}/{{name}}" for name in ("guarded", "forgotten")]
    document["paths"] = {path: document["paths"][path] for path in paths}
    closed, opened = (methods["get"] for methods in document["paths"].values())
    opened["security"] = closed["security"]
    first, second = (cases_of(one)[0] for one in operations_of(document))
    for case in (first, second):
        case.path_parameters = {"name": "known"}
    async with listening(api) as server:
        url = f"http://127.0.0.1:{port_of(server)}"
        assert await asyncio.to_thread(call_checked, first, url, token) == 200
        with pytest.raises(FailureGroup) as raised:
            await asyncio.to_thread(call_checked, second, url, token)
    assert [type(one) for one in raised.value.exceptions] == [IgnoredAuth]


# After the others, for a trader's signals are worked on in the background.
@pytest.mark.parametrize("role", RANKS[:2])
def test_no_allowed_input_breaks_the_service_and_no_credential_is_ignored(
    world: World, role: str
) -> None:
    before = world.tables()
    checked, broken = set(), []
    for operation in allowed(role):
        for position, case in enumerate(cases_of(operation)):
            if position % 2 == 0:
                about_known(case, world)
            headers = {"X-API-Key": world.tokens[role], **world.elsewhere()}
            if call_checked(case, world.url, headers) < 300:
                checked.add(operation.label)
        with requests.Session() as session:
            for given_input in inputs(operation, world):
                sent = send(session, given_input, bearer(world.tokens[role]))
                if sent.status_code >= 500:
                    broken.append((operation.label, sent.text))
    assert broken == []
    simple = {one.label for one in allowed(role) if is_simple(one) and not is_public(one)}
    assert len(simple) > 40
    assert simple - checked == set(), "an answer is needed to see that a credential is"
    if role == "viewer":
        assert world.tables() == before


@pytest.mark.parametrize("role", [None, *RANKS[:-1]])
def test_below_the_role_an_existing_name_is_answered_like_an_unknown_one(
    world: World, role: str | None
) -> None:
    wrong, seen = [], 0
    for operation in operations() if role is None else above(role):
        if "{" not in operation.path or is_public(operation):
            continue
        seen += 1
        known, unknown = (
            world.ask_as(role, operation.method, world.place(operation, name))
            for name in (None, UNKNOWN)
        )
        if described(known) != described(unknown):
            wrong.append((operation.label, known.text, unknown.text))
    assert wrong == []
    assert seen > 5


def described(answer: requests.Response) -> tuple[int, Any, set[str]]:
    """Status, problem and names of headers; not the identity of the request, nor its own path."""
    problem = well_formed(answer)
    del problem["request_id"]
    shown, asked = problem.pop("instance").split("/"), urlsplit(answer.url).path.split("/")
    assert all(ours in {theirs, unquote(theirs)} or ours.startswith("{")
               for ours, theirs in zip(shown, asked, strict=True))  # fmt: skip
    return answer.status_code, problem, set(map(str.lower, answer.headers))


def test_what_a_role_may_read_is_the_same_for_each_and_an_unknown_name_is_404(
    world: World,
) -> None:
    for operation in operations():
        if "_id}" not in operation.path or not is_simple(operation):
            continue  # symbols, rules and algorithms belong to nobody
        for role in RANKS:
            if operation.label in {one.label for one in above(role)}:
                continue
            known, unknown = (
                world.ask_as(role, "GET", world.place(operation, name)) for name in (None, UNKNOWN)
            )
            assert (known.status_code, unknown.status_code) == (200, 404), operation.label
            well_formed(unknown)


@pytest.mark.parametrize("role", RANKS[:-1])
def test_S04_the_session_of_another_is_unknown_below_an_administrator(
    world: World, role: str
) -> None:
    path = f"{PREFIX}/sessions"
    assert world.ask_as(role, "GET", path).json() == {"items": []}
    known, unknown = (
        world.ask_as(role, "DELETE", f"{path}/{name}")
        for name in (world.known["/sessions"], UNKNOWN)
    )
    assert described(known) == described(unknown)
    assert known.status_code == 404
    assert world.known["/sessions"] in {one["id"] for one in world.get(path)["items"]}


@pytest.mark.long
def test_schemathesis_finds_no_object_of_one_role_that_another_must_not_see(
    world: World, tmp_path: Path
) -> None:
    keys = {role: world.tokens[role] for role in ("trader", "viewer")}
    run = check_objects(world.url, world.get("/openapi.json"), keys, tmp_path)
    assert run.returncode == 0, run.stdout
    assert f"{len(operations()) - 1} passed" in run.stdout, "all but the endless one"


NOTES: Final[dict[str, str]] = {}  # owners by id
LEAKING: Final = FastAPI()
NoteKey = Annotated[str, Security(APIKeyHeader(name="X-API-Key"))]


class Note(BaseModel):
    note_id: str
    owner: str


@LEAKING.post("/notes", status_code=201)
async def add_note(key: NoteKey) -> Note:
    """The owner gets the id."""
    if key not in {"ana", "bob"}:
        raise HTTPException(401)
    note = Note(note_id=f"note-{len(NOTES)}", owner=key)
    NOTES[note.note_id] = key
    return note


@LEAKING.get("/notes/{note_id}", responses={404: {}})
async def read_note(note_id: str, key: NoteKey) -> Note:
    """Everybody with a key gets the note of anybody."""
    if key not in {"ana", "bob"}:
        raise HTTPException(401)
    if note_id not in NOTES:
        raise HTTPException(404)
    return Note(note_id=note_id, owner=NOTES[note_id])


@pytest.mark.long
async def test_schemathesis_sees_the_object_of_another(tmp_path: Path) -> None:
    keys = {"ana": "ana", "bob": "bob"}
    async with listening(LEAKING) as server:
        url = f"http://127.0.0.1:{port_of(server)}"
        run = await asyncio.to_thread(check_objects, url, LEAKING.openapi(), keys, tmp_path)
    assert run.returncode == 1, run.stdout
    assert "received the `Note` that `ana` owns" in run.stdout


def check_objects(
    url: str, document: Mapping[str, Any], keys: Mapping[str, str], room: Path
) -> "subprocess.CompletedProcess[str]":
    """A run of the command line of schemathesis with two keys, whose objects are compared."""
    callers = [
        {"name": name, "fixedHeaders": [{"name": "X-API-Key", "value": key}]}
        for name, key in keys.items()
    ]
    (room / "callers.json").write_text(json.dumps({"auth": callers}), encoding="utf-8")
    (room / "openapi.json").write_text(json.dumps(document), encoding="utf-8")
    (room / "options.toml").write_text(
        f"""
        seed = 7
        [auth.wfc]
        path = "callers.json"
        peers = {json.dumps(list(keys))}
        [generation]
        max-examples = {max(2, int(os.environ.get("MYTESTS_GENERATED_EXAMPLES", "2")))}
        deterministic = true
        database = "none"
        with-security-parameters = false
        """,
        encoding="utf-8",
    )
    checks = "not_a_server_error,object_level_authorization"
    return subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "--config-file", "options.toml", "run",
         "openapi.json", "--url", url, "--checks", checks, "--phases", "fuzzing,stateful",
         "--exclude-path", ENDLESS.partition(" ")[2], "--no-color"],
        cwd=room, capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
