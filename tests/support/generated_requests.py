"""Requests that schemathesis makes from an OpenAPI document, and its checks of their answers."""

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any, Final

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import ignored_auth

from tests.support.harness import openapi_document
from tests.support.service_over_socket import PATIENCE_S

EXAMPLES: Final = int(os.environ.get("MYTESTS_GENERATED_EXAMPLES", "1"))  # of each kind
_CONFIG: Final = {
    "seed": 7,
    "generation": {
        "with-security-parameters": False,  # each request gets its credential from the test
        "deterministic": True,
        "database": "none",
    },
}
Case = schemathesis.Case[Any]
Operation = schemathesis.APIOperation[Any, Any, Any, Any]


def operations_of(document: Mapping[str, Any]) -> list[Operation]:
    """All operations of a document."""
    config = SchemathesisConfig.from_dict(_CONFIG)
    schema = schemathesis.openapi.from_dict(dict(document), config=config)
    return [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]


@cache
def operations() -> list[Operation]:
    """All operations of the product."""
    return operations_of(openapi_document())


@cache
def cases_of(operation: Operation) -> list[Case]:
    """Generated requests: some as documented, and some that break the document."""
    found: list[Case] = []
    parts = (operation.query, operation.headers, operation.body)
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        if mode is GenerationMode.NEGATIVE and not any(len(part) for part in parts):
            continue  # nothing to break

        @settings(
            max_examples=EXAMPLES,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        @given(operation.as_strategy(generation_mode=mode))
        def collect(case: Case) -> None:
            found.append(case)

        with suppress(Unsatisfiable):
            collect()
    return found


def call_checked(case: Case, url: str, headers: Mapping[str, str]) -> int:
    """Status of the answer to a request with a valid credential in `headers`.

    Raises FailureGroup for a 5xx, and where a request without the credential, or with an invalid
    one, is answered as well.
    """
    answer = case.call_and_validate(
        base_url=url,
        headers=dict(headers),
        checks=[not_a_server_error, ignored_auth],
        timeout=PATIENCE_S,
    )
    return answer.status_code
