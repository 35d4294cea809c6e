"""The audit log."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from starlette.responses import Response

from certwright.entry.console.pages_certificates import changes_of
from certwright.entry.console.web import Call, Pages, page, with_query
from certwright.kernel.problems import Invalid
from certwright.rooms import access, audit

pages = Pages()

_PAGE = 50
_FIELDS = ("action", "object_id", "actor_id", "since", "until")


def _day(text: str, field: str, *, after: int = 0) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.combine(date.fromisoformat(text) + timedelta(days=after), time(), UTC)
    except (ValueError, OverflowError) as error:
        raise Invalid(
            "day_invalid", f"{text[:40]!r} is not a day.", field=field, fix="Write it as 2027-01-31."
        ) from error


@pages.get("/audit", action="iam:audit:list")
async def events(call: Call) -> Response:
    values = {name: call.query.text(name) for name in _FIELDS}
    before = call.query.optional("before")
    found, problem = [], None
    try:
        wanted = audit.Filter(
            action=values["action"] or None,
            object_id=values["object_id"] or None,
            actor_id=values["actor_id"] or None,
            since=_day(values["since"], "since"),
            until=_day(values["until"], "until", after=1),
        )
        found = await access.people.audit_events(call.services, call.actor, wanted, limit=_PAGE + 1, before=before)
    except Invalid as met:
        problem = met
    more, found = len(found) > _PAGE, found[:_PAGE]
    view = {
        "values": values,
        "events": [
            {
                "at": e.at, "actor_id": e.actor_id, "actor_name": e.actor_name, "action": e.action,
                "object_type": e.object_type, "object_id": e.object_id,
                "reason": e.reason, "changes": changes_of(e.before, e.after),
            }
            for e in found
        ],
        "next_href": with_query("/audit", **values, before=found[-1].id) if more else "",
        "first_href": with_query("/audit", **values) if before else "",
    }  # fmt: skip
    return page(call, "audit.html", view, problem)
