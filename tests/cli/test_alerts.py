"""Tables and sentences of `my-symbols alerts`."""

import json
from typing import Any

from app.alerts.domain.event_texts import describe_event
from app.cli.exit_codes import ExitCode
from tests.alerts.domain.test_notification import record
from tests.cli.command import here
from tests.cli.test_client import answering
from tests.operations.domain.test_event_codec import EXAMPLES

ALERT: dict[str, Any] = {
    "id": "00000000-0000-4000-8000-000000000001",
    "rule": "low_score",
    "subject": "BTCUSDT",
    "severity": "warning",
    "state": "open",
    "value": 0.31,
    "limit": 0.5,
    "message": "BTCUSDT scores 0.31",
    "since": "2026-03-01T12:00:00Z",
}


def listed(*items: dict[str, Any], cursor: str | None = None) -> bytes:
    return json.dumps({"items": items, "next_cursor": cursor}).encode()


def test_open_alerts_are_a_table() -> None:
    ban = {**ALERT, "rule": "exchange_banned", "value": None, "limit": None, "severity": "critical"}
    with answering(200, listed(ban, ALERT, cursor="more")) as (url, _):
        said = here("alerts", "list", "--limit", "2", "--url", url)
    assert said.code == ExitCode.OK
    rows = said.out.splitlines()
    (critical,) = [row for row in rows if "exchange_banned" in row]
    (low,) = [row for row in rows if "low_score" in row]
    assert "critical" in critical
    assert "0.3100" in low
    assert "0.5000" in low
    assert rows.index(critical) < rows.index(low)
    assert "more than 2" in said.err


def test_an_empty_list_is_a_sentence() -> None:
    with answering(200, listed()) as (url, _):
        assert (
            "no alert is snoozed" in here("alerts", "list", "--state", "snoozed", "--url", url).out
        )
    assert here("alerts", "list", "--state", "angry").code == ExitCode.USAGE


def test_a_changed_alert_is_shown() -> None:
    body = json.dumps({**ALERT, "state": "acknowledged"}).encode()
    with answering(200, body) as (url, _):
        said = here("alerts", "acknowledge", ALERT["id"], "--url", url)
    assert "alert: acknowledged" in said.out
    assert ALERT["id"] in said.out


def test_the_commands_that_notifications_name_exist() -> None:
    texts = [describe_event(record(event)) for event in EXAMPLES]
    lines = [line for text in texts if text is not None for line in text.body.splitlines()]
    commands = [line.partition("my-symbols ")[2].split() for line in lines if "my-symbols " in line]
    assert sorted({tuple(command[:2]) for command in commands}) == [
        ("alerts", "acknowledge"),
        ("portfolio", "approve"),
        ("portfolio", "decline"),
    ]
    for command in commands:
        assert here(*command, "--help").code == ExitCode.OK
