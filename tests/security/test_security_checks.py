"""The tables of docs/security-checks.md are whole, and every test that they name exists."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security-checks.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (API\d+:2023|v5\.0\.0-[\d.]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
# Number of requirements in each section of ASVS 5.0.0.
SECTIONS = {
    "6": (3, 12, 8, 6, 8, 4, 2, 4),
    "7": (3, 4, 2, 5, 3, 2),
    "8": (4, 4, 3, 2),
    "9": (3, 4),
}
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
PROOF = re.compile(
    r"`tests/[\w/]+\.py::test_\w+`|documented in \[\w+\]\(\w+\.md#[\w-]+\)|documented below"
)
REASON = re.compile(r"not (?:applicable|claimed), because [^;|]{10,}(?:; [^|]+)?")


def expected() -> list[str]:
    risks = [f"API{number}:2023" for number in range(1, 11)]
    return risks + [
        f"v5.0.0-{chapter}.{section}.{number}"
        for chapter, counts in SECTIONS.items()
        for section, count in enumerate(counts, 1)
        for number in range(1, count + 1)
    ]


@cache
def names_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_the_tables_have_every_requirement_once_and_in_order() -> None:
    assert [found[0] for found in ROW.findall(PAGE)] == expected()
    assert len([line for line in PAGE.splitlines() if line.startswith("| ")]) == (
        len(expected()) + 5  # the heads
    )


def test_every_row_is_shown_by_a_test_or_gives_a_reason() -> None:
    wrong = [
        name
        for name, _, shown in ROW.findall(PAGE)
        if not REASON.fullmatch(shown)
        and not all(PROOF.fullmatch(part) for part in shown.split("; "))
    ]
    assert wrong == []


def test_every_named_test_exists() -> None:
    named = set(TEST.findall(PAGE))
    assert len(named) > 40
    assert [
        f"{path}::{name}"
        for path, name in sorted(named)
        if not (ROOT / path).is_file() or name not in names_in(path)
    ] == []


def test_every_named_section_exists() -> None:
    for page, anchor in set(re.findall(r"\]\((\w+\.md)#([\w-]+)\)", PAGE)):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, anchor
