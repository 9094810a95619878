"""Request quota of the exchange, shared by the processes of one address."""

from dataclasses import dataclass
from typing import Final

from app.adapters.kucoin.limiter import WHOLE, PoolShare
from app.foundation.replicas import Replicas

TOGETHER: Final = 0.8  # of the quota, for all of them; the rest is left for a process not heard of


@dataclass(slots=True)
class SharedQuota:
    """Equal parts for those that were heard of lately, by the heartbeats in the database.

    A single process on a database that cannot be shared gets the whole quota; there
    `replicas` is None.
    """

    replicas: Replicas | None = None

    def __call__(self) -> PoolShare:
        if self.replicas is None:
            return WHOLE
        return PoolShare(TOGETHER / self.replicas.asking(), TOGETHER)
