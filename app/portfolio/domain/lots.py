"""Round all weights to whole lots together, in integers: the same on every processor."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, NamedTuple

ACCURACY: Final = Fraction(1, 100)  # one percentage point of equity
_CASES: Final = 2_000  # limit of bounds; of random ten-symbol instances 1 in 100 needs more
_PRICES: Final = 32  # prices prepared for each symbol
_REFINED: Final = 4  # prices tried between two prepared ones


@dataclass(frozen=True, slots=True)
class LotAllocation:
    """Steps of the lot size by symbol, in the order asked for; errors are fractions of equity."""

    steps: tuple[int, ...]
    errors: tuple[Fraction, ...]  # realised minus target

    @property
    def is_accurate(self) -> bool:
        """True if every weight is within one percentage point of its target."""
        return all(abs(error) <= ACCURACY for error in self.errors)


def allocate_lots(
    weights: Sequence[Fraction], sizes: Sequence[Fraction], minimum: Fraction = Fraction(0)
) -> LotAllocation:
    """Whole steps whose values come closest to `weights`, together at most the whole equity.

    `sizes` is the value of one step of each symbol, as a fraction of equity and above zero.
    Results are compared by these criteria in order:

    - Every weight is within one percentage point of its target.
    - No weight that should be at least `minimum` is a step or more below it.
    - The sum of squared errors is the smallest, then the cash left.
    - The symbol named first has more steps.

    The search ends after a fixed number of cases; within that number its result is optimal.
    """
    if not weights:
        return LotAllocation((), ())
    exact = (ACCURACY, minimum, *weights, *sizes)
    unit = math.lcm(*(one.denominator for one in exact))  # the whole equity in integers
    accuracy, least, *rest = (one.numerator * (unit // one.denominator) for one in exact)
    wanted, lots = rest[: len(weights)], rest[len(weights) :]
    task = _Task(wanted, lots, least, accuracy, unit)
    steps = task.solve()
    errors = (n * lot - w for n, lot, w in zip(steps, lots, wanted, strict=True))
    return LotAllocation(tuple(steps), tuple(Fraction(error, unit) for error in errors))


def minimum_capital(values: Sequence[float]) -> float:
    """Equity above which rounding errors stay within one percentage point.

    `values` is the value of one step of each symbol; an error is at most half a step.
    """
    return max(values, default=0.0) / (2.0 * float(ACCURACY))


@dataclass(frozen=True, slots=True)
class _Task:
    """Targets, value of one step and constraints, all in one integer unit."""

    wanted: list[int]
    lots: list[int]
    minimum: int
    accuracy: int
    equity: int

    def solve(self) -> list[int]:
        """The best number of steps of each symbol.

        More steps than the nearest number are further from the target and cost more. The search
        therefore chooses how many of its nearest steps each symbol gives up to meet the budget.
        """
        pairs = list(zip(self.wanted, self.lots, strict=True))
        nearest = [(2 * want + lot) // (2 * lot) for want, lot in pairs]  # halves go up
        budget = max(self.equity, sum(want // lot * lot for want, lot in pairs))
        excess = self._value(nearest) - budget
        if excess <= 0:
            return nearest
        spare = [n - one for n, one in zip(nearest, self._fewest(nearest, budget), strict=True)]
        # Start with the most expensive steps; smaller ones fill the remainder.
        order = sorted(range(len(pairs)), key=lambda at: (-self.lots[at], at))
        options = [
            _Option(nearest[at] * self.lots[at] - self.wanted[at], self.lots[at], spare[at])
            for at in order
        ]
        given = _Search(options, order).run(excess)
        return [n - one for n, one in zip(nearest, given, strict=True)]

    def _fewest(self, nearest: list[int], budget: int) -> list[int]:
        """Smallest steps of each symbol under the strictest constraints within the budget."""
        pairs = list(zip(self.wanted, self.lots, strict=True))
        accurate = [max(-((self.accuracy - want) // lot), 0) for want, lot in pairs]
        bounded = [self.minimum // lot if want >= self.minimum else 0 for want, lot in pairs]
        if all(
            n * lot - want <= self.accuracy for n, (want, lot) in zip(nearest, pairs, strict=True)
        ):
            both = [max(one, other) for one, other in zip(accurate, bounded, strict=True)]
            for demand in (both, accurate):
                if self._value(demand) <= budget:
                    return demand
        return bounded  # no more than the weights rounded down, which are affordable

    def _value(self, steps: list[int]) -> int:
        return sum(n * lot for n, lot in zip(steps, self.lots, strict=True))


class _Option(NamedTuple):
    """One symbol in the search: steps that it may give up, and its initial error."""

    error: int  # of the nearest number of steps
    lot: int
    spare: int  # steps that may be given up

    def square(self, steps: int) -> int:
        """The squared error after `steps` are given up."""
        return (self.error - steps * self.lot) ** 2

    def price(self, step: int) -> int:
        """Increase of the squared error per unit that step `step` (from 0) gives up."""
        return self.lot * (2 * step + 1) - 2 * self.error

    def worth(self, price: int) -> int:
        """The steps whose price is below `price`."""
        steps = -((self.lot - 2 * self.error - price) // (2 * self.lot))
        return min(max(steps, 0), self.spare)


class _Best(NamedTuple):
    """Complete solution; the smallest in this order is the best."""

    squares: int
    cash: int  # given up beyond the excess
    given: list[int]  # steps by symbol, in the order asked for


@dataclass(slots=True)
class _Search:
    """Branch and bound over the steps given up, symbol by symbol.

    The remaining symbols must give up `excess` together. For any price, a lower bound on their
    squared errors is price * excess + sum(min(square - price * value)).
    """

    options: list[_Option]
    order: list[int]  # position of each option in the request
    cases: int = _CASES  # left
    best: _Best | None = None
    path: list[int] = field(default_factory=list)
    prices: list[int] = field(default_factory=list)
    given: list[list[int]] = field(default_factory=list)  # value by first symbol and price
    rest: list[list[int]] = field(default_factory=list)  # sum of the bound, likewise
    spare: list[int] = field(default_factory=list)  # largest value to give up, by first symbol
    squares: list[int] = field(default_factory=list)  # by first symbol, with nothing given up

    def run(self, excess: int) -> list[int]:
        """Number of steps that each symbol gives up, in the order of the request."""
        self._prepare()
        self._search(0, excess, 0)
        if self.best is None:
            raise AssertionError("the fewest steps are affordable")
        return self.best.given

    def _prepare(self) -> None:
        prices = set[int]()
        for one in self.options:
            if one.spare:
                every = -(-one.spare // _PRICES)
                prices.update(one.price(step) for step in range(0, one.spare, every))
                prices.add(one.price(one.spare - 1) + 1)
        self.prices = sorted(prices)
        self.given, self.rest = [[0] * len(prices)], [[0] * len(prices)]
        self.spare, self.squares = [0], [0]
        for one in reversed(self.options):
            steps = [one.worth(price) for price in self.prices]
            given = [old + n * one.lot for old, n in zip(self.given[0], steps, strict=True)]
            rest = [
                old + one.square(n) - price * n * one.lot
                for old, n, price in zip(self.rest[0], steps, self.prices, strict=True)
            ]
            self.given.insert(0, given)
            self.rest.insert(0, rest)
            self.spare.insert(0, self.spare[0] + one.spare * one.lot)
            self.squares.insert(0, self.squares[0] + one.square(0))

    def _search(self, at: int, excess: int, squares: int) -> None:
        """Search the symbols from `at` on for better ways to give up `excess`."""
        if excess <= 0:
            self._record(squares + self.squares[at], excess, [0] * (len(self.options) - at))
            return
        one = self.options[at]
        fewest = max(-((self.spare[at + 1] - excess) // one.lot), 0)
        most = min(-(-excess // one.lot), one.spare)
        if at == len(self.options) - 1:
            self._record(squares + one.square(fewest), excess - fewest * one.lot, [fewest])
            return

        bound, price = self._bound(at, excess)
        cheapest = one.worth(price)
        base = squares + bound - one.square(cheapest) + price * cheapest * one.lot

        # At a fixed price the bound is convex in the steps, so it rises away from the cheapest.
        start = min(max(cheapest, fewest), most)
        down, up = start, start + 1
        while open_ends := [steps for steps in (down, up) if fewest <= steps <= most]:
            bound, steps = min(
                (base + one.square(steps) - price * steps * one.lot, steps) for steps in open_ends
            )
            if self.best is not None and (bound > self.best.squares or self.cases < 0):
                return
            given, cost = steps * one.lot, squares + one.square(steps)
            if self.best is None or cost + self._bound(at + 1, excess - given)[0] <= (
                self.best.squares
            ):
                self.path.append(steps)
                self._search(at + 1, excess - given, cost)
                self.path.pop()
            if steps == down:
                down -= 1
            else:
                up += 1

    def _record(self, squares: int, excess: int, rest: list[int]) -> None:
        given = [0] * len(self.options)
        for place, steps in zip(self.order, [*self.path, *rest], strict=True):
            given[place] = steps
        made = _Best(squares, -excess, given)
        if self.best is None or made < self.best:
            self.best = made

    def _bound(self, at: int, excess: int) -> tuple[int, int]:
        """Lower bound of the squared errors from symbol `at` on, and the price that gives it."""
        self.cases -= 1
        if excess <= 0:
            return self.squares[at], 0
        given, rest = self.given[at], self.rest[at]
        above = bisect_left(given, excess)
        high = min(above, len(given) - 1)
        low = max(above - 1, 0)
        found = max((self.prices[k] * excess + rest[k], self.prices[k]) for k in (low, high))
        below, over = self.prices[low], self.prices[high]
        less, more = given[low], given[high]
        for _ in range(_REFINED):
            if over - below <= 1 or more <= less:
                break
            price = below + (over - below) * (excess - less) // (more - less)
            price = min(max(price, below + 1), over - 1)
            value, sums = self._sum_at(at, price)
            found = max(found, (price * excess + sums, price))
            if value >= excess:
                over, more = price, value
            else:
                below, less = price, value
        return found

    def _sum_at(self, at: int, price: int) -> tuple[int, int]:
        """Units given up at a price, and the sum of the bound."""
        value = sums = 0
        for one in self.options[at:]:
            steps = one.worth(price)
            value += steps * one.lot
            sums += one.square(steps) - price * steps * one.lot
        return value, sums
