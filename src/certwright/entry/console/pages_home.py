"""The overview: counts, when certificates run out, what is wrong, what to do first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from babel.dates import format_date
from starlette.responses import Response

from certwright.entry.api.base import SIGNED_IN
from certwright.entry.console.charts import expiry_bars
from certwright.entry.console.web import Call, Pages, page
from certwright.entry.web_certificate import own_certificate
from certwright.kernel.problems import Forbidden, NotFound
from certwright.platform.i18n import _, current_locale
from certwright.rooms import authorities, certificates, deployment, watch
from certwright.rooms.certificates import State

pages = Pages()

_WEEKS = 14
IN_USE = (State.ISSUED, State.HOSTED, State.VERIFYING_REISSUE, State.VERIFYING_DOMAIN_ADDITION)
OPEN = (
    State.PENDING_APPLICATION,
    State.PENDING_DOMAIN_VALIDATION,
    State.PENDING_ORGANIZATION_VALIDATION,
    State.TO_BE_ISSUED,
    State.APPROVAL_FAILED,
    State.VERIFYING_REISSUE,
    State.VERIFYING_DOMAIN_ADDITION,
    State.VERIFYING_WITHDRAWAL,
    State.VERIFYING_REVOCATION,
    State.REVOCATION_PENDING_DOMAIN_VALIDATION,
)


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the getting-started list; `next` marks the first that isn't done."""

    done: bool
    title: str
    text: str
    href: str
    button: str
    next: bool = False


@pages.get("/", action=SIGNED_IN)
async def home(call: Call) -> Response:
    services, actor = call.services, call.actor
    counts = dict(await certificates.count_by_state(services, actor))
    soon = counts.pop("expires_soon", 0)
    per_day = await certificates.expiry_days(services, actor, 7 * _WEEKS)
    due = await certificates.list_certificates(
        services, actor, certificates.Filters(states=IN_USE), sort="expiry", descending=False, limit=5
    )
    alarms = []
    watching = None
    if call.allowed("alarm:alarm:list"):
        alarms = [alarm_line(row) for row in await watch.list_alarms(services, actor, watch.AlarmFilter(), limit=5)]
        async with services.db.begin() as tx:
            watching = await watch.counts(tx, actor)
    bars = [
        {
            "first": bar.first, "last": bar.last, "count": bar.count, "height": bar.height, "top": bar.top,
            "tone": bar.tone, "label": format_date(bar.first, "d MMM", locale=current_locale()),
        }
        for bar in expiry_bars([(at.date(), n) for at, n in per_day], call.now.date(), weeks=_WEEKS)
    ]  # fmt: skip
    own = await _own_certificate(call)
    # It is counted like any other, but whoever has nothing else has not begun yet.
    begun = sum(counts.values()) > (own is not None)
    view: dict[str, Any] = {
        "any": begun,
        "own": own,
        "tiles": {
            "issued": sum(counts.get(state, 0) for state in IN_USE),
            "open": sum(counts.get(state, 0) for state in OPEN),
            "soon": soon,
            "expired": counts.get(State.EXPIRED, 0),
            "alarms": sum(watching.alarms.values()) if watching else 0,
        },
        "bars": bars,
        "alarms": alarms,
        "due": [line for line in due if line.not_after is not None],
        "checklist": await _checklist(call, watching, begun=begun),
    }
    return page(call, "home.html", view)


def alarm_line(row: Any) -> dict[str, Any]:
    """An alarm as lists show it."""
    kind = watch.localized(row.kind)
    return {
        "id": row.id,
        "kind": row.kind,
        "name": kind.name,
        "severity": row.severity,
        "resource_name": row.object_name,
        "sentence": watch.sentence(row.reason, row.params),
        "raised_at": row.raised_at,
        "cleared_at": row.cleared_at,
        "acknowledged_by": row.acknowledged_by,
    }


async def _own_certificate(call: Call) -> str | None:
    """The id of the certificate this console is served with, if the caller sees it in the list."""
    own = own_certificate(call.services.settings)
    if own is None or not call.allowed("scm:cert:get"):
        return None
    try:
        await certificates.get_certificate(call.services, call.actor, own)
    except (NotFound, Forbidden):
        return None
    return own


async def _checklist(call: Call, watching: watch.Counts | None, *, begun: bool) -> list[Step]:
    """What a new installation does first; empty once everything was done, and for people who can't do it."""
    if not call.allowed("scm:cert:apply") or not call.allowed("scm:target:create"):
        return []
    services, actor = call.services, call.actor
    has_ca = bool(await authorities.public_authorities(services))
    targets = await deployment.list_targets(services, actor, limit=1)
    steps = [
        Step(has_ca, _("The private CA is ready"), _("It is made at the first start."), "", ""),
        Step(
            begun,
            _("Apply for your first certificate"),
            _("Name a domain and show that it is yours."),
            "/certificates/new",
            _("Apply"),
        ),
        Step(
            bool(targets),
            _("Add a server"),
            _("Say where nginx runs; its sites are found without typing."),
            "/targets/new",
            _("Add a target"),
        ),
        Step(
            watching is not None and watching.endpoints > 0,
            _("Watch an address"),
            _("Hear of an expired or wrong certificate before visitors do."),
            "/endpoints/new",
            _("Watch"),
        ),
        Step(
            services.settings.smtp_host is not None,
            _("Let it send e-mail"),
            _("Set CERTWRIGHT_SMTP_HOST and start again, so that alarms reach you."),
            "",
            "",
        ),
    ]
    if all(step.done for step in steps):
        return []
    first = next(step for step in steps if not step.done)
    if begun:
        # Once certificates are there, only what is left is worth the space.
        steps = [step for step in steps if not step.done]
    return [Step(step.done, step.title, step.text, step.href, step.button, next=step is first) for step in steps]
