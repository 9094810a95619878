"""What the doctor says of one thing that it has looked at."""

from dataclasses import dataclass
from enum import StrEnum

from app.cli.exit_codes import ExitCode


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at; `advice` says what to do about it, `exit_code` what it means."""

    name: str
    verdict: Verdict
    detail: str
    advice: str = ""
    exit_code: ExitCode = ExitCode.OK
