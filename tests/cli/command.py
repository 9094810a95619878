"""Runs the real command line: in this process, or as a process of its own."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from app.cli.application import application
from tests.support import child_processes

PATIENCE_S = 240


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output is exactly one JSON document."""
        return json.loads(self.out)


def here(*arguments: str, given: str | bytes | None = None, **variables: str) -> Ended:
    """The command in this process: `given` on standard input, `variables` in its environment."""
    result = CliRunner().invoke(
        application, arguments, given, {"COLUMNS": "200", **variables}, prog_name="my-symbols"
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(result.exit_code, result.stdout, result.stderr)


def environment(**variables: str) -> dict[str, str]:
    """Ours without any setting of the product, and `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MYSYMBOLS_")}
    return {**kept, "COLUMNS": "200", **variables}


def started(*arguments: str, cwd: Path, **variables: str) -> child_processes.Command:
    """The command as a process of its own with pipes."""
    return child_processes.command(*arguments, cwd=cwd, environment=environment(**variables))


def ended(child: child_processes.Command) -> Ended:
    """Waits for the end of a process."""
    out, err = child.communicate(PATIENCE_S)
    return Ended(child.wait(), out, err)


def alone(*arguments: str, cwd: Path, variables: Mapping[str, str] | None = None) -> Ended:
    """The command as a child process, to its end."""
    return ended(started(*arguments, cwd=cwd, **(variables or {})))
