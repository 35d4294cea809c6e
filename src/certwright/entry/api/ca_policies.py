"""`/api/v1/ca-policies`: what private CAs may issue, for which projects."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import Request, Response
from pydantic import BaseModel, Field

from certwright.entry.api.authorities import GeneralName, Id, In, Name, ProblemOut, Word
from certwright.entry.api.base import CALLER, Caller, Router, check_if_match, etag, json_response
from certwright.rooms import authorities

router = Router(tags=["private CA"])
_POLICIES = "/ca-policies"

Rules = Annotated[
    list[GeneralName],
    Field(
        max_length=1000,
        description="www.example.internal, *.example.internal (one label), .example.internal (all below), 10.0.0.0/8, "
        "@example.com, https://example.com",
    ),
]


class LimitsIn(In):
    """Names, kinds, lives and numbers of certificates. Empty lists and null limit nothing."""

    allowed: Rules = Field(default_factory=list)
    refused: Rules = Field(default_factory=list)
    wildcards: bool = True
    profiles: list[Word] = Field(default_factory=list, max_length=1000)
    max_days: int | None = Field(default=None, description="longest life")
    quota: int | None = Field(default=None, description="certificates that are good, for each project and CA")


class PolicyIn(LimitsIn):
    """For one project and one CA; without them for all."""

    name: Name
    project_id: Id | None = None
    authority_id: Id | None = None


class PolicyPatch(LimitsIn):
    """What is left out stays; null takes a limit away."""

    name: Name = ""


class PolicyOut(BaseModel):
    id: str
    name: str
    project_id: str | None
    authority_id: str | None
    allowed: list[str]
    refused: list[str]
    wildcards: bool
    profiles: list[str]
    max_days: int | None
    quota: int | None
    created_at: datetime
    updated_at: datetime
    revision: int


class PolicyList(BaseModel):
    items: list[PolicyOut]
    next_cursor: None = None


class TrialIn(In):
    """A certificate that is asked about, not for."""

    authority_id: Id
    project_id: Id | None = None
    names: list[GeneralName] = Field(default_factory=list, max_length=100)
    profile: Word = "server"
    days: int | None = None


class VerdictOut(BaseModel):
    """`policy` and `rule` decided; null where no policy speaks of names."""

    name: str
    allowed: bool
    why: str
    policy: str | None
    rule: str | None


class TrialOut(BaseModel):
    """`problem` is what issuing would answer, null if it would be issued. `policies` apply; `max_days` and `quota` are
    the narrowest of their limits, `used` counts against the quota."""

    names: list[VerdictOut]
    problem: ProblemOut | None
    policies: list[str]
    max_days: int | None
    quota: int | None
    used: int | None


def policy_json(policy: authorities.CaPolicy) -> dict[str, Any]:
    fields = asdict(policy)
    limits: dict[str, Any] = fields.pop("limits")
    return fields | limits


def _shown(policy: authorities.CaPolicy, status: int = 200) -> Response:
    headers = {"ETag": etag(policy.revision)}
    if status == 201:
        headers["Location"] = f"/api/v1{_POLICIES}/{policy.id}"
    return json_response(policy_json(policy), status, headers)


@router.get(_POLICIES, action="ccm:policy:list", response_model=PolicyList)
async def list_policies(call: Caller = CALLER) -> Response:
    found = await authorities.list_policies(call.services, call.actor)
    return json_response({"items": [policy_json(policy) for policy in found], "next_cursor": None})


@router.post(_POLICIES, action="ccm:policy:create", status_code=201, response_model=PolicyOut)
async def create_policy(body: PolicyIn, call: Caller = CALLER) -> Response:
    """Counts for what is issued from now on; every policy that applies must allow a certificate."""
    limits = body.model_dump(exclude={"name", "project_id", "authority_id"})
    made = await authorities.create_policy(
        call.services, call.actor, body.name, authorities.PolicyLimits(**limits), project_id=body.project_id,
        authority_id=body.authority_id,
    )  # fmt: skip
    return _shown(made, 201)


@router.post(f"{_POLICIES}/try", action="ccm:policy:get", response_model=TrialOut)
async def try_names(body: TrialIn, call: Caller = CALLER) -> Response:
    """Which rule allows or refuses each name; nothing is issued."""
    found = await authorities.try_names(
        call.services, call.actor, body.authority_id, authorities.judge_names(body.names), project_id=body.project_id,
        profile=body.profile, days=body.days,
    )  # fmt: skip
    return json_response(trial_json(found))


def trial_json(found: authorities.PolicyTrial) -> dict[str, Any]:
    return {
        "names": [asdict(one) for one in found.verdicts],
        "problem": found.problem.as_dict() if found.problem else None,
        "policies": list(found.policies),
        "max_days": found.max_days,
        "quota": found.quota,
        "used": found.used,
    }


@router.get(f"{_POLICIES}/{{policy_id}}", action="ccm:policy:get", response_model=PolicyOut)
async def get_policy(policy_id: str, call: Caller = CALLER) -> Response:
    return _shown(await authorities.get_policy(call.services, call.actor, policy_id))


@router.patch(f"{_POLICIES}/{{policy_id}}", action="ccm:policy:update", response_model=PolicyOut)
async def update_policy(policy_id: str, body: PolicyPatch, request: Request, call: Caller = CALLER) -> Response:
    """Needs If-Match. Project and CA can't change: make another policy."""
    changed = await authorities.update_policy(
        call.services, call.actor, policy_id, body.model_dump(exclude_unset=True), revision=check_if_match(request)
    )
    return _shown(changed)


@router.delete(f"{_POLICIES}/{{policy_id}}", action="ccm:policy:delete", status_code=204, response_class=Response)
async def delete_policy(policy_id: str, call: Caller = CALLER) -> Response:
    """What was issued under it stays."""
    await authorities.delete_policy(call.services, call.actor, policy_id)
    return Response(status_code=204)
