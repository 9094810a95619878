"""Lines of an explanation: a factor, and what it takes to enter the first places."""

from dataclasses import asdict
from datetime import date
from typing import Self

from pydantic import Field

from app.foundation.http.schemas import Json, Out
from app.scoring.domain.board import Board, Family
from app.scoring.domain.counterfactual import Entry


class FactorOut(Out):
    """One factor; contributions of all factors add up to the composite z."""

    name: str
    family: Family
    raw: float | None
    unit: str
    z: float | None
    weight: float
    contribution: float | None
    reason: str | None = Field(description="Why it has no value.")
    supporting: Json | None = Field(None, description="What an extension says of it.")


class FixedMomentsOut(Out):
    """What stood for a rank: too few symbols of this board have a value of it to be ranked."""

    of: str = Field(description="A factor, a family (the mean of its factors), or `composite`.")
    mean: float
    sd: float = Field(description="z is (value - mean) / sd within +-3, oriented.")
    symbols: int = Field(description="Values of earlier boards, one board a day, taken together.")
    days: int = Field(description="Days with enough symbols to rank.")
    first: date = Field(description="UTC day of the oldest of these boards.")
    last: date = Field(description="UTC day of the newest one.")
    age_days: int = Field(description="Days from the newest one to this board.")

    @classmethod
    def of_board(cls, board: Board) -> list[Self]:
        """By name."""
        today = board.as_of.date()
        return [
            cls(of=name, age_days=(today - one.last).days, **asdict(one))
            for name, one in sorted(board.moments.items())
        ]


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
