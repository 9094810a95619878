"""Hierarchical risk parity against the published procedure over scipy's own clustering."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from app.configuration.domain.model import WeightingMethod
from app.market.domain.models import Floats
from app.portfolio.domain.weighting import (
    Covariance,
    MethodInput,
    hierarchical_parity,
    raw_shares,
)
from tests.support.market_files import needs_daily_panel, perpetual

PERPS = ("BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "LINK", "AVAX", "LTC", "BCH")


def published(matrix: Floats) -> Floats:
    """Lopez de Prado's three steps, the tree by scipy: clustering, order, recursive bisection."""
    sd = np.sqrt(np.diag(matrix))
    distances = np.sqrt(np.maximum((1.0 - matrix / np.outer(sd, sd)) / 2.0, 0.0))
    np.fill_diagonal(distances, 0.0)
    order = leaves_list(linkage(squareform(distances, checks=False), "ward"))

    def variance(part: Floats) -> float:
        inner = matrix[np.ix_(part, part)]
        inverse = 1.0 / np.diag(inner) / (1.0 / np.diag(inner)).sum()
        return float(inverse @ inner @ inverse)

    def weights(part: Floats, share: float) -> dict[int, float]:
        if len(part) == 1:
            return {int(part[0]): share}
        left, right = part[: len(part) // 2], part[len(part) // 2 :]
        alpha = 1.0 - variance(left) / (variance(left) + variance(right))
        return weights(left, share * alpha) | weights(right, share * (1.0 - alpha))

    found = weights(order, 1.0)
    return np.array([found[at] for at in range(len(matrix))])


@needs_daily_panel
def test_ten_perpetuals_as_published() -> None:
    closes = np.hstack([perpetual(f"{name}USDT")["close"] for name in PERPS])
    returns = (closes[1:] / closes[:-1] - 1.0)[-250:]
    expected = [
        *(0.26726, 0.10236, 0.12894, 0.08033, 0.07188),
        *(0.05343, 0.07326, 0.08188, 0.06457, 0.07609),
    ]
    assert hierarchical_parity(np.cov(returns.T)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("size", [2, 3, 5, 10, 31])
@pytest.mark.parametrize("seed", range(6))
def test_the_published_procedure_gives_the_same(size: int, seed: int) -> None:
    rng = np.random.default_rng([size, seed])
    factors = rng.normal(0.0, 1.0, (400, 3)) @ rng.normal(0.0, 1.0, (3, size))
    matrix = np.cov((factors + rng.normal(0.0, 0.7, (400, size))).T)
    made = hierarchical_parity(matrix)
    np.testing.assert_allclose(made, published(matrix), rtol=1e-10)
    assert made.sum() == pytest.approx(1.0)
    assert (made > 0.0).all()


def test_four_names_for_one_thing_are_one_risk() -> None:
    same = np.full((4, 4), 0.999) + 0.001 * np.eye(4)
    matrix = np.block([[same, np.zeros((4, 4))], [np.zeros((4, 4)), np.eye(4)]])
    made = hierarchical_parity(matrix * 0.04)
    # The others diversify each other: a quarter of the variance, four times the share.
    assert made[:4].sum() == pytest.approx(0.2, abs=1e-3)
    assert made[4:] == pytest.approx([0.2] * 4, abs=1e-3)


def test_matrices_that_nothing_can_be_divided_by() -> None:
    assert hierarchical_parity(np.empty((0, 0))).tolist() == []
    assert hierarchical_parity(np.array([[0.09]])) == pytest.approx([1.0])
    # Two pairs, each of which cancels out: neither half moves.
    pair = np.array([[1.0, -1.0], [-1.0, 1.0]])
    opposed = np.block([[pair, np.zeros((2, 2))], [np.zeros((2, 2)), pair]])
    made = hierarchical_parity(opposed)
    assert made == pytest.approx([0.25] * 4)
    copies = np.full((3, 3), 0.04)  # singular
    assert hierarchical_parity(copies).sum() == pytest.approx(1.0)


def test_a_correlation_above_one_by_rounding_is_one() -> None:
    matrix = np.full((3, 3), 0.04)
    matrix[0, 1] = matrix[1, 0] = np.nextafter(0.04, 1.0)
    assert hierarchical_parity(matrix).sum() == pytest.approx(1.0)


def test_halves_that_both_seem_without_risk_share_alike() -> None:
    """Pairs estimated each for itself can add up to what no returns could have."""
    group = np.arange(6) // 3
    matrix = np.where(group[:, None] == group, -0.6, -0.9)
    np.fill_diagonal(matrix, 1.0)
    made = hierarchical_parity(matrix)
    assert made[:3].sum() == pytest.approx(0.5)
    assert (made > 0.0).all()


def test_the_order_of_the_members_moves_no_weight() -> None:
    rng = np.random.default_rng(4)
    matrix = np.cov(rng.normal(0.0, 1.0, (100, 5)).T)
    names = ("A", "B", "C", "D", "E")
    members = {name: MethodInput(0.0, 0.8, 0.5) for name in (*names, "YOUNG")}
    turned = (3, 0, 4, 2, 1)
    other = Covariance(tuple(names[at] for at in turned), matrix[np.ix_(turned, turned)])
    found = raw_shares(WeightingMethod.HRP, members, Covariance(names, matrix))
    assert raw_shares(WeightingMethod.HRP, members, other) == pytest.approx(found)
    assert [found[name] for name in names] == pytest.approx(hierarchical_parity(matrix).tolist())
    assert found["YOUNG"] == pytest.approx(0.2)  # as volatile as the others: their mean
    assert raw_shares(WeightingMethod.HRP, members, None) == pytest.approx(
        dict.fromkeys(members, 1.25)
    )
