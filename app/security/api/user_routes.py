"""Routes of users: the caller itself, and administration of people."""

from typing import Annotated, Literal, Self

from fastapi import Path, Request
from pydantic import Field, SecretStr, model_validator
from starlette.responses import Response

from app.foundation.errors import Code
from app.foundation.http.dependencies import Provided, RequestIdDep, UnversionedDep
from app.foundation.http.errors import RequestError, problems
from app.foundation.http.permissions import PrincipalDep, authenticated, requires
from app.foundation.http.request_body import Body
from app.foundation.http.responses import keep, sent
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import Out, UtcTime, example
from app.foundation.idempotency import Command, StoredResponse
from app.foundation.principals import Principal, PrincipalKind, Role, Scope
from app.security.api.client_address import client_of_request
from app.security.api.cookies import remove_session_cookie
from app.security.api.key_routes import ScopeText, require_grant
from app.security.api.refusals import NOTED
from app.security.domain.keys import NAME_PATTERN, order_scopes
from app.security.domain.people import User
from app.security.services.sessions import SessionService
from app.security.services.users import UserDraft, UserEdit, UserService

router = api_router("users", "/users")
_CHANGES = (Code.IDEMPOTENCY_IN_PROGRESS, Code.IDEMPOTENCY_KEY_REUSED)
UserId = Annotated[
    str, Path(pattern=r"^[0-9a-f\-]{1,36}$", description="Of a user, from the list.")
]
# Longer texts than allowed pass, so that the rule of the length explains itself.
PasswordText = Annotated[
    SecretStr,
    Field(min_length=1, max_length=1_024, description="12 to 256 visible characters."),
]
RoleText = Annotated[Role, Field(strict=False)]


class UserIn(Body):
    """User to add."""

    name: Annotated[str, Field(pattern=NAME_PATTERN, examples=["ana"])] = Field(
        description="Name of the user; each user has an own one."
    )
    role: RoleText = Field(examples=["operator"], description="Role of the user.")
    scopes: list[ScopeText] = Field(
        default_factory=list,
        max_length=len(Scope),
        description="Scopes of the user beside the role.",
    )
    password: PasswordText = Field(description="Password, at least 12 characters.")


class UserEditIn(Body):
    """Values to change; one that is absent or null stays as it is."""

    model_config = example({"role": "operator"})

    role: RoleText | None = Field(None, description="New role.")
    scopes: list[ScopeText] | None = Field(
        None, max_length=len(Scope), description="New scopes beside the role."
    )
    is_active: bool | None = Field(None, description="False disables the user.")

    @model_validator(mode="after")
    def _has_change(self) -> Self:
        if self.role is None and self.scopes is None and self.is_active is None:
            raise ValueError("a value to change is needed")
        return self

    def edit(self) -> UserEdit:
        scopes = None if self.scopes is None else frozenset(self.scopes)
        return UserEdit(self.role, scopes, self.is_active)


class PasswordIn(Body):
    """Password of another user."""

    password: PasswordText = Field(description="New password.")


class OwnPasswordIn(Body):
    """Password of the caller, who knows the current one."""

    current_password: PasswordText = Field(description="Current password.")
    password: PasswordText = Field(description="New password.")


class UserOut(Out):
    """User without the password."""

    id: str = Field(description="Identifier of the user.")
    name: str = Field(description="Name of the user.")
    role: Role
    scopes: list[Scope]
    state: Literal["active", "disabled"] = Field(description="`active` or `disabled`.")
    created_by: str
    created_at: UtcTime
    password_changed_at: UtcTime = Field(description="UTC time of the last change of the password.")
    disabled_at: UtcTime | None = Field(
        description="UTC time at which the user was disabled; null if active."
    )

    @classmethod
    def of(cls, user: User) -> Self:
        return cls.model_validate(
            {
                "id": user.id,
                "name": user.name,
                "role": user.role,
                "scopes": order_scopes(user.scopes),
                "state": "active" if user.is_active else "disabled",
                "created_by": user.created_by,
                "created_at": user.created_at,
                "password_changed_at": user.password_changed_at,
                "disabled_at": user.disabled_at,
            }
        )


class UsersOut(Out):
    items: list[UserOut]


class CallerOut(Out):
    """Caller of the request, as the service knows it."""

    actor: str = Field(description="Name in history and audit.", examples=["user:ana"])
    kind: PrincipalKind = Field(description="Kind of the principal.")
    name: str = Field(description="Name of the principal.")
    role: Role | None = Field(description="Null for a key of scopes alone.")
    scopes: list[Scope]
    sources: list[str] = Field(description="Signal sources of a key; empty: every source.")
    is_session: bool = Field(description="True for a caller by cookie.")
    expires_at: UtcTime | None = Field(
        description="End of the key or session; null without an end."
    )


@router.get("/me", summary="The caller", responses=problems())
@authenticated
async def get_caller(users: Provided[UserService], principal: PrincipalDep) -> CallerOut:
    """Name, rights and expiry of the caller: user, key, or `local` in the open mode."""
    return CallerOut(
        actor=principal.actor,
        kind=principal.kind,
        name=principal.name,
        role=principal.role,
        scopes=[Scope(scope) for scope in order_scopes(principal.scopes)],
        sources=sorted(principal.sources),
        is_session=principal.session_id is not None,
        expires_at=users.ring.expiry_of(principal),
    )


@router.put(
    "/me/password",
    summary="Change the own password",
    status_code=204,
    responses=problems(Code.INVALID_STATE_TRANSITION),
)
@authenticated
async def change_own_password(
    request: Request,
    sessions: Provided[SessionService],
    principal: PrincipalDep,
    request_id: RequestIdDep,
    body: OwnPasswordIn,
) -> Response:
    """Change the own password by the current one. All own sessions end, also this one.

    A wrong current password is 403 and counts as an attempt to log in. `Idempotency-Key` is not
    used.
    """
    changed = await sessions.change_password(
        principal,
        body.current_password.get_secret_value(),
        body.password.get_secret_value(),
        client_of_request(request.scope).counted,
        Command(principal.actor, request_id),
    )
    if changed is None:
        request.scope["state"][NOTED] = True
        raise RequestError(Code.FORBIDDEN, "The current password is wrong.")
    response = Response(status_code=204)
    remove_session_cookie(response, request.scope)
    return response


@router.get("", summary="Users", responses=problems())
@requires(Role.ADMIN)
async def list_users(users: Provided[UserService]) -> UsersOut:
    """All users by name, also disabled ones."""
    return UsersOut(items=[UserOut.of(user) for user in await users.list()])


@router.post(
    "",
    summary="Add a user",
    status_code=201,
    responses=problems(Code.USER_NAME_TAKEN, Code.SECRETS_KEY_MISSING),
)
@requires(Role.ADMIN)
async def add_user(
    users: Provided[UserService], principal: PrincipalDep, request_id: RequestIdDep, body: UserIn
) -> UserOut:
    """Add a user. The first user ends the open mode: from then on each caller needs a credential.

    `Idempotency-Key` is not used; a repetition is 409 `user_name_taken`.
    """
    require_grant(principal, body.scopes)
    draft = UserDraft(body.name, body.role, frozenset(body.scopes))
    command = Command(principal.actor, request_id)
    return UserOut.of((await users.add(draft, body.password.get_secret_value(), command)).user)


@router.patch(
    "/{user_id}",
    summary="Change, disable or enable a user",
    response_model=UserOut,
    responses=problems(*_CHANGES, Code.LAST_ADMIN),
)
@requires(Role.ADMIN)
async def update_user(
    users: Provided[UserService],
    principal: PrincipalDep,
    command: UnversionedDep,
    user_id: UserId,
    body: UserEditIn,
) -> Response:
    """Change role, scopes or state; every process and open stream follows within a second.

    The last active administrator stays one while no active admin key exists.
    """
    require_grant(principal, body.scopes or [])

    def render(user: User) -> StoredResponse:
        return keep(UserOut.of(user))

    return sent(await users.edit(user_id, body.edit(), command, render))


@router.put("/{user_id}/password", summary="Set the password of a user", responses=problems())
@requires(Role.ADMIN)
async def set_user_password(
    users: Provided[UserService],
    principal: PrincipalDep,
    request_id: RequestIdDep,
    user_id: UserId,
    body: PasswordIn,
) -> UserOut:
    """Set the password of another user, whose sessions all end. `Idempotency-Key` is not used."""
    if _is_self(principal, user_id):
        raise RequestError(
            Code.FORBIDDEN, "The own password is changed at /users/me/password, by the current one."
        )
    command = Command(principal.actor, request_id)
    password = body.password.get_secret_value()
    return UserOut.of(await users.set_password(user_id, password, command))


def _is_self(principal: Principal, user_id: str) -> bool:
    return principal.kind is PrincipalKind.USER and principal.credential_id == user_id
