"""Organisations, how far their verification is, the page a mailed link leads to, and the specialists' desk."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping
from dataclasses import asdict, fields
from typing import Any

from starlette.responses import RedirectResponse, Response

from certwright.entry.api.base import PUBLIC
from certwright.entry.console import words
from certwright.entry.console.forms import Form
from certwright.entry.console.pages_certificates import ca_name, vetting_sentence
from certwright.entry.console.web import (
    FORM_PROBLEMS,
    PAGE,
    Call,
    Pages,
    changed,
    page,
    paged,
    revision_of,
    see,
    with_query,
)
from certwright.kernel.problems import Invalid, Problem
from certwright.platform.i18n import N_, _
from certwright.rooms import access, organisations
from certwright.rooms.organisations import Case, Facts, Operation, Organisation, State, Vetting

pages = Pages()

_FACTS = tuple(field.name for field in fields(Facts))
_RENAMED = {
    "jurisdiction.country": "jurisdiction_country",
    "jurisdiction.region": "jurisdiction_region",
    "address.street": "street",
    "address.city": "city",
    "address.province": "province",
    "address.postal_code": "postal_code",
    "address.country": "country",
    "phone.number": "phone",
    "phone.source": "phone_source",
}
# The browser's name of a file is judged with its content: both stand in one field.
_FILE = {"name": "content"}
_CONTACT = re.compile(r"(?P<name>[^<>]*)<(?P<email>[^<>]*)>(?P<rest>[^<>]*)")
_LABELS: Mapping[str, str] = {
    "kind": N_("Kind"), "legal_name": N_("Legal name"), "registration_number": N_("Registration number"),
    "jurisdiction": N_("Registered in"), "address": N_("Address"), "phone": N_("Telephone"),
}  # fmt: skip


# --- organisations ---------------------------------------------------------------------------------------------------


@pages.get("/organisations", action="scm:organisation:list")
async def list_page(call: Call) -> Response:
    after = call.query.optional("after")
    found = await organisations.list_organisations(call.services, call.actor, after=after, limit=PAGE + 1)
    lines, next_href = paged(found, "/organisations")
    view = {"lines": lines, "next_href": next_href, "first_href": "/organisations" if after is not None else ""}
    return page(call, "organisations/list.html", view)


async def _edit_view(call: Call, values: Mapping[str, str], one: Organisation | None) -> dict[str, Any]:
    projects = []
    if one is None and call.allowed("iam:project:list"):
        found = await access.people.list_projects(call.services, call.actor, limit=100)
        projects = [(p.id, p.name) for p in sorted(found, key=lambda p: not p.is_default)]
    return {
        "one": one,
        "values": values,
        "projects": projects,
        "action": f"/organisations/{one.id}/edit" if one else "/organisations/new",
        "kinds": [
            (kind.value, words.word(words.ORGANISATION_KINDS, kind), words.detail(words.ORGANISATION_KINDS, kind))
            for kind in organisations.Kind
        ],
    }


def _contacts(form: Form) -> list[dict[str, str]]:
    """One per line: `Max Muster <max@example.com>, +49 30 123456, IT`. Raises Invalid `contact_unreadable`."""
    found = []
    for line in form.text("contacts").splitlines():
        if not line.strip():
            continue
        match = _CONTACT.fullmatch(line.strip())
        if match is None:
            raise Invalid(
                "contact_unreadable", f"The contact {line.strip()[:60]!r} has no address in angle brackets.",
                field="contacts", fix="Write each as: Max Muster <max@example.com>, +49 30 123456, IT",
            )  # fmt: skip
        rest = [part.strip() for part in match["rest"].split(",") if part.strip()]
        phone = next((part for part in rest if part.startswith("+")), "")
        role = ", ".join(part for part in rest if part != phone)
        found.append({"name": match["name"].strip(), "email": match["email"].strip(), "phone": phone, "role": role})
    return found


def _contact_line(contact: organisations.Contact) -> str:
    return ", ".join(part for part in (f"{contact.name} <{contact.email}>", contact.phone, contact.role) if part)


@pages.get("/organisations/new", action="scm:organisation:create")
async def new_page(call: Call) -> Response:
    return page(call, "organisations/edit.html", await _edit_view(call, {}, None))


@pages.post("/organisations/new", action="scm:organisation:create")
async def create(call: Call) -> Response:
    form = call.form
    try:
        made = await organisations.add_organisation(
            call.services, call.actor, facts={name: form.text(name) for name in _FACTS}, contacts=_contacts(form),
            project_id=form.optional("project_id"),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        view = await _edit_view(call, form.values(), None)
        return page(call, "organisations/edit.html", view, problem, renamed=_RENAMED)
    return see(f"/organisations/{made.id}", said="added", call=call)


@pages.get("/organisations/{id}", action="scm:organisation:get")
async def detail_page(call: Call) -> Response:
    return await _detail(call)


async def _detail(call: Call, problem: Problem | None = None) -> Response:
    one = await organisations.get_organisation(call.services, call.actor, call.param("id"))
    cases: tuple[Vetting, ...] = ()
    if call.allowed("scm:vetting:list"):
        cases = await organisations.list_vettings(call.services, call.actor, organisation_id=one.id, limit=PAGE)
    view = {
        "one": one,
        "facts": _shown_facts(one.facts),
        "verified": [(made, await ca_name(call, made.ca)) for made in one.verifications],
        "cases": [(case, vetting_sentence(case)) for case in cases],
    }
    return page(call, "organisations/detail.html", view, problem)


def _shown_facts(facts: Facts) -> list[tuple[str, str]]:
    """Labels and texts, as people read an address."""
    town = " ".join(part for part in (facts.postal_code, facts.city) if part)
    texts = {
        "kind": words.word(words.ORGANISATION_KINDS, facts.kind),
        "legal_name": facts.legal_name,
        "registration_number": facts.registration_number,
        "jurisdiction": ", ".join(part for part in (facts.jurisdiction_region, facts.jurisdiction_country) if part),
        "address": ", ".join(part for part in (facts.street, town, facts.province, facts.country) if part),
        "phone": _("%(number)s, found in: %(source)s") % {"number": facts.phone, "source": facts.phone_source},
    }
    return [(_(_LABELS[name]), text) for name, text in texts.items() if text]


@pages.get("/organisations/{id}/edit", action="scm:organisation:update")
async def edit_page(call: Call) -> Response:
    one = await organisations.get_organisation(call.services, call.actor, call.param("id"))
    values = {name: str(value) for name, value in asdict(one.facts).items()}
    values |= {"contacts": "\n".join(_contact_line(c) for c in one.contacts), "revision": str(one.revision)}
    return page(call, "organisations/edit.html", await _edit_view(call, values, one))


@pages.post("/organisations/{id}/edit", action="scm:organisation:update")
async def edit(call: Call) -> Response:
    form, organisation_id = call.form, call.param("id")
    try:
        await organisations.update_organisation(
            call.services, call.actor, organisation_id, revision=revision_of(form),
            facts={name: form.text(name) for name in _FACTS}, contacts=_contacts(form),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        one = await organisations.get_organisation(call.services, call.actor, organisation_id)
        view = await _edit_view(call, form.values(), one)
        return page(call, "organisations/edit.html", view, problem, renamed=_RENAMED)
    return see(f"/organisations/{organisation_id}", said="saved", call=call)


@pages.post("/organisations/{id}/delete", action="scm:organisation:delete", ask="delete_organisation")
async def delete(call: Call) -> Response:
    doing = organisations.delete_organisation(call.services, call.actor, call.param("id"))
    return await changed(call, doing, _detail, "/organisations", "deleted")


# --- my verifications ------------------------------------------------------------------------------------------------


def _state_of(call: Call) -> State | None:
    text = call.query.text("state")
    return State(text) if text in set(State) else None


def _states() -> list[tuple[str, str]]:
    return [("", _("All states")), *((s.value, words.word(words.VETTING_STATES, s)) for s in State)]


@pages.get("/verifications", action="scm:vetting:list")
async def vettings_page(call: Call) -> Response:
    state, after = _state_of(call), call.query.optional("after")
    found = await organisations.list_vettings(call.services, call.actor, state=state, after=after, limit=PAGE + 1)
    lines, next_href = paged(found, "/verifications", state=state or "")
    view = {
        "lines": [(case, vetting_sentence(case)) for case in lines],
        "states": _states(),
        "values": {"state": state or ""},
        "filtered": state is not None or after is not None,
        "next_href": next_href,
        "first_href": with_query("/verifications", state=state or "") if after is not None else "",
    }
    return page(call, "organisations/verifications.html", view)


@pages.get("/verifications/{id}", action="scm:vetting:get")
async def vetting_page(call: Call) -> Response:
    return await _vetting(call)


async def _vetting(call: Call, problem: Problem | None = None) -> Response:
    case = await organisations.get_vetting(call.services, call.actor, call.param("id"))
    allowed_in = organisations.rules.ALLOWED_IN
    view = {
        "case": case,
        "sentence": vetting_sentence(case),
        "ca_name": await ca_name(call, case.ca),
        "ways": _ways(),
        "values": {"way": case.way.value} if case.way else {},
        "may_choose": case.state in allowed_in[Operation.CHOOSE] and call.allowed("scm:vetting:choose"),
        "may_send": case.state in allowed_in[Operation.SEND] and call.allowed("scm:vetting:send"),
    }
    return page(call, "organisations/verification.html", view, problem, renamed=_FILE)


def _ways() -> list[tuple[str, str, str]]:
    return [(way.value, words.word(words.WAYS, way), words.detail(words.WAYS, way)) for way in organisations.Way]


@pages.post("/verifications/{id}/way", action="scm:vetting:choose")
async def choose(call: Call) -> Response:
    case_id = call.param("id")
    doing = organisations.choose(call.services, call.actor, case_id, call.form.text("way"))
    return await changed(call, doing, _vetting, f"/verifications/{case_id}", "chosen")


@pages.post("/verifications/{id}/documents", action="scm:vetting:send", file=True)
async def send_document(call: Call) -> Response:
    case_id = call.param("id")
    try:
        name, content = call.form.file("content")
        await organisations.send_document(call.services, call.actor, case_id, name=name, content=content)
    except FORM_PROBLEMS as problem:
        return await _vetting(call, problem)
    return see(f"/verifications/{case_id}", said="document_sent", call=call)


@pages.get("/verifications/{id}/documents/{document_id}", action="scm:vetting:download")
async def download_sent(call: Call) -> Response:
    return _file(
        await organisations.download_sent(call.services, call.actor, call.param("id"), call.param("document_id"))
    )


def _file(file: organisations.DocumentContent) -> Response:
    """Browsers save it and never show it: somebody else made it."""
    headers = {"content-disposition": f'attachment; filename="{file.file_name}"', "cache-control": "no-store"}
    return Response(file.content, media_type=file.media_type, headers=headers)


# --- the mailed link -------------------------------------------------------------------------------------------------

_COOKIE = "__Host-certwright-organisation"
_SECONDS = 1800


@pages.get("/organisation-verification", action=PUBLIC)
async def look_link(call: Call) -> Response:
    """Looking changes nothing, so that mail scanners may follow the link."""
    secret = call.query.text("token")
    if secret:
        # Out of the address at once. Lax: the way here begins on the pages of somebody's webmail.
        response = RedirectResponse("/organisation-verification", status_code=303)
        response.set_cookie(
            _COOKIE, secret[:200], max_age=_SECONDS, path="/", secure=True, httponly=True, samesite="lax"
        )
        return response
    try:
        link = await organisations.look_link(call.services, _secret(call))
    except FORM_PROBLEMS as problem:
        return _link_page(call, None, problem)
    return _link_page(call, link)


@pages.post("/organisation-verification", action=PUBLIC)
async def choose_by_link(call: Call) -> Response:
    link = None
    try:
        link = await organisations.look_link(call.services, _secret(call))
        await organisations.choose_by_link(call.services, _secret(call), call.form.text("way"))
    except FORM_PROBLEMS as problem:
        # A wrong choice can be mended here; a link that is over can't.
        return _link_page(call, link if problem.field == "way" else None, problem)
    response = _link_page(call, link, chosen=call.form.text("way"))
    response.delete_cookie(_COOKIE, path="/", secure=True, httponly=True)
    return response


def _secret(call: Call) -> str:
    return call.request.cookies.get(_COOKIE, "")


def _link_page(
    call: Call, link: organisations.Link | None, problem: Problem | None = None, *, chosen: str = ""
) -> Response:
    view: dict[str, Any] = {"link": link, "ways": _ways(), "chosen": chosen, "values": {}}
    # Looking without a link that is good finds nothing; a choice that fails says why by its status.
    status = 404 if problem is not None and call.request.method == "GET" else None
    return page(call, "organisations/link.html", view, problem, status=status)


# --- the desk --------------------------------------------------------------------------------------------------------


@pages.get("/desk", action="desk:case:list")
async def desk_page(call: Call) -> Response:
    state, after, mine = _state_of(call), call.query.optional("after"), call.query.checked("mine")
    found = await organisations.list_cases(
        call.services, call.actor, state=state, mine=mine, after=after, limit=PAGE + 1
    )
    query = {"state": state or "", "mine": "yes" if mine else ""}
    lines, next_href = paged(found, "/desk", **query)
    view = {
        "lines": lines,
        "now": call.services.clock.now(),
        "states": _states(),
        "values": query,
        "filtered": state is not None or mine or after is not None,
        "next_href": next_href,
        "first_href": with_query("/desk", **query) if after is not None else "",
    }
    return page(call, "organisations/desk.html", view)


@pages.get("/desk/{id}", action="desk:case:get")
async def case_page(call: Call) -> Response:
    return await _case(call)


async def _case(call: Call, problem: Problem | None = None) -> Response:
    case = await organisations.get_case(call.services, call.actor, call.param("id"))
    work, decide = call.allowed("desk:case:work"), call.allowed("desk:case:decide")
    deciding = (Operation.APPROVE, Operation.RETURN, Operation.REFUSE)
    may = [op.value for op in case.allowed if (decide if op in deciding else work)]
    newest = {check.item: check for check in case.checks}
    view = {
        "case": case,
        "facts": _shown_facts(case.facts) if case.facts else [],
        "items": [(item, newest.get(item)) for item in case.required],
        "may": may,
        "values": {"item": case.missing[0].value if case.missing else case.required[0].value} | call.form.values(),
        "four_eyes": _four_eyes(case),
        "late": case.due_at is not None and case.due_at <= call.services.clock.now(),
        "not_second": case.state is State.AWAITING_SECOND and decide and "approve" not in may,
    }
    return page(call, "organisations/case.html", view, problem, renamed=_FILE)


def _four_eyes(case: Case) -> list[tuple[str, str | None]]:
    """Who approves, in order; None where it is open."""
    if case.level is organisations.Level.OV:
        return [(_("A specialist"), case.approved_by_name)]
    return [(_("First specialist"), case.approved_by_name), (_("Second specialist"), case.seconded_by_name)]


async def _worked(call: Call, doing: Awaitable[object], said: str) -> Response:
    return await changed(call, doing, _case, f"/desk/{call.param('id')}", said)


@pages.post("/desk/{id}/claim", action="desk:case:work")
async def claim(call: Call) -> Response:
    return await _worked(call, organisations.claim(call.services, call.actor, call.param("id")), "claimed")


@pages.post("/desk/{id}/release", action="desk:case:work")
async def release(call: Call) -> Response:
    return await _worked(call, organisations.release(call.services, call.actor, call.param("id")), "released")


@pages.post("/desk/{id}/checks", action="desk:case:work")
async def record_check(call: Call) -> Response:
    form = call.form
    doing = organisations.record_check(
        call.services, call.actor, call.param("id"), item=form.text("item"), outcome=form.text("outcome"),
        source=form.text("source"), note=form.text("note"),
    )  # fmt: skip
    return await _worked(call, doing, "check_noted")


@pages.post("/desk/{id}/ask", action="desk:case:work")
async def ask(call: Call) -> Response:
    doing = organisations.ask(call.services, call.actor, call.param("id"), call.form.text("words"))
    return await _worked(call, doing, "asked")


@pages.post("/desk/{id}/approve", action="desk:case:decide")
async def approve(call: Call) -> Response:
    """Of what the page showed: somebody may have added a check meanwhile."""
    try:
        revision = revision_of(call.form)
    except Invalid as problem:
        return await _case(call, problem)
    doing = organisations.approve(call.services, call.actor, call.param("id"), revision=revision)
    return await _worked(call, doing, "approved")


@pages.post("/desk/{id}/return", action="desk:case:decide")
async def give_back(call: Call) -> Response:
    doing = organisations.give_back(call.services, call.actor, call.param("id"), call.form.text("words"))
    return await _worked(call, doing, "returned")


@pages.post("/desk/{id}/refuse", action="desk:case:decide", ask="refuse_case")
async def refuse(call: Call) -> Response:
    reasons = [line.strip() for line in call.form.text("reasons").splitlines() if line.strip()]
    return await _worked(call, organisations.refuse(call.services, call.actor, call.param("id"), reasons), "refused")


@pages.post("/desk/{id}/documents", action="desk:case:work", file=True)
async def attach(call: Call) -> Response:
    try:
        name, content = call.form.file("content")
    except Invalid as problem:
        return await _case(call, problem)
    doing = organisations.attach_document(call.services, call.actor, call.param("id"), name=name, content=content)
    return await _worked(call, doing, "document_sent")


@pages.get("/desk/{id}/documents/{document_id}", action="desk:document:download")
async def download(call: Call) -> Response:
    return _file(await organisations.download(call.services, call.actor, call.param("id"), call.param("document_id")))
