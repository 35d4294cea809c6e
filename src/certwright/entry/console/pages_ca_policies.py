"""Policies of what private CAs issue: their list with a place to try names, and one policy's page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from certwright.entry.console.forms import Form
from certwright.entry.console.pages_authorities import number_of, projects_of
from certwright.entry.console.web import FORM_PROBLEMS, Call, Pages, page, revision_of, see
from certwright.kernel.problems import NotFound, Problem
from certwright.platform.i18n import _
from certwright.rooms import authorities

pages = Pages()

_ADDRESS = "/authorities/policies"


async def _cas(call: Call) -> list[tuple[str, str]]:
    if not call.allowed("ccm:ca:list"):
        return []
    found = await authorities.list_authorities(call.services, call.actor)
    return [(ca.id, ca.name) for ca in found if ca.signs_leaves]


async def _kinds(call: Call) -> list[str]:
    if not call.allowed("ccm:profile:list"):
        return []
    return [kind.name for kind in await authorities.list_profiles(call.services, call.actor)]


# --- the list, and trying --------------------------------------------------------------------------------------------


@pages.get(_ADDRESS, action="ccm:policy:list")
async def list_page(call: Call) -> Response:
    asked = call.query
    problem: Problem | None = None
    trial: authorities.PolicyTrial | None = None
    cas, projects = await _cas(call), await projects_of(call)
    if asked.text("names") and asked.text("authority_id"):
        try:
            trial = await authorities.try_names(
                call.services, call.actor, asked.text("authority_id"), authorities.judge_names(asked.lines("names")),
                project_id=asked.optional("project_id"), profile=asked.text("profile", "server"),
            )  # fmt: skip
        except (*FORM_PROBLEMS, NotFound) as met:
            problem = met
    view = {
        "policies": await authorities.list_policies(call.services, call.actor),
        "cas": cas,
        "ca_names": dict(cas),
        "projects": projects,
        "project_names": dict(projects),
        "kinds": [(name, name) for name in await _kinds(call) or ["server"]],
        "trial": trial,
        "values": {"profile": "server"} | asked.values(),
    }
    return page(call, "authorities/policies.html", view, problem)


# --- one policy ------------------------------------------------------------------------------------------------------


async def _view(call: Call, values: Mapping[str, str], policy: authorities.CaPolicy | None = None) -> dict[str, Any]:
    cas, projects = await _cas(call), await projects_of(call)
    return {
        "policy": policy,
        "values": values,
        "cas": [("", _("every CA")), *cas],
        "projects": [("", _("every project")), *projects],
        "where": _where(policy, dict(cas), dict(projects)) if policy else "",
        "kinds": await _kinds(call),
    }


def _where(policy: authorities.CaPolicy, cas: Mapping[str, str], projects: Mapping[str, str]) -> str:
    project = projects.get(policy.project_id, policy.project_id) if policy.project_id else _("every project")
    ca = cas.get(policy.authority_id, policy.authority_id) if policy.authority_id else _("every CA")
    return f"{project} · {ca}"


def _limits(form: Form) -> dict[str, Any]:
    return {
        "allowed": form.lines("allowed"),
        "refused": form.lines("refused"),
        "wildcards": form.checked("wildcards"),
        "profiles": form.lines("profiles"),
        "max_days": number_of(form, "max_days"),
        "quota": number_of(form, "quota"),
    }


@pages.get(f"{_ADDRESS}/new", action="ccm:policy:create")
async def new_page(call: Call) -> Response:
    values = {"wildcards": "yes", "authority_id": call.query.text("ca"), "project_id": call.query.text("project")}
    return page(call, "authorities/policy.html", await _view(call, values))


@pages.post(f"{_ADDRESS}/new", action="ccm:policy:create")
async def create(call: Call) -> Response:
    form = call.form
    try:
        await authorities.create_policy(
            call.services, call.actor, form.text("name"), authorities.PolicyLimits(**_limits(form)),
            project_id=form.optional("project_id"), authority_id=form.optional("authority_id"),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        return page(call, "authorities/policy.html", await _view(call, form.values()), problem)
    return see(_ADDRESS, said="created", call=call)


@pages.get(f"{_ADDRESS}/{{id}}", action="ccm:policy:get")
async def detail_page(call: Call) -> Response:
    policy = await authorities.get_policy(call.services, call.actor, call.param("id"))
    limits = policy.limits
    values = {
        "name": policy.name, "allowed": "\n".join(limits.allowed), "refused": "\n".join(limits.refused),
        "wildcards": "yes" if limits.wildcards else "", "profiles": "\n".join(limits.profiles),
        "max_days": str(limits.max_days or ""), "quota": "" if limits.quota is None else str(limits.quota),
        "revision": str(policy.revision),
    }  # fmt: skip
    return page(call, "authorities/policy.html", await _view(call, values, policy))


@pages.post(f"{_ADDRESS}/{{id}}", action="ccm:policy:update")
async def edit(call: Call) -> Response:
    form, policy_id = call.form, call.param("id")
    try:
        changes = {"name": form.text("name")} | _limits(form)
        await authorities.update_policy(call.services, call.actor, policy_id, changes, revision=revision_of(form))
    except FORM_PROBLEMS as problem:
        policy = await authorities.get_policy(call.services, call.actor, policy_id)
        return page(call, "authorities/policy.html", await _view(call, form.values(), policy), problem)
    return see(_ADDRESS, said="saved", call=call)


@pages.post(f"{_ADDRESS}/{{id}}/delete", action="ccm:policy:delete", ask="delete_ca_policy")
async def delete(call: Call) -> Response:
    await authorities.delete_policy(call.services, call.actor, call.param("id"))
    return see(_ADDRESS, said="deleted", call=call)
