"""S19: the bill of materials is whole, and a known vulnerability needs a waiver with an end."""

import json
import re
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.supply_chain import (
    Report,
    Vulnerability,
    Waiver,
    WaiverError,
    judge,
    missing_from,
    parse_lock,
    parse_report,
    read_waivers,
)
from tests.supply_chain.__main__ import LOCK, ROOT, WAIVERS, main, write_sbom

DAY = date(2026, 11, 25)
BUG = Vulnerability("aiohttp", "3.14.5", ("PYSEC-2026-1", "CVE-2026-1"))
FOUND = Report((BUG,), 76, ())
WAIVER = Waiver("CVE-2026-1", "aiohttp", "not reachable", DAY)


@pytest.fixture(scope="module")
def sbom(tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = tmp_path_factory.mktemp("audit") / "sbom.cdx.json"
    write_sbom(place)
    return json.loads(place.read_text())


def test_S19_the_bill_names_every_runtime_package_with_version_and_hashes(sbom: Any) -> None:
    text = LOCK.read_text()
    pins = parse_lock(text)
    assert len(pins) == len(re.findall(r"^[a-z0-9]", text, re.MULTILINE)) > 60
    assert sum(len(pin.hashes) for pin in pins) == text.count("--hash=sha256:")
    assert sbom["bomFormat"] == "CycloneDX"
    assert sbom["metadata"]["component"]["name"] == "my-symbols"
    assert missing_from(sbom, pins) == []
    assert len(sbom["components"]) == len(pins)


def test_S19_a_gap_in_the_bill_is_found(sbom: Any) -> None:
    pin, *rest = parse_lock(LOCK.read_text())
    assert missing_from(sbom, [replace(pin, version="0"), *rest]) == [pin.name]
    assert missing_from(sbom, [replace(pin, hashes=pin.hashes | {"0" * 64}), *rest]) == [pin.name]
    assert missing_from(sbom, [replace(pin, hashes=frozenset())]) == [pin.name]
    assert missing_from({"components": []}, [pin]) == [pin.name]


def test_S19_a_vulnerability_fails_unless_it_is_waived() -> None:
    failures, _ = judge(FOUND, (), DAY)
    assert failures == ["known vulnerability: aiohttp 3.14.5: PYSEC-2026-1 CVE-2026-1"]
    failures, notices = judge(FOUND, (WAIVER,), DAY)
    assert failures == []
    assert any("waived until 2026-11-25" in one and "not reachable" in one for one in notices)
    for other in (replace(WAIVER, package="aiosmtplib"), replace(WAIVER, id="CVE-2026-2")):
        failures, notices = judge(FOUND, (other,), DAY)
        assert len(failures) == 1
        assert f"waiver without a finding: {other.id}" in notices


@pytest.mark.parametrize(
    "report", [FOUND, Report((), 76, ()), None], ids=["found", "clean", "away"]
)
def test_S19_an_expired_waiver_fails(report: Report | None) -> None:
    failures, _ = judge(report, (replace(WAIVER, until=date(2026, 11, 24)),), DAY)
    assert failures[0] == "the waiver of CVE-2026-1 for aiohttp ended on 2026-11-24"
    assert len(failures) == (2 if report is FOUND else 1)


def test_S19_without_a_database_nothing_is_said_to_be_clean() -> None:
    for silent in (None, Report((), 0, ("aiohttp",))):
        assert judge(silent, (), DAY) == (
            [], ["NOT CHECKED: no database of vulnerabilities answers"],
        )  # fmt: skip
    failures, notices = judge(Report((), 75, ("aiohttp",)), (), DAY)
    assert (failures, notices[1]) == ([], "NOT CHECKED, no entry: aiohttp")


def test_S19_a_report_of_pip_audit_is_understood() -> None:
    text = json.dumps({
        "dependencies": [
            {"name": "aiohttp", "version": "3.14.5", "vulns": [
                {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "fix_versions": []},
            ]},
            {"name": "alembic", "version": "1.20.0", "vulns": []},
            {"name": "other", "skip_reason": "not found"},
        ],
        "fixes": [],
    })  # fmt: skip
    assert parse_report(text) == Report((BUG,), 2, ("other",))
    for nothing in ("", "ConnectionError: away", "[]", "{}"):
        assert parse_report(nothing) is None


@pytest.mark.parametrize(
    "text",
    [
        "[[waiver]]\nid = 'x'",
        "[[waiver]]\nid = 'x'\npackage = 'y'\nreason = ''\nuntil = 2026-12-31",
        "[[waiver]]\nid = 'x'\npackage = 'y'\nreason = 'z'\nuntil = 'for ever'",
        "[[waiver]]\nid = 'x'\npackage = 'y'\nreason = 'z'\nuntil = 2026-12-31\nmore = 1",
        "[[waiver",
    ],
)
def test_S19_a_waiver_has_a_reason_and_an_end(text: str) -> None:
    with pytest.raises(WaiverError):
        read_waivers(text)
    whole = "[[waiver]]\nid = 'x'\npackage = 'y'\nreason = 'z'\nuntil = 2026-12-31"
    assert read_waivers(whole) == (Waiver("x", "y", "z", date(2026, 12, 31)),)


def test_S19_the_waivers_of_the_project_are_valid() -> None:
    accepted = read_waivers(WAIVERS.read_text())
    assert all(one.reason for one in accepted)


@pytest.mark.parametrize(
    ("report", "waiver", "code", "said"),
    [
        (None, "", 0, "audit: NOT CHECKED"),
        (Report((), 76, ()), "", 0, "audit: checked: 76 packages"),
        (FOUND, "", 1, "audit: FAILED: known vulnerability: aiohttp"),
        (FOUND, "until = 2026-11-25", 0, "audit: waived until 2026-11-25"),
        (None, "until = 2026-11-24", 1, "audit: FAILED: the waiver of CVE-2026-1"),
        (None, "until = 'never'", 1, "audit: FAILED: waivers.toml: a waiver needs"),
    ],
)
def test_S19_the_audit_ends_with_the_right_code(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    report: Report | None,
    waiver: str,
    code: int,
    said: str,
) -> None:
    waivers = tmp_path / "waivers.toml"
    head = "[[waiver]]\nid = 'CVE-2026-1'\npackage = 'aiohttp'\nreason = 'why'\n"
    waivers.write_text(head + waiver if waiver else "")
    place = tmp_path / "new" / "sbom.cdx.json"
    assert main(place, waivers, lambda: report, DAY) == code
    out = capsys.readouterr().out
    assert said in out
    assert f"bill of materials: {place}, " in out
    assert json.loads(place.read_text())["bomFormat"] == "CycloneDX"


def test_S19_the_audit_is_a_target_of_make_and_its_output_is_not_committed() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "\naudit: setup ##" in makefile
    assert "$(RUN) tests.supply_chain" in makefile
    assert "var/" in (ROOT / ".gitignore").read_text().splitlines()
