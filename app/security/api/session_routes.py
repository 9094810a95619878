"""Routes of sessions: log-in, list, end and log-out."""

from typing import Annotated, Self

from fastapi import Path, Request
from pydantic import Field, SecretStr, model_validator
from starlette.responses import Response

from app.foundation.errors import Code
from app.foundation.http.csrf import is_own_page
from app.foundation.http.dependencies import Provided, RequestIdDep
from app.foundation.http.errors import RequestError, problems
from app.foundation.http.permissions import PrincipalDep, authenticated, principal_of, public
from app.foundation.http.request_body import Body
from app.foundation.http.responses import answer, json_bytes
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import Out, UtcTime, example
from app.foundation.principals import Principal, PrincipalKind
from app.security.api.authentication import is_local_caller
from app.security.api.client_address import client_of_request
from app.security.api.cookies import is_encrypted, remove_session_cookie, set_session_cookie
from app.security.api.refusals import NOTED
from app.security.services.sessions import LiveSession, SessionService

router = api_router("sessions", "/sessions")
SessionId = Annotated[str, Path(pattern=r"^[0-9a-f\-]{1,36}$", description="From the list.")]
SecretText = Annotated[SecretStr, Field(min_length=1, max_length=1_024)]


class LogInIn(Body):
    """Name and password, or an API key."""

    model_config = example({"name": "ana", "password": "correct horse battery staple"})

    name: Annotated[str, Field(min_length=1, max_length=100, examples=["ana"])] | None = Field(
        None, description="Name of the user."
    )
    password: SecretText | None = Field(None, description="Password of the user.")
    key: SecretText | None = Field(None, description="API key, in place of name and password.")

    @model_validator(mode="after")
    def _is_one_credential(self) -> Self:
        given = (self.name is not None, self.password is not None, self.key is not None)
        if given not in {(True, True, False), (False, False, True)}:
            raise ValueError("name and password are needed, or a key")
        return self


class SessionOut(Out):
    """Live session; its text is in the cookie only."""

    id: str = Field(description="Identifier of the session.")
    actor: str = Field(description="Caller in history and audit.", examples=["user:ana"])
    kind: PrincipalKind = Field(description="Kind of the principal.")
    is_current: bool = Field(description="True for the session of this request.")
    created_at: UtcTime
    last_used_at: UtcTime = Field(description="To the minute.")
    expires_at: UtcTime = Field(description="Its end; an unused session ends earlier.")


class SessionsOut(Out):
    items: list[SessionOut]


def _session(live: LiveSession, current_id: str | None) -> SessionOut:
    return SessionOut(
        id=live.session.id,
        actor=live.principal.actor,
        kind=live.principal.kind,
        is_current=live.session.id == current_id,
        created_at=live.session.created_at,
        last_used_at=live.last_used_at,
        expires_at=live.session.expires_at,
    )


@router.post(
    "",
    summary="Log in",
    status_code=201,
    response_model=SessionOut,
    responses=problems(
        Code.UNAUTHENTICATED, Code.CSRF_REFUSED, Code.RATE_LIMITED, Code.SECRETS_KEY_MISSING
    ),
)
@public
async def log_in(
    request: Request, sessions: Provided[SessionService], request_id: RequestIdDep, body: LogInIn
) -> Response:
    """Start a session by name and password, or by an API key, whose rights it then has.

    The answer sets the cookie of the session, always a new one; a session of the same browser
    ends. Wrong names and wrong passwords get the same answer. Ten attempts a minute are allowed
    for an address, and for a name. `Idempotency-Key` is not used.
    """
    if is_own_page(request.scope) is False:
        raise RequestError(Code.CSRF_REFUSED, "A page of another origin may not log in here.")
    if not (
        is_encrypted(request.scope)
        or is_local_caller(request.scope)
        or sessions.policy.allows_plain
    ):
        raise RequestError(
            Code.FORBIDDEN, "A log-in from another machine needs TLS; keys work without it."
        )
    client, replaced = client_of_request(request.scope), principal_of(request.scope).session_id
    if body.key is not None:
        key = body.key.get_secret_value()
        issued = await sessions.exchange(key, client, replaced, request_id)
    else:
        password = "" if body.password is None else body.password.get_secret_value()
        issued = await sessions.log_in(
            body.name or "", password, client.counted, replaced, request_id
        )
    if issued is None:
        request.scope["state"][NOTED] = True
        raise RequestError(Code.UNAUTHENTICATED, "Name, password or key is wrong.")
    session = issued.session
    live = LiveSession(session, issued.principal, session.last_used_at)
    response = answer(json_bytes(_session(live, session.id)), 201)
    set_session_cookie(response, request.scope, issued.token)
    return response


@router.get("", summary="Live sessions", responses=problems())
@authenticated
async def list_sessions(sessions: Provided[SessionService], principal: PrincipalDep) -> SessionsOut:
    """Live sessions of the caller; an administrator sees those of all callers."""
    found = await sessions.list(principal)
    return SessionsOut(items=[_session(one, principal.session_id) for one in found])


@router.delete("/current", summary="Log out", status_code=204, responses=problems(Code.NOT_FOUND))
@authenticated
async def log_out(
    request: Request,
    sessions: Provided[SessionService],
    principal: PrincipalDep,
    request_id: RequestIdDep,
) -> Response:
    """End the session of this request and let the browser forget its data of this origin."""
    if principal.session_id is None:
        raise RequestError(Code.NOT_FOUND, "This request has no session.")
    peer = client_of_request(request.scope).counted
    await sessions.end(principal.session_id, principal, peer, request_id)
    return _ended(request, principal, principal.session_id)


@router.delete("/{session_id}", summary="End a session", status_code=204, responses=problems())
@authenticated
async def end_session(
    request: Request,
    sessions: Provided[SessionService],
    principal: PrincipalDep,
    request_id: RequestIdDep,
    session_id: SessionId,
) -> Response:
    """End a session within a second in every process; its open streams are closed.

    An administrator may end each session, every other caller the own ones.
    """
    await sessions.end(session_id, principal, client_of_request(request.scope).counted, request_id)
    return _ended(request, principal, session_id)


def _ended(request: Request, principal: Principal, session_id: str) -> Response:
    response = Response(status_code=204)
    if session_id == principal.session_id:
        remove_session_cookie(response, request.scope)
    return response
