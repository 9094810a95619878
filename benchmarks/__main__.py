"""Runs every benchmark in a process of its own and prints one table of all results.

`python -m benchmarks [NAME...]` ends with 1 if a benchmark could not be run to its end. A missed
goal is a row, not a failure: times are true on a quiet machine only.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.result_table import FILE, noted

NAMES = (
    "scoring", "board_writes", "cached_responses", "authentication", "correlation", "hostile",
    "http", "idle", "loop_stalls", "feed", "stream", "stream_rate", "notifications", "signals",
    "failover",
)  # fmt: skip
SAID = {True: "yes", False: "NO", None: ""}


def main() -> int:
    """Runs the benchmarks one after the other: two at a time would measure each other."""
    failed = []
    with tempfile.TemporaryDirectory() as room:
        file = Path(room) / "rows"
        surroundings = os.environ | {FILE: str(file), "OPENBLAS_NUM_THREADS": "1"}
        for name in sys.argv[1:] or NAMES:
            command = [sys.executable, "-m", f"benchmarks.{name}"]
            if subprocess.run(command, env=surroundings, check=False).returncode:  # noqa: S603  # ours
                failed.append(name)
        rows = noted(file)
    title = f"make bench, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    table = Table("what", "figure", "peer", "ratio", "goal", "met", title=title)
    for row in rows:
        table.add_row(row.what, row.figure, row.peer, row.ratio, row.goal, SAID[row.met])
    console = Console(width=150)
    console.print(table)
    if failed:
        console.print(f"not run to the end: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
