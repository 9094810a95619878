"""Target weights of the members by method: within bounds, as the operator set them, or calmer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from app.domain.configuration import Configuration, WeightingMethod
from app.domain.portfolio import FULL
from app.domain.weighting import Allocation, Claim, Flag, Role, allocate
from app.domain.weighting_methods import Covariance

_HALVINGS: Final = 40


@dataclass(frozen=True, slots=True)
class Ruling:
    """A member's role and the reason for it."""

    claim: Claim
    reason: str


def targets(
    ruled: Mapping[str, Ruling],
    configuration: Configuration,
    known: Covariance | None = None,
    method: WeightingMethod | None = None,
) -> Allocation:
    """Target weights of the ruled members; `method` stands in for the configured one.

    With a volatility target the funded weights shrink together until the portfolio is not more
    volatile than that, below their minimum if need be; what they give up is cash.
    """
    claims = tuple(ruling.claim for ruling in ruled.values())
    if (method or configuration.rebalancing.method) is WeightingMethod.FIXED:
        made = _fixed(claims, configuration)
    else:
        made = allocate(claims, configuration.min_weight_u, configuration.max_weight_u)
    limit = configuration.rebalancing.volatility_target
    return made if limit == 0.0 or known is None else _calmed(made, claims, known, limit)


def volatility(weights_u: Mapping[str, int], known: Covariance) -> float | None:
    """Annualised, of weights in micro-percent; None where a held symbol is not covered."""
    return known.volatility({symbol: weight / FULL for symbol, weight in weights_u.items()})


def _fixed(claims: tuple[Claim, ...], configuration: Configuration) -> Allocation:
    """What the operator set, capped by the maximum; scaled down where locked weights leave less."""
    wanted = configuration.rebalancing.fixed_weights_u
    held = {claim.symbol: claim.held_u for claim in claims if claim.role is Role.LOCKED}
    funded = {
        claim.symbol: min(wanted.get(claim.symbol, 0), configuration.max_weight_u)
        for claim in claims
        if claim.role is Role.FUNDED
    }
    room, total = max(FULL - sum(held.values()), 0), sum(funded.values())
    flags: tuple[Flag, ...] = ()
    if total > room:
        funded = {symbol: weight * room // total for symbol, weight in funded.items()}
        flags = (Flag.LOCKED_EXCEED,)
    weights = {claim.symbol: 0 for claim in claims} | held | funded
    return Allocation(weights, FULL - sum(weights.values()), flags)


def _calmed(
    made: Allocation, claims: tuple[Claim, ...], known: Covariance, limit: float
) -> Allocation:
    funded = {claim.symbol for claim in claims if claim.role is Role.FUNDED}

    def scaled(share: float) -> dict[str, int]:
        return {
            symbol: int(weight * share) if symbol in funded else weight
            for symbol, weight in made.weights_u.items()
        }

    share = _largest(lambda one: (volatility(scaled(one), known) or 0.0) <= limit)
    if share == 1.0:
        return made
    weights = scaled(share)
    flags = (*made.flags, Flag.VOLATILITY_TARGET)
    return Allocation(weights, FULL - sum(weights.values()), flags)


def _largest(fits: Callable[[float], bool]) -> float:
    """The largest share that fits; 0 where none does."""
    if fits(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
