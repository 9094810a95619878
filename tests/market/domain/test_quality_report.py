"""What is wrong with a symbol's data is flagged by name, and takes its part of the score."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from app.configuration.domain.sections import QualitySettings
from app.foundation.data_status import DataStatus
from app.market.domain.price_quarantine import QuarantineReason
from app.market.domain.quality_report import QualityVerdict, SymbolData, report

HOUR_MS = 3_600_000
RULES = QualitySettings()
GOOD = SymbolData(
    status=DataStatus.FRESH,
    age_s=1.0,
    age_limit_s=30.0,
    last=Decimal(100),
    mark=Decimal(100),
    index=Decimal(100),
    quarantine_reason=None,
    is_frozen=False,
    spread=0.0,
    has_quote=True,
    book_status=DataStatus.FRESH,
    is_book_whole=True,
    next_funding_ms=1000 * HOUR_MS + HOUR_MS,
    funding_interval_ms=8 * HOUR_MS,
    server_ms=1000 * HOUR_MS,
    daily_coverage=1.0,
    hourly_coverage=1.0,
    turnover_24h=Decimal(5_000_000),
)


def test_faultless_data_is_good_and_worth_all() -> None:
    whole = report(GOOD, RULES)
    assert (whole.verdict, whole.score, whole.flags) == (QualityVerdict.GOOD, 1.0, ())
    assert sum(part.weight for part in whole.parts) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("change", "flag", "score"),
    [
        ({"mark": None}, "prices_unknown", 0.75),
        ({"index": None}, "index_unknown", 0.875),
        ({"spread": None}, "crossed_quote", 0.9),
        ({"spread": None, "has_quote": False}, "no_quote", 0.9),
        ({"spread": 2 * RULES.max_spread}, "wide_spread", 0.9),
        ({"is_frozen": True}, "frozen", 0.95),
        ({"turnover_24h": None}, "volume_unknown", 0.95),
        ({"turnover_24h": Decimal("999.99")}, "thin_volume", 0.95),
        ({"price_deviation": 0.1001}, "turnover_off_price", 0.95),
        ({"volume_jump": 100.1}, "unconfirmed_volume", 0.95),
        ({"hourly_gap": 6}, "hourly_gap", 1.0),
        ({"book_status": DataStatus.UNAVAILABLE}, "no_book", 0.9),
        ({"is_book_whole": False}, "broken_book", 0.9),
        ({"book_status": DataStatus.STALE}, "stale_book", 0.9),
        ({"next_funding_ms": None}, "funding_unknown", 0.95),
        ({"funding_interval_ms": None}, "funding_unknown", 0.95),
        ({"next_funding_ms": 1000 * HOUR_MS}, "funding_time", 0.95),
        ({"next_funding_ms": 1000 * HOUR_MS + 9 * HOUR_MS}, "funding_time", 0.95),
        ({"daily_coverage": 0.5}, "daily_gaps", 0.95),
        ({"hourly_coverage": 0.9}, "hourly_gaps", 0.995),
    ],
)
def test_each_fault_has_its_flag_and_its_price(
    change: dict[str, Any], flag: str, score: float
) -> None:
    found = report(replace(GOOD, **change), RULES)
    assert found.verdict is QualityVerdict.FLAGGED
    assert found.flags == (flag,)
    assert found.score == pytest.approx(score)


@pytest.mark.parametrize(
    ("change", "flag", "setting", "looser"),
    [
        ({"turnover_24h": Decimal("999.99")}, "thin_volume", "min_volume", 999.0),
        ({"hourly_gap": 6}, "hourly_gap", "max_gap", 6),
        (
            {"off_price": 0.1001},
            "turnover_off_price",
            "max_turnover_price_deviation",
            0.1002,
        ),
        ({"volume_jump": 100.1}, "unconfirmed_volume", "max_volume_jump", 100.2),
        ({"spread": 0.0501}, "wide_spread", "max_spread", 0.0502),
    ],
)
def test_each_limit_is_a_setting(
    change: dict[str, Any], flag: str, setting: str, looser: float
) -> None:
    data = replace(GOOD, **change)
    assert report(data, RULES).flags == (flag,)
    other: dict[str, Any] = {setting: looser}
    assert report(data, replace(RULES, **other)).flags == ()
    # A limit is the last value that is good.
    assert report(replace(GOOD, hourly_gap=RULES.max_gap), RULES).flags == ()
    least = Decimal(repr(RULES.min_volume))
    assert report(replace(GOOD, turnover_24h=least), RULES).flags == ()


@pytest.mark.parametrize(
    ("change", "verdict", "flag", "score"),
    [
        ({"status": DataStatus.STALE, "age_s": 60.0}, QualityVerdict.STALE, "stale", 0.8125),
        ({"status": DataStatus.UNAVAILABLE, "age_s": None}, QualityVerdict.UNAVAILABLE,
         "never_seen", 0.0),
        ({"status": DataStatus.STALE, "has_diverged": True}, QualityVerdict.STALE,
         "feed_divergence", 0.75),
        ({"quarantine_reason": QuarantineReason.LAST_OFF_MARK}, QualityVerdict.QUARANTINED,
         QuarantineReason.LAST_OFF_MARK.value, 0.0),
    ],
)  # fmt: skip
def test_what_is_old_unknown_or_not_believed_is_said_so(
    change: dict[str, Any], verdict: QualityVerdict, flag: str, score: float
) -> None:
    found = report(replace(GOOD, **change), RULES)
    assert (found.verdict, found.flags) == (verdict, (flag,))
    assert found.score == pytest.approx(score)


def test_synthetic_bars_are_told_and_no_fault() -> None:
    found = report(replace(GOOD, hourly_bridged=3), RULES)
    assert found.flags == ()
    assert "3 in short gaps are synthetic" in found.parts[-1].reason
