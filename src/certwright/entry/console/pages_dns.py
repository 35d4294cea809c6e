"""DNS connections for automatic validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from certwright.entry.console.forms import Form
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
from certwright.kernel.problems import Problem, Unavailable
from certwright.platform.i18n import N_, _
from certwright.rooms import validation

pages = Pages()

_ALGORITHMS = ("hmac-sha256", "hmac-sha384", "hmac-sha512")
_LABELS = {
    "server": N_("Server"), "port": N_("Port"), "key_name": N_("TSIG key name"), "algorithm": N_("Algorithm")
}  # fmt: skip
_RENAMED = {f"settings.{name}": name for name in _LABELS}


@pages.get("/dns", action="dns:connection:list")
async def connections(call: Call) -> Response:
    return await _list(call)


async def _list(call: Call, problem: Problem | None = None) -> Response:
    found = list(
        await validation.list_connections(call.services, call.actor, after=call.query.optional("after"), limit=PAGE + 1)
    )
    lines, next_href = paged(found, "/dns")
    view = {
        "lines": lines,
        "labels": {key: _(label) for key, label in _LABELS.items()},
        "next_href": next_href,
    }
    return page(call, "dns.html", view, problem)


def _edit_view(values: Mapping[str, str], action: str, *, new: bool) -> dict[str, Any]:
    return {
        "values": values,
        "action": action,
        "new": new,
        "title": _("Connect a DNS server") if new else _("Edit the DNS connection"),
        "algorithms": [(name, name) for name in _ALGORITHMS],
    }


def _settings(form: Form) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "server": form.text("server"), "key_name": form.text("key_name"),
        "algorithm": form.text("algorithm") or _ALGORITHMS[0],
    }  # fmt: skip
    if form.text("port"):
        settings["port"] = whole_number(form, "port")
    return settings


def _typed(form: Form) -> dict[str, str]:
    """What goes back into the form: everything but the secret."""
    return {key: value for key, value in form.values().items() if key != "secret"}


@pages.get("/dns/new", action="dns:connection:create")
async def new_page(call: Call) -> Response:
    return page(call, "dns_edit.html", _edit_view({"port": "53"}, "/dns/new", new=True))


@pages.post("/dns/new", action="dns:connection:create")
async def create(call: Call) -> Response:
    form = call.form
    try:
        made = await validation.create_connection(
            call.services, call.actor, name=form.text("name"), kind="rfc2136", zones=form.lines("zones"),
            settings=_settings(form), secret=form.text("secret"),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        return page(call, "dns_edit.html", _edit_view(_typed(form), "/dns/new", new=True), problem, renamed=_RENAMED)
    return await _test(call, made.id, "created")


async def _test(call: Call, connection_id: str, said: str) -> Response:
    """Whether it works is kept on the connection, so the list says it; a failed test undoes nothing."""
    if call.allowed("dns:connection:update"):
        await validation.check_connection(call.services, call.actor, connection_id)
    return see("/dns", said=said, call=call)


@pages.get("/dns/{id}/edit", action="dns:connection:update")
async def edit_page(call: Call) -> Response:
    found = await validation.get_connection(call.services, call.actor, call.param("id"))
    values = {key: str(value) for key, value in found.settings.items()}
    values |= {"name": found.name, "zones": "\n".join(found.zones), "revision": str(found.revision)}
    return page(call, "dns_edit.html", _edit_view(values, f"/dns/{found.id}/edit", new=False))


@pages.post("/dns/{id}/edit", action="dns:connection:update")
async def edit(call: Call) -> Response:
    form, connection_id = call.form, call.param("id")
    try:
        await validation.update_connection(
            call.services, call.actor, connection_id, revision=revision_of(form), name=form.text("name"),
            zones=form.lines("zones"), settings=_settings(form), secret=form.optional("secret"),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        view = _edit_view(_typed(form), f"/dns/{connection_id}/edit", new=False)
        return page(call, "dns_edit.html", view, problem, renamed=_RENAMED)
    return await _test(call, connection_id, "saved")


@pages.post("/dns/{id}/check", action="dns:connection:update")
async def check(call: Call) -> Response:
    try:
        return await _test(call, call.param("id"), "checked")
    except (*FORM_PROBLEMS, Unavailable) as problem:
        return await _list(call, problem)


@pages.post("/dns/{id}/delete", action="dns:connection:delete", ask="remove_connection")
async def delete(call: Call) -> Response:
    try:
        await validation.delete_connection(call.services, call.actor, call.param("id"))
    except FORM_PROBLEMS as problem:
        return await _list(call, problem)
    return see("/dns", said="removed", call=call)
