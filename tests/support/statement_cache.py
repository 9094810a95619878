"""SQLAlchemy's work on a statement is done once per process of tests, not once per database.

Every test has a database and with it engines of its own, and each would compile the same few
hundred statements again: a seventh of the time of all tests of services. Dialects of one driver
are told apart by nothing but their identity; here they count as equal, and share what they made.
"""

from typing import Any, Final

from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite
from sqlalchemy.engine import Dialect, Engine
from sqlalchemy.util import LRUCache

_KINDS: Final[tuple[type[Dialect], ...]] = (PGDialect_asyncpg, SQLiteDialect_aiosqlite)
_SHARED: Final[dict[type[Dialect], LRUCache[Any, Any]]] = {kind: LRUCache(3_000) for kind in _KINDS}


def share() -> None:
    """Engines that are made from now on in this process have one memory per driver."""
    made = Engine.__init__

    # SQLAlchemy finds the options of an engine by the names of these arguments.
    def remembering(
        self: Engine, pool: Any, dialect: Any, url: Any, hide_parameters: bool = False
    ) -> None:
        made(self, pool, dialect, url, hide_parameters=hide_parameters)
        shared = _SHARED.get(type(self.dialect))
        if shared is not None:
            self._compiled_cache = shared

    def alike(self: Dialect, other: object) -> bool:
        return type(self) is type(other)

    def kind_of(self: Dialect) -> int:
        return hash(type(self))

    setattr(Engine, "__init__", remembering)  # noqa: B010  # a type checker forbids the plain way
    for kind in _KINDS:
        setattr(kind, "__eq__", alike)  # noqa: B010  # as above
        setattr(kind, "__hash__", kind_of)  # noqa: B010  # as above
