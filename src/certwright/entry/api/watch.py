"""`/api/v1/endpoints` and `/alarms`: what is watched, what was seen there, and what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

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
from certwright.rooms import watch
from certwright.x509.certificates import to_pem

router = Router(tags=["watching"])

Id = Annotated[str, Field(max_length=64)]
IdFilter = Annotated[str | None, Query(max_length=64)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EndpointIn(_In):
    """An address to watch. `sni` is the name to ask for and expect; without it the host is."""

    host: str = Field(max_length=300, description="host name or IP address")
    port: int = Field(default=443, ge=1, le=65535)
    sni: Annotated[str, Field(max_length=300)] | None = None
    starttls: watch.StartTls = watch.StartTls.NONE
    certificate_id: Id | None = Field(default=None, description="the certificate whose newest version should be served")
    project_id: Id | None = None


class EndpointPatch(_In):
    """Only what is given is changed; `certificate_id: null` expects no certificate in particular."""

    enabled: bool | None = None
    certificate_id: Id | None = None


class EndpointOut(BaseModel):
    """`reachable` and what follows are of the last probe; of several addresses, the certificate that ends first."""

    id: str
    project_id: str
    name: str
    host: str
    port: int
    sni: str | None
    starttls: watch.StartTls
    origin: watch.Origin
    binding_id: str | None
    site_id: str | None
    certificate_id: str | None
    expected_fingerprint: str | None
    enabled: bool
    last_probe_at: datetime | None
    next_probe_at: datetime | None
    reachable: bool | None
    fingerprint: str | None
    subject: str | None
    issuer: str | None
    serial: str | None
    not_before: datetime | None
    not_after: datetime | None
    created_at: datetime
    revision: int


class LinkOut(BaseModel):
    subject: str
    issuer: str
    fingerprint: str
    not_after: datetime


class ObservationOut(BaseModel):
    """What one address served from `first_seen` to `last_seen`; `superseded_at` is null while it still does."""

    id: str
    address: str
    first_seen: datetime
    last_seen: datetime
    superseded_at: datetime | None
    reachable: bool
    problem: str | None
    detail: str
    intended: bool | None
    fingerprint: str | None
    names: list[str]
    not_before: datetime | None
    not_after: datetime | None
    chain_state: watch.Chain | None
    trusted: bool | None
    chain: list[LinkOut]
    chain_pem: str
    tls_version: str | None
    cipher: str | None
    key_exchange_group: str | None
    latency_ms: float | None


class ValueOut(BaseModel):
    at: datetime
    value: float


class AlarmOut(BaseModel):
    id: str
    project_id: str
    kind: str
    name: str
    severity: watch.Severity = Field(description="`cleared` when it is over")
    raised_severity: watch.Severity = Field(description="what it was when it was open last")
    state: Literal["open", "cleared"]
    message: str
    reason: str
    params: dict[str, Any]
    threshold: int | None
    object_type: str
    object_id: str
    object_name: str
    host_ips: list[str]
    location: dict[str, Any]
    recent_values: list[ValueOut]
    raised_at: datetime
    changed_at: datetime
    cleared_at: datetime | None
    cleared_by: str | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None


class AlarmKindOut(BaseModel):
    id: str
    name: str
    severities: list[str]
    resource_type: str
    monitor_type: str
    unit: str
    threshold: str
    causes: list[str]
    impact: str
    handling: list[str]
    auto_clear: bool


class AlarmChangeOut(BaseModel):
    id: str
    at: datetime
    what: Literal["raised", "changed", "cleared", "acknowledged", "unacknowledged"]
    severity: watch.Severity
    threshold: int | None
    message: str
    by: str


class AlarmDetailOut(AlarmOut):
    """With what it means, what may have caused it, what to do, and how it went."""

    catalogue: AlarmKindOut
    history: list[AlarmChangeOut]


class EndpointDetailOut(EndpointOut):
    current: list[ObservationOut]
    alarms: list[AlarmOut]


class AcknowledgeIn(_In):
    acknowledged: bool = Field(default=True, description="false takes it back")


class WatchCountsOut(BaseModel):
    alarms: dict[str, int]
    endpoints: int
    reachable: int
    unreachable: int


def endpoint_json(row: Any) -> dict[str, Any]:
    """The document of one endpoint; EndpointOut says the same to OpenAPI."""
    shown = {name: getattr(row, name) for name in EndpointOut.model_fields if name not in ("name", "sni")}
    return shown | {"name": watch.name_of(row), "sni": row.sni or None}


def observation_json(row: Any) -> dict[str, Any]:
    skipped = ("chain", "chain_pem")
    shown = {name: getattr(row, name) for name in ObservationOut.model_fields if name not in skipped}
    return shown | {"chain": row.links, "chain_pem": "".join(to_pem(der) for der in row.chain_ders)}


def alarm_json(row: Any) -> dict[str, Any]:
    made = ("name", "severity", "raised_severity", "state", "message", "host_ips")
    shown = {name: getattr(row, name) for name in AlarmOut.model_fields if name not in made}
    over = row.cleared_at is not None
    return shown | {
        "name": watch.localized(row.kind).name,
        "severity": watch.Severity.CLEARED if over else row.severity,
        "raised_severity": row.severity,
        "state": "cleared" if over else "open",
        "message": watch.sentence(row.reason, row.params),
        "host_ips": row.addresses,
    }


def _alarm_detail(row: Any, history: Sequence[Any]) -> Response:
    changes = [
        {"id": line.id, "at": line.at, "what": line.what, "severity": line.severity, "threshold": line.threshold,
         "message": watch.sentence(line.reason, line.params), "by": line.by}
        for line in history
    ]  # fmt: skip
    return json_response(alarm_json(row) | {"catalogue": watch.localized(row.kind), "history": changes})


def _endpoint(row: Any, status: int = 200) -> Response:
    headers = {"ETag": etag(row.revision)}
    if status in (201, 202):
        headers["Location"] = f"/api/v1/endpoints/{row.id}"
    return json_response(endpoint_json(row), status, headers)


# --- endpoints ------------------------------------------------------------------------------------------------------


@router.get("/endpoints", action="alarm:endpoint:list", response_model=Page[EndpointOut])
async def list_endpoints(
    call: Caller = CALLER,
    search: Annotated[str, Query(max_length=300, description="part of a host or name")] = "",
    certificate_id: IdFilter = None,
    reachable: Annotated[bool | None, Query()] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """Endpoints you may see, newest first."""
    wanted = watch.EndpointFilter(search=search, certificate_id=certificate_id, reachable=reachable)
    rows = await watch.list_endpoints(
        call.services, call.actor, wanted, after=read_cursor(cursor), limit=limit + 1
    )  # fmt: skip
    return page_of(rows, limit, lambda row: row.id, endpoint_json)


@router.post("/endpoints", action="alarm:endpoint:create", status_code=201, response_model=EndpointOut)
async def create_endpoint(body: EndpointIn, call: Caller = CALLER) -> Response:
    """Watch an address from now on. The first probe begins at once: see `last_probe_at` at Location."""
    return _endpoint(await watch.create_endpoint(call.services, call.actor, **body.model_dump()), 201)


@router.get("/endpoints/{endpoint_id}", action="alarm:endpoint:get", response_model=EndpointDetailOut)
async def get_endpoint(endpoint_id: str, call: Caller = CALLER) -> Response:
    """The endpoint, what each of its addresses serves now, and its open alarms."""
    row, seen, alarms = await watch.get_endpoint(call.services, call.actor, endpoint_id)
    document = endpoint_json(row) | {
        "current": [observation_json(each) for each in seen],
        "alarms": [alarm_json(each) for each in alarms],
    }
    return json_response(document, headers={"ETag": etag(row.revision)})


@router.patch("/endpoints/{endpoint_id}", action="alarm:endpoint:update", response_model=EndpointOut)
async def update_endpoint(
    endpoint_id: str, body: EndpointPatch, request: Request, call: Caller = CALLER
) -> Response:  # fmt: skip
    """Switch watching on or off, or say which certificate should be served. Needs If-Match."""
    row = await watch.update_endpoint(
        call.services,
        call.actor,
        endpoint_id,
        revision=check_if_match(request),
        enabled=body.enabled,
        certificate_id=body.certificate_id,
        any_certificate="certificate_id" in body.model_fields_set and body.certificate_id is None,
    )
    return _endpoint(row)


@router.delete("/endpoints/{endpoint_id}", action="alarm:endpoint:delete", status_code=204, response_class=Response)
async def delete_endpoint(endpoint_id: str, call: Caller = CALLER) -> Response:
    """Stop watching. Open alarms are cleared and stay in the history."""
    await watch.delete_endpoint(call.services, call.actor, endpoint_id)
    return Response(status_code=204)


@router.post(
    "/endpoints/{endpoint_id}/probe", action="alarm:endpoint:probe", status_code=202, response_model=EndpointOut
)
async def probe_endpoint(endpoint_id: str, call: Caller = CALLER) -> Response:
    """Have it looked at now: when `last_probe_at` at Location is later than in this answer, it was."""
    return _endpoint(await watch.probe_now(call.services, call.actor, endpoint_id), 202)


@router.get("/endpoints/{endpoint_id}/observations", action="alarm:endpoint:get", response_model=Page[ObservationOut])
async def list_observations(
    endpoint_id: str, call: Caller = CALLER, limit: Limit = 20, cursor: Cursor = None
) -> Response:
    """The history as changes, newest first: each line is a period in which an address served the same."""
    rows = await watch.observations(
        call.services, call.actor, endpoint_id, after=read_cursor(cursor), limit=limit + 1
    )  # fmt: skip
    return page_of(rows, limit, lambda row: row.id, observation_json)


# --- alarms ---------------------------------------------------------------------------------------------------------


@router.get("/alarms", action="alarm:alarm:list", response_model=Page[AlarmOut])
async def list_alarms(
    call: Caller = CALLER,
    state: Annotated[Literal["open", "cleared", "all"], Query()] = "open",
    severity: Annotated[Literal["critical", "major", "minor", "warning"] | None, Query()] = None,
    kind: Annotated[str | None, Query(max_length=40, description="such as ALM-2001006")] = None,
    object: Annotated[str | None, Query(max_length=64, description="id of an endpoint or a certificate")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """Alarms you may see, newest first; the open ones unless asked otherwise."""
    wanted = watch.AlarmFilter(state=state, severity=severity, kind=kind, object_id=object)
    rows = await watch.list_alarms(call.services, call.actor, wanted, after=read_cursor(cursor), limit=limit + 1)
    return page_of(rows, limit, lambda row: row.id, alarm_json)


@router.get("/alarms/counts", action="alarm:alarm:list", response_model=WatchCountsOut)
async def count_alarms(call: Caller = CALLER) -> Response:
    """Open alarms by severity, and endpoints being watched, answering and not."""
    async with call.services.db.begin() as tx:
        return json_response(await watch.counts(tx, call.actor))


@router.get("/alarms/{alarm_id}", action="alarm:alarm:get", response_model=AlarmDetailOut)
async def get_alarm(alarm_id: str, call: Caller = CALLER) -> Response:
    return _alarm_detail(*await watch.get_alarm(call.services, call.actor, alarm_id))


@router.post("/alarms/{alarm_id}/acknowledge", action="alarm:alarm:ack", response_model=AlarmDetailOut)
async def acknowledge_alarm(alarm_id: str, body: AcknowledgeIn | None = None, call: Caller = CALLER) -> Response:
    """Say that somebody looks after it; it stays open until it is over."""
    wanted = body.acknowledged if body is not None else True
    return _alarm_detail(*await watch.acknowledge(call.services, call.actor, alarm_id, acknowledged=wanted))


@router.get("/alarm-kinds", action="alarm:alarm:list", response_model=Page[AlarmKindOut])
async def list_alarm_kinds(call: Caller = CALLER) -> Response:
    """The catalogue: what each alarm means and what to do about it."""
    return json_response({"items": [watch.localized(kind) for kind in watch.CATALOGUE], "next_cursor": None})
