"""The four portfolio alerts, at and beyond their limits."""

from app.domain.alerts import MemberFacts, Rule, Severity, judge
from app.domain.configuration import Configuration
from tests.domain.portfolios import T0

SETTINGS = Configuration()


def test_each_rule_fires_beyond_its_limit_only() -> None:
    facts = [
        MemberFacts("AAUSDT", "Paused", False, 0.5, -0.2),
        MemberFacts("BBUSDT", "Open", True, 0.4999, -0.2001),
        MemberFacts("CCUSDT", "Open", True, None, None),
    ]
    pairs = {("BBUSDT", "AAUSDT"): 0.81, ("AAUSDT", "CCUSDT"): 0.8}
    alerts = judge(facts, pairs, SETTINGS, T0)
    assert [(one.rule, one.subject, one.severity) for one in alerts] == [
        (Rule.NOT_TRADEABLE, "AAUSDT", Severity.CRITICAL),
        (Rule.HIGH_CORRELATION, "AAUSDT-BBUSDT", Severity.WARNING),
        (Rule.LOW_SCORE, "BBUSDT", Severity.WARNING),
        (Rule.POOR_PERFORMANCE, "BBUSDT", Severity.WARNING),
    ]
    assert [(one.value, one.limit) for one in alerts] == [
        (None, None),
        (0.81, 0.8),
        (0.4999, 0.5),
        (-0.2001, -0.2),
    ]
    assert all(one.since == T0 and one.message for one in alerts)
