"""G06: the service only advises. There is no way to an order yet, so none has to be guarded."""

import pytest
from pydantic import ValidationError

from app.adapters.kucoin import limiter
from app.settings import Settings, known_variables
from tests.support.harness import openapi_document


def test_G06_only_public_market_data_is_asked_of_the_exchange() -> None:
    endpoints = [one for one in vars(limiter).values() if isinstance(one, limiter.Endpoint)]
    assert len(endpoints) > 10
    assert {one.path for one in endpoints if one.method != "GET"} == {"/api/v1/bullet-public"}
    private = ("order", "position", "account", "transfer", "withdraw", "bullet-private", "fills")
    assert not [one.path for one in endpoints for word in private if word in one.path]


@pytest.mark.parametrize("name", ["KEY", "SECRET", "PASSPHRASE", "LIVE"])
def test_G06_who_sets_a_key_of_the_exchange_hears_that_it_has_no_use(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = f"MYSYMBOLS_KUCOIN__{name}"
    assert variable not in known_variables()
    monkeypatch.setenv(variable, "something")
    with pytest.raises(ValidationError, match=variable):
        Settings()


def test_G06_no_operation_places_an_order() -> None:
    operations = openapi_document()["paths"]
    assert len(operations) > 50
    assert not [path for path in operations if "order" in path]
