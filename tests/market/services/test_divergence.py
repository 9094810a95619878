"""A quote that is told otherwise than it is answered, and goes on so, is believed in no form."""

from collections.abc import AsyncIterator

import pytest

from app.configuration.domain.sections import Source
from app.foundation.data_status import DataStatus
from app.foundation.sql.database import Database
from app.market.domain.quality_report import QualityVerdict
from app.market.domain.stream import QuoteUpdate
from app.market.services.quality_monitor import quality_report
from app.market.services.shared_market import create_message, decode_message, encode_message
from tests.market.services.test_market_stream import Scene, frozen_scene
from tests.market.services.test_quality import COURSE

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
CODE, ETH = "ETHUSDTM", "ETHUSDT"


@pytest.fixture
async def scene(database: Database) -> AsyncIterator[Scene]:
    async with frozen_scene(database) as opened:
        await opened.tell_all()
        opened.live.clock.pass_(1.0)
        yield opened


def off(true: QuoteUpdate, share: str) -> QuoteUpdate:
    assert true.bid is not None
    assert true.ask is not None
    factor = type(true.bid)(share)
    return true._replace(bid=true.bid * factor, ask=true.ask * factor)


async def talked(scene: Scene, said: QuoteUpdate, seconds: int) -> None:
    """It is told of once a second, and asked about beside."""
    for _ in range(seconds):
        scene.say(CODE, said)
        await scene.pass_(1)


def flags(scene: Scene) -> tuple[QualityVerdict, tuple[str, ...]]:
    found = quality_report(scene.data.moment(), scene.data.resolve(ETH))
    return found.verdict, found.flags


async def test_D18_told_and_answered_prices_that_differ_for_ten_seconds_are_stale(
    scene: Scene,
) -> None:
    data, true = scene.data, scene.quote(CODE)
    await talked(scene, off(true, "1.006"), 9)
    assert scene.is_fresh(CODE), "it may be a moment between two moves"
    await talked(scene, off(true, "1.006"), 8)
    age_s = data.view(data.resolve(ETH)).ages[Source.TICKERS].age_s
    assert age_s is not None
    assert age_s < 5, "it is young, and wrong all the same"
    assert not scene.is_fresh(CODE)
    quote = data.quote(ETH)
    assert quote is not None
    assert not quote.is_fresh, "nothing is decided on it"
    assert ETH not in data.funnel().eligible
    assert data.scoring_inputs().excluded[ETH] == "ticker", "it gets no score"
    assert "BTCUSDT" in data.funnel().eligible
    assert data.status() is DataStatus.FRESH, "the others decide"
    verdict, found = flags(scene)
    assert verdict is QualityVerdict.STALE
    assert "feed_divergence" in found
    sent = decode_message(
        encode_message(create_message(data.live.market, COURSE, data.monotonic()))
    )
    assert sent.diverged == {CODE}, "who follows sees it too"

    await talked(scene, true, 6)
    assert scene.is_fresh(CODE)
    assert ETH in data.funnel().eligible
    assert "feed_divergence" not in flags(scene)[1]


async def test_D18_what_differs_by_less_or_only_for_a_moment_is_believed(scene: Scene) -> None:
    true = scene.quote(CODE)
    await talked(scene, off(true, "1.004"), 20)
    assert scene.is_fresh(CODE)
    for _ in range(3):
        await talked(scene, off(true, "1.05"), 6)
        await talked(scene, true, 6)
    assert scene.is_fresh(CODE)


async def test_D18_once_it_is_only_asked_for_there_is_nothing_to_contradict(scene: Scene) -> None:
    await talked(scene, off(scene.quote(CODE), "1.02"), 17)
    assert not scene.is_fresh(CODE)
    scene.mouth.heard = {}
    await scene.pass_(31)
    assert not scene.is_streaming()
    await scene.data.refresh_tickers()
    assert scene.is_fresh(CODE)
