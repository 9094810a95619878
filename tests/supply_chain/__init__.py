"""Bill of materials of the runtime lock, and its known vulnerabilities with dated waivers."""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

_PIN = re.compile(r"^([a-z0-9._-]+)(?:\[[a-z0-9,_-]+\])?==([^ ;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Pin:
    """One package of a lock with the hashes of its files."""

    name: str
    version: str
    hashes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Vulnerability:
    """Known vulnerability of a locked package under all of its ids."""

    package: str
    version: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Answer of the database; `unchecked` are packages that it has no entry for."""

    found: tuple[Vulnerability, ...]
    checked: int
    unchecked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Waiver:
    """Accepts one vulnerability of one package through the day `until`."""

    id: str
    package: str
    reason: str
    until: date


class WaiverError(ValueError):
    """The file of waivers cannot be read."""


def parse_lock(text: str) -> tuple[Pin, ...]:
    """Packages of a hashed lock file."""
    blocks = re.split(r"\n(?=[a-z0-9])", f"\n{text}")
    return tuple(
        Pin(found[1], found[2], frozenset(_HASH.findall(block)))
        for block in blocks
        if (found := _PIN.match(block))
    )


def missing_from(sbom: Mapping[str, Any], pins: Sequence[Pin]) -> list[str]:
    """Packages that a bill of materials does not name with their version and every hash."""
    listed = {
        (one["name"], one.get("version")): {
            each["content"]
            for reference in one.get("externalReferences", ())
            for each in reference.get("hashes", ())
        }
        for one in sbom.get("components", ())
    }
    return [
        pin.name
        for pin in pins
        if not pin.hashes or not pin.hashes <= listed.get((pin.name, pin.version), set())
    ]


def read_waivers(text: str) -> tuple[Waiver, ...]:
    """Waivers of a TOML document. Raises WaiverError for an entry that is not complete."""
    try:
        entries = tomllib.loads(text).get("waiver", [])
    except tomllib.TOMLDecodeError as error:
        raise WaiverError(str(error)) from None
    waivers = []
    for entry in entries:
        if set(entry) != {"id", "package", "reason", "until"}:
            raise WaiverError(f"a waiver needs id, package, reason and until: {entry}")
        is_dated = type(entry["until"]) is date
        texts = (entry["id"], entry["package"], entry["reason"])
        if not is_dated or not all(isinstance(one, str) and one.strip() for one in texts):
            raise WaiverError(f"a waiver needs three texts and a day: {entry}")
        waivers.append(Waiver(**entry))
    return tuple(waivers)


def parse_report(text: str) -> Report | None:
    """Report of pip-audit in JSON; None for anything else, which it prints without a database."""
    try:
        packages = json.loads(text)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return None
    found = tuple(
        Vulnerability(one["name"], one["version"], (each["id"], *each.get("aliases", ())))
        for one in packages
        for each in one.get("vulns", ())
    )
    unchecked = tuple(one["name"] for one in packages if "skip_reason" in one)
    return Report(found, len(packages) - len(unchecked), unchecked)


def judge(
    report: Report | None, waivers: Sequence[Waiver], today: date
) -> tuple[list[str], list[str]]:
    """Failures and notices. An expired waiver fails, also when nothing could be checked."""
    failures = [
        f"the waiver of {one.id} for {one.package} ended on {one.until}"
        for one in waivers
        if one.until < today
    ]
    if report is None or not report.checked:
        return failures, ["NOT CHECKED: no database of vulnerabilities answers"]
    notices = [f"checked: {report.checked} packages"]
    if report.unchecked:
        notices.append(f"NOT CHECKED, no entry: {', '.join(report.unchecked)}")
    used = set[Waiver]()
    for one in report.found:
        valid = [
            waiver
            for waiver in waivers
            if waiver.package == one.package and waiver.id in one.ids and waiver.until >= today
        ]
        used.update(valid)
        name = f"{one.package} {one.version}: {' '.join(one.ids)}"
        if valid:
            notices.append(f"waived until {valid[0].until}: {name} ({valid[0].reason})")
        else:
            failures.append(f"known vulnerability: {name}")
    idle = [one.id for one in waivers if one not in used and one.until >= today]
    return failures, notices + [f"waiver without a finding: {one}" for one in idle]
