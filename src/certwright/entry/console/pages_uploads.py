"""Uploading: certificates issued elsewhere, newer ones in their place, and what was found in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from certwright.entry.console import numbered, words
from certwright.entry.console.forms import Form
from certwright.entry.console.pages_toolbox import INPUTS, finding_lines, given, judgement_view, one, repair_lines
from certwright.entry.console.web import FORM_PROBLEMS, Call, Pages, page, see
from certwright.kernel.problems import Problem
from certwright.platform.i18n import _
from certwright.rooms import access, certificates, uploads
from certwright.rooms.certificates import Operation
from certwright.rooms.uploads import Judgement, Purpose, UploadRefused, Wishes
from certwright.x509.bundles import Server, install_note

pages = Pages()

_SECRETS = ("key", "passphrase")
_SERVERS = (
    Server.NGINX, Server.APACHE, Server.TOMCAT, Server.IIS, Server.HAPROXY, Server.KUBERNETES, Server.WEBLOGIC,
    Server.RESIN,
)  # fmt: skip
_FORMATS = (Server.PEM, Server.DER, Server.P7B)


def _wishes(form: Form) -> Wishes:
    return Wishes(
        purpose=Purpose.CLIENT_CA if form.text("purpose") == Purpose.CLIENT_CA.value else Purpose.SERVER,
        strict=form.checked("strict"), private=form.checked("private"), online=not form.checked("offline"),
        allow_duplicate=form.checked("allow_duplicate"), allow_fewer_names=form.checked("allow_fewer_names"),
    )  # fmt: skip


def _values(form: Form) -> dict[str, str]:
    """What goes back into the form: everything but keys, passphrases and texts that may hold a key."""
    return {
        name: value
        for name, value in form.values().items()
        if name not in _SECRETS and (name not in INPUTS or numbered.is_public(value))
    }


def tags_of(form: Form) -> dict[str, str]:
    """One `key=value` a line."""
    found = (line.partition("=") for line in form.text("tags").splitlines() if line.strip())
    return {key.strip(): value.strip() for key, _equals, value in found}


async def _view(call: Call, values: Mapping[str, str], judgement: Judgement | None = None) -> dict[str, Any]:
    result = None
    if judgement is not None:
        result = judgement_view(judgement, {name: one(call.form, name) for name in INPUTS})
    quotas = await uploads.quotas(call.services, call.actor) if call.allowed("scm:upload_policy:get") else ()
    return {
        "values": values,
        "result": result,
        "projects": await _projects(call),
        "quotas": {quota.purpose.value: quota for quota in quotas},
        "forgotten": call.request.method == "POST" and _had_secrets(call.form),
    }


def _had_secrets(form: Form) -> bool:
    """Whether something was given that the form can't hold again: files, keys, passphrases."""
    typed = any(form.raw(name) and not numbered.is_public(form.raw(name)) for name in INPUTS)
    return typed or bool(form.raw("passphrase")) or any(form.files(f"{name}_file") for name in INPUTS)


async def _projects(call: Call) -> list[tuple[str, str]]:
    if not call.allowed("iam:project:list"):
        return []
    found = await access.people.list_projects(call.services, call.actor, limit=100)
    return [(p.id, p.name) for p in sorted(found, key=lambda p: not p.is_default)]


# --- a new one --------------------------------------------------------------------------------------------------------


@pages.get("/certificates/upload", action="scm:cert:upload")
async def upload_page(call: Call) -> Response:
    purpose = call.query.text("purpose")
    values = {"purpose": purpose} if purpose in set(Purpose) else {}
    return page(call, "uploads/upload.html", await _view(call, values))


@pages.post("/certificates/upload", action="scm:cert:upload", files=len(INPUTS))
async def upload(call: Call) -> Response:
    form = call.form
    try:
        if form.text("step") == "check":
            found = await uploads.check(call.services, call.actor, given(form), _wishes(form))
            return page(call, "uploads/upload.html", await _view(call, _values(form), found))
        made = await uploads.upload(
            call.services, call.actor, given(form), _wishes(form), name=form.optional("name"),
            description=form.text("description"), tags=tags_of(form), project_id=form.optional("project_id"),
        )  # fmt: skip
    except UploadRefused as refused:
        return page(call, "uploads/upload.html", await _view(call, _values(form), refused.judgement), refused)
    except FORM_PROBLEMS as problem:
        return page(call, "uploads/upload.html", await _view(call, _values(form)), problem)
    return see(f"/certificates/{made.certificate.id}", said="uploaded", call=call)


# --- a newer one ------------------------------------------------------------------------------------------------------


async def _replace(
    call: Call, values: Mapping[str, str], judgement: Judgement | None = None, problem: Problem | None = None
) -> Response:
    old = await certificates.get_certificate(call.services, call.actor, call.param("id"))
    view = await _view(call, values, judgement) | {"old": old, "is_server": old.purpose is Purpose.SERVER}
    return page(call, "uploads/replace.html", view, problem)


@pages.get("/certificates/{id}/replace", action="scm:cert:replace")
async def replace_page(call: Call) -> Response:
    return await _replace(call, {})


@pages.post("/certificates/{id}/replace", action="scm:cert:replace", files=len(INPUTS))
async def replace(call: Call) -> Response:
    form, certificate_id = call.form, call.param("id")
    try:
        if form.text("step") == "check":
            found = await uploads.check(
                call.services, call.actor, given(form), _wishes(form), replaces=certificate_id
            )  # fmt: skip
            return await _replace(call, _values(form), found)
        await uploads.replace(call.services, call.actor, certificate_id, given(form), _wishes(form))
    except UploadRefused as refused:
        return await _replace(call, _values(form), refused.judgement, refused)
    except FORM_PROBLEMS as problem:
        return await _replace(call, _values(form), None, problem)
    return see(f"/certificates/{certificate_id}", said="replaced", call=call)


# --- what was found ---------------------------------------------------------------------------------------------------


async def found_view(call: Call, certificate_id: str) -> list[dict[str, Any]]:
    """What was found at each upload, newest first, for the certificate's page. Empty for one that was issued here."""
    records = await uploads.records(call.services, call.actor, certificate_id)
    return [
        {
            "version": record.version,
            "at": record.at,
            "by": record.by,
            "strict": record.strict,
            "findings": finding_lines(record.findings),
            "repairs": repair_lines(record.repaired),
        }
        for record in records
    ]


# --- files for servers ------------------------------------------------------------------------------------------------


@pages.get("/certificates/{id}/downloads", action="scm:cert:download")
async def downloads(call: Call) -> Response:
    """An archive for each kind of server, with the very note that lies in it."""
    detail = await certificates.get_certificate(call.services, call.actor, call.param("id"))
    refused = detail.allowed[Operation.DOWNLOAD]
    if refused is not None:
        raise refused
    current = next((version for version in detail.versions if version.superseded_at is None), None)
    has_chain = bool(current and current.chain)
    with_key = detail.allowed[Operation.EXPORT_KEY] is None and call.allowed("scm:cert:export_key")
    view = {
        "detail_view": detail,
        "with_key": with_key,
        "key_refused": detail.allowed[Operation.EXPORT_KEY],
        "servers": [_offer(server, detail.summary.name, has_key=True, has_chain=has_chain) for server in _SERVERS],
        "formats": [_offer(server, detail.summary.name, has_key=False, has_chain=has_chain) for server in _FORMATS],
        "parts": [
            ("fullchain", _("Certificate and chain (PEM)")),
            ("leaf", _("Certificate alone (PEM)")),
            *([("chain", _("Intermediates alone (PEM)"))] if has_chain else []),
            # Roots of others aren't held here: clients have them.
            *([("root", _("Root alone (PEM)"))] if detail.summary.ca == certificates.BUILTIN_CA else []),
        ],
    }  # fmt: skip
    return page(call, "uploads/downloads.html", view)


def _offer(server: Server, name: str, *, has_key: bool, has_chain: bool) -> dict[str, str]:
    return {
        "format": server.value,
        "label": words.plain(words.SERVERS, server),
        "note": install_note(server, name, has_key=has_key, has_chain=has_chain),
    }
