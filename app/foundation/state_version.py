"""Versions of the state that cached responses are made of."""

from enum import Flag, auto
from typing import Protocol, TypeAlias


class Input(Flag):
    """Parts of the state that a response can depend on."""

    SCORES = auto()  # boards and their freshness
    SYMBOLS = auto()  # names and contracts
    MARKET = auto()  # quotes, their ages, the service mode and the settings
    PORTFOLIO = auto()  # everything committed about the portfolio
    DECISION = SCORES | SYMBOLS | MARKET | PORTFOLIO


# Small values without a reference to the state; equal if nothing changed between two of them.
# Every version contains the service mode, because every response carries it.
StateVersion: TypeAlias = tuple[object, ...]


class VersionSource(Protocol):
    """Source of the current version of the parts that a response depends on."""

    def version(self, depends_on: Input) -> StateVersion | None:
        """Returns the version without waiting; None if the database has to be read.

        Raises UnavailableError once the database is closed.
        """
        ...

    async def load_version(self, depends_on: Input) -> StateVersion:
        """Returns the version with every commit before the call. Raises UnavailableError."""
        ...
