"""Members come and go; the invariants are looked at, not assumed."""

from dataclasses import replace

import pytest

from app.foundation.errors import Code, ConflictError
from app.portfolio.domain import membership
from app.portfolio.domain.event_log import EventType
from app.portfolio.domain.models import EMPTY, Portfolio, faults
from app.portfolio.domain.weighting import WeightRequest, WeightRole, allocate_weights
from tests.support.portfolios import HOUR, NAMES, T0, newcomer


def of(*symbols: str) -> Portfolio:
    change = membership.add_members(EMPTY, map(newcomer, symbols), 99, T0, "start")
    claims = [WeightRequest(symbol, WeightRole.FUNDED, 1.0, 0) for symbol in symbols]
    allocation = allocate_weights(claims, 5_000_000, 20_000_000)
    return membership.set_weights(change, allocation, {}, T0, "weights").portfolio


def test_a_change_is_one_version_however_many_events_it_has() -> None:
    ten = of(*NAMES[:10])
    assert ten.version == 1
    assert [one.rank for one in ten.members] == list(range(1, 11))
    assert {one.weight_u for one in ten.members} == {10_000_000}
    assert ten.cash_u == 0
    assert ten.weighted_at == T0


def test_the_eleventh_finds_the_portfolio_full() -> None:
    with pytest.raises(ConflictError) as caught:
        membership.add_members(of(*NAMES[:10]), [newcomer(NAMES[10])], 10, T0, "one more")
    assert caught.value.code is Code.PORTFOLIO_FULL


def test_a_member_cannot_come_in_twice() -> None:
    with pytest.raises(ConflictError) as caught:
        membership.add_members(of(NAMES[0]), [newcomer(NAMES[0])], 10, T0, "again")
    assert caught.value.code is Code.SYMBOL_ALREADY_IN_PORTFOLIO


def test_a_removed_weight_is_cash_and_ranks_close_up() -> None:
    change = membership.remove_member(of(*NAMES[:4]), NAMES[1], {"score": "0.4"}, T0, "weak")
    left = change.portfolio
    assert [(one.symbol, one.rank) for one in left.members] == [
        (NAMES[0], 1),
        (NAMES[2], 2),
        (NAMES[3], 3),
    ]
    assert left.cash_u == 40_000_000
    assert left.weighted_at is None
    assert change.drafts[0].payload["score"] == "0.4"
    back = membership.add_members(left, [newcomer(NAMES[1])], 10, T0 + HOUR, "returned").portfolio
    returned = back.member(NAMES[1])
    assert returned is not None
    assert returned.rank == 4


def test_who_is_not_there_cannot_go() -> None:
    with pytest.raises(ConflictError) as caught:
        membership.remove_member(EMPTY, NAMES[0], {}, T0, "out")
    assert caught.value.code is Code.SYMBOL_NOT_IN_PORTFOLIO
    with pytest.raises(ConflictError) as caught:
        membership.replace_member(EMPTY, NAMES[0], newcomer(NAMES[1]), {}, T0, "swap")
    assert caught.value.code is Code.SYMBOL_NOT_IN_PORTFOLIO


def test_the_new_member_takes_the_rank_of_the_old() -> None:
    change = membership.replace_member(
        of(*NAMES[:3]), NAMES[1], newcomer(NAMES[9]), {}, T0, "better"
    )
    assert [one.symbol for one in change.portfolio.members] == [NAMES[0], NAMES[9], NAMES[2]]
    assert change.portfolio.members[1].rank == 2
    draft = change.drafts[0]
    assert (draft.type, draft.symbol, draft.other_symbol) == (
        EventType.REPLACE,
        NAMES[9],
        NAMES[1],
    )
    with pytest.raises(ConflictError) as caught:
        membership.replace_member(change.portfolio, NAMES[0], newcomer(NAMES[9]), {}, T0, "twice")
    assert caught.value.code is Code.SYMBOL_ALREADY_IN_PORTFOLIO


def test_every_broken_invariant_is_named() -> None:
    sound = of(*NAMES[:3])
    assert faults(sound, 10) == ()
    assert faults(EMPTY, 10) == ()
    first = sound.members[0]
    broken = replace(
        sound, members=(first, replace(first, rank=3, weight_u=-1)), cash_u=sound.cash_u
    )
    assert len(faults(broken, 1)) == 5
