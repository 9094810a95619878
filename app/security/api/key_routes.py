"""Routes of API keys, for administrators."""

from datetime import timedelta
from typing import Annotated, Final, Self

from fastapi import Path
from pydantic import AfterValidator, Field, model_validator
from starlette.responses import Response

from app.foundation.errors import Code
from app.foundation.http.dependencies import Provided, UnversionedDep
from app.foundation.http.errors import RequestError, problems
from app.foundation.http.permissions import PrincipalDep, requires
from app.foundation.http.request_body import Body
from app.foundation.http.responses import answer, json_bytes, keep, sent
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import Out, UtcTime, example
from app.foundation.idempotency import CommandResult, StoredResponse
from app.foundation.principals import Principal, PrincipalKind, Role, Scope
from app.security.domain.addresses import parse_network
from app.security.domain.keys import NAME_PATTERN, ApiKey, KeyState, order_scopes
from app.security.services.keys import EXPIRY, GRACE, ApiKeyService, IssuedKey, KeyDraft

router = api_router("keys", "/keys")
MAX_DAYS: Final = 3_650
_KEYS: Final = (Code.IDEMPOTENCY_IN_PROGRESS, Code.IDEMPOTENCY_KEY_REUSED)
KeyId = Annotated[str, Path(pattern=r"^[0-9a-f\-]{1,36}$", description="Of a key, from the list.")]
ScopeText = Annotated[Scope, Field(strict=False)]
SourceText = Annotated[str, Field(min_length=1, max_length=64)]
NetworkText = Annotated[
    str,
    AfterValidator(parse_network),
    Field(min_length=2, max_length=50, examples=["10.0.0.0/8"]),
]


class KeyIn(Body):
    """Key to create: a role, scopes, or both."""

    model_config = example({"name": "engine", "role": "trader"})

    name: Annotated[str, Field(pattern=NAME_PATTERN, examples=["engine"])] = Field(
        description="Name of the key; each key has its own."
    )
    role: Annotated[Role, Field(strict=False)] | None = Field(
        None, examples=["trader"], description="Role of the key; null: scopes alone."
    )
    scopes: list[ScopeText] = Field(
        default_factory=list,
        max_length=len(Scope),
        description="Scopes of the key beside its role.",
    )
    sources: list[SourceText] = Field(
        default_factory=list,
        max_length=32,
        description="Signal sources that the scope `signals` is bound to; every source without.",
    )
    allow: list[NetworkText] = Field(
        default_factory=list,
        max_length=32,
        description="Networks that may use the key, in CIDR notation; every address without.",
    )
    expires_days: int = Field(
        EXPIRY.days, ge=1, le=MAX_DAYS, description="Time until the key expires."
    )

    @model_validator(mode="after")
    def _has_permission(self) -> Self:
        if self.role is None and not self.scopes:
            raise ValueError("a key needs a role or a scope")
        if self.sources and Scope.SIGNALS not in self.scopes:
            raise ValueError("sources need the scope signals")
        return self

    def draft(self) -> KeyDraft:
        return KeyDraft(
            self.name,
            self.role,
            frozenset(self.scopes),
            frozenset(self.sources),
            tuple(dict.fromkeys(self.allow)),
            timedelta(days=self.expires_days),
        )


class RotationIn(Body):
    """How long the replaced key stays valid."""

    grace_s: int = Field(
        int(GRACE.total_seconds()),
        ge=0,
        le=30 * 86_400,
        description="Time that the replaced key stays valid.",
    )


class KeyOut(Out):
    """API key without its text."""

    id: str = Field(description="Identifier of the key.")
    name: str = Field(description="Name of the key.")
    prefix: str = Field(description="Public start of the key.", examples=["mysym_0aB3dE9x"])
    role: Role | None = Field(description="Null for a key of scopes alone.")
    scopes: list[Scope]
    sources: list[str] = Field(description="Empty: every signal source.")
    allow: list[str] = Field(description="Networks that may use it; empty: every address.")
    state: KeyState = Field(description="State of the key.")
    created_by: str
    created_at: UtcTime
    expires_at: UtcTime | None = Field(description="Null only for the local key.")
    last_used_at: UtcTime | None = Field(description="To the minute; null before the first use.")
    revoked_at: UtcTime | None


class IssuedKeyOut(KeyOut):
    """New key with its text."""

    secret: str | None = Field(
        description="The key itself, shown this once; null in a replayed answer.",
    )


class KeysOut(Out):
    items: list[KeyOut]


def _fields(keys: ApiKeyService, key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "role": key.role,
        "scopes": order_scopes(key.scopes),
        "sources": sorted(key.sources),
        "allow": list(key.allow),
        "state": key.state(keys.clock()),
        "created_by": key.created_by,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
        "revoked_at": key.revoked_at,
    }


def _key(keys: ApiKeyService, key: ApiKey) -> KeyOut:
    return KeyOut.model_validate(_fields(keys, key))


def _issued(keys: ApiKeyService, issued: IssuedKey, secret: str | None) -> IssuedKeyOut:
    return IssuedKeyOut.model_validate({**_fields(keys, issued.key), "secret": secret})


def _respond(keys: ApiKeyService, outcome: CommandResult[IssuedKey]) -> Response:
    """The answer with the key; the stored one, which a retry gets, is without it."""
    if outcome.result is None or outcome.answer is None:
        return sent(outcome)
    shown = _issued(keys, outcome.result, outcome.result.token)
    return answer(json_bytes(shown), outcome.answer.status)


def require_grant(principal: Principal, scopes: list[Scope]) -> None:
    """Raises RequestError (forbidden) where a caller without a key would allow real money."""
    if Scope.LIVE in scopes and principal.kind is PrincipalKind.LOCAL:
        raise RequestError(Code.FORBIDDEN, "Only a caller with an admin key grants the scope live.")


@router.get("", summary="API keys", responses=problems())
@requires(Role.ADMIN)
async def list_api_keys(keys: Provided[ApiKeyService]) -> KeysOut:
    """All keys by name, also expired and revoked ones, without their texts."""
    return KeysOut(items=[_key(keys, key) for key in await keys.list()])


@router.post(
    "",
    summary="Create a key",
    status_code=201,
    response_model=IssuedKeyOut,
    responses=problems(*_KEYS, Code.KEY_NAME_TAKEN, Code.SECRETS_KEY_MISSING),
)
@requires(Role.ADMIN)
async def create_api_key(
    keys: Provided[ApiKeyService],
    principal: PrincipalDep,
    command: UnversionedDep,
    body: KeyIn,
) -> Response:
    """Create a key. The answer shows its text once; a replay of the answer has none.

    The first key ends the open mode: from then on every caller needs a key.
    """
    require_grant(principal, body.scopes)

    def render(issued: IssuedKey) -> StoredResponse:
        return keep(_issued(keys, issued, None), 201)

    return _respond(keys, await keys.create(body.draft(), command, render))


@router.post(
    "/{key_id}/rotate",
    summary="Replace a key",
    status_code=201,
    response_model=IssuedKeyOut,
    responses=problems(*_KEYS, Code.INVALID_STATE_TRANSITION, Code.SECRETS_KEY_MISSING),
)
@requires(Role.ADMIN)
async def rotate_api_key(
    keys: Provided[ApiKeyService],
    command: UnversionedDep,
    key_id: KeyId,
    body: RotationIn | None = None,
) -> Response:
    """Create a key with the same rights; the replaced one stays valid for the time of grace."""
    grace = timedelta(seconds=(body or RotationIn()).grace_s)

    def render(issued: IssuedKey) -> StoredResponse:
        return keep(_issued(keys, issued, None), 201)

    return _respond(keys, await keys.rotate(key_id, grace, command, render))


@router.delete(
    "/{key_id}", summary="Revoke a key", response_model=KeyOut, responses=problems(*_KEYS)
)
@requires(Role.ADMIN)
async def revoke_api_key(
    keys: Provided[ApiKeyService], command: UnversionedDep, key_id: KeyId
) -> Response:
    """Revoke a key within a second in every process; its open streams are closed."""

    def render(key: ApiKey) -> StoredResponse:
        return keep(_key(keys, key))

    return sent(await keys.revoke(key_id, command, render))
