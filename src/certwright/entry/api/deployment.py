"""`/api/v1/targets`, `/bindings`, `/deployments`, `/rollouts`: where certificates are put to work."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from certwright.entry.api.base import (
    CALLER,
    Caller,
    Cursor,
    Limit,
    Page,
    Router,
    check_if_match,
    etag,
    json_response,
    page_of,
    read_cursor,
)
from certwright.rooms import deployment
from certwright.rooms.deployment import RolloutView, SiteView, TargetView

router = Router(tags=["deployment"])

Id = Annotated[str, Field(max_length=64)]
IdFilter = Annotated[str | None, Query(max_length=64)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TargetIn(_In):
    """A connection to something that terminates TLS. What `config` may hold depends on the kind.

    nginx: `nginx` (path of the program), `config` (path of its main file), `prefix`, `reload` (list of words),
    `connect_host` (where listeners on all addresses are reached from this server); all have defaults.
    """

    name: str = Field(max_length=200)
    kind: str = Field(default="nginx", max_length=40)
    config: dict[Annotated[str, Field(max_length=100)], Any] = Field(default_factory=dict, max_length=50)
    region: str = Field(default="", max_length=200)
    project_id: Id | None = None


class TargetPatch(_In):
    name: Annotated[str, Field(max_length=200)] | None = None
    config: Annotated[dict[Annotated[str, Field(max_length=100)], Any], Field(max_length=50)] | None = None
    region: Annotated[str, Field(max_length=200)] | None = None


class BindingIn(_In):
    certificate_id: Id
    site_id: Id
    replace: bool = Field(default=False, description="take the place of another certificate's binding")


class DeploymentIn(_In):
    certificate_id: Id
    site_ids: list[Id] = Field(max_length=500)
    replace: bool = Field(default=False, description="take the place of other certificates bound there")


class PreviewIn(_In):
    certificate_id: Id
    site_ids: list[Id] = Field(max_length=500)


class TargetOut(BaseModel):
    id: str
    project_id: str
    name: str
    kind: str
    region: str
    config: dict[str, Any]
    health: deployment.Health
    health_problem: dict[str, Any] | None
    software: str
    discovered_at: datetime | None
    created_at: datetime
    updated_at: datetime
    revision: int


class BindingOut(BaseModel):
    """This certificate serves this site; `current` says whether its current version is deployed there."""

    id: str
    project_id: str
    target_id: str
    target: str
    site_id: str
    site: str
    slot: str
    certificate_id: str
    deployed_version_id: str | None
    deployed_at: datetime | None
    current: bool
    auto_deploy: bool
    created_at: datetime


class ListenerOut(BaseModel):
    host: str
    port: int
    default_server: bool
    http2: bool
    quic: bool
    proxy_protocol: bool
    unix: bool


class InstalledOut(BaseModel):
    """The certificate found in the site's file."""

    sha256: str
    names: list[str]
    not_after: datetime
    key_kind: str | None


class SlotOut(BaseModel):
    certificate_path: str
    key_path: str
    passphrase_path: str | None
    installed: InstalledOut | None


class SiteOut(BaseModel):
    id: str
    target_id: str
    label: str
    names: list[str]
    protocol: str
    listeners: list[ListenerOut]
    slots: list[SlotOut]
    source: str
    managed: bool
    unmanaged_code: str | None
    unmanaged_reason: str | None
    gone_at: datetime | None
    bindings: list[BindingOut]


class SitesOut(BaseModel):
    items: list[SiteOut]
    next_cursor: str | None


class CautionOut(BaseModel):
    code: str
    message: str
    names: list[str]


class PreviewOut(BaseModel):
    target_id: str
    files: list[str]
    addresses: list[str]
    sites: list[str]
    cautions: list[CautionOut]


class PreviewsOut(BaseModel):
    items: list[PreviewOut]


class RolloutItemOut(BaseModel):
    binding_id: str | None
    site_id: str | None
    site: str
    certificate_id: str
    version_id: str
    previous_version_id: str | None


class RolloutStepOut(BaseModel):
    step: deployment.Step
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    details: list[str]
    problem: dict[str, Any] | None


class RolloutOut(BaseModel):
    """`next_step` is null when it is finished; `waiting_for` says what keeps the next step from running now."""

    id: str
    project_id: str
    target_id: str
    target: str
    state: deployment.RolloutState
    trigger: deployment.Trigger
    requested_by: str
    next_step: deployment.Step | None
    problem: dict[str, Any] | None
    waiting_for: dict[str, Any] | None
    cautions: list[CautionOut]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    items: list[RolloutItemOut]
    steps: list[RolloutStepOut]


class DeploymentOut(BaseModel):
    rollouts: list[RolloutOut]


def site_json(view: SiteView) -> dict[str, Any]:
    """The document of one site; SiteOut says the same to OpenAPI."""
    site = view.site
    return {
        "id": view.id,
        "target_id": view.target_id,
        "label": view.label,
        "names": site.names,
        "protocol": site.protocol,
        "listeners": [
            {
                "host": one.host,
                "port": one.port,
                "default_server": one.default_server,
                "http2": one.http2,
                "quic": one.quic,
                "proxy_protocol": one.proxy_protocol,
                "unix": one.unix,
            }
            for one in site.listeners
        ],
        "slots": [
            {
                "certificate_path": slot.certificate_path,
                "key_path": slot.key_path,
                "passphrase_path": slot.passphrase_path,
                "installed": slot.installed,
            }
            for slot in site.slots
        ],
        "source": site.source,
        "managed": site.managed,
        "unmanaged_code": site.unmanaged_code,
        "unmanaged_reason": site.unmanaged_reason,
        "gone_at": view.gone_at,
        "bindings": view.bindings,
    }


def _target(view: TargetView, status: int = 200) -> Response:
    headers = {"ETag": etag(view.revision)}
    if status == 201:
        headers["Location"] = f"/api/v1/targets/{view.id}"
    return json_response(view, status, headers)


def _rollout(view: RolloutView, status: int = 200) -> Response:
    return json_response(view, status, {"Location": f"/api/v1/rollouts/{view.id}"} if status == 202 else None)


def _sites(views: tuple[SiteView, ...]) -> Response:
    return json_response({"items": [site_json(view) for view in views], "next_cursor": None})


# --- targets --------------------------------------------------------------------------------------------------------


@router.get("/targets", action="scm:target:list", response_model=Page[TargetOut])
async def list_targets(call: Caller = CALLER, limit: Limit = 20, cursor: Cursor = None) -> Response:
    """Targets you may see, newest first."""
    rows = await deployment.list_targets(call.services, call.actor, after=read_cursor(cursor), limit=limit + 1)
    return page_of(rows, limit, lambda row: row.id)


@router.post("/targets", action="scm:target:create", status_code=201, response_model=TargetOut)
async def create_target(body: TargetIn, call: Caller = CALLER) -> Response:
    """Add a server. Nothing is looked at yet: discover its sites next."""
    view = await deployment.create_target(
        call.services, call.actor, name=body.name, kind=body.kind, config=body.config, region=body.region,
        project_id=body.project_id,
    )  # fmt: skip
    return _target(view, 201)


@router.get("/targets/{target_id}", action="scm:target:get", response_model=TargetOut)
async def get_target(target_id: str, call: Caller = CALLER) -> Response:
    return _target(await deployment.get_target(call.services, call.actor, target_id))


@router.patch("/targets/{target_id}", action="scm:target:update", response_model=TargetOut)
async def update_target(target_id: str, body: TargetPatch, request: Request, call: Caller = CALLER) -> Response:
    """Change name, region or config (as a whole). Needs If-Match."""
    view = await deployment.update_target(
        call.services, call.actor, target_id, revision=check_if_match(request), **body.model_dump()
    )
    return _target(view)


@router.delete("/targets/{target_id}", action="scm:target:delete", status_code=204, response_class=Response)
async def delete_target(target_id: str, call: Caller = CALLER) -> Response:
    """Forget a server; it goes on serving what it has. Refused while certificates are bound to its sites."""
    await deployment.delete_target(call.services, call.actor, target_id)
    return Response(status_code=204)


@router.post("/targets/{target_id}/discover", action="scm:target:discover", response_model=SitesOut)
async def discover(target_id: str, call: Caller = CALLER) -> Response:
    """Look at the server now and answer with its sites."""
    return _sites(await deployment.discover(call.services, call.actor, target_id))


@router.get("/targets/{target_id}/sites", action="scm:target:get", response_model=SitesOut)
async def list_sites(target_id: str, call: Caller = CALLER) -> Response:
    """The sites as last discovered."""
    return _sites(await deployment.list_sites(call.services, call.actor, target_id))


# --- bindings -------------------------------------------------------------------------------------------------------


@router.get("/bindings", action="scm:target:get", response_model=Page[BindingOut])
async def list_bindings(
    call: Caller = CALLER,
    certificate_id: IdFilter = None,
    target_id: IdFilter = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """Which certificate serves where, oldest binding first."""
    rows = await deployment.list_bindings(
        call.services, call.actor, certificate_id=certificate_id, target_id=target_id, after=read_cursor(cursor),
        limit=limit + 1,
    )  # fmt: skip
    return page_of(rows, limit, lambda row: row.id)


@router.post("/bindings", action="scm:cert:deploy", status_code=201, response_model=BindingOut)
async def bind(body: BindingIn, call: Caller = CALLER) -> Response:
    """Say that a certificate serves a site without deploying it: for one that is installed there already."""
    view = await deployment.bind(call.services, call.actor, body.site_id, body.certificate_id, replace=body.replace)
    return json_response(view, 201)


@router.delete("/bindings/{binding_id}", action="scm:target:update", status_code=204, response_class=Response)
async def unbind(binding_id: str, call: Caller = CALLER) -> Response:
    """The site goes on serving what it has, but new versions are no longer deployed there."""
    await deployment.unbind(call.services, call.actor, binding_id)
    return Response(status_code=204)


# --- deployments and rollouts ---------------------------------------------------------------------------------------


@router.post("/deployments/preview", action="scm:cert:deploy", response_model=PreviewsOut)
async def preview(body: PreviewIn, call: Caller = CALLER) -> Response:
    """What deploying would change, and what to know before confirming; changes nothing."""
    found = await deployment.preview(call.services, call.actor, body.certificate_id, body.site_ids)
    return json_response({"items": found})


@router.post("/deployments", action="scm:cert:deploy", status_code=202, response_model=DeploymentOut)
async def deploy(body: DeploymentIn, call: Caller = CALLER) -> Response:
    """Put a certificate on these sites: one rollout per target. Look at each rollout for how it goes."""
    started = await deployment.deploy(
        call.services, call.actor, body.certificate_id, body.site_ids, replace=body.replace
    )
    return json_response({"rollouts": started}, 202, {"Location": f"/api/v1/rollouts/{started[0].id}"})


@router.get("/rollouts", action="scm:rollout:list", response_model=Page[RolloutOut])
async def list_rollouts(
    call: Caller = CALLER,
    certificate_id: IdFilter = None,
    target_id: IdFilter = None,
    state: Annotated[deployment.RolloutState | None, Query()] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """Rollouts you may see, newest first, without their steps."""
    rows = await deployment.list_rollouts(
        call.services, call.actor, certificate_id=certificate_id, target_id=target_id, state=state,
        after=read_cursor(cursor), limit=limit + 1,
    )  # fmt: skip
    return page_of(rows, limit, lambda row: row.id)


@router.get("/rollouts/{rollout_id}", action="scm:rollout:get", response_model=RolloutOut)
async def get_rollout(rollout_id: str, call: Caller = CALLER) -> Response:
    """A rollout with every step run so far; `next_step` is null when it is finished."""
    return _rollout(await deployment.get_rollout(call.services, call.actor, rollout_id))


@router.post("/rollouts/{rollout_id}/undo", action="scm:rollout:undo", status_code=202, response_model=RolloutOut)
async def undo_rollout(rollout_id: str, call: Caller = CALLER) -> Response:
    """Put back what was there before; also tries again an undo that failed."""
    return _rollout(await deployment.undo_rollout(call.services, call.actor, rollout_id), 202)
