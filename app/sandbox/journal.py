"""The changes of one order book, one by one, between the instants at which it is looked at."""

from dataclasses import dataclass, field

Side = list[tuple[int, int]]
Sides = tuple[Side, Side]


@dataclass(frozen=True, slots=True)
class Change:
    """One level that is now so: price in ticks, absolute lots, 0 for a level that has gone."""

    sequence: int
    bid: bool
    ticks: int
    lots: int
    ms: int


@dataclass(slots=True)
class Journal:
    """A book that is followed: its levels at `at_ms`, its sequence, and changes not yet told."""

    row: int
    sequence: int
    at_ms: int
    sides: Sides
    untold: list[Change] = field(default_factory=list)

    def advance(self, at_ms: int, sides: Sides) -> None:
        """Go to another state of the book, numbering each change."""
        before = [dict(side) for side in self.sides]
        after = [dict(side) for side in sides]
        # What has gone goes first, so that the book is never crossed in between.
        for side in (0, 1):
            for ticks in before[side].keys() - after[side].keys():
                self._note(side == 0, ticks, 0, at_ms)
        for side in (0, 1):
            for ticks, lots in sides[side]:
                if before[side].get(ticks) != lots:
                    self._note(side == 0, ticks, lots, at_ms)
        self.at_ms, self.sides = at_ms, sides

    def _note(self, bid: bool, ticks: int, lots: int, at_ms: int) -> None:
        self.sequence += 1
        self.untold.append(Change(self.sequence, bid, ticks, lots, at_ms))

    def told(self) -> list[Change]:
        """Take the changes that nobody has been told yet."""
        changes, self.untold = self.untold, []
        return changes
