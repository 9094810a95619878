"""JSON made beforehand is the text that the column would have made, and as strict."""

import json
from dataclasses import replace

import pytest

from app.foundation.sql.database import Database
from app.foundation.sql.types import JsonText, ReadyJson, ready_json
from app.scoring.storage.runs import ScoringRepository
from tests.scoring.storage.test_scoring import _SCORED, _board

NAN = float("nan")


def test_what_is_made_beforehand_reads_as_what_went_in() -> None:
    part = ["spread", 0.1 + 0.2, None, 1e-17, -1.5e300, "no null here", 3]
    text = ready_json({"a": part, "b": None}, [part], 1)
    assert json.loads(text) == {"a": part, "b": None}
    assert isinstance(text, ReadyJson)


@pytest.mark.parametrize("number", [NAN, float("inf")])
def test_a_number_that_is_none_does_not_become_null(number: float) -> None:
    part = [1.0, number, None]
    with pytest.raises(ValueError, match="not JSON compliant"):
        ready_json([part], [part], 0)


async def test_a_board_with_a_number_that_is_none_is_not_stored(database: Database) -> None:
    wrong = replace(_SCORED, factors=(_SCORED.factors[0]._replace(contribution=NAN),))
    with pytest.raises(ValueError, match="not JSON compliant"):
        async with database.write() as unit:
            await unit.get(ScoringRepository).save(_board(1, wrong), None)
    async with database.read() as unit:
        assert await unit.get(ScoringRepository).latest() is None


async def test_a_column_of_json_takes_a_ready_text_as_it_is_and_quotes_any_other(
    database: Database,
) -> None:
    async with database.read() as unit:
        dialect = unit.get(ScoringRepository).connection.dialect
    bind = JsonText().process_bind_param
    assert bind(ReadyJson("[1]"), dialect) == "[1]"
    assert bind("[1]", dialect) == '"[1]"'
