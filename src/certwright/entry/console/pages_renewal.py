"""Renewal: what is due when, windows and freezes, mass replacements, and which certificates survive shorter lives."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from babel.dates import get_day_names
from starlette.responses import Response

from certwright.entry.api.base import in_utc
from certwright.entry.console import words
from certwright.entry.console.forms import Form
from certwright.entry.console.pages_certificates import ca_name, unicode_name
from certwright.entry.console.web import (
    FORM_PROBLEMS,
    PAGE,
    Call,
    Pages,
    changed,
    page,
    paged,
    see,
    whole_number,
    with_query,
)
from certwright.kernel.problems import Invalid, NotFound, Problem
from certwright.platform.i18n import N_, _, current_locale
from certwright.rooms import access, cas, certificates, renewal, validation
from certwright.rooms.renewal import CampaignReason, CampaignState, Criteria, ItemState, Priority

pages = Pages()

_CAMPAIGN = {
    "criteria": "ca", "criteria.ca": "ca", "criteria.key_algorithm": "key_algorithm", "criteria.issuer": "issuer",
    "criteria.names": "names", "criteria.issued_before": "issued_before",
}  # fmt: skip
_STEERED: Mapping[str, str] = {
    "pause": N_("Pause"), "resume": N_("Go on"), "retry": N_("Try the failed ones again"),
}  # fmt: skip
_MOVING = (CampaignState.PLANNING, CampaignState.RUNNING)


def _moment(form: Form, name: str) -> datetime | None:
    """A date and time in UTC as browsers send it, 2027-01-31T10:00; None where nothing was typed."""
    text = form.text(name)
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError as error:
        raise _no_moment(text, name) from error


def _needed(form: Form, name: str) -> datetime:
    found = _moment(form, name)
    if found is None:
        raise Invalid("moment_missing", "The date and time are missing.", field=name, fix="Enter both.")
    return found


def _no_moment(text: str, name: str) -> Invalid:
    return Invalid(
        "moment_invalid", f"{text[:40]!r} is not a date and time.", field=name, fix="Write it as 2027-01-31T10:00."
    )


async def _projects(call: Call) -> list[tuple[str, str]]:
    if not call.allowed("iam:project:list"):
        return []
    return [(p.id, p.name) for p in await access.people.list_projects(call.services, call.actor, limit=100)]


async def _ca_names(call: Call, wanted: set[str]) -> dict[str, str]:
    return {ca: await ca_name(call, ca) for ca in wanted}


# --- what is due -----------------------------------------------------------------------------------------------------


@pages.get("/renewal", action="scm:renewal:list")
async def plan_page(call: Call) -> Response:
    after, text = None, call.query.text("after")
    if text:
        moment, _bar, last_id = text.partition("|")
        try:
            after = (in_utc(datetime.fromisoformat(moment)), last_id)
        except ValueError as error:
            raise Invalid(
                "page_unknown", "This page of the list can't be found.", fix="Begin again at the first page."
            ) from error
    found = await renewal.list_renewals(call.services, call.actor, after=after, limit=PAGE + 1)
    lines = [view for _key, view in found[:PAGE]]
    more = ""
    if len(found) > PAGE:
        due_at, last_id = found[PAGE - 1][0]
        more = with_query("/renewal", after=f"{due_at.isoformat()}|{last_id}")
    view = {
        "tab": "plan",
        "lines": lines,
        "ca_names": await _ca_names(call, {line.ca for line in lines}),
        "next_href": more,
        "first_href": "/renewal" if text else "",
    }
    return page(call, "renewal/plan.html", view)


# --- windows, freezes, limits ----------------------------------------------------------------------------------------


@pages.get("/renewal/calendar", action="scm:renewal:list")
async def calendar_page(call: Call) -> Response:
    return await _calendar(call)


async def _calendar(call: Call, problem: Problem | None = None) -> Response:
    projects = await _projects(call)
    limits = await renewal.list_limits(call.services, call.actor)
    days = _days()
    view = {
        "tab": "calendar",
        "windows": [
            (window, ", ".join(days[day][1] for day in window.weekdays) if len(window.weekdays) < 7 else _("every day"))
            for window in await renewal.list_windows(call.services, call.actor, limit=100)
        ],
        "freezes": await renewal.list_freezes(call.services, call.actor, limit=100),
        "limits": [(limit, await ca_name(call, limit.ca)) for limit in limits],
        "project_names": dict(projects),
        "projects": [("", _("the whole account")), *projects],
        "days": days,
        "chosen": set(call.form.many("weekdays")) or {str(day) for day in range(7)},
        "values": {"zone": "UTC", "from_time": "01:00", "to_time": "05:00"} | call.form.values(),
        "form": call.form.text("form"),
    }
    return page(call, "renewal/calendar.html", view, problem, renamed={"from": "from_at", "to": "to_at"})


def _days() -> list[tuple[str, str]]:
    names = get_day_names("abbreviated", locale=current_locale())
    return [(str(day), names[day]) for day in range(7)]


def _clock(form: Form, name: str) -> time:
    text = form.text(name)
    try:
        found = time.fromisoformat(text)
    except ValueError as error:
        raise Invalid("time_invalid", f"{text[:40]!r} is not a time.", field=name, fix="Write it as 03:30.") from error
    return found.replace(tzinfo=None)


def _window(form: Form) -> renewal.Window:
    days = frozenset(int(day) for day in form.many("weekdays") if day in "0123456" and len(day) == 1)
    return renewal.Window(
        days, _clock(form, "from_time"), _clock(form, "to_time"), form.text("zone"), form.text("name")
    )


def _freeze(form: Form) -> renewal.Freeze:
    return renewal.Freeze(_needed(form, "from_at"), _needed(form, "to_at"), form.text("reason"))


@pages.post("/renewal/windows", action="scm:renewal:update")
async def add_window(call: Call) -> Response:
    try:
        window, project_id = _window(call.form), call.form.optional("project_id")
        await renewal.add_window(call.services, call.actor, window, project_id=project_id)
    except (*FORM_PROBLEMS, NotFound) as problem:
        return await _calendar(call, problem)
    return see("/renewal/calendar", said="added", call=call)


@pages.get("/renewal/windows/{id}", action="scm:renewal:update")
async def window_page(call: Call) -> Response:
    found = await renewal.get_window(call.services, call.actor, call.param("id"))
    values = {
        "name": found.name, "zone": found.zone, "from_time": found.from_time.strftime("%H:%M"),
        "to_time": found.to_time.strftime("%H:%M"),
    }  # fmt: skip
    return _window_form(call, values, {str(day) for day in found.weekdays})


def _window_form(call: Call, values: Mapping[str, str], chosen: set[str], problem: Problem | None = None) -> Response:
    view = {"id": call.param("id"), "values": values, "chosen": chosen, "days": _days()}
    return page(call, "renewal/window.html", view, problem)


@pages.post("/renewal/windows/{id}", action="scm:renewal:update")
async def change_window(call: Call) -> Response:
    try:
        await renewal.update_window(call.services, call.actor, call.param("id"), _window(call.form))
    except FORM_PROBLEMS as problem:
        return _window_form(call, call.form.values(), set(call.form.many("weekdays")), problem)
    return see("/renewal/calendar", said="saved", call=call)


@pages.post("/renewal/windows/{id}/delete", action="scm:renewal:update", ask="delete_window")
async def delete_window(call: Call) -> Response:
    doing = renewal.delete_window(call.services, call.actor, call.param("id"))
    return await changed(call, doing, _calendar, "/renewal/calendar", "removed")


@pages.post("/renewal/freezes", action="scm:renewal:update")
async def add_freeze(call: Call) -> Response:
    try:
        freeze, project_id = _freeze(call.form), call.form.optional("project_id")
        await renewal.add_freeze(call.services, call.actor, freeze, project_id=project_id)
    except (*FORM_PROBLEMS, NotFound) as problem:
        return await _calendar(call, problem)
    return see("/renewal/calendar", said="added", call=call)


@pages.get("/renewal/freezes/{id}", action="scm:renewal:update")
async def freeze_page(call: Call) -> Response:
    found = await renewal.get_freeze(call.services, call.actor, call.param("id"))
    shape = "%Y-%m-%dT%H:%M"
    values = {
        "reason": found.reason, "from_at": found.from_at.astimezone(UTC).strftime(shape),
        "to_at": found.to_at.astimezone(UTC).strftime(shape),
    }  # fmt: skip
    return _freeze_form(call, values)


def _freeze_form(call: Call, values: Mapping[str, str], problem: Problem | None = None) -> Response:
    view = {"id": call.param("id"), "values": values}
    return page(call, "renewal/freeze.html", view, problem, renamed={"from": "from_at", "to": "to_at"})


@pages.post("/renewal/freezes/{id}", action="scm:renewal:update")
async def change_freeze(call: Call) -> Response:
    try:
        await renewal.update_freeze(call.services, call.actor, call.param("id"), _freeze(call.form))
    except FORM_PROBLEMS as problem:
        return _freeze_form(call, call.form.values(), problem)
    return see("/renewal/calendar", said="saved", call=call)


@pages.post("/renewal/freezes/{id}/delete", action="scm:renewal:update", ask="delete_freeze")
async def delete_freeze(call: Call) -> Response:
    doing = renewal.delete_freeze(call.services, call.actor, call.param("id"))
    return await changed(call, doing, _calendar, "/renewal/calendar", "removed")


@pages.post("/renewal/limits", action="scm:renewal:update")
async def set_limit(call: Call) -> Response:
    form = call.form
    try:
        await renewal.set_limit(
            call.services, call.actor, form.text("ca"), per_minute=whole_number(form, "per_minute"),
            reserve_percent=whole_number(form, "reserve_percent"),
        )  # fmt: skip
    except (*FORM_PROBLEMS, NotFound) as problem:
        return await _calendar(call, problem)
    return see("/renewal/calendar", said="saved", call=call)


# --- the rules themselves -------------------------------------------------------------------------------------------


@pages.get("/renewal/rules", action="scm:rules:get")
async def rules_page(call: Call) -> Response:
    return await _rules(call)


async def _rules(call: Call, problem: Problem | None = None) -> Response:
    found = await validation.get_rules(call.services, call.actor)
    view = {"tab": "rules", "rules": found, "values": {"text": found.text} | call.form.values()}
    return page(call, "renewal/rules.html", view, problem)


@pages.post("/renewal/rules", action="scm:rules:update")
async def replace_rules(call: Call) -> Response:
    # Browsers send lines that end with CR and LF.
    text = call.form.text("text").replace("\r\n", "\n") + "\n"
    try:
        await validation.replace_rules(call.services, call.actor, text)
    except FORM_PROBLEMS as problem:
        return await _rules(call, problem)
    return see("/renewal/rules", said="rules_replaced", call=call)


@pages.post("/renewal/rules/revert", action="scm:rules:update", ask="revert_rules")
async def revert_rules(call: Call) -> Response:
    doing = validation.revert_rules(call.services, call.actor)
    return await changed(call, doing, _rules, "/renewal/rules", "rules_reverted")


# --- mass replacement ------------------------------------------------------------------------------------------------


@pages.get("/renewal/campaigns", action="scm:campaign:list")
async def campaigns_page(call: Call) -> Response:
    after = call.query.optional("after")
    found = await renewal.campaigns.list_campaigns(call.services, call.actor, after=after, limit=PAGE + 1)
    lines, next_href = paged(found, "/renewal/campaigns")
    view = {
        "tab": "campaigns",
        "lines": [(line, sum(line.counts.values()) - line.counts["excluded"]) for line in lines],
        "next_href": next_href,
        "first_href": "/renewal/campaigns" if after is not None else "",
    }
    return page(call, "renewal/campaigns.html", view)


async def _campaign_view(call: Call, values: Mapping[str, str]) -> dict[str, Any]:
    options = [("", _("any")), (certificates.BUILTIN_CA, await ca_name(call, certificates.BUILTIN_CA))]
    if call.allowed("scm:ca:list"):
        options += [(ca.id, ca.name) for ca in await cas.list_cas(call.services, call.actor, limit=100)]
    projects = await _projects(call)
    return {
        "tab": "campaigns",
        "values": values,
        "cas": options,
        "to_cas": [("", _("the CA each one has")), *options[1:]],
        "key_algorithms": [("", _("any")), *((label, label) for label in words.KEY_ALGORITHMS.values())],
        "projects": [("", _("any")), *projects],
        "reasons": [(reason.value, words.word(words.CAMPAIGN_REASONS, reason)) for reason in CampaignReason],
        "priorities": [
            (one.value, words.word(words.PRIORITIES, one), words.detail(words.PRIORITIES, one)) for one in Priority
        ],
    }


@pages.get("/renewal/campaigns/new", action="scm:campaign:create")
async def new_campaign_page(call: Call) -> Response:
    tomorrow = (call.now + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M")
    return page(
        call, "renewal/campaign_new.html", await _campaign_view(call, {"deadline": tomorrow, "per_hour": "600"})
    )


@pages.post("/renewal/campaigns/new", action="scm:campaign:create")
async def create_campaign(call: Call) -> Response:
    """One form, three buttons: what would happen, change it, start it."""
    form, step = call.form, call.form.text("step")
    try:
        if step == "edit":
            return page(call, "renewal/campaign_new.html", await _campaign_view(call, form.values()))
        criteria = Criteria(
            ca=form.optional("ca"), key_algorithm=form.optional("key_algorithm"), issuer=form.optional("issuer"),
            issued_before=_moment(form, "issued_before"), names=form.optional("names"),
            project_id=form.optional("project_id"),
        )  # fmt: skip
        deadline, per_hour = _needed(form, "deadline"), whole_number(form, "per_hour")
        to_ca = form.optional("to_ca")
        if step != "start":
            return await _previewed(call, criteria, deadline, per_hour, to_ca)
        reason = _word(CampaignReason, form.text("reason"), "reason")
        made = await renewal.campaigns.start(
            call.services, call.actor, criteria, name=form.text("name"), reason=CampaignReason(reason),
            deadline=deadline, per_hour=per_hour,
            priority=Priority(_word(Priority, form.text("priority", Priority.BOUND_FIRST), "priority")), to_ca=to_ca,
            project_id=form.optional("project_id"),
        )  # fmt: skip
    except (*FORM_PROBLEMS, NotFound) as problem:
        view = await _campaign_view(call, form.values())
        return page(call, "renewal/campaign_new.html", view, problem, renamed=_CAMPAIGN)
    return see(f"/renewal/campaigns/{made.id}", said="campaign_started", call=call)


def _word(known: Any, text: str, field: str) -> str:
    if text not in set(known):
        raise Invalid("choice_missing", "Nothing is chosen.", field=field, fix="Choose one of the list.")
    return text


async def _previewed(call: Call, criteria: Criteria, deadline: datetime, per_hour: int, to_ca: str | None) -> Response:
    found = await renewal.campaigns.preview(
        call.services, call.actor, criteria, deadline=deadline, per_hour=per_hour, to_ca=to_ca, show=50
    )
    if not call.form.text("name"):
        raise Invalid(
            "campaign_name_invalid", "The mass replacement has no name.", field="name", fix="Say what it is about."
        )
    view = await _campaign_view(call, call.form.values())
    view |= {
        "fields": [(key, value) for key, value in call.form if key != "step"],
        "found": found,
        "counts": [(words.word(words.REPLACEABLE, code), count) for code, count in found.counts.items()],
        "to_ca": await ca_name(call, to_ca) if to_ca is not None else "",
        "deadline": deadline,
        "per_hour": per_hour,
    }
    return page(call, "renewal/campaign_preview.html", view)


@pages.get("/renewal/campaigns/{id}", action="scm:campaign:get")
async def campaign_page(call: Call) -> Response:
    return await _campaign(call)


async def _campaign(call: Call, problem: Problem | None = None) -> Response:
    campaign_id, after = call.param("id"), call.query.optional("after")
    one = await renewal.campaigns.get_campaign(call.services, call.actor, campaign_id)
    text = call.query.text("state")
    state = ItemState(text) if text in set(ItemState) else None
    found = await renewal.campaigns.list_items(
        call.services, call.actor, campaign_id, state=state, after=after, limit=PAGE + 1
    )
    base = f"/renewal/campaigns/{campaign_id}"
    items, next_href = paged(found, base, state=text)
    total = sum(one.counts.values()) - one.counts["excluded"]
    ended = one.counts["replaced"] + one.counts["skipped"]
    criteria = dict(one.criteria)
    if "ca" in criteria:
        criteria["ca"] = await ca_name(call, criteria["ca"])
    view = {
        "tab": "campaigns",
        "one": one,
        "criteria": [(words.plain(words.CRITERIA, key), value) for key, value in criteria.items()],
        "to_ca": await ca_name(call, one.to_ca) if one.to_ca is not None else "",
        "total": total,
        "ended": ended,
        "moving": one.state in _MOVING,
        "items": items,
        "states": [("", _("all")), *((s.value, words.word(words.ITEM_STATES, s)) for s in ItemState)],
        "values": {"state": text, "per_hour": str(one.per_hour)} | call.form.values(),
        "steering": [(verb, _(_STEERED[verb])) for verb in _verbs(one)],
        "may_cancel": one.state in (*_MOVING, CampaignState.PAUSED),
        "next_href": next_href,
        "first_href": with_query(base, state=text) if after is not None else "",
    }
    return page(call, "renewal/campaign.html", view, problem)


def _verbs(one: renewal.Campaign) -> list[str]:
    verbs = {CampaignState.RUNNING: ["pause"], CampaignState.PAUSED: ["resume"]}.get(one.state, [])
    again = one.state in (CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.FINISHED)
    return [*verbs, "retry"] if again and one.counts["failed"] else verbs


@pages.post("/renewal/campaigns/{id}/pause", action="scm:campaign:update")
async def pause(call: Call) -> Response:
    return await _steered(call, renewal.campaigns.pause(call.services, call.actor, call.param("id")), "campaign_paused")


@pages.post("/renewal/campaigns/{id}/resume", action="scm:campaign:update")
async def resume(call: Call) -> Response:
    doing = renewal.campaigns.resume(call.services, call.actor, call.param("id"))
    return await _steered(call, doing, "campaign_resumed")


@pages.post("/renewal/campaigns/{id}/retry", action="scm:campaign:update")
async def retry(call: Call) -> Response:
    doing = renewal.campaigns.retry(call.services, call.actor, call.param("id"))
    return await _steered(call, doing, "campaign_resumed")


@pages.post("/renewal/campaigns/{id}/cancel", action="scm:campaign:update", ask="cancel_campaign")
async def cancel(call: Call) -> Response:
    doing = renewal.campaigns.cancel(call.services, call.actor, call.param("id"))
    return await _steered(call, doing, "campaign_cancelled")


@pages.post("/renewal/campaigns/{id}/rate", action="scm:campaign:update")
async def set_rate(call: Call) -> Response:
    try:
        per_hour = whole_number(call.form, "per_hour")
    except Invalid as problem:
        return await _campaign(call, problem)
    doing = renewal.campaigns.set_rate(call.services, call.actor, call.param("id"), per_hour)
    return await _steered(call, doing, "saved")


async def _steered(call: Call, doing: Any, said: str) -> Response:
    return await changed(call, doing, _campaign, f"/renewal/campaigns/{call.param('id')}", said)


# --- readiness -------------------------------------------------------------------------------------------------------


@pages.get("/renewal/readiness", action="scm:readiness:get")
async def readiness_page(call: Call) -> Response:
    text, after, problem = call.query.text("at"), call.query.optional("after"), None
    at = None
    try:
        if text:
            day = date.fromisoformat(text)
            at = datetime(day.year, day.month, day.day, tzinfo=UTC)
    except ValueError:
        problem = Invalid("day_invalid", f"{text[:40]!r} is not a day.", field="at", fix="Write it as 2029-04-01.")
    summary = await renewal.summarize(call.services, call.actor, at=at)
    lines, more = await renewal.list_readiness(call.services, call.actor, at=at, after=after, limit=PAGE)
    view = {
        "tab": "readiness",
        "summary": summary,
        "steps": [
            (*key.split("/"), counts.get("yes", 0), counts.get("with_work", 0), counts.get("no", 0))
            for key, counts in summary.steps.items()
        ],
        "lines": [(line, unicode_name(line.primary_name) or line.name) for line in lines],
        "ca_names": await _ca_names(call, {line.ca for line in lines}),
        "values": {"at": text},
        "at": at,
        "next_href": with_query("/renewal/readiness", at=text, after=more) if more else "",
        "first_href": with_query("/renewal/readiness", at=text) if after is not None else "",
    }
    return page(call, "renewal/readiness.html", view, problem)
