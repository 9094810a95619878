"""The running service behind a socket: a burst raises an alert, and refusals outlast a stop."""

import asyncio
import json
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests

from app.cli.exit_codes import ExitCode
from app.operations.storage.audit import verify_security_events
from tests.cli.command import here
from tests.support.api_keys import OWN_PAGE, PASSWORD, bearer
from tests.support.harness import PREFIX
from tests.support.service_over_socket import FILE, Caller, serving

pytestmark = pytest.mark.xdist_group("audit_light")
WRONG = bearer("mysym_nonsense")
EVE = {"name": "eve", "password": PASSWORD}
WITHIN_S = 10.0
COUNTED = "SELECT kind, principal, address, code, count FROM security_events ORDER BY seq"


def rows(file: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as reader:
        return reader.execute(query).fetchall()


@pytest.mark.parametrize("credential", ["key", "password"])
def test_eleven_failed_authentications_raise_an_alert_within_ten_seconds(
    tmp_path: Path, credential: str
) -> None:
    file = tmp_path / FILE
    alerts = (
        "SELECT subject, severity, state, value FROM alerts WHERE rule = 'authentication_burst'"
    )
    with serving(tmp_path, contracts=16) as url, requests.Session() as session:
        service = Caller(url, session)
        assert service.get(f"{PREFIX}/health")["access"] == "open"

        def fail() -> int:
            if credential == "password":
                return service.ask("POST", f"{PREFIX}/sessions", json=EVE).status_code
            return service.ask("GET", f"{PREFIX}/health", headers=WRONG).status_code

        for _ in range(10):
            assert fail() == 401
        time.sleep(2.0)
        assert rows(file, alerts) == [], "ten are allowed"
        began = time.monotonic()
        assert fail() == 429
        while not (found := rows(file, alerts)):
            assert time.monotonic() - began < WITHIN_S
            time.sleep(0.1)
        assert time.monotonic() - began < WITHIN_S
        assert found == [("127.0.0.1", "warning", "open", 11.0)]
        (shown,) = service.get(f"{PREFIX}/alerts?rule=authentication_burst")["items"]
        assert (shown["subject"], shown["limit"]) == ("127.0.0.1", 10.0)
        (burst,) = service.get(f"{PREFIX}/audit?action=authentication_burst")["items"]
        assert (burst["subject"], burst["count"], burst["actor"]) == ("127.0.0.1", 11, "service")

        listed = here("audit", "list", "--json", "--action", "service_started", MYSYMBOLS_URL=url)
        assert listed.code == ExitCode.OK, listed.err
        (started,) = listed.document["items"]
        assert (started["code"], started["details"]["role"]) == ("open", "all")
        told = here("audit", "list", "--actor", "service", "--limit", "1", MYSYMBOLS_URL=url)
        assert told.code == ExitCode.OK
        assert "authentication_burst" in told.out
        assert "There are more than 1;" in told.err
        wrong = here("audit", "list", "--from", "soon", MYSYMBOLS_URL=url)
        assert wrong.code == ExitCode.REFUSED
        checks = service.get(f"{PREFIX}/portfolio/integrity")["invariants"]
        assert {"name": "security_chain", "ok": True, "detail": None} in checks

    failed = [row for row in rows(file, COUNTED) if row[0] in {"authentication_failed", "refused"}]
    assert sum(row[4] for row in failed if row[0] == "authentication_failed") == 11
    caller = "anonymous" if credential == "key" else "local"
    assert ("refused", caller, "127.0.0.1", "rate_limited", 1) in failed, "stored at the stop"
    assert "eve" not in repr(rows(file, "SELECT * FROM security_events"))
    assert asyncio.run(verify_security_events(f"sqlite+aiosqlite:///{file}")).ok


PEOPLE = {"logged_in", "logged_out", "session_ended", "user_changed", "secrets_changed"}
HOOK = "https://hooks.example.com/a-secret-path"
CHANNEL = {"name": "desk", "kind": "webhook", "url": HOOK, "secret": "0123456789abcdef-secret"}


def test_every_change_of_an_operator_is_in_the_audit_log_once(tmp_path: Path) -> None:
    """Business changes are in the portfolio's history, all others in the other chain."""
    with serving(tmp_path, contracts=16) as url, requests.Session() as session:
        service = Caller(url, session)

        def post(path: str, body: Any = None, **headers: str) -> Any:
            return service.done("POST", PREFIX + path, json=body or {}, headers=headers)

        while service.get(f"{PREFIX}/status")["feed"]["stage"] != "complete":
            time.sleep(0.1)
        channel = post("/notifications/channels", CHANNEL)
        changed = {**CHANNEL, "enabled": False}
        path = f"{PREFIX}/notifications/channels/{channel['id']}"
        service.done("PUT", path, json=changed)
        post("/notifications/test", {"channel_id": channel["id"]})
        service.done("DELETE", path)
        for _ in range(11):
            service.ask("GET", f"{PREFIX}/health", headers=WRONG)
        while not (alerts := service.get(f"{PREFIX}/alerts?rule=authentication_burst")["items"]):
            time.sleep(0.1)
        alert = alerts[0]["id"]
        for _ in range(2):
            keyed = {"Idempotency-Key": "one"}
            post(f"/alerts/{alert}/acknowledge", {"user": "ana"}, **keyed)
        post(f"/alerts/{alert}/snooze", {"seconds": 60})
        post(f"/alerts/{alert}/resolve")
        post("/initialize-sample-data")
        post("/symbols/sync")
        post("/scoring/calculate")
        asked = {"Prefer": "respond-async"}
        job = service.ask("POST", f"{PREFIX}/symbols/sync", headers=asked)
        assert job.status_code == 202
        post(f"/jobs/{job.json()['id']}/cancel")
        service.done("PATCH", f"{PREFIX}/configuration", json={"max_portfolio_symbols": 9})
        post("/market/BTCUSDT/quality/release", {"reason": "seen"})
        post("/signals/cleanup")
        post("/signals/reprocess-failed")
        post("/portfolio/initialize", {"size": 2})
        post("/portfolio/rebalance", {"dry_run": True})
        post("/portfolio/rebalance")
        entries = service.get(f"{PREFIX}/audit?actor=local&limit=200")["items"]
        text = json.dumps(service.get(f"{PREFIX}/audit?limit=200"))
    security = [one for one in reversed(entries) if one["chain"] == "security"]
    assert [(one["action"], one["code"], one["subject"]) for one in security] == [
        ("channel_changed", "created", "desk"),
        ("channel_changed", "changed", channel["id"]),
        ("channel_changed", "tested", channel["id"]),
        ("channel_changed", "removed", channel["id"]),
        ("alert_changed", "acknowledged", alert),
        ("alert_changed", "snoozed", alert),
        ("alert_changed", "resolved", alert),
        ("manual_run", "sample_data", "universe"),
        ("manual_run", "contract_sync", "contracts"),
        ("manual_run", "scoring", "universe"),
        ("job_changed", "started", "contract_sync"),
        ("job_changed", "cancelled", job.json()["id"]),
        ("quarantine_released", "released", "BTCUSDT"),
        ("signals_changed", "cleaned", "signals"),
        ("signals_changed", "requeued", "signals"),
        ("manual_run", "rebalance", "portfolio"),
    ]
    assert security[4]["details"] == {
        "rule": "authentication_burst", "subject": "127.0.0.1", "note": "ana",
    }  # fmt: skip
    assert {"name": "desk", "enabled": False}.items() <= security[1]["details"].items()
    assert {one["request_id"] is None for one in security} == {False}
    business = {one["action"] for one in entries if one["chain"] == "portfolio"}
    assert {"config", "add"} <= business
    assert "a-secret-path" not in text
    assert CHANNEL["secret"] not in text


def test_every_log_in_and_change_of_a_person_is_in_the_audit_log_once(tmp_path: Path) -> None:
    """Over HTTP, and by the command line beside the service."""
    wanted, other = {"name": "ana", "password": PASSWORD}, "another violet harbor"
    room = {"MYSYMBOLS_DATABASE__URL": f"sqlite+aiosqlite:///{tmp_path / FILE}"}
    with serving(tmp_path, contracts=16) as url, requests.Session() as session:
        service = Caller(url, session)
        users, sessions = f"{PREFIX}/users", f"{PREFIX}/sessions"
        channel = {"name": "desk", "kind": "webhook", "url": HOOK, "secret": CHANNEL["secret"]}
        service.done("POST", f"{PREFIX}/notifications/channels", json=channel)
        service.done("POST", users, json={**wanted, "role": "admin"})

        def log_in(status: int, **body: str) -> requests.Session:
            browser = requests.Session()
            browser.headers.update(OWN_PAGE)
            answer = browser.post(f"{url}{sessions}", json=body, timeout=60.0)
            assert answer.status_code == status, answer.text
            return browser

        log_in(401, name="eve", password=PASSWORD)
        for _ in range(2):
            log_in(401, name="ana", password=other)
        log_in(401, key="mysym_nonsense")
        browser = log_in(201, **wanted)
        ana = Caller(url, browser)
        bob = ana.done("POST", users, json={"name": "bob", "role": "operator", "password": other})
        path = f"{users}/{bob['id']}"
        theirs = log_in(201, name="bob", password=other)
        ana.done("PATCH", path, json={"role": "trader", "is_active": False})
        log_in(401, name="bob", password=other)
        for _ in range(2):
            keyed = {"Idempotency-Key": "one"}
            ana.done("PATCH", path, json={"is_active": True}, headers=keyed)
        ana.done("PUT", f"{path}/password", json={"password": PASSWORD})
        theirs = log_in(201, name="bob", password=PASSWORD)
        ended = theirs.get(f"{url}{sessions}", timeout=60.0).json()["items"][0]["id"]
        assert ana.ask("DELETE", f"{sessions}/{ended}").status_code == 204
        key = ana.done("POST", f"{PREFIX}/keys", json={"name": "boss", "role": "admin"})["secret"]
        log_in(201, key=key)
        own = {"current_password": other, "password": other}
        assert ana.ask("PUT", f"{users}/me/password", json=own).status_code == 403
        assert ana.ask("DELETE", f"{sessions}/current").status_code == 204
        log_in(429, **wanted)
        for arguments in (
            ("users", "add", "eva", "--role", "viewer"), ("users", "disable", "eva"),
            ("users", "enable", "eva"), ("users", "password", "eva"),
        ):  # fmt: skip
            done = here(*arguments, given=PASSWORD, **room)
            assert done.code == ExitCode.OK, done.err
        sealing = tmp_path / "served-sealing.key"
        sealing.write_text(f"{here('secrets', 'new-key').out.strip()}\n{sealing.read_text()}")
        for _ in range(2):
            assert here("secrets", "rotate", **room).code == ExitCode.OK
        sealing.write_text(here("secrets", "new-key").out)
        assert here("secrets", "discard", "--yes", **room).code == ExitCode.OK
        listed = here(
            "audit", "list", "--json", "--limit", "200", MYSYMBOLS_URL=url, MYSYMBOLS_KEY=key
        )
        assert listed.code == ExitCode.OK, listed.err
        entries = Caller(url, session).done("GET", f"{PREFIX}/audit?limit=200", headers=bearer(key))
        assert listed.document["items"] == entries["items"]
    changes = [
        (one["actor"], one["action"], one["code"], one["subject"], one["address"])
        for one in reversed(entries["items"])
        if one["action"] in PEOPLE
    ]
    here_, admin = "127.0.0.1", "user:ana"
    assert changes == [
        ("local", "user_changed", "created", "ana", None),
        (admin, "logged_in", "password", None, here_),
        (admin, "user_changed", "created", "bob", None),
        ("user:bob", "logged_in", "password", None, here_),
        (admin, "user_changed", "changed", "bob", None),
        (admin, "user_changed", "disabled", "bob", None),
        (admin, "user_changed", "enabled", "bob", None),
        (admin, "user_changed", "password_changed", "bob", None),
        ("user:bob", "logged_in", "password", None, here_),
        (admin, "session_ended", None, "user:bob", here_),
        ("key:boss", "logged_in", "key", None, here_),
        (admin, "logged_out", None, admin, here_),
        *(("local", "user_changed", code, "eva", None)
          for code in ("created", "disabled", "enabled", "password_changed")),
        ("local", "secrets_changed", "rotated", "channel", None),
        ("local", "secrets_changed", "discarded", "channel", None),
    ]  # fmt: skip
    details = {(one["subject"], one["code"]): one["details"] for one in entries["items"]}
    assert details["channel", "rotated"] == details["channel", "discarded"]
    assert details["channel", "rotated"] == {"secrets": 2, "rows": 1}
    disabled = details["bob", "disabled"]
    assert (disabled["role"], disabled["scopes"], disabled["ended_sessions"]) == ("trader", [], 1)
    assert details["bob", "changed"]["ended_sessions"] == 0
    (by_admin,) = [one for one in entries["items"] if one["action"] == "session_ended"]
    assert (by_admin["details"], by_admin["request_id"] is None) == ({"session_id": ended}, False)
    file = tmp_path / FILE
    failed = [row[1:] for row in rows(file, COUNTED) if row[0] == "authentication_failed"]
    totals = Counter[tuple[Any, ...]]()  # the minute may have ended between
    for *what, number in failed:
        totals[tuple(what)] += number
    assert totals == {
        ("anonymous", here_, "unknown_user"): 1,
        (admin, here_, "wrong_password"): 3,
        ("anonymous", here_, "malformed"): 1,
        ("user:bob", here_, "disabled"): 1,
        ("anonymous", here_, "blocked"): 1,
    }
    refused = {row[1:4] for row in rows(file, COUNTED) if row[0] == "refused"}
    assert refused == {("anonymous", here_, "rate_limited")}, "a failed log-in is one event"
    text = repr(rows(file, "SELECT * FROM security_events"))
    assert not [hidden for hidden in (PASSWORD, other, key, "eve", HOOK) if hidden in text]
    assert asyncio.run(verify_security_events(f"sqlite+aiosqlite:///{file}")).ok


def test_a_service_does_not_start_on_a_broken_chain_of_security_events(tmp_path: Path) -> None:
    with serving(tmp_path, contracts=16):
        pass
    with closing(sqlite3.connect(tmp_path / FILE)) as file:
        file.execute("DROP TRIGGER security_events_no_update")
        file.execute("UPDATE security_events SET code = 'keys'")
        file.commit()
    url = f"sqlite+aiosqlite:///{tmp_path / FILE}"
    refused = here("serve", "--port", "0", MYSYMBOLS_DATABASE__URL=url)
    assert refused.code == ExitCode.CORRUPT
    assert "chain of security events is damaged: event 1 was altered" in " ".join(
        (refused.out + refused.err).split()
    )
