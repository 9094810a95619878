"""Every operation that changes something, from the OpenAPI document: keys, versions, effects.

A new one is missing in the table below, and the first test says so.
"""

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.harness import PREFIX, openapi_document
from tests.support.service_over_socket import FILE, PATIENCE_S, Caller, serving

DOCUMENT = openapi_document()
OPERATIONS = {
    f"{method.upper()} {path.removeprefix(PREFIX)}": operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
    if method != "get"
}
PORTFOLIO = "/portfolio"
# They ask with a body and change nothing: no key, no version.
READS: dict[str, Any] = {
    "POST /symbols/validate": {"symbols": ["BTCUSDT"]},
    "POST /portfolio/optimize-weights": {"method": "equal"},
    "POST /portfolio/preview": {"settings": {"score_tilt": 1.0}},
    "POST /scoring/runs/{run_id}/replay": None,
}
# The first key or user ends the open mode of the service: tests/security has them.
CALLERS = (
    *("POST /keys", "POST /keys/{key_id}/rotate", "DELETE /keys/{key_id}"),
    *("POST /users", "PATCH /users/{user_id}", "PUT /users/{user_id}/password"),
    "PUT /users/me/password",
    *("POST /sessions", "DELETE /sessions/current", "DELETE /sessions/{session_id}"),
    "POST /stream/tickets",
)
# They read the stored inputs of a decision: tests/system/test_decision_replay.py makes one each.
REPLAYS = (
    "POST /alerts/{alert_id}/replay",
    "POST /portfolio/rebalances/{run_id}/replay",
    "POST /portfolio/replacements/{decision_id}/replay",
    "POST /signals/{signal_id}/replay",
)
COLUMNS = "base,asset_class,sector,cap_category"
SWITCH = {"enabled": False, "reason": "a halt"}
LOCK = {"kind": "ban", "reason": "not this one"}
TABLES = ("portfolio", "portfolio_members", "portfolio_history", "trades", "proposals")
pytestmark = [pytest.mark.long, pytest.mark.xdist_group("changes")]


@dataclass
class Book(Caller):
    """The running service, brought into the state that a change needs."""

    file: Path
    settings: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    numbers: int = 0

    def held(self) -> list[str]:
        return [one["symbol"] for one in self.get(f"{PREFIX}/portfolio")["members"]]

    def other(self) -> str:
        held = self.held()
        return next(name for name in self.names if name not in held)

    def fill(self, size: int) -> None:
        """Trading on, no locks, first settings, and `size` members or none."""
        on = {"enabled": True, "reason": "the next change"}
        self.done("PUT", f"{PREFIX}/portfolio/trading-switch", json=on)
        for lock in self.get(f"{PREFIX}/portfolio/locks")["locks"]:
            self.done("DELETE", f"{PREFIX}/portfolio/locks/{lock['symbol']}")
        self.done("PATCH", f"{PREFIX}/configuration", json=self.settings)
        held = self.held()
        if len(held) == size:
            return
        for name in held:
            self.done("POST", f"{PREFIX}/portfolio/remove-symbol", json={"symbol": name})
        if size:
            self.done("POST", f"{PREFIX}/portfolio/initialize", json={"size": size})

    def key(self) -> str:
        self.numbers += 1
        return f"key-{self.numbers}"

    def has_checked(self, what: str) -> bool:
        """Whether the schedule has made its check of the start, and makes no other now."""
        jobs = self.get(f"{PREFIX}/jobs?kind={what}_check")["items"]
        states = {job["state"] for job in jobs}
        return "done" in states and not states & {"queued", "running"}

    def seen(self) -> dict[str, str]:
        """A digest of every table that a change may touch; keys themselves are not among them."""
        with closing(sqlite3.connect(f"file:{self.file}?mode=ro", uri=True)) as connection:
            return {
                table: hashlib.sha256(
                    repr(
                        sorted(connection.execute(f"SELECT * FROM {table}"), key=repr)  # noqa: S608  # of TABLES
                    ).encode()
                ).hexdigest()
                for table in TABLES
            }

    def propose(self, old: str, new: str) -> str:
        """A replacement that waits, as the schedule would have written it down; its id."""
        version, proposal = self.get(f"{PREFIX}/portfolio")["version"], self.key()
        action = {"old_symbol": old, "new_symbol": new, "confirmations": 3}
        unknown = ("old_score", "new_score", "improvement_z", "threshold_z", "strength", "forced")
        action |= dict.fromkeys(unknown)
        with closing(sqlite3.connect(self.file, timeout=60)) as connection:
            connection.execute(
                "UPDATE proposals SET state = 'declined', decided_at = opened_at,"
                " decided_by = 'x', decision_reason = 'x' WHERE state = 'open'"
            )
            connection.execute(
                "INSERT INTO proposals (proposal_id, portfolio_id, kind, subject, state, version,"
                " reason, action, opened_at, expires_at) VALUES (?, 'main', 'replacement', ?,"
                " 'open', ?, 'confirmed', ?, '2026-01-01T00:00:00.000000Z',"
                " '2999-01-01T00:00:00.000000Z')",
                (proposal, old, version, json.dumps(action)),
            )
            connection.commit()
        return proposal

    def begin_again(self, key: str) -> None:
        """As if the request with this key were still being carried out, by somebody alive."""
        with closing(sqlite3.connect(self.file, timeout=60)) as connection:
            changed = connection.execute(
                "UPDATE idempotency_keys SET state = 'running', status = NULL, headers = NULL,"
                " body = NULL, locked_until = '2999' || substr(locked_until, 5) WHERE key = ?",
                (key,),
            )
            assert changed.rowcount == 1
            connection.commit()


@dataclass(frozen=True)
class Change:
    """How to get there, what to ask, and what else the same key could be used for."""

    ready: Callable[[Book], dict[str, str]]  # -> names for the path
    body: Callable[[dict[str, str]], dict[str, Any] | None]
    other: Callable[[dict[str, str]], dict[str, Any] | None]  # None: another address
    version: str | None = PORTFOLIO  # whose ETag If-Match is; None: it has no version


def members(size: int) -> Callable[[Book], dict[str, str]]:
    def ready(book: Book) -> dict[str, str]:
        book.fill(size)
        held = book.get(f"{PREFIX}/portfolio")["members"]
        return {
            "symbol": held[-1]["symbol"] if held else "",
            "since": held[-1]["inclusion_date"] if held else "",
            "other": book.other(),
            "fresh": book.key(),
        }

    return ready


def written(book: Book) -> dict[str, str]:
    """The settings as a whole document."""
    return {**members(4)(book), "document": json.dumps(book.settings)}


def unequal(book: Book) -> dict[str, str]:
    """Eight members, two of which lie outside the band of equal weights at any price."""
    names = members(8)(book)
    symbols = [one["symbol"] for one in book.get(f"{PREFIX}/portfolio")["members"]]
    weights = dict(zip(symbols, (20, 5, *[12.5] * 6), strict=True))
    rebalancing = book.settings["rebalancing"] | {"fixed_weights": weights}
    settings = book.settings | {"rebalancing": rebalancing, "rebalance_min_spacing_s": 0}
    book.done("PATCH", f"{PREFIX}/configuration", json=settings)
    book.done("POST", f"{PREFIX}/portfolio/rebalance", json={"method": "fixed"})
    return names


def locked(book: Book) -> dict[str, str]:
    names = members(4)(book)
    book.done("PUT", f"{PREFIX}/portfolio/locks/{names['other']}", json=LOCK)
    return {"symbol": names["other"], "other": names["symbol"]}


def proposed(book: Book) -> dict[str, str]:
    names = members(4)(book)
    return {**names, "proposal_id": book.propose(names["symbol"], names["other"])}


def classified(book: Book) -> dict[str, str]:
    """A coin with an edited sector."""
    names = {**members(4)(book), "base": "BTC"}
    book.done("PUT", f"{PREFIX}/sectors/BTC", json={"sector": book.key().replace("-", "_")})
    return names


def alarmed(book: Book) -> dict[str, str]:
    """Every member scores too low: each has an open alert."""
    names = members(8)(book)
    rule = {"rules": {"low_score": {"cooldown_s": 0}}, "low_score": 1.0}
    book.done("PATCH", f"{PREFIX}/configuration", json={"alerts": rule})
    found = book.get(f"{PREFIX}/alerts?rule=low_score")["items"]
    return {**names, "alert_id": found[0]["id"]}


def job(book: Book) -> dict[str, str]:
    headers = {"Prefer": "respond-async"}
    begun = book.ask("POST", f"{PREFIX}/symbols/sync", json={}, headers=headers)
    return {"job_id": begun.json()["id"]}


def reachable(book: Book) -> dict[str, str]:
    """A channel that is switched off: nothing leaves."""
    made = book.done("POST", f"{PREFIX}/notifications/channels", json=channel(book.key()))
    return {"channel_id": made["id"], "fresh": book.key()}


def given_up(book: Book) -> dict[str, str]:
    names = reachable(book)
    asked = {"channel_id": names["channel_id"]}
    notice = book.done("POST", f"{PREFIX}/notifications/test", json=asked)["id"]
    with closing(sqlite3.connect(book.file, timeout=60)) as connection:
        connection.execute(
            "UPDATE notifications SET state = 'dead', next_attempt_at = NULL WHERE id = ?",
            (notice,),
        )
        connection.commit()
    return {**names, "notification_id": str(notice)}


def channel(name: str) -> dict[str, Any]:
    address = {"url": "https://hooks.example.com/x", "secret": "sixteen letters."}
    return {"name": name, "kind": "webhook", "enabled": False, **address}


def signal(name: str, strength: float) -> dict[str, Any]:
    said = {"signal_strength": strength, "confidence_level": 0.9, "symbol": "BTCUSDT"}
    return {"source_name": "desk", "signal_type": "momentum", "source_signal_id": name, **said}


def result(names: dict[str, str], pnl: str) -> dict[str, Any]:
    return {
        "trade_id": names["fresh"],
        "pnl": pnl,
        "currency": "USDT",
        "occurred_at": names["since"],
    }


CHANGES = {
    "POST /symbols/sync": Change(members(4), lambda _: None, lambda _: None, None),
    "POST /initialize-sample-data": Change(members(4), lambda _: None, lambda _: None, None),
    "POST /jobs/{job_id}/cancel": Change(job, lambda _: None, lambda _: None, None),
    "POST /research/backtests": Change(
        members(4), lambda _: {"draws": 1}, lambda _: {"draws": 2}, None
    ),
    "POST /scoring/calculate": Change(
        members(4), lambda n: {"symbol": n["symbol"]}, lambda n: {"symbol": n["other"]}, None
    ),
    "POST /portfolio/initialize": Change(members(0), lambda _: {"size": 4}, lambda _: {"size": 5}),
    "POST /portfolio/add-symbol": Change(
        members(4), lambda n: {"symbol": n["other"]}, lambda n: {"symbol": n["symbol"]}
    ),
    "POST /portfolio/remove-symbol": Change(
        members(4), lambda n: {"symbol": n["symbol"]}, lambda n: {"symbol": n["other"]}
    ),
    "POST /portfolio/replace-symbol": Change(
        members(4),
        lambda n: {"old_symbol": n["symbol"], "new_symbol": n["other"]},
        lambda n: {"old_symbol": n["symbol"], "new_symbol": n["other"], "reason": "else"},
    ),
    "POST /portfolio/rebalance": Change(
        unequal, lambda _: {"method": "equal"}, lambda _: {"method": "risk_parity"}
    ),
    "POST /portfolio/proposals/{proposal_id}/approve": Change(
        proposed, lambda _: {"reason": "right"}, lambda _: {"reason": "right after all"}
    ),
    "POST /portfolio/proposals/{proposal_id}/decline": Change(
        proposed, lambda _: {"reason": "wrong"}, lambda _: {"reason": "wrong after all"}
    ),
    "PUT /portfolio/trading-switch": Change(
        members(4), lambda _: SWITCH, lambda _: {**SWITCH, "reason": "another"}
    ),
    "PUT /portfolio/locks/{symbol}": Change(
        members(4), lambda _: LOCK, lambda _: {**LOCK, "reason": "another"}
    ),
    "DELETE /portfolio/locks/{symbol}": Change(locked, lambda _: None, lambda _: None),
    "POST /portfolio/symbols/{symbol}/performance": Change(
        members(4),
        lambda n: result(n, "1.5"),
        lambda n: result(n, "2.5"),
    ),
    "POST /market/{symbol}/quality/release": Change(
        members(4), lambda _: {"reason": "seen"}, lambda _: {"reason": "seen twice"}, None
    ),
    "PUT /sectors/{base}": Change(
        classified, lambda _: {"sector": "layer1"}, lambda _: {"sector": "defi"}, None
    ),
    "DELETE /sectors/{base}": Change(classified, lambda _: None, lambda _: None, None),
    "POST /sectors/import": Change(
        classified,
        lambda n: {"csv": f"{COLUMNS}\n{n['base']},coin,layer1,large\n"},
        lambda n: {"csv": f"{COLUMNS}\n{n['base']},coin,defi,large\n"},
        None,
    ),
    "POST /alerts/{alert_id}/acknowledge": Change(
        alarmed, lambda _: {"user": "one"}, lambda _: {"user": "other"}, None
    ),
    "POST /alerts/{alert_id}/snooze": Change(
        alarmed, lambda _: {"seconds": 60}, lambda _: {"seconds": 61}, None
    ),
    "POST /alerts/{alert_id}/resolve": Change(
        alarmed, lambda _: {"user": "one"}, lambda _: {"user": "other"}, None
    ),
    "PUT /alerts/rules/{name}": Change(
        lambda book: {**members(4)(book), "name": "clock_offset"},
        lambda _: {"limit": 4.5},
        lambda _: {"limit": 5.5},
        "/configuration",
    ),
    "PUT /scoring/algorithms/{name}": Change(
        lambda book: {**members(4)(book), "name": "cross_sectional"},
        lambda n: {"impact_notional": 2_000 + int(n["fresh"].split("-")[1])},
        lambda _: {"impact_notional": 1_999},
        "/configuration",
    ),
    "POST /notifications/channels": Change(
        reachable,
        lambda n: channel(n["fresh"]),
        lambda n: channel(n["fresh"] + "-other"),
        None,
    ),
    "PUT /notifications/channels/{channel_id}": Change(
        reachable,
        lambda n: channel(n["fresh"]),
        lambda n: channel(n["fresh"] + "-other"),
        None,
    ),
    "DELETE /notifications/channels/{channel_id}": Change(
        reachable, lambda _: None, lambda _: None, None
    ),
    "POST /notifications/test": Change(
        reachable,
        lambda n: {"channel_id": n["channel_id"]},
        lambda _: {"channel_id": "another"},
        None,
    ),
    "POST /notifications/{notification_id}/redrive": Change(
        given_up, lambda _: None, lambda _: None, None
    ),
    "POST /signals": Change(
        members(4),
        lambda n: signal(n["fresh"], 0.8),
        lambda n: signal(n["fresh"], 0.9),
        None,
    ),
    "POST /signals/cleanup": Change(
        members(4), lambda _: {"older_than_days": 1}, lambda _: {"older_than_days": 2}, None
    ),
    "POST /signals/reprocess-failed": Change(
        members(4), lambda _: {"max_retries": 1}, lambda _: {"max_retries": 2}, None
    ),
    "PATCH /configuration": Change(
        members(4),
        lambda _: {"max_weight_percentage": "40"},
        lambda _: {"max_weight_percentage": "41"},
        "/configuration",
    ),
    "PUT /configuration": Change(
        written,
        lambda n: json.loads(n["document"]) | {"max_weight_percentage": "40"},
        lambda n: json.loads(n["document"]) | {"max_weight_percentage": "41"},
        "/configuration",
    ),
    "POST /configuration/rollback": Change(
        members(4), lambda _: {"version": 1}, lambda _: {"version": 2}, "/configuration"
    ),
}
CONDITIONAL = ("PUT /configuration",)  # refused without If-Match
VERSIONED = [name for name, change in CHANGES.items() if change.version is not None]


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Book]:
    room = tmp_path_factory.mktemp("changes")
    with serving(room) as url, requests.Session() as session:
        opened = Book(url, session, room / FILE)
        loaded = opened.done("POST", f"{PREFIX}/initialize-sample-data")
        opened.names = loaded["symbols"]
        opened.settings = opened.get(f"{PREFIX}/configuration")
        del opened.settings["version"]
        # Nobody but the test changes anything.
        opened.settings["intervals"] |= {"rebalance_check_s": 86_400, "replacement_check_s": 86_400}
        opened.done("PATCH", f"{PREFIX}/configuration", json=opened.settings)
        until = time.monotonic() + PATIENCE_S
        while not all(opened.has_checked(kind) for kind in ("rebalance", "replacement")):
            assert time.monotonic() < until, "the checks of the start do not end"
            time.sleep(0.05)
        yield opened


@dataclass(frozen=True)
class Asked:
    """One change in a state in which it does something."""

    book: Book
    name: str
    names: dict[str, str]

    @property
    def change(self) -> Change:
        return CHANGES[self.name]

    def ask(self, body: Any, *, symbol: str | None = None, **headers: str) -> requests.Response:
        method, path = self.name.split()
        place = path.format(**{**self.names, **({"symbol": symbol} if symbol else {})})
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.name in CONDITIONAL and "If-Match" not in given:
            given["If-Match"] = self.book.ask("GET", PREFIX + place).headers["etag"]
        return self.book.ask(method, PREFIX + place, json=body, headers=given)

    def first(self, **headers: str) -> requests.Response:
        return self.ask(self.change.body(self.names), **headers)


@pytest.fixture
def asked(request: pytest.FixtureRequest, book: Book) -> Asked:
    name = str(request.param)
    return Asked(book, name, CHANGES[name].ready(book))


def refused(answer: requests.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_every_operation_that_changes_something_is_here() -> None:
    assert {*CHANGES, *READS, *CALLERS, *REPLAYS} == set(OPERATIONS)
    for name, change in CHANGES.items():
        headers = {one["name"] for one in OPERATIONS[name]["parameters"] if one["in"] == "header"}
        assert "Idempotency-Key" in headers, name
        assert ("If-Match" in headers) is (change.version is not None), name


@pytest.mark.parametrize("name", READS)
def test_I4_what_only_asks_changes_nothing(book: Book, name: str) -> None:
    book.fill(4)
    before = book.seen()
    run_id = book.get(f"{PREFIX}/scoring/rankings")["run_id"]
    book.done("POST", PREFIX + name.split()[1].format(run_id=run_id), json=READS[name])
    assert book.seen() == before


@pytest.mark.parametrize("asked", CHANGES, indirect=True)
def test_I1_the_same_key_gives_the_same_answer_and_no_second_effect(asked: Asked) -> None:
    key = asked.book.key()
    before = asked.book.seen()
    first = asked.first(Idempotency_Key=key)
    assert first.status_code in {200, 201, 202}, first.text
    after = asked.book.seen()
    assert (after != before) is (asked.change.version is not None)
    again = asked.first(Idempotency_Key=key)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    for name in ("etag", "content-type"):
        assert again.headers.get(name) == first.headers.get(name)
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert asked.book.seen() == after


@pytest.mark.parametrize("asked", CHANGES, indirect=True)
def test_C03_the_key_is_not_good_for_another_request(asked: Asked) -> None:
    key = asked.book.key()
    assert asked.first(Idempotency_Key=key).status_code in {200, 201, 202}
    after = asked.book.seen()
    other = asked.change.other(asked.names)
    if other is None:  # nothing to say in a body: the key is tried on another operation
        switch = f"{PREFIX}/portfolio/trading-switch"
        headers = {"Idempotency-Key": key}
        answer = asked.book.ask("PUT", switch, json=SWITCH, headers=headers)
    else:
        answer = asked.ask(other, Idempotency_Key=key)
    refused(answer, 422, "idempotency_key_reused")
    assert asked.book.seen() == after


@pytest.mark.parametrize("asked", CHANGES, indirect=True)
def test_C02_while_the_first_is_being_carried_out_the_second_is_told_so(asked: Asked) -> None:
    key = asked.book.key()
    assert asked.first(Idempotency_Key=key).status_code in {200, 201, 202}
    after = asked.book.seen()
    asked.book.begin_again(key)
    answer = asked.first(Idempotency_Key=key)
    refused(answer, 409, "idempotency_in_progress")
    assert asked.book.seen() == after


@pytest.mark.parametrize("asked", VERSIONED, indirect=True)
def test_C14_a_change_decided_on_another_version_is_refused(asked: Asked) -> None:
    before = asked.book.seen()
    refused(asked.first(If_Match='"999999"'), 412, "precondition_failed")
    assert asked.book.seen() == before
    present = asked.book.ask("GET", f"{PREFIX}{asked.change.version}").headers["etag"]
    done = asked.first(If_Match=present)
    assert done.status_code in {200, 201, 202}, done.text
    assert asked.book.seen() != before
