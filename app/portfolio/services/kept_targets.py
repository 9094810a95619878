"""The target weights, worked out once for all views of the same members, board and market."""

from app.foundation.memoize import Basis, Views
from app.market.domain.models import Interval
from app.portfolio.domain.weighting_methods import Covariance
from app.portfolio.services.decision_context import Grounds
from app.portfolio.services.state_cache import Committed
from app.portfolio.services.target_weights import TargetWeights, target_weights
from app.portfolio.services.view_cache import target_basis


def kept_targets(state: Committed, grounds: Grounds, views: Views) -> TargetWeights:
    """What `target_weights` gives; a booked result or the switch has no part in it."""

    def make() -> TargetWeights:
        return target_weights(state.portfolio, grounds, lambda: _covariance(state, grounds, views))

    return views.of("target_weights", target_basis(state, grounds), make)


def _covariance(state: Committed, grounds: Grounds, views: Views) -> Covariance | None:
    """It takes longer than the rest, and prices of the day have no part in it."""
    portfolio = state.portfolio
    rests_on = Basis((portfolio.members, grounds.market.panel(Interval.DAY)), ())
    return views.of("covariance", rests_on, lambda: grounds.covariance(portfolio))
