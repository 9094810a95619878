"""A database whose connection is lost before or during a commit, on whichever kind."""

from dataclasses import dataclass, field

from app.foundation.sql.database import Database, UnitOfWork
from app.foundation.sql.errors import unavailable_error
from tests.support.network_cut import Cut, Way


@dataclass
class Loss:
    """Which commit from now on is not heard of, and whether it is carried out."""

    cut: Cut = Cut.BEFORE_COMMIT
    left: int = 0

    def is_here(self) -> bool:
        self.left -= 1
        return self.left == 0


@dataclass
class Fragile(Database):
    """SQLite has no connection to cut: the file stops answering at the same place."""

    loss: Loss = field(default_factory=Loss)

    @property
    def commits(self) -> int | None:
        """None while a loss is due: as on PostgreSQL a key is claimed by a commit of its own then.

        So both make the same commits, and the same one of them is lost.
        """
        return None if self.loss.left > 0 else super().commits

    async def _commit(self, unit: UnitOfWork) -> None:
        if not self.loss.is_here():
            await super()._commit(unit)
            return
        if self.loss.cut is Cut.AFTER_COMMIT:
            await super()._commit(unit)
        else:
            await unit.connection.close()
        raise unavailable_error()


def lose(one: Loss, way: Way, cut: Cut, commits: int) -> None:
    """Arm both for the same commit; 0 disarms them."""
    one.cut, one.left = cut, commits
    way.arm(cut, commits)
