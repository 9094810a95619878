"""The shape of what it takes to enter the first places."""

from typing import Self

from pydantic import Field

from app.api.schemas import Out
from app.domain.counterfactual import Entry


class NeededOut(Out):
    """A factor and the raw value that it would need."""

    factor: str
    unit: str
    raw: float
    needed: float


class EntryOut(Out):
    """What brings the symbol among the first `top`: all changes in full; half is too little."""

    top: int
    rank: int
    is_reachable: bool = Field(
        description="False where not even the best value of every factor would do: its "
        "confidence is too low."
    )
    changes: list[NeededOut] = Field(
        description="Empty where it is there already, or cannot get there."
    )

    @classmethod
    def of(cls, entry: Entry) -> Self:
        return cls(
            top=entry.top,
            rank=entry.rank,
            is_reachable=bool(entry.changes) or entry.rank <= entry.top,
            changes=[NeededOut.model_validate(one) for one in entry.changes],
        )
