"""The listed settings and docs/configuration.md follow the declarations."""

from pathlib import Path

from app.cli.programs.configuration_reference import create_markdown
from app.configuration.domain.fields import entries
from app.configuration.domain.model import Configuration
from app.settings import known_variables
from tests.cli.command import here

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_document_is_that_of_the_declarations() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == create_markdown(), "run `make docs`"


def test_every_setting_is_listed_with_its_sentence() -> None:
    paths = {one.path for one in entries(Configuration())}
    text = create_markdown()
    assert [one for one in paths if f"| `{one}` |" not in text] == []
    assert [one for one in known_variables() if f"| `{one}` |" not in text] == []
    listed = here("config", "list", "--json").document
    assert {one["path"] for one in listed["settings"]} == paths
    assert all(one["description"] for one in (*listed["settings"], *listed["environment"]))
    assert {one["name"] for one in listed["environment"]} == set(known_variables())


def test_a_listing_can_be_narrowed() -> None:
    shown = here("config", "list", "sizing").out
    assert "sizing.max_gross_leverage = 3.0  (0.01 to 100.0)" in shown
    assert "quality." not in shown
