"""Certificates: the list, one certificate, applying, showing that domains are yours, and every operation on it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any, get_args

from starlette.responses import Response

from certwright.entry.api.base import SIGNED_IN
from certwright.entry.console import charts, words
from certwright.entry.console.forms import Form
from certwright.entry.console.pages_home import alarm_line
from certwright.entry.console.pages_uploads import found_view
from certwright.entry.console.web import (
    FORM_PROBLEMS,
    Call,
    Pages,
    day,
    page,
    revision_of,
    see,
    short,
)
from certwright.entry.web_certificate import own_certificate
from certwright.kernel.names import parse_dns_name
from certwright.kernel.problems import Invalid, Problem, not_found
from certwright.platform.i18n import _
from certwright.rooms import (
    access,
    audit,
    authorities,
    cas,
    certificates,
    csrs,
    deployment,
    notify,
    organisations,
    validation,
    watch,
)
from certwright.rooms.certificates import (
    Applicant,
    Application,
    ApplicationView,
    CertificateType,
    Changes,
    Detail,
    Operation,
    RevocationReason,
    State,
    Summary,
    VersionView,
)

pages = Pages()

_MOVING = (
    State.PENDING_DOMAIN_VALIDATION,
    State.PENDING_ORGANIZATION_VALIDATION,
    State.TO_BE_ISSUED,
    State.VERIFYING_REISSUE,
    State.VERIFYING_DOMAIN_ADDITION,
    State.VERIFYING_REVOCATION,
    State.VERIFYING_WITHDRAWAL,
    State.REVOCATION_PENDING_DOMAIN_VALIDATION,
)
_CHANGES = (
    "scm:cert:update", "scm:cert:renew", "scm:cert:withdraw", "scm:cert:revoke", "scm:cert:delete", "scm:cert:apply",
    "scm:cert:withdraw_privacy",
)  # fmt: skip
KEY_ALGORITHMS = ("EC_P256", "EC_P384", "RSA_2048", "RSA_3072", "RSA_4096")
_WITHOUT_KEY = ("fullchain", "leaf", "chain", "root", "pem", "der", "p7b")
# What people choose among; the plain DV type stands for both kinds of it.
_CERTIFICATE_TYPES = ("dv", "ov", "ov_pro", "ev", "ev_pro")
# As audit events keep them: in UTC, and fingerprints or serial numbers.
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)")
_HEX = re.compile(r"[0-9a-fA-F]{24,}")
_RENAMED = {
    "applicant": "applicant_name",
    "applicant.name": "applicant_name",
    "applicant.email": "applicant_email",
    "applicant.phone": "applicant_phone",
    "domain_type": "names",
    **{f"technical_contact.{part}": f"technical_{part}" for part in ("name", "email", "phone")},
}


# --- names ----------------------------------------------------------------------------------------------------------


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
        "own": summary.id == own_certificate(services.settings),
        "names": _names(summary.names or (detail.application.names if detail.application else ())),
        "ca_name": await ca_name(call, summary.ca),
        "awaited": await _awaited(call, detail),
        "organisation": await _organisation(call, detail.application),
        "current": current,
        "only_by_program": detail.only_by_program,
        "confirmations": await _confirmations(call, detail),
        "proofs": await _proofs(call, detail),
        "seen": await _seen(call, detail, current),
        "fallback_name": await ca_name(call, detail.fallback_ca) if detail.fallback_ca else "",
        "domain_type": _domain_type(detail),
        "chain": await _chain(call, current.chain) if current else [],
        "life": life,
        "covered": _covered(detail),
        "moving": summary.state in _MOVING,
        # People take days, machines seconds.
        "pace": 20 if summary.state is State.PENDING_ORGANIZATION_VALIDATION else 2,
        "may_change": any(call.allowed(action) for action in _CHANGES),
        "downloads": _downloads(call, detail),
        "found": await found_view(call, certificate_id) if summary.uploaded else [],
        "bindings": await _bindings(call, certificate_id),
        "rollouts": await _rollouts(call, certificate_id),
        "alarms": [alarm_line(row) for row in open_alarms],
        "trail": await _trail(call, certificate_id),
        "refused": [(op.value, verdict) for op, verdict in detail.allowed.items() if verdict is not None],
    }
    return page(call, "certificates/detail.html", view, problem)


def _domain_type(detail: Detail) -> str:
    if detail.coverage is not None:
        return words.plain(words.DOMAIN_TYPES, detail.coverage.domain_type)
    return words.plain(words.DOMAIN_TYPES, detail.application.domain_type) if detail.application else ""


async def _confirmations(call: Call, detail: Detail) -> dict[str, Any] | None:
    """The links mailed about revocations, newest first, with what became of each mail."""
    if not detail.confirmations:
        return None
    mails: list[Any] = []
    if call.allowed("smn:message:list"):
        found = await notify.list_messages(call.services, call.actor, object_id=detail.id, limit=100)
        mails = [row for row in found if row.kind == notify.REVOCATION_LETTER]
    # Both lists are of the same letters, newest first.
    states = [notify.state_of(row).name for row in mails] if len(mails) == len(detail.confirmations) else []
    lines = [
        {"view": link, "mail": states[index] if states else ""} for index, link in enumerate(detail.confirmations)
    ]  # fmt: skip
    open_versions = {v.id for v in detail.versions if v.revoke_asked_at is not None and v.revoked_at is None}
    waits = any(link.state in ("waiting", "ran_out") and link.version_id in open_versions
                for link in detail.confirmations)  # fmt: skip
    return {"lines": lines, "again": waits and call.allowed("scm:cert:revoke")}


async def _proofs(call: Call, detail: Detail) -> list[dict[str, Any]]:
    """How each name of the last application was, or is to be, shown; evidence with the day until which it counts."""
    if detail.application is None or not call.allowed("scm:validation:get"):
        return []
    async with call.services.db.begin() as tx:
        shown = await validation.state(tx, call.services, detail.application.id, call.now)
    return [
        {"name": domain.unicode_name, "method": str(domain.method), "status": str(domain.status),
         "until": domain.valid_until}
        for domain in shown.domains
    ]  # fmt: skip


async def _seen(call: Call, detail: Detail, current: VersionView | None) -> list[dict[str, Any]]:
    """Where probes look for it, and what they found there last."""
    if not call.allowed("alarm:endpoint:list"):
        return []
    wanted = watch.EndpointFilter(certificate_id=detail.id, or_serves=current.sha256 if current else None)
    found = await watch.list_endpoints(call.services, call.actor, wanted, limit=50)
    numbers = {version.sha256: version.number for version in detail.versions}
    return [
        {"id": row.id, "name": watch.name_of(row), "reachable": row.reachable, "at": row.last_probe_at,
         "current": current is not None and row.fingerprint == current.sha256,
         "version": numbers.get(row.fingerprint), "looked": row.last_probe_at is not None}
        for row in found
    ]  # fmt: skip


def _covered(detail: Detail) -> charts.Segment | None:
    """Where the present version's life lies within the coverage it was bought with."""
    cover, summary = detail.coverage, detail.summary
    if cover is None or cover.starts_at is None or cover.ends_at is None:
        return None
    if summary.not_before is None or summary.not_after is None:
        return None
    return charts.segment(cover.starts_at, cover.ends_at, summary.not_before, summary.not_after)


async def _chain(call: Call, subjects: tuple[str, ...]) -> list[str]:
    """Subjects from the root down to the leaf's issuer. Servers don't send our own root, but people look for it."""
    known = {ca.subject: ca for ca in await authorities.public_authorities(call.services)}
    by_id = {ca.id: ca for ca in known.values()}
    chain = list(subjects)
    while chain and (top := known.get(chain[-1])) is not None and top.parent_id in by_id:
        chain.append(by_id[top.parent_id].subject)
    return chain[::-1]


async def ca_name(call: Call, ca: str) -> str:
    """For people: what an added CA is called here."""
    if ca == certificates.BUILTIN_CA:
        return _("Built-in private CA")
    if ca == certificates.UPLOADED_CA:
        return _("None here: it was uploaded")
    found = await _authority(call, ca)
    return found.capabilities.name if found else ca


async def _authority(call: Call, ca: str) -> certificates.CertificateAuthority | None:
    directory = call.services.port(certificates.AuthorityDirectory)
    async with call.services.db.begin() as tx:
        found = await directory.find(tx, call.actor.account_id, ca)
    return found[1] if found else None


async def _organisation(call: Call, application: ApplicationView | None) -> tuple[str, str] | None:
    """Id and legal name of the organisation an application names, for those who may see it."""
    if application is None or application.organisation_id is None or not call.allowed("scm:organisation:get"):
        return None
    try:
        found = await organisations.get_organisation(call.services, call.actor, application.organisation_id)
    except Problem:
        # Deleted since, or of a project they don't see.
        return None
    return found.id, found.facts.legal_name


async def _awaited(call: Call, detail: Detail) -> dict[str, str] | None:
    """What is awaited and whose turn it is, in one sentence each; None where nothing is."""
    base, state = f"/certificates/{detail.id}", detail.summary.state
    match state:
        case State.PENDING_APPLICATION:
            text = _("Nothing was applied for yet, so nothing is under way.")
            return _turn("you", text, f"{base}/apply", _("Apply"))
        case State.TO_BE_ISSUED:
            return _turn("ca", _("Everything is verified; the CA makes the certificate."))
        case State.VERIFYING_WITHDRAWAL:
            text = _("It was asked to take the order back. If it approved it meanwhile, the certificate is issued "
                     "all the same.")  # fmt: skip
            return _turn("ca", text)
        case State.VERIFYING_REVOCATION:
            waits = [link for link in detail.confirmations if link.state in ("waiting", "ran_out")]
            if waits:
                text = _("The applicant follows the link mailed to %(address)s; then the CA is asked to revoke it.")
                return _turn("you", text % {"address": waits[0].address}, "#confirmations", _("The link"))
            return _turn("ca", _("It was asked to revoke the certificate. That can't be taken back."))
        case State.REVOCATION_PENDING_DOMAIN_VALIDATION:
            text = _("Before it revokes, the CA wants to see that the domains are yours.")
            return _turn("you", text, f"{base}/validation", _("What to do"))
        case State.EXPIRED:
            text = _("It ran out and can't be renewed any more. Apply for another one, or order it.")
            return _turn("you", text, "/certificates/new", _("Apply for a certificate"))
        case State.REFUND_REVIEW:
            return _turn(
                "operator", _("The unsubscription from its order is looked at; until then nothing can be done.")
            )
        case State.PENDING_DOMAIN_VALIDATION | State.PENDING_ORGANIZATION_VALIDATION:
            return await _proof_awaited(call, detail, _("Everything is verified; the CA makes the certificate."))
        case State.VERIFYING_REISSUE:
            return await _proof_awaited(call, detail, _("It makes the new version; the present one keeps working."))
        case State.VERIFYING_DOMAIN_ADDITION:
            text = _("It makes a version with the added names; the present one keeps working.")
            return await _proof_awaited(call, detail, text)
    return None


def _agrees_by_mail(detail: Detail) -> bool:
    """Whether the applicant of an OV or EV certificate is asked before its current version is revoked."""
    last = detail.application
    if last is None or last.applicant is None or not CertificateType(last.certificate_type).names_organisation:
        return False
    current = next((version for version in detail.versions if version.superseded_at is None), None)
    return current is not None and current.revocation_reason != RevocationReason.KEY_COMPROMISE


async def _proof_awaited(call: Call, detail: Detail, over: str) -> dict[str, str]:
    """Of an application: the domains first, then the organisation, then the CA (`over`)."""
    base, shown = f"/certificates/{detail.id}", detail.validation
    if shown is None and detail.allowed[Operation.VERIFY_DOMAINS] is None:
        return _turn("ca", _("It was told of the application and says next what it wants to see."))
    if shown is not None and not shown.all_valid:
        todo = [domain.unicode_name for domain in shown.domains if domain.status != "valid"]
        if all(domain.automatic for domain in shown.domains if domain.status != "valid"):
            text = _("The DNS connection publishes the records; they are looked for until they are there.")
            if all(domain.responder for domain in shown.domains if domain.status != "valid"):
                text = _("This server answers for the names; port 443 is looked at until it leads here.")
            return _turn("us", text, f"{base}/validation", _("How far it is"))
        text = _("Show that these names are yours: %(names)s.") % {"names": ", ".join(todo[:5])}
        if len(todo) > 5:
            text = _("Show that %(count)s names are yours.") % {"count": len(todo)}
        return _turn("you", text, f"{base}/validation", _("What to do"))
    if detail.application is not None and detail.application.organisation_id and call.allowed("scm:vetting:list"):
        found = await organisations.list_vettings(
            call.services, call.actor, subject_id=detail.application.id, limit=1
        )  # fmt: skip
        if found and found[0].turn is not organisations.Turn.NOBODY:
            mine = found[0].turn is organisations.Turn.APPLICANT
            text = vetting_sentence(found[0])
            href = f"/verifications/{found[0].id}"
            return _turn("you" if mine else "desk", text, href, _("What to do") if mine else _("How far it is"))
    if detail.summary.state is State.PENDING_ORGANIZATION_VALIDATION:
        return _turn("desk", _("The organization is being verified. That takes three to ten working days."))
    return _turn("ca", over)


def vetting_sentence(vetting: organisations.Vetting) -> str:
    """What the verification of an organisation waits for."""
    match vetting.state:
        case organisations.State.AWAITING_CHOICE:
            return _("Choose how %(name)s is verified.") % {"name": vetting.legal_name or _("the organization")}
        case organisations.State.AWAITING_DOCUMENTS:
            return _("Documents were asked for.")
        case organisations.State.QUEUED:
            return _("A specialist takes the case from the queue.")
        case organisations.State.IN_REVIEW:
            return _("A specialist is at work on it.")
        case organisations.State.AWAITING_SECOND:
            return _("One specialist approved; a second one decides.")
        case organisations.State.VERIFIED:
            return _("The organization is verified.")
        case organisations.State.REFUSED:
            return _("The organization was not verified.")
    return _("The application was withdrawn.")


def _turn(whose: str, text: str, href: str = "", label: str = "") -> dict[str, str]:
    return {"whose": whose, "text": text, "href": href, "label": label}


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
    return [
        {"id": r.id, "state": "refused" if r.refused else r.state, "target": r.target, "started_at": r.created_at}
        for r in found
    ]


async def _trail(call: Call, object_id: str) -> list[dict[str, Any]]:
    if not call.allowed("iam:audit:list"):
        return []
    where = access.visible(audit.audit_events, call.actor, "iam:audit:list")
    async with call.services.db.begin() as tx:
        events = await audit.list_events(tx, where, audit.Filter(object_id=object_id), limit=10, before_id=None)
    return [
        {
            "action": e.action,
            "actor_name": e.actor_name,
            "at": e.at,
            "reason": e.reason,
            "changes": changes_of(e.before, e.after),
        }
        for e in events
    ]


_MOST_CHANGES = 8


def changes_of(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """What an audit event changed, as (field, old, new); old or new is empty where there was none."""
    changes = []
    for key in dict.fromkeys([*(before or {}), *(after or {})]):
        old, new = _short((before or {}).get(key)), _short((after or {}).get(key))
        if old or new:
            changes.append((key.replace("_", " "), "" if old == new else old, new))
    return changes[:_MOST_CHANGES]


def _short(value: Any) -> str:
    """For a line of a list: times to the minute, long hexadecimals by their beginning, other texts by theirs."""
    match value:
        case None:
            return ""
        case bool():
            return _("yes") if value else _("no")
        case Mapping():
            text = ", ".join(f"{key} {_short(part)}" for key, part in value.items() if part is not None)
        case list() | tuple():
            text = ", ".join(_short(part) for part in value)
        case _:
            text = str(value)
    if _TIME.fullmatch(text):
        return f"{text[:10]} {text[11:16]} UTC"
    if _HEX.fullmatch(text):
        return text[:16] + "…"
    return text if len(text) <= 80 else text[:79] + "…"


# --- applying -------------------------------------------------------------------------------------------------------


def _application(form: Form) -> Application:
    """What was typed, unjudged. A CSR counts only if its owner said that there is one."""
    source, csr, kept = form.text("key_source"), form.text("csr"), form.optional("csr_id")
    if source == "csr" and not csr:
        raise Invalid(
            "csr_missing", "The CSR is missing.", field="csr", fix="Paste it, or let Certwright make the key."
        )
    if source == "kept" and kept is None:
        raise Invalid(
            "csr_missing", "No kept CSR is chosen.", field="csr_id", fix="Choose one, or let Certwright make the key."
        )
    return Application(
        names=form.lines("names"),
        validation_method=form.text("validation_method", "dns"),
        per_name_methods=_exceptions(form),
        key_algorithm=form.text("key_algorithm", "EC_P256"),
        csr=csr if source == "csr" else None,
        csr_id=kept if source == "kept" else None,
        pin_key=source == "kept" and form.checked("pin_key"),
        certificate_type=form.optional("certificate_type"),
        organisation_id=_organisation_of(form),
        applicant=_person_of(form, "applicant"),
        technical_contact=_technical_contact(form),
        root_hash=form.text("root_hash", "default"),
        consent=form.checked("consent"),
        consent_version=form.text("consent_version"),
    )


def _person_of(form: Form, prefix: str) -> Applicant:
    return Applicant(*(form.text(f"{prefix}_{part}") for part in ("name", "email", "phone")))


def _technical_contact(form: Form) -> Applicant | None:
    """None unless something was typed there."""
    person = _person_of(form, "technical")
    return person if any(person.as_dict().values()) else None


def _exceptions(form: Form) -> dict[str, str]:
    """Names shown in another way, one a line: `www.example.com file`. Raises Invalid `exception_unreadable`."""
    found = {}
    for line in form.lines("per_name_methods"):
        name, _space, method = line.replace("=", " ").partition(" ")
        if not method.strip():
            raise Invalid(
                "exception_unreadable", f"{line[:80]!r} is not a name with a method.", field="per_name_methods",
                fix="Write a name and dns, file or email: www.example.com file.",
            )  # fmt: skip
        found[name] = method.strip().lower()
    return found


def _organisation_of(form: Form) -> str | None:
    """What stays chosen in a field that isn't shown doesn't count."""
    wanted = form.text("certificate_type", "dv")
    return None if wanted in ("", "dv", "dv_basic") else form.optional("organisation_id")


async def _organisation_options(call: Call) -> list[tuple[str, str]]:
    if not (call.allowed("scm:organisation:list") and call.allowed("scm:organisation:use")):
        return []
    found = await organisations.list_organisations(call.services, call.actor, limit=100)
    return [(one.id, f"{one.facts.legal_name} ({one.facts.city}, {one.facts.country})") for one in found]


async def ca_options(call: Call) -> list[tuple[str, str]]:
    """The CAs that can be ordered from, the built-in one first."""
    options = [(certificates.BUILTIN_CA, await ca_name(call, certificates.BUILTIN_CA))]
    if call.allowed("scm:ca:list") and call.allowed("scm:ca:use"):
        options += [(ca.id, ca.name) for ca in await cas.list_cas(call.services, call.actor, limit=100)]
    return options


async def _kept_csrs(call: Call) -> list[tuple[str, str]]:
    """The CSRs kept here that may be applied with, newest first."""
    if not (call.allowed("scm:csr:list") and call.allowed("scm:csr:use")):
        return []
    found = await csrs.list_csrs(call.services, call.actor, limit=100)
    held = {True: _("its key is here"), False: _("its key is with you")}
    return [(one.id, f"{one.name} ({', '.join(one.names[:3]) or '–'}; {held[one.has_key]})") for one in found]


async def _methods_offered(call: Call, detail: Detail | None) -> tuple[str, ...]:
    """What the CA and the product of a certificate take; everything where the CA is still to be chosen."""
    chosen = await _authority(call, detail.summary.ca) if detail else None
    if chosen is not None:
        return chosen.capabilities.methods
    answers = call.services.settings.tls_alpn_listen is not None
    return ("dns", "file", "email", "tls-alpn-01") if answers else ("dns", "file", "email")


async def _apply_view(
    call: Call, values: Mapping[str, str], action: str, *, new: bool, detail: Detail | None = None
) -> dict[str, Any]:
    """`detail` is the certificate applied for, where there is one: its CA and what was bought are settled."""
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
        "key_algorithms": _algorithms(),
        "consent_version": certificates.current_privacy_statement(call.services).version,
        "types": [
            (code, words.word(words.APPLICATION_TYPES, code), words.detail(words.APPLICATION_TYPES, code))
            for code in _CERTIFICATE_TYPES
        ],
        "organisations": await _organisation_options(call),
        "cas": await ca_options(call) if new else [],
        "kept_csrs": await _kept_csrs(call),
        "methods": await _methods_offered(call, detail),
        "root_hashes": [(code, words.plain(words.ROOT_HASHES, code)) for code in words.ROOT_HASHES],
        "ca_name": await ca_name(call, detail.summary.ca) if detail else "",
        "bought": detail.coverage if detail else None,
        "may_draft": detail is None or detail.allowed[Operation.SAVE_DRAFT] is None,
    }


def _algorithms() -> list[tuple[str, str]]:
    return [(code, words.plain(words.KEY_ALGORITHMS, code)) for code in KEY_ALGORITHMS]


@pages.get("/certificates/new", action="scm:cert:apply")
async def new_page(call: Call) -> Response:
    me = await access.people.me(call.services, call.actor)
    values = {
        "names": call.query.text("names"),
        "ca": call.query.text("ca"),
        "certificate_type": call.query.text("type", "dv"),
        "organisation_id": call.query.text("organisation"),
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
    detail = await certificates.get_certificate(call.services, call.actor, certificate_id)
    draft = await certificates.read_draft(call.services, call.actor, certificate_id)
    applicant = draft.get("applicant") or {}
    values = {
        "names": "\n".join(unicode_name(name) for name in draft["names"]),
        "validation_method": draft["validation_method"],
        "key_algorithm": draft["key_algorithm"],
        "key_source": "csr" if draft["csr"] else "kept" if draft["csr_id"] else "system",
        "csr": draft["csr"] or "",
        "csr_id": draft["csr_id"] or "",
        "pin_key": "yes" if draft["pin_key"] else "",
        "per_name_methods": "\n".join(
            f"{unicode_name(name)} {method}" for name, method in draft["per_name_methods"].items()
        ),
        "root_hash": draft["root_hash"],
        **{f"technical_{part}": text for part, text in (draft["technical_contact"] or {}).items()},
        "applicant_name": applicant.get("name", ""),
        "applicant_email": applicant.get("email", ""),
        "applicant_phone": applicant.get("phone", ""),
        "certificate_type": draft["certificate_type"]
        or (detail.coverage.certificate_type if detail.coverage else "dv"),
        "organisation_id": draft["organisation_id"] or "",
    }
    view = await _apply_view(call, values, f"/certificates/{certificate_id}/apply", new=False, detail=detail)
    return page(call, "certificates/apply.html", view)


@pages.post("/certificates/{id}/apply", action="scm:cert:apply")
async def apply(call: Call) -> Response:
    return await _applied(call, call.param("id"))


async def _applied(call: Call, certificate_id: str | None) -> Response:
    """One form, four buttons: review it, change it, keep it for later, submit it."""
    form, services, actor = call.form, call.services, call.actor
    address = f"/certificates/{certificate_id}/apply" if certificate_id else "/certificates/new"
    step, new = form.text("step"), certificate_id is None
    before = None if certificate_id is None else await certificates.get_certificate(services, actor, certificate_id)
    try:
        if step == "edit":
            return page(
                call, "certificates/apply.html",
                await _apply_view(call, form.values(), address, new=new, detail=before),
            )  # fmt: skip
        application = _application(form)
        if step == "draft":
            return await _kept(call, application, certificate_id)
        if step != "submit":
            return await _review(call, application, before, address)
        if certificate_id is None:
            detail = await certificates.create_certificate(
                services, actor, application=application, name=form.optional("name"),
                project_id=form.optional("project_id"), ca=form.text("ca") or certificates.BUILTIN_CA,
                fallback_ca=form.optional("fallback_ca"),
            )  # fmt: skip
        else:
            detail = await certificates.apply(services, actor, certificate_id, application)
    except FORM_PROBLEMS as problem:
        view = await _apply_view(call, form.values(), address, new=new, detail=before)
        return page(call, "certificates/apply.html", view, problem, renamed=_RENAMED)
    return see(f"/certificates/{detail.id}/validation", said="applied", call=call)


async def _kept(call: Call, application: Application, certificate_id: str | None) -> Response:
    """For later, as it is; a new one becomes a certificate that wasn't applied for yet."""
    form = call.form
    if certificate_id is None:
        made = await certificates.create_certificate(
            call.services, call.actor, name=form.optional("name"), project_id=form.optional("project_id"),
            ca=form.text("ca") or certificates.BUILTIN_CA, fallback_ca=form.optional("fallback_ca"),
        )  # fmt: skip
        certificate_id = made.id
    await certificates.save_draft(call.services, call.actor, certificate_id, application)
    return see(f"/certificates/{certificate_id}", said="draft_saved", call=call)


async def _review(call: Call, application: Application, before: Detail | None, address: str) -> Response:
    """Everything once more, judged by what the CA takes. Raises InvalidFields, Invalid `ca_unknown`."""
    ca = before.summary.ca if before else call.form.text("ca") or certificates.BUILTIN_CA
    chosen = await _authority(call, ca)
    if chosen is None:
        raise Invalid("ca_unknown", f"There is no CA {ca[:60]!r}.", field="ca", fix="Choose one of the list.")
    can, bought = chosen.capabilities, before.coverage if before else None
    if bought is not None:
        application = replace(
            application, certificate_type=application.certificate_type or bought.certificate_type,
            domain_type=bought.domain_type,
        )  # fmt: skip
    kept = None
    if application.csr_id is not None:
        kept = await csrs.get_csr(call.services, call.actor, application.csr_id)
        application = replace(application, csr=kept.pem)
    statement = certificates.current_privacy_statement(call.services).version
    judged = certificates.judge_application(
        application, public_ca=can.public, types=can.types, methods=can.methods, ip_addresses=can.ip_addresses,
        root_hashes=can.root_hashes, statement=statement,
    )  # fmt: skip
    fallback = None if before else call.form.optional("fallback_ca")
    values = {key: value for key, value in call.form.values().items() if key != "step"}
    values.setdefault("validation_method", "dns")
    named = None
    if judged.organisation_id is not None:
        named = await organisations.get_organisation(call.services, call.actor, judged.organisation_id)
    view = {
        "values": values,
        "action": address,
        "names": [
            {"ascii": ascii_name, "unicode": shown}
            for ascii_name, shown in zip(judged.names, judged.unicode_names, strict=True)
        ],
        "kind": words.plain(words.DOMAIN_TYPES, judged.domain_type),
        "exceptions": [(unicode_name(name), method) for name, method in judged.per_name_methods.items()],
        "kept": kept,
        "technical": judged.technical_contact,
        "root_hash": judged.root_hash,
        "fallback_name": await ca_name(call, fallback) if fallback else "",
        "certificate_type": judged.certificate_type,
        "organisation": named.facts.legal_name if named else "",
        "ca_name": await ca_name(call, ca),
        "consent_version": statement,
    }
    return page(call, "certificates/review.html", view)


@pages.get("/privacy-statement", action=SIGNED_IN)
async def privacy_statement(call: Call) -> Response:
    """What applicants agree to: today's text, or the one of a version somebody agreed to."""
    found = await certificates.privacy_statement(call.services, call.query.optional("version"))
    today = certificates.current_privacy_statement(call.services).version
    view = {"version": found.version, "today": found.version == today, "parts": found.parts}
    return page(call, "certificates/privacy.html", view)


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
                "ascii": domain.name,
                "unicode": domain.unicode_name,
                "shares": _sharing(domains, domain),
                "challenge_id": domain.challenge_id,
                "instead": domain.instead,
                "delegated_from": domain.delegated_from,
                "mailing": domain.mailing,
                "ends": date.fromisoformat(domain.ends) if domain.ends else None,
                "status": str(domain.status),
                "automatic": domain.automatic,
                "record": domain.record,
                "file": domain.file,
                "responder": domain.responder,
                "explanation": domain.explanation,
                "checked_at": domain.checked_at,
                "next_check_at": domain.next_check_at,
                "valid_until": domain.valid_until,
                "expires_at": domain.expires_at,
            }
            for domain in domains
        ],
        "under_way": detail.summary.state in _MOVING,
        "asking": detail.validation is None and detail.allowed[Operation.VERIFY_DOMAINS] is None,
        "waiting": detail.validation is not None and not detail.validation.all_valid,
        "awaited": await _awaited(call, detail),
        "issued": detail.summary.state is State.ISSUED,
        "can_check": detail.allowed[Operation.VERIFY_DOMAINS] is None and call.allowed("scm:validation:check"),
        "can_withdraw": detail.allowed[Operation.WITHDRAW] is None and call.allowed("scm:cert:withdraw"),
    }
    return page(call, "certificates/validation.html", view, problem)


def _sharing(domains: Sequence[validation.DomainState], own: validation.DomainState) -> list[str]:
    """The other names that the record of this one counts for."""
    return [d.unicode_name for d in domains if d is not own and d.record is not None and d.record == own.record]


@pages.post("/certificates/{id}/validation/{challenge_id}/mail", action="scm:validation:check")
async def resend_mail(call: Call) -> Response:
    certificate_id = call.param("id")
    try:
        await validation.resend(call.services, call.actor, call.param("challenge_id"))
    except FORM_PROBLEMS as problem:
        return await _validation(call, certificate_id, problem)
    return see(f"/certificates/{certificate_id}/validation", said="mailed", call=call)


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


@pages.post("/certificates/{id}/withdraw", action="scm:cert:withdraw", ask="withdraw")
async def withdraw(call: Call) -> Response:
    certificate_id = call.param("id")
    try:
        left = await certificates.withdraw(call.services, call.actor, certificate_id)
    except FORM_PROBLEMS as problem:
        return await _detail(call, certificate_id, problem)
    said = "withdrawing" if left.summary.state is State.VERIFYING_WITHDRAWAL else "withdrawn"
    return see(f"/certificates/{certificate_id}", said=said, call=call)


@pages.get("/certificates/{id}/reissue", action="scm:cert:renew")
async def reissue_page(call: Call) -> Response:
    detail = await certificates.get_certificate(call.services, call.actor, call.param("id"))
    return page(call, "certificates/reissue.html", await _changes_view(call, detail, _present(detail)))


@pages.post("/certificates/{id}/reissue", action="scm:cert:renew")
async def reissue(call: Call) -> Response:
    detail = await certificates.get_certificate(call.services, call.actor, call.param("id"))
    try:
        wanted = _changes(call.form, detail)
        await certificates.reissue(call.services, call.actor, detail.id, wanted)
    except FORM_PROBLEMS as problem:
        view = await _changes_view(call, detail, call.form.values())
        return page(call, "certificates/reissue.html", view, problem, renamed=_RENAMED)
    return see(f"/certificates/{detail.id}", said="reissuing", call=call)


@pages.get("/certificates/{id}/add", action="scm:cert:renew")
async def add_page(call: Call) -> Response:
    detail = await certificates.get_certificate(call.services, call.actor, call.param("id"))
    values = _present(detail) | {"names": ""}
    return page(call, "certificates/add.html", await _changes_view(call, detail, values))


@pages.post("/certificates/{id}/add", action="scm:cert:renew")
async def add_domains(call: Call) -> Response:
    detail, form = await certificates.get_certificate(call.services, call.actor, call.param("id")), call.form
    try:
        wanted = replace(_changes(form, detail), names=None)
        await certificates.add_domains(call.services, call.actor, detail.id, form.lines("names"), wanted)
    except FORM_PROBLEMS as problem:
        view = await _changes_view(call, detail, form.values())
        return page(call, "certificates/add.html", view, problem, renamed=_RENAMED)
    return see(f"/certificates/{detail.id}", said="adding", call=call)


def _present(detail: Detail) -> dict[str, str]:
    """What the last application asked for, to be changed."""
    last = detail.application
    if last is None:
        return {"names": "\n".join(unicode_name(name) for name in detail.summary.names)}
    applicant = last.applicant or {}
    return {
        "names": "\n".join(last.unicode_names),
        "validation_method": last.validation_method,
        "key_source": "csr" if last.key_source == "uploaded_csr" else "system",
        "key_algorithm": _code_of(last.key_algorithm),
        "organisation_id": last.organisation_id or "",
        "applicant_name": applicant.get("name", ""),
        "applicant_email": applicant.get("email", ""),
        "applicant_phone": applicant.get("phone", ""),
    }


def _code_of(algorithm: str) -> str:
    """Of CSRs the algorithm is kept as people read it."""
    known = {label: code for code, label in words.KEY_ALGORITHMS.items()}
    return known.get(algorithm, algorithm)


async def _changes_view(call: Call, detail: Detail, values: Mapping[str, str]) -> dict[str, Any]:
    last, coverage = detail.application, detail.coverage
    used = len(detail.summary.names)
    quota = coverage.names + coverage.wildcards if coverage else certificates.MOST_NAMES
    return {
        "cert": detail.summary,
        "shown_name": shown_name(detail.summary),
        "names_now": _names(detail.summary.names),
        "values": values,
        "algorithms": _algorithms(),
        "names_organisation": last is not None and CertificateType(last.certificate_type).names_organisation,
        "organisations": await _organisation_options(call),
        "pinned": last is not None and last.key_pinned,
        "with_csr": last is not None and last.key_source == "uploaded_csr",
        "used": used,
        "quota": quota,
        "left": max(0, quota - used),
        "bought": coverage,
    }


def _changes(form: Form, detail: Detail) -> Changes:
    """What differs from the last application; what is as it was stays out, so that evidence and key rules hold."""
    before, own = _present(detail), form.text("key_source") == "csr"
    csr = form.optional("csr") if own else None
    if own and csr is None:
        raise Invalid(
            "csr_missing", "The CSR is missing.", field="csr", fix="Paste it, or let Certwright make the key."
        )

    def new(name: str) -> str | None:
        text = form.text(name)
        return text if text and text != before.get(name, "") else None

    typed = {name: form.text(f"applicant_{name}") for name in ("name", "email", "phone")}
    known = {name: before.get(f"applicant_{name}", "") for name in typed}
    names = form.lines("names")
    return Changes(
        names=names if names and list(names) != before["names"].splitlines() else None,
        csr=csr,
        key_algorithm=None if own else new("key_algorithm"),
        validation_method=new("validation_method"),
        applicant=Applicant(**typed) if typed != known and any(typed.values()) else None,
        organisation_id=new("organisation_id"),
    )


@pages.post("/certificates/{id}/again", action="scm:cert:apply")
async def apply_again(call: Call) -> Response:
    certificate_id = call.param("id")
    try:
        await certificates.apply_again(call.services, call.actor, certificate_id)
    except FORM_PROBLEMS as problem:
        return await _detail(call, certificate_id, problem)
    return see(f"/certificates/{certificate_id}/apply", said="again", call=call)


@pages.get("/certificates/{id}/privacy", action="scm:cert:withdraw_privacy")
async def privacy_page(call: Call) -> Response:
    return page(call, "confirm.html", await _privacy_view(call))


async def _privacy_view(call: Call) -> dict[str, Any]:
    detail = await certificates.get_certificate(call.services, call.actor, call.param("id"))
    back = f"/certificates/{detail.id}"
    lines = [_("Erased for good: the name, e-mail address and phone number of everybody who applied for it.")]
    if detail.application is not None and CertificateType(detail.application.certificate_type).names_organisation:
        lines.append(
            _("Erased as well: the organization's details kept with its applications, the documents that were sent, "
              "what specialists noted, and the letters. The verification is used for no other certificate.")
        )  # fmt: skip
    lines.append(_("The issued certificate stays as it is, and so does the organization in your list."))
    return {
        "section": "certificates",
        "title": _("Withdraw privacy authorization for %(name)s?") % {"name": shown_name(detail.summary)},
        "crumbs": [(_("Certificates"), "/certificates"), (shown_name(detail.summary), back)],
        "action": f"{back}/privacy",
        "back": back,
        "warning": _("This can't be undone"),
        "lines": lines,
        "button": _("Erase the personal data"),
    }


@pages.post("/certificates/{id}/privacy", action="scm:cert:withdraw_privacy")
async def withdraw_privacy(call: Call) -> Response:
    try:
        await certificates.withdraw_privacy(call.services, call.actor, call.param("id"))
    except FORM_PROBLEMS as problem:
        return page(call, "confirm.html", await _privacy_view(call), problem)
    return see(f"/certificates/{call.param('id')}", said="erased", call=call)


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


@pages.post("/certificates/{id}/messages", action="scm:cert:update")
async def messages(call: Call) -> Response:
    certificate_id, on = call.param("id"), call.form.checked("notify")
    try:
        await certificates.update_certificate(
            call.services, call.actor, certificate_id, revision=revision_of(call.form), notify=on
        )
    except FORM_PROBLEMS as problem:
        return await _detail(call, certificate_id, problem)
    return see(f"/certificates/{certificate_id}", said="notify_on" if on else "notify_off", call=call)


@pages.post("/certificates/{id}/confirmation", action="scm:cert:revoke")
async def mail_confirmation(call: Call) -> Response:
    certificate_id = call.param("id")
    try:
        await certificates.mail_revocation_again(call.services, call.actor, certificate_id)
    except FORM_PROBLEMS as problem:
        return await _detail(call, certificate_id, problem)
    return see(f"/certificates/{certificate_id}", said="mailed_again", call=call)


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
        return page(call, "certificates/edit.html", await _edit_view(call, detail.summary, form.values()), problem)
    return see(f"/certificates/{certificate_id}", said="saved", call=call)


@pages.get("/certificates/{id}/revoke", action="scm:cert:revoke")
async def revoke_page(call: Call) -> Response:
    return page(call, "certificates/revoke.html", await _revoke_view(call))


async def _revoke_view(call: Call) -> dict[str, Any]:
    certificate_id = call.param("id")
    detail = await certificates.get_certificate(call.services, call.actor, certificate_id)
    bound = await _bindings(call, certificate_id)
    chosen = await _authority(call, detail.summary.ca)
    taken = chosen.capabilities.revocation_reasons if chosen else tuple(RevocationReason)
    versions = _revocable(detail, call.now)
    return {
        "cert": detail.summary,
        "shown_name": shown_name(detail.summary),
        "bound": [f"{b['site']} ({b['target']})" for b in bound],
        "bought": detail.coverage,
        "by_mail": _agrees_by_mail(detail) and not (chosen and chosen.capabilities.checks_organisations),
        "reasons": [
            (reason.value, words.word(words.REASONS, reason), words.detail(words.REASONS, reason)) for reason in taken
        ],
        "versions": [
            (version.id, _("Version %(number)s") % {"number": version.number}, _version_words(version))
            for version in versions
        ],
        "ca_name": await ca_name(call, detail.summary.ca),
        "refused": None if versions else detail.allowed[Operation.REVOKE],
        "values": call.form.values(),
    }


def _revocable(detail: Detail, now: datetime) -> list[VersionView]:
    """The versions whose revocation can be asked for, the current one first."""
    current_too = detail.allowed[Operation.REVOKE] is None
    earlier_too = detail.allowed[Operation.REVOKE_EARLIER] is None
    found = [
        version
        for version in detail.versions
        if version.revoke_asked_at is None
        and version.not_after > now
        and (current_too if version.superseded_at is None else earlier_too)
    ]
    return sorted(found, key=lambda version: -version.number)


def _version_words(version: VersionView) -> str:
    until = {"day": day(version.not_after), "fingerprint": short(version.sha256)}
    if version.superseded_at is None:
        return _("The current one, valid until %(day)s · %(fingerprint)s…") % until
    return _("Superseded, but valid until %(day)s for whoever has its key · %(fingerprint)s…") % until


@pages.post("/certificates/{id}/revoke", action="scm:cert:revoke")
async def revoke(call: Call) -> Response:
    certificate_id, text = call.param("id"), call.form.text("reason")
    try:
        if text not in set(RevocationReason):
            raise Invalid("revocation_reason_unknown", "Choose why.", field="reason", fix="Pick one of the reasons.")
        await certificates.revoke(
            call.services, call.actor, certificate_id, RevocationReason(text),
            version_id=call.form.optional("version_id"),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        return page(call, "certificates/revoke.html", await _revoke_view(call), problem)
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
        found = await certificates.get_certificate(call.services, call.actor, call.param("id"))
        if found.only_by_program is not None:
            raise found.only_by_program
        await certificates.delete_certificate(call.services, call.actor, found.id)
    except FORM_PROBLEMS as problem:
        return page(call, "confirm.html", await _delete_view(call), problem)
    return see("/certificates", said="deleted", call=call)


@pages.get("/certificates/{id}/download", action="scm:cert:download")
async def download(call: Call) -> Response:
    kind = call.query.text("format")
    if kind not in _WITHOUT_KEY:
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
