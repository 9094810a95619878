"""Methods against published numbers and what defines them."""

import numpy as np
import pytest

from app.configuration.domain.model import WeightingMethod
from app.market.domain.models import Interval
from app.market.domain.panel import Panel
from app.market.domain.return_statistics import ewma_volatility
from app.portfolio.domain.weighting import (
    Covariance,
    MethodInput,
    estimate_correlation,
    estimate_covariance,
    raw_shares,
    risk_parity,
    shrink_covariance,
)
from tests.support.market_files import needs_daily_panel, perpetual

PERPS = ("BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "LINK", "AVAX", "LTC", "BCH")
DAY = Interval.DAY.ms


def panel(closes: np.ndarray) -> Panel:
    names = tuple(f"{letter}USDT" for letter in "ABCDEFGHIJ")[: closes.shape[1]]
    opened = np.arange(len(closes), dtype=np.int64) * DAY
    return Panel(Interval.DAY, names, opened, closes, closes, closes, closes, closes, closes)


def walk(days: int, count: int) -> np.ndarray:
    steps = np.random.default_rng(3).normal(0.0, 0.02, (days, count))
    steps *= np.linspace(1.0, 2.0, count)
    return np.exp(np.cumsum(steps, axis=0))


def test_two_uncorrelated_assets_share_as_the_inverse_of_their_volatility() -> None:
    assert risk_parity(np.diag([0.04, 0.16])) == pytest.approx([2 / 3, 1 / 3], abs=1e-14)


@pytest.mark.parametrize("rho", [-0.4, 0.0, 0.9])
def test_risk_contributions_are_equal(rho: float) -> None:
    sd = np.array([0.2, 0.5, 1.1])
    matrix = np.outer(sd, sd) * (np.full((3, 3), rho) + (1 - rho) * np.eye(3))
    shares = risk_parity(matrix)
    contributions = shares * (matrix @ shares)
    assert np.ptp(contributions) < 1e-12
    assert shares.sum() == pytest.approx(1.0)


def test_risk_contributions_follow_the_budgets() -> None:
    sd, budgets = np.array([0.2, 0.5, 1.1]), np.array([3.0, 1.0, 2.0])
    matrix = np.outer(sd, sd) * (0.6 + 0.4 * np.eye(3))
    shares = risk_parity(matrix, budgets)
    contributions = shares * (matrix @ shares)
    assert contributions / contributions.sum() == pytest.approx(budgets / 6.0, abs=1e-12)
    assert risk_parity(matrix, 7.0 * np.ones(3)) == pytest.approx(risk_parity(matrix), abs=1e-14)


def test_a_better_score_may_bring_more_risk() -> None:
    known = Covariance(("A", "B"), np.diag([0.25, 0.25]))
    members = {
        "A": MethodInput(2.0, 0.5, 0.5),
        "B": MethodInput(0.0, 0.5, 0.5),
        "C": MethodInput(0.0, 0.5, 0.5),
    }
    found = raw_shares(WeightingMethod.RISK_PARITY, members, known)
    assert found["A"] ** 2 / found["B"] ** 2 == pytest.approx(np.exp(1.0))
    hopeless = {**members, "B": MethodInput(-1e6, 0.5, 0.5)}
    assert 0.0 < raw_shares(WeightingMethod.RISK_PARITY, hopeless, known)["B"] < 1e-3


def test_correlation_is_shrunk_and_volatility_is_not() -> None:
    closes = walk(300, 4)
    closes[:, 3] = 5.0  # never moves
    found = estimate_covariance(panel(closes), ("AUSDT", "BUSDT", "CUSDT", "DUSDT"))
    returns = closes[1:] / closes[:-1] - 1.0
    volatility = ewma_volatility(returns[-250:])
    assert np.sqrt(np.diag(found.matrix)) == pytest.approx(volatility, abs=1e-15)
    assert not found.matrix[3].any()
    plain = np.corrcoef(returns[-250:, :3].T)[0, 1]
    shown = found.matrix[0, 1] / (volatility[0] * volatility[1])
    assert abs(shown) < abs(plain)
    assert estimate_correlation(np.zeros((40, 2))) == pytest.approx(np.eye(2))


@needs_daily_panel
def test_ten_perpetuals_as_published() -> None:
    closes = np.hstack([perpetual(f"{name}USDT")["close"] for name in PERPS])
    returns = (closes[1:] / closes[:-1] - 1.0)[-250:]
    matrix, share = shrink_covariance(returns)
    assert share == pytest.approx(0.05801457, abs=1e-8)
    assert np.linalg.eigvalsh(matrix).min() > 0
    expected = [
        *(0.175312, 0.108638, 0.099043, 0.086376, 0.079798),
        *(0.067559, 0.080569, 0.080892, 0.107752, 0.114061),
    ]
    assert risk_parity(np.cov(returns.T)) == pytest.approx(expected, abs=2e-6)


def test_shrinkage_of_returns_that_never_move() -> None:
    matrix, share = shrink_covariance(np.zeros((40, 2)))
    assert share == 0.0
    assert not matrix.any()


def test_covariance_takes_common_days_and_leaves_the_young_out() -> None:
    closes = walk(300, 4)
    closes[:-20, 2] = np.nan  # listed three weeks ago
    found = estimate_covariance(panel(closes), ("DUSDT", "CUSDT", "AUSDT", "UNSEEN"))
    assert found.symbols == ("DUSDT", "AUSDT")
    assert np.sqrt(np.diag(found.matrix)) == pytest.approx([0.764, 0.382], rel=0.15)
    assert estimate_covariance(panel(closes), ("CUSDT",)).symbols == ()


def test_the_volatility_of_a_portfolio() -> None:
    known = Covariance(("A", "B"), np.array([[0.04, 0.0], [0.0, 0.09]]))
    assert known.volatility({"A": 0.5, "B": 0.5}) == pytest.approx(np.sqrt(0.0325))
    assert known.volatility({"A": 0.5, "C": 0.0}) == pytest.approx(0.1)
    assert known.volatility({"A": 0.5, "C": 0.1}) is None


MEMBERS = {
    "A": MethodInput(1.0, 0.5, 0.5),
    "B": MethodInput(0.0, 1.0, 0.5),
    "C": MethodInput(0.0, None, 0.5),
}


def test_what_each_method_looks_at() -> None:
    tilted = raw_shares(WeightingMethod.SCORE_TILTED, MEMBERS, None)
    assert tilted == {"A": pytest.approx(np.exp(0.5) / 0.5), "B": 1.0, "C": 0.0}
    inverse = {"A": 2.0, "B": 1.0, "C": 0.0}
    assert raw_shares(WeightingMethod.INVERSE_VOLATILITY, MEMBERS, None) == inverse
    assert raw_shares(WeightingMethod.EQUAL, MEMBERS, None) == {"A": 1.0, "B": 1.0, "C": 1.0}


def test_risk_parity_with_and_without_a_covariance() -> None:
    inverse = {"A": 2.0, "B": 1.0, "C": 0.0}
    method = WeightingMethod.RISK_PARITY
    assert raw_shares(method, MEMBERS, None) == inverse
    assert raw_shares(method, MEMBERS, Covariance((), np.empty((0, 0)))) == inverse
    known = Covariance(("A", "X"), np.diag([0.25, 0.1]))
    assert raw_shares(method, MEMBERS, known) == {"A": 1.0, "B": pytest.approx(0.5), "C": 0.0}
    only = Covariance(("C",), np.array([[0.3]]))
    assert raw_shares(method, MEMBERS, only) == {"A": 0.0, "B": 0.0, "C": 1.0}


def by_definition(returns: np.ndarray) -> tuple[np.ndarray, float]:
    """Ledoit and Wolf's sums as their article writes them down, day by day."""
    days, size = returns.shape
    centred = returns - returns.mean(axis=0)
    sample = sum(np.outer(day, day) for day in centred) / days
    target = np.trace(sample) / size * np.eye(size)
    distance = ((sample - target) ** 2).sum() / size
    noise = sum(((np.outer(day, day) - sample) ** 2).sum() for day in centred) / size / days**2
    share = min(noise, distance) / distance
    return share * target + (1.0 - share) * sample, share


@pytest.mark.parametrize("days", [8, 60])
def test_shrinkage_is_that_of_ledoit_and_wolf(days: int) -> None:
    rng = np.random.default_rng(days)
    returns = rng.normal(0.01, 0.03, (days, 5)) + rng.normal(0.0, 0.02, (days, 1))
    (matrix, share), (wanted, wanted_share) = shrink_covariance(returns), by_definition(returns)
    assert 0.0 < share < 1.0
    assert share == pytest.approx(wanted_share, abs=1e-12)
    np.testing.assert_allclose(matrix, wanted, rtol=1e-10)


def test_likeness_is_the_shrunk_correlation_however_small_the_returns() -> None:
    rng = np.random.default_rng(2)
    returns = rng.normal(0.0, 0.01, (90, 3)) + rng.normal(0.0, 0.02, (90, 1))
    returns[:, 2] *= 1e-3
    _, share = shrink_covariance((returns - returns.mean(axis=0)) / returns.std(axis=0))
    wanted = (1.0 - share) * np.corrcoef(returns.T) + share * np.eye(3)
    np.testing.assert_allclose(estimate_correlation(returns), wanted, rtol=1e-10)


@pytest.mark.parametrize("first", [0.1, 4.0])
def test_members_that_move_against_each_other_bring_what_their_budgets_say(first: float) -> None:
    """One of three has less than no risk beside the others: both forms of the root are used."""
    matrix = np.array([[1.0, -0.6, 0.3], [-0.6, 1.0, -0.2], [0.3, -0.2, 1.0]])
    budgets = np.array([first, 1.0, 1.0])
    shares = risk_parity(matrix, budgets)
    brought = shares * (matrix @ shares)
    np.testing.assert_allclose(brought / brought.sum(), budgets / budgets.sum(), rtol=1e-10)


def test_a_member_of_unknown_volatility_has_no_pull_of_its_own() -> None:
    unknown = {"A": MethodInput(1.0, None, 0.5), "B": MethodInput(1.0, 0.5, 0.5)}
    for method in (WeightingMethod.SCORE_TILTED, WeightingMethod.INVERSE_VOLATILITY):
        found = raw_shares(method, unknown, None)
        assert found["A"] == 0.0
        assert found["B"] > 0.0


@pytest.mark.parametrize("size", [1e-6, 1.0])
def test_a_tiny_budget_is_met_as_exactly_as_a_large_one(size: float) -> None:
    """Two alike, of which one may bring next to nothing: its root must not be cancelled away."""
    budgets = np.array([1.0, 1e-12])
    matrix = size * np.array([[1.0, 0.99], [0.99, 1.0]])
    shares = risk_parity(matrix, budgets)
    contributions = shares * (matrix @ shares)
    assert contributions[1] / contributions[0] / 1e-12 == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("most", [0, 1, 2])
def test_a_descent_ends_after_its_sweeps_wherever_it_is(most: int) -> None:
    """By the formula, from the inverse volatilities, with budgets that add up to one."""
    matrix = np.array([[0.04, 0.03], [0.03, 0.25]])
    first, other = 5.0, 2.0
    for _ in range(most):
        first = (-0.03 * other + ((0.03 * other) ** 2 + 4 * 0.04 * 0.75) ** 0.5) / (2 * 0.04)
        other = (-0.03 * first + ((0.03 * first) ** 2 + 4 * 0.25 * 0.25) ** 0.5) / (2 * 0.25)
    expected = np.array([first, other]) / (first + other)
    found = risk_parity(matrix, np.array([6.0, 2.0]), most)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_thirty_common_returns_are_enough_and_twenty_nine_are_not() -> None:
    closes = walk(31, 2)
    assert estimate_covariance(panel(closes), ("AUSDT", "BUSDT")).symbols == ("AUSDT", "BUSDT")
    assert np.isfinite(estimate_covariance(panel(closes), ("AUSDT",)).matrix).all()
    nobody = estimate_covariance(panel(closes[1:]), ("AUSDT", "BUSDT"))
    assert (nobody.symbols, nobody.matrix.shape) == ((), (0, 0))
    assert estimate_covariance(panel(closes[:0]), ("AUSDT",)).symbols == ()


@pytest.mark.parametrize("method", [WeightingMethod.RISK_PARITY, WeightingMethod.HRP])
def test_who_never_moves_takes_no_part_in_shares_of_risk(method: WeightingMethod) -> None:
    still = Covariance(("A", "B"), np.diag([0.25, 0.0]))
    assert raw_shares(method, MEMBERS, still) == {"A": 1.0, "B": pytest.approx(0.5), "C": 0.0}
