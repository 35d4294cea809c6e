"""CSRs: signing requests kept on their own, with or without their private key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from starlette.responses import Response

from certwright.entry.console import words
from certwright.entry.console.forms import Form
from certwright.entry.console.pages_certificates import unicode_name
from certwright.entry.console.web import FORM_PROBLEMS, PAGE, Call, Pages, page, paged, revision_of, see, with_query
from certwright.kernel.names import looks_like_ip
from certwright.kernel.problems import Problem
from certwright.platform.i18n import _
from certwright.rooms import access, csrs
from certwright.x509.keys import KeyAlgorithm

pages = Pages()

_SUBJECT = tuple(field.name for field in fields(csrs.Subject))
_RENAMED = {f"subject.{name}": name for name in _SUBJECT}
_SECRETS = ("private_key", "passphrase")


# --- the list -------------------------------------------------------------------------------------------------------


@pages.get("/csrs", action="scm:csr:list")
async def list_page(call: Call) -> Response:
    q, after = call.query.text("q"), call.query.optional("after")
    found = await csrs.list_csrs(call.services, call.actor, search=q or None, after=after, limit=PAGE + 1)
    lines, next_href = paged(found, "/csrs", q=q)
    view = {
        "lines": [(csr, shown_names(csr)) for csr in lines],
        "values": {"q": q},
        "filtered": bool(q) or after is not None,
        "next_href": next_href,
        "first_href": with_query("/csrs", q=q) if after is not None else "",
    }
    return page(call, "csrs/list.html", view)


def shown_names(csr: csrs.Csr) -> list[str]:
    return [name if looks_like_ip(name) else unicode_name(name) for name in csr.names]


# --- making and uploading -------------------------------------------------------------------------------------------


async def _projects(call: Call) -> list[tuple[str, str]]:
    if not call.allowed("iam:project:list"):
        return []
    found = await access.people.list_projects(call.services, call.actor, limit=100)
    return [(p.id, p.name) for p in sorted(found, key=lambda p: not p.is_default)]


def _typed(form: Form) -> dict[str, str]:
    """What goes back into the form: everything but the secrets."""
    return {key: value for key, value in form.values().items() if key not in _SECRETS}


async def _new_view(call: Call, values: Mapping[str, str]) -> dict[str, Any]:
    return {
        "values": values,
        "projects": await _projects(call),
        "key_algorithms": [(code.value, words.plain(words.KEY_ALGORITHMS, code)) for code in KeyAlgorithm],
    }


@pages.get("/csrs/new", action="scm:csr:create")
async def new_page(call: Call) -> Response:
    return page(call, "csrs/new.html", await _new_view(call, {}))


@pages.post("/csrs/new", action="scm:csr:create")
async def create(call: Call) -> Response:
    form = call.form
    try:
        made = await csrs.generate(
            call.services, call.actor, names=form.lines("names"),
            subject=csrs.Subject(**{name: form.text(name) for name in _SUBJECT}),
            key_algorithm=form.text("key_algorithm", KeyAlgorithm.EC_P256.value), name=form.optional("name"),
            project_id=form.optional("project_id"),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        return page(call, "csrs/new.html", await _new_view(call, _typed(form)), problem, renamed=_RENAMED)
    return see(f"/csrs/{made.id}", said="created", call=call)


@pages.get("/csrs/upload", action="scm:csr:create")
async def upload_page(call: Call) -> Response:
    return page(call, "csrs/upload.html", {"values": {}, "projects": await _projects(call)})


@pages.post("/csrs/upload", action="scm:csr:create")
async def upload(call: Call) -> Response:
    form = call.form
    try:
        made = await csrs.upload(
            call.services, call.actor, csr=form.text("csr"), private_key=form.optional("private_key"),
            passphrase=form.raw("passphrase") or None, name=form.optional("name"),
            project_id=form.optional("project_id"),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        view = {"values": _typed(form), "projects": await _projects(call)}
        return page(call, "csrs/upload.html", view, problem)
    return see(f"/csrs/{made.id}", said="added", call=call)


# --- one CSR --------------------------------------------------------------------------------------------------------


@pages.get("/csrs/{id}", action="scm:csr:get")
async def detail_page(call: Call) -> Response:
    return await _detail(call)


async def _detail(call: Call, problem: Problem | None = None) -> Response:
    csr = await csrs.get_csr(call.services, call.actor, call.param("id"))
    labels = {
        "common_name": _("Common name (CN)"), "organization": _("Organization (O)"),
        "organizational_unit": _("Organizational unit (OU)"), "country": _("Country (C)"),
        "province": _("State or province (ST)"), "locality": _("Locality (L)"),
    }  # fmt: skip
    view = {
        "csr": csr,
        "names": shown_names(csr),
        "subject": [(labels[name], value) for name in _SUBJECT if (value := getattr(csr.subject, name))],
        "values": {},
    }
    return page(call, "csrs/detail.html", view, problem)


@pages.get("/csrs/{id}/download", action="scm:csr:get")
async def download(call: Call) -> Response:
    form = call.query.text("format", "pem")
    return _file(await csrs.export_csr(call.services, call.actor, call.param("id"), form))


@pages.post("/csrs/{id}/key", action="scm:csr:export_key")
async def export_key(call: Call) -> Response:
    """By POST only: no link, prefetch or history entry reads a private key."""
    passphrase = call.form.raw("passphrase") or None
    try:
        file = await csrs.export_key(call.services, call.actor, call.param("id"), passphrase)
    except FORM_PROBLEMS as problem:
        return await _detail(call, problem)
    return _file(file)


def _file(file: csrs.Download) -> Response:
    headers = {"content-disposition": f'attachment; filename="{file.file_name}"', "cache-control": "no-store"}
    return Response(file.content, media_type=file.media_type, headers=headers)


@pages.get("/csrs/{id}/edit", action="scm:csr:update")
async def edit_page(call: Call) -> Response:
    csr = await csrs.get_csr(call.services, call.actor, call.param("id"))
    values = {"name": csr.name, "project_id": csr.project_id, "revision": str(csr.revision)}
    return page(call, "csrs/edit.html", {"csr": csr, "values": values, "projects": await _projects(call)})


@pages.post("/csrs/{id}/edit", action="scm:csr:update")
async def edit(call: Call) -> Response:
    form, csr_id = call.form, call.param("id")
    try:
        await csrs.update_csr(
            call.services, call.actor, csr_id, revision=revision_of(form), name=form.text("name"),
            project_id=form.optional("project_id"),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        csr = await csrs.get_csr(call.services, call.actor, csr_id)
        view = {"csr": csr, "values": form.values(), "projects": await _projects(call)}
        return page(call, "csrs/edit.html", view, problem)
    return see(f"/csrs/{csr_id}", said="saved", call=call)


@pages.post("/csrs/{id}/delete", action="scm:csr:delete", ask="delete_csr")
async def delete(call: Call) -> Response:
    try:
        await csrs.delete_csr(call.services, call.actor, call.param("id"))
    except FORM_PROBLEMS as problem:
        return await _detail(call, problem)
    return see("/csrs", said="deleted", call=call)
