"""`/api/v1/renewals`, `/renewal-windows`, `-freezes` and `-limits`, `/campaigns`, `/readiness`, `/rules`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Annotated, Any

from fastapi import Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from certwright.entry.api.base import (
    CALLER,
    Caller,
    Cursor,
    Limit,
    Moment,
    Page,
    Router,
    check_if_match,
    cursor_for,
    etag,
    in_utc,
    json_response,
    page_of,
    read_cursor,
)
from certwright.kernel.problems import Invalid
from certwright.rooms import renewal, validation

router = Router(tags=["renewal"])

Text = Annotated[str, Field(max_length=300)]
ProjectId = Annotated[str, Field(max_length=64)]
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class In(BaseModel):
    model_config = ConfigDict(extra="forbid")


# --- plans -----------------------------------------------------------------------------------------------------------


class AllowedOut(BaseModel):
    """When it may run. `forced`: in spite of a closed window or a freeze, because it can't wait longer."""

    at: datetime
    forced: bool
    code: str
    reason: str


class RenewalOut(BaseModel):
    """`source`: `ca` when the CA said when to renew (RFC 9773), else `fraction` of its life. `need_by`: the last safe
    moment. `admitted_at`: it has its turn. `allowed` is null once it was started or while renewal is switched off."""

    certificate_id: str
    project_id: str
    name: str
    ca: str
    version_id: str
    renew_at: datetime
    need_by: datetime
    not_after: datetime
    source: str
    window_start: datetime | None
    window_end: datetime | None
    explanation_url: str | None
    asked_at: datetime | None
    held_until: datetime | None
    admitted_at: datetime | None
    started_at: datetime | None
    auto_renew: bool
    problem: dict[str, Any] | None
    allowed: AllowedOut | None


@router.get("/renewals", action="scm:renewal:list", response_model=Page[RenewalOut])
async def list_renewals(call: Caller = CALLER, limit: Limit = 20, cursor: Cursor = None) -> Response:
    """What is renewed next, soonest due first."""
    after = read_cursor(cursor, datetime, str)
    rows = await renewal.list_renewals(call.services, call.actor, after=after, limit=limit + 1)
    return page_of(rows, limit, lambda row: row[0], lambda row: row[1])


@router.get("/renewals/{certificate_id}", action="scm:renewal:get", response_model=RenewalOut)
async def get_renewal(certificate_id: str, call: Caller = CALLER) -> Response:
    """When this certificate is renewed, and why then."""
    return json_response(await renewal.get_renewal(call.services, call.actor, certificate_id))


# --- windows and freezes ---------------------------------------------------------------------------------------------


class WindowPut(In):
    """Renewals wait for it: from – to by the clocks of the zone, on these days. Over midnight if `to` isn't later."""

    name: Text
    weekdays: list[Annotated[str, Field(pattern=f"^({'|'.join(DAYS)})$")]] = Field(
        default_factory=lambda: list(DAYS), min_length=1, max_length=7, description="the days it begins on"
    )
    from_: time = Field(alias="from", description="HH:MM")
    to: time = Field(description="HH:MM; not in the window any more")
    zone: Text = Field(default="UTC", description="IANA name such as Europe/Berlin")

    def value(self) -> renewal.Window:
        for field, moment in (("from", self.from_), ("to", self.to)):
            if moment.tzinfo is not None:
                raise Invalid("window_time_zoned", "A window's times are wall clock times.", field=field,
                              fix="Leave the offset out and name the zone in zone.")  # fmt: skip
        days = frozenset(DAYS.index(day) for day in self.weekdays)
        return renewal.Window(days, self.from_, self.to, self.zone, self.name)


class WindowIn(WindowPut):
    project_id: ProjectId | None = Field(default=None, description="for this project instead of the account's windows")


class WindowOut(BaseModel):
    id: str
    project_id: str | None
    name: str
    weekdays: list[str]
    from_: time = Field(alias="from")
    to: time
    zone: str
    created_at: datetime


def _window(view: renewal.WindowView) -> Mapping[str, Any]:
    return {
        "id": view.id, "project_id": view.project_id, "name": view.name,
        "weekdays": [DAYS[day] for day in view.weekdays], "from": view.from_time, "to": view.to_time,
        "zone": view.zone, "created_at": view.created_at,
    }  # fmt: skip


@router.get("/renewal-windows", action="scm:renewal:list", response_model=Page[WindowOut])
async def list_windows(call: Caller = CALLER, limit: Limit = 20, cursor: Cursor = None) -> Response:
    rows = await renewal.list_windows(call.services, call.actor, after=read_cursor(cursor), limit=limit + 1)
    return page_of(rows, limit, lambda view: view.id, _window)


@router.post("/renewal-windows", action="scm:renewal:update", status_code=201, response_model=WindowOut)
async def add_window(body: WindowIn, call: Caller = CALLER) -> Response:
    """Add a maintenance window. With none, renewals run at any time."""
    view = await renewal.add_window(call.services, call.actor, body.value(), project_id=body.project_id)
    return json_response(_window(view), 201, {"Location": f"/api/v1/renewal-windows/{view.id}"})


@router.put("/renewal-windows/{window_id}", action="scm:renewal:update", response_model=WindowOut)
async def update_window(window_id: str, body: WindowPut, call: Caller = CALLER) -> Response:
    """Put another window in its place."""
    return json_response(_window(await renewal.update_window(call.services, call.actor, window_id, body.value())))


@router.delete("/renewal-windows/{window_id}", action="scm:renewal:update", status_code=204, response_class=Response)
async def delete_window(window_id: str, call: Caller = CALLER) -> Response:
    await renewal.delete_window(call.services, call.actor, window_id)
    return Response(status_code=204)


class FreezePut(In):
    """No renewals from – until before `to`."""

    from_: Moment = Field(alias="from")
    to: Moment
    reason: Annotated[str, Field(max_length=255)]

    def value(self) -> renewal.Freeze:
        return renewal.Freeze(self.from_, self.to, self.reason)


class FreezeIn(FreezePut):
    project_id: ProjectId | None = Field(default=None, description="for this project alone")


class FreezeOut(BaseModel):
    id: str
    project_id: str | None
    from_: datetime = Field(alias="from")
    to: datetime
    reason: str
    created_at: datetime


def _freeze(view: renewal.FreezeView) -> Mapping[str, Any]:
    return {
        "id": view.id, "project_id": view.project_id, "from": view.from_at, "to": view.to_at, "reason": view.reason,
        "created_at": view.created_at,
    }  # fmt: skip


@router.get("/renewal-freezes", action="scm:renewal:list", response_model=Page[FreezeOut])
async def list_freezes(call: Caller = CALLER, limit: Limit = 20, cursor: Cursor = None) -> Response:
    rows = await renewal.list_freezes(call.services, call.actor, after=read_cursor(cursor), limit=limit + 1)
    return page_of(rows, limit, lambda view: view.id, _freeze)


@router.post("/renewal-freezes", action="scm:renewal:update", status_code=201, response_model=FreezeOut)
async def add_freeze(body: FreezeIn, call: Caller = CALLER) -> Response:
    view = await renewal.add_freeze(call.services, call.actor, body.value(), project_id=body.project_id)
    return json_response(_freeze(view), 201, {"Location": f"/api/v1/renewal-freezes/{view.id}"})


@router.put("/renewal-freezes/{freeze_id}", action="scm:renewal:update", response_model=FreezeOut)
async def update_freeze(freeze_id: str, body: FreezePut, call: Caller = CALLER) -> Response:
    """Make it longer, shorter or another one."""
    return json_response(_freeze(await renewal.update_freeze(call.services, call.actor, freeze_id, body.value())))


@router.delete("/renewal-freezes/{freeze_id}", action="scm:renewal:update", status_code=204, response_class=Response)
async def delete_freeze(freeze_id: str, call: Caller = CALLER) -> Response:
    await renewal.delete_freeze(call.services, call.actor, freeze_id)
    return Response(status_code=204)


# --- limits ----------------------------------------------------------------------------------------------------------


class LimitIn(In):
    per_minute: int = Field(ge=1, le=100_000, description="renewals started in any minute, at most")
    reserve_percent: int = Field(default=20, ge=0, le=90, description="the part kept for urgent ones")


class LimitOut(BaseModel):
    """`waiting`: due and not let through yet."""

    ca: str
    per_minute: int
    reserve_percent: int
    waiting: int
    revision: int


class LimitList(BaseModel):
    items: list[LimitOut]
    next_cursor: None = None


@router.get("/renewal-limits", action="scm:renewal:list", response_model=LimitList)
async def list_limits(call: Caller = CALLER) -> Response:
    """How fast renewals go at each CA they were planned at."""
    found = await renewal.list_limits(call.services, call.actor)
    return json_response({"items": found, "next_cursor": None})


@router.put("/renewal-limits/{ca}", action="scm:renewal:update", response_model=LimitOut)
async def set_limit(ca: str, body: LimitIn, request: Request, call: Caller = CALLER) -> Response:
    """Set the rate at a CA, named by id or name. If-Match is heeded where it is sent."""
    revision = check_if_match(request) if "if-match" in request.headers else None
    view = await renewal.set_limit(
        call.services, call.actor, ca, per_minute=body.per_minute, reserve_percent=body.reserve_percent,
        revision=revision,
    )  # fmt: skip
    return json_response(view, headers={"ETag": etag(view.revision)})


# --- mass replacement ------------------------------------------------------------------------------------------------


class CriteriaIn(In):
    """All that is given must hold; at least one must be given."""

    ca: Text | None = Field(default=None, description="id or name of the CA")
    key_algorithm: Text | None = None
    issuer: Text | None = Field(default=None, description="a part of the issuer's name")
    issued_before: Moment | None = None
    names: Text | None = Field(default=None, description="pattern of a name; * stands for any characters")
    project_id: ProjectId | None = None

    def value(self) -> renewal.Criteria:
        return renewal.Criteria(**self.model_dump())


class PreviewIn(In):
    criteria: CriteriaIn
    deadline: Moment
    per_hour: int = Field(default=600, ge=1, le=100_000)
    to_ca: Text | None = Field(default=None, description="id or name of another CA to get the new versions from")


class CampaignIn(PreviewIn):
    name: Annotated[str, Field(max_length=100)]
    reason: renewal.CampaignReason
    priority: renewal.Priority = renewal.Priority.BOUND_FIRST
    project_id: ProjectId | None = None


class CampaignPatch(In):
    per_hour: int = Field(ge=1, le=100_000)


class EstimateOut(BaseModel):
    """When the last one would be started; `needed_per_hour` would make the deadline, if the CAs' limits allow it."""

    ends_at: datetime
    in_time: bool
    needed_per_hour: int


class PreviewLineOut(BaseModel):
    certificate_id: str
    name: str
    ca: str
    not_after: datetime
    state: renewal.ItemState
    code: str
    reason: str


class PreviewOut(BaseModel):
    """`counts` by code: `replaceable`, `busy` (comes later), and why others can't be replaced from here."""

    replaced: int
    counts: dict[str, int]
    excluded: list[PreviewLineOut]
    estimate: EstimateOut


class CampaignOut(BaseModel):
    """`to_ca`: the id of the CA the new versions come from; null: each from the CA it has."""

    id: str
    project_id: str
    name: str
    reason: renewal.CampaignReason
    criteria: dict[str, str]
    deadline: datetime
    per_hour: int
    priority: renewal.Priority
    to_ca: str | None
    state: renewal.CampaignState
    counts: dict[str, int]
    created_at: datetime
    ended_at: datetime | None
    started_by: str
    estimate: EstimateOut | None


class CampaignItemOut(BaseModel):
    """`ca` is the one its new version comes from."""

    id: str
    certificate_id: str
    name: str
    ca: str
    not_after: datetime
    bound: bool
    state: renewal.ItemState
    reason_code: str
    reason: str
    attempts: int
    retry_at: datetime | None
    application_id: str | None
    ended_at: datetime | None


@router.post("/campaigns/preview", action="scm:campaign:create", response_model=PreviewOut)
async def preview_campaign(body: PreviewIn, call: Caller = CALLER) -> Response:
    """What a mass replacement would do; nothing is changed."""
    found = await renewal.campaigns.preview(
        call.services, call.actor, body.criteria.value(), deadline=body.deadline, per_hour=body.per_hour,
        to_ca=body.to_ca,
    )  # fmt: skip
    return json_response(found)


@router.post("/campaigns", action="scm:campaign:create", status_code=201, response_model=CampaignOut)
async def start_campaign(body: CampaignIn, call: Caller = CALLER) -> Response:
    """Replace every certificate that matches, beginning now. Look at the preview first."""
    made = await renewal.campaigns.start(
        call.services, call.actor, body.criteria.value(), name=body.name, reason=body.reason, deadline=body.deadline,
        per_hour=body.per_hour, priority=body.priority, to_ca=body.to_ca, project_id=body.project_id,
    )  # fmt: skip
    return json_response(made, 201, {"Location": f"/api/v1/campaigns/{made.id}"})


@router.get("/campaigns", action="scm:campaign:list", response_model=Page[CampaignOut])
async def list_campaigns(call: Caller = CALLER, limit: Limit = 20, cursor: Cursor = None) -> Response:
    rows = await renewal.campaigns.list_campaigns(call.services, call.actor, after=read_cursor(cursor), limit=limit + 1)
    return page_of(rows, limit, lambda row: row.id)


@router.get("/campaigns/{campaign_id}", action="scm:campaign:get", response_model=CampaignOut)
async def get_campaign(campaign_id: str, call: Caller = CALLER) -> Response:
    return json_response(await renewal.campaigns.get_campaign(call.services, call.actor, campaign_id))


@router.patch("/campaigns/{campaign_id}", action="scm:campaign:update", response_model=CampaignOut)
async def change_campaign(campaign_id: str, body: CampaignPatch, call: Caller = CALLER) -> Response:
    """Go faster or slower."""
    return json_response(await renewal.campaigns.set_rate(call.services, call.actor, campaign_id, body.per_hour))


@router.get("/campaigns/{campaign_id}/items", action="scm:campaign:get", response_model=Page[CampaignItemOut])
async def list_items(
    campaign_id: str,
    call: Caller = CALLER,
    state: Annotated[renewal.ItemState | None, Query()] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """Each certificate of a mass replacement, with how it went and why."""
    rows = await renewal.campaigns.list_items(
        call.services, call.actor, campaign_id, state=state, after=read_cursor(cursor), limit=limit + 1
    )
    return page_of(rows, limit, lambda row: row.id)


@router.post("/campaigns/{campaign_id}/pause", action="scm:campaign:update", response_model=CampaignOut)
async def pause_campaign(campaign_id: str, call: Caller = CALLER) -> Response:
    """Start no further ones; those under way end."""
    return json_response(await renewal.campaigns.pause(call.services, call.actor, campaign_id))


@router.post("/campaigns/{campaign_id}/resume", action="scm:campaign:update", response_model=CampaignOut)
async def resume_campaign(campaign_id: str, call: Caller = CALLER) -> Response:
    return json_response(await renewal.campaigns.resume(call.services, call.actor, campaign_id))


@router.post("/campaigns/{campaign_id}/cancel", action="scm:campaign:update", response_model=CampaignOut)
async def cancel_campaign(campaign_id: str, call: Caller = CALLER) -> Response:
    """End it for good; what was replaced stays replaced."""
    return json_response(await renewal.campaigns.cancel(call.services, call.actor, campaign_id))


@router.post("/campaigns/{campaign_id}/retry", action="scm:campaign:update", response_model=CampaignOut)
async def retry_campaign(campaign_id: str, call: Caller = CALLER) -> Response:
    """Try those that failed again, now."""
    return json_response(await renewal.campaigns.retry(call.services, call.actor, campaign_id))


# --- readiness -------------------------------------------------------------------------------------------------------

At = Annotated[
    str | None,
    Query(max_length=40, description="what if it were this date (2029-04-01) or moment already; default: now"),
]


class OutcomeOut(BaseModel):
    """Under these limits; `times_a_year` somebody has to act."""

    life_days: int
    reuse_days: int
    survives: renewal.Survival
    times_a_year: float


class ReadyOut(BaseModel):
    """`evidence_until`: until when its names need no new proof. `steps`: the limits of now and every later set."""

    who: renewal.Renewer
    who_reason: str
    proof: renewal.Proof
    proof_reason: str
    evidence_until: datetime | None
    evidence_reusable: bool
    outcome: OutcomeOut
    steps: list[OutcomeOut]


class ReadinessOut(BaseModel):
    certificate_id: str
    project_id: str
    name: str
    primary_name: str
    ca: str
    not_after: datetime
    readiness: ReadyOut


class ReadinessSummaryOut(BaseModel):
    """Counts; `steps` by `<life in days>/<reuse in days>`."""

    at: datetime
    certificates: int
    life_days: int
    reuse_days: int
    who: dict[str, int]
    proof: dict[str, int]
    outcomes: dict[str, int]
    steps: dict[str, dict[str, int]]


def _moment(text: str | None) -> datetime | None:
    """A date is its midnight UTC."""
    if text is None:
        return None
    try:
        if len(text) == len("2029-04-01"):
            day = date.fromisoformat(text)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        return in_utc(datetime.fromisoformat(text))
    except ValueError as error:
        raise Invalid("moment_invalid", f"{text[:40]!r} is neither a date nor a moment with a zone.", field="at",
                      fix="Write 2029-04-01 or 2029-04-01T12:00:00Z.") from error  # fmt: skip


@router.get("/readiness", action="scm:readiness:get", response_model=Page[ReadinessOut])
async def list_readiness(call: Caller = CALLER, at: At = None, limit: Limit = 20, cursor: Cursor = None) -> Response:
    """Who renews each certificate, how its names are proved, and whether it survives shorter lives."""
    lines, more = await renewal.list_readiness(
        call.services, call.actor, at=_moment(at), after=read_cursor(cursor), limit=limit
    )
    return json_response({"items": lines, "next_cursor": cursor_for(more) if more else None})


@router.get("/readiness/summary", action="scm:readiness:get", response_model=ReadinessSummaryOut)
async def summarize(call: Caller = CALLER, at: At = None) -> Response:
    """How many certificates there are of each kind."""
    return json_response(await renewal.summarize(call.services, call.actor, at=_moment(at)))


# --- rules -----------------------------------------------------------------------------------------------------------


class RulesIn(In):
    text: Annotated[str, Field(max_length=65_536, description="the whole file, as YAML")]


class RulesOut(BaseModel):
    """`id` is null while the shipped rules are in force."""

    id: str | None
    text: str
    sha256: str
    uploaded_at: datetime | None
    uploaded_by: str | None


@router.get("/rules", action="scm:rules:get", response_model=RulesOut)
async def get_rules(call: Caller = CALLER) -> Response:
    """The dated rules the account goes by."""
    return json_response(await validation.get_rules(call.services, call.actor))


@router.put("/rules", action="scm:rules:update", response_model=RulesOut)
async def replace_rules(body: RulesIn, call: Caller = CALLER) -> Response:
    """Put other rules in force. What is wrong is named with its line and field."""
    return json_response(await validation.replace_rules(call.services, call.actor, body.text))


@router.delete("/rules", action="scm:rules:update", response_model=RulesOut)
async def revert_rules(call: Caller = CALLER) -> Response:
    """Back to the rules shipped with this release."""
    return json_response(await validation.revert_rules(call.services, call.actor))
