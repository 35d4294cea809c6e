"""Certificates: the list, one certificate, applying, showing that domains are yours, and every operation on it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, get_args

from starlette.responses import Response

from certwright.entry.console import charts, words
from certwright.entry.console.forms import Faults, Form
from certwright.entry.console.pages_home import IN_USE, OPEN, alarm_line
from certwright.entry.console.web import FORM_PROBLEMS, Call, Pages, again, page, revision_of, see, with_query
from certwright.kernel.names import parse_dns_name
from certwright.kernel.problems import Invalid, Problem, not_found
from certwright.platform.i18n import N_, _
from certwright.rooms import access, audit, authorities, certificates, deployment, validation, watch
from certwright.rooms.certificates import Applicant, Application, Detail, Operation, RevocationReason, State, Summary

pages = Pages()

_PAGE = 20
_SORTS = (
    ("created", N_("Newest first"), True),
    ("expiry", N_("Expiry"), False),
    ("updated", N_("Last changed"), True),
    ("state", N_("State"), False),
)
_SHOWN_STATES = (
    State.PENDING_APPLICATION,
    State.PENDING_DOMAIN_VALIDATION,
    State.TO_BE_ISSUED,
    State.ISSUED,
    State.APPROVAL_FAILED,
    State.VERIFYING_REISSUE,
    State.VERIFYING_REVOCATION,
    State.REVOKED,
    State.HOSTED,
    State.EXPIRED,
)
_MOVING = (
    State.PENDING_DOMAIN_VALIDATION,
    State.TO_BE_ISSUED,
    State.VERIFYING_REISSUE,
    State.VERIFYING_REVOCATION,
    State.VERIFYING_WITHDRAWAL,
)
_CHANGES = ("scm:cert:update", "scm:cert:renew", "scm:cert:withdraw", "scm:cert:revoke", "scm:cert:delete")
_KEY_ALGORITHMS = ("EC_P256", "EC_P384", "RSA_2048", "RSA_3072", "RSA_4096")
_RENAMED = {
    "applicant": "applicant_name",
    "applicant.name": "applicant_name",
    "applicant.email": "applicant_email",
    "applicant.phone": "applicant_phone",
    "domain_type": "names",
    "per_name_methods": "validation_method",
}


# --- the list -------------------------------------------------------------------------------------------------------


def unicode_name(name: str) -> str:
    """U-labels for people; a name that isn't one is shown as stored."""
    try:
        return parse_dns_name(name).unicode
    except Invalid:
        return name


def _names(ascii_names: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"ascii": name, "unicode": unicode_name(name)} for name in ascii_names]


def shown_name(summary: Summary) -> str:
    return unicode_name(summary.primary_name) if summary.primary_name else summary.name


def _line(summary: Summary) -> dict[str, Any]:
    return {
        "id": summary.id,
        "name": summary.name,
        "shown_name": shown_name(summary),
        "more": max(len(summary.names) - 1, 0),
        "state": summary.state,
        "expires_soon": summary.expires_soon,
        "not_after": summary.not_after,
        "key_algorithm": summary.key_algorithm,
        "uploaded": summary.uploaded,
        "auto_renew": summary.auto_renew,
    }


@pages.get("/certificates", action="scm:cert:list")
async def list_page(call: Call) -> Response:
    query = call.query
    values = {name: query.text(name) for name in ("q", "state", "sort", "soon", "expires_before", "tag")}
    faults = Faults()
    try:
        lines, next_href = await _page_of(call, values)
    except Invalid as problem:
        lines, next_href, faults = [], "", Faults.of(problem)
    filtered = any(values[name] for name in ("q", "state", "soon", "expires_before", "tag")) or bool(faults)
    view = {
        "lines": lines,
        "filtered": filtered or "after" in query,
        "values": values,
        "states": _state_options(),
        "sorts": [(value, _(title)) for value, title, _down in _SORTS],
        "next_href": next_href,
        "first_href": with_query("/certificates", **values) if "after" in query else "",
    }
    return page(call, "certificates/list.html", view, faults=faults)


def _state_options() -> list[tuple[str, str]]:
    shown = [(state.value, words.word(words.CERTIFICATE_STATES, state)) for state in _SHOWN_STATES]
    return [("", _("All states")), ("used", _("In use")), ("open", _("In progress")), *shown]


async def _page_of(call: Call, values: Mapping[str, str]) -> tuple[list[dict[str, Any]], str]:
    sort, descending = next(
        ((name, down) for name, _title, down in _SORTS if name == values["sort"]), (_SORTS[0][0], _SORTS[0][2])
    )
    filters = certificates.Filters(
        states=_states(values["state"]),
        search=values["q"] or None,
        tag=_tag(values["tag"]),
        expires_soon=True if values["soon"] else None,
        expires_before=_end_of(values["expires_before"]),
    )
    after = await _after(call, sort)
    found = await certificates.list_certificates(
        call.services, call.actor, filters, sort=sort, descending=descending, after=after, limit=_PAGE + 1
    )
    more = len(found) > _PAGE
    found = found[:_PAGE]
    next_href = with_query("/certificates", **values, after=_cursor(found[-1], sort)) if more else ""
    return [_line(summary) for summary in found], next_href


def _states(text: str) -> tuple[State, ...]:
    if text == "used":
        return IN_USE
    if text == "open":
        return OPEN
    try:
        return (State(text),) if text else ()
    except ValueError:
        return ()


def _tag(text: str) -> dict[str, str]:
    key, equals, value = text.partition("=")
    return {key.strip(): value.strip()} if equals and key.strip() else {}


def _end_of(text: str) -> datetime | None:
    """The end of the day `YYYY-MM-DD`; raises Invalid."""
    if not text:
        return None
    try:
        return datetime.combine(date.fromisoformat(text) + timedelta(days=1), time(), UTC)
    except (ValueError, OverflowError) as error:
        raise Invalid("day_invalid", f"{text[:40]!r} is not a day.", fix="Write it as 2027-01-31.") from error


def _cursor(summary: Summary, sort: str) -> str:
    """Where the page ended: value and id. It is shown to nobody and holds nothing secret."""
    match sort:
        case "expiry":
            value = summary.not_after.isoformat() if summary.not_after else ""
        case "updated":
            value = summary.updated_at.isoformat()
        case "state":
            value = State.ISSUED.value if summary.state is State.EXPIRED else summary.state.value
        case _:
            value = summary.id
    return f"{value}|{summary.id}"


async def _after(call: Call, sort: str) -> tuple[Any, str] | None:
    text = call.query.text("after")
    if not text:
        return None
    value, bar, last_id = text.partition("|")
    wrong = Invalid("page_unknown", "This page of the list can't be found.", fix="Begin again at the first page.")
    if not bar or len(text) > 200:
        raise wrong
    if sort in ("expiry", "updated"):
        try:
            return (datetime.fromisoformat(value) if value else None), last_id
        except ValueError as error:
            raise wrong from error
    return value, last_id


# --- one certificate ------------------------------------------------------------------------------------------------


@pages.get("/certificates/{id}", action="scm:cert:get")
async def detail_page(call: Call) -> Response:
    return await _detail(call, call.param("id"))


async def _detail(call: Call, certificate_id: str, problem: Problem | None = None) -> Response:
    services, actor = call.services, call.actor
    detail = await certificates.get_certificate(services, actor, certificate_id)
    summary = detail.summary
    current = next((v for v in detail.versions if v.superseded_at is None), None)
    life = None
    if summary.not_before is not None and summary.not_after is not None:
        life = charts.validity(
            summary.not_before, summary.not_after, call.now, renew_at=detail.renew_at, soon=summary.expires_soon
        )
    async with services.db.begin() as tx:
        open_alarms = await watch.open_alarms_for(tx, certificate_id) if call.allowed("alarm:alarm:list") else []
    view = {
        "detail_view": detail,
        "shown_name": shown_name(summary),
        "names": _names(summary.names or (detail.application.names if detail.application else ())),
        "ca_name": ca_name(summary.ca),
        "current": current,
        "chain": await _chain(call, current.chain) if current else [],
        "life": life,
        "moving": summary.state in _MOVING,
        "may_change": any(
            call.allowed(f"scm:cert:{what}") for what in ("update", "renew", "withdraw", "revoke", "delete")
        ),
        "downloads": _downloads(call, detail),
        "bindings": await _bindings(call, certificate_id),
        "rollouts": await _rollouts(call, certificate_id),
        "alarms": [alarm_line(row) for row in open_alarms],
        "trail": await _trail(call, certificate_id),
        "refused": [(op.value, verdict) for op, verdict in detail.allowed.items() if verdict is not None],
    }
    return page(
        call, "certificates/detail.html", view, status=problem.status if problem else 200, faults=Faults.of(problem)
    )


async def _chain(call: Call, subjects: tuple[str, ...]) -> list[str]:
    """Subjects from the root down to the leaf's issuer. Servers don't send our own root, but people look for it."""
    known = {ca.subject: ca for ca in await authorities.public_authorities(call.services)}
    by_id = {ca.id: ca for ca in known.values()}
    chain = list(subjects)
    while chain and (top := known.get(chain[-1])) is not None and top.parent_id in by_id:
        chain.append(by_id[top.parent_id].subject)
    return chain[::-1]


def ca_name(ca: str) -> str:
    return _("Built-in private CA") if ca == certificates.BUILTIN_CA else ca


def _downloads(call: Call, detail: Detail) -> list[dict[str, Any]]:
    kinds = [
        ("fullchain", _("Certificate and chain (PEM)"), False),
        ("leaf", _("Certificate alone (PEM)"), False),
        ("chain", _("Chain alone (PEM)"), False),
    ]
    if detail.allowed[Operation.EXPORT_KEY] is None and call.allowed("scm:cert:export_key"):
        kinds += [
            ("nginx", _("Archive for nginx, with the private key"), True),
            ("key", _("Private key (PEM)"), True),
        ]
    return [{"format": kind, "label": label, "key": key} for kind, label, key in kinds]


async def _bindings(call: Call, certificate_id: str) -> list[dict[str, Any]]:
    if not call.allowed("scm:target:get"):
        return []
    found = await deployment.list_bindings(call.services, call.actor, certificate_id=certificate_id)
    return [
        {"id": b.id, "site": b.site, "target": b.target, "target_id": b.target_id, "current": b.current} for b in found
    ]


async def _rollouts(call: Call, certificate_id: str) -> list[dict[str, Any]]:
    if not call.allowed("scm:rollout:list"):
        return []
    found = await deployment.list_rollouts(call.services, call.actor, certificate_id=certificate_id, limit=10)
    return [{"id": r.id, "state": r.state, "target": r.target, "started_at": r.created_at} for r in found]


async def _trail(call: Call, object_id: str) -> list[dict[str, Any]]:
    if not call.allowed("iam:audit:list"):
        return []
    where = access.visible(audit.audit_events, call.actor, "iam:audit:list")
    async with call.services.db.begin() as tx:
        events = await audit.list_events(tx, where, audit.Filter(object_id=object_id), limit=10, before_id=None)
    return [
        {"action": e.action, "actor_name": e.actor_name, "at": e.at, "change": change_of(e.before, e.after, e.reason)}
        for e in events
    ]


def change_of(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, reason: str) -> str:
    """`state: issued → revoked; reason`: what an audit event changed, in one line."""
    parts = []
    for key in dict.fromkeys([*(before or {}), *(after or {})]):
        old, new = (before or {}).get(key), (after or {}).get(key)
        if old is not None and new is not None and old != new:
            parts.append(f"{key}: {_short(old)} → {_short(new)}")
        elif new is not None:
            parts.append(f"{key}: {_short(new)}")
        elif old is not None:
            parts.append(f"{key}: {_short(old)} →")
    return "; ".join([*parts[:6], *([reason] if reason else [])])


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        text = ", ".join(f"{key} {part}" for key, part in value.items())
    elif isinstance(value, list):
        text = ", ".join(str(part) for part in value)
    else:
        text = str(value)
    return text if len(text) <= 40 else text[:37] + "…"


# --- applying -------------------------------------------------------------------------------------------------------


def _application(form: Form) -> Application:
    """What was typed, unjudged. A CSR counts only if its owner said that there is one."""
    own = form.text("key_source") == "csr"
    csr = form.text("csr")
    if own and not csr:
        raise Invalid(
            "csr_missing", "The CSR is missing.", field="csr", fix="Paste it, or let Certwright make the key."
        )
    return Application(
        names=form.lines("names"),
        validation_method=form.text("validation_method", "dns"),
        key_algorithm=form.text("key_algorithm", "EC_P256"),
        csr=csr if own else None,
        applicant=Applicant(form.text("applicant_name"), form.text("applicant_email"), form.text("applicant_phone")),
        consent=form.checked("consent"),
        consent_version=certificates.CURRENT_PRIVACY_STATEMENT if form.checked("consent") else "",
    )


async def _apply_view(call: Call, values: Mapping[str, str], action: str, *, new: bool) -> dict[str, Any]:
    projects = []
    if new and call.allowed("iam:project:list"):
        found = await access.people.list_projects(call.services, call.actor, limit=100)
        projects = [(p.id, p.name) for p in sorted(found, key=lambda p: not p.is_default)]
    zones: list[str] = []
    if call.allowed("dns:connection:list"):
        connections = await validation.list_connections(call.services, call.actor, limit=20)
        zones = sorted({zone for connection in connections for zone in connection.zones})
    return {
        "values": values,
        "action": action,
        "new": new,
        "projects": projects,
        "connections": zones,
        "key_algorithms": [(code, words.plain(words.KEY_ALGORITHMS, code)) for code in _KEY_ALGORITHMS],
        "consent_version": certificates.CURRENT_PRIVACY_STATEMENT,
    }


@pages.get("/certificates/new", action="scm:cert:apply")
async def new_page(call: Call) -> Response:
    me = await access.people.me(call.services, call.actor)
    values = {
        "names": call.query.text("names"),
        "applicant_name": me.user.name if me.user else "",
        "applicant_email": me.user.email if me.user else "",
    }
    view = await _apply_view(call, values, "/certificates/new", new=True)
    return page(call, "certificates/apply.html", view)


@pages.post("/certificates/new", action="scm:cert:apply")
async def create(call: Call) -> Response:
    return await _applied(call, None)


@pages.get("/certificates/{id}/apply", action="scm:cert:apply")
async def apply_page(call: Call) -> Response:
    certificate_id = call.param("id")
    draft = await certificates.read_draft(call.services, call.actor, certificate_id)
    applicant = draft.get("applicant") or {}
    values = {
        "names": "\n".join(unicode_name(name) for name in draft["names"]),
        "validation_method": draft["validation_method"],
        "key_algorithm": draft["key_algorithm"],
        "key_source": "csr" if draft.get("csr") else "system",
        "csr": draft.get("csr") or "",
        "applicant_name": applicant.get("name", ""),
        "applicant_email": applicant.get("email", ""),
        "applicant_phone": applicant.get("phone", ""),
    }
    view = await _apply_view(call, values, f"/certificates/{certificate_id}/apply", new=False)
    return page(call, "certificates/apply.html", view)


@pages.post("/certificates/{id}/apply", action="scm:cert:apply")
async def apply(call: Call) -> Response:
    return await _applied(call, call.param("id"))


async def _applied(call: Call, certificate_id: str | None) -> Response:
    """One form, three buttons: review it, change it, submit it."""
    form, services, actor = call.form, call.services, call.actor
    address = f"/certificates/{certificate_id}/apply" if certificate_id else "/certificates/new"
    step = form.text("step")
    try:
        if step == "edit":
            view = await _apply_view(call, form.values(), address, new=certificate_id is None)
            return page(call, "certificates/apply.html", view)
        application = _application(form)
        public = services.port(certificates.AuthorityDirectory).by_id[certificates.BUILTIN_CA].capabilities.public
        judged = certificates.judge_application(application, public_ca=public)
        if step != "submit":
            return _review(call, judged, address)
        if certificate_id is None:
            detail = await certificates.create_certificate(
                services, actor, application=application, name=form.optional("name"),
                project_id=form.optional("project_id"),
            )  # fmt: skip
        else:
            detail = await certificates.apply(services, actor, certificate_id, application)
    except FORM_PROBLEMS as problem:
        view = await _apply_view(call, form.values(), address, new=certificate_id is None)
        return page(call, "certificates/apply.html", view, status=problem.status, faults=Faults.of(problem, _RENAMED))
    return see(f"/certificates/{detail.id}/validation", said="applied", call=call)


def _review(call: Call, judged: Any, address: str) -> Response:
    values = {key: value for key, value in call.form.values().items() if key != "step"}
    values.setdefault("validation_method", "dns")
    kinds = {"single": _("Single domain"), "multi": _("Several domains"), "wildcard": _("Wildcard")}
    view = {
        "values": values,
        "action": address,
        "names": [
            {"ascii": ascii_name, "unicode": shown}
            for ascii_name, shown in zip(judged.names, judged.unicode_names, strict=True)
        ],
        "kind": kinds.get(str(judged.domain_type), str(judged.domain_type)),
        "ca_name": ca_name(certificates.BUILTIN_CA),
        "consent_version": certificates.CURRENT_PRIVACY_STATEMENT,
    }
    return page(call, "certificates/review.html", view)


# --- validation -----------------------------------------------------------------------------------------------------


@pages.get("/certificates/{id}/validation", action="scm:validation:get")
async def validation_page(call: Call) -> Response:
    return await _validation(call, call.param("id"))


async def _validation(call: Call, certificate_id: str, problem: Problem | None = None) -> Response:
    detail = await certificates.get_certificate(call.services, call.actor, certificate_id)
    domains = detail.validation.domains if detail.validation else ()
    view = {
        "cert": detail.summary,
        "shown_name": shown_name(detail.summary),
        "domains": [
            {
                "unicode": unicode_name(domain.name),
                "status": str(domain.status),
                "automatic": domain.automatic,
                "record": domain.record,
                "file": domain.file,
                "explanation": domain.explanation,
                "checked_at": domain.checked_at,
                "next_check_at": domain.next_check_at,
                "valid_until": domain.valid_until,
                "expires_at": domain.expires_at,
            }
            for domain in domains
        ],
        "under_way": detail.summary.state
        in (State.PENDING_DOMAIN_VALIDATION, State.TO_BE_ISSUED, State.VERIFYING_REISSUE),
        "waiting": detail.validation is not None and not detail.validation.all_valid,
        "issued": detail.summary.state is State.ISSUED,
        "can_check": detail.allowed[Operation.VERIFY_DOMAINS] is None and call.allowed("scm:validation:check"),
        "can_withdraw": detail.allowed[Operation.WITHDRAW] is None and call.allowed("scm:cert:withdraw"),
    }
    status = problem.status if problem else 200
    return page(call, "certificates/validation.html", view, status=status, faults=Faults.of(problem))


@pages.post("/certificates/{id}/validation", action="scm:validation:check")
async def check_domains(call: Call) -> Response:
    certificate_id = call.param("id")
    try:
        await certificates.check_domains(call.services, call.actor, certificate_id)
    except FORM_PROBLEMS as problem:
        return await _validation(call, certificate_id, problem)
    # A script asks for the fragment only: no message for a page it won't show.
    smooth = call.request.headers.get("hx-request") == "true"
    return see(f"/certificates/{certificate_id}/validation", said=None if smooth else "checked", call=call)


# --- operations -----------------------------------------------------------------------------------------------------


@pages.post("/certificates/{id}/withdraw", action="scm:cert:withdraw")
async def withdraw(call: Call) -> Response:
    certificate_id = call.param("id")
    try:
        await certificates.withdraw(call.services, call.actor, certificate_id)
    except FORM_PROBLEMS as problem:
        return await _detail(call, certificate_id, problem)
    return see(f"/certificates/{certificate_id}", said="withdrawn", call=call)


@pages.post("/certificates/{id}/reissue", action="scm:cert:renew")
async def reissue(call: Call) -> Response:
    certificate_id = call.param("id")
    try:
        await certificates.reissue(call.services, call.actor, certificate_id)
    except FORM_PROBLEMS as problem:
        return await _detail(call, certificate_id, problem)
    return see(f"/certificates/{certificate_id}", said="reissuing", call=call)


@pages.post("/certificates/{id}/renewal", action="scm:cert:update")
async def renewal(call: Call) -> Response:
    certificate_id, on = call.param("id"), call.form.checked("auto_renew")
    try:
        await certificates.update_certificate(
            call.services, call.actor, certificate_id, revision=revision_of(call.form), auto_renew=on
        )
    except FORM_PROBLEMS as problem:
        return await _detail(call, certificate_id, problem)
    return see(f"/certificates/{certificate_id}", said="renewal_on" if on else "renewal_off", call=call)


@pages.get("/certificates/{id}/edit", action="scm:cert:update")
async def edit_page(call: Call) -> Response:
    detail = await certificates.get_certificate(call.services, call.actor, call.param("id"))
    cert = detail.summary
    values = {
        "name": cert.name,
        "description": cert.description,
        "tags": "\n".join(f"{key}={value}" if value else key for key, value in cert.tags.items()),
        "project_id": cert.project_id,
        "notify": "yes" if cert.notify else "",
        "revision": str(cert.revision),
    }
    return page(call, "certificates/edit.html", await _edit_view(call, cert, values))


async def _edit_view(call: Call, cert: Summary, values: Mapping[str, str]) -> dict[str, Any]:
    projects = []
    if call.allowed("iam:project:list"):
        projects = [(p.id, p.name) for p in await access.people.list_projects(call.services, call.actor, limit=100)]
    return {"cert": cert, "shown_name": shown_name(cert), "values": values, "projects": projects}


@pages.post("/certificates/{id}/edit", action="scm:cert:update")
async def edit(call: Call) -> Response:
    form, certificate_id = call.form, call.param("id")
    tags = {}
    for line in form.lines("tags"):
        key, _equals, value = line.partition("=")
        tags[key.strip()] = value.strip()
    try:
        await certificates.update_certificate(
            call.services, call.actor, certificate_id, revision=revision_of(form), name=form.text("name"),
            description=form.text("description"), tags=tags, notify=form.checked("notify"),
            project_id=form.optional("project_id"),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        detail = await certificates.get_certificate(call.services, call.actor, certificate_id)
        return again(call, "certificates/edit.html", await _edit_view(call, detail.summary, form.values()), problem)
    return see(f"/certificates/{certificate_id}", said="saved", call=call)


@pages.get("/certificates/{id}/revoke", action="scm:cert:revoke")
async def revoke_page(call: Call) -> Response:
    return page(call, "certificates/revoke.html", await _revoke_view(call))


async def _revoke_view(call: Call) -> dict[str, Any]:
    certificate_id = call.param("id")
    detail = await certificates.get_certificate(call.services, call.actor, certificate_id)
    bound = await _bindings(call, certificate_id)
    return {
        "cert": detail.summary,
        "shown_name": shown_name(detail.summary),
        "bound": [f"{b['site']} ({b['target']})" for b in bound],
        "reasons": [
            (reason.value, words.word(words.REASONS, reason), words.detail(words.REASONS, reason))
            for reason in RevocationReason
        ],
        "values": call.form.values(),
    }


@pages.post("/certificates/{id}/revoke", action="scm:cert:revoke")
async def revoke(call: Call) -> Response:
    certificate_id, text = call.param("id"), call.form.text("reason")
    try:
        if text not in set(RevocationReason):
            raise Invalid("revocation_reason_unknown", "Choose why.", field="reason", fix="Pick one of the reasons.")
        await certificates.revoke(call.services, call.actor, certificate_id, RevocationReason(text))
    except FORM_PROBLEMS as problem:
        return again(call, "certificates/revoke.html", await _revoke_view(call), problem)
    return see(f"/certificates/{certificate_id}", said="revoking", call=call)


@pages.get("/certificates/{id}/delete", action="scm:cert:delete")
async def delete_page(call: Call) -> Response:
    return page(call, "confirm.html", await _delete_view(call))


async def _delete_view(call: Call) -> dict[str, Any]:
    detail = await certificates.get_certificate(call.services, call.actor, call.param("id"))
    back = f"/certificates/{detail.id}"
    lines = [_("Its private keys are erased for good. The audit trail and the fingerprint stay.")]
    if detail.summary.state is State.ISSUED:
        lines.append(
            _("Deleting does not revoke: whoever has the key can go on using the certificate until it expires.")
        )
    return {
        "section": "certificates",
        "title": _("Delete %(name)s?") % {"name": shown_name(detail.summary)},
        "crumbs": [(_("Certificates"), "/certificates"), (shown_name(detail.summary), back)],
        "action": f"{back}/delete",
        "back": back,
        "warning": _("This can't be undone"),
        "lines": lines,
        "button": _("Delete the certificate"),
    }


@pages.post("/certificates/{id}/delete", action="scm:cert:delete")
async def delete(call: Call) -> Response:
    try:
        await certificates.delete_certificate(call.services, call.actor, call.param("id"))
    except FORM_PROBLEMS as problem:
        return again(call, "confirm.html", await _delete_view(call), problem)
    return see("/certificates", said="deleted", call=call)


@pages.get("/certificates/{id}/download", action="scm:cert:download")
async def download(call: Call) -> Response:
    kind = call.query.text("format")
    if kind in ("key", "nginx"):
        # Private keys are fetched by POST only: no link, prefetch or history entry reads one.
        raise not_found("download", kind)
    return await _file(call, kind)


@pages.post("/certificates/{id}/download", action="scm:cert:export_key")
async def download_key(call: Call) -> Response:
    return await _file(call, call.form.text("format"))


async def _file(call: Call, kind: str) -> Response:
    if kind not in get_args(certificates.Format):
        raise not_found("download", kind[:40])
    # The check above makes `kind` one of the literals; the type checker does not follow get_args.
    found = await certificates.download(call.services, call.actor, call.param("id"), kind)  # type: ignore[arg-type]
    headers = {"content-disposition": f'attachment; filename="{found.file_name}"', "cache-control": "no-store"}
    return Response(found.content, media_type=found.media_type, headers=headers)
