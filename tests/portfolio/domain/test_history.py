"""The chain: sealed, verified, altered, folded."""

from dataclasses import replace
from datetime import timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.foundation.hash_chain import canonical_json, find_chain_faults, hash_event, instant_text
from app.portfolio.domain import membership
from app.portfolio.domain.event_log import (
    EventOrigin,
    EventType,
    PortfolioEvent,
    fold_events,
    instant,
    number_text,
    seal_events,
)
from app.portfolio.domain.membership import PortfolioChange
from app.portfolio.domain.models import EMPTY, FULL, Portfolio, faults
from app.portfolio.domain.weighting import WeightRequest, WeightRole, allocate_weights
from tests.support.portfolios import HOUR, NAMES, T0, newcomer

STAMP = EventOrigin("operator", "req-1", T0, 1, "hash", "test")


def weighed(change: PortfolioChange) -> PortfolioChange:
    claims = [
        WeightRequest(one.symbol, WeightRole.FUNDED, 1.0, one.weight_u)
        for one in change.portfolio.members
    ]
    return membership.set_weights(
        change, allocate_weights(claims, 5_000_000, 20_000_000), {}, T0, "weights"
    )


def chain() -> tuple[PortfolioEvent, ...]:
    change = weighed(membership.add_members(EMPTY, map(newcomer, NAMES[:3]), 10, T0, "start"))
    return seal_events(change.drafts, STAMP, None)


def test_events_follow_each_other_without_a_gap() -> None:
    events = chain()
    assert [event.seq for event in events] == [1, 2, 3, 4]
    assert [event.type for event in events] == [EventType.ADD] * 3 + [EventType.WEIGHTS]
    assert find_chain_faults(events, None) == []
    more = seal_events(
        membership.remove_member(fold_events(events), NAMES[1], {}, T0, "out").drafts,
        STAMP,
        events[-1],
    )
    assert find_chain_faults(more, events[-1]) == []
    assert more[0].seq == 5


def test_the_hashed_bytes_never_change() -> None:
    """Stored histories verify only as long as these hashes stay as they are."""
    assert [event.hash for event in chain()] == [
        "29a6d6e11aea0245236196b88fc003e024142c0d2294b3be786e9e007e0c4274",
        "b1a8401b54dc65a5a90356ed48e3b4a15bce54dd87b4489717e8b1e026c6cc1a",
        "e61f172e68a6e730f1eed0a039c161c49b5e3d457d2c581d364cd642fc36b7e9",
        "24794968c29faf02c51a26da30e20ac9bc3e4d95d063750e50b13f4b199c415d",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reason": "another"}, "event 2 was altered"),
        ({"hash": "0" * 64}, "event 3 does not name its predecessor"),
        ({"seq": 7}, "event 7 stands where 2 was due"),
        ({"payload": {}}, "event 2 was altered"),
        ({"input_hash": None}, "event 2 was altered"),
        ({"occurred_at": T0 + timedelta(microseconds=1)}, "event 2 was altered"),
    ],
)
def test_an_altered_event_is_found(change: dict[str, Any], said: str) -> None:
    events = list(chain())
    events[1] = replace(events[1], **change)
    assert said in find_chain_faults(events, None)


def test_a_missing_event_is_found() -> None:
    events = chain()
    assert find_chain_faults((events[0], *events[2:]), None) != []
    assert find_chain_faults(events[1:], None) != []


def test_the_hash_does_not_depend_on_the_zone_or_on_key_order() -> None:
    event = chain()[0]
    shifted = replace(event, occurred_at=T0.astimezone(timezone(timedelta(hours=5))))
    turned = replace(event, payload=dict(reversed(list(event.payload.items()))))
    assert hash_event(shifted) == hash_event(turned) == event.hash


def test_canonical_json_has_no_binary_floating_point() -> None:
    assert (
        canonical_json({"b": [1, None, True], "a": "ü"}) == '{"a":"ü","b":[1,null,true]}'.encode()
    )
    with pytest.raises(TypeError, match="floating point"):
        canonical_json({"a": [{"b": 0.5}]})
    with pytest.raises(TypeError):
        canonical_json({"a": Decimal(1)})


def test_numbers_and_times_survive_as_text() -> None:
    assert number_text(None) is None
    assert number_text(0.1 + 0.2) == "0.30000000000000004"
    assert number_text(Decimal("1E+3")) == "1000"
    assert instant(instant_text(T0)) == T0
    assert instant_text(T0) == "2026-01-01T00:00:00.000000Z"


def test_fold_of_nothing_is_the_empty_portfolio() -> None:
    assert fold_events(()) == EMPTY


def test_a_new_configuration_is_an_event_of_its_own() -> None:
    change = membership.apply_configuration(
        EMPTY, 2, {"entry_score": 0.6, "a": [1.5, "x"]}, T0, "tuned"
    )
    events = seal_events(change.drafts, STAMP, None)
    assert fold_events(events) == change.portfolio
    assert change.portfolio.configuration_version == 2
    assert change.portfolio.version == 1
    assert events[0].payload["settings"] == {"entry_score": "0.6", "a": ["1.5", "x"]}


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "swap", "weigh", "configure"]),
        st.sampled_from(NAMES[:14]),
        st.integers(0, 9),
        st.booleans(),
    ),
    max_size=25,
)


def one_step(state: Portfolio, step: tuple[str, str, int, bool], number: int) -> PortfolioChange:
    kind, name, place, with_weights = step
    at = T0 + number * HOUR
    members = [one.symbol for one in state.members]
    out = members[place % len(members)] if members else None
    change = PortfolioChange(state, ())
    if kind == "add" and name not in members and len(members) < 10:
        change = membership.add_members(state, [newcomer(name)], 10, at, "in")
    elif kind == "remove" and out is not None:
        change = membership.remove_member(state, out, {"score": number_text(0.1)}, at, "out")
    elif kind == "swap" and out is not None and name not in members:
        change = membership.replace_member(state, out, newcomer(name, None), {}, at, "swapped")
    elif kind == "configure":
        change = membership.apply_configuration(
            state, state.configuration_version + 1, {}, at, "tuned"
        )
    if kind == "weigh" or (with_weights and change.drafts):
        change = weighed(change)
    return change


@settings(max_examples=200, deadline=None, derandomize=True)
@given(steps)
def test_folding_any_history_gives_the_state(sequence: list[tuple[str, str, int, bool]]) -> None:
    state = EMPTY
    events: tuple[PortfolioEvent, ...] = ()
    for number, step in enumerate(sequence):
        change = one_step(state, step, number)
        assert change.portfolio.version == state.version + bool(change.drafts)
        stamp = replace(STAMP, occurred_at=T0 + number * HOUR)
        if any(draft.type is EventType.WEIGHTS for draft in change.drafts):
            stamp = replace(stamp, occurred_at=T0)  # the time with which `weighed` sets weights
        events += seal_events(change.drafts, stamp, events[-1] if events else None)
        state = change.portfolio
        assert faults(state, 10) == ()
        assert fold_events(events) == state
    assert find_chain_faults(events, None) == []
    assert sum(one.weight_u for one in state.members) + state.cash_u == FULL
