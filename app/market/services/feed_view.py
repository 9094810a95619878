"""Whose market this process decides on: its own, or that of the owner of the feed."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from app.foundation.errors import Code, UnavailableError
from app.foundation.health_facts import ProcessFacts
from app.foundation.replicas import Replicas
from app.foundation.sql.replicas import Makeup
from app.foundation.sql.unit_of_work import UnitOfWork
from app.market.domain.models import ExchangeLink
from app.market.services.feed_leader import FeedLease, require_epoch
from app.market.services.follower import MarketFollower

_RETRY_S = 5.0


@dataclass(slots=True)
class FeedView:
    """`lease` is None where nothing runs by itself: then callers have the exchange asked.

    `follower` is None where no other process can use the database.
    """

    own_link: Callable[[], ExchangeLink]
    lease: FeedLease | None = None
    follower: MarketFollower | None = None
    replicas: Replicas | None = None

    def is_owner(self) -> bool:
        """Whether this process may talk to the exchange."""
        return self.follower is None or (self.lease is not None and self.lease.epoch is not None)

    def epoch(self) -> int | None:
        """Of the market in memory; None before the first one was seen, or without a lease."""
        if self.lease is not None and self.lease.epoch is not None:
            return self.lease.epoch
        return None if self.follower is None else self.follower.epoch

    def own_epoch(self) -> float:
        """Of the feed while this process owns it, for a gauge; else NaN."""
        held = None if self.lease is None else self.lease.epoch
        return math.nan if held is None else float(held)

    def link(self) -> ExchangeLink:
        """How the exchange is reached by whoever reads it."""
        followed = None if self.follower is None else self.follower.link
        return self.own_link() if self.is_owner() or followed is None else followed

    def drifted(self) -> tuple[str, ...] | None:
        """Processes that run with other code or settings; None where there can be none."""
        if self.replicas is None or not self.replicas.peers:
            return None
        ours = self.replicas.makeup
        return tuple(
            f"{peer.executor_id} ({_difference(peer.makeup, ours)})"
            for peer in self.replicas.drifted()
        )

    def processes(self) -> tuple[ProcessFacts, ...]:
        """Everybody who lives on this database; nobody where it cannot be shared."""
        if self.replicas is None:
            return ()
        drifted = self.replicas.drifted()
        seen = None if self.lease is None else self.lease.seen
        return tuple(
            ProcessFacts(
                name=peer.executor_id,
                role=peer.makeup.role,
                version=peer.makeup.version,
                is_self=peer.executor_id == self.replicas.executor_id,
                leader_epoch=(
                    seen.epoch if seen is not None and seen.holder == peer.executor_id else None
                ),
                configuration_matches=peer not in drifted,
            )
            for peer in self.replicas.living()
        )

    async def fence(self, unit: UnitOfWork) -> None:
        """Refuses to write what rests on the market of an earlier owner.

        Raises UnavailableError(market_data_stale).
        """
        if self.follower is None:
            return
        epoch = self.epoch()
        if epoch is None:
            raise UnavailableError(
                Code.MARKET_DATA_STALE,
                "No process has read the market yet.",
                retry_after_s=_RETRY_S,
            )
        await require_epoch(unit, epoch)


def _difference(theirs: Makeup, ours: Makeup) -> str:
    """In words; what stands for the settings is told to nobody, secrets went into it."""
    parts = []
    if theirs.version != ours.version:
        parts.append(f"code {theirs.version}")
    if theirs.settings_hash != ours.settings_hash:
        parts.append("other settings")
    return ", ".join(parts)
