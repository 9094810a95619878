"""The rules of the alerts, at and beyond their limits; what is unknown says nothing."""

from dataclasses import fields, replace
from datetime import timedelta
from itertools import count

import pytest

from app.alerts.domain.facts import (
    ExitFacts,
    Facts,
    JobFacts,
    MemberFacts,
    PortfolioFacts,
    RefusedRecords,
    SystemFacts,
)
from app.alerts.domain.lifecycle import evaluate
from app.alerts.domain.models import Alert, AlertRule, RuleReading, ThresholdSide, sort_key
from app.alerts.domain.portfolio_rules import EXIT_SHOWN
from app.alerts.domain.rules import RULES, activate_rule
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import AlertRules, LimitRule, Severity, StateRule
from app.foundation.data_status import DataSource, DataStatus
from app.market.domain.models import ExchangeLink, LinkState
from tests.support.portfolios import T0

SETTINGS = Configuration()
UP = ExchangeLink(LinkState.UP, T0, None, None, T0, None)


def members(*facts: MemberFacts, **correlations: float) -> Facts:
    pairs = {(name[:6], name[7:]): rho for name, rho in correlations.items()}
    return Facts(T0, T0, PortfolioFacts(facts, pairs))


def system(**facts: object) -> Facts:
    return Facts(T0, T0, system=SystemFacts(**facts))  # type: ignore[arg-type]  # as the test says


def judge(facts: Facts, settings: Configuration) -> tuple[Alert, ...]:
    """What a first look opens."""
    numbers = count(1)
    seen = evaluate((), facts, settings, {}, lambda: f"alert-{next(numbers)}")
    assert seen.active == tuple(sorted(seen.raised, key=sort_key)), "no rule waits by default"
    return seen.active


def rules(alerts: tuple[Alert, ...]) -> list[tuple[AlertRule, str]]:
    return [(one.rule, one.subject) for one in alerts]


def test_every_rule_has_settings_and_a_predicate() -> None:
    assert list(RULES) == list(AlertRule)
    assert [one.name for one in fields(AlertRules)] == [rule.value for rule in AlertRule]


def test_each_rule_of_the_members_fires_beyond_its_limit_only() -> None:
    facts = members(
        MemberFacts("AAUSDT", "Paused", False, 0.5, -0.2),
        MemberFacts("BBUSDT", "Open", True, 0.4999, -0.2001),
        MemberFacts("CCUSDT", "Open", True, None, None),
        BBUSDT_AAUSDT=0.81,
        AAUSDT_CCUSDT=0.8,
    )
    alerts = judge(facts, SETTINGS)
    assert [(one.rule, one.subject, one.severity) for one in alerts] == [
        (AlertRule.NOT_TRADEABLE, "AAUSDT", Severity.CRITICAL),
        (AlertRule.HIGH_CORRELATION, "AAUSDT-BBUSDT", Severity.WARNING),
        (AlertRule.LOW_SCORE, "BBUSDT", Severity.WARNING),
        (AlertRule.POOR_PERFORMANCE, "BBUSDT", Severity.WARNING),
    ]
    assert [(one.value, one.limit) for one in alerts] == [
        (None, None),
        (0.81, 0.8),
        (0.4999, 0.5),
        (-0.2001, -0.2),
    ]
    assert all(one.since == T0 and one.message for one in alerts)


def test_a_pair_that_falls_with_the_market_is_an_alert_of_its_own() -> None:
    """Nothing is left of them beside the market, and yet they fall together."""
    pairs = {("BTCUSDT", "AAUSDT"): 0.95, ("AAUSDT", "BBUSDT"): 0.9, ("BBUSDT", "BTCUSDT"): 0.91}
    members_ = [
        MemberFacts(name, "Open", is_open=True, score=0.9, performance=0.1)
        for name in ("AAUSDT", "BBUSDT", "BTCUSDT")
    ]
    held = PortfolioFacts(members=tuple(members_), raw_correlations=pairs)
    assert [(one.rule, one.subject) for one in judge(Facts(T0, T0, held), SETTINGS)] == [
        (AlertRule.HIGH_RAW_CORRELATION, "AAUSDT-BTCUSDT"),
        (AlertRule.HIGH_RAW_CORRELATION, "BBUSDT-BTCUSDT"),
    ]
    own = RULES[AlertRule.HIGH_CORRELATION].read(Facts(T0, T0, held), SETTINGS)
    assert [one.subject for one in own or ()] == ["AAUSDT-BBUSDT"], "the market has no residual"


def test_a_rule_that_is_off_says_nothing() -> None:
    facts = members(MemberFacts("AAUSDT", "Paused", False, None, None))
    off = replace(SETTINGS.alerts.rules, not_tradeable=StateRule(enabled=False))
    assert judge(facts, replace(SETTINGS, alerts=replace(SETTINGS.alerts, rules=off))) == ()


def test_of_a_service_that_says_nothing_nothing_is_known() -> None:
    assert judge(system(), SETTINGS) == ()
    untried = replace(UP, state=LinkState.UNTRIED)
    assert judge(system(link=untried), SETTINGS) == ()
    for rule, spec in RULES.items():
        for reading in spec.read(system(), SETTINGS) or ():
            limit = activate_rule(rule, SETTINGS).limit
            assert not reading.is_exceeded(spec.side, limit), rule


def test_a_ban_is_one_critical_alert_and_no_disconnection() -> None:
    link = replace(UP, state=LinkState.DOWN, cause="exchange_banned", detail="blocked")
    alerts = judge(system(link=link), SETTINGS)
    assert rules(alerts) == [(AlertRule.EXCHANGE_BANNED, "exchange")]
    assert alerts[0].severity is Severity.CRITICAL
    away = replace(link, cause="exchange_timeout")
    assert rules(judge(system(link=away), SETTINGS)) == [
        (AlertRule.EXCHANGE_DISCONNECTED, "exchange")
    ]
    assert judge(system(link=UP), SETTINGS) == ()


def test_what_the_exchange_says_wrongly_is_named() -> None:
    many = tuple(f"C{number}USDT" for number in range(7))
    alerts = judge(
        system(
            universe_known=True,
            anomaly="40 of 100 contracts vanished at once",
            odd_status=("AAUSDT",),
            redirected=("/api/v1/status",),
            refused=(RefusedRecords("/api/v1/contracts", "tickSize", "not a number", 7, many),),
        ),
        SETTINGS,
    )
    assert rules(alerts) == [
        (AlertRule.REDIRECT_REFUSED, "/api/v1/status"),
        (AlertRule.SCHEMA_DRIFT, "/api/v1/contracts:tickSize"),
        (AlertRule.UNIVERSE_ANOMALY, "exchange"),
        (AlertRule.UNKNOWN_CONTRACT_STATUS, "exchange"),
    ]
    drift, anomaly, odd = alerts[1:]
    assert (drift.value, drift.symbols) == (7.0, many)
    assert "tickSize (not a number): C0USDT, C1USDT" in drift.message
    assert "and 2 more" in drift.message
    assert "40 of 100" in anomaly.message
    assert (odd.value, odd.symbols) == (1.0, ("AAUSDT",))
    assert judge(system(universe_known=True), SETTINGS) == ()


def test_stale_data_is_one_alert_of_the_market_or_one_of_each_member() -> None:
    stale = MemberFacts("AAUSDT", "Open", True, None, None, is_fresh=False)
    gone = MemberFacts("BBUSDT", "Closed", True, None, None)
    held = PortfolioFacts((stale, gone))
    for status, subject in (
        (DataStatus.FRESH, "AAUSDT"),
        (DataStatus.STALE, "market"),
        (DataStatus.UNAVAILABLE, "market"),
    ):
        facts = Facts(T0, T0, held, SystemFacts(data_status=status))
        assert rules(judge(facts, SETTINGS)) == [(AlertRule.DATA_STALE, subject)]
    assert judge(Facts(T0, T0, held), SETTINGS) == (), "not before the first fill"


@pytest.mark.parametrize(
    ("offset", "source", "value"),
    [
        (0.9, DataSource.KUCOIN, None),
        (1.2, DataSource.KUCOIN, 1.2),
        (6.0, DataSource.SANDBOX, 6.0),
        (86_400.0, DataSource.KUCOIN, 86_400.0),
        (86_400.0, DataSource.SANDBOX, None),
    ],
)
def test_clocks_that_differ(offset: float, source: DataSource, value: float | None) -> None:
    alerts = judge(system(clock_offset_s=offset, data_source=source), SETTINGS)
    assert [one.value for one in alerts] == ([] if value is None else [value])


def test_jobs_that_fail_or_do_not_come() -> None:
    jobs = (
        JobFacts("market", 2, "exchange_timeout", 3.0),
        JobFacts("scoring", 3, "TypeError", 3.1),
        JobFacts("gauges", 0, None, None),
    )
    alerts = judge(system(jobs=jobs), SETTINGS)
    assert rules(alerts) == [(AlertRule.JOB_FAILING, "scoring"), (AlertRule.JOB_LATE, "scoring")]
    assert "TypeError" in alerts[0].message


def test_each_new_rule_of_a_member_fires_beyond_its_limit_only() -> None:
    calm = MemberFacts(
        "AAUSDT",
        "Open",
        True,
        0.75,
        0.0,
        is_delisted=False,
        is_ending=False,
        former_score=0.9,
        drawdown=0.25,
        excess=0.5,
        funding=-0.001,
        jump=6.0,
    )
    assert judge(members(calm), SETTINGS) == ()
    wild = replace(
        calm,
        symbol="BBUSDT",
        is_delisted=True,
        is_ending=True,
        score=0.7,
        drawdown=0.26,
        excess=0.51,
        funding=-0.0011,
        jump=6.1,
        candidate="CCUSDT",
        is_doubted=True,
    )
    alerts = judge(members(calm, wild), SETTINGS)
    assert [(one.rule, one.value) for one in alerts] == [
        (AlertRule.CONTRACT_DELISTED, None),
        (AlertRule.DELISTING_ANNOUNCED, None),
        (AlertRule.DRAWDOWN, 0.26),
        (AlertRule.FUNDING_EXTREME, 0.0011),
        (AlertRule.PRICE_ANOMALY, 6.1),
        (AlertRule.QUARANTINED, None),
        (AlertRule.SCORE_DROPPED, 0.2),
        (AlertRule.WEIGHT_OUT_OF_BOUNDS, 0.51),
        (AlertRule.REPLACEMENT_RECOMMENDED, None),
    ]
    assert {one.subject for one in alerts} == {"BBUSDT"}
    assert alerts[-1].symbols == ("BBUSDT", "CCUSDT")
    assert alerts[-1].severity is Severity.INFO


def test_the_portfolio_as_a_whole() -> None:
    two = tuple(MemberFacts(name, "Open", True, None, None) for name in ("AAUSDT", "BBUSDT"))
    held = PortfolioFacts(
        two, was_formed=True, sectors={"ai": 0.61, "defi": 0.39}, value_at_risk=0.11
    )
    alerts = judge(Facts(T0, T0, held), SETTINGS)
    assert [(one.rule, one.subject, one.value) for one in alerts] == [
        (AlertRule.SECTOR_CONCENTRATION, "ai", 0.61),
        (AlertRule.VAR_ABOVE_LIMIT, "portfolio", 0.11),
        (AlertRule.PORTFOLIO_BELOW_SIZE, "portfolio", 2.0),
    ]
    calm = PortfolioFacts((*two, two[0]), was_formed=True, sectors={"ai": 0.6}, value_at_risk=0.1)
    assert judge(Facts(T0, T0, calm), SETTINGS) == ()
    assert judge(Facts(T0, T0, replace(held, was_formed=False)), SETTINGS)[-1].rule is not (
        AlertRule.PORTFOLIO_BELOW_SIZE
    ), "what was never formed is not too small"


def test_a_member_whose_contract_is_lost_does_not_count_for_the_size() -> None:
    def size(*lost: bool | None) -> RuleReading:
        held = tuple(
            MemberFacts(f"{at}USDT", "Open", True, None, None, is_delisted=one)
            for at, one in enumerate(lost)
        )
        facts = Facts(T0, T0, PortfolioFacts(held, was_formed=True))
        (found,) = RULES[AlertRule.PORTFOLIO_BELOW_SIZE].read(facts, SETTINGS) or ()
        return found

    assert size(False, False, False).value == 3.0
    small = size(False, False, True)
    assert small.value == 2.0
    assert small.message == "The portfolio has 3 members, 1 of them delisted."
    assert size(False, None, True).value == 2.0, "however the unknown one is, they are too few"
    assert size(False, False, None).value is None, "it depends on the unknown one"
    assert size(False, False, False, None).value == 4.0, "enough without the unknown one"


def test_news_are_shown_for_a_while_only() -> None:
    for seconds, shown in ((899, True), (900, False)):
        now = T0 + timedelta(seconds=seconds)
        facts = Facts(
            now,
            now,
            PortfolioFacts(rebalanced=(7, T0)),
            SystemFacts(recoveries=(("exchange_banned", "exchange", T0),)),
        )
        assert rules(judge(facts, SETTINGS)) == (
            [
                (AlertRule.REBALANCE_DONE, "event 7"),
                (AlertRule.RECOVERED, "exchange_banned:exchange"),
            ]
            if shown
            else []
        )


def test_an_exit_is_a_large_loss_or_profitable_beyond_its_limit_and_for_an_hour() -> None:
    exits = tuple(
        ExitFacts(number, f"{name}USDT", performance, T0)
        for number, (name, performance) in enumerate(
            [("AA", -0.1), ("BB", -0.100001), ("CC", 0.05), ("DD", 0.050001), ("EE", None)], start=1
        )
    )
    for later, is_shown in ((timedelta(0), True), (EXIT_SHOWN - timedelta(seconds=1), True),
                            (EXIT_SHOWN, False)):  # fmt: skip
        facts = Facts(T0 + later, T0, PortfolioFacts(exits=exits))
        alerts = judge(facts, SETTINGS)
        assert [
            (one.rule, one.subject, one.symbols, one.value, one.limit, one.message)
            for one in alerts
        ] == (
            [
                (
                    AlertRule.LARGE_LOSS, "BBUSDT:event 2", ("BBUSDT",), 0.100001, 0.1,
                    "BBUSDT left with a loss of 10.0% since its inclusion",
                ),
                (
                    AlertRule.PROFITABLE_EXIT, "DDUSDT:event 4", ("DDUSDT",), 0.050001, 0.05,
                    "DDUSDT left with a gain of 5.0% since its inclusion",
                ),
            ]
            if is_shown
            else []
        )  # fmt: skip
    wider = replace(
        SETTINGS.alerts.rules,
        large_loss=LimitRule(limit=0.2),
        profitable_exit=LimitRule(limit=0.2),
    )
    settings = replace(SETTINGS, alerts=replace(SETTINGS.alerts, rules=wider))
    assert judge(Facts(T0, T0, PortfolioFacts(exits=exits)), settings) == ()


def test_a_number_ends_its_alert_only_beyond_the_margin() -> None:
    low, far, state = (
        activate_rule(rule, SETTINGS)
        for rule in (AlertRule.LOW_SCORE, AlertRule.CLOCK_OFFSET, AlertRule.NOT_TRADEABLE)
    )
    assert (low.limit, low.clear_limit) == (0.5, 0.52)
    assert (far.limit, far.clear_limit) == (1.0, 0.8)
    assert (state.limit, state.clear_limit) == (None, None)
    reading = RuleReading("AAUSDT", "", value=0.51)
    assert reading.is_exceeded(ThresholdSide.BELOW, low.limit) is False
    assert reading.is_exceeded(ThresholdSide.BELOW, low.clear_limit) is True
    assert reading.is_exceeded(ThresholdSide.BELOW, None) is None


def test_G09_processes_that_run_with_something_else_are_one_alert_that_names_them() -> None:
    now = replace(SETTINGS.alerts.rules, config_drift=StateRule())
    settings = replace(SETTINGS, alerts=replace(SETTINGS.alerts, rules=now))
    (alert,) = judge(system(drifted=("one (other settings)",)), settings)
    assert (alert.rule, alert.subject, alert.value) == (AlertRule.CONFIG_DRIFT, "replicas", 1.0)
    assert "one (other settings)" in alert.message
    assert judge(system(drifted=()), settings) == ()
    assert judge(system(drifted=None), settings) == ()
