"""The weights aimed at, worked out once for all views of the same members, board and market."""

from app.services.basis import aim_basis
from app.services.committed import Committed
from app.services.grounds import Grounds
from app.services.kept_views import Views
from app.services.weighing import Aim, aim


def aimed(state: Committed, grounds: Grounds, views: Views) -> Aim:
    """What `aim` gives; a booked result or the switch has no part in it."""
    return views.of("aim", aim_basis(state, grounds), lambda: aim(state.portfolio, grounds))
