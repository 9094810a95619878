"""Exact percents, money as text, UTC times: what goes out is what was meant."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import NotFoundError
from app.foundation.http.dependencies import by
from app.foundation.http.responses import (
    answer,
    etag,
    json_bytes,
    keep,
    not_modified,
    replayed,
    sent,
)
from app.foundation.http.schemas import (
    Freshness,
    IndexUnits,
    Json,
    MoneyString,
    Out,
    Percent,
    QueryDecimal,
    QueryFlag,
    QueryInt,
    QueryTime,
    RoundedJson,
    Score,
    Share,
    SymbolPath,
    UtcTime,
    finite,
    percent,
)
from app.foundation.idempotency import Command, CommandResult
from app.portfolio.domain.models import FULL


class Sample(Freshness):
    weight: Percent
    price: MoneyString
    score: Score | None = None
    more: Json = None


def sample(**changes: object) -> Sample:
    given = {
        "as_of": datetime(2026, 1, 1, 5, 30, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        "data_source": DataSource.SANDBOX,
        "data_status": DataStatus.FRESH,
        "weight": percent(33_333_333),
        "price": Decimal("1E-8"),
    }
    return Sample.model_validate({**given, **changes})


@given(st.integers(min_value=-FULL, max_value=FULL))
def test_percents_are_exact_to_six_decimals(micro: int) -> None:
    text = json.dumps(percent(micro))
    assert Decimal(text) == Decimal(micro) / 10**6
    assert round(json.loads(text) * 10**6) == micro


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12))
def test_money_keeps_every_digit_and_no_exponent(amount: Decimal) -> None:
    text = json.loads(json_bytes(sample(price=amount)))["price"]
    assert Decimal(text) == amount
    assert "E" not in text.upper()


@pytest.mark.parametrize(
    ("amount", "text"),
    [("0.100", "0.1"), ("86999.0", "86999"), ("1E+3", "1000"), ("-0.00", "0"), ("120", "120")],
)
def test_a_decimal_string_has_no_zeros_at_its_end(amount: str, text: str) -> None:
    assert json.loads(json_bytes(sample(price=Decimal(amount))))["price"] == text


class Numbers(Out):
    score: Score | None
    share: Share
    index: IndexUnits
    free: RoundedJson


def test_numbers_have_twelve_digits() -> None:
    third = 1 / 3
    made = Numbers(
        score=third, share=-1234567.8901234567, index=Decimal(1) / 3, free={"a": [third, {"b": 2}]}
    )
    assert json.loads(json_bytes(made)) == {
        "score": 0.333333333333,
        "share": -1234567.89012,
        "index": "0.333333333333",
        "free": {"a": [0.333333333333, {"b": 2}]},
    }
    assert '"score":null' in made.model_copy(update={"score": None}).model_dump_json()
    with pytest.raises(ValidationError):
        Numbers(score=1.1, share=1, index=Decimal(1), free=None)


def test_an_answer_in_bytes() -> None:
    assert (
        json_bytes(sample(more={"é": [1.5, None]}))
        == (
            '{"as_of":"2026-01-01T00:00:00Z","data_source":"sandbox","data_status":"fresh",'
            '"weight":33.333333,"price":"0.00000001","score":null,"more":{"é":[1.5,null]}}'
        ).encode()
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"score": float("nan")},
        {"score": float("inf")},
        {"score": 1.01},
        {"weight": float("inf")},
        {"price": Decimal("NaN")},
        {"more": {"a": [{"b": float("inf")}]}},
        {"more": (float("nan"),)},
        {"as_of": datetime(2026, 1, 1)},  # noqa: DTZ001 - that is the point
        {"other": 1},
    ],
)
def test_infinite_and_naive_values_are_never_sent(changes: dict[str, object]) -> None:
    with pytest.raises((ValidationError, ValueError)):
        json_bytes(sample(**changes))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_unvalidated_models_fail_at_rendering(number: float) -> None:
    whole = sample()
    built = type(whole).model_construct(**{**dict(whole), "score": number})
    with pytest.raises(ValueError, match="JSON"):
        json_bytes(built)


def test_the_names_of_such_numbers_may_stand_in_a_text() -> None:
    more = {"said": "NaN", "to": "Infinity"}
    assert json.loads(json_bytes(sample(more=more)))["more"] == more


def test_unknown_numbers_are_null_and_infinite_ones_a_bug() -> None:
    assert finite(None) is None
    assert finite(float("nan")) is None
    assert finite(0.0) == 0.0
    with pytest.raises(ValueError, match="infinite"):
        finite(float("-inf"))


def test_defaults_pass_the_readers_of_query_text() -> None:
    for kind, value in (
        (QueryInt, 5),
        (QueryDecimal, Decimal("1.5")),
        (QueryFlag, False),
        (QueryTime, datetime(2026, 1, 1, tzinfo=UTC)),
        (UtcTime, datetime(2026, 1, 1, tzinfo=UTC)),
        (SymbolPath, "BTCUSDT"),
    ):
        assert TypeAdapter(kind).validate_python(value) == value
    with pytest.raises(NotFoundError):
        TypeAdapter(SymbolPath).validate_python("")
    with pytest.raises(ValidationError):
        TypeAdapter(SymbolPath).validate_python(5)
    with pytest.raises(ValidationError):
        TypeAdapter(QueryTime).validate_python("2026-01-01T25:00:00Z")


def test_stored_answers_are_sent_byte_for_byte_and_marked() -> None:
    class Item(Out):
        name: str

    kept = keep(Item(name="é"), 201, {"ETag": '"3"'})
    first, again = sent(CommandResult(None, kept)), sent(CommandResult(None, kept, is_replay=True))
    assert first.body == again.body == '{"name":"é"}'.encode()
    assert first.status_code == again.status_code == 201
    assert first.headers["etag"] == again.headers["etag"] == '"3"'
    assert first.headers["content-type"] == "application/json"
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert replayed(b"{}", 200).headers["idempotency-replayed"] == "true"
    with pytest.raises(LookupError):
        sent(CommandResult(None, None))


def test_entity_tags() -> None:
    assert etag(12) == '"12"'
    assert not_modified('"3"').headers["etag"] == '"3"'
    assert answer(b"{}").status_code == 200


def test_a_claimed_person_is_a_note_beside_the_actor() -> None:
    command = Command(actor="key:desk", request_id="r")
    named = by(command, "ana")
    assert (named.actor, named.note, named.author) == ("key:desk", "ana", "key:desk (ana)")
    assert (command.author, by(command, None)) == ("key:desk", command)
    assert len(by(command, "x" * 200).author) == 128
