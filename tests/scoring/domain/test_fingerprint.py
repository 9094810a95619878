"""Equal inputs, equal hash; any change of an input changes it."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from app.configuration.domain.sections import Source
from app.market.domain.models import Level
from app.market.domain.panel import ScoringInputs
from app.scoring.domain.input_hash import input_hash
from tests.support.scoring_inputs import make_inputs

INPUTS = make_inputs(4, daily=20, hourly=20)


def other_book(inputs: ScoringInputs) -> ScoringInputs:
    book = inputs.books[0]
    assert book is not None
    asks = (book.asks[0]._replace(lots=book.asks[0].lots + 1), *book.asks[1:])
    return replace(inputs, books=(replace(book, asks=asks), *inputs.books[1:]))


def other_close(inputs: ScoringInputs) -> ScoringInputs:
    close = inputs.daily.close.copy()
    close[3, 2] = np.nextafter(close[3, 2], np.inf)
    return replace(inputs, daily=replace(inputs.daily, close=close))


def other_age(inputs: ScoringInputs) -> ScoringInputs:
    return replace(inputs, ages_s={**inputs.ages_s, Source.BOOKS: np.full(4, 1.0)})


def other_flow(inputs: ScoringInputs) -> ScoringInputs:
    assert inputs.flow is not None
    return replace(inputs, flow=replace(inputs.flow, sold_lots=inputs.flow.sold_lots + 1.0))


CHANGES: dict[str, Callable[[ScoringInputs], ScoringInputs]] = {
    "as_of": lambda i: replace(i, as_of_ms=i.as_of_ms + 1),
    "excluded": lambda i: replace(i, excluded={"A": "b"}),
    "bid": lambda i: replace(i, bid=i.bid * 1.0000001),
    "book": other_book,
    "no_book": lambda i: replace(i, books=(None, *i.books[1:])),
    "close": other_close,
    "age": other_age,
    "half_life": lambda i: replace(i, half_lives_s={**i.half_lives_s, Source.BOOKS: 901.0}),
    "funding": lambda i: replace(i, funding=(i.funding[0][1:], *i.funding[1:])),
    "flow": other_flow,
    "no_flow": lambda i: replace(i, flow=None),
    "interest": lambda i: replace(i, open_interest=i.open_interest + 1.0),
}


def test_hash_is_hex_and_repeatable() -> None:
    found = input_hash(INPUTS)
    assert len(found) == 64
    assert int(found, 16)
    assert found == input_hash(make_inputs(4, daily=20, hourly=20))


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_every_input_counts(change: Callable[[ScoringInputs], ScoringInputs]) -> None:
    assert input_hash(change(INPUTS)) != input_hash(INPUTS)


def test_spelling_of_a_number_does_not_count() -> None:
    book = INPUTS.books[0]
    assert book is not None
    longer = tuple(Level(Decimal(f"{level.price}000"), level.lots) for level in book.bids)
    if "." not in str(book.bids[0].price):
        longer = tuple(Level(Decimal(f"{level.price}.000"), level.lots) for level in book.bids)
    same = replace(INPUTS, books=(replace(book, bids=longer), *INPUTS.books[1:]))
    assert input_hash(same) == input_hash(INPUTS)


def test_layout_and_zero_sign_in_memory_do_not_count() -> None:
    bid = np.zeros(4)
    spread_out = np.asfortranarray(INPUTS.open_interest)
    one = replace(INPUTS, bid=bid)
    other = replace(INPUTS, bid=-bid, open_interest=spread_out)
    assert input_hash(one) == input_hash(other)


def test_what_has_no_one_form_has_no_fingerprint() -> None:
    unordered: Any = {"CUSDT": {1, 2}}
    with pytest.raises(TypeError, match="cannot hash a set"):
        input_hash(replace(INPUTS, excluded=unordered))
