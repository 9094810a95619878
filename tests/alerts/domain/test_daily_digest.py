"""Text of the daily digest, whole and with missing parts, and the day on which it is due."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.alerts.domain.daily_digest import (
    BoardQuality,
    DayResult,
    DigestFacts,
    MarketQuality,
    daily_digest,
    day_before_first,
    is_digest_day,
)
from app.alerts.domain.models import Alert, AlertRule, AlertState
from app.alerts.domain.notifications import NotificationKind
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import (
    DailyDigestSettings,
    NotificationCategory,
    NotificationPriority,
    Severity,
)
from app.foundation.data_status import DataSource, DataStatus
from app.portfolio.domain.event_log import EventType, PortfolioEvent
from app.portfolio.domain.models import EMPTY, Member

PRIORITIES = Configuration().notification_priorities
T0 = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
START = datetime(2026, 3, 3, tzinfo=UTC)


def member(symbol: str, rank: int, weight_u: int) -> Member:
    return Member(symbol, symbol, "C", rank, T0, "best", None, None, weight_u, weight_u)


def change(seq: int, kind: EventType, symbol: str | None, other: str | None = None) -> Any:
    return PortfolioEvent(
        seq, kind, symbol, other, {}, "because", "schedule", "r", T0 - timedelta(hours=seq), 1,
        None, "code", "", "",
    )  # fmt: skip


def alert(number: int, severity: Severity) -> Alert:
    return Alert(
        f"a-{number}", AlertRule.LOW_SCORE, f"S{number}USDT", (), severity, AlertState.OPEN, 0.4,
        0.5, "low", T0, T0,
    )  # fmt: skip


FACTS = DigestFacts(
    at=datetime(2026, 3, 4, 7, tzinfo=UTC),
    portfolio=replace(
        EMPTY,
        version=8,
        members=(member("BTCUSDT", 1, 20_000_000), member("ETHUSDT", 2, 14_500_000)),
        cash_u=65_500_000,
    ),
    max_size=10,
    result=DayResult(
        START, Decimal("1.0234"), 0.0052, {"ETHUSDT": -0.001, "BTCUSDT": 0.0062, "AUSDT": 0.0}, None
    ),
    changes=(change(1, EventType.REPLACE, "BTCUSDT", "AUSDT"), change(2, EventType.WEIGHTS, None)),
    alerts=(alert(1, Severity.CRITICAL), alert(2, Severity.WARNING)),
    market=MarketQuality(
        DataSource.SANDBOX, DataStatus.FRESH, datetime(2026, 3, 4, 6, 59, tzinfo=UTC), 550, 247, 3
    ),
    board=BoardQuality(31.4, 240, 310),
    doubts={"ETHUSDT": "price jump"},
)


def test_the_digest_says_portfolio_changes_results_alerts_and_data_quality() -> None:
    digest = daily_digest(FACTS, PRIORITIES)
    assert digest.title == "My Symbols: 2026-03-04, 2 members, +0.52% since 2026-03-03 00:00 UTC"
    assert digest.body.splitlines() == [
        "Portfolio:",
        "version 8, 2 of at most 10 members, cash 65.50 %",
        "BTCUSDT 20.00 %",
        "ETHUSDT 14.50 %",
        "Equity:",
        "index 1.023400, +0.52% since 2026-03-03 00:00 UTC",
        "Best and worst:",
        "best BTCUSDT +0.62% of equity",
        "worst ETHUSDT -0.10% of equity",
        "Changes:",
        "04:06 replaced AUSDT by BTCUSDT: because",
        "03:06 weights set: because",
        "Open alerts:",
        "critical: low_score (S1USDT)",
        "warning: low_score (S2USDT)",
        "Data quality:",
        "market data of sandbox fresh, as of 2026-03-04 06:59 UTC",
        "550 contracts, 247 eligible, 3 stale",
        "board 31 s old, 240 scored, 310 unavailable",
        "doubted members: ETHUSDT (price jump)",
    ]
    assert (digest.kind, digest.priority) == (NotificationKind.STATUS, NotificationPriority.LOW)
    urgent = {**PRIORITIES, NotificationCategory.STATUS_UPDATE: NotificationPriority.HIGH}
    assert daily_digest(FACTS, urgent).priority is NotificationPriority.HIGH


def test_missing_parts_are_said_as_missing() -> None:
    unknown = DayResult(None, None, None, {}, "the mark of BTCUSDT is unknown")
    market = replace(FACTS.market, as_of=None, status=DataStatus.UNAVAILABLE)
    facts = replace(
        FACTS, portfolio=EMPTY, result=unknown, changes=(), alerts=(), market=market, board=None,
        doubts={},
    )  # fmt: skip
    digest = daily_digest(facts, PRIORITIES)
    assert digest.title == "My Symbols: 2026-03-04, 0 members, change unknown"
    assert digest.body.splitlines() == [
        "Portfolio:",
        "version 0, 0 of at most 10 members, cash 100.00 %",
        "Equity:",
        "unknown: the mark of BTCUSDT is unknown",
        "Best and worst:",
        "unknown: the mark of BTCUSDT is unknown",
        "Changes:",
        "none",
        "Open alerts:",
        "none",
        "Data quality:",
        "market data of sandbox unavailable, as of unknown",
        "550 contracts, 247 eligible, 3 stale",
        "no complete board yet",
    ]


def test_long_lists_are_cut_and_counted() -> None:
    alerts = [alert(number, Severity.WARNING) for number in range(13)]
    lines = daily_digest(replace(FACTS, alerts=alerts), PRIORITIES).body.splitlines()
    first = lines.index("Open alerts:") + 1
    assert lines[first + 9 : first + 11] == ["warning: low_score (S9USDT)", "and 3 more"]


@pytest.mark.parametrize(
    ("hour", "last", "is_due"),
    [
        (6, date(2026, 3, 3), False),
        (7, date(2026, 3, 3), True),
        (23, date(2026, 3, 1), True),
        (7, date(2026, 3, 4), False),
        (7, date(2026, 3, 5), False),  # the clock was set back
    ],
)
def test_a_digest_is_due_once_a_day_from_its_hour_on(hour: int, last: date, is_due: bool) -> None:
    settings, at = DailyDigestSettings(hour=7), datetime(2026, 3, 4, hour, tzinfo=UTC)
    assert is_digest_day(last, at, settings) is is_due
    assert is_digest_day(last, at, replace(settings, enabled=False)) is False


@pytest.mark.parametrize(("hour", "day"), [(6, date(2026, 3, 3)), (7, date(2026, 3, 4))])
def test_the_first_digest_comes_at_the_next_hour(hour: int, day: date) -> None:
    at = datetime(2026, 3, 4, hour, tzinfo=UTC)
    assert day_before_first(at, DailyDigestSettings(hour=7)) == day
