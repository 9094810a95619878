"""Refusals that repeat, and the chain of security events on trial, with and without an anchor."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.foundation.hash_chain import ChainBreak, ChainHead, StoredEvent, hash_event, seal
from app.security.domain.audit import (
    OTHERS,
    Refusal,
    RefusalCounter,
    SecurityAnchor,
    SecurityDraft,
    SecurityEvent,
    SecurityEventKind,
    unsealed_security_events,
)
from app.security.domain.chain_audit import (
    SecurityFindings,
    begin_security,
    conclude_security,
    verify_security,
)

T0 = datetime(2026, 3, 1, 12, 0, 10, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
REFUSED = SecurityEventKind.REFUSED


def refusal(number: int = 1, code: str = "forbidden") -> Refusal:
    return Refusal(REFUSED, f"key:k{number}", "127.0.0.1", code)


def test_equal_refusals_of_a_minute_are_one_count() -> None:
    counter = RefusalCounter()
    for second in range(40):
        counter.add(refusal(), T0 + second * SECOND)
    counter.add(refusal(2), T0)
    counter.add(refusal(1, "rate_limited"), T0)
    counter.add(replace(refusal(), address="10.0.0.1"), T0)
    counter.add(refusal(), T0 + MINUTE)
    assert counter.take(T0 + 49 * SECOND) != (), "the later minute is another one"
    assert len(counter) == 4
    taken = counter.take(T0 + MINUTE)
    assert [(one.refusal, one.count) for one in taken] == [
        (refusal(), 40),
        (refusal(2), 1),
        (refusal(1, "rate_limited"), 1),
        (replace(refusal(), address="10.0.0.1"), 1),
    ]
    assert {one.first_at for one in taken} == {T0}
    assert counter.take(None) == ()


def test_the_running_minute_waits_and_a_stop_takes_it_too() -> None:
    counter = RefusalCounter()
    counter.add(refusal(), T0)
    assert counter.take(T0 + 40 * SECOND) == ()
    (taken,) = counter.take(None)
    assert taken.count == 1
    counter.put_back([taken])
    counter.add(refusal(), T0 - 5 * SECOND)
    (again,) = counter.take(T0 + MINUTE)
    assert (again.count, again.first_at) == (2, T0 - 5 * SECOND)


def test_refusals_beyond_the_bound_are_one_event_of_others() -> None:
    counter = RefusalCounter(max_entries=3)
    for number in range(1, 9):
        counter.add(refusal(number), T0)
        counter.add(refusal(number), T0 + SECOND)
    assert len(counter) == 4, "the bound, and the others"
    taken = counter.take(None)
    assert [(one.refusal.principal, one.count) for one in taken] == [
        ("key:k1", 2), ("key:k2", 2), ("key:k3", 2), (OTHERS, 10),
    ]  # fmt: skip
    draft = taken[-1].draft()
    assert (draft.kind, draft.address, draft.code, draft.count) == (REFUSED, None, None, 10)


def chain(*more: SecurityDraft) -> tuple[SecurityEvent, ...]:
    drafts = [
        SecurityDraft(REFUSED, "key:k1", T0 + second * SECOND, "127.0.0.1", "forbidden", count=2)
        for second in range(4)
    ]
    return seal(unsealed_security_events([*drafts, *more]), None)


def tried(
    events: tuple[SecurityEvent, ...],
    head: ChainHead | None,
    anchor: SecurityAnchor | None = None,
) -> SecurityFindings:
    rows = [StoredEvent(event.seq, event) for event in events]
    return conclude_security(verify_security(begin_security(anchor), rows), head)


def test_the_hashed_bytes_of_security_events_never_change() -> None:
    assert [event.hash[:16] for event in chain()[:2]] == ["cf05b341336d4d69", "ede619b8dd94c872"]


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "key_created"},
        {"principal": "key:k2"},
        {"address": None},
        {"code": "rate_limited"},
        {"subject": "x"},
        {"count": 3},
        {"payload": {"a": 1}},
        {"request_id": "r"},
        {"occurred_at": T0},
    ],
)
def test_every_field_of_an_event_is_hashed(changed: dict[str, Any]) -> None:
    events = list(chain())
    head = ChainHead.of(events[-1])
    assert tried(tuple(events), head).ok
    events[1] = replace(events[1], **changed)
    assert tried(tuple(events), head).breaks == (ChainBreak(2, "event 2 was altered"),)


def test_a_pruned_chain_is_verified_from_its_anchor() -> None:
    first = chain()
    anchor = SecurityAnchor(first[1].seq, first[1].hash)
    events = chain(
        SecurityDraft(
            SecurityEventKind.EVENTS_DELETED, "service", T0, count=2, payload=anchor.payload()
        )
    )
    head = ChainHead.of(events[-1])
    found = tried(events[2:], head, anchor)
    assert (found.ok, found.events, found.anchor) == (True, 3, anchor)
    assert tried(events[2:], head).first_break == 1, "without the anchor two events are missing"
    assert tried(events[3:], head, anchor).first_break == 3
    lost = tried(events[2:-1], head, anchor)
    assert ChainBreak(5, "event 5 is missing") in lost.breaks


def test_a_forged_anchor_is_found() -> None:
    """Events that somebody deleted need an anchor, which no sealed event names."""
    events = chain()
    head, anchor = ChainHead.of(events[-1]), SecurityAnchor(events[1].seq, events[1].hash)
    found = tried(events[2:], head, anchor)
    assert found.breaks == (ChainBreak(2, "no event of the chain records the anchor"),)
    named = SecurityDraft(SecurityEventKind.EVENTS_DELETED, "service", T0, payload=anchor.payload())
    events = chain(named)
    other = replace(events[-1], payload={"seq": 1, "hash": "0" * 64})
    resealed = replace(other, hash=hash_event(other))
    found = tried((*events[2:-1], resealed), ChainHead.of(resealed), anchor)
    assert found.first_break == 2
