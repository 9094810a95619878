"""The arithmetic of replacement: threshold, confirmations, preference, blocks."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.configuration.domain.model import Configuration, ReplacementSettings
from app.market.domain.sectors import UNCLASSIFIED
from app.portfolio.domain.candidate_selection import Candidate
from app.portfolio.domain.replacement import (
    Block,
    Comparison,
    Contender,
    Entrant,
    Leaver,
    Tally,
    admissible,
    compare,
    counted,
    crowds,
    noise_of,
    preferred,
    propose,
    within_cycle,
)

RULES = ReplacementSettings(noise_multiple=1.0, count_funding=False)
AT = datetime(2026, 3, 1, tzinfo=UTC)
PAUSE = timedelta(hours=8)
WEEK = timedelta(days=7)


def contender(symbol: str, z: float | None = 0.5, **changed: Any) -> Contender:
    facts: dict[str, Any] = {"sector": "defi", "score": 0.7, "confidence": 0.9}
    return Contender(**{"symbol": symbol, "z": z, "trading_cost": 0.001, **facts, **changed})


def leaver(symbol: str = "OLD", z: float | None = 0.5, **changed: Any) -> Leaver:
    facts: dict[str, Any] = {"held": WEEK, "forced": None, "is_pinned": False}
    return Leaver(contender(symbol, z), **{**facts, **changed})


def entrant(symbol: str, *, tradeable: bool = True, **changed: Any) -> Entrant:
    one = contender(symbol, **changed)
    return Entrant(one, Candidate(symbol, tradeable, True, one.score))


def test_dearer_funding_over_the_horizon_is_a_cost() -> None:
    counting = replace(RULES, count_funding=True)
    old, new = contender("OLD", funding=0.05), contender("NEW", funding=0.15)
    plain = compare(old, new, NOISE, RULES).cost
    assert plain == pytest.approx(20 / (4 * 28))
    dearer = compare(old, new, NOISE, counting).cost
    assert dearer == pytest.approx((20 + 0.10 * 28 / 365 * 10_000) / (4 * 28))
    cheaper = compare(new, old, NOISE, counting).cost
    assert cheaper == pytest.approx((20 - 0.10 * 28 / 365 * 10_000) / (4 * 28))
    assert compare(old, contender("NEW"), NOISE, counting).cost is None
    assert compare(contender("OLD"), new, NOISE, counting).cost is None


def tally(candidate: str = "NEW", count: int = 3) -> Tally:
    return Tally("OLD", candidate, count, "inputs", AT)


NOISE = {"OLD": 0.25, "NEW": 0.25}


def test_the_threshold_is_noise_and_cost_in_z() -> None:
    found = compare(contender("OLD", 0.5), contender("NEW", 1.2), NOISE, RULES)
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
    bare = contender("NEW", None, trading_cost=None)
    found = compare(contender("OLD"), bare, {"OLD": 0.1}, RULES)
    assert found == Comparison(None, None, None)
    assert compare(contender("OLD", None), contender("NEW"), {}, RULES).improvement is None
    dear = contender("OLD", trading_cost=None)
    assert compare(dear, contender("NEW"), NOISE, RULES).cost is None


def test_noise_is_what_the_board_says_or_an_explicit_default() -> None:
    assert noise_of(None, RULES) is None
    assert noise_of(0.2, replace(RULES, noise_default=9.0)) == 0.2
    assert noise_of(0.0, replace(RULES, noise_default=9.0)) == 0.0
    assert noise_of(None, replace(RULES, noise_default=0.2)) == 0.2


def test_confirmations_are_consecutive_of_one_pair_on_distinct_boards() -> None:
    def look(
        former: Tally | None, new: str, board: str, hours: float, *, exceeds: bool = True
    ) -> Tally | None:
        at = AT + timedelta(hours=hours)
        return counted(former, "OLD", new, board, at, PAUSE, exceeds=exceeds)

    first = look(None, "NEW", "a", 0)
    assert first == Tally("OLD", "NEW", 1, "a", AT)
    assert look(first, "NEW", "a", 9) == first, "a board counts once"
    assert look(first, "NEW", "b", 7.99) == first, "and one within eight hours"
    second = look(first, "NEW", "b", 8)
    assert second == Tally("OLD", "NEW", 2, "b", AT + PAUSE)
    assert look(second, "ELSE", "c", 9) == Tally("OLD", "ELSE", 1, "c", AT + timedelta(hours=9))
    assert look(second, "NEW", "c", 9, exceeds=False) is None


def test_the_one_being_confirmed_is_preferred_while_it_is_good_enough() -> None:
    entrants = [entrant("BEST"), entrant("NEW")]
    assert preferred(entrants, None, lambda _: True) == entrants[0]
    assert preferred(entrants, tally(), lambda _: True) == entrants[1]
    assert preferred(entrants, tally(), lambda _: False) == entrants[0]
    assert preferred(entrants, tally("GONE"), lambda _: True) == entrants[0]
    assert preferred([], tally(), lambda _: True) is None


def test_a_sector_may_hold_so_many_and_like_for_like_is_no_worse() -> None:
    settings = Configuration(replacement=ReplacementSettings(max_per_sector=2))
    others = [contender("A"), contender("B")]
    assert crowds("defi", "layer-1", others, settings)
    assert not crowds("defi", "defi", others, settings)
    assert not crowds("memes", "defi", others, settings)
    unknown = [contender("A", sector=UNCLASSIFIED), contender("B", sector=UNCLASSIFIED)]
    assert not crowds(UNCLASSIFIED, "defi", unknown, settings)


def test_only_those_that_may_come_in_are_offered() -> None:
    settings = Configuration(replacement=ReplacementSettings(max_per_sector=1))
    others = [contender("STAYS", sector="memes")]
    offered = admissible(
        [
            entrant("BANNED", tradeable=False),
            entrant("VAGUE", confidence=0.59),
            entrant("UNSURE", confidence=None),
            entrant("CROWD", sector="memes"),
            entrant("LOW", score=0.5),
            entrant("CLOSE"),
            entrant("FREE"),
        ],
        leaver(),
        others,
        lambda one, _: 0.9 if one == "CLOSE" else 0.1,
        settings,
    )
    assert [one.contender.symbol for one in offered] == ["FREE"]


@pytest.mark.parametrize(
    ("changed", "blocks"),
    [
        ({}, ()),
        ({"leaver": leaver(is_pinned=True)}, (Block.PINNED,)),
        ({"leaver": leaver(held=WEEK - timedelta(seconds=1))}, (Block.MIN_HOLDING,)),
        ({"noise": {"OLD": 0.1}}, (Block.NOISE_UNKNOWN,)),
        ({"candidate": contender("NEW", 1.0)}, (Block.IMPROVEMENT_TOO_SMALL,)),
        ({"candidate": contender("NEW", 1.5, trading_cost=None)}, (Block.COST_UNKNOWN,)),
        ({"tally": tally(count=2)}, (Block.UNCONFIRMED,)),
        ({"tally": tally("OTHER")}, (Block.UNCONFIRMED,)),
        ({"tally": None}, (Block.UNCONFIRMED,)),
        ({"since_swap": timedelta(hours=23)}, (Block.COOLDOWN,)),
        ({"since_swap": timedelta(hours=24)}, ()),
        ({"candidate": None}, (Block.NO_CANDIDATE,)),
        ({"leaver": leaver(forced="closed", held=timedelta()), "noise": {}}, ()),
        ({"leaver": leaver(forced="closed", is_pinned=True)}, (Block.PINNED,)),
        ({"leaver": leaver(forced="closed"), "candidate": None}, (Block.NO_CANDIDATE,)),
    ],
)
def test_everything_that_stands_in_the_way_is_named(
    changed: dict[str, Any], blocks: tuple[Block, ...]
) -> None:
    given: dict[str, Any] = {
        "leaver": leaver(),
        "candidate": contender("NEW", 1.2, score=0.8),
        "noise": NOISE,
        "tally": tally(),
        "since_swap": None,
        "rules": RULES,
    }
    found = propose(**{**given, **changed})
    assert found.blocked_by == blocks
    assert found.is_due == (blocks == ())


def test_strength_is_how_likely_it_pays_times_confidence() -> None:
    def strength(z: float | None, noise: dict[str, float], **changed: Any) -> float | None:
        new = contender("NEW", z, **{"confidence": 0.8, **changed})
        return propose(leaver(), new, noise, tally(), None, RULES).strength

    cost = 20 / (4 * 28)
    assert strength(0.5 + cost, NOISE) == pytest.approx(0.4)
    assert strength(9.0, NOISE) == pytest.approx(0.8)
    assert strength(1.0, {"OLD": 0.0, "NEW": 0.0}) == 0.8
    assert strength(0.6, {"OLD": 0.0, "NEW": 0.0}) == 0.0
    assert strength(None, NOISE) is None
    assert strength(1.0, {}) is None
    assert strength(1.0, NOISE, trading_cost=None) is None
    assert strength(1.0, NOISE, confidence=None) is None
    forced = propose(leaver(forced="closed"), contender("NEW"), {}, None, None, RULES)
    assert forced.strength == 1.0


def test_improvement_of_the_score_is_unknown_without_both() -> None:
    found = propose(leaver(), contender("NEW", score=0.9), NOISE, None, None, RULES)
    assert found.score_improvement == pytest.approx(0.2)
    for new in (None, contender("NEW", score=None)):
        assert propose(leaver(), new, NOISE, None, None, RULES).score_improvement is None


def test_a_cycle_carries_out_so_many_and_forced_ones_come_free() -> None:
    new = contender("NEW", 1.5)
    due = propose(leaver(), new, NOISE, tally(), None, RULES)
    forced = propose(leaver(forced="closed"), new, NOISE, None, None, RULES)
    blocked = propose(leaver(is_pinned=True), new, NOISE, tally(), None, RULES)
    found = within_cycle([forced, blocked, due, due, due], RULES)
    assert [one.blocked_by for one in found] == [
        (),
        (Block.PINNED,),
        (),
        (),
        (Block.CYCLE_LIMIT,),
    ]
