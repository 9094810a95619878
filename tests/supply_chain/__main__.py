"""`make audit`: writes the bill of materials and asks for known vulnerabilities."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

from tests.supply_chain import (
    Report,
    WaiverError,
    judge,
    missing_from,
    parse_lock,
    parse_report,
    read_waivers,
)

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements-runtime.lock"
WAIVERS = Path(__file__).with_name("waivers.toml")
TIMEOUT_S = 300


def write_sbom(place: Path) -> None:
    """CycloneDX bill of materials of the runtime lock. Raises CalledProcessError."""
    place.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements", str(LOCK)),
            *("--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible"),
            *("--of", "JSON", "--output-file", str(place)),
        ],
        check=True,
        capture_output=True,
        text=True,
    )


def ask() -> Report | None:
    """Known vulnerabilities of the runtime lock; None if no database answers."""
    words = ("--requirement", str(LOCK), "--require-hashes", "--disable-pip", "--format", "json")
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "pip_audit", *words, "--progress-spinner", "off"],
            check=False,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return None
    return parse_report(answer.stdout)


def main(
    place: Path = ROOT / "var" / "sbom.cdx.json",
    waivers: Path = WAIVERS,
    check: Callable[[], Report | None] = ask,
    today: date | None = None,
) -> int:
    """Prints what was found; returns 1 for a gap, a vulnerability or an expired waiver."""
    pins = parse_lock(LOCK.read_text(encoding="utf-8"))
    write_sbom(place)
    gaps = missing_from(json.loads(place.read_text(encoding="utf-8")), pins)
    failures = [f"missing from the bill of materials: {name}" for name in gaps]
    notices = [f"bill of materials: {place}, {len(pins)} packages"]
    try:
        accepted = read_waivers(waivers.read_text(encoding="utf-8"))
    except WaiverError as error:
        failures.append(f"{waivers.name}: {error}")
        accepted = ()
    more, said = judge(check(), accepted, today or datetime.now(UTC).date())
    sys.stdout.writelines(f"audit: {line}\n" for line in (*notices, *said))
    sys.stdout.writelines(f"audit: FAILED: {line}\n" for line in (*failures, *more))
    return 1 if failures or more else 0


if __name__ == "__main__":
    sys.exit(main())
