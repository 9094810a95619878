"""Options of a local exchange."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """Options of one local exchange; equal options give an equal market.

    `now_ms` is the exchange time at the start (None: the caller's clock; a replay starts with
    its day instead), `speed` exchange seconds per real second (0 freezes time), `quota` the
    public weight per 30 real seconds. `replay_from` is an ISO date, the last closed day at the
    start (None: the last but one of the file), `contracts` the number of listed contracts,
    `ready_days` the number of days with hours computed in advance.
    """

    seed: int = 7
    host: str = "127.0.0.1"
    port: int = 0
    now_ms: int | None = None
    speed: float = 1.0
    quota: int = 2000
    replay: Path | None = None
    replay_from: str | None = None
    contracts: int | None = None
    ready_days: int = 0
