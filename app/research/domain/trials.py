"""Trial: one run of a strategy over a history, logged whatever it gave."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Trial:
    """Parameters and result of one run; `sharpe` per bar, None without a variance of returns.

    The number of trials and their ratios deflate the result of the next one, so that no trial is
    ever changed or deleted.
    """

    id: str
    ran_at: datetime
    kind: str
    history: str
    data_hash: str
    code_version: str
    parameters: Mapping[str, Any]
    sharpe: float | None
    result: Mapping[str, Any]
