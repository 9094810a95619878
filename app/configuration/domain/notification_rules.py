"""Settings of notifications to people: how often each kind, and how many in all."""

from dataclasses import dataclass
from typing import Final

from app.configuration.domain.fields import setting

_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Limit:
    """So many of a kind in any hour, and the same thing again only after `cooldown_s`.

    What is held back is told in one piece after `cooldown_s`; with 0 an hour everything is.
    """

    per_hour: int = setting(10, 0, 10_000)
    cooldown_s: int = setting(300, 1, _DAY_S)


@dataclass(frozen=True, slots=True)
class NotificationRules:
    """A limit of each kind by its name; what is critical knows only `per_minute`."""

    error: Limit = Limit(10, 300)
    trade: Limit = Limit(50, 60)
    status: Limit = Limit(5, 600)
    per_minute: int = setting(30, 1, 1_000)  # over one channel, of all kinds, digests too

    @property
    def for_ordinary(self) -> int:
        """The part of `per_minute` that is not kept free for what is critical."""
        return max(1, self.per_minute - self.per_minute // 3)
