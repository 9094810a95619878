"""The running service behind a socket: a burst raises an alert, and refusals outlast a stop."""

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests

from app.cli.exit_codes import ExitCode
from app.operations.storage.audit import verify_security_events
from tests.cli.command import here
from tests.support.api_keys import bearer
from tests.support.harness import PREFIX
from tests.support.service_over_socket import FILE, Caller, serving

pytestmark = pytest.mark.xdist_group("audit_light")
WRONG = bearer("mysym_nonsense")
WITHIN_S = 10.0
COUNTED = "SELECT kind, principal, address, code, count FROM security_events ORDER BY seq"


def rows(file: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as reader:
        return reader.execute(query).fetchall()


def test_eleven_failed_authentications_raise_an_alert_within_ten_seconds(tmp_path: Path) -> None:
    file = tmp_path / FILE
    alerts = (
        "SELECT subject, severity, state, value FROM alerts WHERE rule = 'authentication_burst'"
    )
    with serving(tmp_path, contracts=16) as url, requests.Session() as session:
        service = Caller(url, session)
        assert service.get(f"{PREFIX}/health")["access"] == "open"
        for _ in range(10):
            assert service.ask("GET", f"{PREFIX}/health", headers=WRONG).status_code == 401
        time.sleep(2.0)
        assert rows(file, alerts) == [], "ten are allowed"
        began = time.monotonic()
        assert service.ask("GET", f"{PREFIX}/health", headers=WRONG).status_code == 429
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
        assert "there are more than 1" in told.err
        wrong = here("audit", "list", "--since", "soon", MYSYMBOLS_URL=url)
        assert wrong.code == ExitCode.REFUSED
        checks = service.get(f"{PREFIX}/portfolio/integrity")["invariants"]
        assert {"name": "security_chain", "ok": True, "detail": None} in checks

    failed = [row for row in rows(file, COUNTED) if row[0] in {"authentication_failed", "refused"}]
    assert sum(row[4] for row in failed if row[0] == "authentication_failed") == 11
    assert ("refused", "anonymous", "127.0.0.1", "rate_limited", 1) in failed, "stored at the stop"
    assert asyncio.run(verify_security_events(f"sqlite+aiosqlite:///{file}")).ok


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
        service.done("PUT", f"{PREFIX}/configuration", json={"max_portfolio_symbols": 9})
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


def test_people_are_audited_and_guessed_passwords_raise_an_alert(tmp_path: Path) -> None:
    file, password = tmp_path / FILE, "correct horse battery staple"
    with serving(tmp_path, contracts=16) as url, requests.Session() as session:
        service = Caller(url, session)
        people = f"{PREFIX}/users"
        ana = {"name": "ana", "role": "admin", "password": password}
        user = service.done("POST", people, json=ana)
        body = {"name": "ana", "password": password}
        started = service.ask("POST", f"{PREFIX}/sessions", json=body)
        assert started.status_code == 201, started.text
        own = {"Cookie": "; ".join(f"{one.name}={one.value}" for one in session.cookies)}
        session.cookies.clear()
        own |= {"Sec-Fetch-Site": "same-origin", "X-Requested-With": "tests"}
        bob = {"name": "bob", "role": "viewer", "password": password + "!"}
        bobs = service.done("POST", people, json=bob, headers=own)
        edited = {"is_active": False}
        path = f"{people}/{bobs['id']}"
        assert service.ask("PATCH", path, json=edited, headers=own).status_code == 200
        gone = service.ask("DELETE", f"{PREFIX}/sessions/current", headers=own)
        assert gone.status_code == 204, gone.text
        began = time.monotonic()
        names = ["ana"] * 5 + ["nobody"] * 8
        wrong = [{"name": name, "password": "guessed"} for name in names]
        sent = [service.ask("POST", f"{PREFIX}/sessions", json=one).status_code for one in wrong]
        assert sent[:9] == [401] * 9
        assert sent[-1] == 429
        query = "SELECT subject FROM alerts WHERE rule = 'authentication_burst'"
        while not rows(file, query):
            assert time.monotonic() - began < WITHIN_S
            time.sleep(0.1)
    query = "SELECT kind, principal, code, subject, address FROM security_events ORDER BY seq"
    found = rows(file, query)
    people_only = [one for one in found if one[0] in {"user_changed", "logged_in", "logged_out"}]
    assert people_only == [
        ("user_changed", "local", "created", "ana", None),
        ("logged_in", "user:ana", None, "user:ana", "127.0.0.1"),
        ("user_changed", "user:ana", "created", "bob", None),
        ("user_changed", "user:ana", "disabled", "bob", None),
        ("logged_out", "user:ana", None, "user:ana", None),
    ]
    assert ("key_created", "local", None, "local-cli", None) in found
    failed = [(one[1], one[2], one[4]) for one in found if one[0] == "authentication_failed"]
    assert set(failed) == {
        ("user:ana", "log_in", "127.0.0.1"),
        ("anonymous", "log_in", "127.0.0.1"),
    }
    assert {one[2] for one in found if one[0] == "refused"} == {"rate_limited"}
    text = repr(rows(file, "SELECT * FROM security_events"))
    assert password not in text
    assert "guessed" not in text
    assert user["id"] in text


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
