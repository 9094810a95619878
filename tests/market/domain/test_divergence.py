"""Since when what is told and what is answered differ, and from when on neither is believed."""

from decimal import Decimal

import pytest

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import QualitySettings
from app.market.domain.data_quality import diverged_since, has_diverged
from app.market.domain.models import Ticker

RULES = QualitySettings()
TOLD = Ticker(
    code="XBTUSDTM", last=Decimal(100), last_lots=1, traded_ms=1, bid=Decimal("99.9"),
    bid_lots=1, ask=Decimal("100.1"), ask_lots=1,
)  # fmt: skip


def answered(mid: str) -> Ticker:
    return TOLD._replace(bid=Decimal(mid) - 1, ask=Decimal(mid) + 1)


def test_D18_half_a_per_cent_is_the_limit_and_agreement_ends_it() -> None:
    assert diverged_since(None, TOLD, answered("100.5"), 7.0, RULES) is None
    assert diverged_since(None, TOLD, answered("100.51"), 7.0, RULES) == 7.0
    assert diverged_since(None, TOLD, answered("99.49"), 7.0, RULES) == 7.0
    assert diverged_since(3.0, TOLD, answered("101"), 7.0, RULES) == 3.0, "it goes on"
    assert diverged_since(3.0, TOLD, answered("100.2"), 7.0, RULES) is None


@pytest.mark.parametrize("side", ["bid", "ask"])
def test_D18_a_quote_without_one_side_tells_nothing(side: str) -> None:
    given = answered("200")
    cut = given._replace(bid=None) if side == "bid" else given._replace(ask=None)
    assert diverged_since(3.0, TOLD, cut, 7.0, RULES) == 3.0
    assert diverged_since(None, cut, TOLD, 7.0, RULES) is None


def test_D18_only_what_lasts_ten_seconds_counts() -> None:
    assert not has_diverged(0.0, 9.9, RULES)
    assert has_diverged(0.0, 10.0, RULES)


def test_D19_quiet_quotes_of_a_stream_may_be_older_by_the_pause_between_two_looks() -> None:
    settings = Configuration()
    assert settings.quote_span_s() == 5.0
    assert settings.quote_span_s(streaming=True) == 5.0 + settings.feed.tickers_s / 2
