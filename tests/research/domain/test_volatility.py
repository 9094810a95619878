"""Range volatility: published numbers, what each does to a trend, and holes."""

import numpy as np
import pytest

from app.research.domain.range_volatility import parkinson, rogers_satchell, yang_zhang
from tests.support.market_files import needs_daily_panel, perpetual

NAN = float("nan")


def bars(seed: int = 1, days: int = 40) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    path = np.cumsum(rng.normal(0.0, 0.01, (days, 24, 2)), axis=1)
    start = np.cumsum(np.vstack([np.zeros((1, 2)), path[:-1, -1]]), axis=0)[:, None]
    whole = np.concatenate([np.zeros((days, 1, 2)), path], axis=1) + start
    return np.exp(whole[:, 0]), np.exp(whole.max(1)), np.exp(whole.min(1)), np.exp(whole[:, -1])


@needs_daily_panel
def test_golden_btc() -> None:
    fields = perpetual("BTCUSDT")
    last = [fields[name][-30:] for name in ("open", "high", "low", "close")]
    longer = [fields[name][-31:] for name in ("open", "high", "low", "close")]
    found = [
        parkinson(last[1], last[2], least=30),
        rogers_satchell(*last, least=30),
        yang_zhang(*longer, least=30),
    ]
    np.testing.assert_allclose(np.concatenate(found), [0.347516, 0.363262, 0.357366], rtol=3e-6)


def test_by_hand() -> None:
    open_, high, low, close = (np.log(one) for one in bars())
    span = ((high - low) ** 2).mean(axis=0) / (4 * np.log(2))
    np.testing.assert_allclose(parkinson(*bars()[1:3], least=40), np.sqrt(span * 365))
    up, down, way = high - open_, low - open_, close - open_
    free = up * (up - way) + down * (down - way)
    np.testing.assert_allclose(rogers_satchell(*bars(), least=40), np.sqrt(free.mean(axis=0) * 365))
    share = 0.34 / (1.34 + 40 / 38)
    gap = (open_[1:] - close[:-1]).var(axis=0, ddof=1)
    whole = gap + share * way[1:].var(axis=0, ddof=1) + (1 - share) * free[1:].mean(axis=0)
    np.testing.assert_allclose(yang_zhang(*bars(), least=39), np.sqrt(whole * 365))


def test_a_steady_climb_is_a_range_and_no_volatility() -> None:
    open_ = np.exp(0.02 * np.arange(30.0))[:, None]
    close = open_ * np.exp(0.02)
    assert parkinson(close, open_, least=30)[0] == pytest.approx(
        0.02 * np.sqrt(365 / (4 * np.log(2)))
    )
    assert rogers_satchell(open_, close, open_, close, least=30)[0] == pytest.approx(0.0, abs=1e-9)
    assert yang_zhang(open_, close, open_, close, least=29)[0] == pytest.approx(0.0, abs=1e-9)


def test_holes_are_left_out_and_too_few_bars_say_nothing() -> None:
    fields = [one.copy() for one in bars()]
    for one in fields:
        one[5, 0] = NAN
    shorter = [np.delete(one, 5, axis=0) for one in bars()]
    assert rogers_satchell(*fields, least=30)[0] == pytest.approx(
        rogers_satchell(*shorter, least=30)[0]
    )
    assert np.isfinite(
        yang_zhang(*fields, least=37)
    ).all()  # the day after a hole has no close before
    np.testing.assert_array_equal(np.isnan(yang_zhang(*fields, least=38)), [True, False])
    np.testing.assert_array_equal(
        np.isnan(parkinson(fields[1], fields[2], least=40)), [True, False]
    )
    assert np.isnan(yang_zhang(*(one[:2] for one in bars()), least=0)).all()
