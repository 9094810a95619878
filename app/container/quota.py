"""How processes that share one address at the exchange share its request quota."""

from dataclasses import dataclass
from typing import Final

from app.adapters.kucoin.limiter import WHOLE, PoolShare
from app.foundation.replicas import Replicas

TOGETHER: Final = 0.8  # of the quota, for all of them; the rest is left for a process not heard of


@dataclass(slots=True)
class SharedQuota:
    """Equal parts for those that were heard of lately, by the heartbeats in the database.

    Alone on a database that nobody can share the whole quota is ours; `replicas` is None there.
    """

    replicas: Replicas | None = None

    def __call__(self) -> PoolShare:
        if self.replicas is None:
            return WHOLE
        return PoolShare(TOGETHER / self.replicas.asking(), TOGETHER)
