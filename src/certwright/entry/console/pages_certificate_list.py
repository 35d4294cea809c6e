"""The list of certificates: filters, files of what they find, and one operation on many with its preview."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from starlette.responses import Response

from certwright.entry.api.base import in_utc
from certwright.entry.api.certificate_export import EXPORT_FORMATS, export_response
from certwright.entry.console import words
from certwright.entry.console.forms import Form
from certwright.entry.console.pages_certificates import KEY_ALGORITHMS, ca_options, shown_name, unicode_name
from certwright.entry.console.pages_home import IN_USE, OPEN
from certwright.entry.console.web import FORM_PROBLEMS, Call, Pages, page, see, with_query
from certwright.entry.web_certificate import own_certificate
from certwright.kernel.problems import Invalid, Problem, not_found
from certwright.platform.i18n import N_, _
from certwright.rooms import access, certificates, deployment
from certwright.rooms.certificates import (
    Bulk,
    BulkAction,
    CertificateType,
    DomainType,
    RevocationReason,
    State,
    Summary,
)

pages = Pages()

_PAGE = 20
_NO_END = "none"
_SORTS = (
    ("created", N_("Newest first"), True),
    ("expiry", N_("Expiry"), False),
    ("updated", N_("Last changed"), True),
    ("state", N_("State"), False),
)
_SHOWN_STATES = (
    State.PENDING_APPLICATION,
    State.PENDING_DOMAIN_VALIDATION,
    State.PENDING_ORGANIZATION_VALIDATION,
    State.TO_BE_ISSUED,
    State.ISSUED,
    State.APPROVAL_FAILED,
    State.VERIFYING_REISSUE,
    State.VERIFYING_DOMAIN_ADDITION,
    State.VERIFYING_WITHDRAWAL,
    State.VERIFYING_REVOCATION,
    State.REVOCATION_PENDING_DOMAIN_VALIDATION,
    State.REVOKED,
    State.HOSTED,
    State.EXPIRED,
    State.REFUND_REVIEW,
)
_FILTERS = (
    "q", "state", "type", "domains", "ca", "project", "tag", "key", "target", "soon", "expires_after", "expires_before",
)  # fmt: skip
# Not beside the search, but in the part that opens.
_FURTHER = tuple(name for name in _FILTERS if name not in ("q", "state"))


# --- the list -------------------------------------------------------------------------------------------------------


def _line(summary: Summary) -> dict[str, Any]:
    return {
        "id": summary.id,
        "name": summary.name,
        "shown_name": shown_name(summary),
        "more": max(len(summary.names) - 1, 0),
        "state": summary.state,
        "progress": summary.progress,
        "expires_soon": summary.expires_soon,
        "not_after": summary.not_after,
        "key_algorithm": summary.key_algorithm,
        "uploaded": summary.uploaded,
        "auto_renew": summary.auto_renew,
    }


@pages.get("/certificates", action="scm:cert:list")
async def list_page(call: Call) -> Response:
    query = call.query
    values = {name: query.text(name) for name in (*_FILTERS, "sort")}
    lines: list[dict[str, Any]] = []
    next_href, problem = "", None
    try:
        lines, next_href = await _page_of(call, values)
    except Invalid as met:
        problem = met
    chosen = {name: values[name] for name in _FILTERS if values[name]}
    view = {
        "lines": lines,
        "own": own_certificate(call.services.settings),
        "filtered": bool(chosen) or problem is not None or "after" in query,
        "further": any(name in chosen for name in _FURTHER),
        "chosen": chosen,
        "values": values,
        "states": _state_options(),
        "sorts": [(value, _(title)) for value, title, _down in _SORTS],
        "options": await _options(call),
        "actions": _action_options(call),
        "next_href": next_href,
        "first_href": with_query("/certificates", **values) if "after" in query else "",
    }
    return page(call, "certificates/list.html", view, problem)


def _state_options() -> list[tuple[str, str]]:
    shown = [(state.value, words.word(words.CERTIFICATE_STATES, state)) for state in _SHOWN_STATES]
    return [("", _("All states")), ("used", _("In use")), ("open", _("In progress")), *shown]


async def _options(call: Call) -> dict[str, list[tuple[str, str]]]:
    """What the further filters offer; those with nothing to choose are empty."""
    projects: list[tuple[str, str]] = []
    if call.allowed("iam:project:list"):
        found = await access.people.list_projects(call.services, call.actor, limit=100)
        projects = [(project.id, project.name) for project in found]
    targets: list[tuple[str, str]] = []
    if call.allowed("scm:target:list"):
        targets = [(t.id, t.name) for t in await deployment.list_targets(call.services, call.actor, limit=100)]
    every = ("", _("All"))
    return {
        "type": [every, *((kind.value, words.word(words.APPLICATION_TYPES, kind)) for kind in CertificateType)],
        "domains": [every, *((kind.value, words.plain(words.DOMAIN_TYPES, kind)) for kind in DomainType)],
        "ca": [every, *await ca_options(call)],
        "key": [every, *((label, label) for label in (words.KEY_ALGORITHMS[code] for code in KEY_ALGORITHMS))],
        "project": [every, *projects] if len(projects) > 1 else [],
        "target": [every, *targets] if targets else [],
    }


async def _page_of(call: Call, values: Mapping[str, str]) -> tuple[list[dict[str, Any]], str]:
    sort, descending = next(
        ((name, down) for name, _title, down in _SORTS if name == values["sort"]), (_SORTS[0][0], _SORTS[0][2])
    )
    after = await _after(call, sort)
    found = await certificates.list_certificates(
        call.services, call.actor, _filters(values), sort=sort, descending=descending, after=after, limit=_PAGE + 1
    )
    more = len(found) > _PAGE
    found = found[:_PAGE]
    next_href = with_query("/certificates", **values, after=_cursor(found[-1], sort)) if more else ""
    return [_line(summary) for summary in found], next_href


def _filters(values: Mapping[str, str]) -> certificates.Filters:
    """Raises Invalid `day_invalid`."""
    return certificates.Filters(
        states=_states(values["state"]),
        search=values["q"] or None,
        ca=values["ca"] or None,
        project_id=values["project"] or None,
        tag=_tag(values["tag"]),
        expires_after=_day(values["expires_after"]),
        expires_before=_end_of(values["expires_before"]),
        expires_soon=True if values["soon"] else None,
        key_algorithm=values["key"] or None,
        certificate_type=values["type"] or None,
        domain_type=values["domains"] or None,
        deployed_on=values["target"] or None,
    )


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


def _day(text: str) -> datetime | None:
    """The begin of the day `YYYY-MM-DD`; raises Invalid."""
    if not text:
        return None
    try:
        return datetime.combine(date.fromisoformat(text), time(), UTC)
    except ValueError as error:
        raise Invalid("day_invalid", f"{text[:40]!r} is not a day.", fix="Write it as 2027-01-31.") from error


def _end_of(text: str) -> datetime | None:
    """The end of the day `YYYY-MM-DD`; raises Invalid."""
    begin = _day(text)
    try:
        return None if begin is None else begin + timedelta(days=1)
    except OverflowError as error:
        raise Invalid("day_invalid", f"{text[:40]!r} is not a day.", fix="Write it as 2027-01-31.") from error


def _cursor(summary: Summary, sort: str) -> str:
    """Where the page ended: value and id. It is shown to nobody and holds nothing secret."""
    match sort:
        case "expiry":
            # Those without one come last, by their ids.
            value = summary.not_after.isoformat() if summary.not_after is not None else _NO_END
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
    if sort == "expiry" and value == _NO_END:
        return None, last_id
    if sort in ("expiry", "updated"):
        try:
            return in_utc(datetime.fromisoformat(value)), last_id
        except ValueError as error:
            raise wrong from error
    return value, last_id


@pages.get("/certificates/export/{format}", action="scm:cert:list")
async def export(call: Call) -> Response:
    """What the filters find, all of it, as a file."""
    wanted = call.param("format")
    kind = next((known for known in EXPORT_FORMATS if known == wanted), None)
    if kind is None:
        raise not_found("format", wanted[:40])
    filters = _filters({name: call.query.text(name) for name in _FILTERS})
    return await export_response(certificates.export_certificates(call.services, call.actor, filters), kind)


# --- many at once ---------------------------------------------------------------------------------------------------

_ACTIONS: Mapping[BulkAction, str] = {
    BulkAction.AUTO_RENEW_ON: "scm:cert:update",
    BulkAction.AUTO_RENEW_OFF: "scm:cert:update",
    BulkAction.NOTIFY_ON: "scm:cert:update",
    BulkAction.NOTIFY_OFF: "scm:cert:update",
    BulkAction.TAG: "scm:cert:update",
    BulkAction.UNTAG: "scm:cert:update",
    BulkAction.MOVE: "scm:cert:update",
    BulkAction.VERIFY_DOMAINS: "scm:validation:check",
    BulkAction.WITHDRAW: "scm:cert:withdraw",
    BulkAction.REISSUE: "scm:cert:renew",
    BulkAction.WITHDRAW_PRIVACY: "scm:cert:withdraw_privacy",
    BulkAction.REVOKE: "scm:cert:revoke",
    BulkAction.DELETE: "scm:cert:delete",
}


def _action_options(call: Call) -> list[tuple[str, str]]:
    return [
        (action.value, words.word(words.BULK_ACTIONS, action))
        for action, needed in _ACTIONS.items()
        if call.allowed(needed)
    ]


@pages.post("/certificates/bulk", action="scm:cert:list")
async def bulk_page(call: Call) -> Response:
    """What would become of the chosen certificates; nothing is changed yet."""
    return await _bulk(call)


@pages.post("/certificates/bulk/do", action="scm:cert:list")
async def bulk_do(call: Call) -> Response:
    try:
        lines = await certificates.bulk_perform(call.services, call.actor, _wanted(call.form), call.form.many("id"))
    except FORM_PROBLEMS as problem:
        return await _bulk(call, problem)
    if all(line.fine for line in lines):
        return see("/certificates", said="bulk_done", call=call)
    return await _bulk(call, done=lines)


async def _bulk(call: Call, problem: Problem | None = None, done: list[certificates.Line] | None = None) -> Response:
    """The preview; once it was done, those that were left alone with their reasons."""
    form, action = call.form, _action(call.form)
    lines: list[certificates.Line] = done or []
    more = False
    if done is None:
        try:
            ids, more = await _chosen(call)
            bulk = _wanted(form) if problem is None else None
            if bulk is not None and _complete(bulk):
                lines = await certificates.bulk_preview(call.services, call.actor, bulk, ids)
            else:
                # Who they are is shown while the rest is still to be said.
                bulk = Bulk(BulkAction.NOTIFY_ON)
                found = await certificates.bulk_preview(call.services, call.actor, bulk, ids)
                lines = [certificates.Line(line.id, line.name, line.primary_name, None) for line in found]
        except FORM_PROBLEMS as met:
            problem = met
    projects = []
    if action is BulkAction.MOVE and call.allowed("iam:project:list"):
        found_projects = await access.people.list_projects(call.services, call.actor, limit=100)
        projects = [(project.id, project.name) for project in found_projects]
    complete = problem is None and done is None and _complete(_wanted(form))
    view = {
        "action": action.value,
        "values": form.values(),
        "lines": [
            {"id": line.id, "shown": unicode_name(line.primary_name) if line.primary_name else line.name or line.id,
             "name": line.name, "problem": line.problem}
            for line in lines
        ],
        "fine": [line.id for line in lines if line.fine],
        "refused": sum(not line.fine for line in lines),
        "more": more,
        "complete": complete,
        "done": done is not None,
        "projects": projects,
        "reasons": [(reason.value, words.word(words.REASONS, reason)) for reason in RevocationReason],
    }  # fmt: skip
    return page(call, "certificates/bulk.html", view, problem)


def _action(form: Form) -> BulkAction:
    text = form.text("action")
    try:
        return BulkAction(text)
    except ValueError as error:
        raise not_found("operation", text[:40]) from error


def _complete(bulk: Bulk) -> bool:
    """Whether all that the action needs was said."""
    match bulk.action:
        case BulkAction.TAG | BulkAction.UNTAG:
            return bool(bulk.tags)
        case BulkAction.MOVE:
            return bool(bulk.project_id)
        case BulkAction.REVOKE:
            return bulk.reason is not None
    return True


def _wanted(form: Form) -> Bulk:
    tags = {}
    for line in form.lines("tags"):
        key, _equals, value = line.partition("=")
        tags[key.strip()] = value.strip()
    reason = form.text("reason")
    return Bulk(
        _action(form), tags=tags or None, project_id=form.optional("project_id"),
        reason=RevocationReason(reason) if reason in set(RevocationReason) else None, by_hand=True,
    )  # fmt: skip


async def _chosen(call: Call) -> tuple[list[str], bool]:
    """The ids ticked, or all that the filters find, and whether they find more than fit."""
    if not call.form.checked("all"):
        return list(call.form.many("id")), False
    filters = _filters({name: call.form.text(name) for name in _FILTERS})
    most = certificates.MOST_AT_ONCE
    found = await certificates.list_certificates(call.services, call.actor, filters, limit=most + 1)
    return [summary.id for summary in found[:most]], len(found) > most
