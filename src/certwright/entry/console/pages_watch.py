"""Alarms and endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from starlette.responses import Response

from certwright.entry.console import words
from certwright.entry.console.pages_home import alarm_line
from certwright.entry.console.web import (
    FORM_PROBLEMS,
    PAGE,
    Call,
    Pages,
    page,
    paged,
    revision_of,
    see,
    whole_number,
)
from certwright.kernel.problems import Problem
from certwright.platform.i18n import N_, _
from certwright.rooms import certificates, watch
from certwright.rooms.certificates import State

pages = Pages()

_TABS = (("open", N_("Open")), ("cleared", N_("Cleared")), ("all", N_("All")))
_HISTORY = {
    "raised": (N_("Raised"), "bad", "alert-circle"),
    "changed": (N_("Changed"), "warn", "refresh"),
    "cleared": (N_("Cleared"), "ok", "check"),
    "acknowledged": (N_("Acknowledged"), "busy", "user"),
    "unacknowledged": (N_("Acknowledgement taken back"), "", "arrow-back-up"),
}
_CHAINS = {
    "complete": N_("complete"),
    "unknown_root": N_("complete up to a root that isn't known here"),
    "incomplete": N_("incomplete: an intermediate certificate is missing"),
    "broken": N_("broken: a link was not signed by the next"),
}


# --- alarms ---------------------------------------------------------------------------------------------------------


@pages.get("/alarms", action="alarm:alarm:list")
async def alarms(call: Call) -> Response:
    shown = call.query.text("state") if call.query.text("state") in dict(_TABS) else "open"
    found = await watch.list_alarms(
        call.services, call.actor, watch.AlarmFilter(state=shown), after=call.query.optional("after"), limit=PAGE + 1
    )
    lines, next_href = paged(found, "/alarms", state=shown)
    view = {
        "lines": [alarm_line(row) for row in lines],
        "tabs": [(value, _(label)) for value, label in _TABS],
        "shown": shown,
        "next_href": next_href,
    }
    return page(call, "watch/alarms.html", view)


@pages.get("/alarms/{id}", action="alarm:alarm:get")
async def alarm(call: Call) -> Response:
    return await _alarm(call)


async def _alarm(call: Call, problem: Problem | None = None) -> Response:
    row, history = await watch.get_alarm(call.services, call.actor, call.param("id"))
    location = row.location or {}
    is_endpoint = row.object_type == "endpoint"
    view = {
        "row": row,
        "line": alarm_line(row),
        "kind": watch.localized(row.kind),
        "certificate_id": row.object_id if row.object_type == "certificate" else location.get("certificate_id"),
        "endpoint_id": row.object_id if is_endpoint else None,
        "is_desk": row.object_type == "desk",
        "authority_id": row.object_id if row.object_type == "authority" else None,
        "values": [(str(v["at"])[:16].replace("T", " "), v["value"]) for v in row.recent_values or ()],
        "history": [
            {
                "word": _(_HISTORY[line.what][0]),
                "tone": _HISTORY[line.what][1],
                "icon": _HISTORY[line.what][2],
                "by": line.by,
                "at": line.at,
                # What had been wrong is no news when it is over.
                "sentence": watch.sentence(line.reason, line.params) if line.what != "cleared" else "",
            }
            for line in history
        ],
    }
    return page(call, "watch/alarm.html", view, problem)


@pages.post("/alarms/{id}/acknowledge", action="alarm:alarm:ack")
async def acknowledge(call: Call) -> Response:
    on = call.form.checked("acknowledged")
    try:
        await watch.acknowledge(call.services, call.actor, call.param("id"), acknowledged=on)
    except FORM_PROBLEMS as problem:
        return await _alarm(call, problem)
    return see(f"/alarms/{call.param('id')}", said="acknowledged" if on else "saved", call=call)


# --- endpoints ------------------------------------------------------------------------------------------------------


def _over(not_after: datetime | None, seen: datetime | None) -> bool:
    """Whether what was served had run out when it was last seen."""
    return not_after is not None and seen is not None and not_after <= seen


def _endpoint_line(row: Any) -> dict[str, Any]:
    if not row.enabled:
        tone, text = "idle", _("Switched off")
    elif row.reachable is None:
        tone, text = "busy", _("Not looked at yet")
    elif not row.reachable:
        tone, text = "bad", _("Does not answer")
    elif row.fingerprint is None:
        tone, text = "bad", _("Serves no certificate")
    elif _over(row.not_after, row.last_probe_at):
        tone, text = "bad", _("Expired")
    elif row.expected_fingerprint and row.expected_fingerprint != row.fingerprint:
        tone, text = "warn", _("Serves another certificate")
    else:
        tone, text = "ok", _("Answers")
    return {
        "id": row.id,
        "name": watch.name_of(row),
        "from_binding": row.origin == watch.Origin.BINDING,
        "tone": tone,
        "word": text,
        "subject": row.subject,
        "not_after": row.not_after,
        "last_probe_at": row.last_probe_at,
    }


@pages.get("/endpoints", action="alarm:endpoint:list")
async def endpoints(call: Call) -> Response:
    search = call.query.text("q")
    found = await watch.list_endpoints(
        call.services, call.actor, watch.EndpointFilter(search=search), after=call.query.optional("after"),
        limit=PAGE + 1,
    )  # fmt: skip
    lines, next_href = paged(found, "/endpoints", q=search)
    view = {
        "lines": await _with_alarms(call, [_endpoint_line(row) for row in lines]),
        "values": {"q": search},
        "next_href": next_href,
    }
    return page(call, "watch/endpoints.html", view)


async def _with_alarms(call: Call, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An address that answers isn't well while an alarm is open about what it serves."""
    if not call.allowed("alarm:alarm:list"):
        return lines
    async with call.services.db.begin() as tx:
        for line in lines:
            found = await watch.open_alarms_for(tx, line["id"]) if line["tone"] == "ok" else []
            if found:
                line |= {
                    "tone": words.tone(words.SEVERITIES, found[0].severity),
                    "word": watch.localized(found[0].kind).name,
                }
    return lines


async def _new_view(call: Call, values: Mapping[str, str]) -> dict[str, Any]:
    offered = [("", _("any valid certificate"))]
    if call.allowed("scm:cert:list"):
        issued = await certificates.list_certificates(
            call.services, call.actor, certificates.Filters(states=(State.ISSUED, State.HOSTED)), limit=100
        )
        offered += [(c.id, f"{c.primary_name} ({c.name})") for c in issued]
    starttls = [
        ("none", _("At once")),
        ("smtp", "STARTTLS (SMTP)"),
        ("imap", "STARTTLS (IMAP)"),
        ("postgres", "PostgreSQL"),
    ]
    return {"values": values, "certificates": offered, "starttls": starttls}


@pages.get("/endpoints/new", action="alarm:endpoint:create")
async def new_endpoint(call: Call) -> Response:
    values = {"port": "443", "host": call.query.text("host"), "certificate_id": call.query.text("certificate_id")}
    return page(call, "watch/endpoint_new.html", await _new_view(call, values))


@pages.post("/endpoints/new", action="alarm:endpoint:create")
async def create_endpoint(call: Call) -> Response:
    form = call.form
    try:
        row = await watch.create_endpoint(
            call.services, call.actor, host=form.text("host"), port=whole_number(form, "port"),
            sni=form.optional("sni"), starttls=form.text("starttls", "none"),
            certificate_id=form.optional("certificate_id"),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        return page(call, "watch/endpoint_new.html", await _new_view(call, form.values()), problem)
    return see(f"/endpoints/{row.id}", said="created", call=call)


def _observation(row: Any) -> dict[str, Any]:
    if row.problem:
        tone, text = "bad", _("No certificate")
    elif _over(row.not_after, row.last_seen):
        tone, text = "bad", _("Expired")
    elif row.intended is False:
        tone, text = "warn", _("Serves another certificate")
    else:
        tone, text = "ok", _("Answers")
    chain = _(_CHAINS[row.chain_state]) if row.chain_state in _CHAINS else ""
    return {
        "address": row.address,
        "tone": tone,
        "word": text,
        "detail": row.detail,
        "fingerprint": row.fingerprint,
        "names": row.names,
        "not_before": row.not_before,
        "not_after": row.not_after,
        "intended": row.intended,
        "chain_word": chain,
        "links": row.links,
        "protocol": ", ".join(part for part in (row.tls_version, row.cipher, row.key_exchange_group) if part),
        "first_seen": row.first_seen,
        "last_seen": row.last_seen,
        "superseded_at": row.superseded_at,
    }


@pages.get("/endpoints/{id}", action="alarm:endpoint:get")
async def endpoint(call: Call) -> Response:
    return await _endpoint(call)


async def _endpoint(call: Call, problem: Problem | None = None) -> Response:
    endpoint_id = call.param("id")
    row, seen, standing = await watch.get_endpoint(call.services, call.actor, endpoint_id)
    history = await watch.observations(call.services, call.actor, endpoint_id, limit=20)
    view = {
        "row": row,
        "line": _endpoint_line(row),
        "observations": [_observation(o) for o in seen],
        "history": [_observation(o) for o in history],
        "alarms": [alarm_line(a) for a in standing],
        "refresh": 2 if row.last_probe_at is None else 10,
    }
    return page(call, "watch/endpoint.html", view, problem)


@pages.post("/endpoints/{id}/probe", action="alarm:endpoint:probe")
async def probe(call: Call) -> Response:
    try:
        await watch.probe_now(call.services, call.actor, call.param("id"))
    except FORM_PROBLEMS as problem:
        return await _endpoint(call, problem)
    return see(f"/endpoints/{call.param('id')}", said="probing", call=call)


@pages.post("/endpoints/{id}/enabled", action="alarm:endpoint:update")
async def set_enabled(call: Call) -> Response:
    try:
        await watch.update_endpoint(
            call.services, call.actor, call.param("id"), revision=revision_of(call.form),
            enabled=call.form.checked("enabled"),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        return await _endpoint(call, problem)
    return see(f"/endpoints/{call.param('id')}", said="saved", call=call)


async def _delete_view(call: Call) -> dict[str, Any]:
    row, _seen, _standing = await watch.get_endpoint(call.services, call.actor, call.param("id"))
    back = f"/endpoints/{row.id}"
    return {
        "section": "endpoints",
        "title": _("Stop watching %(name)s?") % {"name": watch.name_of(row)},
        "crumbs": [(_("Endpoints"), "/endpoints"), (watch.name_of(row), back)],
        "action": f"{back}/delete",
        "back": back,
        "warning": _("Its history is removed"),
        "lines": [_("Open alarms of it are cleared and stay in the history of alarms.")],
        "button": _("Remove the endpoint"),
    }


@pages.get("/endpoints/{id}/delete", action="alarm:endpoint:delete")
async def delete_page(call: Call) -> Response:
    return page(call, "confirm.html", await _delete_view(call))


@pages.post("/endpoints/{id}/delete", action="alarm:endpoint:delete")
async def delete_endpoint(call: Call) -> Response:
    try:
        await watch.delete_endpoint(call.services, call.actor, call.param("id"))
    except FORM_PROBLEMS as problem:
        return page(call, "confirm.html", await _delete_view(call), problem)
    return see("/endpoints", said="removed", call=call)
