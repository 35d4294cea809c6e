"""Accounts through the API: set-up, signing in, users, groups, projects, policies, tokens."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from certwright.entry.api.base import (
    CALLER,
    PUBLIC,
    SESSION_COOKIE,
    SIGNED_IN,
    Caller,
    Cursor,
    Limit,
    Page,
    Router,
    address_of,
    check_if_match,
    etag,
    json_response,
    page_of,
    read_cursor,
    request_id_of,
    services_of,
)
from certwright.rooms import access, accounts
from certwright.rooms.access import people

router = Router(tags=["accounts"])

Id = Annotated[str, Field(max_length=64)]
IdQuery = Annotated[str | None, Query(max_length=64)]
Name = Annotated[str, Field(max_length=400)]
Description = Annotated[str, Field(max_length=2000)]
Email = Annotated[str, Field(max_length=400)]
Password = Annotated[str, Field(max_length=1000, json_schema_extra={"format": "password"})]
Secret = Annotated[str, Field(max_length=200)]


class In(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _changes(body: BaseModel) -> dict[str, Any]:
    """The fields that were sent, without nulls."""
    return {name: value for name, value in body.model_dump(exclude_unset=True).items() if value is not None}


# --- set-up and signing in -------------------------------------------------------------------------------------------


class UserOut(BaseModel):
    id: str
    account_id: str
    email: str
    name: str
    has_password: bool
    disabled_at: datetime | None
    last_sign_in_at: datetime | None
    revision: int
    created_at: datetime


class SetUpIn(In):
    """`token` is from the link printed at first start."""

    token: Secret
    email: Email
    name: Name
    password: Password
    account_name: Name


@router.post("/setup", action=PUBLIC, status_code=201, response_model=UserOut)
async def set_up(body: SetUpIn, request: Request) -> Response:
    """Name the account and make its first administrator, once."""
    user = await people.set_up(
        services_of(request), body.token, email=body.email, name=body.name, password=body.password,
        account_name=body.account_name,
    )  # fmt: skip
    return json_response(user, 201, {"Location": f"/api/v1/users/{user.id}"})


class SignInIn(In):
    email: Email
    password: Password


class SignedInOut(BaseModel):
    user: UserOut
    session_id: str
    expires_at: datetime


def set_session_cookie(response: Response, signed_in: accounts.SignedIn) -> None:
    """`__Host-`: only over HTTPS, only this host, no script reads it."""
    response.set_cookie(SESSION_COOKIE, signed_in.secret, path="/", secure=True, httponly=True, samesite="lax")


@router.post(
    "/sign-in",
    action=PUBLIC,
    response_model=SignedInOut,
    responses={401: {"description": "The address or the password is wrong."}},
)
async def sign_in(body: SignInIn, request: Request) -> Response:
    """For browsers: answers with the session cookie. Programs use API tokens."""
    signed_in = await accounts.sign_in(
        services_of(request), body.email, body.password, address=address_of(request),
        user_agent=request.headers.get("user-agent", ""), request_id=request_id_of(request),
    )  # fmt: skip
    session = signed_in.session
    response = json_response({"user": signed_in.user, "session_id": session.id, "expires_at": session.expires_at})
    set_session_cookie(response, signed_in)
    return response


@router.post("/sign-out", action=SIGNED_IN, status_code=204, response_class=Response)
async def sign_out(call: Caller = CALLER) -> Response:
    """End this session; for a token nothing happens (revoke it instead)."""
    if call.session_id is not None:
        await people.end_session(call.services, call.actor, call.session_id)
    response = Response(status_code=204)
    response.delete_cookie(SESSION_COOKIE, path="/", secure=True, httponly=True, samesite="lax")
    return response


class PasswordByLinkIn(In):
    token: Secret
    password: Password


@router.post("/password-links/use", action=PUBLIC, response_model=UserOut)
async def use_password_link(body: PasswordByLinkIn, request: Request) -> Response:
    """Set the password of an invited user, or of one who forgot it; the link works once."""
    return json_response(await accounts.use_password_link(services_of(request), body.token, body.password))


# --- one's own -------------------------------------------------------------------------------------------------------


class AccountOut(BaseModel):
    id: str
    name: str
    set_up_at: datetime | None
    revision: int
    created_at: datetime


class MeOut(BaseModel):
    """`actions` may be done somewhere; single objects may still be out of reach."""

    kind: Literal["user", "token", "system"]
    id: str
    name: str
    account: AccountOut
    user: UserOut | None
    session_id: str | None
    actions: list[str]


@router.get("/me", action=SIGNED_IN, response_model=MeOut)
async def get_me(call: Caller = CALLER) -> Response:
    found = await people.me(call.services, call.actor)
    return json_response(
        {
            "kind": call.actor.kind,
            "id": call.actor.id,
            "name": call.actor.name,
            "account": found.account,
            "user": found.user,
            "session_id": call.session_id,
            "actions": [a for a in access.ACTIONS if access.allowed_somewhere(call.actor.grants, a)],
        }
    )


class PasswordIn(In):
    current: Password
    new: Password


@router.put("/me/password", action=SIGNED_IN, status_code=204, response_class=Response)
async def change_password(body: PasswordIn, call: Caller = CALLER) -> Response:
    """Change one's own password; every other session ends."""
    await people.change_password(
        call.services, call.actor, current=body.current, new=body.new, keep_session=call.session_id
    )
    return Response(status_code=204)


class SessionOut(BaseModel):
    id: str
    user_id: str
    address: str
    user_agent: str
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime


@router.get("/me/sessions", action=SIGNED_IN, response_model=Page[SessionOut])
async def list_sessions(call: Caller = CALLER) -> Response:
    return json_response({"items": await people.own_sessions(call.services, call.actor), "next_cursor": None})


@router.delete("/me/sessions/{session_id}", action=SIGNED_IN, status_code=204, response_class=Response)
async def end_session(session_id: str, call: Caller = CALLER) -> Response:
    await people.end_session(call.services, call.actor, session_id)
    return Response(status_code=204)


# --- the account -----------------------------------------------------------------------------------------------------


class AccountPatch(In):
    name: Name


def _revised(value: Any, status: int = 200, location: str | None = None) -> Response:
    headers = {"ETag": etag(value.revision)}
    if location is not None:
        headers["Location"] = location
    return json_response(value, status, headers)


@router.get("/account", action="iam:account:get", response_model=AccountOut)
async def get_account(call: Caller = CALLER) -> Response:
    return _revised(await people.get_account(call.services, call.actor))


@router.patch("/account", action="iam:account:update", response_model=AccountOut)
async def rename_account(body: AccountPatch, request: Request, call: Caller = CALLER) -> Response:
    revision = check_if_match(request)
    return _revised(await people.rename_account(call.services, call.actor, body.name, revision=revision))


# --- users -----------------------------------------------------------------------------------------------------------


class InviteIn(In):
    email: Email
    name: Name
    group_ids: list[Id] = Field(default_factory=list, max_length=50)


class InvitedOut(UserOut):
    """`password_link` is shown once; send it to the person. They set their password with it."""

    password_link: str
    link_expires_at: datetime


class UserPatch(In):
    email: Email | None = None
    name: Name | None = None
    disabled: bool | None = None


def password_link(base_url: str, link: accounts.OneTimeLink) -> str:
    return f"{base_url}/password?token={link.secret}"


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in type(value).__slots__}


def _invited(call: Caller, user: accounts.User, link: accounts.OneTimeLink, status: int) -> Response:
    shown = _fields(user) | {
        "password_link": password_link(call.services.settings.base_url, link),
        "link_expires_at": link.expires_at,
    }
    return json_response(shown, status, {"Location": f"/api/v1/users/{user.id}", "ETag": etag(user.revision)})


@router.get("/users", action="iam:user:list", response_model=Page[UserOut])
async def list_users(
    call: Caller = CALLER, group_id: IdQuery = None, limit: Limit = 20, cursor: Cursor = None
) -> Response:
    rows = await people.list_users(
        call.services, call.actor, limit=limit + 1, after=read_cursor(cursor), group_id=group_id
    )
    return page_of(rows, limit, lambda user: user.id)


@router.post("/users", action="iam:user:create", status_code=201, response_model=InvitedOut, secret=True)
async def invite_user(body: InviteIn, call: Caller = CALLER) -> Response:
    """Make a user; the answer holds the link with which they set their password within seven days."""
    user, link = await people.invite_user(
        call.services, call.actor, email=body.email, name=body.name, group_ids=body.group_ids
    )
    return _invited(call, user, link, 201)


@router.get("/users/{user_id}", action="iam:user:get", response_model=UserOut)
async def get_user(user_id: str, call: Caller = CALLER) -> Response:
    return _revised(await people.get_user(call.services, call.actor, user_id))


@router.patch("/users/{user_id}", action="iam:user:update", response_model=UserOut)
async def update_user(user_id: str, body: UserPatch, request: Request, call: Caller = CALLER) -> Response:
    """Rename, change the address, disable or enable. Disabling ends the user's sessions."""
    return _revised(
        await people.update_user(
            call.services, call.actor, user_id, revision=check_if_match(request), changes=_changes(body)
        )
    )


@router.delete("/users/{user_id}", action="iam:user:delete", status_code=204, response_class=Response)
async def delete_user(user_id: str, call: Caller = CALLER) -> Response:
    await people.delete_user(call.services, call.actor, user_id)
    return Response(status_code=204)


@router.post(
    "/users/{user_id}/password-link", action="iam:user:update", status_code=201, response_model=InvitedOut, secret=True
)
async def new_password_link(user_id: str, call: Caller = CALLER) -> Response:
    """A new link for someone who lost theirs or forgot the password; earlier links stop working."""
    user, link = await people.new_password_link(call.services, call.actor, user_id)
    return _invited(call, user, link, 201)


# --- groups ----------------------------------------------------------------------------------------------------------


class GroupOut(BaseModel):
    id: str
    account_id: str
    name: str
    description: str
    revision: int
    created_at: datetime


class NamedIn(In):
    name: Name
    description: Description = ""


class NamedPatch(In):
    name: Name | None = None
    description: Description | None = None


@router.get("/groups", action="iam:group:list", response_model=Page[GroupOut])
async def list_groups(
    call: Caller = CALLER, user_id: IdQuery = None, limit: Limit = 20, cursor: Cursor = None
) -> Response:
    rows = await people.list_groups(
        call.services, call.actor, limit=limit + 1, after=read_cursor(cursor), user_id=user_id
    )
    return page_of(rows, limit, lambda group: group.id)


@router.post("/groups", action="iam:group:create", status_code=201, response_model=GroupOut)
async def create_group(body: NamedIn, call: Caller = CALLER) -> Response:
    group = await people.create_group(call.services, call.actor, name=body.name, description=body.description)
    return _revised(group, 201, f"/api/v1/groups/{group.id}")


@router.get("/groups/{group_id}", action="iam:group:get", response_model=GroupOut)
async def get_group(group_id: str, call: Caller = CALLER) -> Response:
    return _revised(await people.get_group(call.services, call.actor, group_id))


@router.patch("/groups/{group_id}", action="iam:group:update", response_model=GroupOut)
async def update_group(group_id: str, body: NamedPatch, request: Request, call: Caller = CALLER) -> Response:
    revision = check_if_match(request)
    return _revised(
        await people.update_group(call.services, call.actor, group_id, revision=revision, changes=_changes(body))
    )


@router.delete("/groups/{group_id}", action="iam:group:delete", status_code=204, response_class=Response)
async def delete_group(group_id: str, call: Caller = CALLER) -> Response:
    await people.delete_group(call.services, call.actor, group_id)
    return Response(status_code=204)


@router.get("/groups/{group_id}/members", action="iam:group:get", response_model=Page[UserOut])
async def list_members(group_id: str, call: Caller = CALLER, limit: Limit = 20, cursor: Cursor = None) -> Response:
    rows = await people.list_members(call.services, call.actor, group_id, limit=limit + 1, after=read_cursor(cursor))
    return page_of(rows, limit, lambda user: user.id)


@router.put("/groups/{group_id}/members/{user_id}", action="iam:group:update", status_code=204, response_class=Response)
async def add_member(group_id: str, user_id: str, call: Caller = CALLER) -> Response:
    await people.add_member(call.services, call.actor, group_id, user_id)
    return Response(status_code=204)


@router.delete(
    "/groups/{group_id}/members/{user_id}", action="iam:group:update", status_code=204, response_class=Response
)
async def remove_member(group_id: str, user_id: str, call: Caller = CALLER) -> Response:
    await people.remove_member(call.services, call.actor, group_id, user_id)
    return Response(status_code=204)


# --- projects --------------------------------------------------------------------------------------------------------


class ProjectOut(BaseModel):
    id: str
    account_id: str
    name: str
    description: str
    is_default: bool
    revision: int
    created_at: datetime


@router.get("/projects", action="iam:project:list", response_model=Page[ProjectOut])
async def list_projects(call: Caller = CALLER, limit: Limit = 20, cursor: Cursor = None) -> Response:
    rows = await people.list_projects(call.services, call.actor, limit=limit + 1, after=read_cursor(cursor))
    return page_of(rows, limit, lambda project: project.id)


@router.post("/projects", action="iam:project:create", status_code=201, response_model=ProjectOut)
async def create_project(body: NamedIn, call: Caller = CALLER) -> Response:
    project = await people.create_project(call.services, call.actor, name=body.name, description=body.description)
    return _revised(project, 201, f"/api/v1/projects/{project.id}")


@router.get("/projects/{project_id}", action="iam:project:get", response_model=ProjectOut)
async def get_project(project_id: str, call: Caller = CALLER) -> Response:
    return _revised(await people.get_project(call.services, call.actor, project_id))


@router.patch("/projects/{project_id}", action="iam:project:update", response_model=ProjectOut)
async def update_project(project_id: str, body: NamedPatch, request: Request, call: Caller = CALLER) -> Response:
    revision = check_if_match(request)
    return _revised(
        await people.update_project(call.services, call.actor, project_id, revision=revision, changes=_changes(body))
    )


@router.delete("/projects/{project_id}", action="iam:project:delete", status_code=204, response_class=Response)
async def delete_project(project_id: str, call: Caller = CALLER) -> Response:
    """Only an empty project, and not the default one."""
    await people.delete_project(call.services, call.actor, project_id)
    return Response(status_code=204)


# --- policies --------------------------------------------------------------------------------------------------------


class StatementDoc(BaseModel):
    Effect: Literal["Allow", "Deny"]
    Action: list[str]
    Resource: list[str] = ["*"]


class DocumentDoc(BaseModel):
    """`Version` is 1.1. Patterns use `*`; Deny wins over Allow; what nothing matches is denied."""

    Version: str
    Statement: list[StatementDoc]


class PolicyOut(BaseModel):
    """`system` policies are the same in every account and can't be changed."""

    id: str
    name: str
    description: str
    system: bool
    document: DocumentDoc
    revision: int
    created_at: datetime | None


class PolicyIn(In):
    name: Name
    description: Description = ""
    document: dict[str, Any] = Field(
        description="A policy document",
        examples=[{"Version": "1.1", "Statement": [{"Effect": "Allow", "Action": ["scm:cert:list"]}]}],
    )


class PolicyPatch(In):
    name: Name | None = None
    description: Description | None = None
    document: dict[str, Any] | None = None


class ActionOut(BaseModel):
    action: str
    description: str


class ActionsOut(BaseModel):
    items: list[ActionOut]


@router.get("/actions", action=SIGNED_IN, response_model=ActionsOut)
async def list_actions() -> Response:
    """The catalogue of actions that policies may name."""
    return json_response({"items": [{"action": a, "description": d} for a, d in access.ACTIONS.items()]})


def policy_json(policy: access.Policy) -> dict[str, Any]:
    fields: Mapping[str, Any] = _fields(policy)
    return {name: value for name, value in fields.items() if name != "account_id"} | {"system": policy.is_system}


def _policy(policy: access.Policy, status: int = 200, location: str | None = None) -> Response:
    headers = {"ETag": etag(policy.revision)} | ({"Location": location} if location else {})
    return json_response(policy_json(policy), status, headers)


@router.get("/policies", action="iam:policy:list", response_model=Page[PolicyOut])
async def list_policies(call: Caller = CALLER, limit: Limit = 20, cursor: Cursor = None) -> Response:
    """The account's own policies; system policies are listed at /system-policies."""
    rows = await people.list_policies(call.services, call.actor, limit=limit + 1, after=read_cursor(cursor))
    return page_of(rows, limit, lambda policy: policy.id, policy_json)


@router.get("/system-policies", action="iam:policy:list", response_model=Page[PolicyOut])
async def list_system_policies() -> Response:
    return json_response({"items": [policy_json(p) for p in access.SYSTEM_POLICIES.values()], "next_cursor": None})


@router.post("/policies", action="iam:policy:create", status_code=201, response_model=PolicyOut)
async def create_policy(body: PolicyIn, call: Caller = CALLER) -> Response:
    policy = await people.create_policy(
        call.services, call.actor, name=body.name, description=body.description, document=body.document
    )
    return _policy(policy, 201, f"/api/v1/policies/{policy.id}")


class SimulateIn(In):
    """`resource` as kind:id (certificate:cert_…); leave it out for no object in particular."""

    user_id: Id
    action: Annotated[str, Field(max_length=100)]
    resource: Annotated[str, Field(max_length=256)] | None = None
    project_id: Id | None = None


class DecisionOut(BaseModel):
    allowed: bool
    reason: str
    policy: str | None
    statement: int | None


@router.post("/policies/simulate", action="iam:policy:list", response_model=DecisionOut)
async def simulate(body: SimulateIn, call: Caller = CALLER) -> Response:
    """May that user do it, and because of which statement?"""
    return json_response(
        await people.simulate(
            call.services, call.actor, user_id=body.user_id, action=body.action, resource=body.resource,
            project_id=body.project_id,
        )
    )  # fmt: skip


@router.get("/policies/{policy_id}", action="iam:policy:get", response_model=PolicyOut)
async def get_policy(policy_id: str, call: Caller = CALLER) -> Response:
    """A policy of the account or a system policy."""
    return _policy(await people.get_policy(call.services, call.actor, policy_id))


@router.patch("/policies/{policy_id}", action="iam:policy:update", response_model=PolicyOut)
async def update_policy(policy_id: str, body: PolicyPatch, request: Request, call: Caller = CALLER) -> Response:
    revision = check_if_match(request)
    return _policy(
        await people.update_policy(call.services, call.actor, policy_id, revision=revision, changes=_changes(body))
    )


@router.delete("/policies/{policy_id}", action="iam:policy:delete", status_code=204, response_class=Response)
async def delete_policy(policy_id: str, call: Caller = CALLER) -> Response:
    """Only while it is attached nowhere and narrows no token."""
    await people.delete_policy(call.services, call.actor, policy_id)
    return Response(status_code=204)


class AttachmentIn(In):
    """`policy` is the id of a policy; give either `user_id` or `group_id`."""

    policy: Id
    user_id: Id | None = None
    group_id: Id | None = None
    project_id: Id | None = None


class AttachmentOut(BaseModel):
    id: str
    account_id: str
    policy: str
    user_id: str | None
    group_id: str | None
    project_id: str | None
    created_at: datetime


@router.get("/policy-attachments", action="iam:policy:list", response_model=Page[AttachmentOut])
async def list_attachments(
    call: Caller = CALLER,
    user_id: IdQuery = None,
    group_id: IdQuery = None,
    policy: IdQuery = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    rows = await people.list_attachments(
        call.services, call.actor, limit=limit + 1, after=read_cursor(cursor), user_id=user_id, group_id=group_id,
        policy=policy,
    )  # fmt: skip
    return page_of(rows, limit, lambda attachment: attachment.id)


@router.post("/policy-attachments", action="iam:policy:update", status_code=201, response_model=AttachmentOut)
async def attach_policy(body: AttachmentIn, call: Caller = CALLER) -> Response:
    """Give a policy to a user or a group, perhaps for one project only. Nobody can give what they don't hold."""
    made = await people.attach_policy(call.services, call.actor, **body.model_dump())
    return json_response(made, 201, {"Location": f"/api/v1/policy-attachments/{made.id}"})


@router.get("/policy-attachments/{attachment_id}", action="iam:policy:get", response_model=AttachmentOut)
async def get_attachment(attachment_id: str, call: Caller = CALLER) -> Response:
    return json_response(await people.get_attachment(call.services, call.actor, attachment_id))


@router.delete(
    "/policy-attachments/{attachment_id}", action="iam:policy:update", status_code=204, response_class=Response
)
async def detach_policy(attachment_id: str, call: Caller = CALLER) -> Response:
    await people.detach_policy(call.services, call.actor, attachment_id)
    return Response(status_code=204)


# --- tokens ----------------------------------------------------------------------------------------------------------


class TokenIn(In):
    """Without `policies` the token may do what you may; with them only that, and never more than you.

    Made with a token, it ends with that one at the latest."""

    name: Name
    days: Annotated[int, Field(ge=1, le=accounts.rules.TOKEN_DAYS_MAX)] | None = Field(
        default=None, description=f"default {accounts.rules.TOKEN_DAYS_DEFAULT}, or what is left of the token used"
    )
    policies: list[Id] | None = Field(default=None, max_length=20)


class TokenOut(BaseModel):
    id: str
    account_id: str
    user_id: str
    name: str
    policies: list[str] | None
    expires_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    revision: int
    created_at: datetime


class NewTokenOut(TokenOut):
    """`token` is shown this once."""

    token: str


class TokenPatch(In):
    name: Name


@router.get("/tokens", action=SIGNED_IN, response_model=Page[TokenOut])
async def list_tokens(call: Caller = CALLER, limit: Limit = 20, cursor: Cursor = None) -> Response:
    """Your own, and with iam:token:list everybody's."""
    rows = await people.list_tokens(call.services, call.actor, limit=limit + 1, after=read_cursor(cursor))
    return page_of(rows, limit, lambda token: token.id)


@router.post("/tokens", action="iam:token:create", status_code=201, response_model=NewTokenOut, secret=True)
async def create_token(body: TokenIn, call: Caller = CALLER) -> Response:
    made = await people.create_token(call.services, call.actor, name=body.name, days=body.days, policies=body.policies)
    headers = {"Location": f"/api/v1/tokens/{made.token.id}", "ETag": etag(made.token.revision)}
    return json_response(_fields(made.token) | {"token": made.text}, 201, headers)


@router.get("/tokens/{token_id}", action=SIGNED_IN, response_model=TokenOut)
async def get_token(token_id: str, call: Caller = CALLER) -> Response:
    return _revised(await people.get_token(call.services, call.actor, token_id))


@router.patch("/tokens/{token_id}", action=SIGNED_IN, response_model=TokenOut)
async def rename_token(token_id: str, body: TokenPatch, request: Request, call: Caller = CALLER) -> Response:
    revision = check_if_match(request)
    return _revised(await people.rename_token(call.services, call.actor, token_id, body.name, revision=revision))


@router.delete("/tokens/{token_id}", action=SIGNED_IN, status_code=204, response_class=Response)
async def revoke_token(token_id: str, call: Caller = CALLER) -> Response:
    """At once here, within a second in other processes. Revoking again changes nothing."""
    await people.revoke_token(call.services, call.actor, token_id)
    return Response(status_code=204)
