"""Private CAs: their tree, one CA with what it issued, and the public page where clients get a root."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from starlette.responses import Response

from certwright.entry.api.base import PUBLIC
from certwright.entry.console import words
from certwright.entry.console.forms import Form
from certwright.entry.console.web import FORM_PROBLEMS, PAGE, Call, Pages, page, paged, revision_of, see
from certwright.kernel.problems import Invalid, Problem, Unavailable
from certwright.platform.i18n import _, ngettext
from certwright.rooms import access, acme_server, audit, authorities
from certwright.rooms.authorities import CaState
from certwright.x509.bundles import safe_file_name
from certwright.x509.certificates import to_pem
from certwright.x509.csr import to_pem as csr_to_pem
from certwright.x509.issue import NameConstraints, Subject
from certwright.x509.keys import ExperimentalAlgorithm, KeyAlgorithm

pages = Pages()

_SUBJECT = ("common_name", "organization", "organizational_unit", "country", "state", "locality")
_RENAMED = {f"subject.{name}": name for name in _SUBJECT} | {"certificate": "certificate_pem"}
_SECRETS = ("private_key", "passphrase")
_CONSTRAINTS = tuple(kind.name for kind in fields(NameConstraints))
# Offered for keys of CAs alone.
_EXPERIMENTAL = {ExperimentalAlgorithm.ML_DSA_65: "ML-DSA-65", ExperimentalAlgorithm.ML_DSA_87: "ML-DSA-87"}


# --- the tree --------------------------------------------------------------------------------------------------------


@pages.get("/authorities", action="ccm:ca:list")
async def list_page(call: Call) -> Response:
    found = await authorities.list_authorities(call.services, call.actor)
    return page(call, "authorities/list.html", {"tops": _tree(found), "count": len(found)})


def _tree(found: Sequence[authorities.Authority]) -> list[dict[str, Any]]:
    """Each CA with those below it; one whose parent may not be seen stands at the top."""
    nodes: dict[str, dict[str, Any]] = {ca.id: {"ca": ca, "below": []} for ca in found}
    tops: list[dict[str, Any]] = []
    for ca in found:
        above = nodes.get(ca.parent_id or "")
        (tops if above is None else above["below"]).append(nodes[ca.id])
    return tops


@pages.get("/ca", action=PUBLIC)
async def root_page(call: Call) -> Response:
    found = await authorities.public_authorities(call.services)
    usable = (CaState.ACTIVE, CaState.DISABLED)
    roots = [ca for ca in found if ca.kind == "root" and ca.state in usable]
    roots.sort(key=lambda ca: not ca.builtin)
    # What the instructions call it, where it is the only one or the one this server is reached with.
    names = {ca.id: "certwright-root" if ca is roots[0] else safe_file_name(ca.name) for ca in roots}
    return page(call, "authorities/root.html", {"roots": roots, "names": names})


# --- making ----------------------------------------------------------------------------------------------------------


async def _new_view(call: Call, values: Mapping[str, str]) -> dict[str, Any]:
    found = await authorities.list_authorities(call.services, call.actor)
    parents = [(ca.id, ca.name) for ca in found if ca.state is CaState.ACTIVE and ca.path_len != 0]
    return {
        "values": values,
        "limited": any(values.get(name) for name in (*_CONSTRAINTS, "purposes", "hash_name")),
        "parents": parents,
        "projects": await projects_of(call),
        "key_algorithms": [
            *((code.value, words.plain(words.KEY_ALGORITHMS, code)) for code in KeyAlgorithm),
            *((code.value, _("%(name)s (experimental)") % {"name": name}) for code, name in _EXPERIMENTAL.items()),
        ],
        "hsm": call.services.settings.hsm_token_label if call.services.settings.hsm_module else None,
    }


async def projects_of(call: Call) -> list[tuple[str, str]]:
    if not call.allowed("iam:project:list"):
        return []
    found = await access.people.list_projects(call.services, call.actor, limit=100)
    return [(p.id, p.name) for p in sorted(found, key=lambda p: not p.is_default)]


async def kinds_of(call: Call) -> list[tuple[str, str]]:
    """What certificates issued by hand may be, for a choice."""
    kinds = [("client", _("Client")), ("server", _("Server"))]
    if call.allowed("ccm:profile:list"):
        found = await authorities.list_profiles(call.services, call.actor)
        kinds += [(kind.name, kind.name) for kind in found if kind.id is not None and kind.problem is None]
    return kinds


def usual_kind(ca: authorities.Authority) -> str:
    """What to offer first: clients, unless the CA may not certify any."""
    return "client" if ca.purposes is None or "client_auth" in ca.purposes else "server"


def _subject(form: Form) -> Subject:
    return Subject(**{name: form.optional(name) for name in _SUBJECT})


def number_of(form: Form, name: str) -> int | None:
    text = form.text(name)
    if text and not (text.isascii() and text.isdigit() and len(text) < 7):
        raise Invalid("number_invalid", f"{text[:20]!r} isn't a number.", field=name, fix="Write digits only.")
    return int(text) if text else None


@pages.get("/authorities/new", action="ccm:ca:create")
async def new_page(call: Call) -> Response:
    parent = call.query.text("parent")
    values = {"place": "below" if parent else "root", "parent_id": parent}
    return page(call, "authorities/new.html", await _new_view(call, values))


@pages.post("/authorities/new", action="ccm:ca:create")
async def create(call: Call) -> Response:
    form = call.form
    place = form.text("place", "root")
    above = place in ("below", "elsewhere")
    try:
        if above and not form.text("parent_id"):
            raise Invalid("ca_parent_missing", "No parent is chosen.", field="parent_id", fix="Choose the CA above.")
        if place == "elsewhere":
            return await _certify(call, form)
        made = await authorities.create_authority(
            call.services, call.actor,
            authorities.CaRequest(
                name=form.text("name"), subject=_subject(form),
                parent_id=form.optional("parent_id") if above else None, outside=place == "outside",
                key_algorithm=form.text("key_algorithm", KeyAlgorithm.EC_P256.value),
                key_store=form.text("key_store", "software"),
                hash_name=form.optional("hash_name"), days=number_of(form, "days"),
                path_len=number_of(form, "path_len"), constraints=_constraints(form),
                purposes=form.lines("purposes"), ocsp_enabled=form.checked("ocsp_enabled"),
            ),
            project_id=form.optional("project_id"),
        )  # fmt: skip
    except (*FORM_PROBLEMS, Unavailable) as problem:  # an HSM that is away mustn't cost what was typed
        return page(call, "authorities/new.html", await _new_view(call, form.values()), problem, renamed=_RENAMED)
    return see(f"/authorities/{made.id}", said="created", call=call)


def _constraints(form: Form) -> NameConstraints:
    return NameConstraints(**{kind: form.lines(kind) for kind in _CONSTRAINTS})


async def _certify(call: Call, form: Form) -> Response:
    """For a CA whose key is elsewhere: led as whatever its parent issued."""
    parent_id = form.text("parent_id")
    request = authorities.CaRequest(
        name="elsewhere", subject=_subject(form), days=number_of(form, "days"), path_len=number_of(form, "path_len"),
        constraints=_constraints(form), purposes=form.lines("purposes"),
    )  # fmt: skip
    made = await authorities.certify_authority(
        call.services, call.actor, parent_id, request, form.text("csr"), project_id=form.optional("project_id")
    )
    return see(f"/authorities/{parent_id}/issued/{made.id}", said="created", call=call)


@pages.get("/authorities/import", action="ccm:ca:create")
async def import_page(call: Call) -> Response:
    return page(call, "authorities/import.html", {"values": {}, "projects": await projects_of(call)})


@pages.post("/authorities/import", action="ccm:ca:create")
async def bring(call: Call) -> Response:
    form = call.form
    try:
        made = await authorities.import_authority(
            call.services, call.actor, name=form.text("name"), certificate=form.text("certificate_pem"),
            private_key=form.text("private_key"), passphrase=form.raw("passphrase") or None,
            crl_number=number_of(form, "crl_number") or 0, project_id=form.optional("project_id"),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        values = {key: value for key, value in form.values().items() if key not in _SECRETS}
        view = {"values": values, "projects": await projects_of(call)}
        return page(call, "authorities/import.html", view, problem, renamed=_RENAMED)
    return see(f"/authorities/{made.id}", said="added", call=call)


# --- one CA ----------------------------------------------------------------------------------------------------------


@pages.get("/authorities/{id}", action="ccm:ca:get")
async def detail_page(call: Call) -> Response:
    return await _detail(call)


async def _detail(
    call: Call, problem: Problem | None = None, values: Mapping[str, str] | None = None, *,
    renamed: Mapping[str, str] = _RENAMED,
) -> Response:  # fmt: skip
    ca = await authorities.get_authority(call.services, call.actor, call.param("id"))
    found = await authorities.list_authorities(call.services, call.actor) if call.allowed("ccm:ca:list") else []
    by_id = {one.id: one for one in found}
    above: list[authorities.Authority] = []
    one = by_id.get(ca.parent_id or "")
    while one is not None:
        above.insert(0, one)
        one = by_id.get(one.parent_id or "")
    lines: Sequence[authorities.Leaf] = ()
    next_href = ""
    q, chosen = call.query.text("q"), call.query.text("revoked")
    if call.allowed("ccm:cert:list"):
        rows = await authorities.list_leaves(
            call.services, call.actor, ca.id, search=q or None, revoked={"yes": True, "no": False}.get(chosen),
            after=call.query.optional("after"), limit=PAGE + 1,
        )  # fmt: skip
        lines, next_href = paged(rows, f"/authorities/{ca.id}", q=q, revoked=chosen)
    view = {
        "ca": ca,
        "above": above,
        "below": [one for one in found if one.parent_id == ca.id],
        "services": await _acme_services(call, ca.id),
        "lines": lines,
        "next_href": next_href,
        "pem": to_pem(ca.certificate_der) if ca.certificate_der else "",
        "csr_pem": csr_to_pem(ca.csr_der).decode() if ca.csr_der else "",
        "reasons": [(code, words.word(words.REASONS, code)) for code in words.REASONS],
        "waits": [(str(days), _("%(days)s days") % {"days": days}) for days in (7, 14, 30)],
        "record": await _record(call, ca.id),
        "ends_with_it": await _ends_with(call, ca),
        "filtered": bool(q or chosen),
        "values": {"q": q, "revoked": chosen} | dict(values or {}),
    }
    return page(call, "authorities/detail.html", view, problem, renamed=renamed)


async def _ends_with(call: Call, ca: authorities.Authority) -> str:
    """What revoking the CA would end, in words; empty where it ends nothing that is in use."""
    count = await authorities.good_below(call.services, call.actor, ca.id)
    if count >= authorities.MOST_COUNTED:
        return _("%(count)s certificates or more end with it.") % {"count": count}
    if count:
        said = ngettext("%(num)s certificate ends with it.", "%(num)s certificates end with it.", count)
        return said % {"num": count}
    return _("The product's own certificates end with it.") if ca.builtin else ""


async def _record(call: Call, authority_id: str) -> list[dict[str, Any]]:
    """Who did what with this CA and its key, newest first, fingerprints in full."""
    if not call.allowed("iam:audit:list"):
        return []
    wanted = audit.Filter(action="ccm:ca:*", object_id=authority_id)
    found = await access.people.audit_events(call.services, call.actor, wanted, limit=PAGE)
    return [
        {"at": e.at, "who": e.actor_name, "what": _what_happened(e.action, e.after or {}), "after": e.after or {}}
        for e in found
    ]


def _what_happened(action: str, after: Mapping[str, Any]) -> str:
    """A code of words.AUTHORITY_EVENTS."""
    if action == "ccm:ca:create":
        return str(after.get("origin", "made"))
    if after.get("state") == CaState.REVOKED.value:
        return "revoke"
    if "spki_sha256" in after and "operation" not in after:
        return "install"
    return str(after.get("operation", action.rpartition(":")[2]))


@pages.get("/authorities/{id}/chain", action="ccm:ca:get")
async def chain(call: Call) -> Response:
    found = await authorities.authority_chain(call.services, call.actor, call.param("id"))
    headers = {"content-disposition": f'attachment; filename="{call.param("id")}-chain.pem"'}
    return Response("".join(to_pem(der) for der in found), media_type="application/x-pem-file", headers=headers)


async def _acme_services(call: Call, authority_id: str) -> Sequence[acme_server.AcmeDirectory]:
    if not call.allowed("ccm:acme:list"):
        return ()
    return await acme_server.list_directories(call.services, call.actor, authority_id=authority_id)


@pages.post("/authorities/{id}/install", action="ccm:ca:update")
async def install(call: Call) -> Response:
    ca_id = call.param("id")
    try:
        await authorities.install_certificate(call.services, call.actor, ca_id, call.form.text("certificate_pem"))
    except FORM_PROBLEMS as problem:
        return await _detail(call, problem, call.form.values())
    return see(f"/authorities/{ca_id}", said="saved", call=call)


@pages.post("/authorities/{id}/renew", action="ccm:ca:update", ask="renew_authority")
async def renew(call: Call) -> Response:
    form, ca_id = call.form, call.param("id")
    try:
        days = number_of(form, "renew_days")
        await authorities.renew_authority(call.services, call.actor, ca_id, days=days, revision=revision_of(form))
    except FORM_PROBLEMS as problem:
        return await _detail(call, problem, form.values(), renamed=_RENAMED | {"days": "renew_days"})
    return see(f"/authorities/{ca_id}", said="renewed", call=call)


@pages.get("/authorities/{id}/edit", action="ccm:ca:update")
async def edit_page(call: Call) -> Response:
    ca = await authorities.get_authority(call.services, call.actor, call.param("id"))
    values = {
        "name": ca.name, "crl_enabled": "yes" if ca.crl_enabled else "", "crl_days": str(ca.crl_days),
        "crl_shards": str(ca.crl_shards), "ocsp_enabled": "yes" if ca.ocsp_enabled else "",
        "revision": str(ca.revision),
    }  # fmt: skip
    return page(call, "authorities/edit.html", {"ca": ca, "values": values})


@pages.post("/authorities/{id}/edit", action="ccm:ca:update")
async def edit(call: Call) -> Response:
    form, ca_id = call.form, call.param("id")
    try:
        await authorities.update_authority(
            call.services, call.actor, ca_id, revision=revision_of(form), name=form.text("name"),
            crl_enabled=form.checked("crl_enabled"), crl_days=number_of(form, "crl_days"),
            crl_shards=number_of(form, "crl_shards"), ocsp_enabled=form.checked("ocsp_enabled"),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        ca = await authorities.get_authority(call.services, call.actor, ca_id)
        return page(call, "authorities/edit.html", {"ca": ca, "values": form.values()}, problem)
    return see(f"/authorities/{ca_id}", said="saved", call=call)


@pages.post("/authorities/{id}/disable", action="ccm:ca:disable", ask="disable_authority")
async def disable(call: Call) -> Response:
    return await _moved(call, authorities.disable_authority)


@pages.post("/authorities/{id}/enable", action="ccm:ca:disable")
async def enable(call: Call) -> Response:
    return await _moved(call, authorities.enable_authority)


@pages.post("/authorities/{id}/restore", action="ccm:ca:delete")
async def restore(call: Call) -> Response:
    return await _moved(call, authorities.restore_authority)


@pages.post("/authorities/{id}/revoke", action="ccm:ca:disable", ask="revoke_authority")
async def revoke(call: Call) -> Response:
    try:
        ca = await authorities.get_authority(call.services, call.actor, call.param("id"))
        if call.form.text("typed_name") != ca.name and await _ends_with(call, ca):
            raise Invalid(
                "name_not_typed", "The CA wasn't revoked: its name is asked for, because certificates end with it.",
                field="typed_name", fix=f"Type {ca.name} and revoke it again.",
            )  # fmt: skip
    except FORM_PROBLEMS as problem:
        return await _detail(call, problem, call.form.values())
    return await _moved(call, authorities.revoke_authority, call.form.text("reason", "unspecified"))


@pages.post("/authorities/{id}/delete", action="ccm:ca:delete", ask="delete_authority")
async def delete(call: Call) -> Response:
    ca_id = call.param("id")
    try:
        days = number_of(call.form, "days") or 7
        await authorities.delete_authority(call.services, call.actor, ca_id, days=days)
    except FORM_PROBLEMS as problem:
        return await _detail(call, problem)
    return see(f"/authorities/{ca_id}", said="saved", call=call)


async def _moved(call: Call, action: Any, *args: Any) -> Response:
    ca_id = call.param("id")
    try:
        await action(call.services, call.actor, ca_id, *args)
    except FORM_PROBLEMS as problem:
        return await _detail(call, problem)
    return see(f"/authorities/{ca_id}", said="saved", call=call)


# --- what it issued --------------------------------------------------------------------------------------------------


@pages.get("/authorities/{id}/issue", action="ccm:cert:issue")
async def issue_page(call: Call) -> Response:
    return page(call, "authorities/issue.html", await _issue_view(call, {}))


async def _issue_view(call: Call, values: Mapping[str, str]) -> dict[str, Any]:
    ca = await authorities.get_authority(call.services, call.actor, call.param("id"))
    return {
        "ca": ca,
        "kinds": await kinds_of(call),
        "projects": await projects_of(call),
        "values": {"profile": usual_kind(ca), "project_id": ca.project_id} | dict(values),
        "key_algorithms": [(code.value, words.plain(words.KEY_ALGORITHMS, code)) for code in KeyAlgorithm],
    }


@pages.post("/authorities/{id}/issue", action="ccm:cert:issue")
async def issue(call: Call) -> Response:
    form, ca_id = call.form, call.param("id")
    try:
        request = authorities.LeafRequest(
            profile=form.text("profile", "client"), names=form.lines("names"), subject=_subject(form),
            key_algorithm=form.text("key_algorithm", KeyAlgorithm.EC_P256.value), csr=form.optional("csr"),
            days=number_of(form, "days"),
        )  # fmt: skip
        (made,) = await authorities.issue_leaves(
            call.services, call.actor, ca_id, [request], project_id=form.optional("project_id")
        )
        if isinstance(made, Problem):
            raise made
    except FORM_PROBLEMS as problem:
        renamed = _RENAMED | {f"names[{index}]": "names" for index in range(len(form.lines("names")))}
        return page(
            call, "authorities/issue.html", await _issue_view(call, form.values()), problem, renamed=renamed
        )  # fmt: skip
    return see(f"/authorities/{ca_id}/issued/{made.id}", said="created", call=call)


@pages.get("/authorities/{id}/issued/{leaf}", action="ccm:cert:get")
async def leaf_page(call: Call) -> Response:
    return await _leaf(call)


async def _leaf(call: Call, problem: Problem | None = None) -> Response:
    ca_id = call.param("id")
    ca = await authorities.get_authority(call.services, call.actor, ca_id)
    leaf = await authorities.get_leaf(call.services, call.actor, ca_id, call.param("leaf"))
    view = {
        "ca": ca,
        "leaf": leaf,
        "pem": to_pem(leaf.der),
        "reasons": [(code, words.word(words.REASONS, code)) for code in words.REASONS],
        "servers": [
            ("iis", _("PFX (browsers, Windows, IIS)")), ("pem", "PEM"), ("nginx", "nginx"), ("apache", "Apache"),
            ("haproxy", "HAProxy"), ("tomcat", "Tomcat"), ("kubernetes", "Kubernetes"),
        ],
        "values": {"server": "iis" if leaf.has_key else "pem"},
    }  # fmt: skip
    return page(call, "authorities/issued.html", view, problem)


@pages.post("/authorities/{id}/issued/{leaf}/export", action="ccm:cert:export")
async def export(call: Call) -> Response:
    """By POST only: no link, prefetch or history entry reads a private key."""
    try:
        name, content = await authorities.export_leaf(
            call.services, call.actor, call.param("id"), call.param("leaf"), server=call.form.text("server", "pem"),
            legacy=call.form.checked("legacy"),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        return await _leaf(call, problem)
    headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
    return Response(content, media_type="application/zip", headers=headers)


@pages.post("/authorities/{id}/issued/{leaf}/revoke", action="ccm:cert:revoke", ask="revoke_issued")
async def revoke_leaf(call: Call) -> Response:
    ca_id, leaf_id = call.param("id"), call.param("leaf")
    reason = call.form.text("reason", "unspecified")
    try:
        await authorities.revoke_leaf(call.services, call.actor, ca_id, leaf_id, reason)
    except FORM_PROBLEMS as problem:
        return await _leaf(call, problem)
    return see(f"/authorities/{ca_id}/issued/{leaf_id}", said="saved", call=call)


@pages.post("/authorities/{id}/issued/{leaf}/delete", action="ccm:cert:delete", ask="delete_issued")
async def delete_leaf(call: Call) -> Response:
    ca_id = call.param("id")
    try:
        await authorities.delete_leaf(call.services, call.actor, ca_id, call.param("leaf"))
    except FORM_PROBLEMS as problem:
        return await _leaf(call, problem)
    return see(f"/authorities/{ca_id}", said="deleted", call=call)
