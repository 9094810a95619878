"""Requests made from the OpenAPI document against the running service: no answer is a surprise.

Every operation takes part by itself, a new one too. MYTESTS_GENERATED_EXAMPLES makes it longer
(`make fuzz`).
"""

import os
import re
import zlib
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
import schemathesis
from schemathesis.config import SchemathesisConfig

from tests.support.harness import PREFIX, openapi_document
from tests.support.service_over_socket import PATIENCE_S, Caller, serving

EXAMPLES = int(os.environ.get("MYTESTS_GENERATED_EXAMPLES", "6"))
AT_LENGTH = "MYTESTS_GENERATED_EXAMPLES" in os.environ
MEMBERS = 8
DOCUMENT = openapi_document()
CONFIG = {
    "seed": 7,
    # Every bound of every value of every operation takes minutes: that is for `make fuzz`.
    "phases": {"coverage": {"enabled": AT_LENGTH, "unexpected-methods": ["patch", "trace"]}},
    # A body of many optional parts is seldom understood by chance: here the bounds help.
    "operations": [
        {
            "include-name": f"POST {PREFIX}/portfolio/add-symbol",
            "phases": {"coverage": {"enabled": True}},
        }
    ],
    "generation": {"max-examples": EXAMPLES, "deterministic": True, "database": "none"},
    "checks": {
        # Unavailable is an answer as good as any: documented, with a code and a time to wait.
        "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503"]},
        # What is too long is refused for that, before anybody asks what it means.
        "negative_data_rejection": {"expected-statuses": ["4xx"]},
        # A request that fits the document may be refused by the facts: `as_documented` judges it.
        "positive_data_acceptance": {"enabled": False},
        # GET /symbols/validate is GET /symbols/{symbol}: POST is not all that is allowed there.
        "allow_header_conformance": {"enabled": False},
    },
}
Case = schemathesis.Case[Any]
OWN_KEY = "the-tests"  # never rotated or revoked by a generated request


def _without_security() -> dict[str, Any]:
    """The document without its security: each request carries the valid key of the tests."""
    document: dict[str, Any] = deepcopy(DOCUMENT)
    del document["components"]["securitySchemes"]
    for methods in document["paths"].values():
        for operation in methods.values():
            operation.pop("security", None)
    return document


schema = schemathesis.openapi.from_dict(
    _without_security(), config=SchemathesisConfig.from_dict(CONFIG)
)
pytestmark = [
    pytest.mark.long,
    pytest.mark.xdist_group("generated"),
    # The service runs in a thread beside: its jitter moves the state of `random` while requests
    # are being made up, which looks as if their makers had used it.
    pytest.mark.filterwarnings(
        "ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning"
    ),
]


@dataclass
class World(Caller):
    """The running service, and names of things that it knows."""

    settings: dict[str, Any] = field(default_factory=dict)
    known: dict[str, list[str]] = field(default_factory=dict)
    prepared: str = ""
    answers: dict[str, set[int]] = field(default_factory=dict)

    def begin(self) -> None:
        """A key, a market, a board, and the settings to come back to."""
        for name in (OWN_KEY, "another", "a-third"):
            made = self.done("POST", f"{PREFIX}/keys", json={"name": name, "role": "admin"})
            if name == OWN_KEY:
                self.session.headers["X-API-Key"] = made["secret"]
        loaded = self.done("POST", f"{PREFIX}/initialize-sample-data")
        self.known["run_id"] = [loaded["run_id"]]
        self.settings = self.get(f"{PREFIX}/configuration")
        del self.settings["version"]

    def prepare(self, operation: str) -> None:
        """Once before the requests to an operation: first settings, trading on, room for more."""
        if self.prepared == operation:
            return
        self.prepared = operation
        portfolio = f"{PREFIX}/portfolio"
        switch = {"enabled": True, "reason": "another operation begins"}
        self.done("PUT", f"{portfolio}/trading-switch", json=switch)
        for lock in self.get(f"{portfolio}/locks")["locks"]:
            self.done("DELETE", f"{portfolio}/locks/{lock['symbol']}")
        self.done("PATCH", f"{PREFIX}/configuration", json=self.settings)
        if not self.get(portfolio)["members"]:
            self.done("POST", f"{portfolio}/initialize", json={"size": MEMBERS})
        members = [one["symbol"] for one in self.get(portfolio)["members"]]
        for name in members[MEMBERS:]:
            self.done("POST", f"{portfolio}/remove-symbol", json={"symbol": name})
        ranked = [one["symbol"] for one in self.get(f"{PREFIX}/scoring/rankings")["items"]]
        others = [name for name in ranked if name not in members]
        self.known["symbol"] = [*members[: MEMBERS // 2], *others[: MEMBERS // 2]]

    def knows(self, name: str, path: str) -> list[str]:
        """Values of `name` in `path`, from the list that is served before it."""
        kind = "symbol" if name.endswith("symbol") else name
        if kind not in self.known:
            listing = path.partition(f"/{{{name}}}")[0]
            if "get" not in DOCUMENT["paths"].get(listing, {}):
                return []
            found = self.get(listing).get("items", [])
            items = [one for one in found if one.get("name") != OWN_KEY]
            return [
                str(one.get(name) or one["id"]) for one in items if one.get(name) or "id" in one
            ]
        return self.known[kind]

    def with_known_names(self, case: Case) -> None:
        """Makes half of the requests, whose texts are random, about things that exist."""
        path = case.operation.path
        content = zlib.crc32(repr((case.path_parameters, case.body)).encode("utf-8", "replace"))
        for part in (case.path_parameters, case.body):
            if not isinstance(part, dict):
                continue
            for name in [one for one in part if isinstance(part[one], str)]:
                if part is case.path_parameters or name.endswith("symbol"):
                    part.pop(f"{name}_id", None)  # either of the two names it
                    names = self.knows(name, path)
                    choice = zlib.crc32(name.encode(), content)
                    if names and choice % 2:
                        part[name] = names[choice // 2 % len(names)]
        # A version that is not the present one and a key of another request end every attempt.
        if "If-Match" in case.headers and content % 4:
            case.headers["If-Match"] = "*"
        if "Idempotency-Key" in case.headers and content % 8:
            case.headers["Idempotency-Key"] = str(content)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    room = tmp_path_factory.mktemp("generated")
    with serving(room) as url, requests.Session() as session:
        made = World(url, session)
        made.begin()
        yield made


def as_documented(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: Case
) -> None:
    """A refusal is a problem whose code the document names for that status of that operation."""
    del ctx
    status = response.status_code
    assert "x-request-id" in response.headers
    if status < 400:
        return
    problem = response.json()
    assert problem["status"] == status
    assert problem["detail"]
    if status in {429, 503}:
        assert int(response.headers["retry-after"][0]) >= 1
    documented = case.operation.definition.raw["responses"].get(str(status))
    if documented is not None:  # else status_code_conformance has said so
        assert problem["code"] in re.findall(r"`([a-z0-9_]+)`", documented["description"]), problem


# An answer without an end cannot be waited for; test_stream.py listens to it.
@schema.exclude(path=f"{PREFIX}/events").parametrize()
def test_every_answer_is_as_documented(case: Case, world: World) -> None:
    """No 5xx but a documented 503, no status, code, header or shape that is not documented."""
    world.prepare(case.operation.label)
    if case.meta is None or case.meta.generation.mode is schemathesis.GenerationMode.POSITIVE:
        world.with_known_names(case)
    response = case.call_and_validate(
        base_url=world.url,
        session=world.session,
        timeout=PATIENCE_S,
        additional_checks=[as_documented],
    )
    world.answers.setdefault(case.operation.label, set()).add(response.status_code)


if AT_LENGTH:  # of a few requests it is chance whether one is understood

    def test_no_operation_was_refused_at_the_border_alone(world: World) -> None:
        """After the others: each was understood at least once, so its use case has answered."""
        assert world.answers
        border = {400, 405, 414, 415, 422}
        assert [name for name, statuses in world.answers.items() if statuses <= border] == []
