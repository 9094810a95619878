"""Counts decisions that were refused because the service could not decide, by their codes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.foundation.errors import Code, UnavailableError


def _ignore(_: Code) -> None:
    """Default for compositions without a counter."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """Passes the code of each refusal to `note`; a negative rule is a decision, no refusal."""

    note: Callable[[Code], None] = _ignore

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count refusals of one decision, including its retries."""
        try:
            yield
        except UnavailableError as refused:
            self.note(refused.code)
            raise
