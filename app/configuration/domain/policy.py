"""How far the service may go by itself, for each kind of action."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from app.configuration.domain.fields import setting

_DAY_S: Final = 86_400


class Policy(StrEnum):
    OBSERVE = "observe"  # only write down what would be done
    PROPOSE = "propose"  # wait for an approval
    AUTO = "auto"  # do it


@dataclass(frozen=True, slots=True)
class Policies:
    """What the schedule may do; a request of an operator is carried out in any case.

    `replacement` is for the swaps that `replacement.auto_forced` and
    `replacement.auto_discretionary` do not let happen by themselves.
    """

    rebalance: Policy = Policy.AUTO
    replacement: Policy = Policy.PROPOSE
    expires_after: int = setting(_DAY_S, 60, 30 * _DAY_S)  # seconds that a proposal is open
