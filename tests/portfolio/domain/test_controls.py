"""What the operator's controls forbid, and how they travel."""

from dataclasses import replace
from datetime import timedelta

import pytest

from app.foundation.errors import Code, ConflictError
from app.portfolio.domain.controls import (
    FREE,
    HELD_BACK,
    Controls,
    Lock,
    LockKind,
    Switch,
    lock_payload,
    read_lock,
    record_lock,
    record_switch,
    record_unlock,
)
from app.portfolio.domain.event_log import Draft, EventType
from app.portfolio.domain.models import EMPTY
from tests.support.portfolios import T0

BAN = Lock("AAUSDT", LockKind.BAN, "hack", T0, T0 - timedelta(days=1), "ops")
PIN = Lock("BBUSDT", LockKind.PIN, "maker", None, T0, "ops")


def draft(kind: EventType, symbol: str | None = None, other: str | None = None) -> Draft:
    return Draft(kind, symbol, other, {}, "why")


@pytest.mark.parametrize("lock", [BAN, PIN])
def test_a_lock_travels_whole(lock: Lock) -> None:
    assert read_lock(lock_payload(lock)) == lock


def test_a_lock_that_ends_now_is_over() -> None:
    held = Controls(locks={"AAUSDT": BAN, "BBUSDT": PIN})
    assert (held.ban("AAUSDT"), held.ban("BBUSDT"), held.ban("CCUSDT")) == ("hack", None, None)
    assert held.is_pinned("BBUSDT")
    assert not held.is_pinned("AAUSDT")
    for left, locked in ((0, {"BBUSDT"}), (1, {"AAUSDT", "BBUSDT"})):
        now = T0 - timedelta(seconds=left)
        assert set(held.in_force(lambda stamp, now=now: now - stamp).locks) == locked  # type: ignore[misc]  # defaults bind the loop


@pytest.mark.parametrize("kind", EventType)
def test_no_other_kinds_of_events_are_refused_than_those_that_may_be_held_back(
    kind: EventType,
) -> None:
    strict = Controls(Switch(enabled=False), {"AAUSDT": BAN, "BBUSDT": PIN})
    refused = False
    try:
        strict.require([draft(kind, "AAUSDT", "BBUSDT"), draft(kind, "BBUSDT")])
    except ConflictError:
        refused = True
    assert refused is (kind in HELD_BACK)


@pytest.mark.parametrize(
    ("controls", "what", "code"),
    [
        (Controls(Switch(enabled=False)), draft(EventType.REBALANCE), Code.TRADING_DISABLED),
        (Controls(Switch(enabled=False)), draft(EventType.REMOVE, "AAUSDT"), None),
        (Controls(locks={"AAUSDT": BAN}), draft(EventType.ADD, "AAUSDT"), Code.SYMBOL_BANNED),
        (Controls(locks={"AAUSDT": BAN}), draft(EventType.REMOVE, "AAUSDT"), None),
        (
            Controls(locks={"BBUSDT": PIN}),
            draft(EventType.REPLACE, "CCUSDT", "BBUSDT"),
            Code.SYMBOL_PINNED,
        ),
        (Controls(locks={"BBUSDT": PIN}), draft(EventType.REMOVE, "BBUSDT"), Code.SYMBOL_PINNED),
        (FREE, draft(EventType.REPLACE, "CCUSDT", "BBUSDT"), None),
    ],
)
def test_what_is_forbidden(controls: Controls, what: Draft, code: Code | None) -> None:
    if code is None:
        controls.require([what])
        return
    with pytest.raises(ConflictError) as caught:
        controls.require([what])
    assert caught.value.code is code


def test_events_of_controls_move_nothing_but_the_version() -> None:
    for change in (
        record_lock(EMPTY, BAN),
        record_unlock(EMPTY, "AAUSDT", "over", T0),
        record_switch(EMPTY, enabled=False, reason="halt", at=T0),
    ):
        assert change.portfolio == replace(EMPTY, version=1)
        assert [one.type in {EventType.LOCK, EventType.SWITCH} for one in change.drafts] == [True]


def test_the_watch_list_is_by_symbol_and_forbids_nothing() -> None:
    kinds = {"CUSDT": LockKind.WATCH, "AUSDT": LockKind.WATCH, "BUSDT": LockKind.BAN}
    held = Controls(
        locks={name: Lock(name, kind, "why", None, T0, "eve") for name, kind in kinds.items()}
    )
    assert [lock.symbol for lock in held.watched()] == ["AUSDT", "CUSDT"]
    assert held.ban("AUSDT") is None
    assert not held.is_pinned("AUSDT")
