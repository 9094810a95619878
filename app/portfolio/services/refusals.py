"""Counts decisions that were refused because the service could not decide, by their codes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.foundation.errors import Code, UnavailableError


def _ignore(_: Code) -> None:
    """Nobody counts."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """`note` is told the code of each refusal; a rule that says no is a decision, not a refusal."""

    note: Callable[[Code], None] = _ignore

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Around one decision, with all its tries."""
        try:
            yield
        except UnavailableError as refused:
            self.note(refused.code)
            raise
