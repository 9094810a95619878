"""The arithmetic of replacement: threshold, confirmations, preference, blocks."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.configuration.domain.model import Configuration, ReplacementSettings
from app.market.domain.sectors import UNCLASSIFIED
from app.portfolio.domain.candidate_selection import ScoredCandidate
from app.portfolio.domain.replacement import (
    Comparison,
    ConfirmationCount,
    IncomingCandidate,
    OutgoingMember,
    ReplacementBlock,
    ReplacementSide,
    adds_to_full_sector,
    compare_symbols,
    count_confirmation,
    filter_admissible,
    limit_per_cycle,
    noise_or_default,
    propose_replacement,
    select_preferred,
)

RULES = ReplacementSettings(noise_multiple=1.0, count_funding=False)
AT = datetime(2026, 3, 1, tzinfo=UTC)
PAUSE = timedelta(hours=8)
WEEK = timedelta(days=7)


def side(symbol: str, z: float | None = 0.5, **changed: Any) -> ReplacementSide:
    facts: dict[str, Any] = {"sector": "defi", "score": 0.7, "confidence": 0.9}
    return ReplacementSide(**{"symbol": symbol, "z": z, "trading_cost": 0.001, **facts, **changed})


def outgoing(symbol: str = "OLD", z: float | None = 0.5, **changed: Any) -> OutgoingMember:
    facts: dict[str, Any] = {"held": WEEK, "forced": None, "is_pinned": False}
    return OutgoingMember(side(symbol, z), **{**facts, **changed})


def entrant(symbol: str, *, tradeable: bool = True, **changed: Any) -> IncomingCandidate:
    one = side(symbol, **changed)
    return IncomingCandidate(one, ScoredCandidate(symbol, tradeable, True, one.score))


def test_dearer_funding_over_the_horizon_is_a_cost() -> None:
    counting = replace(RULES, count_funding=True)
    old, new = side("OLD", funding=0.05), side("NEW", funding=0.15)
    plain = compare_symbols(old, new, NOISE, RULES).cost
    assert plain == pytest.approx(20 / (4 * 28))
    dearer = compare_symbols(old, new, NOISE, counting).cost
    assert dearer == pytest.approx((20 + 0.10 * 28 / 365 * 10_000) / (4 * 28))
    cheaper = compare_symbols(new, old, NOISE, counting).cost
    assert cheaper == pytest.approx((20 - 0.10 * 28 / 365 * 10_000) / (4 * 28))
    assert compare_symbols(old, side("NEW"), NOISE, counting).cost is None
    assert compare_symbols(side("OLD"), new, NOISE, counting).cost is None


def tally(candidate: str = "NEW", count: int = 3) -> ConfirmationCount:
    return ConfirmationCount("OLD", candidate, count, "inputs", AT)


NOISE = {"OLD": 0.25, "NEW": 0.25}


def test_the_threshold_is_noise_and_cost_in_z() -> None:
    found = compare_symbols(side("OLD", 0.5), side("NEW", 1.2), NOISE, RULES)
    assert found.improvement == pytest.approx(0.7)
    assert found.cost == pytest.approx(20 / (4 * 28))
    assert found.threshold(RULES) == pytest.approx(0.53, abs=0.003)
    assert found.exceeds(RULES)


def test_exactly_the_threshold_is_not_beyond_it() -> None:
    rules = ReplacementSettings(noise_multiple=1.0)
    assert not Comparison(0.5, 0.25, 0.25).exceeds(rules)
    assert Comparison(0.500001, 0.25, 0.25).exceeds(rules)


@pytest.mark.parametrize(
    "unknown", [Comparison(None, 0.1, 0.1), Comparison(9.0, None, 0.1), Comparison(9.0, 0.1, None)]
)
def test_what_is_not_known_exceeds_nothing(unknown: Comparison) -> None:
    assert not unknown.exceeds(RULES)


def test_a_missing_side_leaves_the_comparison_unknown() -> None:
    bare = side("NEW", None, trading_cost=None)
    found = compare_symbols(side("OLD"), bare, {"OLD": 0.1}, RULES)
    assert found == Comparison(None, None, None)
    assert compare_symbols(side("OLD", None), side("NEW"), {}, RULES).improvement is None
    dear = side("OLD", trading_cost=None)
    assert compare_symbols(dear, side("NEW"), NOISE, RULES).cost is None


def test_noise_is_what_the_board_says_or_an_explicit_default() -> None:
    assert noise_or_default(None, RULES) is None
    assert noise_or_default(0.2, replace(RULES, noise_default=9.0)) == 0.2
    assert noise_or_default(0.0, replace(RULES, noise_default=9.0)) == 0.0
    assert noise_or_default(None, replace(RULES, noise_default=0.2)) == 0.2


def test_confirmations_are_consecutive_of_one_pair_on_distinct_boards() -> None:
    def look(
        former: ConfirmationCount | None,
        new: str,
        board: str,
        hours: float,
        *,
        exceeds: bool = True,
    ) -> ConfirmationCount | None:
        at = AT + timedelta(hours=hours)
        return count_confirmation(former, "OLD", new, board, at, PAUSE, exceeds=exceeds)

    first = look(None, "NEW", "a", 0)
    assert first == ConfirmationCount("OLD", "NEW", 1, "a", AT)
    assert look(first, "NEW", "a", 9) == first, "a board counts once"
    assert look(first, "NEW", "b", 7.99) == first, "and one within eight hours"
    second = look(first, "NEW", "b", 8)
    assert second == ConfirmationCount("OLD", "NEW", 2, "b", AT + PAUSE)
    assert look(second, "ELSE", "c", 9) == ConfirmationCount(
        "OLD", "ELSE", 1, "c", AT + timedelta(hours=9)
    )
    assert look(second, "NEW", "c", 9, exceeds=False) is None


def test_the_one_being_confirmed_is_preferred_while_it_is_good_enough() -> None:
    incoming = [entrant("BEST"), entrant("NEW")]
    assert select_preferred(incoming, None, lambda _: True) == incoming[0]
    assert select_preferred(incoming, tally(), lambda _: True) == incoming[1]
    assert select_preferred(incoming, tally(), lambda _: False) == incoming[0]
    assert select_preferred(incoming, tally("GONE"), lambda _: True) == incoming[0]
    assert select_preferred([], tally(), lambda _: True) is None


def test_a_sector_may_hold_so_many_and_like_for_like_is_no_worse() -> None:
    settings = Configuration(replacement=ReplacementSettings(max_per_sector=2))
    others = [side("A"), side("B")]
    assert adds_to_full_sector("defi", "layer-1", others, settings)
    assert not adds_to_full_sector("defi", "defi", others, settings)
    assert not adds_to_full_sector("memes", "defi", others, settings)
    unknown = [side("A", sector=UNCLASSIFIED), side("B", sector=UNCLASSIFIED)]
    assert adds_to_full_sector(UNCLASSIFIED, "defi", unknown, settings), "no way past a limit"
    assert not adds_to_full_sector(UNCLASSIFIED, "defi", unknown[:1], settings)


def test_only_those_that_may_come_in_are_offered() -> None:
    settings = Configuration(replacement=ReplacementSettings(max_per_sector=1))
    others = [side("STAYS", sector="memes")]
    offered = filter_admissible(
        [
            entrant("BANNED", tradeable=False),
            entrant("VAGUE", confidence=0.59),
            entrant("UNSURE", confidence=None),
            entrant("CROWD", sector="memes"),
            entrant("LOW", score=0.5),
            entrant("CLOSE"),
            entrant("FREE"),
        ],
        outgoing(),
        others,
        lambda one, _: 0.9 if one == "CLOSE" else 0.1,
        settings,
    )
    assert [one.side.symbol for one in offered] == ["FREE"]


@pytest.mark.parametrize(
    ("changed", "blocks"),
    [
        ({}, ()),
        ({"outgoing": outgoing(is_pinned=True)}, (ReplacementBlock.PINNED,)),
        ({"outgoing": outgoing(held=WEEK - timedelta(seconds=1))}, (ReplacementBlock.MIN_HOLDING,)),
        ({"noise": {"OLD": 0.1}}, (ReplacementBlock.NOISE_UNKNOWN,)),
        ({"candidate": side("NEW", 1.0)}, (ReplacementBlock.IMPROVEMENT_TOO_SMALL,)),
        ({"candidate": side("NEW", 1.5, trading_cost=None)}, (ReplacementBlock.COST_UNKNOWN,)),
        ({"tally": tally(count=2)}, (ReplacementBlock.UNCONFIRMED,)),
        ({"tally": tally("OTHER")}, (ReplacementBlock.UNCONFIRMED,)),
        ({"tally": None}, (ReplacementBlock.UNCONFIRMED,)),
        ({"since_swap": timedelta(hours=23)}, (ReplacementBlock.COOLDOWN,)),
        ({"since_swap": timedelta(hours=24)}, ()),
        ({"candidate": None}, (ReplacementBlock.NO_CANDIDATE,)),
        ({"outgoing": outgoing(forced="closed", held=timedelta()), "noise": {}}, ()),
        ({"outgoing": outgoing(forced="closed", is_pinned=True)}, (ReplacementBlock.PINNED,)),
        (
            {"outgoing": outgoing(forced="closed"), "candidate": None},
            (ReplacementBlock.NO_CANDIDATE,),
        ),
    ],
)
def test_everything_that_stands_in_the_way_is_named(
    changed: dict[str, Any], blocks: tuple[ReplacementBlock, ...]
) -> None:
    given: dict[str, Any] = {
        "outgoing": outgoing(),
        "candidate": side("NEW", 1.2, score=0.8),
        "noise": NOISE,
        "tally": tally(),
        "since_swap": None,
        "rules": RULES,
    }
    found = propose_replacement(**{**given, **changed})
    assert found.blocked_by == blocks
    assert found.is_due == (blocks == ())


def test_strength_is_how_likely_it_pays_times_confidence() -> None:
    def strength(z: float | None, noise: dict[str, float], **changed: Any) -> float | None:
        new = side("NEW", z, **{"confidence": 0.8, **changed})
        return propose_replacement(outgoing(), new, noise, tally(), None, RULES).strength

    cost = 20 / (4 * 28)
    assert strength(0.5 + cost, NOISE) == pytest.approx(0.4)
    assert strength(9.0, NOISE) == pytest.approx(0.8)
    assert strength(1.0, {"OLD": 0.0, "NEW": 0.0}) == 0.8
    assert strength(0.6, {"OLD": 0.0, "NEW": 0.0}) == 0.0
    assert strength(None, NOISE) is None
    assert strength(1.0, {}) is None
    assert strength(1.0, NOISE, trading_cost=None) is None
    assert strength(1.0, NOISE, confidence=None) is None
    forced = propose_replacement(outgoing(forced="closed"), side("NEW"), {}, None, None, RULES)
    assert forced.strength == 1.0


def test_improvement_of_the_score_is_unknown_without_both() -> None:
    found = propose_replacement(outgoing(), side("NEW", score=0.9), NOISE, None, None, RULES)
    assert found.score_improvement == pytest.approx(0.2)
    for new in (None, side("NEW", score=None)):
        assert (
            propose_replacement(outgoing(), new, NOISE, None, None, RULES).score_improvement is None
        )


def test_a_cycle_carries_out_so_many_and_forced_ones_come_free() -> None:
    new = side("NEW", 1.5)
    due = propose_replacement(outgoing(), new, NOISE, tally(), None, RULES)
    forced = propose_replacement(outgoing(forced="closed"), new, NOISE, None, None, RULES)
    blocked = propose_replacement(outgoing(is_pinned=True), new, NOISE, tally(), None, RULES)
    found = limit_per_cycle([forced, blocked, due, due, due], RULES)
    assert [one.blocked_by for one in found] == [
        (),
        (ReplacementBlock.PINNED,),
        (),
        (),
        (ReplacementBlock.CYCLE_LIMIT,),
    ]
