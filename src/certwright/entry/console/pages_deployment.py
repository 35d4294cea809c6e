"""Targets, their sites, deploying a certificate there, and watching a rollout step by step."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from starlette.responses import Response

from certwright.entry.console.forms import Form
from certwright.entry.console.pages_certificates import shown_name
from certwright.entry.console.web import FORM_PROBLEMS, PAGE, Call, Pages, page, paged, revision_of, see
from certwright.kernel.problems import Forbidden, Invalid, NotFound, Problem, Unavailable
from certwright.platform.i18n import N_, _
from certwright.rooms import certificates, deployment
from certwright.rooms.deployment import RolloutState, RolloutView, SiteView, Step

pages = Pages()

_MOST_TARGETS = 50
_ORDER = (Step.PLAN, Step.STAGE, Step.TEST, Step.ACTIVATE, Step.VERIFY, Step.KEEP)
_FINISHED = (RolloutState.DEPLOYED, RolloutState.UNDONE, RolloutState.FAILED)
_RENAMED = {f"config.{name}": name for name in ("nginx", "config", "prefix", "reload", "connect_host")}
# Discovering talks to the server: it may be away, and that is said on the page too.
_MET = (*FORM_PROBLEMS, Unavailable)


# --- targets --------------------------------------------------------------------------------------------------------


@pages.get("/targets", action="scm:target:list")
async def targets(call: Call) -> Response:
    found = await deployment.list_targets(call.services, call.actor, after=call.query.optional("after"), limit=PAGE + 1)
    lines, next_href = paged(found, "/targets")
    return page(call, "deployment/targets.html", {"lines": lines, "next_href": next_href})


def _new_view(values: Mapping[str, str]) -> dict[str, Any]:
    return {
        "values": values, "title": _("Add a target"), "action": "/targets/new", "button": _("Add and look for sites")
    }  # fmt: skip


@pages.get("/targets/new", action="scm:target:create")
async def new_target(call: Call) -> Response:
    values = {"nginx": "/usr/sbin/nginx", "config": "/etc/nginx/nginx.conf", "connect_host": "127.0.0.1"}
    return page(call, "deployment/target_new.html", _new_view(values))


def _config(form: Form) -> dict[str, Any]:
    config: dict[str, Any] = {"nginx": form.text("nginx"), "config": form.text("config")}
    for name in ("prefix", "connect_host"):
        if form.text(name):
            config[name] = form.text(name)
    if form.text("reload"):
        try:
            config["reload"] = shlex.split(form.text("reload"))
        except ValueError as error:
            raise Invalid(
                "reload_command_invalid", "The reload command has an open quotation mark.", field="config.reload",
                fix="Close it.",
            ) from error  # fmt: skip
    return config


@pages.post("/targets/new", action="scm:target:create")
async def create_target(call: Call) -> Response:
    form = call.form
    try:
        target = await deployment.create_target(
            call.services, call.actor, name=form.text("name"), kind="nginx", config=_config(form),
            region=form.text("region"),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        return page(call, "deployment/target_new.html", _new_view(form.values()), problem, renamed=_RENAMED)
    await _look_for_sites(call, target.id)
    return see(f"/targets/{target.id}", said="created", call=call)


async def _look_for_sites(call: Call, target_id: str) -> None:
    """After the settings changed, if the caller may. What goes wrong is kept as the target's health, for its page."""
    if call.allowed("scm:target:discover"):
        with suppress(*_MET, Forbidden, NotFound):
            await deployment.discover(call.services, call.actor, target_id)


@pages.get("/targets/{id}", action="scm:target:get")
async def target(call: Call) -> Response:
    return await _target(call, call.param("id"))


async def _target(call: Call, target_id: str, problem: Problem | None = None) -> Response:
    services, actor = call.services, call.actor
    found = await deployment.get_target(services, actor, target_id)
    sites = await deployment.list_sites(services, actor, target_id)
    rollouts: Sequence[Mapping[str, Any]] = ()
    if call.allowed("scm:rollout:list"):
        found_rollouts = await deployment.list_rollouts(services, actor, target_id=target_id, limit=10)
        rollouts = [
            {"id": r.id, "state": shown_state(r), "requested_by": r.requested_by, "created_at": r.created_at}
            for r in found_rollouts
        ]
    names = await _certificate_names(call, [b.certificate_id for site in sites for b in site.bindings])
    view = {
        "target": found,
        "sites": [
            {
                "label": site.label,
                "gone": site.gone_at is not None,
                "managed": site.site.managed,
                "reason": site.site.unmanaged_reason or "",
                "listeners": [listener.text for listener in site.site.listeners],
                "installed": [slot.installed for slot in site.site.slots if slot.installed is not None],
                "bindings": [
                    {
                        "id": b.id, "certificate_id": b.certificate_id, "current": b.current,
                        "certificate": names.get(b.certificate_id, b.certificate_id),
                    }
                    for b in site.bindings
                ],
            }
            for site in sites
        ],
        "rollouts": rollouts,
    }  # fmt: skip
    return page(call, "deployment/target.html", view, problem)


async def _certificate_names(call: Call, certificate_ids: Sequence[str]) -> dict[str, str]:
    names = {}
    for certificate_id in dict.fromkeys(certificate_ids):
        try:
            detail = await certificates.get_certificate(call.services, call.actor, certificate_id)
        except (NotFound, Forbidden):
            continue  # bound by somebody who may see more: the id is shown
        names[certificate_id] = shown_name(detail.summary)
    return names


@pages.post("/targets/{id}/discover", action="scm:target:discover")
async def discover(call: Call) -> Response:
    try:
        await deployment.discover(call.services, call.actor, call.param("id"))
    except _MET as problem:
        return await _target(call, call.param("id"), problem)
    return see(f"/targets/{call.param('id')}", said="discovered", call=call)


def _edit_view(target_id: str, values: Mapping[str, str]) -> dict[str, Any]:
    return {
        "values": values, "title": _("Edit the target"), "action": f"/targets/{target_id}/edit",
        "button": _("Save and look for sites"),
    }  # fmt: skip


@pages.get("/targets/{id}/edit", action="scm:target:update")
async def edit_page(call: Call) -> Response:
    found = await deployment.get_target(call.services, call.actor, call.param("id"))
    values = {key: str(value) for key, value in found.config.items() if value is not None}
    if found.config.get("reload"):
        values["reload"] = shlex.join(found.config["reload"])
    values |= {"name": found.name, "region": found.region, "revision": str(found.revision)}
    return page(call, "deployment/target_new.html", _edit_view(found.id, values))


@pages.post("/targets/{id}/edit", action="scm:target:update")
async def edit(call: Call) -> Response:
    form, target_id = call.form, call.param("id")
    try:
        await deployment.update_target(
            call.services, call.actor, target_id, revision=revision_of(form), name=form.text("name"),
            region=form.text("region"), config=_config(form),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        return page(call, "deployment/target_new.html", _edit_view(target_id, form.values()), problem, renamed=_RENAMED)
    await _look_for_sites(call, target_id)
    return see(f"/targets/{target_id}", said="saved", call=call)


async def _delete_view(call: Call) -> dict[str, Any]:
    found = await deployment.get_target(call.services, call.actor, call.param("id"))
    back = f"/targets/{found.id}"
    return {
        "section": "targets",
        "title": _("Remove %(name)s?") % {"name": found.name},
        "crumbs": [(_("Targets"), "/targets"), (found.name, back)],
        "action": f"{back}/delete",
        "back": back,
        "warning": _("Its history of rollouts is removed too"),
        "lines": [_("The server itself is not touched: it goes on serving what it has.")],
        "button": _("Remove the target"),
    }


@pages.get("/targets/{id}/delete", action="scm:target:delete")
async def delete_page(call: Call) -> Response:
    return page(call, "confirm.html", await _delete_view(call))


@pages.post("/targets/{id}/delete", action="scm:target:delete")
async def delete(call: Call) -> Response:
    try:
        await deployment.delete_target(call.services, call.actor, call.param("id"))
    except FORM_PROBLEMS as problem:
        return page(call, "confirm.html", await _delete_view(call), problem)
    return see("/targets", said="removed", call=call)


@pages.post("/bindings/{id}/unbind", action="scm:target:update", ask="unbind")
async def unbind(call: Call) -> Response:
    target_id = call.form.text("target")
    try:
        await deployment.unbind(call.services, call.actor, call.param("id"))
    except FORM_PROBLEMS as problem:
        return await _target(call, target_id, problem)
    return see(f"/targets/{target_id}", said="unbound", call=call)


# --- deploying ------------------------------------------------------------------------------------------------------


@pages.get("/certificates/{id}/deploy", action="scm:cert:deploy")
async def deploy_page(call: Call) -> Response:
    return await _choose(call, ())


async def _choose(call: Call, chosen: Sequence[str], problem: Problem | None = None) -> Response:
    services, actor = call.services, call.actor
    detail = await certificates.get_certificate(services, actor, call.param("id"))
    found = await deployment.list_targets(services, actor, limit=_MOST_TARGETS)
    shown = []
    for target in found:
        sites = await deployment.list_sites(services, actor, target.id)
        shown.append({
            "id": target.id, "name": target.name,
            "sites": [_choice(site, detail.id) for site in sites if site.gone_at is None],
        })  # fmt: skip
    view = {
        "cert": detail.summary, "shown_name": shown_name(detail.summary), "targets": shown, "chosen": set(chosen)
    }  # fmt: skip
    return page(call, "deployment/deploy.html", view, problem)


def _choice(site: SiteView, certificate_id: str) -> dict[str, Any]:
    if not site.site.managed:
        hint = site.site.unmanaged_reason or _("can't be managed")
    elif any(b.certificate_id == certificate_id for b in site.bindings):
        hint = _("bound to this certificate already; deploying again is harmless")
    elif site.bindings:
        hint = _("bound to another certificate")
    else:
        hint = ", ".join(listener.text for listener in site.site.listeners)
    return {"id": site.id, "label": site.label, "hint": hint, "usable": site.site.managed}


@pages.post("/certificates/{id}/deploy", action="scm:cert:deploy")
async def deploy(call: Call) -> Response:
    """One form, three buttons: see what will happen, change the choice, do it."""
    form, certificate_id = call.form, call.param("id")
    chosen, step = form.many("site_ids"), form.text("step")
    if step == "choose":
        return await _choose(call, chosen)
    try:
        if step != "deploy":
            return await _preview(call, chosen)
        started = await deployment.deploy(
            call.services, call.actor, certificate_id, chosen, replace=form.checked("replace")
        )
    except _MET as problem:
        if problem.code == "slot_taken" and step == "deploy":
            return await _preview(call, chosen, problem)
        return await _choose(call, chosen, problem)
    if len(started) == 1:
        return see(f"/rollouts/{started[0].id}")
    return see(f"/certificates/{certificate_id}")


async def _preview(call: Call, chosen: Sequence[str], problem: Problem | None = None) -> Response:
    services, actor, certificate_id = call.services, call.actor, call.param("id")
    detail = await certificates.get_certificate(services, actor, certificate_id)
    plans = await deployment.preview(services, actor, certificate_id, chosen)
    shown, taken = [], []
    for plan in plans:
        target = await deployment.get_target(services, actor, plan.target_id)
        shown.append({
            "target": target.name, "files": plan.files, "addresses": plan.addresses, "sites": plan.sites,
            "cautions": plan.cautions,
        })  # fmt: skip
        for site in await deployment.list_sites(services, actor, plan.target_id):
            if site.id in chosen and any(b.certificate_id != certificate_id for b in site.bindings):
                taken.append(f"{site.label} ({target.name})")
    view = {
        "cert": detail.summary, "shown_name": shown_name(detail.summary), "plans": shown, "taken": taken,
        "chosen": chosen, "values": call.form.values(),
    }  # fmt: skip
    return page(call, "deployment/preview.html", view, problem, renamed={"site_ids": "replace"})


# --- rollouts -------------------------------------------------------------------------------------------------------


@pages.get("/rollouts/{id}", action="scm:rollout:get")
async def rollout(call: Call) -> Response:
    return await _rollout(call)


async def _rollout(call: Call, problem: Problem | None = None) -> Response:
    found = await deployment.get_rollout(call.services, call.actor, call.param("id"))
    view = {
        "rollout": found, "state_code": shown_state(found), "finished": found.state in _FINISHED,
        "lines": step_lines(found),
    }  # fmt: skip
    return page(call, "deployment/rollout.html", view, problem)


def shown_state(rollout: RolloutView) -> str:
    """A code of words.ROLLOUT_STATES: `undone` is only for what had been begun."""
    return "refused" if rollout.refused else rollout.state.value


_SAID = {"done": N_("done"), "failed": N_("failed"), "running": N_("in progress"), "waiting": N_("still to come")}


def step_lines(rollout: RolloutView) -> list[dict[str, Any]]:
    """Every step run so far, the last attempt of each in its order, and those still to come."""
    runs = {run.step: run for run in rollout.steps}
    over = rollout.state in _FINISHED
    order = [*_ORDER, Step.UNDO] if Step.UNDO in runs or rollout.next_step is Step.UNDO else list(_ORDER)
    lines = []
    for step in order:
        run = runs.get(step)
        if run is None and (over or rollout.next_step is Step.UNDO) and step is not Step.UNDO:
            continue
        outcome = run.outcome if run is not None else None
        if outcome is None:
            outcome = "running" if step == rollout.next_step and not over else "waiting"
        tone, icon_name = {
            "done": ("ok", "check"),
            "failed": ("bad", "x"),
            "running": ("busy", "refresh"),
            "waiting": ("", "circle"),
        }[outcome]
        finished = run.finished_at if run is not None else None
        seconds = round((finished - run.started_at).total_seconds(), 1) if run is not None and finished else None
        lines.append({
            "step": step, "tone": tone, "icon": icon_name, "said": _(_SAID[outcome]), "seconds": seconds,
            "details": run.details if run is not None else (), "problem": run.problem if run is not None else None,
        })  # fmt: skip
    return lines


@pages.post("/rollouts/{id}/undo", action="scm:rollout:undo", ask="undo_rollout")
async def undo(call: Call) -> Response:
    try:
        started = await deployment.undo_rollout(call.services, call.actor, call.param("id"))
    except FORM_PROBLEMS as problem:
        return await _rollout(call, problem)
    return see(f"/rollouts/{started.id}")
