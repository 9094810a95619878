"""The history on trial: what is whole passes, and whatever is missing or altered is named."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from app.foundation.hash_chain import ChainBreak, ChainHead, StoredEvent, hash_event
from app.operations.domain.history_audit import (
    UNRECORDED,
    HistoryFindings,
    conclude,
    verify_events,
)
from app.portfolio.domain import membership
from app.portfolio.domain.event_log import EventOrigin, PortfolioEvent, fold_events, seal_events
from app.portfolio.domain.models import EMPTY
from tests.support.portfolios import NAMES, T0, newcomer

STAMP = EventOrigin("operator", "req-1", T0, 1, "hash", "test")


def chain() -> tuple[PortfolioEvent, ...]:
    first = seal_events(
        membership.add_members(EMPTY, map(newcomer, NAMES[:4]), 10, T0, "start").drafts, STAMP, None
    )
    gone = membership.remove_member(fold_events(first), NAMES[1], {}, T0, "out").drafts
    return (*first, *seal_events(gone, STAMP, first[-1]))


EVENTS = chain()
HEAD = ChainHead.of(EVENTS[-1])
STATE = fold_events(EVENTS)


def tried(
    events: tuple[PortfolioEvent | None, ...], head: ChainHead | None = HEAD, present: Any = STATE
) -> HistoryFindings:
    rows = [
        StoredEvent(at, None, "cannot be read") if event is None else StoredEvent(event.seq, event)
        for at, event in enumerate(events, start=1)
    ]
    return conclude(verify_events(HistoryFindings(), rows), head, present)


def resealed(event: PortfolioEvent, **changed: Any) -> PortfolioEvent:
    other = replace(event, **changed)
    return replace(other, hash=hash_event(other))


def test_an_intact_history_passes() -> None:
    found = tried(EVENTS)
    assert found.ok
    assert found.first_break is None
    assert (found.events, found.state) == (5, STATE)
    assert tried((), None, EMPTY).ok


def test_stretches_may_be_followed_one_by_one() -> None:
    rows = [StoredEvent(event.seq, event) for event in EVENTS]
    assert verify_events(verify_events(HistoryFindings(), rows[:2]), rows[2:]) == verify_events(
        HistoryFindings(), rows
    )


@pytest.mark.parametrize("seq", [1, 2, 4])
def test_a_missing_event_is_named(seq: int) -> None:
    found = tried(tuple(event for event in EVENTS if event.seq != seq))
    assert found.first_break == seq
    assert ChainBreak(seq, f"event {seq} is missing") in found.breaks


def test_missing_newest_events_are_named() -> None:
    assert tried(EVENTS[:-1]).breaks == (ChainBreak(5, "event 5 is missing"),)
    assert tried(EVENTS[:2]).breaks == (ChainBreak(3, "events 3 to 5 are missing"),)
    assert tried((), HEAD, EMPTY).first_break == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"reason": "another"},
        {"payload": {"number": 0.5}},
        {"payload": {"text": "\ud800"}},
        {"occurred_at": T0 + timedelta(microseconds=1)},
        {"prev_hash": "0" * 64},
        {"hash": "0" * 64},
    ],
)
def test_an_altered_event_is_named(changed: dict[str, Any]) -> None:
    found = tried((EVENTS[0], replace(EVENTS[1], **changed), *EVENTS[2:]))
    assert found.first_break == 2


def test_an_event_sealed_anew_breaks_the_link_of_the_next() -> None:
    found = tried((EVENTS[0], resealed(EVENTS[1], reason="another"), *EVENTS[2:]))
    assert found.breaks == (ChainBreak(3, "event 3 does not name its predecessor"),)
    last = tried((*EVENTS[:-1], resealed(EVENTS[-1], reason="another")))
    assert last.breaks == (ChainBreak(5, "the record of the last event names another hash"),)


def test_a_number_that_was_there_already_is_named() -> None:
    found = tried((*EVENTS[:3], EVENTS[1], *EVENTS[3:]))
    assert ChainBreak(2, "event 2 is in the place of event 4") in found.breaks


def test_an_event_that_cannot_be_read_is_named_and_the_next_is_judged_on_its_own() -> None:
    found = tried((EVENTS[0], None, *EVENTS[2:]))
    assert found.breaks == (ChainBreak(2, "event 2: cannot be read"),)
    assert tried((*EVENTS[:-1], None)).first_break == 5


def test_an_event_without_effect_is_named() -> None:
    broken = resealed(EVENTS[-1], payload={"version": 9})
    found = tried((*EVENTS[:-1], broken), ChainHead.of(broken))
    assert found.breaks == (ChainBreak(5, "event 5 cannot be applied"),)


def test_the_record_of_the_end_must_fit() -> None:
    assert tried(EVENTS, None).breaks == (ChainBreak(5, "the end of the chain is not on record"),)
    early = ChainHead.of(EVENTS[2])
    assert tried(EVENTS, early).breaks == (ChainBreak(4, "the record says that 3 was the last"),)


def test_a_history_older_than_the_record_of_its_end_is_no_break_and_no_full_proof() -> None:
    rows = [StoredEvent(event.seq, event) for event in EVENTS]
    found = conclude(verify_events(HistoryFindings(), rows), None, STATE, is_older=True)
    assert (found.ok, found.caveat) == (True, UNRECORDED)
    assert (
        conclude(verify_events(HistoryFindings(), rows), HEAD, STATE, is_older=False).caveat is None
    )
    assert conclude(HistoryFindings(), None, EMPTY, is_older=True).caveat is None
    cut = conclude(verify_events(HistoryFindings(), rows[:-1]), None, STATE, is_older=True)
    assert not cut.ok


def test_another_state_than_the_stored_one_is_named() -> None:
    said = "the history gives another state than the stored one"
    assert tried(EVENTS, HEAD, replace(STATE, cash_u=1)).breaks == (ChainBreak(5, said),)
    assert tried(EVENTS, HEAD, None).breaks == (ChainBreak(5, said),)


def test_reported_breaks_are_bounded() -> None:
    events = tuple(replace(event, reason="x") for event in EVENTS)
    rows = [StoredEvent(event.seq, event) for _ in range(9) for event in events]
    assert len(verify_events(HistoryFindings(), rows).breaks) == 20


@pytest.mark.parametrize("stored", [None, 3, {}, {"seq": "1", "hash": "x"}, {"seq": 1, "hash": 2}])
def test_a_record_that_is_none(stored: object) -> None:
    assert ChainHead.read(stored) is None
    assert ChainHead.read(HEAD.fact()) == HEAD
