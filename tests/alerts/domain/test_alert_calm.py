"""Rules are asked again only where what they look at has changed, and nothing is missed by that."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from datetime import timedelta
from itertools import count
from random import Random
from types import MappingProxyType
from typing import Any

import pytest

from app.alerts.domain import lifecycle as alert_life
from app.alerts.domain.facts import (
    Facts,
    JobFacts,
    MemberFacts,
    PortfolioFacts,
    RefusedRecords,
    SystemFacts,
)
from app.alerts.domain.lifecycle import SEES, Evaluation, evaluate
from app.alerts.domain.models import Alert, Reading, Rule
from app.alerts.domain.rules import RULES
from app.configuration.domain.model import Configuration
from app.foundation.data_status import DataSource, DataStatus
from app.market.domain.models import ExchangeLink, LinkState
from tests.support.portfolios import T0

SETTINGS = Configuration()
LOOKS = 100
UP = ExchangeLink(LinkState.UP, T0, None, None, T0, None)

# What each field of the facts may be; most are calm, so that rules are left out often.
MEMBER: dict[str, Sequence[Any]] = {
    "status": ("Open", "Open", "Open", "Paused"),
    "is_open": (True, True, True, False),
    "score": (0.9, 0.9, 0.8, 0.3, None),
    "performance": (0.1, 0.1, -0.5, None),
    "is_fresh": (True, True, True, False, None),
    "is_lost": (False, False, False, True, None),
    "is_ending": (False, False, False, True, None),
    "former_score": (0.9, 0.5, None),
    "drawdown": (0.1, 0.1, 0.9, None),
    "excess": (0.0, 0.0, 9.0, None),
    "funding": (0.0001, 0.0001, -0.02, None),
    "jump": (0.5, 0.5, 9.0, None),
    "rival": (None, None, None, "XXUSDT"),
    "is_doubted": (False, False, False, True, None),
    "doubt": (None, "outlier"),
}
WHOLE: dict[str, Sequence[Any]] = {
    "was_formed": (True, True, True, False),
    "sectors": ({"meme": 0.2}, {"meme": 0.2}, {"meme": 0.9}, {}),
    "value_at_risk": (0.01, 0.01, 0.5, None),
    "rebalanced": (None, None, (7, T0), (8, T0 + timedelta(hours=40))),
}
JOBS = (
    (),
    (JobFacts("scoring", 0, None, 1.0),),
    (JobFacts("scoring", 0, None, 1.0),),
    (JobFacts("scoring", 9, "it fell over", 1.0),),
    (JobFacts("scoring", 0, None, 99.0),),
)
REFUSED = RefusedRecords("/api/v1/contracts", "tickSize", "not a number", 7, ("AAUSDT",))
SYSTEM: dict[str, Sequence[Any]] = {
    "link": (
        None,
        UP,
        UP,
        replace(UP, state=LinkState.DOWN, cause="exchange_banned", detail="blocked"),
        replace(UP, state=LinkState.DOWN, cause="exchange_timeout", detail="silent"),
    ),
    "redirected": ((), (), ("/api/v1/status",)),
    "refused": ((), (), (REFUSED,)),
    "universe_known": (True, True, False),
    "anomaly": (None, None, "40 of 100 vanished"),
    "odd_status": ((), (), ("AAUSDT",)),
    "data_source": (DataSource.KUCOIN, DataSource.SANDBOX),
    "data_status": (DataStatus.FRESH, DataStatus.FRESH, DataStatus.STALE, None),
    "clock_offset_s": (0.0, 0.0, 9.0, 9_000.0, None),
    "jobs": JOBS,
    "drifted": (None, (), (), ("other-1",)),
    "recoveries": ((), (), (("data_stale", "market", T0 + timedelta(hours=20)),)),
}


def members(dice: Random) -> tuple[MemberFacts, ...]:
    names = [one for one in ("AAUSDT", "BBUSDT", "CCUSDT") if dice.random() < 0.9]
    drawn = [{name: dice.choice(pool) for name, pool in MEMBER.items()} for _ in names]
    return tuple(MemberFacts(symbol=name, **own) for name, own in zip(names, drawn, strict=True))


def changed(dice: Random, facts: Facts) -> Facts:
    """Some time later; of most things nothing has changed."""
    held, system = facts.portfolio, facts.system
    if dice.random() < 0.3:
        held = replace(held, members=members(dice))
    if dice.random() < 0.2:
        held = replace(held, correlations={("AAUSDT", "BBUSDT"): dice.choice((0.1, 0.99))})
    if dice.random() < 0.2:
        held = replace(held, raw_correlations={("AAUSDT", "BBUSDT"): dice.choice((0.1, 0.99))})
    name = dice.choice(list(WHOLE))
    held = replace(held, **{name: dice.choice(WHOLE[name])})
    for name in dice.sample(list(SYSTEM), 2):
        system = replace(system, **{name: dice.choice(SYSTEM[name])})
    at = facts.at + timedelta(minutes=dice.choice((1, 10, 60)))
    return Facts(at, at, held, system)


def look(
    facts: Facts,
    settings: Configuration,
    before: Evaluation | None = None,
    active: tuple[Alert, ...] = (),
) -> Evaluation:
    numbers, calm = count(1), None if before is None else before.calm
    return evaluate(active, facts, settings, {}, lambda: f"alert-{next(numbers)}", calm)


def test_every_rule_says_what_it_looks_at() -> None:
    assert set(SEES) == set(Rule)
    named = {one.name for one in fields(MemberFacts)} - {"symbol"}
    assert named == set(MEMBER), "what is new must be among what changes here"
    others = {"members", "correlations", "raw_correlations"}
    assert {one.name for one in fields(PortfolioFacts)} == {*WHOLE, *others}
    assert {one.name for one in fields(SystemFacts)} == set(SYSTEM)


def test_leaving_out_what_has_not_changed_changes_nothing() -> None:
    dice, fired = Random(20261122), set[Rule]()
    facts, settings, before = Facts(T0, T0), SETTINGS, look(Facts(T0, T0), SETTINGS)
    for turn in range(LOOKS):
        facts = changed(dice, facts)
        if turn % 10 == 9:  # other settings, under which what was calm may not be
            low = dice.choice((0.1, 0.95))
            settings = replace(SETTINGS, alerts=replace(SETTINGS.alerts, low_score=low))
        # Those that had something to say are kept every other time: then they are over, or go on.
        active = before.active if turn % 2 else ()
        sparing = look(facts, settings, before, active)
        thorough = look(facts, settings, None, active)
        assert replace(sparing, calm=thorough.calm) == thorough
        before = sparing
        fired |= {alert.rule for alert in thorough.raised}
    assert len(fired) > len(Rule) / 2, "most of them had something to say"


def of(*held: MemberFacts, was_formed: bool = True) -> Facts:
    pairs = {("AAUSDT", "BBUSDT"): 0.99}
    return Facts(T0, T0, PortfolioFacts(held, pairs, was_formed=was_formed))


def the(**said: Any) -> Facts:
    return Facts(T0, T0, system=SystemFacts(**said))


ONE = MemberFacts("AAUSDT", "Open", is_open=True, score=0.9, performance=0.1, former_score=0.9)
OTHER = replace(ONE, symbol="BBUSDT")
DOWN = replace(UP, state=LinkState.DOWN, cause="exchange_timeout", detail="silent")


@pytest.mark.parametrize(
    ("rule", "calm", "firing"),
    [
        (Rule.SCORE_DROPPED, of(ONE), of(replace(ONE, score=0.6))),
        (Rule.SCORE_DROPPED, of(replace(ONE, former_score=0.5)), of(replace(ONE, score=0.6))),
        (Rule.SCORE_DROPPED, of(replace(ONE, score=0.6, former_score=0.6)),
         of(replace(ONE, score=0.6))),
        (Rule.HIGH_CORRELATION, of(ONE), of(ONE, OTHER)),
        (Rule.PORTFOLIO_BELOW_SIZE, of(ONE, was_formed=False), of(ONE)),
        (Rule.PORTFOLIO_BELOW_SIZE, of(*[ONE] * 3), of(ONE, ONE)),
        (Rule.EXCHANGE_BANNED, the(link=DOWN), the(link=replace(DOWN, cause="exchange_banned"))),
        (Rule.EXCHANGE_DISCONNECTED, the(link=UP), the(link=DOWN)),
        (Rule.EXCHANGE_DISCONNECTED, the(link=replace(DOWN, cause="exchange_banned")),
         the(link=DOWN)),
        (Rule.CLOCK_OFFSET, the(clock_offset_s=9_000.0),
         the(clock_offset_s=9_000.0, data_source=DataSource.KUCOIN)),
        (Rule.UNIVERSE_ANOMALY, the(anomaly="40 vanished"),
         the(anomaly="40 vanished", universe_known=True)),
        (Rule.UNKNOWN_CONTRACT_STATUS, the(odd_status=("AAUSDT",)),
         the(odd_status=("AAUSDT",), universe_known=True)),
        (Rule.UNKNOWN_CONTRACT_STATUS, the(universe_known=True),
         the(odd_status=("AAUSDT",), universe_known=True)),
    ],
)  # fmt: skip
def test_each_part_of_what_a_rule_looks_at_counts(rule: Rule, calm: Facts, firing: Facts) -> None:
    before = look(calm, SETTINGS)
    assert rule in before.calm.seen
    assert rule in {alert.rule for alert in look(firing, SETTINGS, before).raised}


def test_only_rules_that_look_at_what_has_changed_are_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = list[Rule]()

    def noting(rule: Rule) -> Callable[[Facts, Configuration], Sequence[Reading] | None]:
        def read(facts: Facts, settings: Configuration) -> Sequence[Reading] | None:
            asked.append(rule)
            return RULES[rule].read(facts, settings)

        return read

    noted = {rule: replace(spec, read=noting(rule)) for rule, spec in RULES.items()}
    monkeypatch.setattr(alert_life, "RULES", MappingProxyType(noted))

    seen: list[Evaluation] = []

    def now(facts: Facts, settings: Configuration) -> list[Rule]:
        asked.clear()
        before = seen[-1] if seen else None
        seen.append(look(facts, settings, before, before.active if before else ()))
        return list(asked)

    calm = MemberFacts("AAUSDT", "Open", is_open=True, score=0.9, performance=0.1, drawdown=0.1)
    facts = Facts(T0, T0, PortfolioFacts((calm,), was_formed=True), SystemFacts(link=UP))
    lower = replace(SETTINGS, alerts=replace(SETTINGS.alerts, low_score=0.4))
    assert now(facts, lower) == list(RULES)
    small = [Rule.PORTFOLIO_BELOW_SIZE]  # it has an alert, which goes on with time
    assert now(replace(facts, at=T0 + timedelta(minutes=1)), lower) == small
    moved = replace(facts, portfolio=replace(facts.portfolio, members=(
        replace(calm, performance=0.2, drawdown=0.05),
    )))  # fmt: skip
    assert now(moved, lower) == [Rule.POOR_PERFORMANCE, Rule.DRAWDOWN, *small]
    away = replace(UP, state=LinkState.DOWN, cause="exchange_timeout", detail="silent")
    gone = replace(moved, system=SystemFacts(link=away))
    links = [Rule.EXCHANGE_BANNED, Rule.EXCHANGE_DISCONNECTED]
    assert now(gone, lower) == [*small, *links]
    assert now(gone, SETTINGS) == list(RULES), "other settings ask all of them"
